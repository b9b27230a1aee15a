"""What both slots answered to the same request is compared row by row, and only counts and ids are kept."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from tabserve.inference.rest.codec import ResponseEncoder
from tabserve.inference.tensors import DATATYPE_OF, InferRequest, InferResponse, RequestedOutput, Tensor
from tabserve.rollout import answers
from tabserve.rollout.compare import DELTAS, MOST_CELLS, MOST_IDS, Answer, Copies, Pairs


def v1(*rows: Any) -> answers.Rows | None:
    return answers.predictions(orjson.dumps({"predictions": rows}))


def row(decision: str, score: float) -> dict[str, Any]:
    return {"decision": decision, "score": score, "label": "fraud" if score > 0.5 else "genuine", "reasons": ["a"]}


def compared(stable: Any, canary: Any, identity: str = "q-1", copies: Copies | None = None) -> Copies:
    counted = copies or Copies()
    counted.add(Answer(200, 0.004, stable), Answer(200, 0.02, canary), identity)
    return counted


STABLE = v1(row("accept", 0.25), row("review", 0.5), row("block", 0.75))


def test_the_same_answers_agree() -> None:
    found = compared(STABLE, STABLE)

    assert (found.asked, found.pairs, found.decided, found.different, found.rows) == (1, 1, 1, 0, 3)
    assert (found.scored, found.deltas[0], found.largest, found.flips) == (1, 1, 0.0, {})


def test_a_request_differs_by_its_first_row_and_every_row_is_in_the_table() -> None:
    canary = v1(row("review", 0.45), row("review", 0.5), row("accept", 0.1))
    found = compared(STABLE, canary)

    assert (found.decided, found.different, found.rows, found.different_rows) == (1, 1, 3, 2)
    assert msgspec.to_builtins(found.flips) == {
        "accept": {"review": {"requests": 1, "rows": 1, "ids": ["q-1/0"]}},
        "block": {"accept": {"requests": 0, "rows": 1, "ids": ["q-1/2"]}},
    }
    assert (found.largest, found.shift) == pytest.approx((0.2, 0.2))
    assert found.deltas[DELTAS.index(0.3)] == 1


def test_both_directions_are_told_apart_and_few_ids_are_kept() -> None:
    found = Copies()
    for number in range(2 * MOST_IDS):
        compared(v1(row("accept", 0.2)), v1(row("block", 0.8)), f"q-{number}", found)
    compared(v1(row("block", 0.8)), v1(row("accept", 0.2)), "back", found)

    there, back = found.flips["accept"]["block"], found.flips["block"]["accept"]
    assert (there.requests, len(there.ids), there.ids[-1]) == (2 * MOST_IDS, MOST_IDS, f"q-{MOST_IDS - 1}/0")
    assert (back.requests, back.ids, found.different) == (1, ["back/0"], 2 * MOST_IDS + 1)


def test_the_table_is_bounded_whatever_is_answered() -> None:
    found = Copies()
    for number in range(2 * MOST_CELLS):
        compared(v1(row(f"{number}" * 100, 0.2)), v1(row("accept", 0.2)), "", found)

    assert found.different == 2 * MOST_CELLS
    assert sum(map(len, found.flips.values())) == len(found.flips) == MOST_CELLS
    assert max(map(len, found.flips)) <= 64
    assert len(msgspec.json.encode(found)) < 20_000


def tensors(**arrays: Any) -> tuple[Tensor, ...]:
    made = {name: np.array(values, object if isinstance(values[0], str) else None) for name, values in arrays.items()}
    return tuple(Tensor(name, DATATYPE_OF[array.dtype], array) for name, array in made.items())


def v2(*outputs: Tensor, binary: bool) -> answers.Rows | None:
    asked = tuple(RequestedOutput(output.name, binary) for output in outputs)
    request = InferRequest((), None, asked, {}, binary)
    body, size = ResponseEncoder("m", "1").encode(request, InferResponse(outputs))
    return answers.outputs(body, None if size is None else str(size))


@pytest.mark.parametrize("binary", [False, True])
def test_columns_are_compared_as_records_are(binary: bool) -> None:
    stable = v2(*tensors(decision=["accept", "review"], score=[0.25, 0.5]), binary=binary)
    canary = v2(*tensors(decision=["accept", "block"], score=[0.25, 0.9]), binary=binary)
    found = compared(stable, canary)

    assert (found.decided, found.different, found.different_rows) == (1, 0, 1)
    assert found.flips["review"]["block"].ids == ["q-1/1"]
    assert compared(stable, v1(row("accept", 0.25), row("review", 0.5))).different_rows == 0


@pytest.mark.parametrize("binary", [False, True])
def test_a_predictor_is_compared_by_class_and_by_the_last_ones_probability(binary: bool) -> None:
    stable = v2(*tensors(predict=[0, 1], predict_proba=[[0.75, 0.25], [0.25, 0.75]]), binary=binary)
    canary = v2(*tensors(predict=[1, 1], predict_proba=[[0.25, 0.75], [0.25, 0.75]]), binary=binary)
    found = compared(stable, canary)

    assert (found.different, found.flips["0"]["1"].requests, found.largest, found.shift) == (1, 1, 0.5, 0.5)
    assert compared(v1(0, 1), v1(1, 1)).flips.keys() == {"0"}


@pytest.mark.parametrize("given", [v1({"score": 3.5}), v1(3.5), v2(*tensors(predict=[3.5]), binary=True)])
def test_a_regression_decides_nothing_and_only_its_scores_are_compared(given: Any) -> None:
    found = compared(given, v1({"score": 4.0}))

    assert (found.pairs, found.decided, found.scored, found.shift) == (1, 0, 1, 0.5)


def test_a_row_that_one_slot_alone_faults_in_an_answered_batch_is_a_flip() -> None:
    by_places = v2(*tensors(decision=["review", "block"], score=[0.5, 0.75], row=[1, 2]), binary=False)
    for canary in (v1(None, row("review", 0.5), row("block", 0.75)), by_places):
        found = compared(STABLE, canary)
        assert (found.different, found.different_rows, found.scored) == (1, 1, 0)
        assert found.flips["accept"]["(none)"].ids == ["q-1/0"]


@pytest.mark.parametrize(
    ("stable", "canary", "counted"),
    [
        ((200, STABLE), (400, None), "canary_refused"),
        ((422, None), (200, STABLE), "stable_refused"),
        ((200, STABLE), (503, None), "canary_failed"),
        ((200, STABLE), (0, None), "canary_failed"),
        ((500, None), (200, STABLE), "stable_failed"),
        ((400, None), (400, None), "failed"),
        ((0, None), (400, None), "failed"),
        ((200, STABLE), (200, None), "incomparable"),
        ((200, STABLE), (200, v1({"score": 0.5})), "incomparable"),
        ((200, v1()), (200, v1()), "incomparable"),
    ],
)
def test_what_only_one_slot_answers_is_no_pair(stable: Any, canary: Any, counted: str) -> None:
    found = Copies()
    found.add(Answer(stable[0], 0.1, stable[1]), Answer(canary[0], 0.1, canary[1]), "q-1")

    names = ("canary_refused", "stable_refused", "canary_failed", "stable_failed", "failed", "incomparable", "pairs")
    assert {name: getattr(found, name) for name in names} == dict.fromkeys(names, 0) | {counted: 1}
    assert found.refused_ids == ["q-1"][: found.canary_refused]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"outputs":[]}',
        b'{"outputs":[{"name":"decision","datatype":"TEXT","shape":[1],"data":["a"]}]}',
        b'{"outputs":[{"name":"decision","datatype":"BYTES","shape":[3],"data":["a"]}]}',
        b'{"outputs":[{"name":"score","datatype":"FP64","shape":[1],"data":[{}]}]}',
        b'{"outputs":[{"name":"score","datatype":"FP64","shape":[1],"parameters":{"binary_data_size":9}}]}',
        b'{"outputs":[{"name":"score","datatype":"FP64","shape":[],"data":[1]}]}',
        b'{"outputs":[{"name":"score","datatype":"FP64","shape":[1],"data":[1]},'
        b'{"name":"decision","datatype":"BYTES","shape":[2],"data":["a","b"]}]}',
    ],
)
def test_what_is_no_answer_is_not_read(body: bytes) -> None:
    assert answers.outputs(body, None) is None
    assert answers.outputs(body, "12") is None
    assert answers.outputs(body, "x") is None
    assert answers.predictions(body) is None


def test_counts_are_kept_as_json_and_what_came_since_is_their_difference() -> None:
    counted = compared(STABLE, STABLE)
    before = counted.copy()
    compared(STABLE, v1(row("block", 0.9)), "q-2", counted)
    counted.add(Answer(200, 0.1), Answer(400, 0.1), "q-3")

    assert msgspec.json.decode(msgspec.json.encode(counted), type=Copies) == counted
    assert counted.since(before) == Pairs(asked=2, pairs=1, decided=1, different=1, canary_refused=1)
    assert before.since(Copies()) == Pairs(asked=1, pairs=1, decided=1)
