"""The glTF container: what goes in comes out, and a small file cannot claim a large memory."""

from __future__ import annotations

import numpy as np
import pytest

from gsth.errors import InputError
from gsth.export import _gltf


def test_arrays_come_back() -> None:
    build = _gltf.Builder()
    arrays = [
        np.arange(5, dtype=np.uint16),
        np.random.rand(3, 4).astype(np.float32),
        np.random.rand(2, 4, 4).astype(np.float32),
    ]
    ids = [build.add(a, bounds=True) for a in arrays]
    sparse = np.zeros((9, 3), np.float32)
    sparse[[2, 7]] = 1.5
    ids += [build.add_sparse(sparse), build.add_sparse(sparse * 0)]
    signed = build.add(np.array((-127, 0, 127), np.int8), normalized=True)
    doc = _gltf.Document(build.glb({"asset": {"version": "2.0"}}), "x")
    for index, array in zip(ids, [*arrays, sparse, sparse * 0], strict=True):
        assert np.array_equal(doc.array(index), array)
    assert doc.array(signed).tolist() == [-1, 0, 1]
    assert doc.get("accessors", 1, "max") == arrays[1].max(0).tolist()


def with_accessor(**changes: object) -> _gltf.Document:
    build = _gltf.Builder()
    build.add(np.zeros((4, 3), np.float32))
    build.accessors[0] |= changes
    return _gltf.Document(build.glb({}), "x.glb")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": 5}, "beyond the file's end"),
        ({"count": 10**9}, "more than a file of this size"),
        ({"count": 10**9, "bufferView": None}, "more than a file of this size"),
        ({"count": -1}, "whole number"),
        ({"bufferView": 7}, "no bufferViews.7"),
        ({"byteOffset": 8}, "beyond the file's end"),
        ({"componentType": 1}, "unknown type"),
        ({"type": "MAT9"}, "unknown type"),
        ({"sparse": {"count": 9, "indices": {}, "values": {}}}, "more sparse values"),
        ({"sparse": {"count": 1, "indices": {"componentType": 5126}, "values": {}}}, "unsigned"),
    ],
)
def test_claims_are_checked(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        with_accessor(**changes).array(0)
    assert "x.glb" in str(caught.value)


def test_zeros_cost_memory_too() -> None:
    """Accessors without bytes are zeros: many of them in a small file are refused, however small each is."""
    build = _gltf.Builder()
    build.add_sparse(np.zeros((1_000_000, 3), np.float32))
    doc = _gltf.Document(build.glb({}), "x")
    for _ in range(6):
        doc.array(0)
    with pytest.raises(InputError, match="more than a file of this size"):
        doc.array(0)
