"""Waiting until a deadline, on the event loop that serves."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from tabserve.inference.deadlines import Deadlines
from tabserve.inference.errors import DeadlineExceeded

LONG = 3600.0


class Asked:
    """Requests that wait for answers, and the order in which they ended."""

    def __init__(self) -> None:
        self.deadlines = Deadlines()
        self.ended: list[str] = []

    async def ask(self, name: str, deadline: float, answer: asyncio.Future[str] | None = None) -> None:
        """Wait for the answer, or for one that never comes."""
        try:
            text = await self.deadlines.in_time(answer or asyncio.get_running_loop().create_future(), deadline)
        except DeadlineExceeded:
            text = f"{name} too late"
        self.ended.append(text)


@pytest.mark.parametrize("seconds", [LONG, math.inf])
async def test_an_answer_in_time_is_passed_on(seconds: float) -> None:
    asked, answer = Asked(), asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(answer.set_result, "answer")
    await asked.ask("a", time.monotonic() + seconds, answer)
    assert asked.ended == ["answer"]


@pytest.mark.parametrize("seconds", [0.02, 0.0, -1.0, -math.inf])
async def test_a_deadline_ends_the_wait_and_not_before(seconds: float) -> None:
    asked, deadline = Asked(), time.monotonic() + seconds
    await asked.ask("a", deadline)
    assert time.monotonic() > deadline - 0.001
    assert asked.ended == ["a too late"]


async def test_each_has_its_own_deadline_in_whichever_order_they_come() -> None:
    asked, now = Asked(), time.monotonic()
    waits = [("c", 0.06), ("a", 0.02), ("d", 0.09), ("b", 0.04)]
    await asyncio.gather(*(asked.ask(name, now + seconds) for name, seconds in waits))
    assert asked.ended == ["a too late", "b too late", "c too late", "d too late"]


async def test_one_that_comes_after_an_answered_one_is_not_forgotten() -> None:
    asked, answer = Asked(), asyncio.get_running_loop().create_future()
    answer.set_result("answer")
    deadline = time.monotonic() + 0.02
    await asked.ask("a", deadline, answer)  # its timer has not fired yet
    await asyncio.gather(asked.ask("b", deadline + 0.02), asked.ask("c", deadline + 0.04))
    assert asked.ended == ["answer", "b too late", "c too late"]


async def test_one_that_comes_when_all_have_ended_has_a_timer_again() -> None:
    asked = Asked()
    for name in "ab":
        await asked.ask(name, time.monotonic() + 0.01)
    assert asked.ended == ["a too late", "b too late"]


async def test_a_cancelled_wait_leaves_the_others_waiting() -> None:
    asked, deadline = Asked(), time.monotonic() + 0.03
    tasks = [asyncio.create_task(asked.ask(name, deadline)) for name in "ab"]
    asyncio.get_running_loop().call_soon(tasks[0].cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].cancelled()
    assert asked.ended == ["b too late"]
