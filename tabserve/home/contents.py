"""What the page shows of a bundle: the model, a form, and how answers are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import Bundle
from tabserve.bundle.manifest import ModelInfo
from tabserve.bundle.tensors import LABEL, class_names, labels
from tabserve.home import boxes
from tabserve.home.boxes import Box
from tabserve.home.drawing import Drawing, drawing
from tabserve.inference.model import PREDICTOR_RELEASE, TRANSFORMER_RELEASE
from tabserve.schema import ranges
from tabserve.schema.decisions import Decisions
from tabserve.schema.ranges import Range
from tabserve.schema.schema import ANOMALY_SCORE, MARGIN, PREDICT, Schema

_QUANTILES = np.linspace(0, 1, 101)


class Contents(msgspec.Struct, frozen=True):
    """What the page shows.

    model: its kind. saved: the day. scored: what the score is. drawn: the score's scale; None if nothing is shown
    on one. script: what the page's script goes by.
    """

    name: str
    version: str
    task: str
    classes: Sequence[str]
    bands: Sequence[Range]
    model: str
    saved: str
    digest: str
    boxes: Sequence[Box]
    drawn: Drawing | None
    scored: str
    intended_use: str
    limits: str
    script: dict[str, Any]


def of_transformer(bundle: Bundle, name: str, release: str) -> Contents:
    """The page of a service of records and decisions.

    name: what clients call the model. release: the service's id. Both are the bundle's own if they are empty.
    """
    model, schema, classes = bundle.manifest.model, bundle.schema, class_names(bundle)
    decisions = _decisions(bundle)
    bands = ranges.of_schema(schema) or _of_anomaly(bundle)
    shown = "score" in decisions.names and (bool(bands) or schema.task == "regression")
    probability = decisions.of_probability
    told = shown and probability and len(classes) == 2  # by the scale, which shows both probabilities
    outputs = [
        *decisions.names,
        *(["label"] if classes else []),
        *([PREDICT] if schema.outputs.targets else []),
        *(["predict_proba"] if "predict_proba" in model.outputs and not told else []),
        *(["contributions"] if "contributions" in model.outputs else []),
    ]
    own = _Own(
        boxes=boxes.of_fields(bundle),
        bands=bands,
        scores=_scores(bundle) if shown else None,
        limits=(0.0, 1.0) if probability else None,
        header=TRANSFORMER_RELEASE,
        outputs=outputs,
        score="score",
        scored=_scored(schema),
        texts=schema.outputs.reasons.texts if schema.outputs.reasons else {},
        decides=True,
    )
    return _contents(bundle, name, release, own)


def of_predictor(bundle: Bundle, name: str, release: str) -> Contents:
    """The page of a service of features and predictions; arguments as of `of_transformer`."""
    model = bundle.manifest.model
    known = (PREDICT, "predict_proba", ANOMALY_SCORE, "contributions")
    score = ANOMALY_SCORE if ANOMALY_SCORE in model.outputs else "" if model.classes or model.targets > 1 else PREDICT
    own = _Own(
        boxes=boxes.of_features(bundle),
        bands=_of_anomaly(bundle),
        scores=bundle.reference.outputs[score] if score else None,
        limits=None,
        header=PREDICTOR_RELEASE,
        outputs=[*(each for each in known if each in model.outputs), *(["label"] if model.classes else [])],
        score=score,
        scored="anomaly score" if score == ANOMALY_SCORE else "predicted value",
        texts={},
        decides=False,
    )
    return _contents(bundle, name, release, own)


class _Own(NamedTuple):
    """What one of the services has on its page.

    scores: of the reference [rows], None if no scale is shown. limits: the scale's, if it has some. outputs: to ask
    for. score: the output that is shown on the scale; scored: what it is, in words. decides: whether it takes records.
    """

    boxes: Sequence[Box]
    bands: Sequence[Range]
    scores: Array | None
    limits: tuple[float, float] | None
    header: str
    outputs: Sequence[str]
    score: str
    scored: str
    texts: dict[str, str]
    decides: bool


def _contents(bundle: Bundle, name: str, release: str, own: _Own) -> Contents:
    manifest, model, schema = bundle.manifest, bundle.manifest.model, bundle.schema
    bands = () if own.scores is None else own.bands
    drawn = None if own.scores is None else drawing(own.scores, bands, own.limits)
    return Contents(
        name=name or manifest.name,
        version=manifest.version,
        task=manifest.task,
        classes=class_names(bundle),
        bands=bands,
        model=f"{model.native}, {len(model.features)} features",
        saved=manifest.created[:10],
        digest=bundle.digest,
        boxes=own.boxes,
        drawn=drawn,
        scored=own.scored,
        intended_use=schema.intended_use or "",
        limits=schema.limits or "",
        script={
            "name": name or manifest.name,
            "header": own.header,
            "release": release or bundle.digest,
            "decides": own.decides,
            "boxes": [
                {"name": box.name, "kind": box.kind, "options": box.options, "required": box.required}
                for box in own.boxes
            ],
            "outputs": own.outputs,
            "classes": class_names(bundle),
            "column": _decisions(bundle).column,
            "targets": schema.outputs.targets,
            "score": own.score,
            "scored": own.scored,
            "bands": [{"label": band.label, "low": band.low, "high": band.high} for band in bands],
            "quantiles": [] if own.scores is None or own.limits else _quantiles(own.scores),
            "rows": len(bundle.reference.outputs[PREDICT]),
            "sources": [feature.source or feature.name for feature in model.features],
            "texts": own.texts,
            "axis": drawn.axis._asdict() if drawn else None,
            "sum": _summed(model),
        },
    )


def _decisions(bundle: Bundle) -> Decisions:
    return Decisions(bundle.schema, bundle.manifest.model, class_names(bundle))


def _of_anomaly(bundle: Bundle) -> list[Range]:
    """What an outlier detector itself calls an anomaly, as bands of its score; none for other tasks."""
    if bundle.schema.task != "anomaly":
        return []
    anomaly, normal = class_names(bundle)
    return [Range(normal, None, 0.0), Range(anomaly, 0.0, None)]


def _scores(bundle: Bundle) -> Array:
    """The scores of the reference rows."""
    names, outputs = class_names(bundle), dict(bundle.reference.outputs)
    if names:
        outputs[LABEL] = labels(bundle.manifest.model, names, outputs[PREDICT])
    return _decisions(bundle).decide(outputs, ("score",))["score"]


def _scored(schema: Schema) -> str:
    """What the score is, in words."""
    decision, task = schema.outputs.decision, schema.task
    if task == "anomaly":
        return "anomaly score"
    if task == "regression":
        target = decision.score if decision else PREDICT
        return "predicted value" if target == PREDICT else f"predicted {target}"
    if decision is None:
        return "probability"
    return MARGIN if decision.score == MARGIN else f"probability of {decision.score}"


def _quantiles(scores: Array) -> list[float]:
    """The score at each hundredth of the reference."""
    finite = scores[np.isfinite(scores)].astype(np.float64)
    return [float(f"{each:.7g}") for each in np.quantile(finite, _QUANTILES).tolist()] if len(finite) else []


def _summed(model: ModelInfo) -> str:
    """What contributions add up to."""
    if MARGIN in model.outputs:
        return MARGIN
    return "probability" if model.classes else "predicted value"
