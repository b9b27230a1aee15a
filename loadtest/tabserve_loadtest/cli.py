"""The command `tabserve load`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from locust.env import Environment

from tabserve import up
from tabserve.bundle import Bundle, BundleError, load
from tabserve_loadtest import objectives, payloads, report, session, sizing
from tabserve_loadtest.bench import Bench
from tabserve_loadtest.document import decode, document, encode
from tabserve_loadtest.objectives import ObjectivesError, Plan
from tabserve_loadtest.payloads import Payload, PayloadError
from tabserve_loadtest.replicas import watching
from tabserve_loadtest.result import Result
from tabserve_loadtest.run import DEFAULT, SCENARIOS, play
from tabserve_loadtest.target import Kind, Target, TargetError, only_model
from tabserve_loadtest.verdict import Verdict

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def main() -> None:
    """Load tests for servers of the Open Inference Protocol."""


@main.command()
@click.argument("address")
def join(address: str) -> None:
    """Send requests for the run in charge at ADDRESS (HOST:PORT)."""
    session.join(address)


@main.command()
@click.argument("file", type=_FILE)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def render(file: Path, folder: Path) -> None:
    """Write the report in FILE (report.json, or what --json printed) to FOLDER as a page and for CI."""
    try:
        report.write(folder, decode(file.read_bytes()))
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{file}: {error}") from None


@main.command(context_settings={"show_default": True})
@click.argument("file", type=_FILE)
@click.option("--peak", type=float, required=True, help="Requests per second to be served.")
@click.option("--cpu", type=float, required=True, help="Cores the measured pod may use.")
@click.option("--memory", type=float, required=True, help="MiB the measured pod uses (kubectl top pod).")
@click.option("--reaction", type=float, help="Seconds until a new pod is ready (reaction_s of autoscale).")
def size(file: Path, peak: float, cpu: float, memory: float, reaction: float | None) -> None:
    """Print chart values for a peak rate, from the report.json of a `ramp` on one pod."""
    try:
        pod = sizing.Pod(sizing.capacity(decode(file.read_bytes())), cpu, memory)
    except (sizing.SizingError, msgspec.DecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from None
    click.echo(sizing.snippet(pod, peak, reaction), nl=False)


@main.command(context_settings={"show_default": True})
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--url", default="", help="Root of REST, http://HOST:PORT.")
@click.option("--up", is_flag=True, help="Start both services of --bundle here, instead of --url.")
@click.option("--grpc", default="", help="HOST:PORT of gRPC, for users of kind grpc.")
@click.option("--host", default="", help="The Host header, behind a gateway.")
@click.option("--model", default="", help="The model's name.  [default: the bundle's, or the only one listed]")
@click.option("--bundle", type=_FOLDER, help="Requests from its reference rows; without it, from the metadata.")
@click.option("--allow-joblib", is_flag=True, help="Accept a bundle with joblib files (they are not loaded here).")
@click.option("--user", type=click.Choice(["json", "binary", "grpc", "records"]), help="[default: records, or json]")
@click.option(
    "--set", "overrides", multiple=True, metavar="[SCENARIO.]NAME=VALUE", help="Change a number of the objectives."
)
@click.option("--objectives", "file", type=_FILE, default=objectives.DEFAULT, help="What is sent, and what must hold.")
@click.option("--timeout", type=float, default=10.0, help="Seconds until a request counts as lost.")
@click.option("--users", type=click.IntRange(1, 20000), default=1000, help="Most requests in flight, per generator.")
@click.option("--seed", type=int, default=1, help="Random seed of arrivals and requests.")
@click.option(
    "--workers", type=click.IntRange(0, 64), default=0, help="Generators to start here, each in its own process."
)
@click.option(
    "--expect-workers", type=click.IntRange(0, 64), default=0, help="Generators that will join from elsewhere."
)
@click.option("--listen", default="127.0.0.1:0", help="HOST:PORT where generators join.")
@click.option("--stock-users", type=click.IntRange(0, 1000), default=0, help="Also run Locust's own closed-loop users.")
@click.option("--watch", default="", metavar="NAMESPACE/SELECTOR", help="Deployments whose replicas are recorded.")
@click.option("--report", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where the report goes.")
@click.option("--title", default="", help="What the report is about.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON, to be found in a log.")
@click.option("--quiet", is_flag=True, help="Print only the verdicts.")
def run(**options: Any) -> None:
    """Run SCENARIOS and exit with 0 for PASS, 1 for FAIL, 2 for TOO FEW SAMPLES, 3 for INVALID.

    Without SCENARIOS: all that need no cluster, in the order of the README.
    """
    scenarios: Sequence[str] = options["scenarios"] or DEFAULT
    try:
        plan = objectives.read(options["file"], options["overrides"], scenarios)
        results = _play(options, scenarios, plan)
    except ObjectivesError as error:
        raise click.UsageError(str(error)) from None
    except (TargetError, PayloadError, BundleError, session.SessionError, up.UpError) as error:
        click.echo(f"{Verdict.INVALID.value}: {error}", err=True)
        sys.exit(Verdict.INVALID.exit_code)
    found = document(options["title"] or options["url"], report.command(sys.argv), results, plan)
    if options["folder"]:
        report.write(options["folder"], found)
        click.echo(f"report: {options['folder'] / report.PAGE}", err=True)
    click.echo(encode(found, indent=0) if options["as_json"] else report.text(found))
    sys.exit(found.exit_code)


def _play(options: dict[str, Any], scenarios: Sequence[str], plan: Plan) -> list[Result]:
    bundle = load(options["bundle"], allow_joblib=options["allow_joblib"]) if options["bundle"] else None
    with ExitStack() as stack:
        if options["up"]:
            options |= stack.enter_context(_services(options))
        target = _target(options, bundle)
        make = _maker(target, bundle, options["seed"])
        make(plan.scenarios[scenarios[0]].load.rows)
        watched = stack.enter_context(watching(*_watch(options["watch"]))) if options["watch"] else None
        environment = stack.enter_context(_session(options, target))
        bench = Bench(environment, target, plan, make, options["seed"], _teller(options["quiet"]), watched)
        return play(bench, scenarios)


@contextmanager
def _services(options: dict[str, Any]) -> Generator[dict[str, str]]:
    """Run both services of the bundle; yields the options that name them."""
    if not options["bundle"]:
        raise click.UsageError("--up needs --bundle")
    joblib = ["--allow_joblib=true"] if options["allow_joblib"] else []
    ports = up.choose_ports()
    with up.services(str(options["bundle"]), ports, joblib) as services:
        services.wait_until_ready()
        yield {"url": services.url, "grpc": f"{up.HOST}:{ports.grpc}"}


def _watch(text: str) -> tuple[str, str]:
    namespace, slash, selector = text.partition("/")
    if not slash:
        raise click.UsageError(f"--watch: expected NAMESPACE/SELECTOR, got {text!r}")
    return namespace, selector


def _target(options: dict[str, Any], bundle: Bundle | None) -> Target:
    url, host = options["url"].rstrip("/"), options["host"]
    if not url:
        raise click.UsageError("expected --url, or --up with --bundle")
    kind: Kind = options["user"] or ("records" if bundle else "json")
    if kind == "grpc" and not options["grpc"]:
        raise click.UsageError("users of kind grpc need --grpc HOST:PORT")
    model = options["model"] or (bundle.manifest.name if bundle else only_model(url, host))
    return Target(url, model, kind, options["grpc"], host, options["timeout"])


def _maker(target: Target, bundle: Bundle | None, seed: int) -> Callable[[int], list[Payload]]:
    """A function that makes requests of a number of rows, once per number, and has the idle server answer them."""
    known: dict[int, list[Payload]] = {}

    def make(rows: int) -> list[Payload]:
        if rows not in known:
            known[rows] = (
                payloads.from_bundle(target, bundle, rows, seed)
                if bundle
                else payloads.from_metadata(target, rows, seed)
            )
            session.learn(target, known[rows])
        return known[rows]

    return make


def _session(options: dict[str, Any], target: Target) -> AbstractContextManager[Environment]:
    expected = options["workers"] + options["expect_workers"]
    if not expected:
        return session.alone(target, options["users"], options["stock_users"])
    if options["stock_users"]:
        raise click.UsageError("--stock-users needs a single generator")
    return session.in_charge(target, options["users"], _address(options["listen"]), expected, options["workers"])


def _address(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    if port != "0":
        return listen
    with socket.create_server((host, 0)) as probe:
        return f"{host}:{probe.getsockname()[1]}"


def _teller(quiet: bool) -> Callable[[str], None]:
    return (lambda _: None) if quiet else (lambda text: click.echo(text, err=True))
