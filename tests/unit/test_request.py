"""`tabserve request` on real files: right, or a clear sentence; rows named by their lines."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from tabserve.cli import main
from tabserve.client import Client, ServiceError, Sifted
from tabserve.progress import Progress
from tabserve.request.reading import FileError, Options, Row, Source
from tabserve.request.run import Options as RunOptions
from tabserve.request.run import run
from tabserve.request.writing import sink
from tests.serving import Service, free_port

FIELDS = ["radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points",
          "symmetry", "fractal_dimension"]  # fmt: skip
SICK = [25.38, 17.33, 184.6, 2019.0, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189]
WELL = [13.5, 15.64, 86.97, 549.1, 0.1385, 0.1266, 0.1242, 0.09391, 0.2827, 0.06771]
NAMES = ["Ana", "Jürgen", "Zoë; née X"]
DECISIONS = ["refer today", "routine follow-up", "refer today"]
ROWS = [SICK, WELL, SICK]


def ask(*arguments: object, given: bytes | None = None) -> Result:
    """The command's result; it never fails with a traceback."""
    result = CliRunner().invoke(main, ["request", *map(str, arguments)], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code in (0, 3), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def records() -> list[dict[str, Any]]:
    return [{"name": name, **dict(zip(FIELDS, row, strict=True))} for name, row in zip(NAMES, ROWS, strict=True)]


def csv_of(delimiter: str = ",", decimal: str = ".") -> str:
    """Three patients; names are quoted if they hold the delimiter."""
    cells = [["name", *FIELDS], *([name, *map(str, row)] for name, row in zip(NAMES, ROWS, strict=True))]
    cells[1:] = [[row[0], *(cell.replace(".", decimal) for cell in row[1:])] for row in cells[1:]]
    return "\n".join(delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row) for row in cells)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (csv_of().encode(), []),
        (csv_of().encode("utf-8-sig"), []),
        (csv_of().replace("\n", "\r\n").encode() + b"\r\n\r\n", []),
        (csv_of(";").encode(), []),
        (csv_of("\t").encode(), []),
        (csv_of("|").encode(), []),
        (csv_of(":").encode(), ["--delimiter", ":"]),
        (csv_of("\t").encode(), ["--delimiter", "tab"]),
        (csv_of(";", ",").encode("cp1252"), ["--encoding", "cp1252", "--decimal", ","]),
        (csv_of().encode("utf-16"), ["--encoding", "utf-16"]),
    ],
)
def test_csv_as_programs_write_it(transformer: Service, tmp_path: Path, content: bytes, options: list[str]) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    made = ask(transformer.url, "--file", tmp_path / "in.csv", "--output", "json", "--keep", "name", *options)

    assert [(row["name"], row["decision"]) for row in lines(made)] == list(zip(NAMES, DECISIONS, strict=True))


def written(folder: Path, kind: str) -> Path:
    path = folder / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records()), path)
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(record) for record in records()))
    else:
        path.write_text(csv_of())
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("way", ["file", "standard input", "another name"])
def test_every_format_is_read_from_everywhere(transformer: Service, tmp_path: Path, kind: str, way: str) -> None:
    path = written(tmp_path, kind)
    if way == "another name":
        path = path.rename(tmp_path / "in.dat")
    given = path.read_bytes() if way == "standard input" else None
    made = ask(transformer.url, "--file", "-" if given else path, "--output", "json", given=given)

    assert [row["decision"] for row in lines(made)] == DECISIONS
    assert list(lines(made)[0]) == ["decision", "score", "label", "reasons"]


@pytest.mark.parametrize("way", ["scheme", "no scheme", "grpc"])
def test_answers_are_the_same_over_both_protocols(transformer: Service, tmp_path: Path, way: str) -> None:
    (tmp_path / "in.csv").write_text(csv_of())
    host = f"127.0.0.1:{transformer.http_port}"
    url = {"scheme": f"http://{host}/", "no scheme": host, "grpc": f"grpc://{transformer.grpc}"}[way]
    made = ask(url, "--model", "breast-cancer", "--file", tmp_path / "in.csv", "--output", "json")

    assert [row["decision"] for row in lines(made)] == DECISIONS
    assert lines(made)[1]["score"] == pytest.approx(0.004, abs=1e-3)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_is_written(transformer: Service, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in.csv").write_text(csv_of())
    expected = lines(ask(transformer.url, "--file", tmp_path / "in.csv", "--output", "json", "--keep", "name"))
    target = tmp_path / f"out.{kind}"
    made = ask(transformer.url, "--file", tmp_path / "in.csv", "--to", target, "--keep", "name")

    assert (made.exit_code, made.stdout) == (0, "")
    assert _read(target) == [
        {**row, "reasons": "; ".join(row["reasons"])} if kind == "csv" else row for row in expected
    ]


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of answers."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    table = pq.read_table(path) if path.suffix == ".parquet" else arrow_csv.read_csv(path)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_table_is_written_as_answers_come(transformer: Service, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n".join([csv_of().splitlines()[0], *csv_of().splitlines()[1:] * 40]))
    made = ask(transformer.url, "--file", tmp_path / "in.csv", "--keep", "name", "--batch", 7)

    assert made.stdout.splitlines()[:3] == [
        "name        decision           score   label      reasons",
        "Ana         refer today        1.0000  malignant  long outline of the nuclei; large cell nuclei; "
        "large area of the nuclei",
        "Jürgen      routine follow-up  0.0040  benign     rough outline of the nuclei; nuclei far from round; "
        "uneven outline of the nuclei",
    ]
    assert made.stdout.count("refer today") == 80


