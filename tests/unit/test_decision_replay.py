"""A logged decision is made again bit by bit; what differs is found and named, and so is what cannot be told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from tabserve.bundle import Bundle
from tabserve.cli import main
from tabserve.decision_log import reading
from tabserve.decision_log.comparing import Difference
from tabserve.decision_log.replay import Replay, replay
from tabserve.decision_log.replayer import INCOMPLETE, Replayer
from tabserve.decision_log.requests import Requests
from tabserve.scoring.storage import RunError
from tests.data import payments
from tests.unit.bundles import records, resealed, saved
from tests.unit.decided import changed, entries, table, written

FIELDS = ("amount", "income", "age")
FRAME = records()[list(FIELDS)][:60]
WHOLE = FRAME.dropna()
BANDS = """\
  decision: {score: fraud, bands: [{from: 0.6, label: block}, {from: 0, label: accept}]}
  reasons: {top: 2, for: [block]}
"""
PLAIN: dict[str, Any] = {"fields": ("amount", "age"), "engine": "sklearn"}


def two_engines(folder: Path) -> Bundle:
    bundle = saved(XGBClassifier(n_estimators=5, max_depth=3), folder, fields=FIELDS, extra=BANDS)
    plan = [{"engine": "onnxruntime", "from_rows": 0}, {"engine": "xgboost", "from_rows": 2}]
    resealed(bundle.path, lambda contents: contents["model"].update(engines=plan))
    return Replayer(bundle.path).bundle


MODELS: dict[str, tuple[Callable[[Path], Bundle], tuple[str, ...]]] = {
    "two engines": (two_engines, ("predict_proba", "margin")),
    "every class": (
        lambda folder: saved(
            HistGradientBoostingClassifier(max_iter=3, max_depth=3), folder, "multiclass", fields=FIELDS
        ),
        ("predict_proba", "predict"),
    ),
    "rows that depend on each other": (
        lambda folder: saved(make_pipeline(StandardScaler(), LogisticRegression()), folder, extra=BANDS, **PLAIN),
        ("predict_proba",),
    ),
    "a value": (
        lambda folder: saved(make_pipeline(StandardScaler(), LinearRegression()), folder, "regression", **PLAIN),
        ("predict",),
    ),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = XGBClassifier(n_estimators=10)
    return saved(model, tmp_path_factory.mktemp("one"), fields=FIELDS, extra=BANDS, engine="xgboost")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another release of the model."""
    model = XGBClassifier(n_estimators=11)
    folder = tmp_path_factory.mktemp("other")
    return saved(model, folder, fields=FIELDS, extra=BANDS, engine="xgboost", version="2")


@pytest.fixture(scope="module")
def dependent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its engine's answers depend on the other rows."""
    return MODELS["rows that depend on each other"][0](tmp_path_factory.mktemp("dependent"))


@pytest.fixture(scope="module")
def logged(bundle: Bundle) -> pa.Table:
    return table(bundle, *entries(bundle, FRAME, 20, "predict_proba"))


def replayed(log: Path, *bundles: Bundle, **options: Any) -> Replay:
    return replay(str(log), [Replayer(each.path) for each in bundles], **options)


def counts(found: Replay) -> tuple[int, int, int]:
    return found.equal, found.differs, found.not_replayable


@pytest.mark.parametrize("kind", list(MODELS))
def test_what_services_decided_is_decided_again(kind: str, tmp_path: Path) -> None:
    make, outputs = MODELS[kind]
    bundle = make(tmp_path)
    frame = WHOLE[list(bundle.schema.fields)]
    made = chain(entries(bundle, frame[:30], 1, *outputs), entries(bundle, frame[30:], 7, *outputs))
    log = written(table(bundle, *made), tmp_path / "log")
    found = replayed(log, bundle)
    assert (found.result, *counts(found)) == ("equal", len(frame), 0, 0)


def test_decisions_of_services_and_of_files_are_decided_again(tmp_path: Path) -> None:
    bundle = payments.bundle(tmp_path, trees=10, depth=3)
    frame = payments.records(300)
    asked = frame.assign(opened=frame.opened.astype(str), paid=frame.paid.astype(str).where(frame.index % 2 == 0, None))
    online = [*entries(bundle, asked[:20], 1), *entries(bundle, asked[20:200], 40)]
    written(table(bundle, *online), tmp_path / "log")
    frame[200:].to_csv(tmp_path / "payments.csv", index=False)
    arguments = [
        str(bundle.path),
        str(tmp_path / "payments.csv"),
        str(tmp_path / "out"),
        "--log",
        str(tmp_path / "log"),
    ]
    assert CliRunner().invoke(main, ["score", *arguments]).exit_code == 0
    found = replayed(tmp_path / "log", bundle)
    assert (found.result, *counts(found)) == ("equal", 300, 0, 0)
    assert [(one.release, one.records) for one in found.releases] == [("", 100), ("a-1", 200)]


