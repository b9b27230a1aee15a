"""Every kind of model is served as its own library answers, or refused by `save` in a sentence."""

from __future__ import annotations

import pytest

from tests.models import document, outcomes
from tests.models.roster import cases
from tests.models.walk import walk

QUICK = 59
"""One in this many cases is in the quick part."""


def test_some_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    found = [walk(case) for case in cases()[::QUICK]]

    with capsys.disabled():
        print(f"\n{outcomes.summary(found)}")
    assert outcomes.worse(found, outcomes.read()) == []


@pytest.mark.long
def test_all_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    found = outcomes.walk_all()

    with capsys.disabled():
        print(f"\n{outcomes.summary(found)}")
    assert outcomes.worse(found, outcomes.read()) == []


def test_the_table_has_every_model() -> None:
    assert [*outcomes.read()] == [case.key for case in cases()]


def test_the_page_is_written_from_the_table() -> None:
    assert document.PAGE.read_text() == document.page(outcomes.read().values())
