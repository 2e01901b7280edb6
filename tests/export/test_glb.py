"""GLB: Khronos' validator, three.js and pygltflib read it; the rig moves the splats as gsth does; it comes back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_people import FRAMES, assert_canonical, assert_same, colours
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth import math3d, render
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.export import _glb_read, _glb_write, _gltf, _import, _scene, _slim, glb
from gsth.types import Mesh

ROOT = Path(__file__).resolve().parents[2]
KNOWN = "MESH_PRIMITIVE_INVALID_ATTRIBUTE"
"""What the validator says about every attribute name with a colon, and so about every splat file."""


@pytest.fixture(scope="module")
def file(person: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("glb") / "a.glb"
    list(glb.Config().build().write(person, out))
    return out


def test_the_validator_finds_only_what_it_does_not_know(file: Path, node: Callable[..., str]) -> None:
    issues = json.loads(node("validate.mjs", file))
    errors = [m for m in issues["messages"] if m["severity"] == 0]
    assert {m["code"] for m in errors} == {KNOWN} and all("KHR_gaussian_splatting:" in m["pointer"] for m in errors)
    assert issues["numWarnings"] == 0


def test_the_extension_fits_its_schema(file: Path, person: Avatar) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs" / "GSTH_gaussian_rig.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for avatar in (person, _slim.with_personal_basis(person), dataclasses.replace(person, correctives=None)):
        data = _glb_write.to_bytes(avatar, avatar.motion, 0, True)
        points = _gltf.Document(data, "x").get("meshes", 1, "primitives", 0)
        rig = points["extensions"]["KHR_gaussian_splatting"]["extensions"]["GSTH_gaussian_rig"]
        jsonschema.validate(rig, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**rig, "surprise": 1}, schema)


def read_accessor(file: Any, index: int) -> np.ndarray:
    """By pygltflib's view of the file, and nothing of ours."""
    kinds = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
    a = file.accessors[index]
    view = file.bufferViews[a.bufferView]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[a.type]
    data = np.frombuffer(file.binary_blob(), kinds[a.componentType], a.count * width, view.byteOffset)
    values = data.reshape(a.count, width) if width > 1 else data
    return values / np.iinfo(values.dtype).max if a.normalized else values


def test_a_foreign_reader_sees_the_splats(file: Path, person: Avatar, want: tuple[np.ndarray, np.ndarray]) -> None:
    pygltflib = pytest.importorskip("pygltflib")
    read = pygltflib.GLTF2().load(file)
    primitive = read.meshes[1].primitives[0]
    made = {k: v for k, v in vars(primitive.attributes).items() if v is not None}
    get = {name: read_accessor(read, index) for name, index in made.items()}
    rgb = colours(get["KHR_gaussian_splatting:SH_DEGREE_0_COEF_0"])
    assert_canonical(get["POSITION"], rgb)
    assert_same(get["POSITION"], rgb, *want)
    assert np.abs(get["COLOR_0"][:, :3] - np.clip(rgb, 0, 1)).max() <= 0.51 / 255
    still = _scene.still(person, _scene.Still())
    assert np.allclose(get["KHR_gaussian_splatting:SCALE"], still.scales.numpy(), rtol=1e-6)
    assert np.allclose(get["KHR_gaussian_splatting:OPACITY"], still.opacities.numpy())
    assert np.allclose(
        np.abs((get["KHR_gaussian_splatting:ROTATION"][:, [3, 0, 1, 2]] * still.quats.numpy()).sum(1)), 1
    )
    assert read.meshes[0].extras["targetNames"] == list(person.head.expression_names)
    assert len(read.meshes[0].primitives[0].targets) == 52


def test_three_moves_the_mesh_as_gsth_does(file: Path, person: Avatar, node: Callable[..., str]) -> None:
    for frame in (0, 3):
        seen = json.loads(node("pose.mjs", file, str(frame / 25)))
        place = _scene.export_from_world(person.motion)
        verts = person.shaped.posed(person.motion[frame]).verts[0]
        ours = math3d.transform_points(place[None], verts)[::7].numpy()
        assert np.abs(np.array(seen["verts"]) - ours).max() < 1e-5
    assert seen["bones"] == ["root", "neck", "head", "eye_l", "eye_r"]
    assert seen["targets"] == list(person.head.expression_names)
    assert seen["duration"] == pytest.approx((FRAMES - 1) / 25)
    still = _scene.still(person, _scene.Still())
    assert np.allclose(np.reshape(seen["points"], (-1, 3)), still.means.numpy())


