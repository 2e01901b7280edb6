"""GaussianAvatars' files against its formulas, written out here from the paper and from FLAME's; there and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import flame_like
import numpy as np
import pytest
import torch

from gsth import cli, math3d
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.export import ImportConfig, _import, _ply, _scene, gaussianavatars
from gsth.types import Done, Notice, Splats

TURN = np.diag((1.0, -1.0, -1.0))


@cache
def raw() -> dict[str, np.ndarray]:
    """The model file's arrays."""
    return flame_like.arrays()


def matrix(rotvec: np.ndarray) -> np.ndarray:
    return cv2.Rodrigues(np.asarray(rotvec, np.float64))[0]


def their_mesh(p: Mapping[str, np.ndarray], frame: int) -> np.ndarray:
    """FLAME as GaussianAvatars poses it [v 3]: Li et al. 2017, eq. 1-3; without dynamic_offset, as there."""
    model = raw()
    v = len(model["v_template"])
    betas = np.concatenate((p["shape"], p["expr"][frame])).astype(np.float64)
    verts = model["v_template"] + model["shapedirs"] @ betas + p["static_offset"].reshape(-1, 3)[:v]
    joints = model["J_regressor"] @ verts
    eyes = p["eyes_pose"][frame].reshape(2, 3)
    turns = [matrix(r) for r in (p["rotation"][frame], p["neck_pose"][frame], p["jaw_pose"][frame], *eyes)]
    verts = verts + model["posedirs"] @ np.concatenate([(r - np.eye(3)).reshape(-1) for r in turns[1:]])
    rot, at = [turns[0]], [joints[0]]
    for j, parent in ((1, 0), (2, 1), (3, 1), (4, 1)):
        rot.append(rot[parent] @ turns[j])
        at.append(at[parent] + rot[parent] @ (joints[j] - joints[parent]))
    posed = sum(
        model["weights"][:, [j]] * ((verts - joints[j]) @ rot[j].T + at[j]) for j in range(5)
    )  # fmt: skip
    return posed + p["translation"][frame]


def their_splats(columns: Mapping[str, np.ndarray], verts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means [n 3] and covariances [n 3 3]: Qian et al. 2024, eq. 1-3."""
    faces = raw()["f"].astype(np.int64)[columns["binding_0"].astype(np.int64)]
    a, b, c = (verts[faces[:, k]] for k in range(3))

    def unit(v: np.ndarray) -> np.ndarray:
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    edge = unit(b - a)
    normal = unit(np.cross(edge, c - a))
    third = np.cross(edge, normal)
    R = np.stack((edge, normal, third), 2)
    size = (np.linalg.norm(b - a, axis=1) + np.abs((third * (c - a)).sum(1))) / 2
    local = np.stack([columns[k] for k in "xyz"], 1).astype(np.float64)
    means = size[:, None] * (R @ local[:, :, None])[:, :, 0] + (a + b + c) / 3
    quats = torch.from_numpy(np.stack([columns[f"rot_{k}"] for k in range(4)], 1)).double()
    spin = R @ math3d.quat_to_mat(math3d.quat_normalize(quats)).numpy()
    scales = size[:, None] * np.exp(np.stack([columns[f"scale_{k}"] for k in range(3)], 1).astype(np.float64))
    M = spin * scales[:, None]
    return means, M @ M.transpose(0, 2, 1)


def covariances(splats: Splats) -> np.ndarray:
    M = math3d.quat_to_mat(math3d.quat_normalize(splats.quats.double())) * splats.scales.double()[:, None]
    return (M @ M.transpose(1, 2)).numpy()


def written(avatar: Avatar, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns and parameters of an exported folder."""
    list(gaussianavatars.Config().build().write(avatar, folder))
    columns = _ply.from_bytes((folder / "point_cloud.ply").read_bytes(), "x")
    with np.load(folder / "flame_param.npz") as file:
        return columns, dict(file)


def brought(folder: Path, out: Path) -> Avatar:
    events = list(_import.run(folder, ImportConfig(), out))
    assert isinstance(events[-1], Done)
    return Avatar.load(out)


def test_names_types_and_shapes_are_what_their_loader_asks_for(flame_person: Avatar, tmp_path: Path) -> None:
    columns, p = written(flame_person, tmp_path / "ga")
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(45))]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4)), "binding_0"]
    assert list(columns) == names and {c.dtype for c in columns.values()} == {np.dtype("f4")}
    t, v = len(flame_person.motion), len(flame_person.head.template) + 120
    assert {n: a.shape for n, a in p.items()} == {
        "shape": (300,), "expr": (t, 100), "rotation": (t, 3), "neck_pose": (t, 3), "jaw_pose": (t, 3),
        "eyes_pose": (t, 6), "translation": (t, 3), "static_offset": (1, v, 3), "dynamic_offset": (t, v, 3),
    }  # fmt: skip
    assert {a.dtype for a in p.values()} == {np.dtype("f4")}


