"""Settings: options and variables of a service, and what is refused."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tabserve.inference.settings import command, read
from tabserve_predictor.settings import Settings


def refused(*arguments: str, environment: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(command(Settings, lambda _: None, ""), arguments, env=environment)
    assert result.exit_code == 2
    return result.output


def test_an_option_wins_over_its_variable_and_a_variable_over_the_default() -> None:
    settings = read(Settings, {"http_port": "9000"}, {"TABSERVE_HTTP_PORT": "9001", "TABSERVE_MAX_ROWS": "7"})

    assert (settings.http_port, settings.max_rows, settings.grpc_port) == (9000, 7, 8081)


def test_dashes_and_underscores_are_alike() -> None:
    seen: list[Settings] = []
    run = CliRunner().invoke(command(Settings, seen.append, ""), ["--http-port=9000", "--model_name", "fraud"])

    assert (run.exit_code, seen[0].http_port, seen[0].model_name) == (0, 9000, "fraud")


def test_an_empty_model_name_is_the_bundle_s() -> None:
    assert read(Settings, {"model_name": ""}, {}) == Settings()


def test_what_the_kserve_controller_appends_is_understood() -> None:
    seen: list[Settings] = []
    run = CliRunner().invoke(
        command(Settings, seen.append, ""), ["--model_name=fraud", "--http_port=8080", "--workers=8"]
    )

    assert (run.exit_code, seen[0].model_name) == (0, "fraud")


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    assert "--http_port" in refused("--http_prt=9000")


def test_an_unknown_variable_of_ours_is_refused() -> None:
    output = refused(environment={"TABSERVE_HTTP_PRT": "9000"})

    assert "unknown variable TABSERVE_HTTP_PRT" in output
    assert "TABSERVE_HTTP_PORT" in output


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--http_port=x", "http_port: Expected `int`, got `str`"),
        ("--http_port=0", "http_port: Expected `int` >= 1"),
        ("--http_port=70000", "http_port: Expected `int` <= 65535"),
        ("--max_rows=-1", "max_rows: Expected `int` >= 1"),
        ("--model_name=a/b", "model_name: expected 1 to 60 characters (letters, digits,"),
        ("--model_name=a b", 'first and last), got "a b" (option --NAME or variable TABSERVE_NAME)'),
        ("--log_level=loud", "log_level: Invalid enum value 'loud'"),
        ("--compatible=other", "compatible: Invalid enum value 'other'"),
    ],
)
def test_a_wrong_value_is_refused_with_name_and_expectation(option: str, problem: str) -> None:
    assert problem in refused(option)


def test_read_raises_for_a_wrong_variable() -> None:
    with pytest.raises(click.UsageError, match="http_port"):
        read(Settings, {}, {"TABSERVE_HTTP_PORT": "none"})


def test_help_tells_every_option_with_its_default() -> None:
    output = CliRunner().invoke(command(Settings, lambda _: None, "Serve."), ["--help"]).output

    assert "--max_batch_rows" in output
    assert "[8080]" in output


def test_trusted_types_are_separated_by_commas() -> None:
    settings = read(Settings, {}, {"TABSERVE_TRUSTED": "a.B, c.D,"})

    assert settings.trusted_types == ("a.B", "c.D")
    assert read(Settings, {}, {}).trusted_types == ()
