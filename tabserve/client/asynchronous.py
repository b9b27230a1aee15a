"""An asynchronous client of a transformer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tabserve.arrays import Array
from tabserve.client.client import Client, Sifted
from tabserve.inference.tensors import ModelMetadata

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")


class AsyncClient:
    """Asks one transformer without blocking the event loop; each request has a thread until it is answered.

    If a call is cancelled its answer is dropped, and its thread is free after the timeout at the latest.
    """

    def __init__(self, url: str, host: str | None = None, *, in_flight: int = 16, **options: Any) -> None:
        """Make a client; options as for Client. in_flight: how many requests may wait for answers at once."""
        self._client = Client(url, host, **options)
        self._threads = ThreadPoolExecutor(in_flight, "asking")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, after the requests in flight."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def model_name(self) -> str:
        """The name of the model that the transformer serves. Raises ServiceError, over gRPC always."""
        return await self._asked(self._client.model_name)

    async def ready(self) -> bool:
        """Whether the transformer answers that it is ready."""
        return await self._asked(self._client.ready)

    async def metadata(self, model: str) -> ModelMetadata:
        """The model's metadata, asked for once. Raises ServiceError."""
        return await self._asked(partial(self._client.metadata, model))

    @overload
    async def decide(self, model: str, records: pd.DataFrame) -> pd.DataFrame: ...

    @overload
    async def decide(self, model: str, records: Mapping[str, Any]) -> dict[str, Array]: ...

    @overload
    async def decide(self, model: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]: ...

    async def decide(self, model: str, records: Any) -> Any:
        """The decision on each record. Raises ServiceError and ValueError, as Client does."""
        return await self._asked(partial(self._client.decide, model, records))

    @overload
    async def sift(self, model: str, records: pd.DataFrame) -> Sifted[pd.DataFrame]: ...

    @overload
    async def sift(self, model: str, records: Mapping[str, Any]) -> Sifted[dict[str, Array]]: ...

    @overload
    async def sift(self, model: str, records: Sequence[Mapping[str, Any]]) -> Sifted[list[dict[str, Any] | None]]: ...

    async def sift(self, model: str, records: Any) -> Any:
        """The decisions on the good records, and all faults of the bad ones. Raises ServiceError and ValueError."""
        return await self._asked(partial(self._client.sift, model, records))

    async def _asked(self, ask: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
