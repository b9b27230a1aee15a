"""Run `tabserve rollout` with its options."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import numpy as np

from tabserve.kubeconfig import Away
from tabserve.rollout import gated
from tabserve.rollout import status as telling
from tabserve.rollout.checks import BOUNDS, TICK_SECONDS, Rules
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.ledger import Ledger, Looks, differing
from tabserve.rollout.plan import HOURS, median, plan, whole
from tabserve.rollout.prometheus import EXAMPLE, courses
from tabserve.rollout.reporting import report
from tabserve.rollout.scrape import read, since, tally
from tabserve.rollout.settings import DURATION, seconds
from tabserve.rollout.simulate import CASES, GOOD, Traffic, run
from tabserve.terminal import table

EXIT = {"on": 0, "back": 1, "not yet": 2}
"""Exit statuses of `tabserve rollout verdict` by verdict."""
NOT_JUDGED = 3
"""The exit status where nothing could be judged."""
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_PERCENT = click.FloatRange(0, 100, min_open=True, max_open=True)
_F = TypeVar("_F", bound=Callable[..., Any])


class _WrongOptions(click.UsageError):
    exit_code = NOT_JUDGED


@click.group()
def rollout() -> None:
    """Judge a canary by what it has done so far, plan how long that takes, and let a gate move its weight."""


for command in (gated.run, gated.stop, gated.forget, report):
    rollout.add_command(command)


class _Duration(click.ParamType[float]):
    """Seconds, from a duration such as 90s, 30m or 2h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds. Fails for what is no duration."""
        if not re.fullmatch(DURATION, value):
            self.fail(f"expected a duration such as 90s, 30m or 2h, got {value!r}", param, ctx)
        return seconds(value)


class _Judging(click.Command):
    """A command whose exit status is a verdict, so that wrong options must not look like one."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the options. Raises UsageError with the exit status of what could not be judged."""
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise _WrongOptions(error.format_message(), error.ctx) from None


def _all(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    return lambda function: reduce(lambda made, option: option(made), reversed(options), function)


_RULES = _all(
    click.option("--false-rollback", type=_SHARE, default=Rules().false_rollback, show_default=True),
    click.option("--false-advance", type=_SHARE, default=Rules().false_advance, show_default=True),
    click.option("--errors", type=_SHARE, default=Rules().errors, show_default=True, help="Budget of failed requests."),
    click.option("--slow", type=_SHARE, default=Rules().slow, show_default=True, help="Budget of slow requests."),
    click.option(
        "--slow-over",
        type=click.Choice([f"{bound:g}" for bound in BOUNDS]),
        default=f"{Rules().slow_over:g}",
        show_default=True,
        help="What slow is, in seconds.",
    ),
    click.option(
        "--change",
        type=click.FloatRange(1),
        default=Rules().decisions,
        show_default=True,
        help="How many times other the odds of a decision or a score may be.",
    ),
)
_SOURCES = _all(
    click.argument("release", required=False),
    gated.NAMESPACE,
    click.option("--stable", multiple=True, metavar="METRICS", help="URL or file; once for each pod."),
    click.option("--canary", multiple=True, metavar="METRICS", help="The same of the canary's pods."),
    click.option("--prometheus", metavar="URL", help=f"METRICS are then label matchers: {EXAMPLE}"),
    click.option("--minutes", type=click.IntRange(1), default=60, show_default=True, help="With Prometheus: how many."),
    click.option("--percent", type=_PERCENT, help="The canary's share by the route, so that the split is judged."),
    click.option(
        "--state",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Keep the evidence here; what came since the last time is added. The first time only looks.",
    ),
)


@rollout.command()
@_SOURCES
@_RULES
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="With RELEASE: say it again and again.")
def status(
    as_json: bool,
    watch: bool,
    release: str | None,
    namespace: str | None,
    stable: Sequence[str],
    canary: Sequence[str],
    **options: Any,
) -> None:
    """Say what the counts of both slots prove so far, as RELEASE's gate has it, or from METRICS."""
    try:
        _verify_source(release, stable, canary)
        if release is not None:
            _gated(release, namespace, as_json, watch)
            return
        ledger = _judged(stable, canary, **options)
    except (RolloutError, Away) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(_facts(ledger), ensure_ascii=False))
        return
    click.echo(f"{telling.sentence(ledger)}\n")
    click.echo(table([dict(zip(telling.HEAD, row.cells(), strict=True)) for row in telling.table(ledger)]))
    if ledger.dispersion is not None:
        click.echo(
            f"\nStable's pods differ in their errors {ledger.dispersion:.2g} times as much as by chance, and the"
        )
        click.echo("evidence of errors is discounted by that.")
    click.echo("\nNot judged:")
    for line in telling.not_judged(ledger):
        click.echo(f"- {line}")


