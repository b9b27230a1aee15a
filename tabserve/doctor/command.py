"""Run `tabserve doctor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from tabserve.doctor import cluster
from tabserve.doctor.api import Read, connect, decoded
from tabserve.doctor.diagnosis import Diagnosis, diagnose, events, logs, slot_rows
from tabserve.doctor.reading import look
from tabserve.terminal import table

NOT_ASKED = 3
"""The exit status where no cluster answers about a release."""


@click.command()
@click.argument("release", required=False)
@click.option("-n", "--namespace", default="default", show_default=True, help="RELEASE's.")
@click.option("--context", help="Of the kubeconfig; default: the current one.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(release: str | None, namespace: str, context: str | None, as_json: bool) -> None:
    """Show what a cluster is missing, or with RELEASE why that release of the chart does not answer.

    Without RELEASE: which modes of the chart the cluster can run; exit status 1 if it can run none.

    With RELEASE, its name in Helm, the exit status is 0 for a healthy one, and 1 if a known cause was found. It is 2 if
    the cause is not known, and 3 if no cluster answers. The command only reads, and reads no Secret.
    """
    try:
        read = connect(context)
        if release is None:
            _examine(read, as_json)
        else:
            _diagnose(read, namespace, release, as_json)
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1 if release is None else NOT_ASKED)


def _examine(read: Read, as_json: bool) -> NoReturn:
    findings = cluster.examine(decoded(read))
    can = cluster.modes(findings)
    if as_json:
        _print({"findings": list(cluster.rows(findings)), "modes": can})
    else:
        click.echo(table(list(cluster.rows(findings))))
        for mode, runs in can.items():
            click.echo(f"{mode} mode: {'can run' if runs else 'cannot run'}")
    sys.exit(0 if any(can.values()) else 1)


def _diagnose(read: Read, namespace: str, release: str, as_json: bool) -> NoReturn:
    found = diagnose(look(read, namespace, release, datetime.now(UTC)))
    if as_json:
        _print(found.facts())
    else:
        click.echo("\n".join(lines(found)))
    sys.exit(found.status)


def _print(facts: dict[str, Any]) -> None:
    click.echo(json.dumps(facts, ensure_ascii=False, indent=1))


def lines(found: Diagnosis) -> Iterator[str]:
    """A diagnosis for people: the workloads as a table, then each cause with its remedy."""
    rows = list(slot_rows(found.seen))
    if rows:
        yield table(rows)
        yield ""
    for one in found.findings:
        yield f"{one.title}: {', '.join(one.where)}"
        yield f"  found   {one.found}"
        yield f"  remedy  {one.remedy}"
        yield ""
    for told in found.unexplained:
        yield f"not explained: {told}"
    if found.unexplained:
        yield from _ends(found)
    if found.seen.unread:
        yield f"Not allowed to read: {', '.join(found.seen.unread)}. Causes that only they show were not looked for."
    yield _sum(found)


def _ends(found: Diagnosis) -> Iterator[str]:
    yield ""
    yield "The last warnings:"
    yield from (f"  {one}" for one in events(found.seen))
    for name, end in logs(found.seen):
        yield f"The end of the log of {name}:"
        yield from (f"  {line}" for line in end)
    yield ""


def _sum(found: Diagnosis) -> str:
    count = len(found.findings)
    causes = f"{count} cause{'s' if count > 1 else ''} found" if count else "the cause is not known"
    return f"{found.seen.release}: healthy" if found.status == 0 else f"{found.seen.release}: {causes}"
