"""The default of `max_body_bytes` is what `max_rows` of the longest records need."""

from __future__ import annotations

import json

import pytest
from sklearn.linear_model import LogisticRegression

from tabserve.bundle import Bundle
from tabserve.bundle.sizes import LEAST_BODY_BYTES, longest, with_body_limit
from tabserve.inference.settings import LARGEST_BODY_BYTES, ServerSettings
from tests.unit import bundles

NUMBER = -1.2345678901234567e-308


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.saved(LogisticRegression(), tmp_path_factory.mktemp("bundle"))


def test_the_longest_records_fit(bundle: Bundle) -> None:
    records = [{field.name: NUMBER for field in bundle.schema.record}] * 1000
    assert len(json.dumps({"instances": records})) <= 1000 * longest(bundle) <= 2 * len(json.dumps(records))


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, LEAST_BODY_BYTES), (10**6, LARGEST_BODY_BYTES), (50_000, None)], ids=str
)
def test_the_default_is_what_the_rows_need(bundle: Bundle, rows: int, expected: int | None) -> None:
    limited = with_body_limit(ServerSettings(max_rows=rows), bundle)
    assert limited.max_body_bytes == (expected or rows * longest(bundle))


def test_what_is_set_stays(bundle: Bundle) -> None:
    assert with_body_limit(ServerSettings(max_body_bytes=17), bundle).max_body_bytes == 17
