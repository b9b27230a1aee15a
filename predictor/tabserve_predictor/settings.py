"""Settings of the predictor."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tabserve.inference.settings import Positive, ServerSettings


class Settings(ServerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The predictor's settings, in addition to those of every service."""

    max_batch_rows: Annotated[
        Positive, Meta(description="Most rows joined from several requests for one engine call.")
    ] = 4096
    """A call has a fixed cost, which the rows of a full batch make small (`benchmarks/NOTES.md`, 2026-11-28)."""
