"""PLY: what gsply reads is what was exported; sequences; files that nobody should trust."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from export_people import FRAMES, assert_canonical, assert_same, colours
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.export import _import, _ply, _scene, ply
from gsth.types import Done, Splats


def export(person: Avatar, config: ply.Config, out: Path) -> Done:
    *_, done = config.build().write(person, out)
    assert isinstance(done, Done) and done.path == out and out.exists()
    return done


def test_a_foreign_reader_sees_the_person(person: Avatar, want: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    done = export(person, ply.Config(), tmp_path / "a.ply")
    read = gsply.plyread(tmp_path / "a.ply")
    assert done.values["splats"] == len(read.means)
    assert_canonical(read.means, colours(read.sh0))
    assert_same(read.means, colours(read.sh0), *want)
    still = _scene.still(person, _scene.Still())
    assert np.allclose(np.exp(read.scales), still.scales.numpy(), rtol=1e-5)
    assert np.allclose(1 / (1 + np.exp(-read.opacities)), still.opacities.numpy(), atol=1e-5)
    assert np.allclose(read.shN, still.sh[:, 1:].numpy(), atol=1e-6)
    assert np.allclose(np.abs((read.quats * still.quats.numpy()).sum(1)), 1, atol=1e-5)


def test_what_was_written_comes_back(person: Avatar, tmp_path: Path) -> None:
    for axes in ("y_up", "colmap"):
        export(person, ply.Config(axes=axes, frame=3), tmp_path / "a.ply")
        again, still = _import.read_splats(tmp_path / "a.ply", axes), _scene.still(person, _scene.Still(frame=3))
        for name in ("means", "scales", "opacities", "sh"):
            assert torch.allclose(getattr(again, name), getattr(still, name), atol=1e-5), (axes, name)


def test_sh_is_cut_where_asked(person: Avatar, tmp_path: Path) -> None:
    export(person, ply.Config(sh_degree=0), tmp_path / "a.ply")
    assert _import.read_splats(tmp_path / "a.ply").sh.shape[1] == 1


def test_a_sequence_is_whole(person: Avatar, tmp_path: Path) -> None:
    export(person, ply.Config(sequence=True), tmp_path / "frames")
    files = sorted((tmp_path / "frames").glob("*.ply"))
    assert [f.name for f in files] == [f"{i:05d}.ply" for i in range(FRAMES)]
    for foreign in (pytest.importorskip("gsply").plyread(f) for f in (files[0], files[-1])):
        assert_canonical(foreign.means, colours(foreign.sh0))
    last = _import.read_splats(files[-1])
    assert torch.allclose(last.means, _scene.still(person, _scene.Still(frame=FRAMES - 1)).means, atol=1e-6)
    with pytest.raises(InputError, match="leave --frame out"):
        ply.Config(sequence=True, frame=1).build()


def small() -> bytes:
    splats = Splats(
        torch.rand(3, 3), torch.rand(3, 4) + 0.1, torch.rand(3, 3) + 0.1, torch.rand(3), torch.rand(3, 4, 3)
    )
    return _ply.to_bytes(_ply.from_splats(splats))


GOOD = small()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a ply"),
        (GOOD[:-1], "cut off"),
        (GOOD.replace(b"vertex 3", b"vertex 999999999999"), "promises"),
        (GOOD.replace(b"binary_little_endian", b"ascii"), "binary_little_endian"),
        (GOOD.replace(b"element vertex", b"element chunk"), "splat-transform"),
        (GOOD.replace(b"float rot_3", b"float spin3"), "lacks rot_3"),
        (GOOD.replace(b"property float x", b"property list uchar int x"), "plain numbers"),
        (GOOD.replace(b"f_rest_8", b"ff_rst_8"), "8 f_rest"),
        (GOOD[: GOOD.index(b"end_header") + 11] + b"\xff" * len(GOOD), "not finite"),
    ],
)
def test_damage_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.ply").write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        _import.read_splats(tmp_path / "x.ply")
    assert "x.ply" in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(GOOD)), at=st.integers(0, len(GOOD) - 1), noise=st.binary(min_size=1, max_size=8))
def test_no_file_does_harm(cut: int, at: int, noise: bytes) -> None:
    data = (GOOD[:at] + noise + GOOD[at + len(noise) :])[: max(cut, at)]
    try:
        raw = _ply.raw_tensors(_ply.from_bytes(data, "fuzz"), "fuzz")
    except InputError:
        return
    assert all(np.isfinite(values).all() for values in raw.values())