def test_a_reader_of_the_documentation_moves_the_splats_right(file: Path, person: Avatar) -> None:
    """docs/format.md, step by step, in plain numpy on the file's own numbers."""
    doc = _gltf.Document(file.read_bytes(), file)
    rig = doc.get(
        "meshes", 1, "primitives", 0, "extensions", "KHR_gaussian_splatting", "extensions", "GSTH_gaussian_rig"
    )
    frame = 2
    place = _scene.export_from_world(person.motion)
    verts = math3d.transform_points(place[None], person.shaped.posed(person.motion[frame]).verts[0]).numpy()
    weights = person.correctives.weights(person.motion[frame])[0].numpy() if person.correctives else np.zeros(0)
    faces = doc.array(doc.get("meshes", 0, "primitives", 0, "indices")).reshape(-1, 3)[doc.array(rig["faces"])]

    def layers(made: dict[str, Any]) -> np.ndarray:
        return doc.array(made["accessor"]).reshape(len(made["factors"]), -1, 3) * np.reshape(
            made["factors"], (-1, 1, 1)
        )

    a, b, c = (verts[faces[:, i]] for i in range(3))
    first = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    third = np.cross(first, normal)
    size = (np.linalg.norm(b - a, axis=1) + np.abs(((c - a) * third).sum(1))) / 2
    local = layers(rig["offsets"])[0] + np.einsum("b,bnc->nc", weights, layers(rig["correctives"]["offsets"]))
    turned = np.einsum("nij,nj->ni", np.stack((first, normal, third), -1), local)
    means = (a + b + c) / 3 + size[:, None] * turned
    truth = _scene.still(person, _scene.Still(frame=frame))
    assert np.abs(means - truth.means.numpy()).max() < 5e-5
    rgb = colours(doc.array(rig["colors"]) + np.einsum("b,bnc->nc", weights, layers(rig["correctives"]["colors"])))
    assert np.abs(rgb - colours(truth.sh[:, 0].numpy())).max() < 0.5 / 255
    scales = size[:, None] * np.exp(layers(rig["logScales"])[0])
    assert np.allclose(scales, truth.scales.numpy(), rtol=1e-3)


@pytest.mark.parametrize("precision", ["compact", "full"])
def test_it_comes_back(precision: str, person: Avatar, tmp_path: Path) -> None:
    out, folder = tmp_path / "a.glb", tmp_path / "b.avatar"
    list(glb.Config(precision=precision).build().write(person, out))  # type: ignore[arg-type]
    list(_import.run(out, _import.ImportConfig(), folder))
    again = Avatar.load(folder)
    near = 1e-6 if precision == "full" else 1e-3
    assert again.head is person.head and again.motion.fps == 25
    assert torch.allclose(again.identity.shape, person.identity.shape)
    for i in range(FRAMES):
        a, b = person.pose(person.motion[i]), again.pose(again.motion[i])
        assert (a.means - b.means).abs().max() < max(near / 20, 2e-6)
        assert (a.sh - b.sh).abs().max() < max(near, 1e-5)
        assert ((a.quats * b.quats).sum(1).abs() / a.quats.norm(dim=1) / b.quats.norm(dim=1)).min() > 1 - 1e-4
    view = [render.render(m.pose(m.motion[1]), m.cameras, background=torch.zeros(3)).rgb for m in (person, again)]
    assert (view[0] - view[1]).abs().max() < (1e-3 if precision == "full" else 1e-2)


def test_a_head_that_is_not_installed_comes_along(person: Avatar, tmp_path: Path) -> None:
    own = _slim.with_personal_basis(person)
    out, folder = tmp_path / "a.glb", tmp_path / "b.avatar"
    list(glb.Config(precision="full").build().write(own, out))
    list(_import.run(out, _import.ImportConfig(), folder))
    again = Avatar.load(folder)
    assert again.head.id == own.head.id and again.head.expression_names == own.head.expression_names
    assert len(again.head.shape_basis) == 0 and set(again.head.parts) == set(own.head.parts)
    ours, theirs = own.shaped.posed(own.motion).verts, again.shaped.posed(again.motion).verts
    assert (ours - theirs).abs().max() < 1e-5
    assert (own.pose(own.motion[2]).means - again.pose(again.motion[2]).means).abs().max() < 1e-5
    assert again.meta["expression_map"]["names"] == list(person.head.expression_names)


