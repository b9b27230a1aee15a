"""Parse conditions on columns, such as `amount > 100 and country in ["DE", "FR"]`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.compute as pc

_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda column, values: column.isin(values),
    ast.NotIn: lambda column, values: ~column.isin(values),
    ast.Is: lambda column, _: column.is_null(),
    ast.IsNot: lambda column, _: ~column.is_null(),
}
_HELP = 'expected comparisons of columns with values, such as `amount > 100 and country in ["DE", "FR"]`'


class ConditionError(ValueError):
    """A condition cannot be read; the message says what was expected and what was found."""


class Condition(NamedTuple):
    """An Arrow expression, and the columns that it uses."""

    expression: pc.Expression
    columns: frozenset[str]


def parse(text: str) -> Condition:
    """The condition in a text.

    Its operators are ==, !=, <, <=, >, >=, in, not in, is None, is not None, and, or, not. Values are numbers, texts,
    true and false. A row whose value is missing meets no comparison. Raises ConditionError.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConditionError(f"{_HELP}, got `{text}`") from error
    columns: set[str] = set()
    return Condition(_expression(tree, columns), frozenset(columns))


def _expression(node: ast.expr, columns: set[str]) -> pc.Expression:
    if isinstance(node, ast.BoolOp):
        combine = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        made = _expression(node.values[0], columns)
        for value in node.values[1:]:
            made = combine(made, _expression(value, columns))
        return made
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_expression(node.operand, columns)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Name):
        compare = _COMPARED[type(node.ops[0])]
        columns.add(node.left.id)
        return compare(pc.field(node.left.id), _value(node.ops[0], node.comparators[0]))
    raise ConditionError(f"{_HELP}, got `{ast.unparse(node)}`")


def _value(kind: ast.cmpop, node: ast.expr) -> Any:
    words = {"true": True, "false": False}
    if isinstance(node, ast.Name) and node.id in words:
        return words[node.id]
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise ConditionError(f"{_HELP}, got `{ast.unparse(node)}`") from error
    several, nothing = isinstance(value, list | tuple), value is None
    if several is not isinstance(kind, ast.In | ast.NotIn) or nothing is not isinstance(kind, ast.Is | ast.IsNot):
        raise ConditionError(f"{_HELP}, got `{ast.unparse(node)}`")
    return list(value) if several else value
