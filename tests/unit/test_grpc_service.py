"""The gRPC server's own settings in its process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc

from tests.contract.target import Target
from tests.serving import Service, running, start

CONNECTIONS = 16
TIMEOUT_SECONDS = 30.0


def test_grpc_s_own_threads_are_patient_and_the_event_loop_is_not(tmp_path: Path) -> None:
    with running("tests.echo", log=tmp_path / "echo.log") as service:
        loop = service.process.pid
        threads = {int(name) for name in os.listdir(f"/proc/{loop}/task")} - {loop}
        assert os.sched_getscheduler(loop) == os.SCHED_OTHER
        assert os.SCHED_BATCH in map(os.sched_getscheduler, threads)


def test_requests_of_one_connection_come_alone_and_those_of_many_together(echo: Service) -> None:
    target = Target(echo.url, echo.grpc, None, None)
    message = target.payload.message(target.model).SerializeToString()

    def come_alone(asking: Sequence[grpc.UnaryUnaryMultiCallable]) -> float:
        """How many of these requests came alone; they are sent without waiting for each other's answers."""
        before = echo.metric("echo_alone")
        for answer in [call.future(message, timeout=TIMEOUT_SECONDS) for call in asking]:
            answer.result()
        return echo.metric("echo_alone") - before

    with ExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1)]  # without it, all channels share one connection
        channels = [stack.enter_context(grpc.insecure_channel(echo.grpc, own)) for _ in range(CONNECTIONS)]
        calls = [channel.unary_unary("/inference.GRPCInferenceService/ModelInfer") for channel in channels]
        come_alone(calls[:1])  # it may have come together with one of an earlier test
        assert [come_alone(calls[:1]) for _ in range(5)] == [1, 1, 1, 1, 1]
        echo.wait_for(lambda: come_alone(calls) < CONNECTIONS, "asked by several at once", TIMEOUT_SECONDS)


def test_a_port_that_is_taken_is_refused(echo: Service, tmp_path: Path) -> None:
    """A second service would share it, and with it the clients of the first."""
    service = start("tests.echo", grpc_port=echo.grpc_port, log=tmp_path / "second.log")
    assert service.ended(TIMEOUT_SECONDS)
    assert service.process.returncode == 1
    assert "Address already in use" in service.text()
