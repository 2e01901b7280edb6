from __future__ import annotations

import torch

from gsth.avatar._views import sharpened


def test_wall_inside_the_mattes_edge_is_not_the_person() -> None:
    # A red square before a grey wall with a red spot; the matte is 3 px too wide.
    plate = torch.full((256, 256, 3), 0.5)
    image = plate.clone()
    image[80:176, 80:176] = torch.tensor((0.8, 0.2, 0.2))
    image[120:136, 120:136] = 0.5  # a grey button well inside
    matte = torch.zeros(256, 256)
    matte[77:179, 77:179] = 1.0
    sharp = sharpened(matte, image, plate)
    wanted = torch.zeros(256, 256)
    wanted[80:176, 80:176] = 1.0
    assert torch.equal(sharp, wanted)
    assert torch.equal(sharpened(matte, image, None), matte)


def test_a_person_coloured_like_the_wall_keeps_all_but_the_edge() -> None:
    plate = torch.full((256, 256, 3), 0.5)
    matte = torch.zeros(256, 256)
    matte[50:200, 50:200] = 1.0
    sharp = sharpened(matte, plate, plate)
    assert sharp[56:194, 56:194].all() and sharp.sum() < matte.sum()
