"""What operators that are not run here say of their objects: their own CRDs, from pinned Go modules."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml
from jsonschema import Draft7Validator

from tests.cluster.testbed.build import KEDA, SPARK_OPERATOR, Taken

FILES = {
    "ScaledObject": (KEDA, "keda.sh_scaledobjects.yaml"),
    "ScheduledSparkApplication": (SPARK_OPERATOR, "sparkoperator.k8s.io_scheduledsparkapplications.yaml"),
    "SparkApplication": (SPARK_OPERATOR, "sparkoperator.k8s.io_sparkapplications.yaml"),
}


def faults(item: dict[str, Any]) -> list[str]:
    """What is wrong with an object by its operator's definition, also each key that it does not name."""
    return [error.message for error in validator(*FILES[item["kind"]]).iter_errors(item)]


@cache
def validator(source: Taken, file: str) -> Draft7Validator:
    """The validator of the only version in a CRD."""
    source.make()
    text = (source.folder / file).read_bytes()
    (version,) = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]  # in C, because some are a megabyte
    return Draft7Validator(closed(version["schema"]["openAPIV3Schema"]))


def closed(schema: Any) -> Any:
    """A schema whose objects take only the keys that they name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in made:
        made.setdefault("additionalProperties", False)
    return made
