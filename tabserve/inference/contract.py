"""The contract of a served model over V1, as JSON Schemas (2020-12), which programs read."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import orjson

JsonSchema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Contract(msgspec.Struct, frozen=True):
    """What a V1 request takes, one of its `instances`, and what it gives, one of its `predictions`.

    taken, given: the word for each. sifts: whether the good ones of a batch may be answered alone (`on_error: record`).
    A contract without schemas promises nothing, as where a hook changes requests.
    """

    taken: str = "instance"
    given: str = "prediction"
    takes: JsonSchema = {}
    gives: JsonSchema = {}
    sifts: bool = False

    @property
    def schemas(self) -> dict[str, JsonSchema]:
        """Both schemas by their words, each whole in itself."""
        return {
            word: {"$schema": DIALECT, "title": word.capitalize(), **schema}
            for word, schema in ((self.taken, self.takes), (self.given, self.gives))
        }

    @property
    def properties(self) -> dict[str, str]:
        """Both schemas as texts by their words, for the metadata; none if the contract has no schemas."""
        texts = {word: orjson.dumps(schema).decode() for word, schema in self.schemas.items()}
        return texts if self.takes else {}
