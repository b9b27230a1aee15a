"""Times that are read many at once, beside the same ones read alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.schema.timestamps import instant, instants

MANY = 50
USUAL = "2025-12-17T07:54:48"
FORMS = [
    "0001-01-01T00:00:00",
    "1969-12-31T23:59:59",
    "9999-12-31T23:59:59",
    "2024-02-29T12:00:00Z",
    "2025-12-17",
    "2025-12-17 07:54:48",
    "20251217T075448",
    "2025-12-17T07:54:48.250",
    "2025-12-17T07:54:48.250Z",
    "2025-12-17T07:54:48+02:00",
]
NO_TIMES = [
    "",
    "now",
    "NaT",
    "today",
    "2025",
    "0000-01-01T00:00:00",
    "2025-02-30T00:00:00",
    "2025-12-17T07:54:60",
    "2025-12-17T25:00:00",
    "   2025-12-17T07:54",
    "-002025-12-17T07:54",
    "2025-12-17T07:54:4\uff18",
    "2025-12-17T07:54:48z",
    "2025-12-17T07:54:48X",
    "2025-12-17T07:54:4",
]


@pytest.mark.parametrize("form", FORMS)
def test_many_times_are_those_that_each_is_alone(form: str) -> None:
    assert instants([form] * MANY).tolist() == [instant(form)] * MANY


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_text_that_is_no_time_is_infinite_among_many(text: str) -> None:
    mixed, alone = instants([USUAL] * MANY + [text]), instants([text] * MANY)

    assert mixed.tolist() == [instant(USUAL)] * MANY + [instant(text)]
    assert alone.tolist() == [instant(text)] * MANY


def test_texts_that_would_be_times_only_together_are_none() -> None:
    parts = [USUAL[:-1], USUAL[-1] + USUAL]
    assert np.isinf(instants(parts * MANY)).all()


def test_times_numbers_and_missing_ones_may_be_mixed() -> None:
    found = instants([USUAL, None, 1.5] * MANY)

    assert found[0::3].tolist() == [instant(USUAL)] * MANY
    assert np.isnan(found[1::3]).all()
    assert found[2::3].tolist() == [1.5] * MANY


@given(st.lists(st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds")), min_size=1))
def test_whole_seconds_of_any_year_are_exact(texts: list[str]) -> None:
    assert instants(texts * MANY).tolist() == [instant(text) for text in texts] * MANY
