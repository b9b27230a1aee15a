"""Prove what the manifest will say about a saved model: its answers, its engines, its plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from tabserve.arrays import Features, concatenate, rows, take
from tabserve.bundle.errors import BundleError
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import Agreement, EngineName, EngineRange, ModelInfo
from tabserve.engines import parity
from tabserve.engines.engine import Engine
from tabserve.engines.selection import open_engine
from tabserve.train import causes, planning
from tabserve.train.models import TrainedModel
from tabserve.train.onnx import conversion
from tabserve.train.presentation import FAILURES, Truth, first_line
from tabserve.train.shape import given

CONVERTED = "model.onnx"
CONVERTING: EngineName = "onnxruntime"
# Contributions are sums over all trees of values in single precision.
_ADDITIVE = 1e-4
_SOME = slice(0, 256)
_NARROW = "Train it on such records, or narrow the schema to what it accepts."


def prove(
    bundle: Bundle,
    model: TrainedModel,
    probes: Features,
    beyond: Features,
    truths: Sequence[Truth],
    pinned: EngineName | None,
) -> Bundle:
    """The bundle with everything that was proven: outputs, reference answers, engines and plan.

    bundle: its model's file is already written. model: the one in memory. probes: further rows to prove with. beyond:
    far-off rows, only some of which the model may answer.
    truths: the model's answers about the user's own table, which every engine must repeat. Raises BundleError.
    """
    info = bundle.manifest.model
    possible = (info.native, CONVERTING, *(["onedal"] if info.native == "xgboost" else []))
    if pinned not in (None, *possible):
        raise BundleError("engine", f"expected {' or '.join(possible)}, got {pinned}", "Leave the engine out.")
    native = open_engine(bundle, info.native, 1)
    probes = concatenate((probes, causes.answered(partial(model.own_answers, info), beyond)))
    for features in (bundle.reference.features, probes):
        _agrees_with_memory(native, model, info, features)
    if (gap := _gap(native, info, truths)) > info.tolerance:
        problem = f"answers rows of the sample differently when served, by up to {gap:.3g}"
        raise BundleError("model", problem, "Train it on tabserve.train.features(schema, records).")
    bundle = _with_model(bundle, _outputs(native, info, bundle))
    native = open_engine(bundle, info.native, 1)
    bundle = _with_model(bundle, _convert(bundle, native, model, probes, truths, pinned))
    names = [name for name in bundle.manifest.model.outputs if name != "contributions"]
    answers = native.run(bundle.reference.features, names)
    return msgspec.structs.replace(bundle, reference=msgspec.structs.replace(bundle.reference, outputs=answers))


def _outputs(native: Engine, info: ModelInfo, bundle: Bundle) -> ModelInfo:
    """The entry with its default outputs, and without contributions that don't add up."""
    computed, notes = set(native.outputs), list(info.notes)
    if (
        "contributions" in computed
        and (gap := _additive_gap(native, take(bundle.reference.features, _SOME))) > _ADDITIVE
    ):
        computed.discard("contributions")
        notes.append(f"contributions: left out: their sum differs from the answer by {gap:.3g}")
    default = bundle.schema.outputs.default
    usual = next(name for name in ("predict_proba", "anomaly_score", "predict") if name in computed)
    default = tuple(default) or (usual,)
    kept = tuple(name for name in info.outputs if name in computed)
    return msgspec.structs.replace(info, outputs=kept, default_outputs=default, notes=tuple(notes))


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn a model's exception into BundleError: it would be raised for a record that the schema accepts."""
    try:
        yield
    except BundleError:
        raise
    except FAILURES as error:
        raise BundleError("model", f"fails on records the schema permits: {first_line(error)}", _NARROW) from error


def _agrees_with_memory(native: Engine, model: TrainedModel, info: ModelInfo, features: Features) -> None:
    """Refuse a file whose answers differ from those of the model in memory.

    Categories in an order that the model was not trained with would show here.
    """
    run = partial(model.own_answers, info)
    try:
        own = run(features)
    except FAILURES as error:
        raise causes.refusal("model", error, run, features, info.features) from error
    answers = native.run(features, list(own))
    for name, gap in parity.differences(answers, own).items():
        if not gap <= (0.0 if name == "predict" and info.classes else info.tolerance):
            problem = f"its file answers `{name}` differently from the model in memory, by {gap:.3g}"
            raise BundleError("model", problem, "Train it on the schema's features, and save it with these libraries.")


