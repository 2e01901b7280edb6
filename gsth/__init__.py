"""gsth: 3D Gaussian Splatting talking heads, from a short video to an avatar that speaks.

The names below are the usual way in; each is imported when first used, so ``import gsth`` costs nothing. The rooms
(``gsth.head``, ``gsth.render``, ``gsth.track``, ``gsth.avatar``, ``gsth.drive``, ...) hold the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsth.artifacts import load, save
    from gsth.avatar import Avatar
    from gsth.errors import GsthError
    from gsth.media import probe
    from gsth.pipeline import TrainConfig, train
    from gsth.provenance import Consent
    from gsth.serve.app import view
    from gsth.types import Cameras, Clip, Event, HeadId, Identity, Mesh, Motion, Rendered, RiggedSplats, Splats, Track

_HOMES = {
    "load": "gsth.artifacts",
    "save": "gsth.artifacts",
    "Avatar": "gsth.avatar",
    "GsthError": "gsth.errors",
    "Consent": "gsth.provenance",
    "probe": "gsth.media",
    "TrainConfig": "gsth.pipeline",
    "train": "gsth.pipeline",
    "Cameras": "gsth.types",
    "Clip": "gsth.types",
    "Event": "gsth.types",
    "HeadId": "gsth.types",
    "Identity": "gsth.types",
    "Mesh": "gsth.types",
    "Motion": "gsth.types",
    "Rendered": "gsth.types",
    "RiggedSplats": "gsth.types",
    "Splats": "gsth.types",
    "Track": "gsth.types",
    "view": "gsth.serve.app",
}

__all__ = [
    "Avatar",
    "Cameras",
    "Clip",
    "Consent",
    "Event",
    "GsthError",
    "HeadId",
    "Identity",
    "Mesh",
    "Motion",
    "Rendered",
    "RiggedSplats",
    "Splats",
    "Track",
    "TrainConfig",
    "load",
    "probe",
    "save",
    "train",
    "view",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("gsth")
        except PackageNotFoundError:
            return "0+sources"
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gsth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