def test_copies_for_a_shadow_are_decided_again_like_their_originals(bundle: Bundle, tmp_path: Path) -> None:
    made = list(entries(bundle, FRAME[:6], 3))
    copies = [msgspec.structs.replace(each, source="shadow") for each in made]
    whole = table(bundle, *made, *copies)
    log = written(whole.take(np.random.default_rng(0).permutation(len(whole))), tmp_path / "log")
    found = replayed(log, bundle)

    assert (found.result, *counts(found)) == ("equal", 12, 0, 0)


def test_one_bit_of_a_score_is_found_and_named(bundle: Bundle, logged: pa.Table, tmp_path: Path) -> None:
    score = logged["score"][7].as_py()
    flipped = float(np.nextafter(score, 1))
    found = replayed(written(changed(logged, "score", 7, flipped), tmp_path), bundle)
    assert counts(found) == (59, 1, 0)
    (one,) = found.differences
    assert (one.id, one.row, one.release) == ("r-0/7", 7, "a-1")
    assert one.differences == [Difference("score", flipped, score)]


@pytest.mark.parametrize(
    ("column", "value", "differs"),
    [
        ("record.amount", 5e4, "outputs.predict_proba"),
        ("record.amount", None, "record"),
        ("outputs.predict_proba", [0.5], "outputs.predict_proba"),
        ("decision", "other", "decision"),
        ("decision", None, "decision"),
        ("label", "other", "label"),
        ("reasons", ["other"], "reasons"),
        ("codes", ["other"], "codes"),
    ],
)
def test_what_was_altered_is_found_and_named(
    bundle: Bundle, logged: pa.Table, tmp_path: Path, column: str, value: Any, differs: str
) -> None:
    found = replayed(written(changed(logged, column, 31, value), tmp_path), bundle)
    assert counts(found) == (59, 1, 0)
    assert found.differences[0].id == "r-20/11"
    assert differs in [each.what for each in found.differences[0].differences]


def test_another_bundle_is_named(bundle: Bundle, other: Bundle, logged: pa.Table, tmp_path: Path) -> None:
    found = replayed(written(logged, tmp_path), other)
    assert (found.result, *counts(found)) == ("not replayable", 0, 0, 60)
    (why,) = found.releases[0].not_replayable
    assert why == f"none of the bundles has the digest {bundle.digest}; given: {other.digest}"


def test_decisions_under_another_bundles_name_differ(bundle: Bundle, other: Bundle, tmp_path: Path) -> None:
    made = [msgspec.structs.replace(each, digest=other.digest) for each in entries(bundle, FRAME, 20, "predict_proba")]
    found = replayed(written(table(bundle, *made), tmp_path), bundle, other)
    assert found.result == "differs"
    assert found.differs > 50


def test_decisions_of_two_releases_are_counted_apart(bundle: Bundle, other: Bundle, tmp_path: Path) -> None:
    written(table(bundle, *entries(bundle, FRAME, 20, "predict_proba")), tmp_path)
    written(table(other, *entries(other, FRAME[:40], 1, "predict_proba", "margin", release="b-1")), tmp_path)
    found = replayed(tmp_path, bundle, other)
    told = [(one.release, one.bundle, one.records, one.equal) for one in found.releases]
    assert told == [("a-1", "m 1", 60, 60), ("b-1", "m 2", 40, 40)]
    assert found.result == "equal"


def test_reasons_that_are_not_logged_are_not_made(bundle: Bundle, tmp_path: Path) -> None:
    made = list(entries(bundle, FRAME, 20, "predict_proba"))
    some = {name: array for name, array in made[0].answers.items() if name not in ("reasons", "codes")}
    found = replayed(
        written(table(bundle, msgspec.structs.replace(made[0], answers=some), *made[1:]), tmp_path), bundle
    )
    assert counts(found) == (60, 0, 0)


def test_contributions_that_a_client_asked_for_are_made_again(bundle: Bundle, tmp_path: Path) -> None:
    made = table(bundle, *entries(bundle, FRAME, 20, "predict_proba", "contributions"))
    assert counts(replayed(written(made, tmp_path / "log"), bundle)) == (60, 0, 0)
    several = made["outputs"][3].as_py()["contributions"]
    altered = changed(made, "outputs.contributions", 3, [several[0] + 1e-9, *several[1:]])
    (one,) = replayed(written(altered, tmp_path / "altered"), bundle).differences
    assert [each.what for each in one.differences] == ["outputs.contributions"]


