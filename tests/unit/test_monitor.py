"""The monitor finds what has changed, claims nothing that it cannot know, and says each thing once."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fairlearn.metrics
import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import brier_score_loss, confusion_matrix, recall_score, roc_auc_score

import tabserve.train
from tabserve.bundle import Bundle, load
from tabserve.bundle.histogram import of_numbers
from tabserve.bundle.reference import Reference
from tabserve.cli import main
from tabserve.decision_log import record
from tabserve.decision_log.record import Entry
from tabserve.monitor import counts, reading, simulate, verdict
from tabserve.monitor.columns import Column, of_bundle
from tabserve.monitor.counts import Kept
from tabserve.monitor.page import page
from tabserve.monitor.run import Report, Run, Subject
from tabserve.monitor.verdict import Finding, Tolerances
from tests.unit import monitored
from tests.unit.bundles import resealed
from tests.unit.monitored import FIRST, NAMES, SCHEMA, records, scores
from tests.unit.unsaved import BINARY, MODEL, bundle_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return monitored.bundle(tmp_path_factory.mktemp("bundle"))


def week(folder: Path, saved: Bundle, seed: int = 100, **changed: Any) -> pd.DataFrame:
    """A week's log, 1,000 records a day; changed: values that all of its records have, or a shift of their numbers."""
    days = []
    for at in range(7):
        frame = records(1_000, seed + at)
        for name, value in changed.items():
            frame[name] = frame[name] + value if isinstance(value, float) else value
        days.append(frame)
        monitored.log(folder / "log", saved, frame, FIRST + at)
    return pd.concat(days)


def judged(folder: Path, saved: Bundle, frame: pd.DataFrame | None = None) -> Report:
    """What is found in a log; frame: the records that have labels."""
    subject, truths = Subject(saved, 0.05, Tolerances()), None
    if frame is not None:
        truths = reading.Truths(saved)
        truths.read(str(monitored.labels(folder / "labels.parquet", frame)))
    running = Run(subject, str(folder / "log"), truths, None)
    return running.judged(running.read(lambda *_: None))


def invoke(*options: object) -> Result:
    return CliRunner().invoke(main, ["monitor", *map(str, options)])


def alarms(report: Report) -> set[tuple[str, str, str]]:
    return {(each.what, each.measure, each.window) for each in report.findings if each.alarm}


def test_nothing_is_found_where_nothing_has_changed(bundle: Bundle, tmp_path: Path) -> None:
    frame = week(tmp_path, bundle)
    report = judged(tmp_path, bundle, frame)

    assert (report.verdict, report.alarm) == ("Nothing has changed beyond chance and tolerance.", False)
    assert (report.records, report.others, report.missing) == (7_000, 0, [])
    assert report.checks == 3 + 2 + 4
    assert {each.window for each in report.findings} == {"day", "week", "release"}
    assert (report.first, report.last) == (FIRST, FIRST + 6)


def test_a_shifted_feature_is_found_in_its_windows(bundle: Bundle, tmp_path: Path) -> None:
    week(tmp_path, bundle, age=1.0)
    report = judged(tmp_path, bundle)

    assert {("age", "values", "day"), ("age", "values", "week"), ("age", "values", "release")} <= alarms(report)
    assert not [each for each in alarms(report) if each[0] in ("amount", "shop")]
    (found,) = (each for each in report.findings if (each.what, each.window) == ("age", "release"))
    trained = bundle.reference.histograms["age"]
    assert found.distance == pytest.approx(stats.norm.cdf(0.5) - stats.norm.cdf(-0.5), abs=0.05)
    assert found.rows == 7_000
    assert found.psi is not None
    assert len(trained.counts) == 20


def segmented(folder: Path, saved: Bundle, *segments: str) -> Report:
    running = Run(Subject(saved, 0.05, Tolerances(), segments), str(folder / "log"), None, None)
    return running.judged(running.read(lambda *_: None))


def test_a_change_in_one_segment_is_found_there_alone(bundle: Bundle, tmp_path: Path) -> None:
    frame = records(4_000, 71)
    frame["amount"] += np.where(frame.sex == "m", 0.4, 0.0)
    monitored.log(tmp_path / "log", bundle, frame, FIRST)
    whole, by_sex = judged(tmp_path, bundle), segmented(tmp_path, bundle, "sex")

    assert not whole.alarm
    assert {what for what, *_ in alarms(by_sex)} == {"score where sex is m", "decision where sex is m"}
    told = "the score where sex is m, the decision where sex is m"
    assert by_sex.verdict == f"Retrain: {told} changed beyond chance and tolerance."
    released = {each.what: each for each in by_sex.findings if each.window == "release"}
    inside = {group: int((frame.sex == group).sum()) for group in ("f", "m", "x")}
    assert {group: released[f"score where sex is {group}"].rows for group in inside} == inside
    assert released["decision where sex is m"].rows == inside["m"]
    assert by_sex.checks == whole.checks + 2 * 3


