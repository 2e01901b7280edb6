"""Draws the built-in head for the eye: ``python -m gsth.head._sheet --out sheet.png``. Development only."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from gsth import head, math3d
from gsth.head import _raster
from gsth.types import Identity, Motion

_TILE_PX = 320
_FOCAL = 4.0
_COLOURS = {
    "neck": (0.78, 0.64, 0.55),
    "bust": (0.55, 0.57, 0.62),
    "scalp": (0.6, 0.52, 0.46),
    "brows": (0.4, 0.3, 0.22),
    "lips": (0.75, 0.4, 0.38),
    "mouth_inner": (0.45, 0.12, 0.12),
    "tongue": (0.85, 0.4, 0.42),
    "teeth_upper": (1.0, 1.0, 0.98),
    "teeth_lower": (1.0, 1.0, 0.98),
    "eye_l": (0.96, 0.96, 1.0),
    "eye_r": (0.96, 0.96, 1.0),
    "lashes": (0.15, 0.12, 0.1),
    "hair_cap": (0.4, 0.26, 0.14),
    "drape": (0.46, 0.3, 0.16),
}


class _Painter:
    """Draws one head model."""

    def __init__(self) -> None:
        self.model = head.load()
        self.faces = self.model.faces.numpy()
        self.colours = np.tile((0.84, 0.7, 0.61), (len(self.faces), 1))
        for part, colour in _COLOURS.items():
            self.colours[self.model.parts[part]] = colour
        hair = torch.cat((self.model.parts["hair_cap"], self.model.parts["drape"])).numpy()
        self.bald = np.setdiff1d(np.arange(len(self.faces)), hair)

    def verts(
        self, expr: Mapping[str, float], shape: torch.Tensor | None = None, turns: Mapping[str, tuple] | None = None
    ) -> torch.Tensor:
        """Vertices [v 3] of some expression, identity and joint turns (rotation vectors by joint name)."""
        model = self.model
        activation = torch.zeros(1, len(model.expression_names))
        for name, value in expr.items():
            activation[0, model.expression_names.index(name)] = value
        turn = torch.zeros(1, len(head.JOINTS), 3)
        for joint, v in (turns or {}).items():
            turn[0, head.JOINTS.index(joint)] = torch.tensor(v)
        identity = Identity(model.id, torch.zeros(len(model.shape_basis)) if shape is None else shape)
        still = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0]])
        motion = Motion(model.id, 25.0, activation, math3d.rotvec_to_quat(turn), still)
        return model.shaped(identity).posed(motion).verts[0]

    def tile(
        self, verts: torch.Tensor, yaw_deg: float = 0.0, close: bool = True, hair: bool = False, marks: bool = False
    ) -> np.ndarray:
        """One picture [h w 3] uint8; ``marks`` adds the landmarks that face the camera."""
        centre, half = ((0, -0.1, -0.06), 0.125) if close else ((0, -0.04, -0.03), 0.27)
        c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
        turn = np.array(((c, 0, s), (0, 1, 0), (-s, 0, c)))
        cam = (verts.numpy() - centre) @ turn.T + (0, 0, half * _FOCAL)
        K = np.array(((_FOCAL * _TILE_PX / 2, 0, _TILE_PX / 2), (0, _FOCAL * _TILE_PX / 2, _TILE_PX / 2), (0, 0, 1)))
        shown = np.arange(len(self.faces)) if hair else self.bald
        hits = _raster.rasterize(cam, self.faces[shown], K, (_TILE_PX, _TILE_PX))
        image = _raster.shade(cam, self.faces[shown], hits, self.colours[shown])
        if marks:
            points = self.model.landmarks(torch.from_numpy(cam)[None].float())[0].numpy()
            px = (points[:, :2] / points[:, 2:] * K[0, 0] + _TILE_PX / 2).astype(int)
            inside = ((px >= 0) & (px < _TILE_PX)).all(1)
            px, points = px[inside], points[inside]
            front = points[:, 2] < hits.depth[px[:, 1], px[:, 0]] + 0.006
            image[px[front, 1], px[front, 0]] = (20, 40, 220)
        return image


def sheet() -> np.ndarray:
    """The whole picture [h w 3]: expressions, landmarks, identities, poses, hair carriers."""
    p = _Painter()
    expressions = [{}] + [{name: 1.0} for name in p.model.expression_names]
    tiles = [p.tile(p.verts(e)) for e in expressions]
    tiles += [p.tile(p.verts({"tongueOut": 1.0, "jawOpen": 0.5}))]
    open_mouth = {"jawOpen": 0.7, "eyeBlinkLeft": 0.5, "eyeBlinkRight": 1.0}
    for yaw in (0.0, -30.0, 30.0):
        tiles += [p.tile(p.verts({}), yaw, marks=True), p.tile(p.verts(open_mouth), yaw, marks=True)]
    generator = torch.Generator().manual_seed(0)
    for k in range(10):
        z = torch.randn(len(p.model.shape_basis), generator=generator)
        tiles.append(p.tile(p.verts({}, z), 25.0 * (k % 2), close=False))
    for turns in ({}, {"head": (0.35, 0.0, 0.0)}, {"head": (0.0, 0.6, 0.0)}, {"neck": (0.0, 0.0, 0.3)}):
        for yaw in (0.0, 70.0):
            tiles += [p.tile(p.verts({}, None, turns), yaw, close=False, hair=True)]
    tiles += [p.tile(p.verts({}), 180.0, close=False, hair=True)]
    tiles += [p.tile(p.verts({}, None, {"eye_l": (0.0, v, 0.0), "eye_r": (0.0, v, 0.0)})) for v in (-0.4, 0.4)]
    columns = 10
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def main() -> None:
    """Write the sheet."""
    import imageio.v3 as iio

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    iio.imwrite(parser.parse_args().out, sheet())


if __name__ == "__main__":
    main()