def test_a_request_is_put_together_from_several_files_in_any_order(dependent: Bundle, tmp_path: Path) -> None:
    made = table(dependent, *entries(dependent, FRAME[["amount", "age"]], 12, "predict_proba"))
    shuffled = made.take(pa.array(np.random.default_rng(3).permutation(60)))
    for part in range(4):
        written(shuffled[part * 15 : part * 15 + 15], tmp_path, f"pod-{part}")
    assert counts(replayed(tmp_path, dependent)) == (60, 0, 0)


def test_without_the_others_of_its_request_a_decision_is_not_replayable(dependent: Bundle, tmp_path: Path) -> None:
    made = table(dependent, *entries(dependent, FRAME[["amount", "age"]], 12, "predict_proba"))
    found = replayed(written(made.take(pa.array([*range(12), *range(13, 60)])), tmp_path), dependent)
    assert counts(found) == (48, 0, 11)
    assert found.releases[0].not_replayable == {INCOMPLETE: 11}


def test_requests_that_nobody_completes_do_not_fill_memory(dependent: Bundle) -> None:
    waiting = Requests(most=20)
    made = table(dependent, *entries(dependent, FRAME[["amount", "age"]], 12, "predict_proba"))
    (batch,) = made.take(pa.array([at for at in range(60) if at % 12 != 3])).combine_chunks().to_batches()
    given_up = []
    for start in range(0, 55, 5):
        assert waiting.add(batch.slice(start, 5)) is None
        given_up.append(sum(each.num_rows for each in waiting.given_up()))
    assert [sum(given_up[: at + 1]) for at in (3, 4, 6, 10)] == [0, 11, 22, 44]
    assert sum(each.num_rows for each in waiting.given_up(every=True)) == 11


def test_a_request_with_an_altered_record_cannot_be_replayed(dependent: Bundle, tmp_path: Path) -> None:
    made = table(dependent, *entries(dependent, FRAME[["amount", "age"]], 12, "predict_proba"))
    found = replayed(written(changed(made, "record.age", 30, None), tmp_path), dependent)
    assert counts(found) == (48, 1, 11)
    assert [each.what for each in found.differences[0].differences] == ["record"]


@pytest.mark.parametrize(("column", "value"), [("decision", None), ("score", 0.5), ("reasons", ["other"])])
def test_an_altered_answer_among_others_of_its_request_is_found(
    dependent: Bundle, tmp_path: Path, column: str, value: Any
) -> None:
    made = table(dependent, *entries(dependent, FRAME[["amount", "age"]], 12, "predict_proba"))
    found = replayed(written(changed(made, column, 30, value), tmp_path), dependent)
    assert counts(found) == (59, 1, 0)
    assert [each.what for each in found.differences[0].differences] == [column]


def test_one_decision_is_replayed_by_its_id_with_the_others_of_its_request(dependent: Bundle, tmp_path: Path) -> None:
    made = table(dependent, *entries(dependent, FRAME[["amount", "age"]], 12, "predict_proba"))
    log = written(changed(made, "score", 1, 0.5), tmp_path)
    assert counts(replayed(log, dependent, identity="r-12/3")) == (1, 0, 0)
    assert counts(replayed(log, dependent, identity="r-0/1")) == (0, 1, 0)
    with pytest.raises(RunError, match="holds no decision with the id 'r-7'"):
        replayed(log, dependent, identity="r-7")


def hidden(tmp_path: Path, how: str, field: str) -> Replay:
    """A replay of decisions, one field of which is hashed or dropped in the log."""
    bundle = saved(XGBClassifier(n_estimators=5), tmp_path, fields=FIELDS, engine="xgboost")
    path = bundle.path / "schema.yaml"
    text = path.read_text().replace(
        "record:\n", "record:\n  - {name: sex, type: category, values: [f], required: false, use: audit}\n"
    )
    path.write_text(text.replace(f"name: {field},", f"name: {field}, logged: {how},"))
    resealed(bundle.path)
    bundle = Replayer(bundle.path).bundle

    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 2)
    made = entries(bundle, FRAME.assign(sex="f"), 20, decision_log_hash_key_file=str(key))
    return replayed(written(table(bundle, *made), tmp_path / "log"), bundle)


@pytest.mark.parametrize(("how", "said"), [("hash", "hashed in the log"), ("drop", "not in the log")])
def test_without_a_field_that_the_model_needs_a_decision_is_not_replayable(how: str, said: str, tmp_path: Path) -> None:
    found = hidden(tmp_path, how, "income")
    assert found.releases[0].not_replayable == {f"field `income`, which the model needs, is {said}": 60}


