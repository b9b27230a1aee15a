"""Make grpc.aio faster; each part is independent, and its figures are in `benchmarks/NOTES.md`.

Import this module before grpc.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# grpc reads this variable at import. Its older way to listen hands requests over with fewer switches between threads.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
# It would log a line, in a form of its own, for every client that fails to shake hands.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

LISTENERS = 8
"""How many grpc.aio servers share the port; the kernel distributes the connections among them.

A grpc.aio server accepts one request each time the event loop wakes. Several servers accept as many at once, and
these requests cost less and are predicted together.
"""


@contextmanager
def patient_threads() -> Iterator[None]:
    """Make threads that start in this block wait until the event loop is idle, and not interrupt it when it wakes them.

    grpc's own threads pass a request from one to the next, which on one core means fewer switches per request
    (SCHED_BATCH, sched(7)). Without that policy, or the right to it, the threads are ordinary ones.
    """
    try:
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (AttributeError, OSError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
