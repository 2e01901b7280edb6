"""Props, and props that learn to move: re-rigging to a tracked identity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import artifacts
from gsth.avatar import Avatar
from gsth.errors import ArtifactError, InputError
from gsth.export import _import, _scene, ply, spz, web
from gsth.types import Clip, Done, Splats, Track


def imported(path: Path, out: Path, **options: object) -> Done:
    *_, done = _import.run(path, _import.ImportConfig(**options), out)  # type: ignore[arg-type]
    assert isinstance(done, Done)
    return done


@pytest.mark.parametrize("ending", ["ply", "spz"])
def test_a_still_file_becomes_a_prop(ending: str, person: Avatar, tmp_path: Path) -> None:
    exporter = {"ply": ply, "spz": spz}[ending].Config().build()
    list(exporter.write(person, tmp_path / f"a.{ending}"))
    imported(tmp_path / f"a.{ending}", tmp_path / "prop")
    prop, still = artifacts.load(Splats, tmp_path / "prop"), _scene.still(person, _scene.Still())
    assert torch.allclose(prop.means, still.means, atol=1e-4)


def test_a_prop_hung_on_a_head_moves_with_it(person: Avatar, tmp_path: Path) -> None:
    person.save(tmp_path / "me.avatar")
    list(ply.Config().build().write(person, tmp_path / "a.ply"))
    imported(tmp_path / "a.ply", tmp_path / "again.avatar", onto=tmp_path / "me.avatar")
    again = Avatar.load(tmp_path / "again.avatar")
    rest = _scene.rest_motion(person, person.motion)
    assert torch.allclose(again.pose(rest).means, person.pose(rest).means, atol=1e-5)
    assert torch.allclose(again.pose(rest).scales, person.pose(rest).scales, rtol=1e-3, atol=1e-6)
    assert torch.allclose(again.pose(rest).sh, person.pose(rest).sh, atol=1e-5)
    # Splats near their triangle find it or a neighbour: they then move almost as the original ones do.
    moved, truth = (m.pose(person.motion[2]).means for m in (again, person))
    still = person.pose(rest).means
    assert (moved - truth).norm(dim=1).median() < 0.1 * (truth - still).norm(dim=1).median()
    teeth = torch.isin(person.splats.face_ids, person.head.parts["teeth_lower"])
    inside = torch.cat([person.head.parts[p] for p in _import._INSIDE])
    assert torch.isin(again.splats.face_ids[teeth], inside).float().mean() > 0.6
    lips = torch.isin(person.splats.face_ids, person.head.parts["lips"])
    assert lips.sum() > 10 and torch.isin(again.splats.face_ids[lips], inside).float().mean() < 0.2


def test_a_prop_hung_on_a_track_moves_as_that_person(person: Avatar, tmp_path: Path) -> None:
    """For splats from elsewhere: a tracked clip gives the head, its motion and its camera."""
    (tmp_path / "clip.mp4").write_bytes(b"filmed")
    s, m, size = person.source, person.motion, 8
    clip = Clip(tmp_path / "clip.mp4", m.fps, len(m), size, size, None)
    images, mattes = (np.zeros((len(m), size, size, *c), np.uint8) for c in ((3,), ()))
    track = Track(
        clip, s.frame_ids, s.crop_px, person.cameras.replace(width=size, height=size), person.identity, m,
        torch.zeros(len(m), 478, 2), s.found, s.error_pct, images, mattes,
    )  # fmt: skip
    artifacts.save(track, tmp_path / "me.track")
    list(ply.Config().build().write(person, tmp_path / "a.ply"))
    imported(tmp_path / "a.ply", tmp_path / "again.avatar", onto=tmp_path / "me.track")
    again, rest = Avatar.load(tmp_path / "again.avatar"), _scene.rest_motion(person, m)
    assert torch.equal(again.motion.expr, m.expr) and again.source.train_frames == len(m)
    assert torch.allclose(again.pose(rest).means, person.pose(rest).means, atol=1e-5)
    moved, truth, still = again.pose(m[2]).means, person.pose(m[2]).means, person.pose(rest).means
    assert (moved - truth).norm(dim=1).median() < 0.1 * (truth - still).norm(dim=1).median()


@pytest.mark.parametrize("which", ["folder", "bin", "html"])
def test_a_web_page_becomes_the_avatar_again(which: str, person: Avatar, tmp_path: Path) -> None:
    out = tmp_path / ("me.html" if which == "html" else "me_vr")
    list(web.Config(single_file=which == "html").build().write(person, out))
    done = imported(out / "avatar.gsth.bin" if which == "bin" else out, tmp_path / "again.avatar")
    assert done.values == {"splats": len(person.splats.face_ids), "frames": len(person.motion)}
    again = Avatar.load(tmp_path / "again.avatar")
    order = person.splats.face_ids.argsort(stable=True)  # as the page holds them
    moved, truth = (m.pose(m.motion[2]).means for m in (again, person))
    assert (moved - truth[order]).norm(dim=1).max() < 1e-4
    assert set(again.speech) == set(person.speech)


def test_what_is_no_page_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("<p>hello")
    (tmp_path / "damaged.html").write_text("data:application/octet-stream;base64,AAAA")
    (tmp_path / "other.bin").write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    for name, error, says in (
        ("other.html", InputError, "holds no avatar"),
        ("damaged.html", ArtifactError, "begins with"),
        ("other.bin", ArtifactError, "begins with"),
        ("empty", InputError, "avatar.gsth.bin: cannot be read"),
    ):
        with pytest.raises(error, match=says):
            imported(tmp_path / name, tmp_path / "out")


def test_nearest_triangle_is_nearest(person: Avatar) -> None:
    """Points just above known triangles find them."""
    verts, faces = person.shaped.rest, person.head.faces
    ids = person.head.parts["face"]
    some = ids[torch.randint(len(ids), (200,))]
    corner = verts[faces[some]]
    inside = torch.rand(200, 3) * 0.6 + 0.2
    points = (corner * (inside / inside.sum(1, keepdim=True))[..., None]).sum(1)
    found, distance = _import._nearest(points, verts, faces, ids, verts[faces].mean(1))
    assert distance.max() < 1e-5 and (found == some).float().mean() > 0.98


def test_wrong_files_are_refused(person: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0")
    with pytest.raises(InputError, match=r"want a \.glb, \.bin, \.html, \.ply or \.spz"):
        imported(tmp_path / "a.obj", tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read"):
        imported(tmp_path / "none.ply", tmp_path / "out")
    with pytest.raises(InputError, match="leave --onto out"):
        imported(tmp_path / "a.glb", tmp_path / "out", onto=tmp_path)
    monkeypatch.setattr(_import, "MAX_BYTES", 3)
    (tmp_path / "a.ply").write_bytes(b"ply\n")
    with pytest.raises(InputError, match="at most 3"):
        imported(tmp_path / "a.ply", tmp_path / "out")
    assert not (tmp_path / "out").exists()
