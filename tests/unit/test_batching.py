"""Micro-batching: which requests are joined or dropped, and that answers do not depend on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import EngineRange, FeatureSpec, ModelInfo
from tabserve.inference.errors import DeadlineExceeded
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve_predictor import batching
from tabserve_predictor.batching import Batcher
from tabserve_predictor.instruments import Instruments

OUTPUTS = ("predict",)
DOUBLED = ModelInfo(
    file="model.ubj",
    format="ubj",
    native="xgboost",
    input="matrix",
    datatype="FP64",
    features=(FeatureSpec("x", "number"),),
    outputs=OUTPUTS,
    default_outputs=OUTPUTS,
    engines=(EngineRange(0, "xgboost"),),
    tolerance=1e-6,
)


class Doubling:
    """An engine that doubles its first column, notes each call's rows, and can be held by a gate."""

    def __init__(self, *, row_independent: bool = True) -> None:
        self.name = "doubling"
        self.outputs = frozenset(OUTPUTS)
        self.row_independent = row_independent
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        self.gate.wait(30)
        assert isinstance(features, np.ndarray)
        self.calls.append(len(features))
        if np.isnan(features).any():
            raise ValueError("no NaN here")
        return {"predict": features[:, 0] * 2}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def batcher(metrics: Metrics) -> Batcher:
    return Batcher(8, Instruments(metrics, {}, DOUBLED, ()))


def matrix(*values: float) -> Array:
    return np.array(values, np.float64).reshape(-1, 1)


async def ask(batcher: Batcher, engine: Doubling, *values: float, context: Context | None = None) -> list[float]:
    answer = await batcher.run(engine, matrix(*values), OUTPUTS, context or Context())
    result: list[float] = answer["predict"].tolist()
    return result


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_requests_of_one_turn_share_one_call_and_get_their_own_rows(batcher: Batcher) -> None:
    engine = Doubling()
    answers = await asyncio.gather(ask(batcher, engine, 1), ask(batcher, engine, 2, 3), ask(batcher, engine, 4))
    assert list(answers) == [[2], [4, 6], [8]]
    assert engine.calls == [4]


async def test_the_first_row_of_each_request_is_counted_by_its_arm(metrics: Metrics) -> None:
    model = msgspec.structs.replace(DOUBLED, classes=(2, 4, 6, 8))
    batcher, engine = Batcher(8, Instruments(metrics, {}, model, ("a", "b", "c", "d"))), Doubling()
    await asyncio.gather(
        ask(batcher, engine, 1), ask(batcher, engine, 2, 3), ask(batcher, engine, 4, context=Context(arm="forced"))
    )
    page = metrics.page().decode()
    counts = [line.removeprefix("tabserve_first_class_total") for line in page.splitlines() if "first_class" in line]
    assert engine.calls == [4]
    assert [line for line in counts if line.endswith(" 1.0")] == [
        '{arm="split",class="a"} 1.0',
        '{arm="split",class="b"} 1.0',
        '{arm="forced",class="d"} 1.0',
    ]


async def test_a_request_that_is_alone_is_answered_without_another_turn_of_the_loop(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "AT_ONCE_SECONDS", 60.0)  # the first call takes long on a busy machine

    engine = Doubling()
    await ask(batcher, engine, 1)  # from here on, the batcher knows how long a call takes
    asked = asyncio.create_task(ask(batcher, engine, 2, context=Context(alone=True)))
    await asyncio.sleep(0)
    assert asked.done()
    assert asked.result() == [4]


async def test_a_batch_has_no_more_rows_than_allowed_and_a_larger_request_goes_alone(batcher: Batcher) -> None:
    engine = Doubling()
    await asyncio.gather(*(ask(batcher, engine, 1, 2, 3) for _ in range(5)), ask(batcher, engine, *range(20)))
    assert sorted(engine.calls) == [3, 6, 6, 20]


async def test_requests_gather_while_the_engine_works(batcher: Batcher) -> None:
    engine = Doubling()
    engine.gate.clear()
    first = asyncio.create_task(ask(batcher, engine, 1))
    await turn()
    others = [asyncio.create_task(ask(batcher, engine, value)) for value in (2, 3, 4)]
    await turn()
    engine.gate.set()
    assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]
    assert engine.calls == [1, 3]


async def test_an_engine_whose_rows_depend_on_each_other_is_never_batched(batcher: Batcher) -> None:
    engine = Doubling(row_independent=False)
    await asyncio.gather(*(ask(batcher, engine, value) for value in range(4)))
    assert engine.calls == [1, 1, 1, 1]


async def test_requests_for_different_engines_are_kept_apart_and_in_order(batcher: Batcher) -> None:
    one, other = Doubling(), Doubling()
    answers = await asyncio.gather(ask(batcher, one, 1), ask(batcher, other, 2), ask(batcher, one, 3))
    assert list(answers) == [[2], [4], [6]]
    assert (one.calls, other.calls) == ([2], [1])


async def test_a_cancelled_request_is_not_predicted_and_hurts_no_other(batcher: Batcher) -> None:
    engine = Doubling()
    engine.gate.clear()
    first = asyncio.create_task(ask(batcher, engine, 1))
    await turn()
    cancelled, other = (asyncio.create_task(ask(batcher, engine, value)) for value in (2, 3))
    await turn()
    cancelled.cancel()
    engine.gate.set()
    assert await first == [2]
    assert await other == [6]
    assert engine.calls == [1, 1]


async def test_a_request_whose_deadline_passed_in_the_queue_is_not_predicted(batcher: Batcher) -> None:
    engine = Doubling()
    expired = Context(deadline=time.monotonic() - 1)
    answers = await asyncio.gather(
        ask(batcher, engine, 1, context=expired), ask(batcher, engine, 2), return_exceptions=True
    )
    assert isinstance(answers[0], DeadlineExceeded)
    assert answers[1] == [4]
    assert engine.calls == [1]


async def test_a_deadline_passes_while_the_engine_works(batcher: Batcher) -> None:
    engine = Doubling()
    engine.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await ask(batcher, engine, 1, context=Context(deadline=time.monotonic() + 0.01))
    engine.gate.set()
    assert await ask(batcher, engine, 2) == [4]


async def test_a_failing_engine_fails_its_batch_and_works_on(batcher: Batcher) -> None:
    engine = Doubling()
    answers = await asyncio.gather(ask(batcher, engine, float("nan")), return_exceptions=True)
    assert isinstance(answers[0], ValueError)
    assert await ask(batcher, engine, 5) == [10]


async def test_the_event_loop_runs_while_a_long_call_does(batcher: Batcher) -> None:
    engine = Doubling()
    engine.gate.clear()  # a call of unknown length: it must not be made on the event loop
    asking = asyncio.create_task(ask(batcher, engine, 1))
    await turn()
    assert not asking.done()
    engine.gate.set()
    assert await asking == [2]


async def test_calls_rows_and_queue_are_measured(batcher: Batcher, metrics: Metrics) -> None:
    engine = Doubling()

    await asyncio.gather(ask(batcher, engine, 1), ask(batcher, engine, 2, 3))

    page = metrics.page().decode()
    assert 'tabserve_batch_rows_sum{engine="doubling"} 3.0' in page
    assert 'tabserve_engine_seconds_count{engine="doubling"} 1.0' in page
    assert "tabserve_queue_seconds_count 2.0" in page
