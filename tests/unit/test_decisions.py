"""Predictor outputs to decisions, scores, labels and reasons."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.arrays import Array
from tabserve.bundle.manifest import FeatureSpec
from tabserve.inference.errors import PredictionFailed
from tabserve.schema import ranges
from tabserve.schema.decisions import CODES, Decisions
from tabserve.schema.schema import Band, Decision, Field, Outputs, Reasons, Schema

RECORD = (Field("amount", "number"), Field("country", "category", values=("DE", "FR")), Field("age", "number"))
FEATURES = tuple(FeatureSpec(field.name, "number", source=field.name) for field in RECORD)
BANDS = (Band(0.9, "block"), Band(0.4, "review"), Band(0.0, "accept"))
EVERYTHING = ("decision", "score", "label", "reasons")


class Model(NamedTuple):
    """The model's facts that decisions use."""

    features: tuple[FeatureSpec, ...]
    outputs: tuple[str, ...]
    likeliest: bool


def decisions(
    task: Any = "binary",
    classes: tuple[str, ...] = ("accept", "fraud"),
    decision: Decision | None = None,
    reasons: Reasons | None = None,
    features: tuple[FeatureSpec, ...] = FEATURES,
    *,
    likeliest: bool = True,
) -> Decisions:
    outputs = Outputs(classes=classes, decision=decision, reasons=reasons)
    model = Model(features, ("predict", "predict_proba", "margin") if classes else ("predict",), likeliest)
    return Decisions(Schema(task, RECORD, ("amount", "country", "age"), outputs), model, classes)


def probabilities(*fraud: float, dtype: type[np.floating] = np.float32) -> dict[str, Array]:
    second = np.array(fraud, dtype)
    return {"predict_proba": np.stack([1 - second, second], axis=1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_score_on_a_bands_edge_is_in_the_band(dtype: type[np.floating]) -> None:
    made = decisions(decision=Decision("fraud", BANDS)).decide(
        probabilities(0.0, 0.3999, 0.4, 0.8999, 0.9, 1.0, dtype=dtype), EVERYTHING
    )
    assert made["decision"].tolist() == ["accept", "accept", "review", "review", "block", "block"]
    assert made["score"].dtype == np.float64


def test_the_score_may_be_of_the_first_class() -> None:
    made = decisions(decision=Decision("accept", BANDS)).decide(probabilities(0.25, 0.75), EVERYTHING)
    assert made["score"].tolist() == [0.75, 0.25]
    assert made["decision"].tolist() == ["review", "accept"]
    assert made["label"].tolist() == ["accept", "fraud"]


def test_without_bands_the_decision_is_the_likeliest_class() -> None:
    made = decisions(decision=Decision("fraud")).decide(probabilities(0.25, 0.5, 0.75), EVERYTHING)
    assert made["decision"].tolist() == ["accept", "accept", "fraud"]
    assert made["score"].tolist() == [0.25, 0.5, 0.75]


def test_without_a_decision_the_score_is_the_likeliest_classs_probability() -> None:
    made = decisions("multiclass", ("a", "b", "c")).decide(
        {"predict_proba": np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])}, EVERYTHING
    )
    assert made["decision"].tolist() == made["label"].tolist() == ["a", "c"]
    assert made["score"].tolist() == [0.5, 0.75]


def test_a_regressions_score_is_its_value() -> None:
    bands = (Band(100.0, "high"), Band(-math.inf, "low"))
    made = decisions("regression", (), Decision("predict", bands)).decide(
        {"predict": np.array([99.5, 100.0, -1e30])}, EVERYTHING
    )
    assert made["score"].tolist() == [99.5, 100.0, -1e30]
    assert made["decision"].tolist() == ["low", "high", "low"]
    assert "label" not in made


def test_a_regression_without_bands_has_a_score_and_no_decision() -> None:
    made = decisions("regression", ())
    assert made.names == ("score",)
    assert set(made.decide({"predict": np.array([1.0])}, EVERYTHING)) == {"score"}


