"""What `python -m benchmarks.footprint` measured; it loads no ML library."""

from __future__ import annotations

from pathlib import Path

import msgspec

RESULTS = Path(__file__).parent / "results" / "footprint"


class Process(msgspec.Struct, frozen=True):
    """Of a service: MiB in RAM after the first answer and after the load, µs of CPU of a decision."""

    first: float
    loaded: float
    cpu: float


class Footprint(msgspec.Struct, frozen=True):
    """What a model takes. bundle: MiB on disk; per_second: decisions of both processes on one core."""

    model: str
    bundle: float
    per_second: float
    transformer: Process
    predictor: Process


class Footprints(msgspec.Struct, frozen=True):
    """All that was measured, as in summary.json."""

    about: dict[str, str]
    models: list[Footprint]


def read(folder: Path = RESULTS) -> Footprints:
    """What was measured last."""
    return msgspec.json.decode((folder / "summary.json").read_bytes(), type=Footprints)