def test_features_of_the_calendar_are_shown_and_not_judged() -> None:
    known = bundle_of(BINARY, MODEL)
    histograms = {name: of_numbers(np.arange(24.0)) for name in ("amount", "hour")}
    saved = msgspec.structs.replace(known, reference=Reference({}, {}, {}, histograms))
    columns = {column.name: column for column in of_bundle(saved, ["amount", "hour"])}

    assert {name: column.judged for name, column in columns.items()} == {"amount": True, "hour": False}
    assert verdict.checks_of(columns["hour"]) == 0


def test_segments_that_are_like_the_reference_are_quiet(bundle: Bundle, tmp_path: Path) -> None:
    week(tmp_path, bundle)
    found = segmented(tmp_path, bundle, "sex", "shop")

    assert not found.alarm
    assert len({each.what for each in found.findings}) == 5 + 2 * (3 + 2)


def test_other_segments_need_other_counts(bundle: Bundle, tmp_path: Path) -> None:
    monitored.log(tmp_path / "log", bundle, records(200, 1), FIRST)
    options = (tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out")
    first, second = invoke(*options), invoke(*options, "--segment", "shop")
    (tmp_path / "out" / "counts.json").unlink()
    third = invoke(*options, "--segment", "shop")

    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 2, 0)
    assert "counts.json: expected counts of amount, age, shop, score, decision, score where shop is" in second.stderr
    assert "Remove it, and everything is counted again." in second.stderr


def test_a_boolean_is_compared_too(bundle: Bundle, tmp_path: Path) -> None:
    week(tmp_path, bundle, shop=True)

    assert ("shop", "values", "release") in alarms(judged(tmp_path, bundle))


def test_changed_outcomes_are_found_with_labels_and_not_claimed_without(bundle: Bundle, tmp_path: Path) -> None:
    frame = week(tmp_path, bundle)
    frame["truth"] = frame.truth.sample(frac=1, random_state=0).to_numpy()

    without, with_labels = judged(tmp_path, bundle), judged(tmp_path, bundle, frame)
    assert alarms(without) == set()
    assert without.performance is None
    assert {what for what, *_ in alarms(with_labels)} == {
        "the error",
        *(f"the outcome of `{name}`" for name in NAMES),
    }
    assert with_labels.performance is not None
    assert "only labels show that" in with_labels.performance.sentence
    expected = {each.decision: (each.expected, each.hits) for each in with_labels.performance.decisions}
    assert expected["block"] == pytest.approx((0.87, frame.truth.eq("fraud").mean()), abs=0.05)


def test_blocked_records_without_labels_lead_to_no_false_claim(bundle: Bundle, tmp_path: Path) -> None:
    frame = week(tmp_path, bundle)
    report = judged(tmp_path, bundle, frame[scores(frame) < 0.7])
    block, error = (
        next(each for each in report.findings if each.what == what) for what in ("the outcome of `block`", "the error")
    )

    assert not report.alarm
    assert (block.note, block.rows, block.distance) == ("no claim: 0% of these records have a label", 0, None)
    assert error.note == ""
    assert error.reference is not None
    assert error.now is not None
    assert error.now < error.reference
    assert report.performance is not None
    assert [each.coverage for each in report.performance.decisions] == [0.0, 1.0, 1.0]
    assert {each.note for each in report.equity if each.measure == "true positive rate"} == {
        "shown only: labels are not there for all decisions alike",
        "not judged: fewer than 100 records",
    }


def test_few_labels_lead_to_no_claim(bundle: Bundle, tmp_path: Path) -> None:
    frame = week(tmp_path, bundle)
    frame["truth"] = "fraud"
    report = judged(tmp_path, bundle, frame.sample(frac=0.4, random_state=0))

    assert not report.alarm
    notes = [each.note for each in report.findings if each.of == "error"]
    assert notes[0] == "no claim: labels for less than 50% of the records of each decision"
    assert all("% of these records have a label" in note for note in notes[1:])


