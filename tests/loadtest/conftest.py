"""Stub servers and load tests as processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tabserve_loadtest.document import Document, Section, decode
from tests.serving import ROOT, Service, start

# The generator is what is measured, so it must not wait for a core; root can give it priority.
NICE = -15 if os.geteuid() == 0 else 0
RUN_SECONDS = 120
TRUSTING = "--set=generator.late_share=1"
"""The option for tests that are not about whether the generator had a core to run on."""


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


def run_loadtest(folder: Path, *options: str) -> Run:
    """Run `tabserve load run` with options and read the report it writes to the folder."""
    command = [sys.executable, "-P", "-m", "tabserve_loadtest", "run", "--quiet", f"--report={folder}", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        try:
            out, err = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert "Traceback" not in err, err
    assert (folder / "report.json").exists(), err
    document = decode((folder / "report.json").read_bytes())
    assert document.exit_code == process.returncode
    return Run(process.returncode, out + err, document)


def run_together(folder: Path, cases: Mapping[str, Sequence[str]]) -> dict[str, Run]:
    """Run several load tests at the same time, because each waits more than it computes."""
    with ThreadPoolExecutor(4) as pool:
        started = {
            name: pool.submit(run_loadtest, folder / str(n), *case) for n, (name, case) in enumerate(cases.items())
        }
        return {name: run.result() for name, run in started.items()}


def start_stub(stack: ExitStack, log: Path, *options: str) -> Service:
    """A stub server that is ready, and ended with the stack."""
    service = start("tests.loadtest.stub", *options, log=log)
    stack.callback(service.kill)
    os.setpriority(os.PRIO_PROCESS, service.process.pid, NICE)
    service.wait_ready()
    return service


@pytest.fixture
def stub(tmp_path: Path) -> Generator[Stubs]:
    """A function that starts a stub server with options; all servers end with the test."""
    with ExitStack() as stack:
        yield lambda *options: start_stub(stack, tmp_path / "stub.log", *options)


@pytest.fixture
def loadtest(tmp_path: Path) -> Loadtest:
    """A function that runs a load test with options."""
    return lambda *options: run_loadtest(tmp_path / "report", *options)


def held(service: Service, last: int) -> list[int]:
    """How long, in ascending microseconds, a stub says that it held the last requests of the load test."""
    with urllib.request.urlopen(f"{service.url}/held", timeout=60) as answer:
        found = [microseconds for ours, microseconds in json.load(answer) if ours]
    return sorted(found[-last:])


def at_quantile(ascending: list[int], q: float) -> int:
    """The smallest value that a share q of all does not exceed."""
    return ascending[math.ceil(round(q * len(ascending), 6)) - 1]
