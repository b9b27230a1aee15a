"""Run `tabserve rollout report`: a rollout's state, from Kubernetes or a file, as one HTML page."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from tabserve.rollout.errors import RolloutError
from tabserve.rollout.gated import NAMESPACE, state_of, told
from tabserve.rollout.kube import STATE
from tabserve.rollout.state import State, parse


class _ConfigMap(msgspec.Struct):
    kind: str
    data: dict[str, str]


@click.command()
@click.argument("release", required=False)
@NAMESPACE
@click.option("--file", type=click.Path(path_type=Path), help="The state, or its ConfigMap, as JSON; - is stdin.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default="rollout.html", show_default=True)
@told
def report(release: str | None, namespace: str | None, file: Path | None, out: Path) -> None:
    """Write the rollout of RELEASE, or of a file, as one HTML page.

    It may be under way or over. Exit status: 0, or 3 if there is none.
    """
    if (release is None) == (file is None):
        raise click.UsageError("Give either a RELEASE or --file.")
    from tabserve.rollout.page import page

    state = state_of(release, namespace) if release is not None else from_file(file or Path("-"))
    try:
        out.write_text(page(state), "utf-8")
    except OSError as error:
        raise RolloutError(str(out), f"cannot be written ({error.strerror})", "Name another file with -o.") from None
    click.echo(f"{out}: {state.told}")


def from_file(path: Path) -> State:
    """The state in a file, or in a ConfigMap that was saved as JSON. Raises RolloutError."""
    try:
        text = sys.stdin.read() if path == Path("-") else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Give the output of kubectl get configmap RELEASE-rollout -o json."
        raise RolloutError(str(path), f"cannot be read ({error})", remedy) from None
    with suppress(msgspec.MsgspecError):
        text = msgspec.json.decode(text, type=_ConfigMap).data.get(STATE, "")
    return parse(text, str(path))
