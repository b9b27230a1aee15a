"""Exact contributions of scikit-learn's trees, from tables, or from XGBoost if rewritten as one of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from tabserve.arrays import Array, Features, dense, take
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.shallow import ShallowTrees, Tree
from tabserve.engines.contributions.sources import owners
from tabserve.engines.contributions.transformed import Transformed, written

_FEW = slice(0, 64)
# Beyond this, rewriting takes seconds, and as much memory as the model itself.
_MOST_NODES = 500_000
HISTOGRAM = frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"})
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_AVERAGED = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_SINGLE = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")


class TreeContributions:
    """SHAP values of a tree ensemble at the end of a pipeline, summed over what each feature was transformed into.

    They are the path-dependent TreeSHAP of Lundberg et al. (2020), as XGBoost computes it.
    """

    def __init__(
        self, model: Any, present: Callable[[Features], Any], reference: Features, specs: Sequence[FeatureSpec]
    ) -> None:
        """Raises ValueError if the model's last step is not an ensemble of trees, or an earlier step mixes features."""
        steps = getattr(model, "steps", None)
        self._present, self._before = present, model[:-1] if steps and len(steps) > 1 else None
        final = steps[-1][1] if steps else model
        found = list(decompose(final))
        if sum(len(tree.left) for tree in found) > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES} nodes")
        self._written: Transformed | None = None
        self._single = type(final).__name__ not in HISTOGRAM
        some = take(reference, _FEW)
        self._owned = owners(self._transformed, reference, specs).T.astype(np.float64)
        if (self._owned.sum(axis=1) > 1).any():
            raise ValueError("a step before the trees mixes features")
        if self._before is not None:
            self._written = written(self._by_transform, self._before, self._owned, reference, specs)
        self._groups = _explained(found, self._owned.shape[0])
        first = self._groups(self._transformed(take(some, slice(0, 1))))
        self._base = _answer(model, present(take(some, slice(0, 1)))) - first.sum(axis=2)

    def __call__(self, features: Features) -> Array:
        """The contributions, [rows, features + 1] or [rows, classes, features + 1]."""
        groups = self._groups(self._transformed(features))
        parts, bias = groups[:, :, :-1], groups[:, :, -1] + self._base
        unowned = parts @ (1.0 - self._owned.sum(axis=1))
        result = np.concatenate([parts @ self._owned, (bias + unowned)[:, :, None]], axis=2)
        return result[:, 0] if result.shape[1] == 1 else result

    def _by_transform(self, features: Features) -> Array:
        table = self._present(features)
        return dense(table if self._before is None else self._before.transform(table))

    def _transformed(self, features: Features) -> Array:
        matrix = self._written(features) if self._written else self._by_transform(features)
        # All but histogram gradient boosting read single precision.
        return matrix.astype(np.float32).astype(np.float64) if self._single else matrix


class _Rewritten:
    """Trees that are too large for tables, rewritten as an XGBoost model for its TreeSHAP."""

    def __init__(self, trees: Sequence[Tree], features: int) -> None:
        self._cuts = _cuts(trees, features)
        self._booster = _booster(trees, self._cuts)

    def __call__(self, matrix: Array) -> Array:
        """XGBoost's SHAP values [rows, groups, features + 1], in double precision from here on."""
        import xgboost

        coded = np.empty(matrix.shape, np.float32)
        for index, cuts in enumerate(self._cuts):
            coded[:, index] = np.searchsorted(cuts, matrix[:, index], side="left")
        coded[np.isnan(matrix)] = np.nan
        data = xgboost.DMatrix(coded, nthread=1)
        options = {"pred_contribs": True, "strict_shape": True, "validate_features": False}
        return np.asarray(self._booster.predict(data, **options), np.float64)


def contributor(
    model: Any, present: Callable[[Features], Any], reference: Features, specs: Sequence[FeatureSpec]
) -> Callable[[Features], Array] | None:
    """The contributions of an ensemble of trees, None if this module does not know the model."""
    try:
        return TreeContributions(model, present, reference, specs)
    except ValueError:
        return None


def _explained(trees: Sequence[Tree], features: int) -> Callable[[Array], Array]:
    """SHAP values [rows, groups, features + 1] of the input of the model's last step, without the bias."""
    try:
        return ShallowTrees(trees, features)
    except ValueError:
        return _Rewritten(trees, features)


def decompose(model: Any) -> Iterator[Tree]:
    """The model as a sum of trees, up to a constant. Raises ValueError if it is not one."""
    kind = type(model).__name__
    if kind in _SINGLE:
        yield from _averaged(model, 1)
    elif kind in _AVERAGED:
        for estimator in model.estimators_:
            yield from _averaged(estimator, len(model.estimators_))
    elif kind in _BOOSTED:
        for stage in model.estimators_:
            for group, estimator in enumerate(stage):
                yield _tree(estimator.tree_, group, estimator.tree_.value[:, 0, 0] * model.learning_rate)
    elif kind in HISTOGRAM and model.is_categorical_ is None:
        for stage in model._predictors:
            for group, predictor in enumerate(stage):
                yield _histogram_tree(predictor.nodes, group)
    else:
        raise ValueError("not an ensemble of trees on numbers")


