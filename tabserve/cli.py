"""The command `tabserve`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from tabserve import __version__, extras
from tabserve import bundle as bundles
from tabserve import up as local
from tabserve.bundle import Bundle, expected, metadata
from tabserve.bundle.commands import sign
from tabserve.bundle.manifest import EngineName
from tabserve.card.commands import card
from tabserve.client import Client, ServiceError
from tabserve.decision_log.commands import log
from tabserve.doctor.command import doctor
from tabserve.engines.estimators import untrusted
from tabserve.inference.rest import openapi
from tabserve.inference.settings import Server
from tabserve.monitor.commands import monitor
from tabserve.options import ALLOW_JOBLIB, DIRECTORY, FILE, THREADS, TRUSTED, VERIFY, trusted_names
from tabserve.request import command as asking
from tabserve.request import reading
from tabserve.rollout.command import rollout
from tabserve.schema.schema import Task
from tabserve.stream.commands import stream
from tabserve.terminal import table
from tabserve.train import command as training

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


class _Commands(click.Group):
    """Commands that say which extra a missing module is of."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command. Raises ClickException for a missing module that is of an extra."""
        try:
            return super().invoke(context)
        except ModuleNotFoundError as error:
            if (told := extras.needs(error)) is None:
                raise
            raise click.ClickException(told) from None


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="tabserve")
def main() -> None:
    """Serve tabular models: bundles, a local run, requests."""


@main.group()
def bundle() -> None:
    """Write a bundle, or look at one."""


_PORT = click.IntRange(1, 65535)
bundle.add_command(sign)


@bundle.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--digest", help="Refuse any bundle but this one, sha256:….")
@VERIFY
@ALLOW_JOBLIB
@TRUSTED
def check(directory: Path, trusted: Sequence[str], **options: Any) -> None:
    """Verify digests, versions, schema and the reference answers; exit with status 1 if a check fails."""
    findings = bundles.check(directory, trusted=trusted_names(trusted), **options)
    rows = [{"check": f.check, "result": "ok" if f.ok else "FAILED", "detail": f.detail} for f in findings]
    click.echo(table(rows))
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


