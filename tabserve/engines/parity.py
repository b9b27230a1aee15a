"""Check whether an engine repeats a bundle's reference answers, and whether rows influence each other in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tabserve.arrays import Array, Features, rows, take
from tabserve.bundle.manifest import ModelInfo
from tabserve.bundle.reference import Reference
from tabserve.engines.engine import Engine

# Sizes around the widths of vector units, and around the block sizes at which libraries switch algorithms.
_BATCHES = (2, 3, 5, 8, 17, 64, 100)
_SINGLE_ROWS = 16  # each is compared alone and within a vector unit; every start pays for these
_ROWS = 128


def disagreement(engine: Engine, reference: Reference, info: ModelInfo) -> str | None:
    """What is wrong with an engine's answers to the reference rows, None if nothing is.

    Classes must be equal, and probabilities and values must be within the manifest's tolerance.
    """
    names = [name for name in reference.outputs if name in engine.outputs]
    answers = engine.run(reference.features, names)
    for name, gap in differences(answers, {name: reference.outputs[name] for name in names}).items():
        allowed = 0.0 if name == "predict" and info.classes else info.tolerance
        if not gap <= allowed:
            return f"`{name}` differs by {gap:.3g}, allowed {allowed:.3g}"
    return None


def differences(answers: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    """The largest difference of each output, relative to the larger of 1 and the expected value.

    It is infinite if shapes differ, or values that are not numbers.
    """
    return {name: _difference(answers[name], expected[name]) for name in expected}


def _difference(answer: Array, expected: Array) -> float:
    if answer.shape != expected.shape:
        return np.inf
    if answer.dtype.kind not in "fiub" or expected.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(answer.astype(str), expected.astype(str)) else np.inf
    wanted, got = expected.astype(np.float64), answer.astype(np.float64)
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted)))
    return float(np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max(initial=0.0))


def rows_are_independent(engine: Engine, features: Features) -> bool:
    """Whether every output of every row has the same bytes, by itself and in batches of many sizes."""
    features = take(features, slice(0, _ROWS))
    count = rows(features)
    names = sorted(engine.outputs)
    whole = engine.run(features, names)
    single = ((at, at + 1) for at in range(min(count, _SINGLE_ROWS)))
    batches = ((1 % count, min(1 + size, count)) for size in _BATCHES if size < count)
    return all(_same_bytes(engine, features, names, whole, slice(*span)) for span in (*single, *batches))


def _same_bytes(engine: Engine, features: Features, names: list[str], whole: Mapping[str, Array], span: slice) -> bool:
    part = engine.run(take(features, span), names)
    return all(_bytes(part[name]) == _bytes(whole[name][span]) for name in names)


def _bytes(array: Array) -> bytes:
    return (array.astype(str) if array.dtype == object else array).tobytes()