def long_file(path: Path, count: int, bad: dict[int, str]) -> Path:
    """A CSV file whose rows of these positions are bad."""
    header, _, row, _ = csv_of().splitlines()
    path.write_text("\n".join([header, *(bad.get(at, row) for at in range(count))]))
    return path


def test_a_bad_row_is_named_by_its_place_in_the_file(transformer: Service, tmp_path: Path) -> None:
    row = csv_of().splitlines()[2]
    bad = row.replace("13.5,", "big,").replace("549.1", "-1")
    path = long_file(tmp_path / "in.csv", 1200, {700: bad, 702: "x"})
    made = ask(transformer.url, "--file", path, "--output", "json")

    assert made.exit_code == 1
    assert made.stderr == (
        f'Error: {path}, line 702 (row 700), field radius: expected a number from 0 to 100, got "big"\n'
        f"{path}, line 702 (row 700), field area: expected a number from 0 to 20000, got -1\n"
        "1 more of the 500 rows from 500 are bad\n"
    )
    assert made.stdout.count("routine follow-up") == 500


def test_lines_are_counted_within_quotes_and_between_blank_lines(transformer: Service, tmp_path: Path) -> None:
    header, _, row, _ = csv_of().splitlines()
    two_lines = row.replace("Jürgen", '"Jür\ngen"')
    (tmp_path / "in.csv").write_text("\n".join(["", header, two_lines, "", two_lines.replace("13.5,", "big,")]))
    made = ask(transformer.url, "--file", tmp_path / "in.csv")

    assert "line 6 (row 1), field radius: expected a number" in made.stderr


@pytest.mark.parametrize("url", ["http", "grpc"])
def test_bad_rows_are_recorded_and_the_others_answered(transformer: Service, tmp_path: Path, url: str) -> None:
    row = csv_of().splitlines()[2]
    bad = {3: row.replace("13.5,", "big,").replace("549.1", "-1"), 1100: "x,1", 1101: row.replace("13.5,", ",")}
    path = long_file(tmp_path / "in.csv", 1200, bad)
    where = {"http": transformer.url, "grpc": f"grpc://{transformer.grpc}"}[url]
    rejects = ["--on-error", "record", "--rejects", tmp_path / "rejects.jsonl", "--model", "breast-cancer"]
    made = ask(where, "--file", path, "--output", "json", *rejects, "--keep", "name")
    found = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]

    assert made.exit_code == 3
    assert made.stderr == f"1,197 answered, 3 rejected: {tmp_path / 'rejects.jsonl'}\n"
    assert [one["line"] for one in lines(made)] == [at + 2 for at in range(1200) if at not in bad]
    assert [(one["row"], one["line"], one["errors"][0]["field"]) for one in found] == [
        (3, 5, "radius"),
        (1100, 1102, ""),
        (1101, 1103, "radius"),
    ]
    assert found[1]["errors"] == [{"field": "", "expected": "11 cells, as in the header", "got": "2"}]
    assert found[0]["given"]["name"] == "Jürgen"


def test_rows_of_parquet_are_named_by_their_position(transformer: Service, tmp_path: Path) -> None:
    given = records()
    given[1]["area"] = None
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "in.parquet")
    made = ask(transformer.url, "--file", tmp_path / "in.parquet")
    kept = ["--on-error", "record", "--rejects", tmp_path / "r.jsonl", "--to", tmp_path / "out.parquet"]
    recorded = ask(transformer.url, "--file", tmp_path / "in.parquet", *kept)

    assert "in.parquet, row 1, field area: expected a number from 0 to 20000, got null" in made.stderr
    assert recorded.exit_code == 3
    assert pq.read_table(tmp_path / "out.parquet")["row"].to_pylist() == [0, 2]


