"""The driver of docs/extend/driver.md."""

from __future__ import annotations

import pytest
import torch

from gsth import drive, registry
from gsth.errors import InputError


def test_the_metronome_keeps_time(example, person) -> None:
    example("drive", "metronome")
    avatar = person(torch.zeros(10, 52), 8)
    driver = registry.plugin("drive", "metronome")(bpm=150.0, seconds=2.0).build(avatar)
    assert [len(piece) for piece in driver.stream()] == [10] * 5
    motion = drive.offline(driver)
    jaw = motion.expr[:, avatar.head.expression_names.index("jawOpen")]
    closed = (jaw < 1e-4).nonzero()[:, 0].tolist()
    assert closed == [0, 10, 20, 30, 40] and float(jaw.max()) == pytest.approx(0.6)
    assert torch.allclose(motion.joints[10], avatar.motion.joints[0], atol=1e-5)
    assert not torch.allclose(motion.joints[5], avatar.motion.joints[0], atol=1e-2)
    assert motion.head == avatar.head.id and driver.sound is None


def test_its_settings_are_checked(example) -> None:
    with pytest.raises(InputError, match="--bpm is 0"):
        example("drive", "metronome").Config(bpm=0.0)
