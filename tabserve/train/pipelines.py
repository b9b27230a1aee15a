"""Split pipelines that end in another library's model into a preprocessor and that model."""

from __future__ import annotations

from typing import Any

from tabserve.train.models import KINDS
from tabserve.train.sklearn_model import SklearnModel


def take_apart(model: Any) -> tuple[Any, Any] | None:
    """The steps before the last as one fitted transformer (None if there are none), and the last step.

    None if the model is not a pipeline, or ends in one of scikit-learn's models. A search counts as the best it found.
    """
    *before, last = _parts(getattr(model, "best_estimator_", model))
    if last is model or not any(kind.is_kind_of(last) for kind in KINDS if kind is not SklearnModel):
        return None
    return _joined(before), last


def as_predicting(model: Any) -> Any:
    """The part of a model that predicts: a search's best model, an imbalanced-learn pipeline without its samplers."""
    from sklearn.pipeline import Pipeline

    if type(model).__module__.startswith("sklearn.model_selection._search"):
        model = getattr(model, "best_estimator_", model)
    if not isinstance(model, Pipeline) or not type(model).__module__.startswith("imblearn."):
        return model
    return Pipeline([(name, part) for name, part in model.steps if not hasattr(part, "fit_resample")])


def _parts(model: Any) -> list[Any]:
    """The steps that a pipeline applies to rows it predicts, in order; a pipeline at its end is flattened."""
    if not hasattr(model, "steps"):
        return [model]
    *before, last = [part for _, part in model.steps]
    return [*(part for part in before if _transforms(part)), *_parts(last)]


def _transforms(part: Any) -> bool:
    """Whether a step changes rows in prediction; a sampler of imbalanced-learn does so only in training."""
    return part is not None and part != "passthrough" and not hasattr(part, "fit_resample")


def _joined(parts: list[Any]) -> Any:
    from sklearn.pipeline import make_pipeline

    return parts[0] if len(parts) == 1 else make_pipeline(*parts) if parts else None