PROBLEMS = [
    ("in.csv", b"", [], "in.csv: is empty; expected a header with the names of fields"),
    ("in.csv", b"\n \n", [], "in.csv: is empty"),
    ("in.csv", csv_of(":").encode(), [], "line 1: expected a header with the fields radius, texture"),
    ("in.csv", csv_of().encode("cp1252"), [], "got the byte 0xfc; if Excel or another program on Windows wrote it"),
    ("in.csv", csv_of().encode("utf-16"), [], "is UTF-16; add --encoding utf-16"),
    ("in.csv", csv_of().replace("area", "aera").encode(), [], "line 1: expected a column `area`, got `aera` instead"),
    ("in.csv", csv_of().replace("name", "area").encode(), [], "line 1: the column `area` comes twice"),
    ("in.csv", csv_of().replace("Ana", "A" * 200_000).encode(), [], "in.csv: field larger than field limit"),
    ("in.csv", csv_of().replace("17.33,", "").encode(), [], "line 2 (row 0): expected 11 cells, as in the header"),
    ("in.csv", csv_of().replace("17.33", "nan").encode(), [], 'texture: expected a number from 0 to 200, got "nan"'),
    ("in.csv", csv_of().replace("17.33", "1_7").encode(), [], 'texture: expected a number from 0 to 200, got "1_7"'),
    ("in.csv", csv_of().replace("17.33", "17,3").encode(), ["--delimiter", ";"], "expected a header with the fields"),
    ("in.csv", csv_of().encode(), ["--keep", "nom"], "in.csv: no column `nom` to keep"),
    ("in.csv", csv_of().encode(), ["--keep", "score"], "--keep score: the output has a column of that name"),
    ("in.csv", csv_of().encode(), ["--delimiter", "::"], "--delimiter: expected one character"),
    ("in.csv", csv_of().encode(), ["--to", "out.txt"], "--to out.txt: expected a file that ends in .csv"),
    ("in.csv", csv_of().encode(), ["--to", "nowhere/out.csv"], "--to nowhere/out.csv: No such file"),
    ("in.csv", csv_of().encode(), ["--header", "x"], "--header: expected NAME: VALUE"),
    ("in.csv", csv_of().encode(), ["--encoding", "latin-99"], "--encoding: expected a name such as cp1252, got"),
    ("in.csv", csv_of().encode(), ["--model", "other"], "no such model"),
    ("in.csv", csv_of().encode(), ["--record", "{}"], "expected either --record or --file"),
    ("in.jsonl", b'{"radius": 1}\n[1]\n', ["--batch", "1"], "line 1 (row 0), field texture: expected a number"),
    ("in.jsonl", b'[1]\n', [], "line 1 (row 0): expected a JSON object, got Expected `object`, got `array`"),
    ("in.jsonl", b'{"radius": \xfc}\n', [], "line 1 (row 0): expected a JSON object, got "),
    ("in.jsonl", b'{"radiuss": 1}\n', [], "field radius: expected a value, got `radiuss` instead"),
    ("in.parquet", b"PAR1 no", [], "in.parquet: expected Parquet: "),
    ("in.csv.gz", b"\x1f\x8b", [], "in.csv.gz: is compressed; unpack it first"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "options", "problem"), PROBLEMS, ids=[problem for *_, problem in PROBLEMS])