def _convert(
    bundle: Bundle,
    native: Engine,
    model: TrainedModel,
    probes: Features,
    truths: Sequence[Truth],
    pinned: EngineName | None,
) -> ModelInfo:
    """The entry with another engine's form, plan and timings; or without them, and with the reason.

    The bundle's features are the reference rows; both forms must agree on them and on the probes.
    Raises BundleError if the pinned engine can't be used.
    """
    info = bundle.manifest.model
    if pinned not in (None, CONVERTING):
        info = msgspec.structs.replace(info, notes=(*info.notes, f"onnx: not converted: {pinned} is pinned"))
    if pinned == info.native:
        return info
    other = pinned or CONVERTING
    try:
        converted = _written(bundle, model) if other == CONVERTING else info
        converted = _agreeing(_with_model(bundle, converted), other, native, probes, truths)
    except conversion.NotInstalledError:
        raise
    except conversion.failures() as error:
        if other == "onedal" and isinstance(error, BundleError):
            raise
        bundle.file(CONVERTED).unlink(missing_ok=True)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if pinned is not None:
            raise BundleError("engine", f"{pinned} can't be used: {reason}", "Leave the engine out.") from error
        return msgspec.structs.replace(info, notes=(*info.notes, f"onnx: not converted: {reason}"))
    return _planned(bundle, native, converted, other, pinned)


def _written(bundle: Bundle, model: TrainedModel) -> ModelInfo:
    """The entry with an ONNX form, which is written. Raises NotConvertedError."""
    info, path = bundle.manifest.model, bundle.file(CONVERTED)
    independent = conversion.write_model(model.onnx_graph(bundle.file(info.file), info), info, path)
    return msgspec.structs.replace(
        info, onnx=CONVERTED, row_independent=(*info.row_independent, *([CONVERTING] if independent else []))
    )


def _agreeing(
    bundle: Bundle, other: EngineName, native: Engine, probes: Features, truths: Sequence[Truth]
) -> ModelInfo:
    """The entry with the agreement of a converted form. Raises NotConvertedError if it does not agree."""
    info, engine, worst = bundle.manifest.model, open_engine(bundle, other, 1), 0.0
    for features in (bundle.reference.features, probes):
        names = [name for name in info.outputs if name in engine.outputs]
        gaps = parity.differences(engine.run(features, names), native.run(features, names))
        for name, gap in gaps.items():
            if not gap <= (0.0 if name == "predict" and info.classes else info.tolerance):
                raise conversion.NotConvertedError(f"`{name}` differs by {gap:.3g}, allowed {info.tolerance:.3g}")
        worst = max(worst, *gaps.values())
    if (gap := _gap(engine, info, truths)) > info.tolerance:
        raise conversion.NotConvertedError(f"differs from the model's own answers by {gap:.3g}")
    checked = rows(bundle.reference.features) + rows(probes)
    return msgspec.structs.replace(info, agreement=(Agreement(other, checked, worst),))


def _gap(engine: Engine, info: ModelInfo, truths: Sequence[Truth]) -> float:
    """The largest gap between an engine's answers and the model's about the user's own table."""
    gaps = [0.0]
    for truth in truths:
        expected = {name: values for name, values in truth.answers.items() if name in engine.outputs}
        answers = engine.run(given(info, truth.columns), list(expected))
        gaps += parity.differences(answers, expected).values()
    return max(gaps)


def _planned(bundle: Bundle, native: Engine, info: ModelInfo, name: EngineName, pinned: EngineName | None) -> ModelInfo:
    engine = open_engine(_with_model(bundle, info), name, 1)
    served = [name if name != "label" else "predict" for name in info.default_outputs]
    if not engine.outputs.issuperset(served):
        note = f"{'onnx' if name == CONVERTING else name}: not in the plan: it does not compute the default outputs"
        return msgspec.structs.replace(info, notes=(*info.notes, note))
    own, other = planning.measure((native, engine), bundle.reference.features, served)
    ranges = (EngineRange(0, pinned),) if pinned else planning.plan(own, other)
    return msgspec.structs.replace(info, timings=(*own, *other), engines=ranges)


def _with_model(bundle: Bundle, info: ModelInfo) -> Bundle:
    """The bundle with another entry for its model."""
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, model=info))


def _additive_gap(native: Engine, features: Features) -> float:
    """The largest gap between the sum of contributions and the margin, or the output in its place."""
    target = next(name for name in ("margin", "predict_proba", "predict") if name in native.outputs)
    answers = native.run(features, [target, "contributions"])
    total, wanted = answers["contributions"].sum(axis=-1), answers[target]
    if target == "predict_proba" and total.ndim == 1:
        wanted = wanted[:, 1]
    return parity.differences({"": total}, {"": wanted})[""]
