"""The command `tabserve`: tables, CSV files, what it refuses; README and docs run the rest of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tabserve.cli import main, read_csv, table
from tests.serving import Service

CSV = """radius,texture,perimeter,area,smoothness,compactness,concavity,concave_points,symmetry,fractal_dimension
25.38,17.33,184.6,2019.0,0.1622,0.6656,0.7119,0.2654,0.4601,0.1189
13.5,15.64,86.97,549.1,0.1385,0.1266,0.1242,0.09391,0.2827,0.06771
"""


def test_cells_of_a_csv_file_become_values_of_their_fields() -> None:
    datatypes = {"amount": "FP64", "count": "INT64", "new": "BOOL", "country": "BYTES"}
    lines = ["amount,count,new,country,free", "1.5,3,true,DE,x", ",,0,,", "much,2.5,maybe,FR,"]

    assert list(read_csv(lines, datatypes)) == [
        {"amount": 1.5, "count": 3, "new": True, "country": "DE", "free": "x"},
        {"new": False},
        {"amount": "much", "count": "2.5", "new": "maybe", "country": "FR"},
    ]


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


def test_request_prints_json_lines(transformer: Service, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text(CSV)
    arguments = ["request", transformer.url, "--file", str(tmp_path / "patients.csv"), "--output", "json"]
    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 0, result.output
    assert [line.partition(",")[0] for line in result.output.splitlines()] == [
        '{"decision": "refer today"',
        '{"decision": "routine follow-up"',
    ]


def test_request_sends_a_long_file_in_pieces(transformer: Service, tmp_path: Path) -> None:
    header, row, _ = CSV.splitlines()
    (tmp_path / "patients.csv").write_text("\n".join([header, *[row] * 1201]))
    result = CliRunner().invoke(main, ["request", transformer.url, "--file", str(tmp_path / "patients.csv")])

    assert result.exit_code == 0, result.output
    assert result.output.count("refer today") == 1201


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "expected either --record or --file"),
        (["--record", "{"], "expected a JSON object"),
        (["--record", "[1]"], "expected a JSON object"),
        (["--record", '{"radius": "big"}'], "record 0, field `radius`: expected a number from 0 to 100"),
    ],
)
def test_request_tells_what_is_wrong(transformer: Service, arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(main, ["request", transformer.url, *arguments])

    assert result.exit_code != 0
    assert problem in result.output


def test_request_tells_that_nobody_answers() -> None:
    result = CliRunner().invoke(main, ["request", "http://127.0.0.1:9", "--record", "{}"])

    assert result.exit_code == 1
    assert "no answer from http://127.0.0.1:9" in result.output
