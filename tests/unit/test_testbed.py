"""The versions that the test cluster is built with."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.cluster.testbed.build import fill

PROCESSES = 3


def build(folder: Path, calls: Path, together: Barrier) -> None:
    def make(unfinished: Path) -> None:
        with calls.open("a") as file:
            file.write("made\n")
        (unfinished / "program").write_text("whole")

    together.wait()
    fill(folder, make)
    assert (folder / "program").read_text() == "whole"


def test_what_several_processes_need_is_made_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "programs" / "x-1", tmp_path / "calls", context.Barrier(PROCESSES))
    processes = [context.Process(target=build, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert (tmp_path / "calls").read_text() == "made\n"
