"""Heads that an avatar brings along, because no installed model gives them (imports, personal bases)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from gsth.errors import ArtifactError
from gsth.head import HeadModel
from gsth.types import HeadId

_PARTS = "parts."


def to_arrays(model: HeadModel) -> dict[str, Tensor]:
    """All arrays of a head model by name; its id and expression names are the caller's to keep."""
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    arrays = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    return arrays | {_PARTS + name: ids for name, ids in model.parts.items()}


def from_arrays(head_id: HeadId, expression_names: Sequence[str], arrays: Mapping[str, Tensor]) -> HeadModel:
    """The head model again.

    Raises:
        ArtifactError: An array is missing, or indices reach beyond the mesh.
    """
    try:
        wanted = [f.name for f in dataclasses.fields(HeadModel) if f.name not in ("id", "expression_names", "parts")]
        model = HeadModel(
            id=head_id,
            expression_names=tuple(expression_names),
            parts={name[len(_PARTS) :]: ids for name, ids in arrays.items() if name.startswith(_PARTS)},
            **{name: arrays[name] for name in wanted},
        )
    except KeyError as error:
        raise ArtifactError(f"head {head_id}: its arrays lack {error}; export or train the avatar again") from error
    faces, verts = len(model.faces), len(model.template)
    for name, ids, end in (
        ("faces", model.faces, verts),
        ("landmark_faces", model.landmark_faces, faces),
        *((f"part {name}", ids, faces) for name, ids in model.parts.items()),
    ):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < end:
            raise ArtifactError(f"head {head_id}: {name} points beyond the mesh; export or train the avatar again")
    return model
