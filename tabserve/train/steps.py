"""The estimators a scikit-learn model is made of, by name."""

from __future__ import annotations

from typing import Any

# Steps that treat every row, and every value in it, by itself, in the same operations wherever it stands in a batch.
# What multiplies matrices is not among them: BLAS sums in another order for another number of rows.
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

# Classifiers whose `predict` is the class of the highest `predict_proba` in the very code of scikit-learn 1.9.
LIKELIEST = frozenset({
    "BaggingClassifier", "CalibratedClassifierCV", "DecisionTreeClassifier", "ExtraTreeClassifier",
    "ExtraTreesClassifier", "RandomForestClassifier",
})  # fmt: skip


def last(model: Any) -> Any:
    """The estimator at a pipeline's end, or the model itself."""
    return model.steps[-1][1] if hasattr(model, "steps") else model


def steps(model: Any) -> set[str]:
    """The class names of all estimators a model is made of."""
    parts = [model, *model.get_params(deep=True).values()]
    return {type(part).__name__ for part in parts if hasattr(part, "get_params")}