@pytest.mark.parametrize(
    ("made", "outputs"),
    [
        (decisions("regression", ()), {"predict": np.array([1.0, np.nan])}),
        (decisions(), {"predict_proba": np.array([[np.nan, np.nan]])}),
    ],
)
def test_a_score_that_is_no_number_is_a_failed_prediction(made: Decisions, outputs: dict[str, Array]) -> None:
    with pytest.raises(PredictionFailed):
        made.decide(outputs, ("score",))


def test_what_the_predictor_is_asked_for_depends_on_what_is_wanted() -> None:
    made = decisions(decision=Decision("fraud", BANDS), reasons=Reasons())
    assert made.names == ("decision", "score", "reasons")
    assert made.needs(("decision", "score")) == ("predict_proba",)
    assert made.needs(made.names) == ("predict_proba", "contributions")
    assert made.needs(()) == ()
    assert decisions("regression", ()).needs(("score",)) == ("predict",)


def test_reasons_are_the_strongest_pushes_up_in_words() -> None:
    made = decisions(decision=Decision("fraud"), reasons=Reasons(2, {"amount": "unusual amount"})).decide(
        probabilities(0.9, 0.9, 0.9)
        | {"contributions": np.array([[0.1, 0.5, 0.2, 9.0], [0.3, -0.5, 0.0, 9.0], [-1.0, -2.0, -3.0, 9.0]])},
        EVERYTHING,
    )
    assert made["reasons"].tolist() == [["country", "age"], ["unusual amount", ""], ["", ""]]


def test_every_reason_has_a_code_or_the_features_name() -> None:
    made = decisions(decision=Decision("fraud", BANDS), reasons=Reasons(2, codes={"age": "A07"}, for_=("block",)))
    contributions = {"contributions": np.array([[0.1, 0.5, 0.7, 9.0]])}
    told = made.decide(probabilities(0.95, 0.1) | contributions, (*EVERYTHING, CODES))
    assert told["codes"].tolist() == [["A07", "country"], ["", ""]]
    assert told["reasons"].tolist() == [["age", "country"], ["", ""]]


def test_reasons_for_the_first_class_of_two_are_the_pushes_down() -> None:
    made = decisions(decision=Decision("accept"), reasons=Reasons(2))
    contributions = np.array([[0.1, -0.5, -0.2, 9.0]])
    reasons = made.decide(probabilities(0.1) | {"contributions": contributions}, EVERYTHING)["reasons"]
    assert reasons.tolist() == [["country", "age"]]


def test_reasons_without_a_decision_are_for_each_rows_likeliest_class() -> None:
    contributions = np.array([[0.1, -0.5, 0.0, 9.0], [0.1, -0.5, 0.0, 9.0]])
    made = decisions(reasons=Reasons(1)).decide(probabilities(0.1, 0.9) | {"contributions": contributions}, EVERYTHING)
    assert made["reasons"].tolist() == [["country"], ["amount"]]


@pytest.mark.parametrize(
    ("decision", "expected"), [(None, [["age"], ["amount"]]), (Decision("c"), [["country"], ["amount"]])]
)
def test_reasons_of_many_classes_are_those_of_the_scored_class(
    decision: Decision | None, expected: list[list[str]]
) -> None:
    contributions = np.zeros((2, 3, 4))
    contributions[0, 0, 2] = contributions[0, 2, 1] = contributions[1, 2, 0] = 1.0
    outputs = {"predict_proba": np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]), "contributions": contributions}
    made = decisions("multiclass", ("a", "b", "c"), decision, Reasons(1)).decide(outputs, EVERYTHING)
    assert made["reasons"].tolist() == expected


def test_contributions_are_summed_over_the_features_of_one_source() -> None:
    features = (
        FeatureSpec("country_DE", "number", source="country"),
        FeatureSpec("amount", "number", source="amount"),
        FeatureSpec("country_FR", "number", source="country"),
        FeatureSpec("mixed", "number", source=""),
    )
    made = decisions(decision=Decision("fraud"), reasons=Reasons(5, {"country": "where"}), features=features)
    contributions = np.array([[0.3, 0.5, 0.3, 0.1, 9.0], [0.3, 0.5, -0.4, -0.1, 9.0]])
    reasons = made.decide(probabilities(0.9, 0.9) | {"contributions": contributions}, EVERYTHING)["reasons"]
    assert reasons.tolist() == [["where", "amount", "mixed"], ["amount", "", ""]]
    assert [spec.shape for spec in made.specs if spec.name == "reasons"] == [(-1, 3)]


