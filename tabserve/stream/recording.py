"""What a stream tells the decision log about what it has committed."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import numpy as np

from tabserve.decision_log.entry import Entry, Log
from tabserve.decision_log.hiding import Hiding
from tabserve.scoring.scorer import Scorer
from tabserve.stream.config import StreamConfig
from tabserve.stream.deciding import Part, Poll
from tabserve.stream.messages import Facts

SOURCE = "stream"
"""How the source of a record from a stream begins: stream:TOPIC#PARTITION/OFFSET."""


def recorder(scorer: Scorer, config: StreamConfig, facts: Facts, log: Log | None) -> Callable[[Poll, float], None]:
    """What puts the decisions of a poll into the log, with the time at which they were made; nothing without a log.

    Raises BundleError if the schema hashes a field, and there is no key.
    """
    if log is None or config.decision_log is None:
        return lambda _, __: None
    hiding = Hiding(scorer.bundle.schema, config.decision_log.hash_key_file, "decision_log.hash_key_file")
    fields = scorer.bundle.schema.fields

    def entry(part: Part, seconds: float) -> Entry:
        made, places = part.made, part.made.places.tolist()
        return Entry(
            source=f"{SOURCE}:{config.source}",
            request_id=uuid.uuid4().hex,  # records that were decided together
            time=seconds,
            rows=made.answer.rows,
            engine=made.answer.engine,
            versions=scorer.versions,
            release=facts.release,
            digest=facts.digest,
            columns=hiding({name: made.columns[name] for name in fields}),
            outputs=made.answer.outputs,
            answers={**made.answer.arrays, **made.answer.codes},
            ids=np.array(part.ids, object),
            places=np.arange(len(places)),
            origins=[f"{part.given[at].partition}/{part.given[at].offset}" for at in places],
        )

    def record(poll: Poll, seconds: float) -> None:
        for part in poll.parts:
            if len(part.made.places):
                log.put(entry(part, seconds))

    return record