def test_metrics_are_scikit_learns(bundle: Bundle, tmp_path: Path) -> None:
    frame = records(3_000, 5)
    weights = np.where(scores(frame) >= 0.7, 1.0, 2.5)
    monitored.log(tmp_path / "log", bundle, frame, FIRST, weights=weights)
    report = judged(tmp_path, bundle, frame)
    true, fraud = frame.truth == "fraud", scores(frame)
    band = 2 - np.digitize(fraud, [0.3, 0.7])

    assert report.performance is not None
    metrics = report.performance.metrics
    assert metrics.auc == pytest.approx(roc_auc_score(true, fraud, sample_weight=weights), abs=1e-12)
    assert metrics.brier == pytest.approx(brier_score_loss(true, fraud, sample_weight=weights), abs=1e-12)
    matrix = confusion_matrix(true, fraud > 0.5, sample_weight=weights)
    assert metrics.error == pytest.approx((matrix[0, 1] + matrix[1, 0]) / matrix.sum(), abs=1e-12)
    by_band = [[weights[(band == at) & (true == hit)].sum() for hit in (False, True)] for at in range(3)]
    assert np.array([metrics.confusion[name] for name in NAMES]) == pytest.approx(np.array(by_band), abs=1e-9)
    assert sum(each[0] or 0.0 for each in metrics.deciles) == pytest.approx(weights.sum())


def test_equity_is_by_group_what_scikit_learn_says(bundle: Bundle, tmp_path: Path) -> None:
    frame = week(tmp_path, bundle)
    report = judged(tmp_path, bundle, frame)
    true, block = (frame.truth == "fraud").to_numpy(), scores(frame) >= 0.7
    shares = {(each.group, each.measure): each for each in report.equity if each.decision == "block"}

    assert {group for group, _ in shares} == {"f", "m", "x"}
    for group in ("f", "m", "x"):
        own = (frame.sex == group).to_numpy()
        of = {measure: shares[group, measure].share for measure in ("selection rate", "true positive rate")}
        assert of["selection rate"] == pytest.approx(block[own].mean(), abs=1e-12)
        assert of["true positive rate"] == pytest.approx(recall_score(true[own], block[own]), abs=1e-12)
        false = 1 - recall_score(~true[own], ~block[own])
        assert shares[group, "false positive rate"].share == pytest.approx(false, abs=1e-12)
        assert shares[group, "outcome"].share == pytest.approx(true[own & block].mean(), abs=1e-12)
    largest, other = shares["f", "selection rate"], shares["m", "selection rate"]
    assert (largest.ratio, largest.ratio_low, largest.ratio_high) == (1.0, 1.0, 1.0)
    assert other.ratio_low is not None
    assert other.ratio_high is not None
    assert other.ratio == pytest.approx(other.share / largest.share)  # type: ignore[operator]
    assert other.ratio_low < 1 < other.ratio_high
    assert not [each for each in report.equity if each.differs]
    assert shares["x", "outcome"].note == "not judged: fewer than 100 records"


@pytest.mark.parametrize("decision", NAMES)
def test_rates_by_group_are_fairlearns(bundle: Bundle, tmp_path: Path, decision: str) -> None:
    frame = records(3_000, 5)
    fraud = scores(frame)
    weights = np.where(fraud >= 0.7, 1.0, 2.5)
    monitored.log(tmp_path / "log", bundle, frame, FIRST, weights=weights)
    report = judged(tmp_path, bundle, frame)
    rates = {
        "selection rate": fairlearn.metrics.selection_rate,
        "true positive rate": fairlearn.metrics.true_positive_rate,
        "false positive rate": fairlearn.metrics.false_positive_rate,
    }
    theirs = fairlearn.metrics.MetricFrame(
        metrics=rates,
        y_true=frame.truth == "fraud",
        y_pred=2 - np.digitize(fraud, [0.3, 0.7]) == NAMES.index(decision),
        sensitive_features=frame.sex,
        sample_params={rate: {"sample_weight": weights} for rate in rates},
    ).by_group
    ours = {(each.group, each.measure): each for each in report.equity if each.decision == decision}

    for group in ("f", "m", "x"):
        for rate in rates:
            assert ours[group, rate].share == pytest.approx(theirs.loc[group, rate], abs=1e-12)
    ratio = theirs.loc["m", "selection rate"] / theirs.loc["f", "selection rate"]
    assert ours["m", "selection rate"].ratio == pytest.approx(ratio, abs=1e-12)


def test_a_sampled_log_says_as_much_of_one_decision_as_a_whole_one(bundle: Bundle, tmp_path: Path) -> None:
    frame = records(6_000, 6)
    weights = np.where(scores(frame) >= 0.7, 1.0, 5.0)
    monitored.log(tmp_path / "log", bundle, frame, FIRST, weights=weights)
    report = judged(tmp_path, bundle, frame)

    assert report.performance is not None
    for each in report.performance.decisions:
        assert each.hits is not None
        assert each.high - each.low < 0.15
        assert each.low < each.hits < each.high