@bundle.command()
@click.argument("directory", type=DIRECTORY)
def show(directory: Path) -> None:
    """Print what is in a bundle, without loading its model."""
    try:
        found = bundles.load(directory, allow_joblib=True)
    except bundles.BundleError as error:
        raise click.ClickException(str(error)) from None
    manifest, model = found.manifest, found.manifest.model
    facts = {
        "name": f"{manifest.name} {manifest.version} ({manifest.task}), saved {manifest.created}",
        "digest": found.digest,
        "model": f"{model.file} ({model.format}), {len(model.features)} features as {model.input} of {model.datatype}",
        "outputs": ", ".join(model.outputs),
        "engines": ", ".join(f"{part.engine} from {max(part.from_rows, 1)} rows" for part in model.engines),
        "record": ", ".join(f"{field.name}: {field.type}" for field in found.schema.record),
        "trusted": ", ".join(_to_trust(found)),
        "notes": "; ".join(model.notes),
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{name:8} {value}")


@bundle.command("openapi")
@click.argument("directory", type=DIRECTORY)
@click.option("--service", type=click.Choice(["transformer", "predictor"]), default="transformer", show_default=True)
@click.option("--model-name", default="", help="What clients call the model; default: the bundle's name.")
def openapi_document(directory: Path, service: str, model_name: str) -> None:
    """Print the OpenAPI 3.1 document of a bundle's service, as that serves it at /openapi.json."""
    try:
        found = bundles.load(directory, allow_joblib=True)
    except bundles.BundleError as error:
        raise click.ClickException(str(error)) from None
    describe = metadata.of_transformer if service == "transformer" else metadata.of_predictor
    click.echo(json.dumps(openapi.document(describe(found, model_name)), ensure_ascii=False, indent=2))


def _rounds(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and value != "best" and not value.isdigit():
        raise click.BadParameter(f"expected best or a number, got {value!r}")
    return value


@bundle.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--schema", required=True, type=FILE, help="schema.yaml; `tabserve schema draft` writes a first one.")
@click.option("--sample", required=True, type=FILE, help="The training data, a CSV or Parquet file.")
@click.option("--held-out", type=FILE, help="Records that the model was not trained on, to compare with later.")
@click.option("--label", metavar="COLUMN", help="Of the held-out file, or the sample: what a record turned out to be.")
@click.option("--name", required=True, help="What clients call the model.")
@click.option("--version", default="1", show_default=True, help="Of the model.")
@click.option("--into", type=click.Path(path_type=Path), help="The bundle's folder.  [default: the name]")
@click.option("--preprocessor", type=FILE, help="A fitted transformer in a file, from the schema's features.")
@click.option("--format", type=click.Choice(training.FORMATS), help="Of the model in the bundle; default: a safe one.")
@click.option("--engine", type=click.Choice(get_args(EngineName)), help="Evaluate only with this one.")
@click.option("--missing", type=float, help="The number that meant a missing value to a Booster, or nan for none.")
@click.option("--rounds", metavar="best|N", callback=_rounds, help="How many rounds of a Booster to predict with.")
@click.option(
    "--codes", multiple=True, metavar="NAME=A,B,…", help="Categories in the order of the numbers in their place."
)
@ALLOW_JOBLIB
@TRUSTED
def save(model: Path, into: Path | None, trusted: Sequence[str], **options: Any) -> None:
    """Save a model in a file as a bundle, with its schema and its training data.

    MODEL is a file that joblib, pickle or skops wrote (scikit-learn, XGBoost, LightGBM), XGBoost's own .json or .ubj,
    LightGBM's .txt, or the folder of a model that MLflow logged.

    A joblib or pickle file is a program: reading it runs whatever its author put into it. Give only files that you
    wrote, or whose author you trust. The bundle itself has no pickle unless you say --format joblib --allow-joblib.
    """
    try:
        told = training.save(model, into or Path(options["name"]), trusted=trusted_names(trusted), **options)
    except bundles.BundleError as error:
        raise click.ClickException(str(error)) from None
    click.echo(told)


def _to_trust(found: Bundle) -> list[str]:
    """The types in a bundle that have to be trusted by name; needs skops if there may be any."""
    preprocessor = found.manifest.preprocessor
    parts = [part for part in (found.manifest.model, preprocessor) if part is not None and part.format == "skops"]
    if not parts:
        return []
    return sorted(set().union(*(untrusted(found.read(part.file)) for part in parts)))


@main.group()
def schema() -> None:
    """Write a schema."""


@schema.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--target", metavar="COLUMN", help="The column with the label: it is no field, and shows the task.")
@click.option("--sample", type=FILE, help="With a folder: a file of records, for the values of categories.")
@click.option("--task", type=click.Choice(get_args(Task)), help="What the model does; guessed if left out.")
def draft(source: Path, target: str | None, sample: Path | None, task: Task | None) -> None:
    """Print a first schema.yaml, drafted from records or from an MLflow model.

    SOURCE is a CSV or Parquet file of records, or the folder of a model that MLflow logged. Look at every line of the
    draft: bounds are rounded outwards, and units, descriptions and decisions are yours to add.
    """
    try:
        click.echo(training.draft(source, target, sample, task), nl=False)
    except bundles.BundleError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--http-port", type=_PORT, help="REST port of the transformer.  [8080, or a free one]")
@click.option("--grpc-port", type=_PORT, help="gRPC port of the transformer.  [8081, or a free one]")
@click.option("--predictor-http-port", type=_PORT, help="REST port of the predictor.  [8083, or a free one]")
@click.option("--predictor-grpc-port", type=_PORT, help="gRPC port of the predictor.  [8084, or a free one]")
@click.option("--check", is_flag=True, help="Compare the first reference record's decision and stop.")
@click.option("--watch", is_flag=True, help="Serve a bundle that is saved in this folder anew, losing no request.")
@click.option("--log", default="", metavar="FOLDER", help="Write a record of each decision into this folder.")
@click.option("--compatible", type=click.Choice(get_args(Server)), help="Answer as this server's own runtimes do.")
@click.option("--page/--no-page", default=True, help="Show browsers a page to try the model.  [on]")
@ALLOW_JOBLIB
@TRUSTED
def up(
    directory: Path,
    check: bool,
    watch: bool,
    log: str,
    compatible: Server | None,
    page: bool,
    allow_joblib: bool,
    trusted: Sequence[str],
    **ports: int | None,
) -> None:
    """Run both services of a bundle on this machine until Ctrl-C, and print a decision and a curl."""
    try:
        found = bundles.load(directory, allow_joblib=allow_joblib)
    except bundles.BundleError as error:
        raise click.ClickException(str(error)) from None
    given = {name.removesuffix("_port"): port for name, port in ports.items() if port}
    chosen = msgspec.structs.replace(local.choose_ports(), **given)
    options = ["--allow_joblib=true"] if allow_joblib else []
    options += [f"--trusted={','.join(trusted_names(trusted))}"] if trusted else []
    options += [f"--compatible={compatible}"] if compatible else []
    record = expected.record(found, 0)

    def load() -> str:
        return bundles.load(directory, allow_joblib=allow_joblib).digest

    for number in (signal.SIGINT, signal.SIGTERM):  # both stop the services, even if the shell has us ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    try:
        with local.serving(
            directory, chosen, local.Given(options, log, page and not check), load if watch else None, click.echo
        ) as wait_until_ended:
            model, url = found.manifest.name, f"http://{local.HOST}:{chosen.http}"
            with Client(url) as client:
                decision = client.decide(model, [record])[0]
            _print_decision(url, model, record, decision)
            if check:
                _compare(decision, expected.decision(found, 0))
                return
            if page:
                click.echo(f"Try it in a browser: {url}/\n")
            click.echo("Serving until Ctrl-C.")
            wait_until_ended()
    except (local.UpError, ServiceError, bundles.BundleError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _print_decision(url: str, model: str, record: Mapping[str, Any], decision: Mapping[str, Any]) -> None:
    body = json.dumps({"instances": [record]})
    click.echo(f"\nThe first reference record's decision:\n  {json.dumps(decision, ensure_ascii=False)}\n")
    click.echo("Ask for it yourself:")
    click.echo(
        f"  curl -s {url}/v1/models/{model}:predict -H 'content-type: application/json' -d {shlex.quote(body)}\n"
    )


def _compare(decision: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    different = [name for name, value in expected.items() if not _same(decision.get(name), value)]
    if different:
        name = different[0]
        raise click.ClickException(f"{name}: expected {expected[name]!r}, got {decision.get(name)!r}")
    click.echo("The decision is the expected one.")


def _same(got: object, expected: object) -> bool:
    if isinstance(expected, float):
        return isinstance(got, float | int) and abs(got - expected) <= 1e-6 * max(1.0, abs(expected))
    return got == expected


@main.command()
@click.argument("directory", metavar="BUNDLE", type=DIRECTORY)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--format", "kind", type=click.Choice(["parquet", "csv", "jsonl"]), help="Of outputs; default: as inputs."
)
@click.option("--keep", default="", metavar="COLUMNS", help="Columns of the input to carry along, with commas between.")
@click.option(
    "--where", metavar="CONDITION", help='Score these rows alone: \'amount > 100 and country in ["DE", "FR"]\'.'
)
@click.option("--now", metavar="TIME", help="What `default: now` becomes, ISO 8601; default: the start of the run.")
@click.option("--on-error", type=click.Choice(["fail", "record"]), default="fail", show_default=True)
@click.option("--max-errors", type=click.IntRange(0), help="With --on-error record: end where there are more.")
@THREADS
@click.option("--together", is_flag=True, help="Use the engine for many rows; answers may differ in the last bits.")
@click.option("--digest", help="Refuse any bundle but this one, sha256:….")
@click.option("--log", metavar="LOG", help="Write a record of each decision into this folder, here or in a store.")
@click.option("--hash-key-file", default="", metavar="FILE", help="With the key for fields that are hashed in LOG.")
@VERIFY
@ALLOW_JOBLIB
@TRUSTED
def score(directory: Path, source: str, target: str, log: str | None, hash_key_file: str, **options: Any) -> None:
    """Score files into a folder: Parquet, CSV and JSON lines, here or at s3://, gs:// and abfs://.

    IN is a file, a folder, or a pattern with * in it. What was finished before is skipped.
    """
    from tabserve.decision_log.scored import opener
    from tabserve.scoring import command

    trusted = trusted_names(options.pop("trusted"))
    try:
        open_log = opener(log, hash_key_file) if log else None
        command.score(directory, source, target, trusted=trusted, open_log=open_log, **options)
    except command.REFUSED as error:
        raise click.ClickException(str(error)) from None


bundle.add_command(card)
main.add_command(doctor)
main.add_command(log)
main.add_command(rollout)
main.add_command(monitor)
main.add_command(stream)


@main.command()
@click.argument("url")
@click.option("--record", help="One record, as JSON.")
@click.option("--file", metavar="FILE", help="Records in CSV, JSON lines or Parquet; - for standard input.")
@click.option("--keep", default="", metavar="NAMES", help="Columns of the file to carry along, with commas between.")
@click.option("--output", type=click.Choice([*asking.FORMATS, "json"]), help="Of answers.  [as --to ends, or table]")
@click.option("--to", metavar="FILE", help="Write answers here.  [standard output]")
@click.option("--on-error", type=click.Choice(["fail", "record"]), default="fail", show_default=True)
@click.option("--rejects", default="rejects.jsonl", show_default=True, metavar="FILE", help="With --on-error record.")
@click.option("--batch", type=click.IntRange(1), default=500, show_default=True, help="Records in a request.")
@click.option("--in-flight", type=click.IntRange(1), default=16, show_default=True, help="Requests at a time.")
@click.option("--model", help="The model's name; over gRPC it must be given.")
@click.option("--format", "kind", type=click.Choice(list(reading.ENDINGS)), help="Of the file.  [found out]")
@click.option("--delimiter", help="Of CSV: a character, or tab.  [found out]")
@click.option("--encoding", default="utf-8", show_default=True, help="Of CSV, such as cp1252.")
@click.option("--decimal", type=click.Choice([".", ","]), default=".", show_default=True, help="In CSV's numbers.")
@click.option("--host", help="The Host header, behind a gateway.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Certificates to trust, for https and grpcs.")
@click.option("--header", multiple=True, metavar="NAME: VALUE", help="Sent with every request; may be repeated.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, help="Seconds.")
def request(url: str, **options: Any) -> None:
    """Ask a transformer for decisions on one record, or on a file of them.

    URL is http, https, grpc or grpcs://HOST:PORT, or HOST:PORT for http. Exit status: 0 if all are answered, 3 if the
    others are in the file of rejects, 2 for wrong options, 1 if the run has ended early.
    """
    try:
        status = asking.request(url, **options)
    except asking.REFUSED as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)


@main.command(context_settings=_PASSED_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def predictor(options: tuple[str, ...]) -> None:
    """Run only the predictor; `tabserve predictor --help` lists its settings."""
    _execute("tabserve_predictor", options)


@main.command(context_settings=_PASSED_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def transformer(options: tuple[str, ...]) -> None:
    """Run only the transformer; `tabserve transformer --help` lists its settings."""
    _execute("tabserve_transformer", options)


@main.command(context_settings=_PASSED_ON)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def load(options: tuple[str, ...]) -> None:
    """Send load to a server and judge its answers; `tabserve load --help` lists the commands."""
    if find_spec("locust") is None:
        raise ModuleNotFoundError(name="locust")
    _execute("tabserve_loadtest", options)


def _execute(package: str, options: Sequence[str]) -> None:
    """Become another program, with `-P`, so that nothing is imported from the current folder."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", package, *options])


if __name__ == "__main__":
    main()
