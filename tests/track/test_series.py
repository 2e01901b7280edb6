"""Mapped arrays can be let go of: nothing is lost, and the process is no longer charged with them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gsth.track._series import let_go, series

MEGABYTE = 1 << 20


def mapped_bytes() -> int:
    """What this process holds of files, bytes."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_what_is_let_go_is_kept_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    held = series(tmp_path / "a.npy", (32, MEGABYTE))
    held[:] = 7
    before = mapped_bytes()
    let_go(held, np.zeros(3))
    assert before - mapped_bytes() > 24 * MEGABYTE
    assert (held[-1] == 7).all()
    held[5] = 9
    let_go(held[2:])  # a view lets go of the whole
    assert (np.load(tmp_path / "a.npy")[5] == 9).all() and (held[5] == 9).all()