def test_a_group_that_is_decided_on_differently_is_named_and_is_no_reason_to_retrain(
    bundle: Bundle, tmp_path: Path
) -> None:
    frame = records(6_000, 8)
    frame["sex"] = np.where(scores(frame) > np.random.default_rng(0).random(6_000), "m", "f")
    monitored.log(tmp_path / "log", bundle, frame, FIRST)
    done = invoke(tmp_path / "log", "--bundle", bundle.path)

    assert done.exit_code == 0
    assert "sex m: the selection rate of `block` is" in done.stdout


def test_decisions_are_worth_what_the_schema_says(bundle: Bundle, tmp_path: Path) -> None:
    early, late = records(500, 1), records(400, 2)
    monitored.log(tmp_path / "log", bundle, early, FIRST, weights=np.full(500, 2.0))
    monitored.log(tmp_path / "log", bundle, late, FIRST + 7, release="r2")
    report = judged(tmp_path, bundle, pd.concat([early, late]))

    def worth(frame: pd.DataFrame) -> float:
        fraud, known = frame.truth == "fraud", scores(frame)
        return float(3 * (~fraud & (known < 0.3)).sum() - 200 * (fraud & (known < 0.3)).sum()) - 20 * float(
            (~fraud & (known >= 0.7)).sum()
        )

    assert [(each.release, each.start, each.total) for each in report.worth] == [
        ("r1", None, 2 * worth(early)),
        ("r1", FIRST, 2 * worth(early)),
        ("r2", None, worth(late)),
        ("r2", FIRST + 7, worth(late)),
    ]
    assert report.worth[0].mean == pytest.approx(worth(early) / 500)


def counted(folder: Path, saved: Bundle) -> bytes:
    running = Run(Subject(saved, 0.05, Tolerances()), str(folder), None, None)
    running.read(lambda *_: None)
    return running.counts.kept("", [], [])


def test_counts_of_two_pods_add_up_to_those_of_one(bundle: Bundle, tmp_path: Path) -> None:
    frame = records(900, 3)
    weights = np.where(np.arange(900) % 3 == 0, 1.0, 10 / 3)
    monitored.log(tmp_path / "one", bundle, frame, FIRST, weights=weights)
    for at in range(2):
        monitored.log(tmp_path / f"pod{at}", bundle, frame[at::2], FIRST, weights=weights[at::2])
    whole, first, second = (counts.read(counted(tmp_path / name, bundle)) for name in ("one", "pod0", "pod1"))
    merged, other = (Subject(bundle, 0.05, Tolerances()).counts() for _ in range(2))
    merged.restore(first)
    other.restore(second)
    merged.merge(other)

    assert merged.kept("", [], []) == msgspec.json.encode(whole)
    assert merged.rows == 900
    assert merged.largest == 10 / 3


