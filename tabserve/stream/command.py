"""Run `tabserve stream` with its options, and end with the reason if it cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tabserve.bundle.ending import ending
from tabserve.inference import logs
from tabserve.scoring.scorer import Scorer
from tabserve.stream import config as configs
from tabserve.stream.clients import Ended
from tabserve.stream.run import Options, run


def stream(
    directory: Path,
    config: Path,
    options: Options,
    *,
    threads: int,
    digest: str | None,
    signed_by: str | None,
    log_level: str,
    log_format: str,
    allow_joblib: bool,
    trusted: Sequence[str],
) -> None:
    """Decide until a signal. Exits with status 1 and the reason if the stream cannot start, or cannot go on."""
    logs.configure(log_level, log_format, "stream")
    with ending("stream", log_format):
        found = configs.load(config)
        scorer = Scorer(
            directory, threads=threads, digest=digest, allow_joblib=allow_joblib, trusted=trusted, signed_by=signed_by
        )
        try:
            run(scorer, found, options)
        except Ended as error:
            sys.exit(logs.last_words("stream", log_format, f"{error}. Start again: it goes on from the last commit."))
