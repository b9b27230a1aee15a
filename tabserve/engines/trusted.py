"""Reviewed types that a skops file may hold besides those that skops itself knows to be safe.

A type is here if making such an object and giving it its state runs only the library's own plain code, whatever the
file holds. skops makes it with `__new__` and `__setstate__` or `__dict__`, and everything inside it must be trusted
as well. Where native code would follow a state unchecked, `skops_types` and `states` verify it before the model is
used. A function is here if it may be called with the rows of a request. Loading a file only looks it up, which
`skops_nodes` verifies.
"""

from __future__ import annotations

REVIEWED = {
    "scikit-learn": ("1.9", "1.9"),
    "skops": ("0.16", "0.16"),
    "xgboost": ("3.2", "3.4"),
    "numpy": ("2.4", "2.5"),
    "scipy": ("1.17", "1.18"),
}
"""The first and last minor version of each library that the tables below are meant for; a test fails for others."""

_PLAIN = {
    # A dtype is read from an empty array, without unpickling.
    "numpy": ("dtype",),
    # These hold a function, which must be trusted itself, and call nothing until they are called.
    "functools": ("partial",),
    "builtins": ("object",),
    "sklearn._loss.loss": ("HalfTweedieLoss", "HalfTweedieLossIdentity"),
    "sklearn.calibration": ("_CalibratedClassifier", "_SigmoidCalibration"),
    "sklearn.cluster._bisect_k_means": ("_BisectingTree",),
    "sklearn.compose._column_transformer": ("make_column_selector",),
    "sklearn.gaussian_process._gpc": ("_BinaryGaussianProcessClassifierLaplace",),
    "sklearn.gaussian_process.kernels": (
        "CompoundKernel", "ConstantKernel", "DotProduct", "ExpSineSquared", "Exponentiation", "Hyperparameter",
        "Matern", "PairwiseKernel", "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel",
    ),
    "sklearn.metrics._scorer": ("_CurveScorer", "_PassthroughScorer", "_Scorer"),
    "sklearn.model_selection._search_successive_halving": ("HalvingGridSearchCV", "HalvingRandomSearchCV"),
    "sklearn.model_selection._split": (
        "GroupKFold", "GroupShuffleSplit", "KFold", "LeaveOneGroupOut", "LeaveOneOut", "LeavePGroupsOut", "LeavePOut",
        "PredefinedSplit", "RepeatedKFold", "RepeatedStratifiedKFold", "ShuffleSplit", "StratifiedGroupKFold",
        "StratifiedKFold", "StratifiedShuffleSplit", "TimeSeriesSplit", "_CVIterableWrapper",
    ),
    "sklearn.multiclass": ("_ConstantPredictor",),
    # These hold arrays, and are not used to predict.
    "sklearn.neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "sklearn.utils._bunch": ("Bunch",),
    "sklearn.utils._metadata_requests": ("MetadataRequest", "MethodMetadataRequest"),
    # A Booster's state goes through the parser that a model.ubj goes through.
    "xgboost.core": ("Booster",),
    "xgboost.sklearn": ("XGBClassifier", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker", "XGBRegressor"),
}  # fmt: skip

_FUNCTIONS = {
    "numpy": ("mean",),
    "sklearn.feature_selection._mutual_info": ("mutual_info_classif", "mutual_info_regression"),
    "sklearn.feature_selection._univariate_selection": ("chi2", "f_classif", "f_regression", "r_regression"),
    "sklearn.metrics._classification": (
        "accuracy_score", "balanced_accuracy_score", "brier_score_loss", "f1_score", "jaccard_score", "log_loss",
        "matthews_corrcoef", "precision_score", "recall_score",
    ),
    "sklearn.metrics._ranking": ("average_precision_score", "roc_auc_score", "top_k_accuracy_score"),
    "sklearn.metrics._regression": (
        "d2_absolute_error_score", "explained_variance_score", "max_error", "mean_absolute_error",
        "mean_absolute_percentage_error", "mean_gamma_deviance", "mean_poisson_deviance", "mean_squared_error",
        "mean_squared_log_error", "median_absolute_error", "r2_score", "root_mean_squared_error",
        "root_mean_squared_log_error",
    ),
    "sklearn.utils.validation": ("check_array",),
}  # fmt: skip

_VERIFIED = {
    "sklearn.ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),
    "sklearn.tree._tree": ("Tree",),
    "sklearn.neighbors._ball_tree": ("BallTree",),
    "sklearn.neighbors._kd_tree": ("KDTree",),
    "sklearn.metrics._dist_metrics": (
        "BrayCurtisDistance64", "CanberraDistance64", "ChebyshevDistance64", "DiceDistance64", "EuclideanDistance64",
        "HammingDistance64", "HaversineDistance64", "JaccardDistance64", "MahalanobisDistance64", "ManhattanDistance64",
        "MinkowskiDistance64", "RogersTanimotoDistance64", "RussellRaoDistance64", "SEuclideanDistance64",
        "SokalSneathDistance64",
    ),
    "scipy.interpolate._bsplines": ("BSpline", "_BSpline"),
    "scipy.sparse._csc": ("csc_array", "csc_matrix"),
    "scipy.sparse._csr": ("csr_array", "csr_matrix"),
}  # fmt: skip


def _names(*tables: dict[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for table in tables for module, names in table.items() for name in names)


FUNCTIONS = _names(_FUNCTIONS)
"""The functions among the types and functions that we trust."""
TYPES = _names(_PLAIN, _FUNCTIONS, _VERIFIED)
"""Every type and function we trust, by the name skops gives it."""

LEFT = {
    "sklearn.cluster._kmeans._kmeans_single_lloyd": (
        "loading a file could call it with arrays of any shape, and its native code trusts their shapes"
    ),
}
"""Types that scikit-learn's estimators hold and we do not trust, with the reason; a user may trust them by name."""