def test_a_run_goes_on_where_the_last_one_ended(bundle: Bundle, tmp_path: Path) -> None:
    monitored.log(tmp_path / "log", bundle, records(300, 1), FIRST)
    first = invoke(tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out")
    (kept,) = (tmp_path / "log").rglob("*.parquet")
    monitored.log(tmp_path / "log", bundle, records(200, 2), FIRST + 1)
    kept.write_bytes(b"not read again")
    second = invoke(tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out", "--json")

    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert json.loads(second.stdout)["records"] == 500
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(second.stdout)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "counts.json",
        "metrics.prom",
        "report.html",
        "report.json",
    ]


def test_the_page_has_the_verdict_first_and_a_plot_of_each_column(bundle: Bundle, tmp_path: Path) -> None:
    frame = week(tmp_path, bundle, age=1.0)
    made = page(judged(tmp_path, bundle, frame))

    assert '<h1><span class="FAIL">Retrain: age, the score, the decision' in made
    assert made.count("<svg") == made.count("</svg>") == 5 + 1
    assert [
        name for name in ("What records turned out to be", "Equity", "What decisions were worth") if name not in made
    ] == []
    assert "http" not in made
    assert "<script" not in made


def test_records_of_other_bundles_are_passed_over(bundle: Bundle, tmp_path: Path) -> None:
    monitored.log(tmp_path / "log", bundle, records(50, 1), FIRST, digest="sha256:other")
    none = invoke(tmp_path / "log", "--bundle", bundle.path)
    monitored.log(tmp_path / "log", bundle, records(40, 2), FIRST + 1)
    some = invoke(tmp_path / "log", "--bundle", bundle.path)

    assert (none.exit_code, some.exit_code) == (2, 0)
    assert f"50 records, none of {bundle.digest}. Give the bundle that was serving" in none.stderr
    assert some.stdout.startswith("Nothing could be judged yet.\n40 decisions of m 1, 2026-06-02 to 2026-06-02; 50 of")


def test_copies_for_a_shadow_are_left_out_of_all_figures(bundle: Bundle, tmp_path: Path) -> None:
    frame = records(3_000, 5)
    monitored.log(tmp_path / "log", bundle, frame, FIRST)
    alone = judged(tmp_path, bundle, frame)
    monitored.log(tmp_path / "log", bundle, frame[:900], FIRST, name="pod-2", source="shadow")
    both = judged(tmp_path, bundle, frame)
    first = invoke(tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out")
    monitored.log(tmp_path / "log", bundle, frame[:70], FIRST, name="pod-3", source="shadow")
    again = invoke(tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out")

    assert (both.records, both.shadows) == (3_000, 900)
    assert msgspec.structs.replace(both, shadows=0, made="") == msgspec.structs.replace(alone, made="")
    assert "3,000 decisions of m 1, 2026-06-01 to 2026-06-01; 900 copies for a shadow were left out" in first.stdout
    assert "; 970 copies for a shadow were left out" in again.stdout


def test_a_sampled_log_counts_by_weight(bundle: Bundle, tmp_path: Path) -> None:
    frame = records(20_000, 9)
    block, drawn = scores(frame) >= 0.7, np.random.default_rng(0).random(20_000)
    weights = np.where(block, 1.0, np.where(drawn < 0.2, 5.0, 0.0))
    monitored.log(tmp_path / "log", bundle, frame, FIRST, weights=weights)
    report = judged(tmp_path, bundle)
    found = next(each for each in report.findings if (each.what, each.window) == ("decision", "release"))
    same = monitored.log(tmp_path / "same", bundle, frame[weights > 0], FIRST)

    assert not report.alarm
    assert found.distance is not None
    assert found.distance < 0.02
    unweighted = invoke(same, "--bundle", bundle.path)
    assert unweighted.exit_code == 3
    assert "the decision" in unweighted.stdout.partition("\n")[0]


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """Takes events: its URL, what it was sent, and the statuses to answer with, 200 if there are none left."""
    taken: list[dict[str, Any]] = []
    statuses: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = statuses.pop(0) if statuses else 200
            if status == 200:
                taken.append({"content-type": self.headers["content-type"], **json.loads(body)})
            self.send_response(status)
            self.end_headers()

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append({"path": self.path, "page": body.decode()})
            self.send_response(statuses.pop(0) if statuses else 202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/retrain", taken, statuses
        server.shutdown()
        thread.join()


def test_each_alarm_is_told_once(
    bundle: Bundle, tmp_path: Path, listener: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    url, taken, statuses = listener
    week(tmp_path, bundle, age=1.0)
    options = (tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out", "--notify", url)
    statuses.append(503)
    first = invoke(*options)
    before = len(taken)
    monitored.log(tmp_path / "log", bundle, records(1_000, 77), FIRST + 7)
    second, third = invoke(*options), invoke(*options)

    assert (first.exit_code, second.exit_code, third.exit_code) == (3, 3, 3)
    assert "1 events were not taken; the next run sends them." in first.stderr
    assert url not in first.stderr
    assert len(taken) == before + 1 == 3
    assert len({each["id"] for each in taken}) == 3
    assert {each["subject"] for each in taken} == {"age", "score", "decision"}
    told = next(each for each in taken if each["subject"] == "age")
    assert (told["specversion"], told["type"]) == ("1.0", "tabserve.retrain.v1")
    assert told["content-type"] == "application/cloudevents+json"
    assert told["data"]["digest"] == bundle.digest
    assert told["data"]["distance"] - told["data"]["bound"] > told["data"]["tolerance"] == 0.1
    assert told["data"]["report"].endswith("out/report.json")


def samples(text: str) -> dict[str, float]:
    """Each sample of a page of metrics, as `name` or `name label label …`."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    order = ("what", "of", "measure", "window", "name", "version", "digest")
    return {
        " ".join([each.name, *(each.labels[label] for label in order if label in each.labels)]): each.value
        for each in found
    }


def test_metrics_are_written_and_pushed(
    bundle: Bundle, tmp_path: Path, listener: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    url, taken, _ = listener
    week(tmp_path, bundle, age=1.0)
    report = judged(tmp_path, bundle)
    options = ("--out", tmp_path / "out", "--push", url, "--exit-zero", "--digest", bundle.digest)
    done = invoke(tmp_path / "log", "--bundle", bundle.path, *options)
    (pushed,) = taken
    found = samples(pushed["page"])
    newest = {(each.what, each.measure, each.window): each for each in report.findings}

    assert (done.exit_code, pushed["path"]) == (0, "/retrain")
    assert (tmp_path / "out" / "metrics.prom").read_text() == pushed["page"]
    assert found[f"tabserve_monitor_info {bundle.manifest.name} {bundle.manifest.version} {bundle.digest}"] == 1
    assert found["tabserve_monitor_records"] == 7_000
    for window in ("day", "week", "release"):
        finding = newest["age", "values", window]
        given = [
            found[f"tabserve_monitor_{name} age feature values {window}"] for name in ("distance", "bound", "tolerance")
        ]
        assert given == [finding.distance, finding.bound, 0.1]
    assert {name.split()[1] for name, value in found.items() if "alarm" in name and value} == {
        "age",
        "score",
        "decision",
    }
    assert found["tabserve_monitor_alarm amount feature values"] == 0


def test_metrics_that_are_not_taken_end_with_status_2_after_all_else(
    bundle: Bundle, tmp_path: Path, listener: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    url, _, statuses = listener
    monitored.log(tmp_path / "log", bundle, records(200, 1), FIRST)
    statuses.append(500)
    options = (tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out", "--push")
    wrong = invoke(*options, "http://name:secret@a:b")
    refused, again = invoke(*options, url), invoke(*options, url)

    assert [each.exit_code for each in (wrong, refused, again)] == [2, 2, 0]
    assert "a:b did not take the metrics: no such URL" in wrong.stderr
    assert "did not take the metrics: HTTP Error 500" in refused.stderr
    assert "secret" not in wrong.stderr
    assert (tmp_path / "out" / "counts.json").exists()


def test_events_that_no_server_can_take_are_sent_by_the_next_run(bundle: Bundle, tmp_path: Path) -> None:
    week(tmp_path, bundle, age=1.0)
    options = (tmp_path / "log", "--bundle", bundle.path, "--out", tmp_path / "out", "--notify", "http://a:b")
    done = invoke(*options)

    assert done.exit_code == 3, done.output
    assert "events were not taken; the next run sends them." in done.stderr


def test_an_alarm_has_the_same_id_in_every_window_and_another_for_another_bundle() -> None:
    finding = Finding("age", "feature", "values", "day", 1, 2, 500, 0.3, 0.1, 0.1, True)
    later = msgspec.structs.replace(finding, window="week", start=7, end=14)

    assert finding.alarm_id("sha256:a") == later.alarm_id("sha256:a")
    others = {finding.alarm_id("sha256:b"), msgspec.structs.replace(finding, measure="missing").alarm_id("sha256:a")}
    assert finding.alarm_id("sha256:a") not in others
    assert len(others) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--notify", "http://127.0.0.1:9"], "--notify: needs --out"),
        (["--notify", "file:///etc", "--out", "{folder}/out"], "--notify: expected http:// or https://"),
        (["--push", "pushgateway:9091"], "--push: expected http:// or https://"),
        (["--digest", "sha256:0"], "expected digest sha256:0, got sha256:"),
        (
            ["--segment", "amount"],
            "--segment: expected a category or boolean that is logged, got 'amount'; there is shop,",
        ),
        (["--tolerance", "score"], "--tolerance: expected NAME=NUMBER, got 'score'"),
        (["--tolerance", "speed=0.1"], "--tolerance: expected score, feature, error from 0 to below 1"),
        (["--labels", "{folder}/none"], "none: no Parquet or CSV files. Give a file or folder"),
        (["--labels", "{folder}/wrong.csv"], "wrong.csv: labels: expected genuine or fraud, got 'bad'. Correct"),
        (["--labels", "{folder}/bare.csv"], "bare.csv: expected the columns id, label and time, got key."),
        (["--labels", "{folder}/when.csv"], "when.csv: time: expected ISO 8601 times, got 'noon'."),
        (["--labels", "{folder}/never.csv"], "never.csv: time: expected ISO 8601 times, got None."),
        (["--out", "{folder}/cut"], "counts.json: expected"),
    ],
)
def test_what_cannot_be_used_ends_with_status_2(
    bundle: Bundle, tmp_path: Path, options: list[str], message: str
) -> None:
    monitored.log(tmp_path / "log", bundle, records(200, 1).assign(age=9.0), FIRST)
    (tmp_path / "wrong.csv").write_text("id,label\nk1-0,bad\n")
    (tmp_path / "bare.csv").write_text("key\n1\n")
    (tmp_path / "when.csv").write_text("id,label,time\nk1-0,fraud,noon\n")
    (tmp_path / "never.csv").write_text("id,label,time\nk1-0,fraud,\n")
    (tmp_path / "cut").mkdir()
    days = {"1": {"1.0": [1]}}
    (tmp_path / "cut" / "counts.json").write_bytes(msgspec.json.encode(Kept(1, bundle.digest, [], days, 0, [])))
    done = invoke(tmp_path / "log", "--bundle", bundle.path, *(each.format(folder=tmp_path) for each in options))

    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_a_folder_without_decision_records_ends_with_status_2(bundle: Bundle, tmp_path: Path) -> None:
    empty = invoke(tmp_path, "--bundle", bundle.path)
    monitored.labels(tmp_path / "labels.parquet", records(10, 1))
    other = invoke(tmp_path, "--bundle", bundle.path)
    (tmp_path / "labels.parquet").write_bytes(b"PAR1")
    broken = invoke(tmp_path, "--bundle", bundle.path)

    assert [each.exit_code for each in (empty, other, broken)] == [2, 2, 2]
    assert "holds no decision records. Name the folder" in empty.stderr
    assert "holds no decision records, but another table" in other.stderr
    assert "cannot be read as Parquet" in broken.stderr


def test_a_regression_is_judged_by_how_many_values_are_far_off(tmp_path: Path) -> None:
    schema = "task: regression\nid: key\nrecord: [{name: amount, type: number}]\nfeatures: [amount]\n"
    (tmp_path / "schema.yaml").write_text(schema)
    train, test, now = (records(count, count) for count in (500, 2_000, 1_000))
    noise = np.random.default_rng(0).normal(0, 1, 2_000)
    saved = tabserve.train.save(
        LinearRegression().fit(tabserve.train.features(tmp_path / "schema.yaml", train), train.amount),
        tmp_path / "bundle", name="r", version="1", schema=tmp_path / "schema.yaml", sample=train,
        held_out=test, labels=test.amount + noise,
    )  # fmt: skip
    values = now.amount.to_numpy()
    entry = Entry(
        request_id="q", time=FIRST * 86_400.0, rows=1, engine="sklearn", versions="", release="", digest=saved.digest,
        columns={"amount": values}, outputs={"predict": values}, answers={"score": values},
        ids=now["key"].to_numpy(object),
    )  # fmt: skip
    (tmp_path / "log").mkdir()
    pq.write_table(record.table([entry], [np.ones(1_000)], record.schema(saved)), tmp_path / "log" / "a.parquet")
    same, wider = (judged(tmp_path, saved, now.assign(truth=values + by * noise[:1_000])) for by in (1, 3))

    assert not same.alarm
    assert alarms(wider) == {("the error", "error", "release"), ("how many are far off", "outcome", "release")}
    assert wider.performance is not None
    assert wider.performance.metrics.error == pytest.approx(0.55, abs=0.1)


def test_the_latest_label_of_a_record_counts(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,label,time\nx,fraud,2026-06-03\ny,fraud,2026-06-01\nz,1,2026-06-01\n")
    (tmp_path / "b.csv").write_text("id,label,time\nx,genuine,2026-06-02\ny,genuine,2026-06-02\nw,,2026-06-01\n")
    truths = reading.Truths(bundle)
    truths.read(str(tmp_path))
    which, values = truths.of(["w", "x", "y", "z"])

    assert truths.count == 3
    assert dict(zip(which.tolist(), values.tolist(), strict=True)) == {1: 1.0, 2: 0.0, 3: 1.0}


def test_a_bundle_without_held_out_records_raises_no_alarm_for_scores_and_says_so(tmp_path: Path) -> None:
    train = records(2_000, 1)
    saved = monitored.bundle(tmp_path, held_out=None, labels=train.truth)
    frame = week(tmp_path, saved, age=1.0)
    frame["truth"] = "fraud"
    report = judged(tmp_path, saved, frame)

    assert {what for what, *_ in alarms(report)} == {"age"}
    assert "a reference that the model was not trained on" in report.missing[0]
    assert {each.note for each in report.findings if each.of in ("score", "decision")} == {
        "shown only: the bundle was saved without held-out records"
    }


def test_an_old_bundle_is_compared_by_its_features_and_says_what_is_missing(tmp_path: Path) -> None:
    saved = monitored.bundle(tmp_path)
    path = saved.path / "reference.npz"
    arrays = {name: array for name, array in np.load(path).items() if not name.startswith("evaluation/")}
    np.savez(path, **{**arrays, "bounds/shop": np.array([0.0, 1.0]), "counts/shop": np.array([2_000])})
    resealed(saved.path)
    old = load(saved.path)
    frame = week(tmp_path, old, age=1.0)
    report = judged(tmp_path, old, frame)

    assert {what for what, *_ in alarms(report)} == {"age"}
    assert report.missing == [
        "the reference's scores and decisions: save the bundle with held_out=… and labels=… (tabserve.train.save)",
        "the reference's errors, and the calibration of scores: save the bundle with held_out=… and labels=… "
        "(tabserve.train.save)",
        "bins that could show a change of shop: save the bundle again",
    ]
    assert report.performance is not None
    assert report.performance.metrics.auc is not None


def test_a_field_that_is_not_logged_is_named(tmp_path: Path) -> None:
    saved = monitored.bundle(
        tmp_path,
        schema=SCHEMA.replace("amount, type: number", "amount, type: number, logged: drop").replace(
            "use: audit", "use: audit, logged: hash"
        ),
    )
    week(tmp_path, saved, age=1.0)
    report = judged(tmp_path, saved)

    assert report.missing == [
        "features whose fields are not kept in the log: amount",
        "audited fields that are not kept in the log: sex",
    ]
    assert report.equity == []
    assert {each.what for each in report.findings if each.of == "feature"} == {"age", "shop"}


@pytest.mark.filterwarnings("ignore:ks_2samp")
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=60),
    st.lists(st.floats(-4, 4) | st.none(), min_size=1, max_size=60),
)
def test_a_distance_is_at_most_kolmogorovs_and_smirnovs(first: list[float], second: list[float | None]) -> None:
    histogram = of_numbers(np.array(first))
    cells = np.array([0, *histogram.counts, 0, 0])
    column = Column("x", "feature", cells, histogram.bounds)
    given = np.array([np.nan if each is None else each for each in second])
    found = np.bincount(column.cells(given), minlength=column.size)
    present = given[~np.isnan(given)]

    assert found.sum() == len(given)
    assert found[-1] == np.isnan(given).sum()
    assert (np.bincount(column.cells(np.array(first)), minlength=column.size) == cells).all()
    whole = stats.ks_2samp(first, present).statistic if len(present) else np.nan
    assert not column.distance(found, cells) > whole + 1e-12


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abc"), min_size=1))
def test_a_categorys_distance_is_the_largest_difference_of_any_set(first: list[str], second: list[str]) -> None:
    column = Column("x", "feature", np.array([0, 0, 0, 0]), values=("a", "b", "c"))
    one, two = (np.bincount(column.cells(np.array(each, object)), minlength=4) for each in (first, second))
    sets = [tuple(at for at in range(3) if number >> at & 1) for number in range(8)]
    differences = [
        sum(one[at] for at in some) / len(first) - sum(two[at] for at in some) / len(second) for some in sets
    ]

    assert column.distance(one, two) == pytest.approx(max(map(abs, differences)))
    assert np.exp(column.log_events) == pytest.approx(len(sets) / 2)


def test_simulated_years_without_a_change_have_no_alarm_and_changes_are_found(bundle: Bundle) -> None:
    subject = Subject(bundle, 0.05, Tolerances())
    random = np.random.default_rng(0)
    age = next(each for each in subject.columns if each.name == "age")
    found = [simulate.alarms(age, subject.rules, 300, 20, random, shift=size) for size in (0.0, 0.2, 0.4)]

    assert simulate.false_alarms(subject, 300, 300, 20, 0) <= 0.05
    assert [each.share for each in found] == [0.0, 1.0, 1.0]
    late, early = found[1].day(0.5), found[2].day(0.5)
    assert late is not None
    assert early is not None
    assert early < late
    assert simulate.errors(subject, 300, 20, random, 0.15).share == 1.0
    assert simulate.outcomes(subject, 0, 300, 20, random, 0.2).share == 1.0


def test_a_change_in_a_segment_is_simulated(bundle: Bundle) -> None:
    subject, random = Subject(bundle, 0.05, Tolerances(), ("shop",)), np.random.default_rng(0)
    inside = next(each for each in subject.columns if each.name == "score where shop is true")
    same, shifted = (simulate.alarms(inside, subject.rules, 300, 20, random, shift=size) for size in (0.0, 0.3))

    assert (same.share, shifted.share) == (0.0, 1.0)


def test_the_simulation_prints_a_table(bundle: Bundle) -> None:
    done = invoke("simulate", "--bundle", bundle.path, "--rows-per-day", 500, "--years", 20)

    assert done.exit_code == 0, done.output
    first, second, *table = done.stdout.splitlines()
    assert first == "500 rows a day, looked at daily for a year, 9 checks, 20 simulated years"
    assert second == "without a change: an alarm in 0.0% of the years; at most 5% ever"
    assert [line for line in table if line.startswith("`shop` shifted") and "0.30" in line]
    assert [line for line in table if line.startswith("the error") and "0.10" in line]


def test_windows_are_the_last_days_and_weeks_and_the_release() -> None:
    found = list(verdict.windows(FIRST, FIRST + 30))

    assert [each[:2] for each in found if each[0] == "day"] == [("day", number) for number in range(18, 32)]
    assert [each for each in found if each[0] == "week"] == [
        ("week", 4, FIRST + 21, FIRST + 28),
        ("week", 5, FIRST + 28, FIRST + 35),
    ]
    assert found[-1] == ("release", 1, FIRST, FIRST + 31)
    part = verdict.window_alpha("release", 1, 0.03)
    assert part == pytest.approx(0.01)
    assert verdict.window_alpha("day", 10, 0.03) < part / 100
