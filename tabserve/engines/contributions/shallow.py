"""Exact contributions of shallow trees from tables made once, so that a row costs comparisons, look-ups and sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from tabserve.arrays import Array

_DEEPEST = 7
_MOST_BYTES = 10 << 20  # 200 full trees of depth 6
# How many splits one table covers; with one more there are fewer tables, each twice as long.
_SPLITS = 5
_ROWS, _PARTS = 32, 64  # how many are computed at once


class Tree(msgspec.Struct, frozen=True):
    """One tree for one group (a class, or the only one): a row goes left if its feature is at most the threshold.

    All arrays are [nodes]; left is -1 at a leaf. cover: how many training rows a node saw. categories: the codes that
    go right, for a node that splits by code.
    """

    group: int
    left: Array
    right: Array
    feature: Array
    threshold: Array
    missing_left: Array
    value: Array
    cover: Array
    categories: Mapping[int, tuple[int, ...]] = {}


_Way = tuple[tuple[int, bool], ...]
"""The nodes from the root to a leaf, each with whether the leaf is to its left."""


class _Part(msgspec.Struct, frozen=True):
    """Leaves of a tree that share a table, each with its path, and all nodes on these paths."""

    tree: Tree
    nodes: list[int]
    leaves: list[tuple[int, _Way]]

    def features(self) -> list[int]:
        return sorted({int(self.tree.feature[node]) for node in self.nodes})


class ShallowTrees:
    """Path-dependent SHAP values (Lundberg et al. 2020) of a sum of trees, as XGBoost computes them.

    What a leaf adds to each feature depends only on the outcomes of the splits on its path. So a table can hold it for
    every combination of outcomes (Yang 2021, "Fast TreeSHAP", version 2). Here neighbouring leaves share a table.
    """

    def __init__(self, trees: Sequence[Tree], features: int) -> None:
        """Raises ValueError if the tables would be too large, or if a node has no cover."""
        depth = max(map(_depth, trees))
        if depth > _DEEPEST or not all((tree.cover > 0).all() for tree in trees):
            raise ValueError("trees that are too deep, or nodes that saw no rows")
        splits = max(_SPLITS, depth)
        parts = [part for tree in trees for part in _parts(tree, splits)]
        widest = max(1, *(len(part.features()) for part in parts))
        if len(parts) * 2**splits * widest * np.float32().nbytes > _MOST_BYTES:
            raise ValueError(f"{len(parts)} tables of {2**splits} rows")
        self._groups, self._width = 1 + max(tree.group for tree in trees), features + 1
        self._splits = _Splits(parts, splits, features)
        self._first = np.arange(len(parts)) << splits
        chunks = [parts[at : at + _PARTS] for at in range(0, len(parts), _PARTS)]
        self._table = np.concatenate([_table(chunk, splits, widest) for chunk in chunks])
        self._bins = np.zeros((len(parts), widest), np.intp)
        for part, bins in zip(parts, self._bins, strict=True):
            owned = part.features()
            bins[: len(owned)] = np.array(owned, np.intp) + part.tree.group * self._width

    def __call__(self, matrix: Array) -> Array:
        """Contributions [rows, groups, features + 1] for an FP64 matrix; the last column, the bias's, is 0.

        A row's contributions are the same bits whatever the other rows are.
        """
        result = np.empty((len(matrix), self._groups * self._width))
        bins = self._bins.ravel()
        for start in range(0, len(matrix), _ROWS):
            for at, places in enumerate(self._splits(matrix[start : start + _ROWS]) + self._first, start):
                added = self._table.take(places, axis=0).ravel()
                result[at] = np.bincount(bins, added, result.shape[1])
        return result.reshape(len(matrix), self._groups, self._width)


class _Splits:
    """Computes the outcomes of each part's splits, as the bits of a number.

    A bit is 1 if a value is at most a threshold. NaN never is, so a split is reversed if missing values go left.
    """

    def __init__(self, parts: Sequence[_Part], splits: int, features: int) -> None:
        # Columns are the features, their negatives, and the directions of codes, 0 or 1. An unused bit stays 0.
        self._columns = np.zeros((splits, len(parts)), np.intp)
        self._thresholds = np.full((splits, len(parts)), np.nan)
        sets: dict[tuple[int, bool, tuple[int, ...]], int] = {}
        for number, part in enumerate(parts):
            for bit, node in enumerate(part.nodes):
                feature, missing_left = int(part.tree.feature[node]), bool(part.tree.missing_left[node])
                if node in part.tree.categories:
                    key = feature, missing_left, part.tree.categories[node]
                    column, threshold = 2 * features + sets.setdefault(key, len(sets)), 0.5
                elif missing_left:
                    column, threshold = features + feature, np.nextafter(-part.tree.threshold[node], -np.inf)
                else:
                    column, threshold = feature, part.tree.threshold[node]
                self._columns[bit, number], self._thresholds[bit, number] = column, threshold
        self._codes = _Codes(list(sets)) if sets else None

    def __call__(self, matrix: Array) -> Array:
        """The outcomes [rows, parts] for a matrix."""
        columns = [matrix, -matrix, *([self._codes(matrix)] if self._codes else [])]
        passed = np.concatenate(columns, axis=1).take(self._columns, axis=1) <= self._thresholds
        pattern = passed[:, 0].astype(np.intp)
        for bit in range(1, passed.shape[1]):
            pattern |= passed[:, bit].astype(np.intp) << bit
        return pattern


class _Codes:
    """Says for each set of codes that go right: 0 if a code goes another way than missing values, otherwise 1."""

    def __init__(self, sets: Sequence[tuple[int, bool, tuple[int, ...]]]) -> None:
        """sets: feature, whether missing values go left, codes. Raises ValueError if the codes are too large."""
        self._features = np.array([feature for feature, _, _ in sets])
        self._end = 1 + max(max(codes, default=0) for _, _, codes in sets)
        if len(sets) * self._end > _MOST_BYTES / np.float64().nbytes:
            raise ValueError(f"codes up to {self._end}")
        ways = np.ones((len(sets), self._end + 2))  # the last two are for codes in no set, which go left, and for NaN
        for row, (_, missing_left, codes) in zip(ways, sets, strict=True):
            row[:-1] = missing_left
            row[list(codes)] = not missing_left
        self._ways = ways.ravel()
        self._first = np.arange(len(sets)) * (self._end + 2)

    def __call__(self, matrix: Array) -> Array:
        """The directions [rows, sets] for a matrix."""
        codes = np.where((matrix >= 0) & (matrix < self._end), matrix, self._end)
        codes[np.isnan(matrix)] = self._end + 1
        return self._ways.take(codes.astype(np.intp).take(self._features, axis=1) + self._first)


def _depth(tree: Tree) -> int:
    """A tree's depth, counted to at most one level too deep."""
    depth, level = 0, np.array([0])
    while depth <= _DEEPEST and len(level := level[tree.left[level] >= 0]):
        depth, level = depth + 1, np.concatenate([tree.left[level], tree.right[level]])
    return depth


