from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pool


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = [b"one", b"", b"\x00" * 70_000]
    pool.write(tmp_path / "pool", entries)
    assert pool.read(tmp_path / "pool") == entries
    assert pool.first(tmp_path / "pool") == b"one"


@pytest.mark.parametrize("kept", [1, 5, 10])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    pool.write(tmp_path / "pool", [b"one", b"two"])
    (tmp_path / "pool").write_bytes((tmp_path / "pool").read_bytes()[:kept])
    with pytest.raises(ValueError, match="cut off"):
        pool.read(tmp_path / "pool")
