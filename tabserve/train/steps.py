"""The estimators in a scikit-learn model, by name."""

from __future__ import annotations

from typing import Any

# Steps that treat every value in every row by itself, with the same operations wherever the row is in a batch.
# Steps that multiply matrices are missing: BLAS sums in a different order for a different number of rows.
ELEMENTWISE = frozenset({
    "Binarizer", "ColumnTransformer", "MaxAbsScaler", "MinMaxScaler", "OneHotEncoder", "OrdinalEncoder", "Pipeline",
    "RobustScaler", "SimpleImputer", "StandardScaler",
})  # fmt: skip
TREES = frozenset({
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "ExtraTreesClassifier", "ExtraTreesRegressor", "GradientBoostingClassifier", "GradientBoostingRegressor",
    "HistGradientBoostingClassifier", "HistGradientBoostingRegressor", "RandomForestClassifier",
    "RandomForestRegressor",
})  # fmt: skip

# Classifiers whose `predict` is, by the code of scikit-learn 1.9, the class with the highest `predict_proba`.
LIKELIEST = frozenset({
    "BaggingClassifier", "CalibratedClassifierCV", "DecisionTreeClassifier", "ExtraTreeClassifier",
    "ExtraTreesClassifier", "RandomForestClassifier",
})  # fmt: skip


def last(model: Any) -> Any:
    """The estimator at a pipeline's end, or the model itself."""
    return model.steps[-1][1] if hasattr(model, "steps") else model


def steps(model: Any) -> set[str]:
    """The class names of all estimators in a model."""
    parts = [model, *model.get_params(deep=True).values()]
    return {type(part).__name__ for part in parts if hasattr(part, "get_params")}
