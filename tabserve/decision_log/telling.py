"""Replays and explanations as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tabserve.decision_log.explain import Explanation
from tabserve.decision_log.replay import Differing, Replay
from tabserve.schema.ranges import span
from tabserve.terminal import table

_BAR = 24
_DIGEST = len("sha256:") + 12


def json(found: Replay) -> str:
    """A replay as one JSON object; docs/decisions.md tells its keys."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def replay(found: Replay) -> str:
    """A replay as tables: what became of the decisions of each release, and the first ones that differ."""
    releases = [
        {
            "release": one.release or "-",
            "bundle": one.bundle or "-",
            "digest": one.digest[:_DIGEST],
            "decisions": f"{one.records:,}",
            "equal": f"{one.equal:,}",
            "differ": f"{one.differs:,}",
            "not replayable": f"{one.not_replayable.total():,}",
        }
        for one in found.releases
    ]
    why = [f"{count:,} not replayable: {why}" for one in found.releases for why, count in one.not_replayable.items()]
    differing = [row for one in found.differences for row in _differing(one)]
    more = found.differs - len(found.differences)
    parts = [table(releases), "\n".join(why), table(differing) if differing else ""]
    parts += [f"… and {more:,} more that differ" if more else "", _summary(found)]
    return _printable("\n\n".join(part for part in parts if part))


def _summary(found: Replay) -> str:
    rest = f"{found.differs:,} differ, {found.not_replayable:,} not replayable"
    return f"{found.records:,} decisions: {found.equal:,} equal, {rest}"


def _differing(one: Differing) -> Iterator[dict[str, Any]]:
    for each in one.differences:
        yield {
            "id": one.id,
            "time": one.time,
            "differs": each.what,
            "was": _exact(each.was),
            "is": _exact(each.becomes),
        }


def _exact(value: Any) -> str:
    return "none" if value is None else str(value)


def explanation(found: Explanation) -> str:
    """A decision as text."""
    return _printable("\n\n".join(part for part in _parts(found) if part))


def _parts(found: Explanation) -> Iterator[str]:
    score = "" if found.score is None else f"score {found.score:.6g}"
    said = ", ".join(filter(None, [found.decision, score, found.label if found.label != found.decision else ""]))
    yield f"{found.id}: {said}\ndecided {found.time} by {found.bundle}"
    yield "\n".join([proof(found), *map(difference, found.differences)])
    yield "\n".join(f"{'>' if band.chosen else ' '} {band.label}: {span(band)}" for band in found.bands)
    if found.reasons:
        yield "reasons\n" + table([{"reason": text, "code": code} for text, code in found.reasons])
    yield f"contributions: {found.no_why}" if found.why is None else _contributions(found)
    yield "record\n" + table(
        [
            {"field": v.name, "value": v.value, "unit": v.unit, "note": v.note, "description": v.description}
            for v in found.values
        ]
    )
    yield "\n".join(f"{name:17}{value}" for name, value in found.facts.items() if value)
    yield f"also decided: {', '.join(found.others)}" if found.others else ""


def _contributions(found: Explanation) -> str:
    why = found.why
    assert why is not None
    longest = max((abs(push.amount) for push in why.pushes), default=0.0) or 1.0
    rows = [
        {"feature": push.name, "value": push.value, "adds": f"{push.amount:+.6g}", "": _bar(push.amount / longest)}
        for push in why.pushes
    ]
    sums = f"with the base, {why.base:.6g}, they add up to {why.total:.6g}, {why.scale}"
    return f"contributions\n{table(rows)}\n{sums}"


def _bar(share: float) -> str:
    return ("+" if share > 0 else "-") * round(abs(share) * _BAR)


def proof(found: Explanation) -> str:
    """Whether the decision was made again, and is equal."""
    if found.result == "equal":
        return f"made again {found.made} with the same bundle and engine: equal in every bit"
    if found.result == "differs":
        return f"made again {found.made} with the same bundle and engine: the decision differs"
    return f"not replayable: {found.because}"


def difference(each: Any) -> str:
    """One difference as text."""
    return f"{each.what} was {_exact(each.was)}, is {_exact(each.becomes)}"


def _printable(text: str) -> str:
    """The text without what would move a terminal's cursor."""
    return "".join(each if each.isprintable() or each == "\n" else f"\\x{ord(each):02x}" for each in text)
