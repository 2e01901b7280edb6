"""Draws an avatar that nerfstudio trained: ``python check_avatar.py AVATAR TRACK PICTURE``. Fails where it is unlike.

The picture shows truth and avatar side by side, three frames.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gsth import artifacts, media, render
from gsth.avatar import Avatar
from gsth.types import Track

PSNR_DB = 30.0
"""On make_track.py's track the splats as they are placed have 26.2 dB, after 60 steps 32.7."""


def main(avatar: Path, track: Path, picture: Path) -> int:
    made, truth = Avatar.load(avatar), artifacts.load(Track, track)
    rows, errors = [], []
    for frame in (0, len(made.motion) // 2, len(made.motion) - 1):
        with torch.no_grad():
            drawn = render.render(made.pose(made.motion[frame]), made.cameras, background=torch.full((3,), 0.5))
        matte = torch.from_numpy(truth.mattes[frame].copy()).float()[..., None] / 255
        seen = torch.from_numpy(truth.images[frame].copy()).float() / 255 * matte + 0.5 * (1 - matte)
        errors.append((drawn.rgb[0] - seen).square().mean())
        rows.append(torch.cat((seen, drawn.rgb[0].clamp(0, 1)), 1))
    media.write_image(picture, (torch.cat(rows) * 255).round().byte().numpy())
    psnr_db = float(-10 * torch.log10(torch.stack(errors).mean()))
    print(f"{len(made.splats.face_ids)} splats, {psnr_db:.1f} dB against the clip (wanted: {PSNR_DB:g}); see {picture}")
    return int(psnr_db < PSNR_DB)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
