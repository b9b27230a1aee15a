"""Render the chart with Helm, from the test cluster's cache of programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.testbed.build import HELM3, HELM4, KUBERNETES, Build
from tests.serving import ROOT

CHART = ROOT / "charts" / "tabserve"
CI = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
"""Values as chart-testing (`ct`) looks for them, by name; `standard` is the least a user gives."""
HELMS = {"helm3": HELM3, "helm4": HELM4}
Values = Mapping[str, Any]


def program(build: Build = HELM3) -> Path:
    """Helm, built if it is not in the cache."""
    build.make()
    return build.folder / "helm"


def template(values: Values, helm: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with the least values and others over them."""
    command: list[str | Path] = [helm, "template", "fraud", CHART, "--namespace", "models"]
    options = ["--kube-version", KUBERNETES, "--values", str(CI["standard"]), "--values", "-", *flags]
    given = json.dumps(dict(values))  # which is also YAML, and leaves no doubt about strings
    return subprocess.run([*command, *options], input=given, text=True, capture_output=True, check=False)


def rendered(values: Values, helm: Path, *flags: str) -> list[dict[str, Any]]:
    """The objects that values render to."""
    done = template(values, helm, *flags)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def lint(values: Path, helm: Path) -> subprocess.CompletedProcess[str]:
    """`helm lint --strict` of the chart with a file of values."""
    command: list[str | Path] = [helm, "lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", values]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of a kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found