SOME = Reasons(2, for_=("block", "review"))
CONTRIBUTIONS = np.array([[0.3, -0.5, 0.1, 9.0], [0.3, 0.5, 0.0, 9.0], [0.0, 0.0, 0.2, 9.0]])


def test_reasons_for_some_bands_need_the_contributions_of_their_rows_alone() -> None:
    made = decisions(decision=Decision("fraud", BANDS), reasons=SOME)
    outputs = probabilities(0.5, 0.1, 0.95)
    assert made.needs(EVERYTHING) == ("predict_proba",)
    explained = made.explained(outputs)
    assert explained is not None
    assert explained.tolist() == [0, 2]
    alone = made.decide(outputs | {"contributions": CONTRIBUTIONS[explained]}, EVERYTHING)
    whole = made.decide(outputs | {"contributions": CONTRIBUTIONS}, EVERYTHING)
    assert alone["reasons"].tolist() == whole["reasons"].tolist() == [["amount", "age"], ["", ""], ["age", ""]]


def test_reasons_for_some_bands_need_nothing_where_no_row_is_in_one() -> None:
    made = decisions(decision=Decision("fraud", BANDS), reasons=SOME)
    outputs = probabilities(0.1, 0.2)
    explained = made.explained(outputs)
    assert explained is not None
    assert explained.tolist() == []
    assert made.decide(outputs, EVERYTHING)["reasons"].tolist() == [["", ""], ["", ""]]


def test_reasons_for_all_bands_are_of_every_row() -> None:
    assert decisions(decision=Decision("fraud", BANDS), reasons=Reasons()).explained(probabilities(0.5)) is None


def test_reasons_for_bands_of_a_regression_and_of_many_classes() -> None:
    high = Reasons(1, for_=("high",))
    bands = (Band(10.0, "high"), Band(-math.inf, "low"))
    regression = decisions("regression", (), Decision("predict", bands), high)
    made = regression.decide({"predict": np.array([11.0, 9.0]), "contributions": CONTRIBUTIONS[:1]}, EVERYTHING)
    assert made["reasons"].tolist() == [["amount"], [""]]
    bands = (Band(0.5, "high"), Band(0.0, "low"))
    contributions = np.zeros((1, 3, 4))
    contributions[0, 2, 1] = 1.0
    many = decisions("multiclass", ("a", "b", "c"), Decision("c", bands), high)
    outputs = {"predict_proba": np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]), "contributions": contributions}
    assert many.decide(outputs, EVERYTHING)["reasons"].tolist() == [[""], ["country"]]


def test_no_rows_are_no_decisions() -> None:
    made = decisions(decision=Decision("fraud", BANDS), reasons=Reasons()).decide(
        {"predict_proba": np.empty((0, 2)), "contributions": np.empty((0, 4))}, EVERYTHING
    )
    assert {name: array.shape for name, array in made.items()} == {
        "score": (0,),
        "label": (0,),
        "decision": (0,),
        "reasons": (0, 3),
    }


@given(
    st.lists(st.tuples(st.floats(0, 1), st.lists(st.floats(-5, 5), min_size=4, max_size=4)), min_size=1, max_size=20)
)
def test_a_row_is_decided_the_same_alone_and_among_others(rows: list[tuple[float, list[float]]]) -> None:
    made = decisions(decision=Decision("fraud", BANDS), reasons=Reasons(2))
    outputs = probabilities(*(fraud for fraud, _ in rows)) | {"contributions": np.array([row for _, row in rows])}
    together = made.decide(outputs, EVERYTHING)
    for index in range(len(rows)):
        alone = made.decide({name: array[index : index + 1] for name, array in outputs.items()}, EVERYTHING)
        assert {name: array.tolist() for name, array in alone.items()} == {
            name: array[index : index + 1].tolist() for name, array in together.items()
        }


def test_the_label_is_the_class_that_the_model_predicts_and_the_score_its_probability() -> None:
    made = decisions(likeliest=False)
    assert made.needs(("decision",)) == ("predict_proba", "label")
    told = made.decide(probabilities(0.25, 0.75) | {"label": np.array([b"fraud", "accept"], object)}, EVERYTHING)
    assert told["label"].tolist() == told["decision"].tolist() == ["fraud", "accept"]
    assert told["score"].tolist() == [0.25, 0.25]


