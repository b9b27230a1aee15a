"""What the transformer puts into the decision log, and that the log changes no answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from xgboost import XGBClassifier

import tabserve.bundle
from tabserve.arrays import Array
from tabserve.bundle import Bundle, BundleError
from tabserve.decision_log import record
from tabserve.decision_log.entry import Entry
from tabserve.inference.errors import PredictionFailed
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import ENGINE, RECORDED, VERSIONS, Context
from tabserve.inference.tensors import InferRequest, InferResponse, Parameters, RequestedOutput, Tensor
from tabserve_transformer.model import Transformer
from tabserve_transformer.settings import Settings
from tests.unit.bundles import resealed, saved
from tests.unit.cores import Cores
from tests.unit.test_transformer_model import OUTPUTS, RECORDS, SOME, Partial, StandIn, columns
from tests.unit.unsaved import BINARY, MODEL, bundle_of

pytestmark = pytest.mark.anyio
REQUEST = Context(trace={"x-request-id": "r-7"})
HIDING = BINARY.replace("min: 0}", "min: 0, logged: hash}").replace("FR], ", "FR], logged: drop, ")
BANDS = """\
  decision: {score: fraud, bands: [{from: 0.6, label: block}, {from: 0, label: accept}]}
  reasons: {top: 2, codes: {amount: A01}}
"""


class Kept(list[Entry]):
    """A log that keeps its entries."""

    def put(self, entry: Entry) -> None:
        self.append(entry)

    def rows(self, bundle: Bundle) -> list[dict[str, Any]]:
        """The records in it."""
        weights = [np.ones(len(entry)) for entry in self]
        made: list[dict[str, Any]] = record.table(self, weights, record.schema(bundle)).to_pylist()
        return made


class Recorded(Partial):
    """A predictor that adds what is to be recorded, as ours does."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        added = [RequestedOutput(name) for name in str(request.parameters.get(RECORDED, "")).split(",") if name]
        outputs = tuple(dict.fromkeys((*request.outputs, *added)))
        whole = await super().infer(InferRequest(request.inputs, outputs=outputs), context)
        told: Parameters = {ENGINE: "xgboost", VERSIONS: "tabserve 1, xgboost 3.1"}
        return InferResponse(whole.outputs, told if RECORDED in request.parameters else {})