def test_what_cannot_be_asked_is_said_in_a_sentence(
    transformer: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    options: Sequence[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    made = ask(transformer.url, "--file", name, *options)

    assert made.exit_code in (1, 2)
    assert problem in made.stderr


@pytest.mark.parametrize(("kind", "names"), [("csv", 1), ("jsonl", 0), ("parquet", 1)])
def test_no_records_are_no_answers(transformer: Service, tmp_path: Path, kind: str, names: int) -> None:
    (tmp_path / "in.csv").write_text(csv_of().splitlines()[0])
    target = tmp_path / f"out.{kind}"
    made = ask(transformer.url, "--file", tmp_path / "in.csv", "--to", target, "--keep", "name")

    assert (made.exit_code, made.output) == (0, "")
    assert told(target) == [[], ["name", "decision", "score", "label", "reasons"]][names]


def told(path: Path) -> list[str]:
    """The names of a file's columns, in a table without rows."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).column_names)
    return [name for name in path.read_text().strip().split(",") if name]


def test_one_record_is_decided(transformer: Service) -> None:
    record = json.dumps(dict(zip(FIELDS, SICK, strict=True)))
    assert "refer today" in ask(transformer.url, "--record", record).stdout
    assert lines(ask(transformer.url, "--record", record, "--output", "json"))[0]["decision"] == "refer today"


@pytest.mark.parametrize(
    ("arguments", "problem", "status"),
    [
        ([], "expected either --record or --file", 2),
        (["--record", "{"], "expected a JSON object", 2),
        (["--record", "[1]"], "expected a JSON object", 2),
        (["--record", '{"radius": "big"}'], "record 0, field `radius`: expected a number from 0 to 100", 1),
        (["--file", "nowhere.csv"], "nowhere.csv: No such file or directory", 1),
    ],
)
def test_request_tells_what_is_wrong(transformer: Service, arguments: list[str], problem: str, status: int) -> None:
    made = ask(transformer.url, *arguments)
    assert (made.exit_code, problem in made.stderr) == (status, True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [("http://127.0.0.1:{}", "no answer from http://127.0.0.1:{}"), ("ftp://x", "expected http, https, grpc or grpcs")],
)
def test_request_tells_that_nobody_answers(url: str, problem: str) -> None:
    port = free_port()
    made = ask(url.format(port), "--record", "{}")
    assert (made.exit_code, problem.format(port) in made.stderr) == (1, True)


class Busy(Client):
    """A client of a service that is overloaded each time before it answers."""

    def __init__(self, refusals: int) -> None:
        super().__init__("http://127.0.0.1")
        self.left = self._refusals = refusals

    def sift(self, model: str, records: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise ServiceError("503: too many requests at once", 0.0)
        self.left = self._refusals
        return Sifted([{"score": record["amount"]} for record in records], [])


def asked_busily(refusals: int) -> str:
    content, out = b"amount\n1\n2\n3\n", io.BytesIO()
    source = Source("in.csv", io.BytesIO(content), len(content), DATATYPES, Options())
    text = sink("jsonl", out, [], [])
    run(Busy(refusals), "m", source, text, None, RunOptions(batch=2, in_flight=1), Progress("records"))
    return out.getvalue().decode()


def test_an_overloaded_service_is_asked_again() -> None:
    assert asked_busily(refusals=3) == '{"score": 1.0}\n{"score": 2.0}\n{"score": 3.0}\n'


def test_a_service_that_stays_overloaded_ends_the_run() -> None:
    with pytest.raises(ServiceError, match=r"in\.csv, rows 0 to 1: 503: too many requests at once"):
        asked_busily(refusals=10)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, share: float | None) -> list[str]:
    """What is shown of 25 seconds, in each of which a thousand records are done and a part of all."""
    now = [0.0]
    with Progress("records", stream, clock=lambda: now[0]) as progress:
        for _ in range(25):
            now[0] += 1
            progress.report(1000, None if share is None else now[0] * share)
    return [line.rstrip() for line in stream.getvalue().replace("\r", "\n").splitlines() if line]


def test_progress_is_a_line_every_ten_seconds() -> None:
    assert shown(io.StringIO(), 0.01) == [
        " 10%  10,000 records, 1,000 per second, 1:30 left",
        " 20%  20,000 records, 1,000 per second, 1:20 left",
    ]


def test_progress_on_a_terminal_is_one_line_that_changes() -> None:
    stream = Terminal()
    assert shown(stream, 0.04)[-1] == "100%  25,000 records, 1,000 per second, 0:00 left"
    assert (stream.getvalue().count("\r"), stream.getvalue().count("\n")) == (25, 1)


def test_progress_without_a_size_tells_no_time() -> None:
    assert shown(io.StringIO(), None) == ["10,000 records, 1,000 per second", "20,000 records, 1,000 per second"]


DATATYPES = {"amount": "FP64", "count": "INT64", "new": "BOOL", "country": "BYTES"}


def read(content: bytes, **options: Any) -> list[Row]:
    return list(Source("in.csv", io.BytesIO(content), len(content), DATATYPES, Options(**options)).rows())


def test_cells_of_a_csv_file_become_values_of_their_fields() -> None:
    rows = read(b"amount,count,new,country,free\n1.5,3,true,DE,x\n,,0,,\nmuch,2.5,maybe,FR,")

    assert [row.record for row in rows] == [
        {"amount": 1.5, "count": 3, "new": True, "country": "DE"},
        {"new": False},
        {"amount": "much", "count": 2.5, "new": "maybe", "country": "FR"},
    ]


@pytest.mark.parametrize(
    "content", [b'amount\n"1\n', b"amount\n1\x00\n", b"\xef\xbb\xbfamount\n1", b"amount\r1\r2", b"amount;b\n1;2;3"]
)
def test_odd_bytes_are_rows(content: bytes) -> None:
    assert read(content)


@pytest.mark.parametrize("content", [b"amount\n\xff", b"\xef\xbb\xbf", b"a;b;c", b"\xff\xfea"])
def test_odd_bytes_are_a_sentence(content: bytes) -> None:
    with pytest.raises(FileError, match=r"^in\.csv: "):
        read(content)