@rollout.command(cls=_Judging)
@_SOURCES
@_RULES
@click.option("--wait", type=_Duration(), default="0s", help="With RELEASE: wait so long for a verdict, such as 2h.")
def verdict(
    wait: float,
    release: str | None,
    namespace: str | None,
    stable: Sequence[str],
    canary: Sequence[str],
    **options: Any,
) -> None:
    """Print the verdict, and exit with 0 for on, 1 for back, 2 for not yet, 3 if nothing could be judged."""
    try:
        _verify_source(release, stable, canary)
        if release is not None:
            sys.exit(gated.verdict(release, namespace, wait))
        ledger = _judged(stable, canary, **options)
    except (RolloutError, Away) as error:
        _end(str(error))
    click.echo(telling.sentence(ledger))
    sys.exit(EXIT[ledger.verdict()])


def _verify_source(release: str | None, stable: Sequence[str], canary: Sequence[str]) -> None:
    """Raises RolloutError if it is not clear what to judge."""
    if (release is None) != bool(stable and canary) or (release is not None and (stable or canary)):
        raise RolloutError(
            "RELEASE", "give it alone, or --stable and --canary", "`tabserve rollout status --help` says more."
        )


def _gated(release: str, namespace: str | None, as_json: bool, watch: bool) -> None:
    """Say where a gate's rollout stands. Raises Away, RolloutError."""
    while True:
        state = gated.state_of(release, namespace)
        click.echo(state.text() if as_json else "\n".join(gated.describe(state)))
        if not watch:
            return
        time.sleep(TICK_SECONDS)


def _end(told: str) -> NoReturn:
    click.echo(f"Error: {told}", err=True)
    sys.exit(NOT_JUDGED)


def _judged(
    stable: Sequence[str],
    canary: Sequence[str],
    prometheus: str | None,
    minutes: int,
    percent: float | None,
    state: Path | None,
    **chosen: Any,
) -> Ledger:
    """The ledger of what can be read now. Raises RolloutError."""
    rules = _rules(**chosen)
    if prometheus is None:
        return _looked(stable, canary, rules, percent, state)
    if state is not None:
        raise RolloutError("--state", "Prometheus keeps the counts itself", "Leave --state out, and set --minutes.")
    ours, theirs = (
        [course for given in slot for course in courses(prometheus, given, minutes * 60)] for slot in (canary, stable)
    )
    ledger = Ledger(rules, percent, differing(theirs))
    for one, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        ledger.add(tally(one), tally(other))
    return ledger


def _rules(
    false_rollback: float, false_advance: float, errors: float, slow: float, slow_over: str, change: float
) -> Rules:
    return Rules(false_rollback, false_advance, errors, slow, float(slow_over), decisions=change, scores=change)


def _looked(
    stable: Sequence[str], canary: Sequence[str], rules: Rules, percent: float | None, path: Path | None
) -> Ledger:
    """The ledger after a look at every pod: of all that they have counted, or of what came since the last look."""
    old = Looks.load(path, rules, percent) if path and path.exists() else None
    found = old or Looks(Ledger(rules, percent))
    new = {source: read(source) for source in (*stable, *canary)}
    if path is None or old is not None:
        ours, theirs = (tally(since(new[at], found.looks.get(at)) for at in slot) for slot in (canary, stable))
        found.ledger.add(ours, theirs)
    found.looks = new
    if path is not None:
        found.save(path)
    return found.ledger


