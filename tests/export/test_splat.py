"""SPLAT: rows, order and colours, as gaussforge reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_people import assert_canonical, assert_same, colours

from gsth.avatar import Avatar
from gsth.export import _ply, _scene, splat


def test_a_foreign_reader_sees_the_person(person: Avatar, want: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    gaussforge = pytest.importorskip("gaussforge")
    list(splat.Config().build().write(person, tmp_path / "a.splat"))
    data = (tmp_path / "a.splat").read_bytes()
    assert len(data) == 32 * len(want[0])
    converted = gaussforge.GaussForge().convert(data, "splat", "ply")["data"]
    read = _ply.raw_tensors(_ply.from_bytes(converted, "converted"), "converted")
    rgb = colours(read["sh"][:, 0])
    assert_canonical(read["means"], rgb)
    assert_same(read["means"], rgb, *want)


def test_large_and_opaque_splats_come_first(person: Avatar) -> None:
    still = _scene.still(person, splat.Config())
    rows = splat.to_rows(still)
    weight = np.sort(rows["scale"], 1)[:, 1:].prod(1) * rows["rgba"][:, 3]
    assert (np.diff(weight) < 0.02 * weight.max()).all() and weight[0] > 3 * weight[-1]
    order = np.linalg.norm(rows["position"][:, None] - still.means.numpy()[None], axis=-1).argmin(1)
    turned = (rows["rotation"].astype(float) - 128) / 128
    unit = still.quats.numpy()[order]
    assert (np.abs((turned * unit).sum(1)) > 0.99).all()
