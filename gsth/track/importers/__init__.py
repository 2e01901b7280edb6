"""Other people's tracks. To add a layout: a file here with a frozen ``Config`` whose ``build()`` returns a Foreign.

A Config has a ``folder`` and a classmethod ``knows(folder)``: whether the folder looks like this layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gsth import registry
from gsth.errors import InputError
from gsth.types import Event

if TYPE_CHECKING:
    from gsth.track._config import TrackConfig


@dataclass(frozen=True, eq=False)
class FlameMotion:
    """FLAME coefficients of every frame, in FLAME's own axes (y up, face along +z)."""

    shape: np.ndarray
    """[up to 300]."""
    offsets: np.ndarray | None
    """Of the neutral vertices, m [v 3]."""
    expr: np.ndarray
    """[t up to 100]."""
    neck: np.ndarray
    """Rotation vector [t 3]."""
    jaw: np.ndarray
    """Rotation vector [t 3]."""
    eyes: np.ndarray
    """Rotation vectors of the left and the right eye [t 2 3]."""
    eyelids: np.ndarray | None
    """How far the left and the right eye are shut, 0 to 1 [t 2], where the tracker has that."""
    turn: np.ndarray
    """Rotation of FLAME about its root joint, before the camera [t 3 3]."""
    shift: np.ndarray
    """After that, m [t 3]."""
    view: np.ndarray
    """World to camera, OpenCV axes [t 4 4]."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """What a folder holds, frames in order."""

    folder: Path
    pictures: tuple[Path, ...]
    picture: Callable[[Path], np.ndarray]
    """Reads one: uint8 [h w 3]."""
    mattes: tuple[Path, ...] | None
    matte: Callable[[Path], np.ndarray] | None
    """Reads one: uint8 [h w], 255 is person."""
    plate: Path | None
    sound: Path | None
    fps: float
    K: np.ndarray
    """Intrinsics, px of the pictures [3 3]."""
    train_frames: int | None
    """How many, from the start, train; None: the layout has no split, ``TrackConfig.holdout`` makes one."""
    motion: FlameMotion | None
    """None: the layout's own head model cannot be used, gsth's own is fitted to the pictures."""
    notices: tuple[str, ...] = ()


def bring(folder: Path, out: Path, config: TrackConfig) -> Iterator[Event]:
    """Make a Track of a folder that another project's tracker wrote; streams events as ``track`` does.

    Raises:
        InputError: No layout is known that looks like this, or a file of it is missing (the message names it).
    """
    from gsth.track.importers import _bring

    yield from _bring.bring(recognised(folder), out, config)


def recognised(folder: Path) -> Foreign:
    """Read a folder by the layout that it has."""
    names = registry.names("track.importers")
    for name in names:
        plugin = registry.plugin("track.importers", name)
        if plugin.knows(folder):
            return plugin(folder).build()
    raise InputError(
        f"{folder}: is a folder, but not of a layout that can be imported ({', '.join(names)}); wanted a video, "
        f"a VHAP export (transforms.json with flame_param), a metrical-tracker output (checkpoint/*.frame) or an "
        f"AD-NeRF folder (transforms_train.json, ori_imgs)"
    )
