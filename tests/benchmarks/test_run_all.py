"""The README's table comes from results, and nobody edits it by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run_all(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("run_all")


def _results(psnr: float, **beaten: list[str]) -> dict[str, Any]:
    row = {"psnr_db": psnr, "ssim": 0.8, "face_psnr_db": 25.0, "st_lpips": None, "lips_pct_iod": 1.234}
    free = {
        b: {"psnr_db": 20.0 + i} for i, b in enumerate(("last_frame", "mean_frame", "nearest_frame", "textured_mesh"))
    }
    track = {"rows": {"avatar": row, **free}, "beaten_by": beaten}
    clips: dict[str, Any] = {"me": {"train_seconds": 90.0, "track": track}}
    return {"machine": {"cpu": "Some CPU", "cores": 2}, "date": "2026-01-02", "fidelity": {"quick": clips}}


def test_the_table_shows_the_results(run_all: ModuleType) -> None:
    text = run_all.table(_results(24.567))
    assert "| me, `quick` | 24.57 | 0.800 | 25.00 | - | 1.23 | - | 23.00 | - | - | - | 1.5 |" in text
    assert "Some CPU" in text and "worse" not in text
    assert "worse than a baseline in psnr_db" in run_all.table(_results(19.0, psnr_db=["last_frame"]))


def test_what_a_clip_says_by_its_own_sound_is_shown_with_its_lag(run_all: ModuleType) -> None:
    results = _results(24.567)
    heard = {"lip_correlation": 0.731, "lip_lag_frames": 5.0, "lips_pct_iod": 6.03, "lip_ratio": 0.87}
    clips = results["fidelity"]["quick"]
    clips["me"]["audio"] = {"rows": {"avatar": heard}}
    assert "| 23.00 | 0.73 (+5, end of search) | 6.03 | 0.87 | 1.5 |" in run_all.table(results)
    clips["me"]["audio"] = {"rows": {"avatar": heard | {"lip_lag_frames": -2.0}}}
    head, rule, row = run_all.table(results).splitlines()[2:5]
    assert "| 0.73 (-2) | 6.03 |" in row and head.count("|") == rule.count("|") == row.count("|")


def test_a_readme_that_was_edited_by_hand_is_found_out(run_all: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "box-2cores-2026-01-02.json").write_text(json.dumps(_results(24.567)))
    (tmp_path / "box-2cores-2025-12-31.json").write_text(json.dumps(_results(11.0)))
    (tmp_path / "raster.json").write_text("{}")
    readme = run_all.with_table(
        f"before\n{run_all.BEGIN}\nold\n{run_all.END}\nafter\n", run_all.table(_results(24.567))
    )
    assert run_all.difference(readme, tmp_path) is None
    assert readme.startswith("before") and readme.endswith("after\n") and "old" not in readme
    assert "2026-01-02" in run_all.difference(readme.replace("24.57", "28.57"), tmp_path)
    nothing = tmp_path / "nothing"
    assert "there are no results" in run_all.difference(readme, nothing)
    assert run_all.difference(run_all.with_table(readme, run_all.NOTHING), nothing) is None
    with pytest.raises(ValueError, match="lacks"):
        run_all.with_table("no markers", "x")


def test_the_readme_of_this_repository_shows_the_newest_results(run_all: ModuleType) -> None:
    assert run_all.difference((ROOT / "README.md").read_text(), ROOT / "benchmarks" / "results") is None


def test_the_plan_costs_nothing_and_names_every_step(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run_all.py"), "a.mp4", "--speaks", "a", "--plan"]
    said = subprocess.run([*command, "--work", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert [w for w in ("fidelity quick", "lips", "speed") if w not in said] == []
    assert "left: about" in said and not list(tmp_path.iterdir())
    (tmp_path / "raster.json").write_text("{}")
    said = subprocess.run([*command, "--work", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert "speed               done" in said
