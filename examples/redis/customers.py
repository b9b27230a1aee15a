"""A hook that completes payments with what Redis knows of the customer, within the time that the request has.

A client sends amount, country, channel and customer; `customer:ID` in Redis is a hash of the other fields.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import redis.asyncio
from kserve.errors import InvalidInput
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tabserve.inference.errors import DeadlineExceeded, PredictorUnavailable
from tabserve_transformer.kserve_model import TransformerModel

LONGEST_SECONDS = 1.0
"""How long to wait for Redis if the client names no deadline."""
TYPES = {"opened": str, "purchases": int, "income": float}


class Customers(TransformerModel):
    """Serve with `--model_class=customers:Customers`, and with Redis at REDIS_URL."""

    def __init__(self, core: Any) -> None:
        super().__init__(core)
        self.url = os.environ["REDIS_URL"]
        self.redis: redis.asyncio.Redis | None = None

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        if not isinstance(payload, dict):  # V2 has columns, which its clients complete themselves
            return payload
        records = payload["instances"]
        seconds = int((headers or {}).get("x-request-timeout-ms", 1000 * LONGEST_SECONDS)) / 1000
        try:
            async with asyncio.timeout(seconds):
                customers = await self.customers([record.get("customer") for record in records])
        except TimeoutError:
            raise DeadlineExceeded("the customers were not read in time") from None
        except (RedisError, OSError):
            raise PredictorUnavailable("the customers cannot be read now") from None
        return {"instances": [completed(at, *pair) for at, pair in enumerate(zip(records, customers, strict=True))]}

    async def customers(self, names: list[Any]) -> list[dict[str, str]]:
        """What Redis has of each customer, read in one round trip; an empty dict if there is nothing."""
        if self.redis is None:  # made here, on the event loop that uses it
            again = Retry(NoBackoff(), 1)  # for a kept connection that Redis has closed
            self.redis = redis.asyncio.from_url(self.url, decode_responses=True, retry=again)
        pipe = self.redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(f"customer:{name}")
        found: list[dict[str, str]] = await pipe.execute()
        return found


def completed(at: int, record: dict[str, Any], customer: dict[str, str]) -> dict[str, Any]:
    """The record with the customer's fields. Raises InvalidInput if there is no such customer."""
    if not customer:
        raise InvalidInput(f"record {at}, field `customer`: expected a known customer")
    own = {name: value for name, value in record.items() if name != "customer"}
    return own | {name: read(customer[name]) for name, read in TYPES.items() if name in customer}
