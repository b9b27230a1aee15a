"""Features are counted in the same bins one by one and many at a time."""

from __future__ import annotations

import re

import msgspec
import numpy as np

from tabserve.bundle import Bundle, agreement
from tabserve.bundle.histogram import histogram
from tabserve.bundle.reference import Reference
from tabserve.inference.metrics import Metrics
from tabserve.schema.columns import Columns
from tabserve_transformer.feature_bins import FEW, FeatureBins
from tests.unit.unsaved import REGRESSOR, bundle_of

SCHEMA = """\
task: regression
record:
  - {name: size, type: number, required: false}
  - {name: rooms, type: integer}
  - {name: kind, type: category, values: [flat, house, hut], required: false}
  - {name: note, type: text, required: false}
  - {name: empty, type: number, required: false}
  - {name: ratio, type: number, min: 1}
features: [size, rooms, kind, note, empty, {name: density, ratio: [size, ratio]}]
"""
_LINE = re.compile(r'^tabserve_feature_rows_total\{bin="(.+?)",feature="(.+?)"\} ([\d.e+]+)$', re.MULTILINE)


def records(count: int, seed: int) -> Columns:
    """Columns of records; sizes are also beyond those of the histogram, and at its ends."""
    random = np.random.default_rng(seed)
    size = np.where(random.random(count) < 0.2, np.nan, random.normal(50, 30 * (1 + seed), count))
    return {
        "size": size,
        "rooms": random.integers(0, 4, count).astype(float),
        "kind": random.choice(np.array(["flat", "house", None], object), count),
        "note": np.array(["x" * length for length in random.integers(0, 30, count)], object),
        "empty": np.full(count, np.nan),
        "ratio": random.integers(1, 3, count).astype(float),
    }


def bundle() -> Bundle:
    """A bundle with the histograms of 500 records."""
    found, columns = bundle_of(SCHEMA, REGRESSOR), records(500, 0)
    columns["density"] = columns["size"] / columns["ratio"]
    histograms = {spec.name: histogram(spec, columns[spec.name]) for spec in agreement.specs(found.schema)}
    return msgspec.structs.replace(found, reference=Reference({}, {}, {}, histograms))


def counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    """What the page of metrics shows, by feature and bin."""
    return {(name, place): float(count) for place, name, count in _LINE.findall(metrics.page().decode())}


def test_one_by_one_and_together_are_the_same_bins() -> None:
    known, together, alone = bundle(), Metrics(), Metrics()
    many, some = FeatureBins(known, together), FeatureBins(known, alone)
    ends = known.reference.histograms["size"].bounds
    given = records(300, 1)
    given["size"][:3] = ends[0], ends[-1], np.nextafter(ends[-1], np.inf)
    many.count(given)
    for at in range(300):
        some.count({name: column[at : at + 1] for name, column in given.items()})
    few = Metrics()
    FeatureBins(known, few).count({name: column[:FEW] for name, column in given.items()})

    assert counted(together) == counted(alone)
    assert sum(counted(together).values()) == 300 * 6
    assert sum(counted(few).values()) == FEW * 6
    assert counted(together)["kind", "missing"] == sum(value is None for value in given["kind"])
    assert counted(together)["empty", "missing"] == 300
    assert counted(together)["size", f"above {ends[-1]:.6g}"] >= 1


def test_every_bin_is_there_before_the_first_record() -> None:
    metrics = Metrics()
    FeatureBins(bundle(), metrics)

    assert {place for name, place in counted(metrics) if name == "kind"} == {"flat", "house", "hut", "missing"}
    assert set(counted(metrics).values()) == {0.0}


def test_a_bundle_with_very_many_features_is_not_counted() -> None:
    names = [f"f{at}" for at in range(101)]
    fields = ", ".join(f"{{name: {name}, type: number}}" for name in names)
    found, metrics = (
        bundle_of(f"task: regression\nrecord: [{fields}]\nfeatures: [{', '.join(names)}]\n", REGRESSOR),
        Metrics(),
    )
    histograms = {spec.name: histogram(spec, np.arange(9.0)) for spec in agreement.specs(found.schema)}
    known = msgspec.structs.replace(found, reference=Reference({}, {}, {}, histograms))
    FeatureBins(known, metrics).count({name: np.zeros(1) for name in names})

    assert counted(metrics) == {}
