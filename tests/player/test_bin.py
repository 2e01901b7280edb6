from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth import render
from gsth.errors import ArtifactError, InputError
from gsth.export import _bin, _slim


@pytest.fixture(scope="module")
def packed(person: Any) -> bytes:
    return _bin.pack(person, person.motion)


def test_what_comes_back_poses_and_looks_the_same(person: Any, packed: bytes) -> None:
    back = _bin.unpack(packed)
    for frame in (0, 5, 11):
        a = person.shaped.posed(person.motion[frame]).verts
        b = back.shaped.posed(back.motion[frame]).verts
        used = torch.unique(person.head.faces[person.splats.face_ids])
        assert float((a - b)[:, used].abs().max()) < 1e-5
        pictures = [
            render.render(x.pose(x.motion[frame]), x.cameras, background=torch.full((3,), 0.5)).rgb.clamp(0, 1)
            for x in (person, back)
        ]
        assert -10 * float(torch.log10((pictures[0] - pictures[1]).square().mean())) > 45


def test_each_splat_has_its_own_scale_of_correctives(person: Any) -> None:
    """Offsets of one splat may be a thousandth of another's: it has a thirtieth of the other's steps."""
    c = person.correctives
    faint = torch.where(torch.arange(len(c.means_delta)) % 2 == 0, 1e-3, 1.0)[:, None, None]
    uneven = dataclasses.replace(person, correctives=c.replace(means_delta=c.means_delta * faint))
    back = _bin.unpack(_bin.pack(uneven, person.motion)).correctives
    order = person.splats.face_ids.argsort(stable=True)
    wanted = (c.means_delta * faint)[order]
    share = (wanted.abs() / wanted.abs().amax(0)).amax((1, 2))[:, None, None]
    step = wanted.abs().amax(0) / 127 * share.sqrt()
    assert ((back.means_delta - wanted).abs() <= 0.51 * step).all()


def test_files_of_the_first_version_are_read(packed: bytes) -> None:
    """They have one scale for all splats."""
    contents = _bin.read(packed)
    arrays = {k: v for k, v in contents.header["arrays"].items() if k != "corrective_reach"}
    old = _with_header(packed, arrays=arrays)
    back = _bin.unpack(old[:8] + struct.pack("<I", 1) + old[12:]).correctives
    q = torch.from_numpy(contents.arrays["corrective_means"].astype(np.float32)).permute(2, 0, 1)
    torch.testing.assert_close(back.means_delta, q * contents.values("corrective_means_step"))


def test_a_page_with_fewer_expressions_comes_back(person: Any) -> None:
    few = _slim.with_expressions(person, ("jawOpen", "eyeBlinkLeft", "mouthFunnel"))
    back = _bin.unpack(_bin.pack(few, few.motion))
    assert back.head.id == few.head.id and back.head.expression_names == ("eyeBlinkLeft", "jawOpen", "mouthFunnel")
    order = few.splats.face_ids.argsort(stable=True)
    moved, truth = (m.pose(m.motion[7]).means for m in (back, few))
    assert (moved - truth[order]).norm(dim=1).max() < 1e-3
    # of its voice, the rows that move these
    names, moved = person.head.expression_names, person.speech["moved"].tolist()
    rows = [moved.index(names.index(n)) for n in ("jawOpen", "mouthFunnel")]
    assert back.speech["moved"].tolist() == [1, 2]
    torch.testing.assert_close(back.speech["weight"], person.speech["weight"][rows].half().float())


def test_a_page_on_a_personal_basis_says_what_to_import_instead(person: Any) -> None:
    own = _slim.with_personal_basis(person)
    with pytest.raises(InputError, match=r"personal basis.*import a \.glb"):
        _bin.unpack(_bin.pack(own, own.motion))


