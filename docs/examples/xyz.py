"""An exporter: one line of text per splat, for spreadsheets and point cloud tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Event


@dataclass(frozen=True)
class Config:
    """A .xyz file: position in m and colour 0 to 255 of each splat."""

    frame: int = 0
    """Frame of the avatar's own motion."""
    min_opacity: float = 0.5
    """Splats below this are left out."""

    def build(self) -> Xyz:
        """The exporter of these settings."""
        return Xyz(self)


class Xyz:
    """Writes .xyz files; see ``gsth.export.Exporter``."""

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file, whole or absent."""
        import numpy as np
        import torch

        from gsth import math3d
        from gsth.media import whole_file
        from gsth.types import Done

        if not 0 <= self._config.frame < len(avatar.motion):
            raise InputError(f"--frame is {self._config.frame}; the avatar's motion has {len(avatar.motion)} frames")
        with torch.no_grad():
            splats = avatar.pose(avatar.motion[self._config.frame])
        back = math3d.transform_inverse(math3d.mean_placement(avatar.motion.T_world_head))
        means = math3d.transform_points(back[None], splats.means) * torch.tensor((1.0, -1, -1))  # y up, face to +z
        colours = ((0.5 + 0.28209479 * splats.sh[:, 0]).clamp(0, 1) * 255).round()
        rows = torch.cat((means, colours), 1)[splats.opacities >= self._config.min_opacity]
        with whole_file(out) as temporary:
            np.savetxt(temporary, rows.numpy(), fmt=["%.5f"] * 3 + ["%d"] * 3)
        yield Done(out, {"splats": float(len(rows))})
