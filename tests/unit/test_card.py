"""A model's card says what its bundle holds, how good it was, and what is not known; the same each time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sklearn.linear_model import LinearRegression
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from tabserve.bundle import Bundle, BundleError, load
from tabserve.card import contents, quality
from tabserve.card.contents import Distribution
from tabserve.card.page import caption, page
from tabserve.cli import main
from tabserve.pages import charts
from tabserve.scoring import Scorer
from tests.unit import monitored
from tests.unit.bundles import saved, target
from tests.unit.monitored import records

USE = "Says which payments a person should look at.\n\nNobody is refused by it alone."
LIMITS = "Trained on payments of adults <18 to 80>."
DESCRIBED = f"intended_use: {json.dumps(USE)}\nlimits: {json.dumps(LIMITS)}\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("card")
    return monitored.bundle(folder, schema=DESCRIBED + monitored.SCHEMA)


def invoke(*options: object) -> Result:
    return CliRunner().invoke(main, ["bundle", "card", *map(str, options)])


def labelled(path: Path) -> tuple[Path, pd.DataFrame]:
    """A file of records with what they turned out to be, and the records."""
    frame = records(1_500, 31)
    frame.rename(columns={"truth": "fraudulent"}).to_csv(path, index=False)
    return path, frame


def test_a_card_with_labels(bundle: Bundle, tmp_path: Path) -> None:
    path, frame = labelled(tmp_path / "late.csv")
    done = invoke(bundle.path, "--labels", path, "--label", "fraudulent", "--out", tmp_path / "out")

    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["format"], card["name"], card["digest"]) == (1, "m", bundle.digest)
    assert (card["intended_use"], card["limits"], card["missing"]) == (USE, LIMITS, [])
    assert card["proof"][-1]["check"] == "model"
    assert {each["ok"] for each in card["proof"]} == {True}
    assert [(each["label"], each["low"], each["high"]) for each in card["bands"]] == [
        ("accept", None, 0.3),
        ("review", 0.3, 0.7),
        ("block", 0.7, None),
    ]
    assert card["files"] == json.loads((bundle.path / "bundle.json").read_text())["files"]
    assert sum(card["histograms"]["amount"]["counts"]) == 2_000
    at_save, late = card["quality"]
    assert (at_save["of"], at_save["rows"], at_save["held_out"]) == (quality.SAVED, 8_000, True)
    assert (late["of"], late["rows"]) == ("late.csv", 1_500)
    assert_page(tmp_path / "out" / "card.html", frame)


def assert_page(path: Path, frame: pd.DataFrame) -> None:
    """The page has all of it, is escaped, and refers to nothing outside."""
    text = path.read_text()
    assert "<p>Nobody is refused by it alone.</p>" in text
    assert "adults &lt;18 to 80&gt;." in text
    wanted = ("Decisions", "Record", "Training data", "How good the answers are", "Equity", "Engines", "Proof")
    assert [name for name in wanted if f"<h2>{name}</h2>" not in text] == []
    assert "What is missing" not in text
    assert f"{len(frame):,} records, on which the model was not trained" in text
    assert text.count("<svg") == text.count("</svg>") == 1 + 3 + 2
    assert "http" not in text
    assert "<script" not in text


def test_its_figures_are_scikit_learns(bundle: Bundle, tmp_path: Path) -> None:
    path, frame = labelled(tmp_path / "late.csv")
    found = quality.measured(bundle, path, "fraudulent", 0.05)
    true, own = (frame.truth == "fraud").to_numpy(), (frame.sex == "f").to_numpy()
    fraud, metrics = scores_of(bundle, frame), found.quality.metrics
    block = fraud >= 0.7
    shares = {(each.group, each.measure): each.share for each in found.equity if each.decision == "block"}

    assert metrics is not None
    assert metrics.auc == pytest.approx(roc_auc_score(true, fraud), abs=1e-12)
    wrong = confusion_matrix(true, fraud > 0.5)[[0, 1], [1, 0]].sum()
    assert metrics.error == wrong / len(frame)
    assert shares["f", "selection rate"] == pytest.approx(block[own].mean(), abs=1e-12)
    assert shares["f", "true positive rate"] == pytest.approx(recall_score(true[own], block[own]), abs=1e-12)
    assert shares["f", "outcome"] == pytest.approx(true[own & block].mean(), abs=1e-12)
    assert found.quality.decisions["block"] == block.sum()


def scores_of(saved_as: Bundle, frame: pd.DataFrame) -> Any:
    """The model's own scores, in process."""
    given = pa.RecordBatch.from_pandas(frame, preserve_index=False)
    return Scorer(saved_as.path).score(given).decided.column("score").to_numpy()