def test_bands_are_of_the_probability_whatever_class_the_model_predicts() -> None:
    made = decisions(decision=Decision("fraud", BANDS), likeliest=False)
    assert made.needs(("decision", "score")) == ("predict_proba",)
    assert made.needs(("decision", "label")) == ("predict_proba", "label")
    told = made.decide(probabilities(0.45) | {"label": np.array(["accept"], object)}, EVERYTHING)
    assert (told["decision"].tolist(), told["label"].tolist()) == (["review"], ["accept"])


def without_probabilities(decision: Decision | None = None, reasons: Reasons | None = None) -> Decisions:
    outputs = Outputs(classes=("accept", "fraud"), decision=decision, reasons=reasons)
    schema = Schema("binary", RECORD, ("amount", "country", "age"), outputs)
    return Decisions(schema, Model(FEATURES, ("predict", "margin", "contributions"), likeliest=False), outputs.classes)


def test_a_classifier_without_probabilities_decides_its_class_and_has_no_score() -> None:
    made = without_probabilities()
    assert made.names == ("decision",)
    assert made.needs(("decision",)) == ("label",)
    told = made.decide({"label": np.array(["fraud"], object)}, EVERYTHING)
    assert {name: array.tolist() for name, array in told.items()} == {"decision": ["fraud"], "label": ["fraud"]}


def test_the_margin_is_a_score_where_the_schema_asks_for_it() -> None:
    made = without_probabilities(Decision("margin", (Band(1.0, "block"), Band(-math.inf, "accept"))), Reasons(1))
    assert made.needs(made.names) == ("margin", "contributions")
    contributions = np.array([[0.1, 0.5, 0.2, 9.0], [0.1, 0.5, 0.2, 9.0]])
    told = made.decide({"margin": np.array([1.0, -3.0]), "contributions": contributions}, made.names)
    assert told["decision"].tolist() == ["block", "accept"]
    assert told["reasons"].tolist() == [["country"], ["country"]]


def test_a_regression_of_several_targets_is_decided_on_one_of_them() -> None:
    bands = (Band(100.0, "high"), Band(-math.inf, "low"))
    outputs = Outputs(targets=("low", "high"), decision=Decision("high", bands), reasons=Reasons(1))
    schema = Schema("regression", RECORD, ("amount", "country", "age"), outputs)
    made = Decisions(schema, Model(FEATURES, ("predict", "contributions"), likeliest=False), ())
    contributions = np.zeros((1, 2, 4))
    contributions[0, 1, 2] = contributions[0, 0, 0] = 1.0
    told = made.decide({"predict": np.array([[1.0, 101.0]]), "contributions": contributions}, EVERYTHING)
    assert {name: array.tolist() for name, array in told.items()} == {
        "decision": ["high"],
        "score": [101.0],
        "reasons": [["age"]],
    }


def test_an_anomaly_score_is_decided_on() -> None:
    bands = (Band(0.0, "look at it"), Band(-math.inf, "fine"))
    schema = Schema("anomaly", RECORD, ("amount", "country", "age"), Outputs(decision=Decision("anomaly_score", bands)))
    made = Decisions(schema, Model(FEATURES, ("predict", "anomaly_score"), likeliest=False), ("anomaly", "normal"))
    assert made.needs(made.names) == ("anomaly_score",)
    told = made.decide({"anomaly_score": np.array([0.25, -0.5])}, made.names)
    assert told["decision"].tolist() == ["look at it", "fine"]
    assert told["score"].tolist() == [0.25, -0.5]


@pytest.mark.parametrize("classes", [(), ("strange", "usual")])
def test_an_anomaly_score_is_shown_on_its_own_scale(classes: tuple[str, ...]) -> None:
    bands = (Band(1.5, "inspect"), Band(-math.inf, "pass"))
    outputs = Outputs(classes=classes, decision=Decision("anomaly_score", bands))
    low, high = ranges.limits(Schema("anomaly", RECORD, ("amount", "country", "age"), outputs), 2.5)

    assert low < 1.5
    assert high > 2.5
