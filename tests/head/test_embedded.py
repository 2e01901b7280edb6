"""Heads that avatars bring along."""

from __future__ import annotations

import pytest
import torch

from gsth import head
from gsth.errors import ArtifactError
from gsth.head import _embedded
from gsth.types import HeadId


def test_a_head_comes_back_whole() -> None:
    model = head.load()
    arrays = _embedded.to_arrays(model)
    again = _embedded.from_arrays(HeadId("own", "1", "0"), model.expression_names, arrays)
    assert again.expression_names == model.expression_names and set(again.parts) == set(model.parts)
    assert all(torch.equal(again.parts[name], ids) for name, ids in model.parts.items())
    assert all(torch.equal(getattr(again, name), value) for name, value in arrays.items() if "." not in name)
    assert head.installed(model.id) and not head.installed(again.id)


def test_damage_is_named() -> None:
    model = head.load()
    arrays = _embedded.to_arrays(model)
    for name in ("faces", "landmark_faces", "parts.lips"):
        beyond = {**arrays, name: arrays[name] + 10**6}
        with pytest.raises(ArtifactError, match="beyond the mesh"):
            _embedded.from_arrays(model.id, model.expression_names, beyond)
    del arrays["uvs"]
    with pytest.raises(ArtifactError, match="lack 'uvs'"):
        _embedded.from_arrays(model.id, model.expression_names, arrays)
