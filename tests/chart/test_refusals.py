"""Values that contradict themselves, would be ignored or are misspelt are refused by name before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import program, template

BAD = yaml.safe_load((Path(__file__).parent / "bad_values.yaml").read_text())


@pytest.fixture(scope="module")
def helm() -> Path:
    return program()


def test_there_are_enough() -> None:
    assert len(BAD) >= 40


@pytest.mark.parametrize("case", BAD, ids=[case["why"] for case in BAD])
def test_bad_values_are_refused_by_name(helm: Path, case: dict[str, Any]) -> None:
    done = template(case["values"], helm)

    assert done.returncode != 0, done.stdout[:500]
    assert case["names"] in done.stderr


KINDS = {
    "v1/Pod": "KServe",
    "serving.kserve.io/v1beta1/InferenceService": "Gateway API",
    "gateway.networking.k8s.io/v1/HTTPRoute": "",
}


@pytest.mark.parametrize("there", range(1, len(KINDS) + 1))
def test_a_cluster_without_what_is_needed_is_told_in_one_line(helm: Path, there: int) -> None:
    kinds = list(KINDS)[:there]
    lacking = KINDS[kinds[-1]]

    done = template({}, helm, *(part for kind in kinds for part in ("--api-versions", kind)))

    assert (f"ERROR: this cluster has no {lacking}; install" in done.stderr) == bool(lacking)
    assert (done.returncode == 0) == (not lacking)
