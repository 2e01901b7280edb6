"""Motion from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import artifacts
from gsth.drive import motion, offline
from gsth.errors import InputError
from gsth.types import HeadId


@pytest.fixture(scope="module")
def made(person):
    return person(torch.rand(70, 52, generator=torch.Generator().manual_seed(0)), 70)


def test_an_artifact_plays_unchanged(tmp_path: Path, made) -> None:
    artifacts.save(made.motion, tmp_path / "m")
    played = offline(motion.Config(tmp_path / "m").build(made))
    assert len(played) == 70 and played.fps == made.motion.fps
    assert torch.equal(played.expr, made.motion.expr)
    assert torch.equal(played.joints, made.motion.joints)
    assert torch.equal(played.T_world_head, made.motion.T_world_head)


def test_an_npz_is_read_by_expression_name(tmp_path: Path, made) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, expr=np.array([[0.2, 0.9], [1.4, 0.0]]), names=np.array(["jawOpen", "tongueOut"]), fps=50.0)
    played = offline(motion.Config(path).build(made))
    names = made.head.expression_names
    torch.testing.assert_close(played.expr[:, names.index("jawOpen")], torch.tensor([0.2, 1.0]))
    torch.testing.assert_close(played.expr[:, names.index("tongueOut")], torch.tensor([0.9, 0.0]))
    assert played.expr.sum() == pytest.approx(2.1)
    assert played.fps == 50.0
    torch.testing.assert_close(played.T_world_head[1], made.motion.T_world_head[0])


def test_a_motion_of_another_head_is_refused(tmp_path: Path, made) -> None:
    artifacts.save(made.motion.replace(head=HeadId("flame", "2023", "0" * 16)), tmp_path / "m")
    with pytest.raises(InputError, match="is for head flame"):
        motion.Config(tmp_path / "m").build(made)


def test_unusable_files_are_refused(tmp_path: Path, made) -> None:
    with pytest.raises(InputError, match="no such file"):
        motion.Config(tmp_path / "none").build(made)
    text = tmp_path / "a.npz"
    text.write_text("not an npz")
    with pytest.raises(InputError, match="cannot be read"):
        motion.Config(text).build(made)
    bare = tmp_path / "b.npz"
    np.savez(bare, expr=np.zeros((2, 1)))
    with pytest.raises(InputError, match="lacks fps, names"):
        motion.Config(bare).build(made)
    alien = tmp_path / "c.npz"
    np.savez(alien, expr=np.zeros((2, 1)), names=np.array(["wiggleEars"]), fps=25.0)
    with pytest.raises(InputError, match="wiggleEars"):
        motion.Config(alien).build(made)
    wrong = tmp_path / "d.npz"
    np.savez(wrong, expr=np.zeros((2, 3)), names=np.array(["jawOpen"]), fps=25.0)
    with pytest.raises(InputError, match=r"want \[frames, 1\]"):
        motion.Config(wrong).build(made)
