"""Rollouts that a gate moves: run one, say where it stands, stop it, and let a release try again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from tabserve.kubeconfig import Away
from tabserve.rollout import kube
from tabserve.rollout import status as telling
from tabserve.rollout.checks import TICK_SECONDS
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.judging import ledger_of
from tabserve.rollout.kube import BATCH, CORE, ORDER, ROUTES, Api
from tabserve.rollout.moving import WARM_SECONDS
from tabserve.rollout.route import closed, warming
from tabserve.rollout.state import State
from tabserve.terminal import table

EXIT = {"held": 0, "back": 1, "undecided": 2}
"""Exit statuses by phase; any other is that of no verdict yet."""
JOB_LABEL = "tabserve/rollout"
"""The label of a gate's Job, whose value is the name of the chart's objects."""
_F = TypeVar("_F", bound=Callable[..., Any])
NAMESPACE = click.option("-n", "--namespace", help="Where the release is; `default`, or the pod's own.")


def told(function: _F) -> _F:
    """Say a RolloutError, or that Kubernetes does not answer, in a line, and exit with status 3."""

    @wraps(function)
    def say(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (RolloutError, Away) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(3)

    return say  # type: ignore[return-value]


@click.command()
@told
def run() -> None:
    """Move the canary's weight step by step, or take it back: what the chart's Job runs."""
    from tabserve.rollout import job  # needs what the services need, as no other command of rollouts does

    sys.exit(job.run())


def describe(state: State) -> list[str]:
    """Where a rollout stands, in lines."""
    ledger = ledger_of(state)
    rows = [dict(zip(telling.HEAD, row.cells(), strict=True)) for row in telling.table(ledger)]
    weight = f"{state.weight} % of {state.name} to slot {state.canary.slot} (release {state.canary.release})"
    lines = [state.told, "", f"{state.phase}: {weight}, looked at {state.updated}", "", table(rows)]
    if state.not_judged:
        lines += ["", "Not judged:", *(f"- {line}" for line in state.not_judged)]
    return lines


class NoRollout(RolloutError):
    """A release has no rollout, or none yet."""


def state_of(release: str, namespace: str | None) -> State:
    """The state of a release's rollout. Raises Away, NoRollout, and RolloutError for a damaged one."""
    api, found = kube.reach(namespace)
    kept = kube.kept(api, found, release)
    if kept is None:
        remedy = "Set rollout.enabled and traffic.canary in the chart's values, or name another release."
        raise NoRollout(f"ConfigMap {found}/{release}-rollout", "there is none", remedy)
    return kept.state


def verdict(release: str, namespace: str | None, wait: float) -> int:
    """Print the verdict, after waiting for it for so many seconds; returns the exit status. Raises as state_of does."""
    until = time.monotonic() + wait
    while (left := until - time.monotonic()) > 0 and not _decided(release, namespace):
        time.sleep(min(TICK_SECONDS, left))
    state = state_of(release, namespace)
    click.echo(state.told)
    return EXIT.get(state.phase, 2)


def _decided(release: str, namespace: str | None) -> bool:
    """Whether a rollout has come to a verdict; its gate may not have begun, or Kubernetes not answer for a while."""
    try:
        return state_of(release, namespace).phase in EXIT
    except (NoRollout, Away):
        return False


@click.command()
@click.argument("release")
@NAMESPACE
@click.option("--hold", is_flag=True, help="Stay at the present weight, and go on judging.")
@told
def stop(release: str, namespace: str | None, hold: bool) -> None:
    """Take the canary back now, or go no further with --hold."""
    api, found = kube.reach(namespace)
    order = {"metadata": {"annotations": {ORDER: "hold" if hold else "back"}}}
    if not api.patch((CORE, "configmaps"), f"{release}-rollout", order):
        raise RolloutError(f"ConfigMap {found}/{release}-rollout", "there is none", "Name another release.")
    if not hold:
        _close(api, release)
    click.echo("The weight stays where it is." if hold else "All traffic is what the chart's values say.")


def _close(api: Api, release: str) -> bool:
    """Let no request follow a gate's route; returns whether any did. Raises Away, Refused."""
    found = api.get(ROUTES, f"{release}-rollout")
    if found is None or warming(found):
        return False
    return api.patch(ROUTES, f"{release}-rollout", closed(found))


@click.command()
@click.argument("release")
@NAMESPACE
@told
def forget(release: str, namespace: str | None) -> None:
    """Forget what a rollout has found, so that the release may try again."""
    api, _ = kube.reach(namespace)
    if _close(api, release):
        time.sleep(WARM_SECONDS)
    api.delete(ROUTES, f"{release}-rollout")
    for job in api.find((BATCH, "jobs"), f"{JOB_LABEL}={release}"):
        api.delete((BATCH, "jobs"), job["metadata"]["name"])
    api.delete((CORE, "configmaps"), f"{release}-rollout")
    click.echo("Forgotten. The next `helm upgrade`, or sync, begins the rollout anew.")
