"""Read `schema.yaml`, or say everything that is wrong with it, each with its line and column."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from tabserve.schema.misfits import MisfitError, Strict, nearest
from tabserve.schema.places import MalformedError, Places, Steps, dotted, steps
from tabserve.schema.schema import Schema

S = TypeVar("S", bound=Strict)
MOST_PROBLEMS = 50
"""How many problems an error lists."""
_ENUM = re.compile(r"Invalid enum value (.*)")


class SchemaError(ValueError):
    """A YAML file such as `schema.yaml` cannot be used; the message has a line per problem: place, expected, got."""


class _Problem(NamedTuple):
    """What is wrong at a path, or with the key that it ends with."""

    path: Steps
    message: str
    of_key: bool = False


def load(path: Path) -> Schema:
    """The schema in a file.

    Raises SchemaError naming file, line and column, and OSError where the file cannot be read.
    """
    return decode(path.read_bytes(), str(path))


def decode(content: bytes, source: str) -> Schema:
    """The schema in the bytes of a file; `source` is its name in errors. Raises SchemaError."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SchemaError(f"{source}: expected UTF-8, got {error.reason} at byte {error.start}") from error
    return parse(text, source)


def parse(text: str, source: str) -> Schema:
    """The schema in a YAML text; `source` is its name in errors. Raises SchemaError with all that is wrong."""
    places = _places(text, source)
    _name_numbers(places)
    return _converted(places, source, Schema)


def parse_as(kind: type[S], text: str, source: str) -> S:
    """What a YAML text says, as a struct of this type; `source` is its name in errors.

    Raises SchemaError with all that is wrong.
    """
    return _converted(_places(text, source), source, kind)


def _places(text: str, source: str) -> Places:
    try:
        return Places(text)
    except MalformedError as error:
        raise SchemaError(f"{source}:{error.line}:{error.column}: {error}") from error


def _converted(places: Places, source: str, kind: type[S]) -> S:
    try:
        return msgspec.convert(places.value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        found = [_described(places, problem) for problem in _problems(places.value, kind, ())]
        lines = [f"{source}:{line}:{column}: {message}" for line, column, message in sorted(set(found))]
        more = [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
        raise SchemaError("\n".join(lines[:MOST_PROBLEMS] + more)) from error


def _name_numbers(places: Places) -> None:
    """Turn the whole numbers among categories into texts, unless YAML reads them as other than they are written."""
    record = places.value.get("record") if isinstance(places.value, dict) else None
    for index, field in enumerate(record if isinstance(record, list) else []):
        if isinstance(field, dict) and field.get("type") == "category":
            at = ("record", index)
            if isinstance(values := field.get("values"), list):
                field["values"] = [_named(places, value, (*at, "values", i)) for i, value in enumerate(values)]
            if "default" in field:
                field["default"] = _named(places, field["default"], (*at, "default"))


def _named(places: Places, value: Any, path: Steps) -> Any:
    return str(value) if type(value) is int and places.written(path) == str(value) else value


def _described(places: Places, problem: _Problem) -> tuple[int, int, str]:
    """Line, column and message."""
    path, message, of_key = problem
    return (*places.position(path, of_key=of_key), f"{f'`{dotted(path)}`: ' if path else ''}{message}")


def _problems(value: Any, kind: Any, path: Steps) -> list[_Problem]:
    """What is wrong with a value of this type, or else with what it holds."""
    struct = next((part for part in _parts(kind) if isinstance(part, type) and issubclass(part, Strict)), None)
    items = next((typing.get_args(part)[0] for part in _parts(kind) if typing.get_args(part)[1:] == (...,)), None)
    if struct is not None and isinstance(value, dict):
        return _of_mapping(value, struct, path)
    if items is not None and isinstance(value, list) and value:
        return [problem for i, item in enumerate(value) for problem in _problems(item, items, (*path, i))]
    return list(_unfit(value, kind, path))


def _of_mapping(value: Mapping[Any, Any], struct: type[Strict], path: Steps) -> list[_Problem]:
    keys = {key.encode_name: key for key in msgspec.structs.fields(struct)}
    unknown = [str(key) for key in value if key not in keys]
    found = [_Problem((*path, key), f"unknown key{nearest(key, keys)}", True) for key in unknown]
    for name, key in keys.items():
        if name in value:
            found += _problems(value[name], key.type, (*path, name))
        elif key.required:
            found.append(_Problem(path, f"missing key {name}"))
    if struct is Schema and found:  # what is left may still not fit each other
        wrong = {problem.path[0] for problem in found if problem.path}
        kept = {name: part for name, part in value.items() if name not in wrong}
        return found + list(_unfit(kept, struct, path, misfits_alone=True))
    return found or list(_unfit(value, struct, path))


def _unfit(value: Any, kind: Any, path: Steps, *, misfits_alone: bool = False) -> Iterator[_Problem]:
    """Everything in a struct that does not fit each other, or else what msgspec finds first."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if isinstance(first := error.__cause__, MisfitError):
            yield from (_Problem((*path, *misfit.path), str(misfit)) for misfit in (first, *first.others))
        elif not misfits_alone:
            message, _, where = str(error).rpartition(" - at `")
            inside = steps(where[:-1]) if message else ()
            yield _Problem((*path, *inside), _reworded(message or str(error), kind, _value(value, inside)))


def _parts(kind: Any) -> Iterator[Any]:
    """The alternatives of a union, without what annotates them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        yield from _parts(arguments[0])
    elif arguments and origin not in (tuple, dict, Mapping, Literal):
        for argument in arguments:
            yield from _parts(argument)
    else:
        yield kind


def _reworded(message: str, kind: Any, value: Any) -> str:
    got = msgspec.json.encode(value, enc_hook=str).decode() if isinstance(value, str | int | float | date) else ""
    if _ENUM.fullmatch(message):
        choices = [choice for part in _parts(kind) for choice in typing.get_args(part)]
        return f"expected one of {', '.join(map(str, choices))}, got {got}"
    for theirs, ours in (("Object missing required field", "missing key"), ("object", "mapping"), ("`", "")):
        message = message.replace(theirs, ours)
    quote = ": put it in quotes" if re.match(r"Expected [^,]*\bstr\b", message) and got else ""
    return f"{message[0].lower()}{message[1:]}{f' ({got})' if got else ''}{quote}"


def _value(value: Any, path: Steps) -> Any:
    """The value at a path, None if there is none."""
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value
