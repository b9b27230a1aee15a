"""The transformer's settings, and the controller's own arguments."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tabserve.inference.settings import command, read
from tabserve_transformer.settings import Settings, host_and_port


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("fraud-predictor.models", ("fraud-predictor.models", 80)),
        ("localhost:8085", ("localhost", 8085)),
        ("http://fraud-predictor.models:8080/", ("fraud-predictor.models", 8080)),
        ("[::1]:8085", ("::1", 8085)),
        ("[::1]", ("::1", 80)),
    ],
)
def test_a_host_may_have_a_port(given: str, expected: tuple[str, int]) -> None:
    assert host_and_port(given) == expected


@pytest.mark.parametrize("given", ["", ":80", "host:", "host:x", "host:0", "host:70000", "host:-1", "a b", "h\r\nx: y"])
def test_what_is_no_host_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="predictor_host: expected HOST or HOST:PORT"):
        host_and_port(given)


def test_the_controllers_arguments_are_understood() -> None:
    read_settings: list[Settings] = []
    arguments = "--model_name fraud --predictor_host fraud-predictor.models --http_port 8080 --workers 1"
    main = command(Settings, read_settings.append, "help")
    result = CliRunner().invoke(main, [*arguments.split(), "--predictor-protocol=v2"])
    assert result.exit_code == 0, result.output
    (settings,) = read_settings
    assert (settings.model_name, settings.predictor_host) == ("fraud", "fraud-predictor.models")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "predictor_host"),
        (["--predictor_hst", "x"], "--predictor_host"),
        (["--predictor_host", "x", "--predictor_timeout", "0"], "predictor_timeout"),
        (["--predictor_host", "x", "--predictor_protocol", "v1"], "predictor_protocol"),
        (["--predictor_host", "x", "--decision_log_sample", "1.5"], "decision_log_sample"),
        (["--predictor_host", "x", "--decision_log_file_seconds", "0"], "decision_log_file_seconds"),
    ],
)
def test_wrong_arguments_end_it_naming_the_setting(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(command(Settings, lambda _: None, "help"), arguments)
    assert result.exit_code == 2
    assert expected in result.output


def test_variables_are_read_and_unknown_ones_refused() -> None:
    assert read(Settings, {}, {"TABSERVE_PREDICTOR_HOST": "p", "HOME": "x"}).predictor_host == "p"
    with pytest.raises(click.UsageError, match="TABSERVE_PREDICTOR_HSOT"):
        read(Settings, {}, {"TABSERVE_PREDICTOR_HSOT": "p"})


def test_help_tells_which_option_is_required() -> None:
    output = CliRunner().invoke(command(Settings, lambda _: None, "help"), ["--help"]).output
    assert " ".join(output.split()).count("[required]") == 1
