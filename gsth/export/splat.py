"""SPLAT, 32 bytes per splat and no view-dependent colour: the format of small web viewers (antimatter15/splat)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.export._scene import Axes, Pose

if TYPE_CHECKING:
    import numpy as np

    from gsth.avatar import Avatar
    from gsth.types import Event, Splats


@dataclass(frozen=True)
class Config(Pose):
    """A .splat file of one pose."""

    axes: Axes = "y_up"
    """y_up as in every other format, or colmap (y down, face to -z) for tools that expect axes as in training."""

    def build(self) -> SplatExporter:
        """The exporter of these settings."""
        return SplatExporter(self)


class SplatExporter:
    """Writes .splat files."""

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file."""
        from gsth.export import _scene

        splats = _scene.to_axes(_scene.still(avatar, self._config), self._config.axes)
        yield _scene.written(out, to_rows(splats).tobytes(), len(splats.means))


def to_rows(splats: Splats) -> np.ndarray:
    """The file's rows [n]: position, scale (float32), rgba, quaternion wxyz (uint8); most visible first.

    Viewers draw while the file still loads, so what matters most comes first.
    """
    import numpy as np
    import torch

    size = splats.scales.sort(1).values[:, 1:].prod(1)  # the two larger axes: what it covers
    order = (size * splats.opacities).argsort(descending=True)
    n = len(order)
    colour = 0.5 + 0.28209479177387814 * splats.sh[:, 0]
    rgba = torch.cat((colour, splats.opacities[:, None]), 1).clamp(0, 1) * 255
    turn = (splats.quats / splats.quats.norm(dim=1, keepdim=True) * 128 + 128).clamp(0, 255)
    kind = [("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)]
    rows = np.empty(n, np.dtype(kind))
    for (name, *_), values in zip(kind, (splats.means, splats.scales, rgba.round(), turn.round()), strict=True):
        rows[name] = values[order].numpy()
    return rows
