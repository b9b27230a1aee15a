"""Verify that a schema and a model agree on features, classes and outputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import SCHEMA, FeatureSpec, Manifest, ModelInfo
from tabserve.schema.schema import Field, Schema

_REMEDY = "Change the schema or train the model on these features, and save the bundle again."


def verify(manifest: Manifest, schema: Schema) -> None:
    """Refuse a schema that does not fit the model. Raises BundleError."""
    if manifest.task != schema.task:
        raise BundleError(SCHEMA, f"expected task {manifest.task}, got {schema.task}", _REMEDY)
    taken = manifest.preprocessor.features if manifest.preprocessor else manifest.model.features
    verify_features(taken, schema)
    verify_classes(manifest.model, schema)
    verify_outputs(manifest.model.outputs, schema)
    _verify_input(manifest)


def specs(schema: Schema) -> tuple[FeatureSpec, ...]:
    """The schema's features, as a model or preprocessor takes them; categories in the schema's order."""
    fields = schema.fields
    return tuple(_spec(name, fields.get(name)) for name in schema.feature_names)


def _spec(name: str, field: Field | None) -> FeatureSpec:
    if field is not None and field.type == "category":
        return FeatureSpec(name, "category", field.values, name)
    if field is not None and field.type == "text":
        return FeatureSpec(name, "text", (), name, field.longest)
    return FeatureSpec(name, "number", (), name)


def verify_features(taken: Sequence[FeatureSpec], schema: Schema) -> None:
    """Refuse features other than the schema's, in name, order, type or categories. Raises BundleError."""
    wanted = specs(schema)
    if [spec.name for spec in taken] != [spec.name for spec in wanted]:
        got, expected = ", ".join(spec.name for spec in wanted), ", ".join(spec.name for spec in taken)
        raise BundleError(SCHEMA, f"expected the model's features [{expected}], got [{got}]", _REMEDY)
    for spec, want in zip(taken, wanted, strict=True):
        if spec.type != want.type:
            raise BundleError(SCHEMA, f"feature `{spec.name}`: expected a {spec.type}, got a {want.type}", _REMEDY)
        if not set(want.values) <= set(spec.values):
            unknown = ", ".join(sorted(set(want.values) - set(spec.values)))
            raise BundleError(SCHEMA, f"feature `{spec.name}`: the model was never trained on {unknown}", _REMEDY)


def verify_outputs(computed: Sequence[str], schema: Schema) -> None:
    """Refuse a schema that asks for outputs the model does not have. Raises BundleError."""
    known = {*computed, *({"label"} if schema.task != "regression" else ())}
    decision = schema.outputs.decision
    missing = [name for name in schema.outputs.default if name not in known]
    if missing:
        raise BundleError(SCHEMA, f"`outputs.default`: expected one of {sorted(known)}, got {missing[0]!r}", _REMEDY)
    if decision is not None and (needed := _needed(decision.score, schema)) not in known:
        problem = f"`outputs.decision`: the score `{decision.score}` needs {needed}, which this model does not give"
        raise BundleError(SCHEMA, problem, _other_score(known))
    if schema.outputs.reasons is not None and "contributions" not in known:
        raise BundleError(
            SCHEMA,
            "`outputs.reasons` needs contributions, which this model does not give",
            "Remove the reasons, or use XGBoost, a linear model or scikit-learn's trees.",
        )


def _needed(score: str, schema: Schema) -> str:
    """The output that holds a decision's score."""
    if score in schema.outputs.classes:
        return "predict_proba"
    return "predict" if score in schema.outputs.targets else score


def _other_score(known: Collection[str]) -> str:
    if "margin" in known and "predict_proba" not in known:
        return "Decide on the `margin`, or leave the decision out: it is then the model's class."
    return "Leave the decision out, or train a model that gives it."


def verify_classes(model: ModelInfo, schema: Schema) -> None:
    """Refuse a schema whose classes or targets are not the model's. Raises BundleError."""
    named, own = schema.outputs.classes, model.classes
    if model.targets != max(1, len(schema.outputs.targets)):
        got = len(schema.outputs.targets)
        problem = f"`outputs.targets`: expected {model.targets} names, one for each value the model gives, got {got}"
        raise BundleError(SCHEMA, problem, "Name them in the order of the columns the model was trained on.")
    if named and own and len(named) != len(own):
        raise BundleError(SCHEMA, f"`outputs.classes`: expected {len(own)} names, got {len(named)}", _REMEDY)
    if schema.task == "binary" and len(own) != 2:
        raise BundleError(SCHEMA, f"task binary: expected a model of 2 classes, got {len(own)}", _REMEDY)


def _verify_input(manifest: Manifest) -> None:
    if manifest.preprocessor is not None and manifest.model.input != "matrix":
        raise BundleError(manifest.model.file, "a preprocessor gives a matrix, but the model takes columns", _REMEDY)