def test_their_formulas_give_our_splats(flame_person: Avatar, tmp_path: Path) -> None:
    still = flame_person.motion.replace(expr=torch.zeros_like(flame_person.motion.expr))
    plain = dataclasses.replace(
        flame_person, motion=still, identity=flame_person.identity.replace(offsets=None)
    )  # fmt: skip
    for avatar, means_m, middle_m in ((plain, 1e-6, 2e-7), (flame_person, 3e-3, 5e-5)):
        columns, p = written(avatar, tmp_path / "ga")
        ours = _scene.export_from_world(avatar.motion)
        for frame in (0, 1, 3):
            wanted = _scene.moved(avatar.pose(avatar.motion[frame]), ours)
            means, cov = their_splats(columns, their_mesh(p, frame))
            away = np.linalg.norm(means - wanted.means.numpy(), axis=1)
            assert away.max() < means_m and np.median(away) < middle_m, (frame, away.max(), np.median(away))
            if avatar is plain:
                ref = covariances(wanted)
                assert np.abs(cov - ref).max() < 1e-4 * np.abs(ref).max()


def test_it_comes_back_as_it_went(flame_person: Avatar, tmp_path: Path) -> None:
    written(flame_person, tmp_path / "ga")
    again = brought(tmp_path / "ga", tmp_path / "again.avatar")
    assert again.head.id == flame_person.head.id and len(again.motion) == len(flame_person.motion)
    for name in ("face_ids", "means_tri", "log_scales", "logit_opacities"):
        torch.testing.assert_close(getattr(again.splats, name), getattr(flame_person.splats, name))
    places = [_scene.export_from_world(a.motion) for a in (flame_person, again)]
    for frame in range(len(again.motion)):
        one, two = (
            _scene.moved(a.pose(a.motion[frame]), place) for a, place in zip((flame_person, again), places, strict=True)
        )
        away = (one.means - two.means).norm(dim=1)
        assert float(away.max()) < 2e-4 and float(away.median()) < 1e-5, (frame, away.max(), away.median())
        torch.testing.assert_close(one.sh, two.sh, atol=1e-3, rtol=0)


