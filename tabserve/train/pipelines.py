"""Pipelines with another library's model at their end: taken apart into a preprocessor and that model."""

from __future__ import annotations

from typing import Any

from tabserve.train.models import KINDS
from tabserve.train.sklearn_model import SklearnModel


def take_apart(model: Any) -> tuple[Any, Any] | None:
    """The steps before the last as one fitted transformer, None where there are none, and the last step.

    None where the model is no pipeline, or ends in scikit-learn's own. A search over pipelines is the best it found.
    """
    *before, last = _parts(getattr(model, "best_estimator_", model))
    if last is model or not any(kind.is_kind_of(last) for kind in KINDS if kind is not SklearnModel):
        return None
    return _joined(before), last


def as_predicting(model: Any) -> Any:
    """What a model asks when it predicts: of a search the best it found, of imbalanced-learn all but its samplers."""
    from sklearn.pipeline import Pipeline

    if type(model).__module__.startswith("sklearn.model_selection._search"):
        model = getattr(model, "best_estimator_", model)
    if not isinstance(model, Pipeline) or not type(model).__module__.startswith("imblearn."):
        return model
    return Pipeline([(name, part) for name, part in model.steps if not hasattr(part, "fit_resample")])


def _parts(model: Any) -> list[Any]:
    """What a pipeline does to rows it predicts, in order; a pipeline at its end is opened, too."""
    if not hasattr(model, "steps"):
        return [model]
    *before, last = [part for _, part in model.steps]
    return [*(part for part in before if _transforms(part)), *_parts(last)]


def _transforms(part: Any) -> bool:
    """Whether a step changes rows; a sampler of imbalanced-learn does so in training alone."""
    return part is not None and part != "passthrough" and not hasattr(part, "fit_resample")


def _joined(parts: list[Any]) -> Any:
    from sklearn.pipeline import make_pipeline

    return parts[0] if len(parts) == 1 else make_pipeline(*parts) if parts else None
