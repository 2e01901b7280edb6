"""What training costs is the command's own, and the end says all that was measured."""

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
FREE = ("last_frame", "mean_frame", "nearest_frame", "textured_mesh")


@pytest.fixture(scope="module")
def fidelity(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("fidelity")


def test_memory_is_that_of_each_command_and_not_of_the_largest_before(tmp_path: Path) -> None:
    # in a process of its own: this one, which holds torch, would be the least that is told
    greedy = "held = bytes(1) * 300_000_000"
    code = f"""
import sys
sys.path.append({str(ROOT / "benchmarks")!r})
import fidelity
for code in ({greedy!r}, "pass"):
    print(fidelity.ran([sys.executable, "-c", code]).memory_mb)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    greedy_mb, small_mb = map(float, said.split())
    assert greedy_mb > 290 and small_mb < 100


def test_a_command_that_fails_is_not_taken_for_done(fidelity: ModuleType) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        fidelity.ran([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("begun", [False, True])
def test_the_cost_of_a_training_that_went_on_is_unknown(
    fidelity: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begun: bool
) -> None:
    def train(*args: object) -> Any:
        (tmp_path / "me-quick.avatar").mkdir()
        return fidelity.Cost(90.0, 1000.0)

    monkeypatch.setattr(fidelity, "gsth", train)
    if begun:
        (tmp_path / "me-quick.avatar.work").mkdir()
    want = (None, None) if begun else (90.0, 1000.0)
    for _ in range(2):  # measured, and read again
        out, cost = fidelity.trained(Path("me.mp4"), "quick", tmp_path)
        assert out == tmp_path / "me-quick.avatar"
        assert (cost["train_seconds"], cost["train_peak_memory_mb"]) == want
    json.loads((tmp_path / "me-quick.cost.json").read_text())


def test_the_work_folder_is_the_one_of_training(tmp_path: Path) -> None:
    from gsth import pipeline

    assert pipeline.work_folder(tmp_path / "me-quick.avatar").name == "me-quick.avatar.work"


def test_the_end_is_a_whole_table(fidelity: ModuleType) -> None:
    mine = {"psnr_db": 24.567, "ssim": 0.8, "face_psnr_db": 25.0, "st_lpips": 0.1, "lips_pct_iod": 1.234}
    rows = {"avatar": mine, **{b: {"psnr_db": 20.0} for b in FREE}}
    heard = {"lip_correlation": 0.731, "lip_lag_frames": 5.0, "lips_pct_iod": 6.03, "lip_ratio": 0.87}
    me = {
        "train_seconds": 90.0,
        "train_peak_memory_mb": 1234.4,
        "track": {"rows": rows},
        "audio": {"rows": {"avatar": heard}},
    }
    views = {"view_-30": {"psnr_db": 24.21}, "view_+30": {"psnr_db": 24.17}}
    actor = {"train_seconds": None, "train_peak_memory_mb": None, "track": {"rows": rows | views}}
    head, *lines = fidelity.table({"me": me, "actor": actor}).splitlines()
    assert head.split() == ["me", "actor"] and {len(line) for line in lines} == {len(head)}
    for figures in (
        "dB 24.57 24.57",
        "(lag, frames) 0.73 (+5, end of search) -",
        "lips by sound, % of eye distance 6.03 -",
        "of the true spread 0.87 -",
        "+30 degrees to the side, dB - 24.17",
        "training, min 1.5 -",
        "peak memory, MB 1234 -",
    ):
        assert any(" ".join(line.split()).endswith(figures) for line in lines), figures
