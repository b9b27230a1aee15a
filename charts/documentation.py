"""Write the chart's `values.schema.json` and the table of its README from the comments in `values.yaml`.

Above a key, `# -- TEXT` says what it is for, and `# @schema {…}` what it may be, as JSON Schema. A map without
`@schema` takes exactly the keys that it shows; any other value without one has the type of its default. `# @like KEY`
lets a map also take what the map with that name takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from tabserve_predictor.settings import Settings as PredictorSettings
from tabserve_transformer.settings import Settings as TransformerSettings

CHART = Path(__file__).parent / "tabserve"
TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "seq": "array", "map": "object"}
# Settings that the chart itself gives.
MANAGED = {
    *("model_dir", "model_name", "digest", "release", "host", "http_port", "grpc_port", "admin_port", "workers"),
    *("predictor_host", "predictor_protocol", "trusted", "trust_public_key", "tracing_endpoint", "tracing_ratio"),
    *(name for name in TransformerSettings.__struct_fields__ if name.startswith("decision_log")),
}

OF_SERVICES: dict[str, type[msgspec.Struct]] = {"predictor": PredictorSettings, "transformer": TransformerSettings}

Schema = dict[str, Any]


class Key(NamedTuple):
    """A key of `values.yaml`: its path, what its comments say (`like` may be empty), and its default."""

    path: tuple[str, ...]
    text: str
    schema: Schema | None
    like: str
    node: yaml.Node


def keys(node: yaml.Node, lines: list[str], path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key below a map, parents before their children."""
    assert isinstance(node, yaml.MappingNode)
    for name, value in node.value:
        text, schema, like = comments(lines, name.start_mark.line)
        yield Key((*path, name.value), text, schema, like, value)
        if schema is None and isinstance(value, yaml.MappingNode) and value.value:
            yield from keys(value, lines, (*path, name.value))


def comments(lines: list[str], at: int) -> tuple[str, Schema | None, str]:
    """The description, the schema and the name after `@like`, from the comment lines right above line `at`."""
    first = at
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    block = [line.lstrip().removeprefix("#").strip() for line in lines[first:at]]
    text = " ".join(line.removeprefix("--").strip() for line in block if line.startswith("--"))
    schemas = [line.removeprefix("@schema") for line in block if line.startswith("@schema")]
    alike = [line.removeprefix("@like").strip() for line in block if line.startswith("@like")]
    own = yaml.safe_load(schemas[0]) if schemas else None
    return text or same_as(own or {}), own, "".join(alike)


def same_as(own: Schema) -> str:
    """The description of a key that is explained elsewhere."""
    parts = own.get("$ref", "").removeprefix("#/").split("/")[1::2]
    return f"As `{'.'.join(parts)}`." if parts and parts[0] else ""


def schema(found: list[Key]) -> Schema:
    """The JSON Schema of all values."""
    root: Schema = {"$schema": "http://json-schema.org/draft-07/schema#", **closed(), "$defs": settings()}
    root["properties"]["global"] = {"type": "object"}  # Helm gives it to every chart
    places: dict[tuple[str, ...], Schema] = {(): root}
    for key in found:
        own = key.schema if key.schema is not None else inferred(key.node)
        places[key.path] = places[key.path[:-1]]["properties"][key.path[-1]] = (
            {"description": key.text, **own} if key.text else own
        )
    for key in found:
        if key.like:
            inherit(places[key.path], root["properties"][key.like], f"#/properties/{key.like}")
    return root


def inherit(own: Schema, other: Schema, at: str) -> None:
    """Let a map take keys for which it has no rule from another map, which is at `at` in the schema."""
    for name, rule in other["properties"].items():
        place = f"{at}/properties/{name}"
        if name not in own["properties"]:
            own["properties"][name] = {"$ref": place}
        elif own["properties"][name].get("additionalProperties") is False and "properties" in rule:
            inherit(own["properties"][name], rule, place)


def inferred(node: yaml.Node) -> Schema:
    """What a key without `@schema` may be."""
    kind = TYPES[node.tag.rpartition(":")[2]]
    return closed() if kind == "object" else {"type": kind}


def closed() -> Schema:
    """An object that takes only the keys that will be named."""
    return {"type": "object", "additionalProperties": False, "properties": {}}


def settings() -> dict[str, Schema]:
    """The settings of each service, and those that both have, as definitions in the schema."""
    services = {name: settings_of(service) for name, service in OF_SERVICES.items()}
    shared = {name: rule for name, rule in services["predictor"].items() if services["transformer"].get(name) == rule}
    there = {name: {"$ref": f"#/$defs/sharedSettings/properties/{name}"} for name in shared}
    own = {f"{service}Settings": {**known, **there} for service, known in services.items()}
    return {name: {**closed(), "properties": known} for name, known in {"sharedSettings": shared, **own}.items()}


def settings_of(service: type[msgspec.Struct]) -> Schema:
    """The settings of a service that a user may give, with the types that the service itself reads."""
    whole = msgspec.json.schema(service)["$defs"]["Settings"]
    return {name: rule for name, rule in whole["properties"].items() if name not in MANAGED}


def table(found: list[Key]) -> str:
    """The values as a Markdown table."""
    rows = [f"| `{'.'.join(key.path)}` | {default(key.node)} | {key.text} |" for key in found if is_value(key)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows, ""])


def is_value(key: Key) -> bool:
    """Whether a key has a row: maps that only group others have none."""
    return bool(key.schema or key.text) or not isinstance(key.node, yaml.MappingNode)


def default(node: yaml.Node) -> str:
    """A default value as inline code."""
    return f"`{json.dumps(yaml.safe_load(yaml.serialize(node)))}`"


def contents() -> dict[str, str]:
    """What the generated files must hold, by their names."""
    text = (CHART / "values.yaml").read_text()
    tree = yaml.compose(text)
    assert tree is not None
    found = list(keys(tree, text.splitlines()))
    readme = (CHART / "README.md").read_text()
    return {
        "values.schema.json": text_of(schema(found)),
        "README.md": filled(filled(readme, "values", table(found)), "operation", listed(operation())),
    }


def filled(text: str, name: str, content: str) -> str:
    """A text with this content between the two comments with this name."""
    begin, end = f"<!-- {name}: written by `make chart-docs` -->\n", f"<!-- /{name} -->\n"
    before, _, rest = text.partition(begin)
    return before + begin + content + end + rest.partition(end)[2]


def operation() -> list[str]:
    """The settings that are not part of a release, as the template lists them."""
    found = re.search(r'define "tabserve.operation" -}}\n(.+)\n', (CHART / "templates" / "_slot.tpl").read_text())
    assert found is not None
    return found[1].split()


def listed(names: list[str]) -> str:
    """Names as a list of inline code."""
    return "".join(f"- `{name}`\n" for name in names)


def text_of(whole: Schema) -> str:
    """A schema as JSON, with each reference on one line."""
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    return re.sub(r'\{\s+("\$ref": "[^"]+")\s+\}', r"{\1}", text) + "\n"


def main() -> None:
    """Write both files."""
    for name, content in contents().items():
        (CHART / name).write_text(content)


if __name__ == "__main__":
    main()
