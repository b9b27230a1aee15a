"""Pods that have counted requests, and what `tabserve rollout` says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from tabserve.cli import main
from tabserve.inference.metrics import LOGIT, Counter, Histogram, Metrics

RNG_SEED = 3


class Pod:
    """A pod's page of metrics, made by the services' own instruments."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.decisions = Counter("tabserve_first_decision", "", ("decision", "arm"))
        self.scores = Histogram("tabserve_first_score", "", LOGIT, ("arm",))
        self.metrics.add(self.decisions, self.scores)
        self.start = 1000.0

    def answer(self, count: int, status: str = "200", *, seconds: float = 0.004, arm: str = "split") -> None:
        """Count requests; those that are answered decide alternately, with ever other scores."""
        random = np.random.default_rng(RNG_SEED)
        self.metrics.requests.add("rest", status, arm, count=count)
        for number in range(count):
            self.metrics.seconds.observe(seconds, "rest", arm)
            if status == "200":
                self.decisions.add("accept" if number % 3 else "review", arm)
                self.scores.observe(random.random(), arm)

    def page(self) -> str:
        lines = self.metrics.page().decode().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("process_start_time_seconds")]
        return "".join([*kept, f"process_start_time_seconds {self.start}\n"])

    def save(self, path: Path) -> str:
        path.write_text(self.page())
        return str(path)


def rollout(command: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["rollout", command, *options])


def judged(*options: str) -> dict[str, Any]:
    done = rollout("status", *options, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"checks": {row["check"]: row for row in found["checks"]}}