def _facts(ledger: Ledger) -> dict[str, Any]:
    return {
        "verdict": ledger.verdict(),
        "reason": telling.sentence(ledger),
        "checks": [row._asdict() for row in telling.table(ledger)],
        "not_judged": telling.not_judged(ledger),
    }


@rollout.command("plan")
@click.option("--rpm", type=click.FloatRange(0, min_open=True), required=True, help="Requests a minute at both slots.")
@click.option("--steps", default="5,20,50", show_default=True, help="Percent of the requests, in order.")
@click.option("--stable-errors", type=_SHARE, default=GOOD.errors, show_default=True, help="What stable's rate is.")
@click.option("--runs", type=click.IntRange(10), default=200, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@_RULES
def planned(rpm: float, steps: str, stable_errors: float, runs: int, seed: int, **chosen: Any) -> None:
    """Print how long each step takes at this traffic, and when a worse canary would be found."""
    rules, good = _rules(**chosen), GOOD._replace(errors=stable_errors)
    found = plan(rpm, _steps(steps), runs, seed, rules, good)
    rows = [
        {"step": f"{step.percent:g} %", "proven after": median(step.left)}
        | {name: median(taken.minutes) for name, taken in step.found.items()}
        for step in found
    ]
    click.echo(table(rows))
    total = whole(found)
    click.echo(
        f"\nMedians of {runs} simulated rollouts; a percentage is how many were found within 60 minutes, or proven"
        f" within {HOURS} hours.\nA canary with {good.errors:.2%} errors gets through all steps in {median(total)};"
        f" {np.isinf(total).mean():.0%} are held after {HOURS} hours."
    )


@rollout.command()
@click.option("--rpm", default="50,500,5000", show_default=True, help="Requests a minute.")
@click.option("--bursts", default="none,common,pods", show_default=True, help="Of errors.")
@click.option("--percent", type=_PERCENT, default=20.0, show_default=True, help="The canary's share.")
@click.option("--runs", type=click.IntRange(10), default=400, show_default=True)
@click.option("--minutes", type=click.IntRange(1), default=60, show_default=True)
@click.option("--watched", type=click.IntRange(0), default=0, show_default=True, help="Minutes of stable alone before.")
@click.option("--seed", type=int, default=1, show_default=True)
@_RULES
def simulate(
    rpm: str, bursts: str, percent: float, runs: int, minutes: int, watched: int, seed: int, **chosen: Any
) -> None:
    """Print how often canaries as good as stable are taken back, and when worse ones are."""
    rules = _rules(**chosen)
    rates = _numbers("--rpm", rpm)
    for kind in bursts.split(","):
        for rate in rates:
            traffic = Traffic(rate, percent / 100, minutes, 1.0, kind, watched)
            found = run(GOOD, traffic, runs, seed, rules)
            click.echo(f"as good, bursts {kind}, {rate:g} a minute: {found.share:.1%} of {runs} taken back")
    rows = []
    for name, (check, case) in CASES.items():
        traffics = [Traffic(rate, percent / 100, minutes, 1.0) for rate in rates]
        cells = [median(run(case, each, runs, seed, rules, only=check).minutes) for each in traffics]
        rows.append(
            {"worse": name} | {f"{each.rpm:g} a minute": cell for each, cell in zip(traffics, cells, strict=True)}
        )
    click.echo(table(rows))


def _numbers(option: str, given: str) -> list[float]:
    """Numbers above 0 with commas between. Raises UsageError."""
    try:
        found = [float(part) for part in given.split(",")]
    except ValueError:
        found = [0.0]
    if min(found) <= 0 or not np.isfinite(found).all():
        raise click.BadParameter(f"expected numbers above 0 with commas between, got {given!r}", param_hint=option)
    return found


def _steps(given: str) -> list[float]:
    found = _numbers("--steps", given)
    if max(found) >= 100 or sorted(set(found)) != found:
        raise click.BadParameter(f"expected rising percentages under 100, got {given!r}", param_hint="--steps")
    return found
