"""Names of models: the same are allowed everywhere."""

from __future__ import annotations

import json
import re

import pytest

from tabserve.inference.names import LONGEST, PATTERN, misfit
from tests.serving import ROOT


def test_the_chart_allows_the_names_that_a_bundle_may_have() -> None:
    allowed = json.loads((ROOT / "charts/tabserve/values.schema.json").read_text())["properties"]["modelName"]

    assert (allowed["pattern"], allowed["minLength"], allowed["maxLength"]) == (PATTERN, 1, LONGEST)


@pytest.mark.parametrize("name", ["m", "7", "breast-cancer", "iris_svc.v1", "A" * LONGEST])
def test_a_name_is_allowed_and_the_same_in_a_url(name: str) -> None:
    assert misfit(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a%2Fb", "a:predict", ".", "..", "-a", "a-", "ü", "a\n", "A" * 61])
def test_a_name_is_refused_and_told(name: str) -> None:
    assert re.fullmatch(r'expected 1 to 60 characters \(letters, .* first and last\), got ".*"', misfit(name) or "")
