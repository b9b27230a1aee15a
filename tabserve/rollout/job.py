"""Run a gate in its pod: what the chart's Job does."""

from __future__ import annotations

import os
import signal
import threading

import click

from tabserve.kubeconfig import Away
from tabserve.rollout import kube, serving, settings
from tabserve.rollout.checks import TICK_SECONDS
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.judging import copies_of
from tabserve.rollout.kube import Api
from tabserve.rollout.route import COPIES_PORT
from tabserve.rollout.run import Me, Runner
from tabserve.rollout.settings import Settings
from tabserve.rollout.shadow import Shadow
from tabserve.rollout.state import State


def run() -> int:
    """Run the gate that the environment describes until it ends; returns the exit status. Raises RolloutError, Away."""
    text = os.environ.get(settings.SOURCE, "")
    if not text:
        raise RolloutError(settings.SOURCE, "is not set", "Set rollout.enabled in the chart's values.")
    found = settings.parse(text, os.environ["TABSERVE_JOB"])
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    runner = _patiently(found, stopped)
    return 0 if runner is None else _served(runner, stopped)


def _served(runner: Runner, stopped: threading.Event) -> int:
    page = serving.Page(runner.gate)
    with serving.serving(page):
        return runner.run(stopped, page.tick)


def _patiently(found: Settings, stopped: threading.Event) -> Runner | None:
    """The gate, as soon as Kubernetes answers; None if it was stopped before. Raises RolloutError."""
    api, me = Api(kube.with_token(), found.namespace), Me(*(os.environ[name] for name in Me.variables()))
    while not stopped.is_set():
        try:
            return Runner(api, found, me, _shadow)
        except Away as error:
            click.echo(str(error), err=True)
            stopped.wait(TICK_SECONDS)
    return None


def _shadow(found: Settings, state: State) -> Shadow | None:
    """The receiver of copies, which listens; None if none are compared."""
    shadow = found.course.shadow
    if not shadow.percent:
        return None
    stable, canary = (f"http://{found.service(slot)}.{found.namespace}:80" for slot in (found.stable, found.canary))
    made = Shadow(stable, canary, copies_of(state), per_second=shadow.max_per_second)
    made.start(COPIES_PORT)
    return made