class Failing(Recorded):
    """A predictor that fails to give contributions."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        if request.outputs == (RequestedOutput("contributions"),):
            raise PredictionFailed("the predictor failed")
        return await super().infer(request, context)


def served(log: Kept, text: str = BINARY, predictor: StandIn | None = None, **settings: Any) -> Transformer:
    chosen = Settings(predictor_host="localhost", release="a-1", **settings)
    return Transformer(bundle_of(text, MODEL), predictor or Recorded(OUTPUTS), chosen, Metrics(), log=log)


async def decided(model: Transformer, *given: Any, context: Context = REQUEST) -> Any:
    return orjson.loads(await model.predict(orjson.dumps({"instances": given}), context))["predictions"]


async def infer(model: Transformer, inputs: list[Tensor], *outputs: str, **parameters: Any) -> list[str]:
    request = InferRequest(tuple(inputs), None, tuple(map(RequestedOutput, outputs)), parameters)
    return [tensor.name for tensor in (await model.infer(request, REQUEST)).outputs]


async def test_an_entry_holds_the_records_and_all_that_was_answered() -> None:
    log = Kept()
    answers = await decided(served(log), *RECORDS)
    rows = log.rows(bundle_of(BINARY, MODEL))

    assert [{name: row[name] for name in answers[0]} for row in rows] == answers
    assert [row["codes"] for row in rows] == [["hour", "amount"], ["amount"]]
    assert [row["id"] for row in rows] == ["r-7/0", "r-7/1"]
    assert rows[0]["record"] == {"amount": 5.0, "country": "DE", "opened": 1704094200.0}
    assert rows[1]["record"]["country"] is None
    told = ("request_id", "source", "release", "digest", "rows", "engine", "versions")
    assert {tuple(row[name] for name in told) for row in rows} == {
        ("r-7", "online", "a-1", "sha256:7", 2, "xgboost", "tabserve 1, xgboost 3.1")
    }
    assert rows[0]["outputs"] == {
        "predict": None,
        "predict_proba": [0.25, 0.75],
        "margin": None,
        "contributions": None,
    }


@pytest.mark.parametrize(("arm", "source"), [("split", "online"), ("forced", "online"), ("shadow", "shadow")])
async def test_copies_for_a_shadow_are_told_from_what_clients_got(arm: str, source: str) -> None:
    log = Kept()
    await decided(served(log), *RECORDS, context=Context(trace={"x-request-id": "r-7"}, arm=arm))
    rows = log.rows(bundle_of(BINARY, MODEL))

    assert [(row["id"], row["source"]) for row in rows] == [("r-7/0", source), ("r-7/1", source)]


@pytest.mark.parametrize("text", [BINARY, SOME])
@pytest.mark.parametrize("outputs", [("margin",), ("predict_proba",), ("score", "label"), ("decision", "reasons"), ()])
async def test_what_the_client_did_not_ask_for_is_recorded_and_not_answered(
    text: str, outputs: tuple[str, ...]
) -> None:
    log, whole = Kept(), Kept()
    expected = await infer(served(Kept(), text), columns(), *outputs)
    assert await infer(served(log, text), columns(), *outputs) == expected
    await decided(served(whole, text), *RECORDS)

    wanted = ("decision", "score", "label", "reasons", "codes")
    first, second = (
        [{name: row[name] for name in wanted} for row in each.rows(bundle_of(text, MODEL))] for each in (log, whole)
    )
    assert first == second
    assert first[0]["reasons"] == ["hour", "unusual amount"]


async def test_contributions_are_recorded_if_the_client_asked_for_them() -> None:
    log = Kept()
    await infer(served(log), columns(), "contributions")
    assert [row["outputs"]["contributions"] for row in log.rows(bundle_of(BINARY, MODEL))] == OUTPUTS[
        "contributions"
    ].tolist()


async def test_reasons_that_only_the_log_needs_fail_no_request() -> None:
    log = Kept()
    assert await infer(served(log, SOME, Failing(OUTPUTS)), columns(), "decision") == ["decision"]
    assert [(row["decision"], row["reasons"]) for row in log.rows(bundle_of(SOME, MODEL))] == [
        ("review", None),
        ("accept", None),
    ]


async def test_a_score_that_only_the_log_needs_fails_no_request() -> None:
    log = Kept()
    broken = OUTPUTS | {"predict_proba": np.full((2, 2), np.nan, np.float32)}
    assert await infer(served(log, BINARY, Recorded(broken)), columns(), "margin") == ["margin"]
    assert [(row["decision"], row["outputs"]["margin"]) for row in log.rows(bundle_of(BINARY, MODEL))] == [
        (None, [1.0]),
        (None, [-1.0]),
    ]


async def test_of_a_batch_with_faults_the_good_records_are_recorded() -> None:
    log = Kept()
    sifting = Context(trace=REQUEST.trace, on_error="record")
    answers = await decided(served(log), {"amount": "lots"}, RECORDS[0], {}, RECORDS[1], context=sifting)
    assert [one is None for one in answers] == [True, False, True, False]
    rows = log.rows(bundle_of(BINARY, MODEL))
    assert [(row["id"], row["row"], row["rows"], row["record"]["amount"]) for row in rows] == [
        ("r-7/1", 1, 2, 5.0),
        ("r-7/3", 3, 2, 7.5),
    ]


async def test_what_holds_no_record_is_not_in_the_log() -> None:
    log = Kept()
    model = served(log)
    plain = Tensor("input-0", "FP32", np.array([[5, 1, 7], [7.5, np.nan, 8]], np.float32))
    assert "decision" in await infer(model, [plain])
    sifting = Context(trace=REQUEST.trace, on_error="record")
    assert await decided(model, {}, context=sifting) == [None]
    assert log == []


async def test_a_record_without_any_id_gets_one_of_its_own() -> None:
    log = Kept()
    await decided(served(log), *RECORDS, context=Context())
    rows = log.rows(bundle_of(BINARY, MODEL))
    assert len({row["id"] for row in rows}) == 2
    assert [row["request_id"] for row in rows] == [None, None]


@pytest.mark.parametrize("outputs", [(), ("score",)])
async def test_a_records_own_id_is_in_the_log(outputs: tuple[str, ...]) -> None:
    log = Kept()
    given = [*columns(), Tensor("payment", "BYTES", np.array([b"p-1", b""], object))]
    await infer(served(log, f"id: payment\n{BINARY}"), given, *outputs)
    assert [row["id"] for row in log.rows(bundle_of(BINARY, MODEL))] == ["p-1", "r-7/1"]


async def test_hidden_values_are_in_no_entry(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef\n")
    log = Kept()
    await decided(served(log, HIDING, decision_log_hash_key_file=str(key)), *RECORDS)
    (entry,) = log
    assert entry.columns.keys() == {"amount", "opened"}
    assert all(len(each) == 64 for each in entry.columns["amount"])
    assert [base(column) is column for column in entry.columns.values()] == [True, True]


def base(array: Array) -> Any:
    """The array that owns the memory."""
    return array if array.base is None else array.base


def test_a_schema_that_hashes_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"decision_log_hash_key_file: not set, and the schema hashes .* `amount`"):
        served(Kept(), HIDING)
    key = tmp_path / "key"
    key.write_text("x" * 16)
    served(Kept(), HIDING, decision_log_hash_key_file=str(key))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Numbers that the transformer reads in one step, and an engine without margin for a single row."""
    bundle = saved(XGBClassifier(n_estimators=10), tmp_path_factory.mktemp("numbers"), extra=BANDS)
    plan = [{"engine": "onnxruntime", "from_rows": 0}, {"engine": "xgboost", "from_rows": 2}]
    resealed(bundle.path, lambda contents: contents["model"].update(engines=plan))
    return tabserve.bundle.load(bundle.path)


