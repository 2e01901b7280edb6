"""SPZ, a tenth of a ply: the compressed format of Niantic, for phones, web viewers and archives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gsth.export._scene import Still

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Event


@dataclass(frozen=True)
class Config(Still):
    """A .spz file of one pose."""

    version: Literal[3, 4] = 3
    """3 is read by everything that reads spz; 4 is a little smaller and newer."""

    def build(self) -> SpzExporter:
        """The exporter of these settings."""
        return SpzExporter(self)


class SpzExporter:
    """Writes .spz files."""

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """One file."""
        from gsth.export import _scene, _spz

        splats = _scene.still(avatar, self._config)
        yield _scene.written(out, _spz.to_bytes(splats, self._config.version), len(splats.means))
