"""Histogram gradient boosting in ONNX, with trees that compare in double precision, unlike skl2onnx's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array
from tabserve.engines.contributions.trees import decompose

OPSET = {"": 15, "ai.onnx.ml": 3}
"""The operator set versions of every graph."""


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Write the operator's model into the container (a `custom_conversion_functions` of skl2onnx).

    Raises ValueError if ONNX can't express it.
    """
    model = operator.raw_operator
    if len(operator.inputs) > 1 or model.is_categorical_ is not None:
        raise ValueError("categorical splits")
    nodes = _Nodes(scope, container)
    features, outputs = operator.inputs[0].full_name, [output.full_name for output in operator.outputs]
    if hasattr(model, "classes_"):
        _classes(nodes, features, model, *outputs)
    else:
        values = nodes.add("Cast", [_trees(nodes, features, model)], to=nodes.double)
        nodes.add(_INVERSE[type(model._loss.link).__name__], [values], outputs[0])


_INVERSE = {"IdentityLink": "Identity", "LogLink": "Exp"}


class _Nodes:
    """Adds nodes and constants to a graph under unique names."""

    def __init__(self, scope: Any, container: Any) -> None:
        from onnx import TensorProto

        self.double, self.integer, self.text = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
        self._scope, self._container = scope, container

    def add(self, kind: str, inputs: Sequence[str], output: str = "", *, domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        output = output or self._scope.get_unique_variable_name(kind)
        name = self._scope.get_unique_operator_name(kind)
        self._container.add_node(
            kind, list(inputs), [output], op_domain=domain, op_version=OPSET[domain], name=name, **attributes
        )
        return output

    def constant(self, kind: int, values: Sequence[Any]) -> str:
        """Add a one-dimensional constant, and return its name."""
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, kind, [len(values)], values)
        return name


def _trees(nodes: _Nodes, features: str, model: Any) -> str:
    """A regression's sums of trees and baseline [rows, 1], or a classifier's probabilities, in single precision."""
    from onnx import numpy_helper

    trees = list(decompose(model))
    baseline = np.ravel(model._baseline_prediction)
    classes = len(getattr(model, "classes_", ()))
    second = int(classes == 2)  # two classes have one sum, for the second; the first class has 0
    inner = [tree.left >= 0 for tree in trees]
    leaves = [np.flatnonzero(~split) for split in inner]

    def joined(parts: Sequence[Array]) -> list[Any]:
        values: list[Any] = np.concatenate(parts).tolist()
        return values

    def of_splits(parts: Sequence[Array]) -> list[Any]:
        """A value for every node, 0 at the leaves."""
        return joined([np.where(at, part, 0) for at, part in zip(inner, parts, strict=True)])

    def tensor(values: Any) -> Any:
        return numpy_helper.from_array(np.asarray(values, np.float64).ravel())

    return nodes.add(
        "TreeEnsembleRegressor",
        [features],
        domain="ai.onnx.ml",
        post_transform="SOFTMAX" if classes else "NONE",
        n_targets=classes or 1,
        base_values_as_tensor=tensor([0.0, *baseline] if second else baseline),
        nodes_treeids=joined([np.full(len(tree.left), index) for index, tree in enumerate(trees)]),
        nodes_nodeids=joined([np.arange(len(tree.left)) for tree in trees]),
        nodes_modes=["BRANCH_LEQ" if at else "LEAF" for at in joined(inner)],
        nodes_featureids=of_splits([tree.feature for tree in trees]),
        nodes_values_as_tensor=tensor(of_splits([tree.threshold for tree in trees])),
        nodes_truenodeids=of_splits([tree.left for tree in trees]),
        nodes_falsenodeids=of_splits([tree.right for tree in trees]),
        nodes_missing_value_tracks_true=of_splits([tree.missing_left.astype(int) for tree in trees]),
        target_treeids=joined([np.full(len(at), index) for index, at in enumerate(leaves)]),
        target_nodeids=joined(leaves),
        target_ids=joined([np.full(len(at), tree.group + second) for at, tree in zip(leaves, trees, strict=True)]),
        target_weights_as_tensor=tensor(joined([tree.value[at] for at, tree in zip(leaves, trees, strict=True)])),
    )


def _classes(nodes: _Nodes, features: str, model: Any, label: str, probabilities: str) -> None:
    """The likeliest class and the probabilities, as the binomial and multinomial losses define them.

    The trees' own operator computes them row by row. Sigmoid and Softmax compute in vectors, where a row's last bits
    depend on its position in the batch.
    """
    classes = model.classes_
    nodes.add("Cast", [_trees(nodes, features, model)], probabilities, to=nodes.double)
    is_text = classes.dtype.kind in "OU"
    names = [str(one).encode() for one in classes] if is_text else classes.astype(np.int64).tolist()
    known = nodes.constant(nodes.text if is_text else nodes.integer, names)
    likeliest = nodes.add("ArgMax", [probabilities], axis=1, keepdims=0)
    chosen = nodes.add("ArrayFeatureExtractor", [known, likeliest], domain="ai.onnx.ml")
    nodes.add("Reshape", [chosen, nodes.constant(nodes.integer, [-1])], label)
