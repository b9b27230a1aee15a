"""Settings of the predictor."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tabserve.inference.settings import Positive, ServerSettings


class Settings(ServerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the predictor can be told, beside what every service can be."""

    max_batch_rows: Annotated[Positive, Meta(description="Most rows of requests joined for one engine call.")] = 4096
    """With 200 trees, a call of XGBoost 3.2 costs as much as 120 rows before the first: a thirtieth of a full batch."""
