"""Decide messages, without a client or a clock: each becomes a decision or a dead letter, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import orjson

from tabserve.inference.errors import InferenceError
from tabserve.schema import answers
from tabserve.schema.columns import Misfit
from tabserve.scoring.answering import Answer
from tabserve.scoring.scorer import Decided, Scorer
from tabserve.stream import messages
from tabserve.stream.messages import Facts, Headers, Incoming, Outgoing

_HEADERS_BYTES = 4096
"""What the headers of a decision take at most, without those that its record had."""


class Topics(NamedTuple):
    """Where decisions and dead letters go, and how long a message may be."""

    decisions: str
    dead: str
    most_bytes: int


class Part(NamedTuple):
    """Messages that were decided together. own: the ids in the decided records [rows], None where there is none."""

    given: Sequence[Incoming]
    made: Decided
    own: list[str | None]

    @property
    def ids(self) -> list[str]:
        """The decided records' own ids, or else the messages' places."""
        return [one or self.given[at].place for at, one in zip(self.made.places.tolist(), self.own, strict=True)]


class Poll(NamedTuple):
    """What is to be sent for messages, in their order; how many are decisions; and what was decided together."""

    outgoing: list[Outgoing]
    decided: int
    parts: list[Part]


class Deciding:
    """Decides the messages of a stream. recording: whether also for the decision log."""

    def __init__(self, scorer: Scorer, topics: Topics, facts: Facts, *, recording: bool) -> None:
        self._scorer, self._topics, self._facts, self._recording = scorer, topics, facts, recording
        schema = scorer.bundle.schema
        self._id, self._targets = schema.id, schema.outputs.targets

    def __call__(self, given: Sequence[Incoming], seconds: float) -> Poll:
        """Decide messages, at a time in seconds since 1970."""
        common = messages.common_headers(self._facts, seconds)
        parts = list(self._parts(given))
        outgoing = [each for part in parts for each in self._answers(part, common)]
        return Poll(outgoing, sum(each.topic == self._topics.decisions for each in outgoing), parts)

    def _parts(self, given: Sequence[Incoming]) -> Iterator[Part]:
        """All of the messages together; a message that the model fails on is alone, and is found by halving."""
        try:
            made = self._scorer.sift([each.value or b"" for each in given], recording=self._recording)
        except InferenceError as error:
            if len(given) == 1:
                yield Part(given, _failed(str(error)), [])
                return
            middle = len(given) // 2
            yield from self._parts(given[:middle])
            yield from self._parts(given[middle:])
        else:
            yield Part(given, made, self._own(made))

    def _own(self, made: Decided) -> list[str | None]:
        return made.columns[self._id].tolist() if self._id and len(made.places) else [None] * len(made.places)

    def _answers(self, part: Part, common: Headers) -> list[Outgoing]:
        given, made = part.given, part.made
        sent = {misfit.record: self._dead(given[misfit.record], misfit) for misfit in made.misfits}
        if len(made.places):
            found = answers.objects(made.answer.arrays, self._targets)
            for at, own, answer in zip(made.places.tolist(), part.own, found, strict=True):
                sent[at] = self._decision(given[at], own, answer, common)
        return [sent[at] for at in range(len(given))]

    def _decision(self, given: Incoming, own: str | None, answer: dict[str, object], common: Headers) -> Outgoing:
        place = given.place
        identity = own or place
        value = orjson.dumps({self._id: identity, **answer} if self._id else answer)
        made = messages.decision(self._topics.decisions, given, value, place, identity, common)
        may_be_long = given.headers or len(given.key or b"") + len(value) > self._topics.most_bytes - _HEADERS_BYTES
        if may_be_long and made.nbytes > self._topics.most_bytes:
            expected = f"a key with which a decision has at most {self._topics.most_bytes} bytes"
            return self._dead(given, Misfit(0, "", expected, f"one of {len(given.key or b'')} bytes"))
        return made

    def _dead(self, given: Incoming, reason: Misfit) -> Outgoing:
        return messages.dead_letter(self._topics.dead, given, reason, self._facts, self._topics.most_bytes)


def _failed(problem: str) -> Decided:
    """What is made of one message that the model fails on."""
    misfit = Misfit(0, "", "a record that the model can answer", problem)
    return Decided(np.empty(0, np.int64), {}, Answer({}, "", 0), [misfit])
