"""The models of the walk: scikit-learn's estimators, pipelines on mixed tables, objectives and boosters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor
from scipy.stats import uniform
from sklearn.base import ClusterMixin, DensityMixin, OutlierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes HalvingGridSearchCV importable
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier, XGBRFRegressor

NUMBERS = ["amount", "income", "children"]


class Case(NamedTuple):
    """One model to bring.

    group: a heading of docs/models.md. learns, tables: tried in this order until `make().fit` and `predict` succeed.
    before: a preprocessor that is given with the model.
    """

    group: str
    name: str
    make: Callable[[], Any]
    learns: tuple[str, ...]
    tables: tuple[str, ...]
    before: Callable[[], Any] | None = None

    @property
    def key(self) -> str:
        """The case's name in the walk's table."""
        return f"{self.group}: {self.name}"


def cases() -> list[Case]:
    """All cases, in order."""
    return [*_estimators(), *_transformers(), *_searches(), *_mixed(), *_before(), *_xgboost(), *_lightgbm()]


_SIMPLE = ("numbers", "counts", "one number")


def _estimators() -> Iterator[Case]:
    for group, task in (("classifiers", "binary"), ("classifiers of three classes", "multiclass")):
        for name, kind in all_estimators("classifier"):
            yield Case(group, name, _maker(kind, **_NEEDED.get(name, {})), (task, "labels"), _SIMPLE)
    for name, kind in all_estimators("regressor"):
        yield Case("regressors", name, _maker(kind), ("regression", "several"), _SIMPLE)
    for name, kind in all_estimators():
        if issubclass(kind, OutlierMixin):
            yield Case("outlier detectors", name, _maker(kind, **_NEEDED.get(name, {})), ("anomaly",), _SIMPLE)
    for name, kind in all_estimators():
        if issubclass(kind, ClusterMixin | DensityMixin) and hasattr(kind, "predict"):
            yield Case("clusterers and mixtures", name, _maker(kind, **_NEEDED.get(name, {})), ("clusters",), _SIMPLE)


_NEEDED: dict[str, dict[str, Any]] = {
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "LocalOutlierFactor": {"novelty": True},
    "GaussianMixture": {"n_components": 3},
    "BayesianGaussianMixture": {"n_components": 3},
    "MeanShift": {"bandwidth": 0.4},
    "GaussianRandomProjection": {"n_components": 2},
    "SparseRandomProjection": {"n_components": 2},
}


def _transformers() -> Iterator[Case]:
    for name, kind in all_estimators("transformer"):
        if not hasattr(kind, "predict"):
            yield Case(
                "transformers",
                name,
                _then(_maker(kind, **_NEEDED.get(name, {})), LogisticRegression),
                ("binary",),
                _SIMPLE,
            )


def _searches() -> Iterator[Case]:
    searches: dict[str, Callable[[], Any]] = {
        "GridSearchCV": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}),
        "RandomizedSearchCV": lambda: RandomizedSearchCV(LogisticRegression(), {"C": uniform(0.1, 2)}, n_iter=3),
        "HalvingGridSearchCV": lambda: HalvingGridSearchCV(LogisticRegression(), {"C": [0.1, 1]}),
        "GridSearchCV of a pipeline": lambda: GridSearchCV(
            make_pipeline(StandardScaler(), XGBClassifier(n_estimators=3)), {"xgbclassifier__max_depth": [1, 2]}
        ),
    }
    for name, make in searches.items():
        yield Case("searches", name, make, ("binary",), _SIMPLE)


def _maker(kind: Any, **given: Any) -> Callable[[], Any]:
    """A maker of the estimator with its defaults, or with the fewest arguments that it needs."""

    def make() -> Any:
        try:
            return kind(**given)
        except TypeError:
            return next(iter(_construct_instances(kind)))

    return make


def _then(first: Callable[[], Any], last: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: make_pipeline(first(), last())


ENCODERS: dict[str, Callable[[], Any]] = {
    "OneHotEncoder": lambda: _columns(OneHotEncoder(handle_unknown="ignore"), ["country"]),
    "OneHotEncoder of every kind": lambda: _columns(
        OneHotEncoder(handle_unknown="ignore"), ["country"], (OneHotEncoder(), ["children", "active"])
    ),
    "OneHotEncoder of infrequent ones": lambda: _columns(
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=25), ["country"]
    ),
    "OneHotEncoder without the first": lambda: _columns(OneHotEncoder(drop="first", sparse_output=False), ["country"]),
    "OrdinalEncoder": lambda: _columns(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), ["country"]
    ),
    "TargetEncoder": lambda: _columns(TargetEncoder(random_state=0), ["country"]),
    "SimpleImputer and OneHotEncoder": lambda: _columns(
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["country"]
    ),
    "SimpleImputer and OrdinalEncoder": lambda: _columns(
        make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OrdinalEncoder()), ["country"]
    ),
    "KBinsDiscretizer": lambda: _columns(
        OneHotEncoder(handle_unknown="ignore"),
        ["country"],
        (make_pipeline(SimpleImputer(), KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf")), NUMBERS),
    ),
    "PolynomialFeatures": lambda: _columns(
        OneHotEncoder(handle_unknown="ignore"),
        ["country"],
        (make_pipeline(SimpleImputer(), StandardScaler(), PolynomialFeatures()), NUMBERS),
    ),
    "FunctionTransformer": lambda: _columns(
        OneHotEncoder(handle_unknown="ignore"), ["country"], (FunctionTransformer(np.log1p), ["amount"])
    ),
}


def _columns(encoder: Any, names: list[str], *more: Any) -> Any:
    """The encoder for its columns, imputing and scaling for the numbers; other columns pass through."""
    filled = make_pipeline(SimpleImputer(), StandardScaler())
    taken = {name for _, columns in more for name in columns}
    rest = [name for name in NUMBERS if name not in taken]
    numbers = [(filled, rest)] if rest else []
    return make_column_transformer((encoder, names), *more, *numbers, remainder="passthrough")


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": lambda: LogisticRegression(max_iter=500),
    "RandomForestClassifier": lambda: RandomForestClassifier(10, random_state=0),
    "GradientBoostingClassifier": lambda: GradientBoostingClassifier(n_estimators=10, random_state=0),
    "HistGradientBoostingClassifier": lambda: HistGradientBoostingClassifier(max_iter=10),
    "DecisionTreeClassifier": lambda: DecisionTreeClassifier(random_state=0),
    "KNeighborsClassifier": lambda: KNeighborsClassifier(),
    "GaussianNB": lambda: GaussianNB(),
    "MLPClassifier": lambda: MLPClassifier((5,), max_iter=50, random_state=0),
    "XGBClassifier": lambda: XGBClassifier(n_estimators=10),
    "LGBMClassifier": lambda: LGBMClassifier(n_estimators=10, verbosity=-1),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "Ridge": lambda: Ridge(),
    "RandomForestRegressor": lambda: RandomForestRegressor(10, random_state=0),
    "HistGradientBoostingRegressor": lambda: HistGradientBoostingRegressor(max_iter=10),
    "XGBRegressor": lambda: XGBRegressor(n_estimators=10),
    "LGBMRegressor": lambda: LGBMRegressor(n_estimators=10, verbosity=-1),
}


def _mixed() -> Iterator[Case]:
    for encoder, make in ENCODERS.items():
        for last in CLASSIFIERS:
            yield Case(
                "pipelines on mixed tables",
                f"{encoder}, {last}",
                _then(make, CLASSIFIERS[last]),
                ("binary",),
                ("mixed",),
            )
        for last in REGRESSORS:
            yield Case(
                "pipelines on mixed tables",
                f"{encoder}, {last}",
                _then(make, REGRESSORS[last]),
                ("regression",),
                ("mixed",),
            )


def _before() -> Iterator[Case]:
    for encoder, make in ENCODERS.items():
        for last in ("LogisticRegression", "XGBClassifier"):
            yield Case(
                "a preprocessor beside the model",
                f"{encoder}, {last}",
                CLASSIFIERS[last],
                ("binary",),
                ("mixed",),
                make,
            )


def _xgboost() -> Iterator[Case]:
    for objective in ("logistic", "logitraw", "hinge"):
        yield _xgb(f"XGBClassifier with binary:{objective}", XGBClassifier, "binary", objective=f"binary:{objective}")
    for objective in ("softprob", "softmax"):
        yield _xgb(f"XGBClassifier with multi:{objective}", XGBClassifier, "numbered", objective=f"multi:{objective}")
    for objective in (
        "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:gamma",
        "reg:tweedie", "count:poisson", "survival:cox",
    ):  # fmt: skip
        yield _xgb(f"XGBRegressor with {objective}", XGBRegressor, "regression", objective=objective)
    for objective in ("reg:logistic", "binary:logistic"):
        yield _xgb(f"XGBRegressor with {objective}", XGBRegressor, "rate", objective=objective)
    quantile = {"objective": "reg:quantileerror"}
    yield _xgb("XGBRegressor with one quantile", XGBRegressor, "regression", quantile_alpha=0.5, **quantile)
    yield _xgb("XGBRegressor with two quantiles", XGBRegressor, "quantiles", quantile_alpha=[0.1, 0.9], **quantile)
    yield _xgb("XGBRegressor with several targets", XGBRegressor, "several")
    yield _xgb(
        "XGBRegressor with trees of several targets", XGBRegressor, "several", multi_strategy="multi_output_tree"
    )
    for booster in ("gblinear", "dart"):
        yield _xgb(f"XGBClassifier with {booster}", XGBClassifier, "binary", booster=booster)
        yield _xgb(f"XGBRegressor with {booster}", XGBRegressor, "regression", booster=booster)
    yield _xgb("XGBRFClassifier", XGBRFClassifier, "binary")
    yield _xgb("XGBRFRegressor", XGBRFRegressor, "regression")
    yield _xgb("XGBClassifier with a marker of missing values", XGBClassifier, "binary", missing=-1)
    yield _xgb("XGBClassifier with parallel trees", XGBClassifier, "binary", num_parallel_tree=3)
    yield _xgb("XGBClassifier with monotone trees", XGBClassifier, "binary", monotone_constraints=(1, 0, 0, 0))
    yield _xgb("XGBClassifier with the exact method", XGBClassifier, "binary", tree_method="exact")


def _xgb(name: str, kind: Any, learnt: str, **options: Any) -> Case:
    return Case("XGBoost", name, lambda: kind(n_estimators=10, **options), (learnt,), ("numbers",))


def _lightgbm() -> Iterator[Case]:
    for objective, learnt in (("binary", "binary"), ("multiclass", "multiclass"), ("multiclassova", "numbered")):
        yield _lgbm(f"LGBMClassifier with {objective}", LGBMClassifier, learnt, objective=objective)
    for objective in (
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
    ):
        yield _lgbm(f"LGBMRegressor with {objective}", LGBMRegressor, "regression", objective=objective)
    for objective in ("cross_entropy", "cross_entropy_lambda"):
        yield _lgbm(f"LGBMRegressor with {objective}", LGBMRegressor, "rate", objective=objective)
    for boosting in ("dart", "rf"):
        options = {"boosting_type": boosting, "bagging_freq": 1, "bagging_fraction": 0.7}
        yield _lgbm(f"LGBMClassifier with {boosting}", LGBMClassifier, "binary", **options)
        yield _lgbm(f"LGBMRegressor with {boosting}", LGBMRegressor, "regression", **options)
    yield _lgbm("LGBMClassifier with zeros that are missing", LGBMClassifier, "binary", zero_as_missing=True)
    yield _lgbm("LGBMRegressor with linear leaves", LGBMRegressor, "regression", linear_tree=True)


def _lgbm(name: str, kind: Any, learnt: str, **options: Any) -> Case:
    return Case("LightGBM", name, lambda: kind(n_estimators=10, verbosity=-1, **options), (learnt,), ("numbers",))
