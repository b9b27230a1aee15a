"""What belongs to a release: whatever computes or limits an answer, and nothing of the operation."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from charts import documentation
from charts.documentation import OF_SERVICES, operation
from tests.chart.helm import one, program, rendered

DIGEST = "sha256:" + "89abcdef" * 8
SETTINGS = {service: documentation.settings_of(settings) for service, settings in OF_SERVICES.items()}
LOG = [name for name in documentation.MANAGED if name.startswith("decision_log")]
EACH = [(service, name) for service, known in SETTINGS.items() for name in known]


def release(values: dict[str, Any]) -> str:
    """The id of slot `a`."""
    service = one(rendered(values, program()), "InferenceService")
    found: str = service["metadata"]["annotations"]["tabserve/release"]
    return found


@cache
def first() -> str:
    """The id by the least values."""
    return release({})


def other(rule: dict[str, Any]) -> Any:
    """A value that a setting may have and does not have by default."""
    if "enum" in rule:
        return next(value for value in rule["enum"] if value != rule["default"])
    if rule["type"] == "boolean":
        return not rule["default"]
    return "own.module:Class" if rule["type"] == "string" else rule["default"] + 1


@pytest.mark.parametrize(("service", "name"), EACH, ids=[" ".join(each) for each in EACH])
def test_a_setting_changes_the_release_unless_it_is_of_the_operation(service: str, name: str) -> None:
    changed = release({service: {"settings": {name: other(SETTINGS[service][name])}}})

    assert (changed == first()) == (name in operation())


def test_only_settings_are_of_the_operation() -> None:
    known = {
        *SETTINGS["predictor"],
        *SETTINGS["transformer"],
        "trusted",
        "trust_public_key",
        "tracing_endpoint",
        "tracing_ratio",
        *LOG,
    }

    assert {*operation()} <= known
    assert {"log_level", "trusted", *LOG} <= {*operation()} < known


ANSWER: dict[str, dict[str, Any]] = {
    "another name": {"modelName": "other"},
    "another bundle": {"releases": {"a": {"bundle": {"digest": DIGEST}}}},
    "another tag of one image": {"releases": {"a": {"predictor": {"image": {"tag": "9"}}}}},
    "another tag of both": {"pods": {"image": {"tag": "9"}}},
    "an image's digest": {"transformer": {"image": {"digest": DIGEST}}},
    "a setting of both": {"pods": {"settings": {"max_rows": 9}}},
    "the environment": {"transformer": {"env": [{"name": "X", "value": "1"}]}},
    "no transformer": {"transformer": {"placement": "none"}},
}
OPERATION: dict[str, dict[str, Any]] = {
    "a setting of both": {"pods": {"settings": {"log_level": "debug"}}},
    "types that are trusted": {"trusted": ["own.Model"]},
    "traces": {"tracing": {"endpoint": "http://collector:4318/v1/traces", "ratio": 1}},
    "who signed": {"trust": {"publicKey": {"name": "signers"}}},
    "resources": {"predictor": {"resources": {"limits": {"cpu": "2"}}}},
    "replicas": {"pods": {"replicas": 7, "autoscaling": {"enabled": False}}},
    "probes": {"pods": {"probes": {"startupSeconds": 600}, "preStopSeconds": 40}},
    "labels": {"commonLabels": {"team": "x"}, "pods": {"podLabels": {"team": "x"}, "podAnnotations": {"a": "b"}}},
    "volumes": {"pods": {"extraVolumes": [{"name": "x", "emptyDir": {}}]}},
    "who may call": {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
    "the log of decisions": {
        "decisionLog": {"to": "s3://lake/log", "sample": 0.5, "env": [{"name": "X", "value": "1"}]}
    },
    "the log on a volume": {"decisionLog": {"to": "/mnt/decisions", "claim": "decisions", "always": ["block"]}},
    "the page for browsers": {"page": True},
    "who scrapes": {"podMonitor": {"enabled": True}, "scrapeAnnotations": False},
    "the route": {"gateway": {"timeout": "5s", "hostnames": ["fraud.example.org"]}},
}


def test_what_answers_is_the_release() -> None:
    found = [release(values) for values in ANSWER.values()]

    assert len({first(), *found}) == 1 + len(ANSWER)


@pytest.mark.parametrize("values", OPERATION.values(), ids=OPERATION)
def test_what_is_of_the_operation_leaves_it(values: dict[str, Any]) -> None:
    assert release(values) == first()


def test_a_change_of_the_operation_reaches_every_container() -> None:
    objects = rendered({"pods": {"settings": {"log_level": "debug"}}}, program())
    transformer = one(objects, "InferenceService")["spec"]["transformer"]["containers"]
    predictor = one(objects, "ServingRuntime")["spec"]["containers"]

    debug = {"name": "TABSERVE_LOG_LEVEL", "value": "debug"}
    assert [debug in container["env"] for container in (*transformer, *predictor)] == [True, True]
