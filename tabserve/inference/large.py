"""Decode large requests in a thread, one after the other, so that the event loop keeps turning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")


async def in_thread(decode: Callable[[], T]) -> T:
    """The result of `decode`, once the requests before it are decoded. Raises what it raises."""
    return await asyncio.get_running_loop().run_in_executor(_thread(), decode)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "decoding")
