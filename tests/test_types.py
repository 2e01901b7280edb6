"""The coins: shapes are checked and named, frozen, indexable, movable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from gsth.errors import InputError
from gsth.types import Cameras, Clip, Coin, HeadId, Identity, Mesh, Motion, RiggedSplats, Splats

HEAD = HeadId("made-up", "1", "0123456789abcdef")


def motion(frames: int = 4, audio: bool = False) -> Motion:
    return Motion(
        HEAD,
        25.0,
        torch.arange(frames * 3.0).reshape(frames, 3),
        torch.rand(frames, 5, 4),
        torch.rand(frames, 7),
        torch.rand(frames, 2) if audio else None,
    )


def splats(n: int = 5, k: int = 4) -> Splats:
    return Splats(torch.rand(n, 3), torch.rand(n, 4), torch.rand(n, 3), torch.rand(n), torch.rand(n, k, 3))


def test_wrong_rank_names_field_wanted_and_found() -> None:
    with pytest.raises(InputError, match=r"Identity.shape: want shape \[s.*\], got \[4, 1\]"):
        Identity(HEAD, torch.rand(4, 1))


def test_sizes_of_one_letter_must_agree() -> None:
    with pytest.raises(InputError, match=r"Splats.quats: want shape \[n=5 \(from means\), 4\], got \[6, 4\]"):
        dataclasses.replace(splats(), quats=torch.rand(6, 4))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(RiggedSplats)])
def test_every_field_of_rigged_splats_is_checked(field: str) -> None:
    n = 5
    good = RiggedSplats(
        torch.zeros(n, dtype=torch.int64), torch.rand(n, 3), torch.rand(n, 4), torch.rand(n, 3), torch.rand(n),
        torch.rand(n, 1, 3),
    )  # fmt: skip
    value = getattr(good, field)
    with pytest.raises(InputError, match="RiggedSplats"):
        good.replace(**{field: torch.cat((value, value[:1]))})


def test_literal_sizes_are_checked() -> None:
    with pytest.raises(InputError, match="Cameras.viewmats"):
        Cameras(torch.rand(1, 3, 4), torch.rand(1, 3, 3), 8, 8)
    with pytest.raises(InputError, match="Mesh.faces"):
        Mesh(torch.rand(1, 4, 3), torch.zeros(2, 4, dtype=torch.int64))


def test_optional_fields_may_be_none_but_not_wrong() -> None:
    assert motion().audio is None and motion(audio=True).audio is not None
    with pytest.raises(InputError, match=r"Motion.audio: want shape \[t=4 \(from expr\), d.*\], got \[3, 2\]"):
        motion().replace(audio=torch.rand(3, 2))


def test_coins_are_frozen() -> None:
    for coin in (motion(), splats(), HEAD, Clip(Path("a"), 25.0, 50, 8, 8, None)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            coin.fps = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("audio", [False, True])
def test_motion_is_indexed_by_frame(audio: bool) -> None:
    whole = motion(audio=audio)
    assert len(whole) == 4
    for index in range(-4, 4):
        one = whole[index]
        assert len(one) == 1 and torch.equal(one.expr[0], whole.expr[index])
        assert (one.audio is None) == (not audio)
    assert torch.equal(whole[1:3].joints, whole.joints[1:3]) and whole[1:3].fps == 25.0
    assert len(whole[::2]) == 2 and len(list(whole)) == 4
    for index in (4, -5):
        with pytest.raises(IndexError, match="motion of 4 frames"):
            whole[index]


def test_to_moves_every_tensor_and_nothing_else() -> None:
    moved = motion(audio=True).to("meta")
    tensors = (moved.expr, moved.joints, moved.T_world_head, moved.audio)
    assert all(t is not None and t.device.type == "meta" for t in tensors) and moved.head == HEAD
    assert all(isinstance(c, Coin) for c in (moved, splats().to("meta")))


def test_clip_knows_its_length() -> None:
    assert Clip(Path("a.mp4"), 30000 / 1001, 300, 8, 8, None).seconds == pytest.approx(10.01)


def test_head_id_is_said_shortly() -> None:
    assert str(HEAD) == "made-up 1 (01234567)"
