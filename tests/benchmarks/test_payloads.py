from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import orjson
import pandas as pd
import pytest

from benchmarks import models, payloads, pool
from benchmarks.models import Trained
from benchmarks.payloads import Answers, Encoding, Payloads
from tabserve.inference.grpc import open_inference_pb2 as pb

ROWS = 32
REQUESTS = payloads.FEWEST


@pytest.fixture
def model(tmp_path: Path) -> Trained:
    random = np.random.default_rng(0)
    count = 65_536
    positive = random.random(count)
    rows = pd.DataFrame(random.random((count, 2)).astype(np.float32), columns=["a", "b"])
    return Trained("model", tmp_path / "key", rows, np.column_stack([1 - positive, positive]))


@pytest.fixture
def asked(model: Trained, tmp_path: Path) -> Callable[[Encoding], Payloads]:
    return lambda encoding: Payloads(model, 256, encoding, tmp_path / "pool")


def _json(values: np.ndarray) -> bytes:
    return orjson.dumps({"outputs": [{"name": "out", "data": values.ravel().tolist()}]})


def _binary(values: np.ndarray) -> bytes:
    head = {"outputs": [{"name": "out", "datatype": "FP64", "parameters": {"binary_data_size": values.nbytes}}]}
    return orjson.dumps(head) + values.tobytes()


def _grpc(values: np.ndarray) -> bytes:
    response = pb.ModelInferResponse(raw_output_contents=[values.tobytes()])
    response.outputs.add(name="out", datatype="FP64")
    return response.SerializeToString()


BANDS = models.bands("model")


def _decisions(values: np.ndarray) -> bytes:
    return orjson.dumps({"predictions": [{"decision": _band(v), "score": v} for v in values[:, 1].tolist()]})


def _reasons(values: np.ndarray) -> bytes:
    decided = orjson.loads(_decisions(values))["predictions"]
    return orjson.dumps({"predictions": [{**each, "reasons": ["a"]} for each in decided]})


def _some_reasons(values: np.ndarray) -> bytes:
    decided = orjson.loads(_decisions(values))["predictions"]
    reasons = {"refuse": ["a"], "review": ["a", "b"], "accept": []}
    return orjson.dumps({"predictions": [{**each, "reasons": reasons[each["decision"]]} for each in decided]})


def _band(score: float) -> str:
    return payloads.band(score, BANDS)


ENCODERS: dict[tuple[Encoding, Answers], Callable[[np.ndarray], bytes]] = {
    ("json", "probabilities"): _json,
    ("json-predict_proba", "probabilities"): _json,
    ("json", "positive"): lambda values: _json(values[:, 1]),
    ("json", "class"): lambda values: _json(values.argmax(axis=1)),
    ("binary", "probabilities"): _binary,
    ("grpc", "probabilities"): _grpc,
    ("records", "decisions"): _decisions,
    ("records", "reasons"): _reasons,
    ("records", "some-reasons"): _some_reasons,
}


@pytest.mark.parametrize(("encoding", "kind"), ENCODERS)
def test_right_answers_pass(asked: Callable[[Encoding], Payloads], encoding: Encoding, kind: Answers) -> None:
    of = asked(encoding)
    answers = [ENCODERS[encoding, kind](expected) for expected in of.expected()]
    assert payloads.verify(of, answers, kind) < 1e-12


@pytest.mark.parametrize(("encoding", "kind"), ENCODERS)
def test_one_wrong_row_is_found(asked: Callable[[Encoding], Payloads], encoding: Encoding, kind: Answers) -> None:
    of = asked(encoding)
    wrong = of.expected().copy()
    wrong[-1, -1] = 1 - wrong[-1, -1]
    with pytest.raises(ValueError, match=f"answer {len(wrong) - 1} is off"):
        payloads.verify(of, [ENCODERS[encoding, kind](expected) for expected in wrong], kind)


@pytest.mark.parametrize(("encoding", "kind"), ENCODERS)
def test_a_missing_row_is_found(asked: Callable[[Encoding], Payloads], encoding: Encoding, kind: Answers) -> None:
    of = asked(encoding)
    with pytest.raises(ValueError, match="answer 0 is off by inf"):
        payloads.verify(of, [ENCODERS[encoding, kind](expected[:-1]) for expected in of.expected()], kind)


def test_a_decision_of_another_band_is_found(asked: Callable[[Encoding], Payloads]) -> None:
    of = asked("records")
    answers = [_decisions(expected) for expected in of.expected()]
    answers[7] = answers[7].replace(b"accept", b"review")
    with pytest.raises(ValueError, match="answer 7 is off by inf"):
        payloads.verify(of, answers, "decisions")


@pytest.mark.parametrize(
    ("kind", "answered"), [("decisions", _reasons), ("reasons", _decisions), ("some-reasons", _reasons)]
)
def test_reasons_that_are_not_due_are_found(
    asked: Callable[[Encoding], Payloads], kind: Answers, answered: Callable[[np.ndarray], bytes]
) -> None:
    of = asked("records")
    with pytest.raises(ValueError, match="answer 0 is off by inf"):
        payloads.verify(of, [answered(expected) for expected in of.expected()], kind)


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_no_row_repeats_within_a_pool(
    model: Trained, encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    written = pool.read(payloads.payloads(model, 256, encoding).file)
    assert len(written) == payloads.count(256)
    assert len(set(written)) == len(written)
    assert payloads.count(1) * 1 >= 4_000


def test_one_output_is_asked_for_with_the_same_tensors(
    model: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole, one = (pool.first(payloads.payloads(model, 1, each).file) for each in ("json", "json-predict_proba"))
    assert orjson.loads(one) == orjson.loads(whole) | {"outputs": [{"name": "predict_proba"}]}


def test_the_binary_header_tells_where_the_tensors_begin(
    model: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = payloads.payloads(model, 64, "binary")
    body = pool.first(asked.file)
    size = int(asked.headers["Inference-Header-Content-Length"])
    assert orjson.loads(body[:size])["inputs"][0]["shape"] == [64, 2]
    np.testing.assert_array_equal(np.frombuffer(body[size:], np.float32), model.rows.to_numpy()[:64].ravel())
