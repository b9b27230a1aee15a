"""Lines as JSON, and how few of them a cause can have."""

from __future__ import annotations

import json
import logging

import pytest

from tabserve.inference.logs import QUIET_SECONDS, JsonLines, Limited, last_words, tell

logger = logging.getLogger("tests.logs")


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def line(log: pytest.LogCaptureFixture) -> dict[str, object]:
    """The only record as JSON."""
    (record,) = log.records
    written = JsonLines("predictor").format(record)
    assert "\n" not in written
    found: dict[str, object] = json.loads(written)
    return found


def test_a_line_has_its_time_event_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    tell(logger, logging.WARNING, "lost", "it is\nlost, 100 %s", address="10.0.0.1:8080")

    found = line(caplog)
    assert str(found.pop("time")).endswith("Z")
    assert found == {
        "level": "warning",
        "service": "predictor",
        "event": "lost",
        "message": "it is\nlost, 100 %s",
        "logger": "tests.logs",
        "address": "10.0.0.1:8080",
    }


def test_a_library_s_line_is_json_as_well_without_the_text_of_its_exception(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise LookupError("secret-4711")
    except LookupError:
        logger.exception("it failed on %d", 3)

    found = line(caplog)
    assert (found["event"], found["message"], found["exception"]) == ("other", "it failed on 3", "LookupError")
    assert str(found["at"]).startswith(__file__)
    assert "secret-4711" not in json.dumps(found)


def test_what_is_no_text_in_utf_8_is_written_all_the_same() -> None:
    fields = {"fields": {"value": b"bytes"}}
    record = logger.makeRecord("tests.logs", logging.WARNING, "", 0, "half \ud800 a character", (), None, extra=fields)

    assert json.loads(JsonLines("predictor").format(record))["message"] == "half \ud800 a character"


def test_last_words_are_in_the_log_s_form() -> None:
    assert last_words("predictor", "text", "no bundle") == "predictor: no bundle"
    found = json.loads(last_words("predictor", "json", "no bundle"))
    assert (found["event"], found["level"], found["message"]) == ("start_failed", "critical", "no bundle")


def test_a_cause_is_told_once_in_ten_seconds_and_then_how_often_it_was_not(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = Limited(clock)
    for _ in range(1000):
        limited.tell(logger, logging.WARNING, "refused", "no place")
    clock.now += QUIET_SECONDS - 1
    limited.tell_left_out()
    assert [record.getMessage() for record in caplog.records] == ["no place"]

    clock.now += 1
    limited.tell_left_out()
    limited.tell(logger, logging.WARNING, "refused", "no place")
    assert [getattr(record, "fields") for record in caplog.records] == [{}, {"suppressed": 998}]  # noqa: B009

    clock.now += QUIET_SECONDS
    limited.tell(logger, logging.WARNING, "refused", "no place")
    assert caplog.messages[2] == "no place (1 more times since the last such line)"


def test_causes_do_not_hide_each_other_and_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = Limited(clock)
    for event, cause in (("lost", "a"), ("lost", "b"), ("slow", "a"), ("lost", "a")):
        limited.tell(logger, logging.WARNING, event, f"{event} {cause}", cause=cause)
    assert caplog.messages == ["lost a", "lost b", "slow a"]

    for _ in range(2):
        clock.now += QUIET_SECONDS
        limited.tell_left_out()
    limited.tell(logger, logging.WARNING, "lost", "lost b", cause="b")
    assert caplog.messages[3:] == ["lost a", "lost b"]
