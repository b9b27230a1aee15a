"""The decision records of `tabserve score`: a file of the log for each input, whole or absent, and written once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq

from tabserve.arrays import Array
from tabserve.decision_log import record
from tabserve.decision_log.entry import Entry
from tabserve.decision_log.files import GROUP_ROWS, Folder
from tabserve.decision_log.hiding import Hiding
from tabserve.scoring.run import Told
from tabserve.scoring.scorer import Basis, Scorer
from tabserve.scoring.storage import Place


def opener(folder: str, key_file: str) -> Callable[[Scorer], ScoredLog]:
    """What makes a scorer's log in a folder. key_file: with the key for fields that are hashed, "" if there is none."""
    return lambda scorer: ScoredLog(scorer, folder, key_file)


class ScoredLog:
    """Takes the decisions on each input's rows, at once or not at all; an input's file has the same name every time."""

    def __init__(self, scorer: Scorer, folder: str, key_file: str) -> None:
        """Raises BundleError if the schema hashes a field and there is no key, and RunError for no place."""
        self._scorer, self._place = scorer, Place.of(folder)
        self._hiding = Hiding(scorer.bundle.schema, key_file, "--hash-key-file")
        self._schema = record.schema(scorer.bundle)

    @contextmanager
    def writing(self, uri: str, name: str, time: float) -> Iterator[Told]:
        """Take the decisions on an input, into a file that is there when the block ends."""
        day = datetime.fromtimestamp(time, UTC).date()
        path = f"{Folder(day.isoformat(), '')}/score-{name}.parquet"
        with (
            self._place.whole(path, begun=f"score-{name}") as stream,
            pq.ParquetWriter(stream, self._schema, compression="zstd") as writer,
        ):

            def tell(ids: Sequence[str], places: Array, basis: Basis) -> None:
                entry = self._entry(uri, time, ids, places, basis)
                writer.write_table(
                    record.table([entry], [np.ones(len(places))], self._schema), row_group_size=GROUP_ROWS
                )

            yield tell

    def _entry(self, uri: str, time: float, ids: Sequence[str], places: Array, basis: Basis) -> Entry:
        answer = basis.answer
        return Entry(
            source=uri,
            request_id="",
            time=time,
            rows=answer.rows,
            engine=answer.engine,
            versions=self._scorer.versions,
            release="",
            digest=self._scorer.bundle.digest,
            columns=self._hiding(basis.columns),
            outputs=answer.outputs,
            answers={**answer.arrays, **answer.codes},
            ids=np.array(ids, object),
            places=places,
        )