def theirs(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A folder as GaussianAvatars leaves it after training, with splats on its teeth; its parameters."""
    rng = np.random.default_rng(seed)
    model, n, t = raw(), 50, 3
    v, f = len(model["v_template"]), len(model["f"])
    values = {name: rng.normal(size=n) for name in (*"xyz", *(f"rot_{i}" for i in range(4)), "opacity")}
    values |= {f"f_rest_{i}": rng.normal(size=n) * 0.1 for i in range(45)}
    values |= {f"{name}_{i}": rng.normal(size=n) - 1 for name in ("f_dc", "scale") for i in range(3)}
    values["binding_0"] = np.concatenate((rng.integers(0, f, n - 2), (f, f + 167)))
    names = [*values]
    rows = np.stack([values[k] for k in names], 1).astype("<f4")
    head = "\n".join(["ply", "format binary_little_endian 1.0", f"element vertex {n}"])
    head += "".join(f"\nproperty float {k}" for k in names) + "\nend_header\n"
    folder.mkdir()
    (folder / "point_cloud.ply").write_bytes(head.encode() + rows.tobytes())
    shape = np.zeros(300)
    shape[:20] = rng.normal(size=20)
    p = {
        "shape": shape, "expr": np.zeros((t, 100)), "rotation": rng.normal(size=(t, 3)) * 0.2,
        "neck_pose": rng.normal(size=(t, 3)) * 0.1, "jaw_pose": np.zeros((t, 3)),
        "eyes_pose": rng.normal(size=(t, 6)) * 0.1, "translation": rng.normal(size=(t, 3)) * 0.1,
        "static_offset": np.pad(rng.normal(size=(v, 3)) * 1e-3, ((0, 120), (0, 0)))[None],
        "dynamic_offset": np.zeros((t, v + 120, 3)),
    }  # fmt: skip
    p = {name: value.astype(np.float32) for name, value in p.items()}
    np.savez(folder / "flame_param.npz", **p)
    return p


def test_their_avatar_moves_here_as_it_moves_there(flame_person: Avatar, tmp_path: Path) -> None:
    p = theirs(tmp_path / "ga")
    events = list(gaussianavatars.read(tmp_path / "ga", None))
    assert any(isinstance(e, Notice) and "2 splats are on the teeth" in e.text for e in events)
    made = brought(tmp_path / "ga", tmp_path / "made.avatar")
    assert len(made.splats.face_ids) == 48 and made.splats.sh.shape[1] == 16
    columns = {k: c[:48] for k, c in _ply.from_bytes((tmp_path / "ga/point_cloud.ply").read_bytes(), "x").items()}
    shifts = []
    for frame in range(3):
        means, cov = their_splats(columns, their_mesh(p, frame))
        ours = made.pose(made.motion[frame])
        shifts.append(ours.means.numpy() - means @ TURN)
        np.testing.assert_allclose(covariances(ours), TURN @ cov @ TURN, atol=1e-4 * np.abs(cov).max())
    shift = np.stack(shifts)
    # of the whole world, one shift; where the eyes turn, FLAME's joint moved with the offsets, by less than 1 mm
    assert np.abs(shift - np.median(shift, (0, 1))).max() < 1e-3
    assert np.median(np.abs(shift - np.median(shift, (0, 1)))) < 1e-5


@pytest.mark.parametrize("sample", [(0.3, -0.5, 0.8), (-0.7, 0.2, 0.1)])
def test_view_dependent_colour_turns_with_the_world(
    flame_person: Avatar, tmp_path: Path, sample: tuple[float, float, float]
) -> None:
    """Colours seen along a direction there are the colours seen along the turned direction here."""
    from gsth.render import torch_ref

    theirs(tmp_path / "ga")
    raw_sh = torch.from_numpy(
        _ply.raw_tensors(_ply.from_bytes((tmp_path / "ga/point_cloud.ply").read_bytes(), "x"), "x")["sh"][:48]
    )
    made = brought(tmp_path / "ga", tmp_path / "made.avatar")
    there = torch.nn.functional.normalize(torch.tensor(sample), dim=0).expand(48, 3)
    here = there * torch.tensor((1.0, -1.0, -1.0))
    torch.testing.assert_close(
        torch_ref.sh_colors(made.splats.sh, here), torch_ref.sh_colors(raw_sh, there), atol=1e-4, rtol=0
    )


def test_the_verbs_go_there_and_back(
    flame_person: Avatar, flame_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flame_person.save(tmp_path / "me.avatar")
    out = tmp_path / "ga"
    assert cli.run(["export", str(tmp_path / "me.avatar"), "gaussianavatars", "--out", str(out)]) == 0
    assert (out / "provenance.json").is_file()
    again = tmp_path / "again.avatar"
    assert cli.run(["import", str(out), "--flame-path", str(flame_home / "flame.npz"), "--out", str(again)]) == 0
    assert Avatar.load(again).head.id == flame_person.head.id
    assert "Max Planck" in capsys.readouterr().out
    assert cli.run(["import", str(out / "point_cloud.ply"), "--out", str(tmp_path / "prop")]) == 2
    assert "give its folder" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_with_the_reason(person: Avatar, flame_person: Avatar, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stands on head builtin .* GaussianAvatars knows FLAME only"):
        list(gaussianavatars.Config().build().write(person, tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    p = theirs(tmp_path / "ga")
    for change, reason in (
        ({"expr": np.full((3, 100), np.nan, np.float32)}, "expr holds values that are not finite"),
        ({"neck_pose": p["neck_pose"][:2]}, r"neck_pose is \[2, 3\], wanted one row of 3 for each of 3 frames"),
        ({"static_offset": p["static_offset"][:, :30]}, r"static_offset is \[1, 30, 3\]"),
        ({"shape": None}, "has no shape"),
    ):
        kept = {n: a for n, a in {**p, **change}.items() if a is not None}
        np.savez(tmp_path / "ga" / "flame_param.npz", **kept)
        with pytest.raises(InputError, match=reason):
            list(gaussianavatars.read(tmp_path / "ga", None))
    with pytest.raises(InputError, match="is no folder of GaussianAvatars; leave --flame-path out"):
        list(_import.run(tmp_path / "a.ply", ImportConfig(flame_path=tmp_path / "f.npz"), tmp_path / "y"))
