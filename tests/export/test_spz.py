"""SPZ 3 and 4: foreign readers, precision, and files that nobody should trust."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from export_people import assert_canonical, assert_same, colours
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth import math3d
from gsth.avatar import Avatar
from gsth.errors import InputError, MissingExtraError
from gsth.export import _import, _scene, _spz, spz
from gsth.types import Splats


def small(degree: int = 1, n: int = 3) -> Splats:
    sh = torch.rand(n, (degree + 1) ** 2, 3) - 0.5
    return Splats(torch.rand(n, 3), torch.rand(n, 4) + 0.1, torch.rand(n, 3) * 0.1 + 0.01, torch.rand(n), sh)


@pytest.mark.parametrize("version", [3, 4])
def test_foreign_readers_see_the_person(
    version: int, person: Avatar, want: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    gsply = pytest.importorskip("gsply")
    list(spz.Config(version=version).build().write(person, tmp_path / "a.spz"))  # type: ignore[arg-type]
    read = gsply.read_spz(tmp_path / "a.spz")
    assert_canonical(read.means, colours(read.sh0))
    assert_same(read.means, colours(read.sh0), *want)
    still = _scene.still(person, _scene.Still())
    assert np.abs(read.scales - still.scales.log().numpy()).max() < 0.04
    assert (np.abs((read.quats * still.quats.numpy()).sum(1)) > 0.9999).all()
    assert np.abs(read.shN - still.sh[:, 1:].numpy()).max() < 0.05


@pytest.mark.parametrize("version", [3, 4])
def test_the_makers_library_turns_it_upright(
    version: int, person: Avatar, splat_transform: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """splat-transform reads by Niantic's own library, and knows the axes: in a ply it puts y down."""
    list(spz.Config(version=version).build().write(person, tmp_path / "a.spz"))  # type: ignore[arg-type]
    splat_transform(tmp_path / "a.spz", tmp_path / "b.ply")
    read = _import.read_splats(tmp_path / "b.ply", "colmap")
    assert_canonical(read.means.numpy(), colours(read.sh[:, 0].numpy()))
    still = _scene.still(person, _scene.Still())
    order = torch.cdist(read.means, still.means).argmin(1)
    assert sorted(order.tolist()) == list(range(len(order)))
    # it turned the view-dependent colour by its own signs, and ours turned it back
    assert (read.sh[:, 1:] - still.sh[order, 1:]).abs().max() < 0.05
    # quaternions of mirrored axes differ, the shapes must not
    ours, theirs = (
        math3d.quat_to_mat(q) * s[:, None]
        for q, s in ((still.quats[order], still.scales[order]), (read.quats, read.scales))
    )
    want, got = (m @ m.transpose(1, 2) for m in (ours, theirs))
    assert ((want - got).norm(dim=(1, 2)) < 0.1 * want.norm(dim=(1, 2))).all()


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_was_written_comes_back(version: int, degree: int) -> None:
    splats = small(degree, 50)
    again = _spz.from_bytes(_spz.to_bytes(splats, version), "x")
    assert (again.means - splats.means).abs().max() < 1e-5
    assert (again.opacities - splats.opacities).abs().max() < 0.5 / 255 + 1e-6
    assert (again.scales.log() - splats.scales.log()).abs().max() < 0.5 / 16 + 1e-5
    assert again.sh.shape == splats.sh.shape and torch.allclose(again.sh[:, 1:], splats.sh[:, 1:], atol=0.07)
    unit = splats.quats / splats.quats.norm(dim=1, keepdim=True)
    assert ((again.quats * unit).sum(1).abs() > 0.9999).all()


def test_version_two_is_read() -> None:
    """Written by hand, as old files are: quaternions by their first three components, 12 fraction bits."""
    fixed = np.array((4096, -2048, 1), "<i4")
    body = b"".join(int(v).to_bytes(4, "little", signed=True)[:3] for v in fixed)
    body += bytes((255, 128, 0, 255, 160, 144, 128, 128, 128, 128 + 90))
    data = gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 2, 1, 0, 12, 0, 0) + body)
    read = _spz.from_bytes(data, "x")
    assert torch.allclose(read.means, torch.tensor([[1.0, -0.5, 1 / 4096]]))
    assert torch.allclose(read.scales.log(), torch.tensor([[0.0, -1.0, -2.0]]), atol=1e-6)
    assert torch.allclose(read.quats.norm(dim=1), torch.ones(1), atol=0.01) and read.quats[0, 3] > 0.7


GOOD = {version: _spz.to_bytes(small(), version) for version in (3, 4)}


def header(n: int, degree: int = 0, bits: int = 12, version: int = 3) -> bytes:
    return struct.pack("<IIIBBBB", 0x5053474E, version, n, degree, bits, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an spz"),
        (b"nonsense" * 9, "not an spz"),
        (GOOD[3][:-20], "cut off|damaged"),
        (GOOD[4][:-20], "damaged"),
        (GOOD[4][:40], "table"),
        (gzip.compress(header(2**31 - 1), mtime=0), "promises"),
        (gzip.compress(header(1, degree=9), mtime=0), "promises"),
        (gzip.compress(header(1, version=1), mtime=0), "version 1"),
        (gzip.compress(header(1) + b"\0" * 10_000_000, mtime=0), "holds 21: cut off|holds"),  # a bomb is not unpacked
        (gzip.compress(header(5), mtime=0), "cut off"),
    ],
)
def test_damage_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.spz").write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        _import.read_splats(tmp_path / "x.spz")
    assert "x.spz" in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(version=st.sampled_from((3, 4)), at=st.integers(0, 150), noise=st.binary(min_size=1, max_size=8))
def test_no_file_does_harm(version: int, at: int, noise: bytes) -> None:
    good = GOOD[version] if version == 4 else gzip.decompress(GOOD[3])
    data = good[:at] + noise + good[at + len(noise) :]
    try:
        read = _spz.from_bytes(data if version == 4 else gzip.compress(data, 1), "fuzz")
    except InputError:
        return
    assert all(torch.isfinite(getattr(read, name)).all() for name in ("means", "quats", "scales", "opacities", "sh"))


def test_version_four_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"gsth\[export\]"):
        _spz.to_bytes(small(), 4)
    assert _spz.from_bytes(_spz.to_bytes(small(), 3), "x").means.shape == (3, 3)
