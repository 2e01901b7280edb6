"""GLB: one file with the rigged head as an ordinary skinned mesh, its splats, and how they hang together.

Any glTF viewer shows the mesh (52 named morph targets, 5 joints, a baked animation); viewers of KHR_gaussian_splatting
show the splats at rest; what reads GSTH_gaussian_rig (docs/format.md) moves the splats with the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Event


@dataclass(frozen=True)
class Config:
    """A .glb with mesh, joints, expressions, splats and animation."""

    motion: Path | None = None
    """Motion or Track artifact to bake as animation; without it, the avatar's own clip."""
    sh_degree: int = 3
    """Highest degree of spherical harmonics that is written."""
    precision: Literal["compact", "full"] = "compact"
    """compact: the rig's splat data in 8 and 16 bits; full: all in 32 bits."""

    def __post_init__(self) -> None:
        if not 0 <= self.sh_degree <= 3:
            raise InputError(f"--sh-degree is {self.sh_degree}; it must be 0 to 3")

    def build(self) -> GlbExporter:
        """The exporter of these settings."""
        return GlbExporter(self)


class GlbExporter:
    """Writes .glb files."""

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file."""
        from gsth.export import _glb_write, _scene

        motion = _scene.motion_of(avatar, self._config.motion)
        data = _glb_write.to_bytes(avatar, motion, self._config.sh_degree, self._config.precision == "compact")
        yield _scene.written(out, data, len(avatar.splats.face_ids))
