"""Stub servers and load tests as processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtest.document import Document, Section, decode
from tests.serving import ROOT, Service, start

# What is measured is the generator, so it must not wait for a core behind whatever else runs; root may say so.
NICE = -15 if os.geteuid() == 0 else 0
RUN_SECONDS = 120
TRUSTING = "--set=generator.late_share=1"
"""For tests of something else than whether the generator had a core to run on."""


@dataclass(frozen=True)
class Run:
    """A finished load test."""

    status: int
    text: str
    document: Document

    @property
    def section(self) -> Section:
        """The only scenario."""
        (section,) = self.document.sections
        return section

    def findings(self, verdict: str) -> list[str]:
        """The objectives with that verdict."""
        return [f.objective for s in self.document.sections for f in s.findings if f.verdict.value == verdict]


Loadtest = Callable[..., Run]
Stubs = Callable[..., Service]


@pytest.fixture
def stub(tmp_path: Path) -> Generator[Stubs]:
    """Starts a stub server with options, once per call; all are ended with the test."""
    with ExitStack() as stack:

        def run(*options: str) -> Service:
            service = start("tests.loadtest.stub", *options, log=tmp_path / "stub.log")
            stack.callback(service.kill)
            os.setpriority(os.PRIO_PROCESS, service.process.pid, NICE)
            service.wait_ready()
            return service

        yield run


@pytest.fixture
def loadtest(tmp_path: Path) -> Loadtest:
    """Runs `python -m loadtest run` with options and reads its report."""

    def run(*options: str) -> Run:
        folder = tmp_path / "report"
        finished = subprocess.run(
            [sys.executable, "-m", "loadtest", "run", "--quiet", f"--report={folder}", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            preexec_fn=lambda: os.setpriority(os.PRIO_PROCESS, 0, NICE),
        )
        assert "Traceback" not in finished.stderr, finished.stderr
        assert (folder / "report.json").exists(), finished.stderr
        document = decode((folder / "report.json").read_bytes())
        assert document.exit_code == finished.returncode
        return Run(finished.returncode, finished.stdout + finished.stderr, document)

    return run


def held(service: Service, last: int) -> list[int]:
    """How long a stub says that it held the last requests of the load test, ascending, in microseconds."""
    with urllib.request.urlopen(f"{service.url}/held", timeout=60) as answer:
        found = [microseconds for ours, microseconds in json.load(answer) if ours]
    return sorted(found[-last:])


def at_quantile(ascending: list[int], q: float) -> int:
    """The smallest value that a share q of all does not exceed."""
    return ascending[math.ceil(round(q * len(ascending), 6)) - 1]