def test_packing_what_came_back_keeps_every_splat(person: Any, packed: bytes) -> None:
    once = _bin.unpack(packed)
    twice = _bin.unpack(_bin.pack(once, once.motion))
    torch.testing.assert_close(once.splats.means_tri, twice.splats.means_tri, atol=2e-4, rtol=0)
    assert torch.equal(once.splats.face_ids, twice.splats.face_ids)
    assert set(once.speech) == set(twice.speech)


def test_the_same_avatar_gives_the_same_bytes(person: Any, packed: bytes) -> None:
    assert _bin.pack(person, person.motion) == packed


def test_rotations_survive_their_code() -> None:
    quats = np.random.default_rng(0).normal(size=(2000, 4))
    quats[0], quats[1], quats[2] = (1, 0, 0, 0), (0, -2, 0, 0), (1, 1, 1, 1)
    back = _bin.unpack_quats(_bin.pack_quats(quats))
    cosine = np.abs((back * quats).sum(1)) / np.linalg.norm(quats, axis=1) / np.linalg.norm(back, axis=1)
    assert 2 * np.arccos(np.minimum(cosine, 1)).max() < 4e-3


def test_a_voice_of_an_unknown_kind_is_left_out(person: Any) -> None:
    assert _bin.voice_layout(person.speech) is not None
    assert _bin.voice_layout({}) is None
    assert _bin.voice_layout({**person.speech, "net.gru.weight": torch.zeros(1)}) is None
    lacking = {n: w for n, w in person.speech.items() if n != "net.head.bias"}
    assert _bin.voice_layout(lacking) is None
    layout = _bin.voice_layout(person.speech)
    blocks = len(layout["header"]["dilations"]) if layout else 0
    shorter = {n: w for n, w in person.speech.items() if not n.startswith(f"net.blocks.{blocks - 1}.")}
    layout = _bin.voice_layout(shorter)
    assert layout is not None and len(layout["header"]["dilations"]) == blocks - 1
    assert _bin.voice_layout({n: w for n, w in person.speech.items() if not n.startswith("net.blocks.")}) is None


def _with_header(packed: bytes, **changes: Any) -> bytes:
    length = struct.unpack_from("<I", packed, 12)[0]
    text = json.dumps(json.loads(packed[16 : 16 + length]) | changes).encode()
    return packed[:12] + struct.pack("<I", len(text)) + text + packed[16 + length :]


def test_damaged_files_are_refused(packed: bytes) -> None:
    with pytest.raises(ArtifactError, match="begins with"):
        _bin.read(b"PK" + packed)
    with pytest.raises(ArtifactError, match="damaged"):
        _bin.read(packed[: len(packed) // 2])
    with pytest.raises(ArtifactError, match="version 9"):
        _bin.read(packed[:8] + struct.pack("<I", 9) + packed[12:])
    with pytest.raises(ArtifactError, match="out of bounds"):
        _bin.read(_with_header(packed, payload_bytes=1 << 40))
    with pytest.raises(ArtifactError, match="reaches out"):
        _bin.read(_with_header(packed, arrays={"rest": {"dtype": "f32", "shape": [1 << 40, 3], "offset": 0}}))
    with pytest.raises(ArtifactError, match="whole avatar"):
        _bin.unpack(_with_header(packed, arrays={}))


def test_a_payload_that_unzips_to_more_than_it_says_is_stopped(packed: bytes) -> None:
    length = struct.unpack_from("<I", packed, 12)[0]
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = squeeze.compress(bytes(1 << 24)) + squeeze.flush()
    with pytest.raises(ArtifactError, match="promises"):
        _bin.read(packed[: 16 + length] + bomb)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_garbage_never_does_more_than_refuse(noise: bytes, at: int) -> None:
    whole = _bin.MAGIC + struct.pack("<II", 1, 60) + b'{"payload_bytes": 8, "arrays": {"a": {"dtype": "u8"}}}' + noise
    for data in (noise, _bin.MAGIC + noise, whole[:at] + noise + whole[at:]):
        with pytest.raises(ArtifactError):
            _bin.read(data)
