"""Read `objectives.yaml`, what each scenario sends and what must hold, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

DEFAULT = Path(__file__).with_name("objectives.yaml")


class ObjectivesError(Exception):
    """A file or an override can't be used; the message says expected, got, where."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Load(_Strict, frozen=True):
    """What a scenario sends; each scenario says which of these it uses.

    rate: arrivals per second. users: how many, in a closed loop. rows: rows per request. seconds: length of the run, or
    of one step. factor: ratio of the peak to the rate, or of one step to the last. most: the highest rate tried.
    precision: the largest ratio of the lowest rate that breaks to the highest that holds. peak_seconds: length of a
    spike. share: the share of requests that a canary is to get.
    """

    rate: float = 0
    users: int = 1
    rows: int = 1
    seconds: float = 10
    factor: float = 1
    most: float = 0
    precision: float = 1.25
    peak_seconds: float = 5
    share: float = 0


class Objectives(_Strict, frozen=True):
    """What must hold in one scenario.

    latency: from a quantile ("p99.9") to its limit in ms. error_rate: the largest share of failed requests, 0 for none.
    at_least, at_most: limits for the scenario's own figures, by name.
    """

    load: Load
    latency: dict[str, float] = {}
    error_rate: float = 0
    at_least: dict[str, float] = {}
    at_most: dict[str, float] = {}


class Generator(_Strict, frozen=True):
    """Limits beyond which the generator was the bottleneck; see objectives.yaml."""

    late_ms: float
    late_share: float
    dropped_share: float
    busy_share: float


class Plan(_Strict, frozen=True):
    """All of objectives.yaml."""

    confidence: float
    generator: Generator
    scenarios: dict[str, Objectives]


def read(path: Path, overrides: Sequence[str] = (), scenarios: Sequence[str] = ()) -> Plan:
    """The plan in a file, after overrides such as `server.rate=200` or, for all `scenarios`, `rate=200`.

    Raises ObjectivesError.
    """
    try:
        content = yaml.safe_load(path.read_text())
        plan = msgspec.convert(content, Plan, strict=False)
        for override in overrides:
            _apply(content, override, scenarios)
        plan = msgspec.convert(content, Plan, strict=False)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ObjectivesError(f"{path}: {error}") from None
    for objectives in plan.scenarios.values():
        for name in objectives.latency:
            fraction(name)
    return plan


def fraction(name: str) -> float:
    """The fraction that a quantile's name means, 0.99 for `p99`. Raises ObjectivesError."""
    try:
        value = float(name.removeprefix("p")) / 100
    except ValueError:
        value = 0.0
    if not (name.startswith("p") and 0 < value < 1):
        raise ObjectivesError(f"expected a quantile such as p99 or p99.9, got {name!r}")
    return value


def _apply(content: dict[str, Any], override: str, scenarios: Sequence[str]) -> None:
    name, equals, value = override.partition("=")
    scenario, dot, key = name.partition(".")
    if not dot or scenario not in (*content["scenarios"], "generator"):
        scenario, key = "", name
    if not equals:
        raise ObjectivesError(f"expected NAME=VALUE or SCENARIO.NAME=VALUE, got {override!r}")
    if scenario == "generator":
        content["generator"][key] = value
        return
    for one in [scenario] if scenario else scenarios:
        _set(content["scenarios"][one], key, value, override)


def _set(scenario: dict[str, Any], key: str, value: str, override: str) -> None:
    if key in Load.__struct_fields__:
        scenario["load"][key] = value
    elif key == "error_rate":
        scenario[key] = value
    elif key.startswith("p") and key[1:].replace(".", "", 1).isdigit():
        scenario.setdefault("latency", {})[key] = value
    else:
        side = next((side for side in ("at_least", "at_most") if key in scenario.get(side, {})), None)
        if side is None:
            known = [
                *Load.__struct_fields__,
                "error_rate",
                "p50 …",
                *scenario.get("at_least", {}),
                *scenario.get("at_most", {}),
            ]
            raise ObjectivesError(f"{override}: expected one of {', '.join(known)}, got {key!r}")
        scenario[side][key] = value
