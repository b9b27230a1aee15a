"""The report for a terminal: the verdict first, then what it rests on."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from tabserve.monitor.run import Report
from tabserve.monitor.verdict import Finding, told


def date(day: int) -> str:
    """A day since 1970 as an ISO 8601 date."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def lines(report: Report) -> Iterator[str]:
    """The report's lines."""
    yield report.verdict
    others = f"; {report.others:,} of other bundles were passed over" if report.others else ""
    copies = f"; {report.shadows:,} copies for a shadow were left out" if report.shadows else ""
    yield (
        f"{report.records:,} decisions of {report.name} {report.version}, {date(report.first)} to {date(report.last)}"
        f"{others}{copies}"
    )
    for alarm in report.alarms:
        yield f"  {_sentence(alarm)}"
    yield ""
    yield from _table(
        ("since the release", "distance", "by chance", "tolerance", "psi", ""),
        [_row(each) for each in report.findings if each.window == "release"],
    )
    yield from _performance(report)
    yield from _equity(report)
    yield from _worth(report)
    for each in report.missing:
        yield f"missing: {each}"


def _sentence(alarm: Finding) -> str:
    assert alarm.distance is not None
    assert alarm.bound is not None
    when = "since the release" if alarm.window == "release" else f"in the {alarm.window} from {date(alarm.start)}"
    change = f", from {alarm.reference:.1%} to {alarm.now:.1%}" if alarm.now is not None and alarm.reference else ""
    return (
        f"{told(alarm)} {when}: off by {alarm.distance:.3f}, of which {alarm.bound:.3f} may be chance, "
        f"in {alarm.rows:,} rows{change}"
    )


def _row(finding: Finding) -> tuple[str, ...]:
    numbers = [finding.distance, finding.bound, finding.tolerance, finding.psi]
    shown = ["" if number is None else f"{number:.3f}" for number in numbers]
    return (told(finding), *shown, "ALARM" if finding.alarm else finding.note)


def _performance(report: Report) -> Iterator[str]:
    found = report.performance
    if found is None:
        for name, share in report.expected.items():
            yield f"expected of `{name}`: {share:.1%}"
        if report.expected:
            yield "This comes from calibrated scores: only labels show that records and outcomes relate differently."
        return
    metrics = found.metrics
    numbers = {"error": metrics.error, "area under the ROC curve": metrics.auc, "Brier score": metrics.brier}
    shown = [f"{name} {number:.4f}" for name, number in numbers.items() if number is not None]
    yield ""
    yield f"{metrics.rows:,} labels: {', '.join(shown)}"
    yield from _table(
        ("decision", "labelled", "outcome", "from", "to", "expected", "reference"),
        [
            (
                each.decision,
                f"{each.coverage:.0%}",
                *(
                    "" if number is None else f"{number:.1%}"
                    for number in (each.hits, each.low, each.high, each.expected, each.reference)
                ),
            )
            for each in found.decisions
        ],
    )
    yield found.sentence


def _equity(report: Report) -> Iterator[str]:
    different = [each for each in report.equity if each.differs]
    if not report.equity:
        return
    yield ""
    if not different:
        yield "No audited group's rate is proven to differ by more than a fifth from the largest group's."
    for each in different:
        to = "any" if each.ratio_high is None else f"{each.ratio_high:.2f}"
        yield (
            f"{each.field} {each.group}: the {each.measure} of `{each.decision}` is {each.share:.1%}, "
            f"{each.ratio:.2f} times the largest group's ({each.ratio_low:.2f} to {to})"
        )


def _worth(report: Report) -> Iterator[str]:
    for each in report.worth:
        if each.start is None:
            yield f"release {each.release or 'none'}: {each.rows:,} labelled decisions were worth {each.total:,.2f}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    whole = [header, *rows]
    widths = [max(len(row[at]) for row in whole) for at in range(len(header))]
    for row in whole:
        cells = [
            cell.ljust(width) if at == 0 or at == len(row) - 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