def good() -> bytes:
    """The smallest file that can be had: one triangle would do, so a head without expressions and one splat."""
    from gsth import head
    from gsth.avatar import Source
    from gsth.types import Cameras, HeadId, Identity, Motion, RiggedSplats

    base = head.load()
    tiny = dataclasses.replace(
        base,
        id=HeadId("tiny", "1", "0"),
        template=torch.eye(3),
        faces=torch.tensor([[0, 1, 2]]),
        uvs=torch.zeros(3, 2),
        shape_basis=torch.zeros(0, 3, 3),
        expr_basis=torch.eye(3)[None] * 0.1,
        weights=torch.tensor([[0, 0, 1.0, 0, 0]]).repeat(3, 1),
        pivot_basis=torch.zeros(0, 5, 3),
        expression_names=("jawOpen",),
        parts={"face": torch.tensor([0])},
        landmark_faces=torch.zeros(478, dtype=torch.int64),
    )
    joints, place = math3d.quat_identity(2, 5), torch.tensor([[1.0, 0, 0, 0, 0, 0, 1]]).repeat(2, 1)
    motion = Motion(tiny.id, 25.0, torch.zeros(2, 1), joints, place)
    splats = RiggedSplats(
        torch.tensor([0]), torch.zeros(1, 3), torch.eye(4)[:1], torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 1, 3)
    )
    source = Source(Path("x"), "0", 25.0, (0, 0, 8, 8), 1, torch.arange(2), torch.ones(2), torch.zeros(2))
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[[9.0, 0, 4], [0, 9, 4], [0, 0, 1]]]), 8, 8)
    avatar = Avatar(tiny, Identity(tiny.id, torch.zeros(0)), splats, cameras, motion, source)
    return _glb_write.to_bytes(avatar, motion, 0, True)


GOOD = good()
NUMBER = st.integers(-2, 2**33) | st.floats(allow_nan=False) | st.text(max_size=3) | st.none() | st.lists(st.none())


def test_the_smallest_file_is_read() -> None:
    assert _glb_read.from_bytes(GOOD, Path("x")).head.expression_names == ("jawOpen",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a binary glTF"),
        (GOOD[:-1], "damaged"),
        (GOOD.replace(b'"version":1,', b'"version":7,', 1), "version"),
        (GOOD.replace(b"GSTH_gaussian_rig", b"GSTH_gaussian_rib"), "GSTH_gaussian_rig"),
        (GOOD.replace(b'"width":8', b'"width":0'), "0 x 8 px"),
        (GOOD.replace(b'"factors":[', b'"faktors":['), "whole avatar"),
    ],
)
def test_damage_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        _glb_read.from_bytes(data, Path("x.glb"))
    assert "x.glb" in str(caught.value)


def holes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in inner for p in holes(item, (*path, key)))]


HOLES = [path for path in holes(_gltf.Document(GOOD, "x").json) if path]


@settings(max_examples=300, deadline=None)
@given(where=st.sampled_from(HOLES), value=NUMBER, at=st.integers(0, len(GOOD) - 1), noise=st.binary(max_size=4))
def test_no_file_does_harm(where: tuple[Any, ...], value: Any, at: int, noise: bytes) -> None:
    """One value of the JSON is something else, and some bytes are: an avatar that can be posed, or a reason."""
    document = json.loads(json.dumps(_gltf.Document(GOOD, "x").json))
    *outer, last = where
    target = document
    for key in outer:
        target = target[key]
    target[last] = value
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    size = int.from_bytes(GOOD[12:16], "little")
    rest = GOOD[20 + size :]
    data = GOOD[:8] + (20 + len(text) + len(rest)).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    data += GOOD[16:20] + text + rest
    if at > 20 + len(text):
        data = data[:at] + noise + data[at + len(noise) :]
    try:
        avatar = _glb_read.from_bytes(data, Path("fuzz"))
    except InputError:
        return
    posed = avatar.pose(avatar.motion[0])
    assert isinstance(avatar.shaped.posed(avatar.motion), Mesh) and bool(torch.isfinite(posed.means).all())
