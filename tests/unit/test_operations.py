"""docs/operations.md lists what the services tell."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
import yaml

from tabserve.doctor.cluster import OLDEST_KSERVE, OLDEST_KUBERNETES
from tabserve_transformer.predictor_client.outages import LINES
from tests.cluster.testbed.build import KUBERNETES
from tests.cluster.testbed.places import PINS
from tests.serving import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
LOCK = (ROOT / "requirements.lock").read_text()


def events() -> Iterator[str]:
    """The events in all calls of `tell`."""
    for package in ("tabserve/inference", "tabserve/decision_log", "tabserve/stream", "predictor", "transformer"):
        for path in (ROOT / package).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            for call in calls:
                if ast.unparse(call.func).endswith("tell"):
                    found = [getattr(argument, "value", None) for argument in call.args[1:3]]
                    yield from (each for each in found if isinstance(each, str) and each.isidentifier())


def test_every_event_of_the_log_has_a_row_and_every_row_an_event() -> None:
    cells = re.findall(r"^\| (.+?) \| (?:info|warning|error|critical)[a-z, ]* \|", PAGE, re.MULTILINE)
    rows = [event for cell in cells for event in re.findall(r"`(\w+)`", cell)]

    assert {*events(), *LINES, "start_failed"} == {*rows}
    assert len(rows) == len({*rows})


@pytest.mark.parametrize(("whose", "module"), [("gate", "rollout/serving.py"), ("monitor", "monitor/prometheus.py")])
def test_every_metric_of_what_is_no_service_has_a_row_and_every_row_a_metric(whose: str, module: str) -> None:
    table = PAGE.partition(f"\n### Of the {whose}\n")[2].partition("\n#")[0]
    rows = [name for name in re.findall(r"`(\w+)`", table) if name.startswith("tabserve_")]
    shown = re.findall(r'"(tabserve_\w+)"', (ROOT / "tabserve" / module).read_text())

    assert sorted(rows) == sorted(shown)
    assert len(rows) > 5


def pinned(component: str, module: str) -> str:
    """The version of a module that the test cluster is built with."""
    (found,) = re.findall(rf"^\s*{module} v([\d.]+)", (PINS / component / "go.mod").read_text(), re.MULTILINE)
    return str(found)


def locked(library: str) -> tuple[str, str]:
    """The oldest version of a library, and the one in the lock for the newest Python."""
    (oldest,) = {*re.findall(rf'"{library}>=([\d.]+)', (ROOT / "pyproject.toml").read_text())}
    return oldest, re.findall(rf"^{library}==([\d.]+)", LOCK, re.MULTILINE)[-1]


def test_the_table_of_what_is_compatible_is_that_of_the_code() -> None:
    table = PAGE.partition("\n## What is compatible with what\n")[2]
    rows = {name.partition(",")[0]: (needed, tested) for name, needed, tested in
            re.findall(r"^\| (.+?) \| (.*?) ?\| (.*?) ?\|$", table, re.MULTILINE)}  # fmt: skip
    chart = yaml.safe_load((ROOT / "charts" / "tabserve" / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = ".".join(map(str, OLDEST_KUBERNETES))

    assert chart["kubeVersion"] == f">={oldest}.0-0"
    assert project["requires-python"] == ">=3.11,<3.14"
    assert {name: rows[name] for name in rows if name not in ("what", "---")} == {
        "Kubernetes": (oldest, KUBERNETES.removeprefix("v")),
        "KServe": (".".join(map(str, OLDEST_KSERVE)), pinned("kserve", "github.com/kserve/kserve")),
        "Gateway API": ("v1; 1.4 for `tls`", pinned("envoy-gateway", "sigs.k8s.io/gateway-api")),
        "Envoy Gateway": ("", pinned("envoy-gateway", "github.com/envoyproxy/gateway")),
        "Knative Serving": ("", pinned("knative-serving", "knative.dev/serving")),
        "Helm": ("3 or 4", f"{pinned('helm3', 'helm.sh/helm/v3')}, {pinned('helm4', 'helm.sh/helm/v4')}"),
        "Python": ("3.11 to 3.13", ""),
        "scikit-learn": locked("scikit-learn"),
        "XGBoost": locked("xgboost-cpu"),
        "LightGBM": locked("lightgbm"),
        "ONNX Runtime": locked("onnxruntime"),
    }