def test_a_card_says_what_is_missing_and_is_the_same_each_time(tmp_path: Path) -> None:
    bare = monitored.bundle(tmp_path, held_out=None, labels=None)
    first, second = (contents.encoded(contents.of_bundle(load(bare.path), [], None)) for _ in range(2))
    card = json.loads(first)

    assert first == second
    assert (card["quality"], card["equity"]) == ([], [])
    assert [each.partition(":")[0] for each in card["missing"]] == [
        "intended use",
        "limits",
        "how good the answers are on records that the model was not trained on",
        "equity",
    ]


def test_a_regression_has_one_too(tmp_path: Path) -> None:
    values = target("regression")
    found = saved(LinearRegression(), tmp_path, "regression", labels=values)
    (tmp_path / "few.csv").write_text("amount,age,value\n10,20,2.5\n30,40,2.25\n")
    measured = quality.measured(found, tmp_path / "few.csv", "value", 0.05)

    assert "nine in ten errors are below" in page(contents.of_bundle(found, [], measured))
    assert (measured.quality.rows, measured.equity) == (2, [])


def test_a_bundle_that_does_not_pass_its_check_has_no_card(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "reference.npz").write_bytes(b"other")
    done = invoke(copy)

    assert done.exit_code == 1
    assert "reference.npz" in done.stderr
    assert "`tabserve bundle check` passes" in done.stderr


def test_a_bundle_that_nobody_signed_has_no_card_for_those_who_verify(bundle: Bundle, tmp_path: Path) -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = tmp_path / "own.pub"
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = invoke(bundle.path, "--verify", key)

    assert done.exit_code == 1
    assert "bundle.sig" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("key,amount\n1,2\n", "late.csv: expected records with the column 'label', got key, amount"),
        ("key,label\n1,fraud\n", "late.csv: held_out: does not fit the schema"),
        ("key,amount,age,shop,label\n1,2,3,true,bad\n", "late.csv: labels: expected genuine or fraud, got 'bad'"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(bundle: Bundle, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "late.csv"
    path.write_text(content)
    with pytest.raises(BundleError) as caught:
        quality.measured(load(bundle.path), path, "label", 0.05)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Distribution([0.0, 5e-324, 1.0], [], [6, 4], 0), "0 to 1, half up to 0"),
        (Distribution([0.0, 2.0, 10.0], [], [4, 6], 10), "0 to 10, half up to 10, 50.0% missing"),
        (Distribution([], ["a", "b"], [1, 2], 1), "25.0% missing"),
        (Distribution([], [], [], 3), "100.0% missing"),
    ],
)
def test_distributions_in_words(found: Distribution, expected: str) -> None:
    assert caption(found) == expected


def test_a_frequent_whole_number_has_a_column_of_its_own() -> None:
    edges = [0.0, 2.0, np.nextafter(2.0, 9), 5.0]
    drawn = charts.whole("rooms", edges, [40, 30, 30])

    assert re.findall(r"<title>(\d): ([\d.]+%)", drawn) == [
        ("0", "20.0%"), ("1", "20.0%"), ("2", "30.0%"), ("3", "10.0%"), ("4", "10.0%"), ("5", "10.0%"),
    ]  # fmt: skip
    assert "0 to" in charts.whole("millions", [0.0, 1e6], [10])


def test_numbers_far_beyond_the_others_are_not_drawn() -> None:
    drawn = charts.density("amount", [0.0, 10.0, 20.0, 1e6], [48, 48, 4])
    shares = [float(share) for share in re.findall(r": ([\d.]+)%</title>", drawn)]

    assert sum(shares) == pytest.approx(96, abs=1)
    assert drawn.count("<rect") == 40
