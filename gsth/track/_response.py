"""What the landmark detector makes of the built-in head: it does not see landmarks where the head model says they are.

MediaPipe was taught on people. On a head model's surface each of its points sits a few millimetres beside the embedded
one, and when the face moves it follows some actions more and others less than the surface does. Both are linear to
good accuracy, so they are fields like the head's own: an offset, and one more for each expression. They were found by
drawing many synthetic actors of known identity, pose and expression (``benchmarks/detector_response.py``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from gsth.errors import ArtifactError
from gsth.head import HeadModel
from gsth.track import _points

ASSET = Path(__file__).parent / "assets" / "mediapipe_builtin.npz"


def as_detected(landmarks: HeadModel, head: HeadModel) -> HeadModel:
    """The landmark rig's model with the detector's response added, where it is known for this head; else as it is.

    Args:
        landmarks: Its first 478 vertices are the face points (``LandmarkRig.model``).
        head: The whole head model.
    """
    topology, offsets, response = _load()
    if topology != topology_of(head):
        return landmarks
    template, expr = landmarks.template.clone(), landmarks.expr_basis.clone()
    template[: _points.COUNT] += offsets
    expr[:, : _points.COUNT] += response
    return replace(landmarks, template=template, expr_basis=expr)


def topology_of(head: HeadModel) -> str:
    """What the response rests on: name and version of the head, its embedding and its actions."""
    embedding = head.landmark_faces.sum().item(), round(float(head.landmark_bary[:, 0].sum()), 2)
    return f"{head.id.name} {head.id.version} {embedding} {len(head.expression_names)}"


@cache
def _load() -> tuple[str, Tensor, Tensor]:
    """Topology, offsets [478 3] and response of every expression [e 478 3], m."""
    try:
        with np.load(ASSET) as file:
            offsets, response = (torch.from_numpy(file[n].astype(np.float32)) for n in ("offsets", "response"))
            return str(file["topology"]), offsets, response
    except (ValueError, OSError, KeyError, EOFError, BadZipFile) as error:
        raise ArtifactError(f"{ASSET} is damaged ({error}); reinstall gsth") from error
