"""PLY, the format of 3D Gaussian Splatting that every viewer, Blender, Unity and Unreal plug-in opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError
from gsth.export._scene import Axes, Still

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Event


@dataclass(frozen=True)
class Config(Still):
    """A 3D Gaussian Splatting .ply of one pose, or a folder of them, one per frame."""

    axes: Axes = "y_up"
    """y_up as in every other format, or colmap (y down, face to -z) for tools that expect axes as in training."""
    sequence: bool = False
    """Write every frame of the motion, into the folder OUT as 00000.ply and so on."""

    def build(self) -> PlyExporter:
        """The exporter of these settings."""
        return PlyExporter(self)


class PlyExporter:
    """Writes .ply files."""

    def __init__(self, config: Config) -> None:
        """Take the settings. Raises InputError where they contradict each other."""
        if config.sequence and config.frame is not None:
            raise InputError("--sequence writes every frame; leave --frame out")
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file, or a folder that is whole or absent."""
        from gsth import artifacts
        from gsth.export import _ply, _scene
        from gsth.types import Done, Step

        config = self._config
        if not config.sequence:
            splats = _scene.to_axes(_scene.still(avatar, config), config.axes)
            yield _scene.written(out, _ply.to_bytes(_ply.from_splats(splats)), len(splats.means))
            return
        motion = _scene.motion_of(avatar, config.motion)
        with artifacts.writing(out, "ply sequence", {"fps": motion.fps, "frames": len(motion)}) as folder:
            for i, splats in enumerate(_scene.sequence(avatar, motion, config.sh_degree)):
                columns = _ply.from_splats(_scene.to_axes(splats, config.axes))
                (folder / f"{i:05d}.ply").write_bytes(_ply.to_bytes(columns))
                yield Step("ply", i + 1, len(motion))
        yield Done(out, {"frames": float(len(motion)), "fps": motion.fps})
