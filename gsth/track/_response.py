"""What the landmark detector makes of the built-in head: it does not see landmarks where the head model says they are.

MediaPipe was taught on people. On a head model's surface each of its points sits a few millimetres beside the embedded
one. When the face moves, it follows some actions more and others less than the surface does; it takes unusual faces for
more usual ones than they are; and it slides when the head turns. All of that is linear to good accuracy (squares
too, for the turn), so they are fields like the head's own: an offset, and one more for each expression, for each
identity coefficient, and for each of ``views``. They were found by drawing many synthetic actors of known identity,
pose and expression (``benchmarks/detector_response.py``).

There are two such responses. The landmark fit of clips uses ``WHO``, which has all of it. ``PLAIN``, which has offsets
and expressions alone, serves where pictures decide identity and turn (``_photo``), and faces that are tracked live.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsth.errors import ArtifactError
from gsth.head import HeadModel
from gsth.track import _points

ASSETS = Path(__file__).parent / "assets"
PLAIN, WHO = "mediapipe_builtin.npz", "mediapipe_builtin_who.npz"
SIDE, ABOVE = 0.57, 0.22
"""Sines of the turns and nods within which the response to them was learned; beyond, it stays as it is there."""
VIEWS = 5
SKULL = 2
"""The head joint: what turns with what the detector sees."""


@dataclass(frozen=True, eq=False)
class Response:
    """The fields, m."""

    topology: str
    offsets: Tensor
    """[478 3]."""
    expressions: Tensor
    """[e 478 3]."""
    identity: Tensor | None = None
    """[s 478 3]."""
    views: Tensor | None = None
    """[5 478 3]."""


def as_detected(landmarks: HeadModel, head: HeadModel, who: bool) -> tuple[HeadModel, Tensor | None]:
    """The landmark rig's model with the detector's response added, and its fields for each of ``views`` [5 v 3].

    A head for which the response is not known stays as it is, and has no such fields.

    Args:
        landmarks: Its first 478 vertices are the face points (``LandmarkRig.model``).
        head: The whole head model; it may have more identity coefficients than the response knows, or, for a person
            who is known already, none: their own part of the response is then left to the offsets.
        who: Take the response ``WHO``, else ``PLAIN``.
    """
    known = _load(WHO if who else PLAIN)
    if known.topology != topology_of(head):
        return landmarks, None
    template, expr, shape = (x.clone() for x in (landmarks.template, landmarks.expr_basis, landmarks.shape_basis))
    template[: _points.COUNT] += known.offsets
    expr[:, : _points.COUNT] += known.expressions
    if known.identity is not None:
        count = min(len(shape), len(known.identity))
        shape[:count, : _points.COUNT] += known.identity[:count]
    slides = None if known.views is None else F.pad(known.views, (0, 0, 0, len(template) - _points.COUNT))
    return replace(landmarks, template=template, expr_basis=expr, shape_basis=shape), slides


def views(turn: Tensor, centre: Tensor) -> Tensor:
    """From where a head is seen [t 5]: x and y of the line of sight in its own axes, their squares, their product.

    Args:
        turn: World rotation of the head joint [t 3 3].
        centre: Of the joint, camera frame [t 3].
    """
    sight = (F.normalize(centre, dim=-1)[:, None] @ turn)[:, 0]
    x, y = sight[:, 0].clamp(-SIDE, SIDE), sight[:, 1].clamp(-ABOVE, ABOVE)
    return torch.stack((x, y, x * x, y * y, x * y), 1)


def topology_of(head: HeadModel) -> str:
    """What the response rests on: name and version of the head, its embedding and its actions."""
    embedding = head.landmark_faces.sum().item(), round(float(head.landmark_bary[:, 0].sum()), 2)
    return f"{head.id.name} {head.id.version} {embedding} {len(head.expression_names)}"


@cache
def _load(name: str) -> Response:
    try:
        with np.load(ASSETS / name) as file:
            fields = {n: torch.from_numpy(file[n].astype(np.float32)) for n in file.files if n != "topology"}
            return Response(topology=str(file["topology"]), **fields)
    except (ValueError, OSError, KeyError, EOFError, BadZipFile, TypeError) as error:
        raise ArtifactError(f"{ASSETS / name} is damaged ({error}); reinstall gsth") from error