def _parts(tree: Tree, splits: int, node: int = 0, way: _Way = ()) -> Iterator[_Part]:
    """The leaves below a node, in parts of at most `splits` splits; no path has more."""
    leaves = list(_leaves(tree, node, way))
    nodes = list(dict.fromkeys(at for _, whole in leaves for at, _ in whole))
    if len(nodes) <= splits:
        yield _Part(tree, nodes, leaves)
    else:
        yield from _parts(tree, splits, int(tree.left[node]), (*way, (node, True)))
        yield from _parts(tree, splits, int(tree.right[node]), (*way, (node, False)))


def _leaves(tree: Tree, node: int, way: _Way) -> Iterator[tuple[int, _Way]]:
    if tree.left[node] < 0:
        yield node, way
    else:
        yield from _leaves(tree, int(tree.left[node]), (*way, (node, True)))
        yield from _leaves(tree, int(tree.right[node]), (*way, (node, False)))


def _table(parts: Sequence[_Part], splits: int, widest: int) -> Array:
    """The leaves' contributions to each part's features, [parts * outcomes, features of a part], FP32."""
    leaves = [(number, part, leaf, way) for number, part in enumerate(parts) for leaf, way in part.leaves]
    shape = (len(leaves), max(1, *(len(way) for *_, way in leaves)))
    mask, wanted, place = (np.zeros(shape, np.intp) for _ in range(3))
    share, value = np.ones(shape), np.empty(len(leaves))
    for at, (number, part, leaf, way) in enumerate(leaves):
        tree, features, players = part.tree, part.features(), dict[int, int]()
        value[at] = tree.value[leaf]
        for node, left in way:
            feature, bit = int(tree.feature[node]), 1 << part.nodes.index(node)
            player = players.setdefault(feature, len(players))
            mask[at, player] |= bit
            wanted[at, player] |= bit * (left != bool(tree.missing_left[node]))
            share[at, player] *= tree.cover[(tree.left if left else tree.right)[node]] / tree.cover[node]
            place[at, player] = number * widest * 2**splits + features.index(feature)
    outcomes = np.arange(2**splits)[None, :, None]
    present = (outcomes & mask[:, None]) == wanted[:, None]
    added = _shapley(present.astype(np.float64), share[:, None]) * value[:, None, None]
    places = place[:, None] + outcomes * widest
    table = np.bincount(places.ravel(), added.ravel(), len(parts) * 2**splits * widest)
    return table.reshape(-1, widest).astype(np.float32)


def _shapley(present: Array, absent: Array) -> Array:
    """Shapley values [..., players] of a game whose worth is the product of one factor above 0 per player.

    They are Owen's integral of the multilinear extension (1972), a polynomial for whose degree Gauss-Legendre sums are
    exact. A player whose factors are equal changes nothing.
    """
    points, weights = np.polynomial.legendre.leggauss((present.shape[-1] + 1) // 2)
    gain = present - absent
    result = np.zeros(gain.shape)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        factors = absent + point * gain
        result += weight * factors.prod(axis=-1, keepdims=True) / factors
    return np.asarray(result * gain)
