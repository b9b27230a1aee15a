"""What the gRPC server takes care of in its process."""

from __future__ import annotations

import os
from pathlib import Path

from tests.serving import running


def test_grpc_s_own_threads_are_patient_and_the_event_loop_is_not(tmp_path: Path) -> None:
    with running("tests.echo", log=tmp_path / "echo.log") as service:
        loop = service.process.pid
        threads = {int(name) for name in os.listdir(f"/proc/{loop}/task")} - {loop}
        assert os.sched_getscheduler(loop) == os.SCHED_OTHER
        assert os.SCHED_BATCH in map(os.sched_getscheduler, threads)
