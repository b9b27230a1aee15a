"""Hooks that await, in each way that a KServe user's hooks may.

A request names the way and a URL to ask, as parameters in V2, and next to the instances in V1. The postprocess hook
adds the way to the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
import anyio
import httpx
import kserve
import numpy as np

from tabserve_predictor.kserve_model import PredictorModel
from tabserve_transformer.kserve_model import TransformerModel

SECONDS = 60.0

_ASKED: ContextVar[tuple[str, str]] = ContextVar("asked")
"""The way and the URL of the request; each request must have its own context."""


async def _in_the_next_turn(_: str) -> None:
    await asyncio.sleep(0)


async def _gathered(_: str) -> None:
    assert list(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))) == [1, 2]


async def _in_a_task_group(_: str) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, number)) for number in (1, 2)]
    assert [task.result() for task in tasks] == [1, 2]


async def _in_a_thread(_: str) -> None:
    assert await asyncio.to_thread(sum, [1, 2]) == 3


async def _waited_for(_: str) -> None:
    assert await asyncio.wait_for(asyncio.sleep(0, 1), SECONDS) == 1
    with _expiring():
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)


async def _in_asyncio_s_timeout(_: str) -> None:
    async with asyncio.timeout(SECONDS):
        await asyncio.sleep(0)
    with _expiring():
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()


async def _in_anyio_s_timeout(_: str) -> None:
    with anyio.fail_after(SECONDS):
        await anyio.sleep(0)
    with _expiring(), anyio.fail_after(0.001):
        await anyio.Event().wait()


async def _asked_with_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200


async def _asked_with_httpx(url: str) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 200


@contextmanager
def _expiring() -> Iterator[None]:
    """A block whose timeout expires."""
    try:
        yield
    except TimeoutError:
        return
    raise AssertionError("the time did not run out")


class Meeting:
    """Where requests wait for each other (`together`), or for a hook whose client has gone away."""

    def __init__(self) -> None:
        self._pair = asyncio.Barrier(2)
        self._held, self._abandoned = asyncio.Event(), asyncio.Event()

    async def together(self, _: str) -> None:
        """Wait until another request has come as far."""
        async with self._pair:
            await asyncio.sleep(0)

    async def held(self, _: str) -> None:
        """Wait for ever."""
        self._held.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._abandoned.set()

    async def until_held(self, _: str) -> None:
        """Wait until another request is held."""
        await self._held.wait()

    async def until_abandoned(self, _: str) -> None:
        """Wait until the held request has been abandoned; then the next may be held."""
        await self._abandoned.wait()
        self._held.clear()
        self._abandoned.clear()


async def _cancelled(_: str) -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


WAYS: dict[str, Callable[[str], Awaitable[None]]] = {
    "asyncio.sleep(0)": _in_the_next_turn,
    "asyncio.gather": _gathered,
    "asyncio.TaskGroup": _in_a_task_group,
    "asyncio.to_thread": _in_a_thread,
    "asyncio.wait_for": _waited_for,
    "asyncio.timeout": _in_asyncio_s_timeout,
    "anyio.fail_after": _in_anyio_s_timeout,
    "aiohttp": _asked_with_aiohttp,
    "httpx": _asked_with_httpx,
}


class Awaiting:
    """Waits in the request's way before and after the prediction, and halves every number in between."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        meeting = Meeting()
        self._before = {
            **WAYS,
            "together": meeting.together,
            "held": meeting.held,
            "until held": meeting.until_held,
            "until abandoned": meeting.until_abandoned,
            "cancelled": _cancelled,
        }

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        way, url = _asked(payload)
        _ASKED.set((way, url))
        await self._before[way](url)
        return _halved(payload)

    async def postprocess(self, result: Any, headers: Any = None, response_headers: Any = None) -> Any:
        way, url = _ASKED.get()
        with suppress(KeyError):
            await WAYS[way](url)
        if isinstance(result, dict):
            return {**result, "awaited": way}
        result.outputs.append(kserve.InferOutput("awaited", [1], "BYTES", [way]))
        return result


class AwaitingPredictor(Awaiting, PredictorModel):
    pass


class AwaitingTransformer(Awaiting, TransformerModel):
    pass


def _asked(payload: Any) -> tuple[str, str]:
    """The way and the URL; the stock server's gRPC gives each parameter as a message."""
    given = payload if isinstance(payload, dict) else payload.parameters
    way, url = (getattr(given[name], "string_param", given[name]) for name in ("way", "url"))
    return cast("str", way), cast("str", url)


def _halved(payload: Any) -> Any:
    if isinstance(payload, dict):
        return {"instances": [_half(instance) for instance in payload["instances"]]}
    for tensor in payload.inputs:
        tensor.set_data_from_numpy(np.divide(tensor.as_numpy(), 2), binary_data=True)
    return payload


def _half(instance: Any) -> Any:
    if isinstance(instance, dict):
        return {name: value / 2 for name, value in instance.items()}
    return [value / 2 for value in instance]
