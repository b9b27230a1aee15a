"""A YAML text's value, and the line and column of every key and item."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

import yaml

Steps: TypeAlias = tuple[str | int, ...]
"""A path: keys and positions from the root, such as `("record", 2, "type")`."""

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


class MalformedError(ValueError):
    """The text is not a single YAML document of plain values. `line` and `column` count from 1."""

    def __init__(self, message: str, mark: yaml.Mark | None) -> None:
        super().__init__(message)
        self.line, self.column = _position(mark)


class Places:
    """A YAML text, read safely.

    Raises MalformedError where the text is not YAML, nests too deeply or names a key twice.
    """

    value: Any

    def __init__(self, text: str) -> None:
        try:
            loader = yaml.SafeLoader(text)
            self._root = loader.get_single_node()
            _refuse_repeated_keys(self._root)
            self.value = None if self._root is None else loader.construct_document(self._root)
        except yaml.MarkedYAMLError as error:
            raise MalformedError(_sentence(error), error.problem_mark or error.context_mark) from error
        except (yaml.YAMLError, ValueError) as error:
            raise MalformedError(str(error).splitlines()[0], None) from error
        except RecursionError as error:
            raise MalformedError("nested too deeply", None) from error

    def position(self, path: Steps, *, of_key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of the value at the path, or of the key that names it.

        If the path leads nowhere, they are those of the last step that exists.
        """
        node, place = self._root, self._root
        for step in path:
            key, child = _child(node, step)
            if child is None:
                break
            node, place = child, key if of_key else child
        return _position(None if place is None else place.start_mark)

    def written(self, path: Steps) -> str | None:
        """How the plain value at a path is written, None if there is none."""
        node: yaml.Node | None = self._root
        for step in path:
            node = _child(node, step)[1]
        return node.value if isinstance(node, yaml.ScalarNode) else None


def steps(path: str) -> Steps:
    """The steps of a path in msgspec's notation, `$.record[2].type`."""
    return tuple(key or int(index) for key, index in _STEP.findall(path))


def dotted(path: Iterable[str | int]) -> str:
    """A path as people write it, `record[2].type`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _position(mark: yaml.Mark | None) -> tuple[int, int]:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None, None


def _refuse_repeated_keys(root: yaml.Node | None) -> None:
    """Refuse a key that is defined twice, of which PyYAML would silently keep the last."""
    waiting, visited = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            _refuse_repeats([key for key, _ in node.value])
            waiting += [value for _, value in node.value]


def _refuse_repeats(keys: list[yaml.Node]) -> None:
    seen: set[str] = set()
    for key in keys:
        if str(key.value) in seen:
            raise yaml.MarkedYAMLError(problem=f"key `{key.value}` is defined twice", problem_mark=key.start_mark)
        seen.add(str(key.value))
