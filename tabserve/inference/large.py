"""Decode large requests in a thread, one after the other, so that the event loop keeps turning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from tabserve.inference.bounds import LARGE_BYTES

T = TypeVar("T")


async def decoded(size: int, decode: Callable[[], T]) -> T:
    """The result of `decode`, which decodes `size` bytes. Raises what it raises."""
    if size <= LARGE_BYTES:
        return decode()
    return await asyncio.get_running_loop().run_in_executor(_thread(), decode)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "decoding")
