"""The command `tabserve`: tables, and what it refuses; README and docs run the rest of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tabserve.cli import main
from tabserve.terminal import table


def test_a_table_is_aligned() -> None:
    rows: list[dict[str, object]] = [{"name": "a", "value": 0.5}, {"name": "longer", "value": ["x", "y"]}]

    assert table(rows).splitlines() == ["name    value", "a       0.5000", "longer  x; y"]


def test_bundle_check_tells_what_failed_and_ends_with_one(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    assert CliRunner().invoke(main, ["bundle", "check", str(copy)]).exit_code == 0

    (copy / "schema.yaml").write_text((copy / "schema.yaml").read_text() + "# changed\n")
    result = CliRunner().invoke(main, ["bundle", "check", str(copy)])

    assert result.exit_code == 1
    assert "FAILED" in result.output
    assert "schema.yaml" in result.output


@pytest.mark.parametrize("command", [["bundle", "show"], ["bundle", "openapi"], ["up"]])
def test_a_folder_that_is_no_bundle_is_refused(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*command, str(tmp_path)])

    assert result.exit_code == 1
    assert "bundle.json: missing" in result.output


@pytest.mark.parametrize(("service", "schema"), [("transformer", "Record"), ("predictor", "Instance")])
def test_the_openapi_document_is_of_the_service_and_the_name(bundle: Path, service: str, schema: str) -> None:
    command = ["bundle", "openapi", str(bundle), "--service", service, "--model-name", "mine"]
    document = json.loads(CliRunner().invoke(main, command).stdout)

    assert (document["openapi"], document["info"]["title"]) == ("3.1.0", "mine")
    assert schema in document["components"]["schemas"]
    assert "/v2/models/mine/infer" in document["paths"]