def _averaged(estimator: Any, count: int) -> Iterator[Tree]:
    """A tree of class shares as one tree per class; for two classes, only the second class's."""
    values = estimator.tree_.value
    if values.shape[1] > 1:
        raise ValueError("several outputs")
    values = values[:, 0, :]
    if hasattr(estimator, "classes_"):
        values = values / values.sum(axis=1, keepdims=True)
        values = values[:, 1:] if values.shape[1] == 2 else values
    for group in range(values.shape[1]):
        yield _tree(estimator.tree_, group, values[:, group] / count)


def _tree(tree: Any, group: int, value: Array) -> Tree:
    left, right, cover = tree.children_left, tree.children_right, tree.weighted_n_node_samples
    missing_left = np.asarray(tree.missing_go_to_left).astype(bool)
    return Tree(group, left, right, np.maximum(tree.feature, 0), tree.threshold, missing_left, value, cover)


def _histogram_tree(nodes: Array, group: int) -> Tree:
    leaf = nodes["is_leaf"] != 0
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    feature, threshold = nodes["feature_idx"].astype(np.int64), nodes["num_threshold"]
    missing_left = nodes["missing_go_to_left"].astype(bool)
    return Tree(group, left, right, feature, threshold, missing_left, nodes["value"], nodes["count"].astype(float))


def _cuts(trees: Sequence[Tree], width: int) -> list[Array]:
    """Each feature's thresholds, ascending.

    XGBoost is given the number of thresholds below a value, which unlike the value is exact in single precision.
    """
    inner = [tree.left >= 0 for tree in trees]
    features = np.concatenate([tree.feature[split] for tree, split in zip(trees, inner, strict=True)])
    thresholds = np.concatenate([tree.threshold[split] for tree, split in zip(trees, inner, strict=True)])
    return [np.unique(thresholds[features == index]) for index in range(width)]


def _booster(trees: Sequence[Tree], cuts: Sequence[Array]) -> Any:
    """The trees as an XGBoost model whose margin is their sum, in XGBoost's documented JSON form."""
    import xgboost

    groups = max(tree.group for tree in trees) + 1
    model = {
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
        "iteration_indptr": list(range(0, len(trees) + 1, groups)),
        "tree_info": [tree.group for tree in trees],
        "trees": [_encoded(_level_by_level(tree), index, cuts) for index, tree in enumerate(trees)],
    }
    objective: dict[str, Any] = {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}
    if groups > 1:
        objective = {"name": "multi:softprob", "softmax_multiclass_param": {"num_class": str(groups)}}
    learner = {
        "attributes": {},
        "feature_names": [],
        "feature_types": [],
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {
            "base_score": "0",
            "boost_from_average": "0",
            "num_class": str(groups if groups > 1 else 0),
            "num_feature": str(len(cuts)),
            "num_target": "1",
        },
        "objective": objective,
    }
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(msgspec.json.encode({"learner": learner, "version": [3, 1, 0]})))
    return booster


def _level_by_level(tree: Tree) -> Tree:
    """The tree with siblings next to each other, as XGBoost numbers them; its TreeSHAP is wrong for any other order."""
    order = [0]
    for node in order:
        order += [tree.left[node], tree.right[node]] if tree.left[node] >= 0 else []
    places = np.array(order)
    number = np.empty(len(places), np.int64)
    number[places] = np.arange(len(places))
    inner = tree.left[places] >= 0
    return Tree(
        tree.group,
        np.where(inner, number[tree.left[places]], -1),
        np.where(inner, number[tree.right[places]], -1),
        tree.feature[places],
        tree.threshold[places],
        tree.missing_left[places],
        tree.value[places],
        tree.cover[places],
    )


def _encoded(tree: Tree, index: int, cuts: Sequence[Array]) -> dict[str, Any]:
    count, inner = len(tree.left), tree.left >= 0
    positions = [
        int(np.searchsorted(cuts[feature], threshold)) + 0.5 if split else 0.0
        for feature, threshold, split in zip(tree.feature, tree.threshold, inner, strict=True)
    ]
    parents = np.full(count, 2147483647)
    parents[tree.left[inner]] = parents[tree.right[inner]] = np.flatnonzero(inner)
    return {
        "base_weights": tree.value.tolist(),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": tree.missing_left.astype(int).tolist(),
        "id": index,
        "left_children": tree.left.tolist(),
        "loss_changes": [0.0] * count,
        "parents": parents.tolist(),
        "right_children": tree.right.tolist(),
        "split_conditions": np.where(inner, positions, tree.value).tolist(),
        "split_indices": np.where(inner, tree.feature, 0).tolist(),
        "split_type": [0] * count,
        "sum_hessian": tree.cover.tolist(),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(len(cuts)),
            "num_nodes": str(count),
            "size_leaf_vector": "1",
        },
    }


def _answer(model: Any, table: Any) -> Array:
    """The output that contributions must sum to, for one row, [1, groups]."""
    if hasattr(model, "decision_function"):
        answer = np.asarray(model.decision_function(table))
    elif hasattr(model, "predict_proba"):
        answer = np.asarray(model.predict_proba(table))
        answer = answer[:, 1:] if answer.shape[1] == 2 else answer
    else:
        answer = np.asarray(model.predict(table))
    return answer.reshape(1, -1)
