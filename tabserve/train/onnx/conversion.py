"""Convert a model or preprocessor to ONNX; it is normal, and recorded, that some can't be converted."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabserve import extras
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import FeatureSpec, ModelInfo
from tabserve.engines import xgboost as xgb
from tabserve.engines.contributions import trees
from tabserve.engines.onnxruntime import errors
from tabserve.train.onnx import histogram_boosting
from tabserve.train.steps import TREES, steps

_FORESTS = TREES - trees.HISTOGRAM

# Operators that compute every row by itself. Missing are ONNX Runtime's matrix products, and what it computes in
# vectors with other code for their ends (Exp, Sigmoid, Softmax in double precision).
_ELEMENTWISE = frozenset({
    "Add", "ArgMax", "ArrayFeatureExtractor", "Cast", "Concat", "Div", "Identity", "Imputer", "IsNaN",
    "LabelEncoder", "Mul", "Normalizer", "OneHotEncoder", "Reshape", "Scaler", "Sub",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Where",
})  # fmt: skip


class NotConvertedError(Exception):
    """A model has no faithful ONNX form; the message is the reason, for the manifest's notes."""


def write_model(graph: Any, info: ModelInfo, target: Path) -> bool:
    """Write the ONNX form of a model, with our names for its outputs.

    Returns whether its operators keep rows independent of each other.
    """
    names = ("predict", *(["predict_proba"] if "predict_proba" in info.outputs else []))
    _rename_outputs(graph, names)
    target.write_bytes(graph.SerializeToString())
    return {node.op_type for node in graph.graph.node} <= _ELEMENTWISE


def convert_preprocessor(preprocessor: Any, specs: Sequence[FeatureSpec], frame: str, target: Path) -> None:
    """Write the ONNX form of a fitted transformer; its output is `matrix`. Raises NotConvertedError."""
    graph = estimator_graph(preprocessor, specs, frame, zipmap=False)
    _rename_outputs(graph, ("matrix",))
    target.write_bytes(graph.SerializeToString())


class NotInstalledError(BundleError):
    """A converter is missing, which says nothing about the model."""


def failures() -> tuple[type[Exception], ...]:
    """The exceptions that mean there is no usable ONNX form: not converted, not loadable, or not running."""
    return (NotConvertedError, BundleError, *errors())


def booster_graph(file: Path, info: ModelInfo) -> Any:
    """The ONNX form of a Booster, made from its saved file. Raises NotConvertedError."""
    booster = xgb.read(File.of(file))
    if "c" in (booster.feature_types or ()):
        raise NotConvertedError("ONNX trees have no categorical splits")
    if xgb.kind(booster) != "gbtree":
        raise NotConvertedError(f"{xgb.kind(booster)} has no faithful ONNX form")
    best = xgb.iterations(booster)[1]
    booster = booster[:best] if best else booster
    # The converter identifies features only by number.
    booster.feature_names = None
    booster.feature_types = None
    with _converting("onnxmltools"):
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        inputs = [("features", FloatTensorType([None, len(info.features)]))]
        return convert_xgboost(booster, initial_types=inputs, target_opset=histogram_boosting.OPSET[""])


def estimator_graph(model: Any, specs: Sequence[FeatureSpec], frame: str, *, zipmap: bool) -> Any:
    """The ONNX form of an estimator or transformer. Raises NotConvertedError."""
    if any(spec.type == "text" for spec in specs):
        raise NotConvertedError("text is not converted")
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if steps(model) & trees.HISTOGRAM - {type(last).__name__}:
        raise NotConvertedError("histogram gradient boosting is converted as the last step alone")
    with _converting("skl2onnx"):
        from skl2onnx import convert_sklearn
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from sklearn.impute import SimpleImputer

        boosting = dict.fromkeys(
            (HistGradientBoostingClassifier, HistGradientBoostingRegressor), histogram_boosting.convert
        )
        model = _with_cast(model) if len(getattr(model, "steps", ())) > 1 and hasattr(model, "predict") else model
        return convert_sklearn(
            model,
            initial_types=_inputs(model, specs, frame),
            options={id(model): {"zipmap": False}} if zipmap else None,
            target_opset=histogram_boosting.OPSET,
            custom_conversion_functions={SimpleImputer: _impute, **boosting},
        )


def _with_cast(pipeline: Any) -> Any:
    """The pipeline, with an explicit cast to the precision that its last step computes in.

    scikit-learn's trees read single precision and the other steps double, but ONNX's one-hot encoding is not double.
    """
    import numpy as np
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    *before, last = pipeline.steps
    dtype = np.float32 if type(last[1]).__name__ in _FORESTS else np.float64
    return Pipeline([*before, ("cast", CastTransformer(dtype=dtype)), last])


def _impute(scope: Any, operator: Any, container: Any) -> None:
    """Convert SimpleImputer for numbers in double precision, which ONNX Runtime's own Imputer does not support."""
    from skl2onnx.algebra.onnx_ops import OnnxIdentity, OnnxIsNaN, OnnxWhere

    imputer, (source, *others) = operator.raw_operator, operator.inputs
    statistics = imputer.statistics_
    if others or imputer.add_indicator or statistics.dtype.kind != "f" or (statistics != statistics).any():
        raise ValueError("SimpleImputer with several inputs, with text, or with an indicator")
    filled = OnnxWhere(OnnxIsNaN(source, op_version=13), statistics[None, :], source, op_version=13)
    OnnxIdentity(filled, op_version=13, output_names=operator.outputs[:1]).add_to(scope, container)


def _inputs(model: Any, specs: Sequence[FeatureSpec], frame: str) -> list[tuple[str, Any]]:
    """The graph's inputs: one matrix, or one input per feature if columns are selected by name. Numbers are double."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    number = FloatTensorType if type(model).__name__ in _FORESTS else DoubleTensorType
    if frame and "ColumnTransformer" in steps(model):
        kinds = {False: number, True: StringTensorType}
        return [(spec.name, kinds[spec.is_text]([None, 1])) for spec in specs]
    return [("features", number([None, len(specs)]))]


def _rename_outputs(graph: Any, names: Sequence[str]) -> None:
    """Give our names to the converter's outputs, which are in the same order."""
    import onnx

    old = list(graph.graph.output)
    del graph.graph.output[:]
    for name, output in zip(names, old, strict=False):
        graph.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        renamed = onnx.ValueInfoProto()
        renamed.CopyFrom(output)
        renamed.name = name
        graph.graph.output.append(renamed)


@contextlib.contextmanager
def _converting(converter: str) -> Iterator[None]:
    """Turn whatever a converter raises into NotConvertedError, and silence what it warns and prints."""
    logger = logging.getLogger(converter)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise NotInstalledError("model", f"{error.name} is not installed", extras.how("train")) from error
    except Exception as error:  # converters raise anything, from RuntimeError to KeyError
        reason = (str(error).splitlines() or [""])[0]
        raise NotConvertedError(f"{converter}: {type(error).__name__}: {reason}"[:300]) from error
    finally:
        logger.setLevel(level)
