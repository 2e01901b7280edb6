"""SOG: two foreign readers, and what the pictures hold."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from export_people import assert_canonical, assert_same, colours
from PIL import Image

from gsth.avatar import Avatar
from gsth.export import _import, _scene, sog


def test_a_foreign_reader_sees_the_person(person: Avatar, want: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    reader = pytest.importorskip("gsply.sog_reader")
    list(sog.Config().build().write(person, tmp_path / "a.sog"))
    read = reader.sogread(str(tmp_path / "a.sog"))
    assert_canonical(read.means, colours(read.sh0))
    assert_same(read.means, colours(read.sh0), *want)
    still = _scene.still(person, _scene.Still())
    assert np.abs(read.scales - still.scales.log().numpy()).max() < 0.02
    assert (np.abs((read.quats * still.quats.numpy()).sum(1)) > 0.9995).all()


def test_view_dependent_colour_comes_back(
    person: Avatar, splat_transform: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    list(sog.Config().build().write(person, tmp_path / "a.sog"))
    splat_transform(tmp_path / "a.sog", tmp_path / "b.ply")
    read, still = _import.read_splats(tmp_path / "b.ply"), _scene.still(person, _scene.Still())
    assert_same(
        read.means.numpy(), colours(read.sh[:, 0].numpy()), still.means.numpy(), colours(still.sh[:, 0].numpy())
    )
    order = np.linalg.norm(read.means.numpy()[:, None] - still.means.numpy()[None], axis=-1).argmin(1)
    # fewer splats than palette entries: only the codebook's steps are lost
    assert np.abs(read.sh[:, 1:].numpy() - still.sh[order, 1:].numpy()).max() < 0.01


def test_transparent_splats_keep_their_colour(person: Avatar) -> None:
    """WebP drops the colour of pixels with alpha 0 unless told not to."""
    still = _scene.still(person, _scene.Still(sh_degree=0))
    data = sog.to_bytes(still.replace(opacities=still.opacities * 0))
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        meta = json.loads(bundle.read("meta.json"))
        pixels = np.asarray(Image.open(io.BytesIO(bundle.read("sh0.webp")))).reshape(-1, 4)[: meta["count"]]
    assert (pixels[:, 3] == 0).all()
    rgb = colours(np.array(meta["sh0"]["codebook"])[pixels[:, :3]])
    assert np.abs(rgb - colours(still.sh[:, 0].numpy())).max() < 1 / 255
