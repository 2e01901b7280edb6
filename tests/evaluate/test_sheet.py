"""The picture sheet of an avatar that can be seen: a box, each side in a colour of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from made_up_avatar import TOTAL

from gsth import evaluate, math3d, media, provenance
from gsth.evaluate._sheet import CELL_PX, NEVER_MADE
from gsth.head import JOINTS
from gsth.types import RiggedSplats

if TYPE_CHECKING:
    from gsth.avatar import Avatar

pytest.importorskip("mediapipe", reason="mediapipe is absent: pip install 'gsth[eval]'")

HALF_M = 0.15
COLOURS = {(0, -1): "red", (0, 1): "green", (1, -1): "blue", (1, 1): "yellow", (2, -1): "cyan", (2, 1): "magenta"}
"""Of the sides that look along each axis, backwards and forwards; the camera looks along the last one."""
RGB = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "cyan": (0, 1, 1)}
MINE, SIDES, TURNS, FACES = (1,), (5, 6), (7, 8), (9, 10)


@pytest.fixture
def box(avatar: Avatar) -> Avatar:
    """Turns its head a little, and has every expression of the sheet, each of which moves some corners."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    triangles, colours = [], []
    for (axis, way), colour in COLOURS.items():
        side = [i for i, corner in enumerate(corners.tolist()) if corner[axis] == way]
        # the diagonal of a side is its first and last corner, and the other two
        triangles += [side[:3], side[1:]]
        colours += [RGB.get(colour, (1, 0, 1))] * 2
    names = tuple(dict.fromkeys(name for made in NEVER_MADE for name in made))
    weights = torch.zeros(8, len(JOINTS))
    weights[:, 2] = 1
    basis = torch.randn(len(names), 8, 3, generator=torch.Generator().manual_seed(0)) * HALF_M / 3
    head = replace(
        avatar.head,
        template=corners * HALF_M,
        faces=torch.tensor(triangles),
        uvs=torch.zeros(8, 2),
        shape_basis=torch.zeros(1, 8, 3),
        expr_basis=basis,
        weights=weights,
        expression_names=names,
    )
    n = len(triangles)
    splats = RiggedSplats(
        face_ids=torch.arange(n),
        means_tri=torch.zeros(n, 3),
        quats_tri=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        log_scales=torch.full((n, 3), math.log(0.25)),
        logit_opacities=torch.full((n,), 6.0),
        sh=(torch.tensor(colours)[:, None] - 0.5) / 0.28209479,
    )
    place = avatar.motion.T_world_head.clone()
    turns = torch.linspace(-1.0, 0.25, TOTAL)[:, None] * torch.tensor((0.3, 1.0, 0.0))
    place[:, :4] = math3d.rotvec_to_quat(turns)
    motion = avatar.motion.replace(expr=torch.zeros(TOTAL, len(names)), T_world_head=place)
    return replace(avatar, head=head, splats=splats, motion=motion, plate=torch.full_like(avatar.plate, 0.5))


@pytest.fixture
def cells(box: Avatar, clip_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The sheet, without what is stamped on it, [row column h w 3]."""
    monkeypatch.setattr(provenance, "write_image", lambda path, picture, *_: media.write_image(path, picture))
    evaluate.sheet(box, media.probe(clip_path), tmp_path / "sheet.png")
    whole = media.read_image(tmp_path / "sheet.png").astype(int)
    rows, columns = (side // CELL_PX for side in whole.shape[:2])
    return whole.reshape(rows, CELL_PX, columns, CELL_PX, 3).transpose(0, 2, 1, 3, 4)


def test_every_row_shows_the_avatar_and_no_picture_is_another_one(cells: np.ndarray) -> None:
    assert cells.shape[:2] == (11, 4)
    drawn = [(row, column) for row in (*MINE, *SIDES, *TURNS, *FACES) for column in range(4)]
    for at in drawn:
        coloured = np.ptp(cells[at], axis=-1) > 60
        assert 0.08 < coloured.mean() < 0.9, at
    for a, b in combinations(drawn, 2):
        assert np.abs(cells[a] - cells[b]).mean() > 1.5, (a, b)


def test_the_turntable_goes_from_one_side_to_the_other(cells: np.ndarray) -> None:
    turned = cells[list(TURNS)].reshape(-1, *cells.shape[2:])
    middle = turned[:, CELL_PX // 2 - 20 : CELL_PX // 2 + 20, CELL_PX // 2 - 20 : CELL_PX // 2 + 20].mean((1, 2))
    red, green, cyan = (255 * np.array(RGB[colour]) for colour in ("red", "green", "cyan"))
    for picture, colour in ((0, red), (3, cyan), (4, cyan), (7, green)):
        assert np.abs(middle[picture] - colour).max() < 60, (picture, middle[picture])
