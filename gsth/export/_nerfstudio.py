"""The splats of a checkpoint that nerfstudio wrote while it trained the method ``gsth`` (gsth.plugins.nerfstudio)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.types import RiggedSplats

PREFIX = "_model."
FIELDS = ("face_ids", "means_tri", "quats_tri", "log_scales", "logit_opacities", "sh")


def read(path: Path, faces: int) -> RiggedSplats:
    """The splats, for a head of so many triangles.

    Raises:
        InputError: It is no such checkpoint, damaged, or of another head.
    """
    import torch

    from gsth.metrics import _weights
    from gsth.types import RiggedSplats

    state = _weights.checkpoint(path, "pipeline")
    if absent := [name for name in FIELDS if PREFIX + name not in state]:
        raise InputError(
            f"{path}: is no checkpoint of nerfstudio's method gsth: it lacks {', '.join(absent)}; look in outputs/ for "
            "nerfstudio_models/step-*.ckpt"
        )
    made = RiggedSplats(*(state[PREFIX + name].detach() for name in FIELDS))
    numbers = [getattr(made, name) for name in FIELDS[1:]]
    if not all(value.dtype == torch.float32 and bool(torch.isfinite(value).all()) for value in numbers):
        raise InputError(f"{path}: holds values that are not finite float32 numbers; take an earlier checkpoint")
    ids = made.face_ids
    if ids.dtype != torch.int64 or not len(ids) or not 0 <= int(ids.min()) <= int(ids.max()) < faces:
        raise InputError(f"{path}: hangs on triangles that the head, which has {faces}, does not have; other --onto?")
    return made
