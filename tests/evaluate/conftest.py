"""A made-up avatar whose pictures are known, and its clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up_avatar import CROP, QUICK, SIZE, TOTAL, TRAINED, avatar_of

from gsth import evaluate, media
from gsth.evaluate import EvalConfig

if TYPE_CHECKING:
    from gsth.avatar import Avatar


@pytest.fixture
def clip_path(tmp_path: Path) -> Path:
    """A wandering colour wave, 64 x 48, with sound."""
    y, x = np.mgrid[:48, :64]
    waves = (
        np.stack([np.sin(x / 9 + t / 3), np.cos(y / 7 - t / 5), np.sin((x + y) / 11 + t / 4)], -1) for t in range(TOTAL)
    )
    sound = np.sin(np.arange(int(16000 * TOTAL / 25)) / 9).astype(np.float32) / 3
    media.write_video(tmp_path / "clip.mp4", ((127 + 100 * w).astype(np.uint8) for w in waves), 25.0, sound, 16000)
    return tmp_path / "clip.mp4"


@pytest.fixture
def avatar(clip_path: Path) -> Avatar:
    return avatar_of(clip_path, CROP, SIZE, TRAINED)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, avatar: Avatar) -> Callable[..., list[Any]]:
    """``evaluate.run`` on the made-up avatar, or on another one."""
    from gsth.avatar import Avatar

    def scored(config: EvalConfig | None = None, made: Avatar = avatar) -> list[Any]:
        monkeypatch.setattr(Avatar, "load", lambda path: made)
        return list(evaluate.run(Path("made_up.avatar"), config or QUICK))

    return scored
