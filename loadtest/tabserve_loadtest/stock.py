"""Locust as it comes, with closed-loop users and whole milliseconds, to compare with what is measured here."""

from __future__ import annotations

from typing import ClassVar

from locust import FastHttpUser, constant_throughput, task
from locust.stats import RequestStats, StatsEntry

from tabserve_loadtest.result import StockNumbers

NAME = "closed loop"


class Stock(FastHttpUser):
    """A user that waits for its answer and counts from sending, as Locust's users do."""

    request: ClassVar[bytes] = b""
    wait_time = constant_throughput(10)

    @task
    def ask(self) -> None:
        """Send the first request of the run, once there is one."""
        if not self.request:
            return
        head, _, body = self.request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        self.client.post(first.split(" ")[1], data=body, headers=headers, name=NAME)  # type: ignore[arg-type]


def numbers(stats: RequestStats) -> list[StockNumbers]:
    """All entries of the statistics that have requests."""
    return [_numbers(entry) for entry in stats.entries.values() if entry.num_requests]


def _numbers(entry: StatsEntry) -> StockNumbers:
    p50, p99, p999 = (entry.get_response_time_percentile(q) for q in (0.5, 0.99, 0.999))
    return StockNumbers(entry.name, entry.num_requests, p50, p99, p999, entry.max_response_time)