def test_numbers_are_recorded_as_they_were_sent(numbers: Bundle) -> None:
    log = Kept()
    cores = Cores(numbers, log)
    assert cores.predictions(pd.DataFrame({"amount": [0.1, 2], "age": [30, 40]}))
    rows = log.rows(numbers)
    assert [row["record"] for row in rows] == [{"amount": 0.1, "age": 30.0}, {"amount": 2.0, "age": 40.0}]
    assert {row["engine"] for row in rows} == {"xgboost"}
    assert re.fullmatch(r"tabserve [\d.]+, xgboost [\d.]+, onnxruntime [\d.]+", rows[0]["versions"])


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "outputs",
    [
        (),
        ("predict_proba",),
        ("predict",),
        ("margin",),
        ("contributions",),
        ("score",),
        ("label", "decision"),
        ("contributions", "reasons", "predict_proba"),
    ],
)
async def test_the_log_changes_no_answer_and_no_engine(numbers: Bundle, outputs: tuple[str, ...], rows: int) -> None:
    log, random = Kept(), np.random.default_rng(rows)
    given = tuple(Tensor(name, "FP64", random.gamma(2, 50, rows)) for name in ("amount", "age"))
    request = InferRequest(given, outputs=tuple(map(RequestedOutput, outputs)))
    without, logged = [
        {tensor.name: tensor.array.tolist() for tensor in (await model.infer(request, REQUEST)).outputs}
        for model in (Cores(numbers).transformer, Cores(numbers, log).transformer)
    ]
    assert logged == without
    recorded = log.rows(numbers)
    assert [row["score"] for row in recorded] == [row["outputs"]["predict_proba"][1] for row in recorded]
    assert {len(row["codes"]) - len(row["reasons"]) for row in recorded} == {0}
    native = rows > 1 or outputs == ("margin",)
    assert {row["engine"] for row in recorded} == {"xgboost" if native else "onnxruntime"}
