"""The tracking benchmark keeps what it did not measure again, and nothing of another machine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "tracking.py"
ROWS = {"hill": {"photometric": {"reprojection_pct": 1.0}}}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("bench_tracking", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_of_other_clips_stay_on_the_same_machine_alone(bench: ModuleType, tmp_path: Path) -> None:
    out, about = tmp_path / "t.json", {"machine": "m", "cores": 2}
    assert bench.kept(out, about) == {}
    out.write_text(json.dumps({**about, "rows": ROWS}))
    assert bench.kept(out, about) == ROWS
    assert bench.kept(out, {**about, "cores": 4}) == {}
    assert bench.kept(out, {**about, "threads": 2}) == {}