@pytest.mark.parametrize("how", ["hash", "drop"])
def test_without_a_field_for_audit_a_decision_is_replayable(how: str, tmp_path: Path) -> None:
    assert counts(hidden(tmp_path, how, "sex")) == (60, 0, 0)


def test_an_engine_that_is_not_here_is_named(bundle: Bundle, logged: pa.Table, tmp_path: Path) -> None:
    found = replayed(written(changed(logged, "engine", 3, "onedal"), tmp_path), bundle)
    assert found.releases[0].not_replayable == {"the engine onedal is not in use here": 1}


def test_names_of_files_that_are_not_whole_are_passed_over(bundle: Bundle, logged: pa.Table, tmp_path: Path) -> None:
    path = written(logged, tmp_path)
    for name in ("_pod-2.parquet", ".pod-2.parquet", "_unfinished/pod-2.parquet", "notes.txt"):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_text("not whole")
    assert counts(replayed(tmp_path, bundle)) == (60, 0, 0)


def with_metadata(found: pa.Table, form: bytes) -> pa.Table:
    return found.replace_schema_metadata({**found.schema.metadata, b"tabserve.format": form})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: with_metadata(found, b"2"), "expected decision records of format 1, got format 2. Use the v"),
        (lambda found: found.replace_schema_metadata(None), "holds no decision records, but another table. Remove it"),
        (lambda found: found.drop_columns("digest"), "column `digest`: expected string, got no such column. Restore"),
        (
            lambda found: found.set_column(3, "row", found["row"].cast("int64")),
            "column `row`: expected int32, got int64",
        ),
    ],
)
def test_a_file_that_holds_no_decision_records_is_named(
    logged: pa.Table, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    path = written(logged, tmp_path)
    pq.write_table(change(logged), path)
    with pytest.raises(RunError, match=f"{path}: {message}"):
        list(reading.batches(str(tmp_path)))


def test_a_damaged_file_is_named_and_no_log_is_said(logged: pa.Table, tmp_path: Path) -> None:
    path = written(logged, tmp_path / "log")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=rf"{path}: cannot be read as Parquet: .* Remove it from the log"):
        list(reading.batches(str(tmp_path / "log")))
    with pytest.raises(RunError, match=r"holds no decision records\. Name the folder or the URI"):
        list(reading.batches(str(tmp_path / "nothing")))


def command(log: Path, *bundles: Bundle, options: tuple[str, ...] = ()) -> Result:
    given = [text for each in bundles for text in ("--bundle", str(each.path))]
    return CliRunner().invoke(main, ["log", "replay", str(log), *given, *options])


def test_the_command_tells_what_it_found_and_ends_with_its_status(
    bundle: Bundle, other: Bundle, logged: pa.Table, tmp_path: Path
) -> None:
    log = written(logged, tmp_path / "log").parent
    equal = command(log, bundle)
    assert (equal.exit_code, equal.output.splitlines()[-1]) == (
        0, "60 decisions: 60 equal, 0 differ, 0 not replayable",
    )  # fmt: skip
    written(changed(logged, "score", 7, 0.5), tmp_path / "log", "pod-2")
    differs = command(log, bundle, other)
    assert differs.exit_code == 1
    assert "r-0/7  2026-11-30T00:53:20.5" in differs.output
    assert "score    0.5  0." in differs.output
    assert command(log, other).exit_code == 2
    assert command(tmp_path / "nothing", bundle).exit_code == 2
    assert command(log, bundle, options=("--id", "r-0/5")).exit_code == 0


def test_the_command_prints_one_object_for_programs(bundle: Bundle, logged: pa.Table, tmp_path: Path) -> None:
    log = written(changed(logged, "id", 7, "\x1b[2J"), tmp_path)
    written(changed(changed(logged, "score", 7, 0.5), "id", 7, "\x1b[2J"), tmp_path, "pod-2")
    assert "\\x1b[2J" in command(log.parent, bundle).output
    found = msgspec.json.decode(command(log.parent, bundle, options=("--json",)).output)
    assert {name: found[name] for name in ("format", "result", "records", "equal", "differs", "not_replayable")} == {
        "format": 1, "result": "differs", "records": 120, "equal": 119, "differs": 1, "not_replayable": 0,
    }  # fmt: skip
    (one,) = found["differences"]
    assert one["id"] == "\x1b[2J"
    assert one["differences"][0]["was"] == 0.5
    assert set(one["differences"][0]) == {"what", "was", "is"}
