"""Artifacts: whole or absent, refused with a reason, never unpickled, one writer at a time."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import artifacts
from gsth.errors import ArtifactError, InputError, OutputError
from gsth.types import Cameras, Clip, HeadId, Identity, Motion, Track

HEAD = HeadId("made-up", "1", "0123456789abcdef")


def motion(frames: int = 3) -> Motion:
    return Motion(HEAD, 25.0, torch.rand(frames, 52), torch.rand(frames, 5, 4), torch.rand(frames, 7))


def track(path: Path, plate: bool = True) -> Track:
    rng = np.random.default_rng(0)
    return Track(
        clip=Clip(path / "me.mp4", 25.0, 9, 64, 48, None),
        frame_ids=torch.arange(0, 9, 3),
        crop_px=(-2, 0, 46, 48),
        cameras=Cameras(torch.eye(4)[None], torch.eye(3)[None], 8, 6),
        identity=Identity(HEAD, torch.rand(4), torch.rand(7, 3)),
        motion=motion(),
        landmarks_px=torch.rand(3, 478, 2),
        found=torch.tensor([True, False, True]),
        error_pct=torch.rand(3),
        images=rng.integers(0, 256, (3, 6, 8, 3), dtype=np.uint8),
        mattes=rng.integers(0, 256, (3, 6, 8), dtype=np.uint8),
        plate=torch.rand(6, 8, 3) if plate else None,
    )


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and bool((a == b).all())
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    return a == b


@pytest.mark.parametrize("plate", [True, False])
def test_track_comes_back_memory_mapped(tmp_path: Path, plate: bool) -> None:
    saved = track(tmp_path, plate)
    artifacts.save(saved, tmp_path / "t", seed=3)
    back = artifacts.load(Track, tmp_path / "t")
    assert same(saved, back)
    assert isinstance(back.images, np.memmap) and not back.images.flags.writeable
    artifacts.save(back, tmp_path / "t")  # over itself, while its series are mapped from there
    assert same(saved, artifacts.load(Track, tmp_path / "t"))
    assert artifacts.read_meta(tmp_path / "t", "track")["head"]["digest"] == HEAD.digest


def test_every_other_coin_comes_back(tmp_path: Path) -> None:
    t = track(tmp_path)
    for coin in (HEAD, t.clip, t.identity, Identity(HEAD, torch.rand(4)), t.motion, t.cameras):
        folder = tmp_path / type(coin).__name__.lower()
        artifacts.save(coin, folder)
        assert same(coin, artifacts.load(type(coin), folder))


def test_series_written_in_place_is_not_copied(tmp_path: Path) -> None:
    t = track(tmp_path)
    with artifacts.writing(tmp_path / "t", "track") as part:
        images = np.lib.format.open_memmap(part / "frames.npy", mode="w+", dtype=np.uint8, shape=t.images.shape)
        images[:] = t.images
        inode = (part / "frames.npy").stat().st_ino
        artifacts.save_into(t.replace(images=images), part)
    assert (tmp_path / "t" / "frames.npy").stat().st_ino == inode
    assert same(t, artifacts.load(Track, tmp_path / "t"))


def test_meta_says_what_and_how(tmp_path: Path) -> None:
    artifacts.save(motion(), tmp_path / "m", config={"steps": 7, "clip": tmp_path}, seed=5, kind="lie")
    meta = artifacts.read_meta(tmp_path / "m", "motion")
    assert (meta["kind"], meta["version"], meta["seed"], meta["config"]["steps"]) == ("motion", 1, 5, 7)
    assert (
        meta["config"]["clip"] == str(tmp_path) and "OpenCV" in meta["frame"] and {"gsth", "units", "made"} < set(meta)
    )


def test_failed_writing_leaves_the_old_one(tmp_path: Path) -> None:
    old = motion()
    artifacts.save(old, tmp_path / "m")
    with pytest.raises(RuntimeError), artifacts.writing(tmp_path / "m", "motion") as part:
        (part / "half").write_text("x")
        raise RuntimeError
    assert same(old, artifacts.load(Motion, tmp_path / "m")) and os.listdir(tmp_path) == ["m"]


def test_leftovers_of_a_killed_run_vanish(tmp_path: Path) -> None:
    (tmp_path / ".m.part").mkdir()
    (tmp_path / ".m.part" / "junk").write_text("x")
    artifacts.save(motion(), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"] and not (tmp_path / "m" / "junk").exists()


def test_foreign_places_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    artifacts.save(motion(), tmp_path / "m")
    for name, reason in {"photos": "did not write", "file": "is a file", "m": "holds a motion"}.items():
        with pytest.raises(InputError, match=reason):
            artifacts.check_out(tmp_path / name, "avatar")
        with pytest.raises(InputError, match=reason), artifacts.writing(tmp_path / name, "avatar"):
            raise AssertionError("must not get here")
    assert (tmp_path / "photos" / "cat.png").exists()
    for name in ("empty", "absent"):
        artifacts.check_out(tmp_path / name, "avatar")
    artifacts.save(motion(), tmp_path / "empty")
    with pytest.raises(OutputError, match="part of the path"):
        artifacts.save(motion(), tmp_path / "file" / "m")


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(InputError, match="no such motion"):
        artifacts.load(Motion, folder)
    artifacts.save(motion(), folder)
    with pytest.raises(InputError, match="holds a motion, wanted a track"):
        artifacts.load(Track, folder)
    good = json.loads((folder / "meta.json").read_text())

    def with_meta(**changes: object) -> None:
        (folder / "meta.json").write_text(json.dumps(good | changes))

    with_meta(version=99)
    with pytest.raises(ArtifactError, match="update gsth"):
        artifacts.load(Motion, folder)
    assert not artifacts.is_kind(folder, "motion")
    with_meta(coin=good["coin"] | {"wings": 2})
    with pytest.raises(ArtifactError, match="wings"):
        artifacts.load(Motion, folder)
    with_meta(coin={k: v for k, v in good["coin"].items() if k != "expr"})
    with pytest.raises(ArtifactError, match="expr"):
        artifacts.load(Motion, folder)
    with_meta(files={})  # as an older gsth wrote it
    assert artifacts.is_kind(folder, "motion")
    arrays = artifacts.load_arrays(folder)
    artifacts.save_arrays(folder, arrays | {"expr": torch.zeros(2, 52)})
    with pytest.raises(ArtifactError, match="joints"):
        artifacts.load(Motion, folder)
    data = (folder / "arrays.safetensors").read_bytes()
    (folder / "arrays.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="arrays.safetensors"):
        artifacts.load(Motion, folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.load(Motion, folder)


class Bomb:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_pickles_do_not_go_off(tmp_path: Path) -> None:
    artifacts.save(track(tmp_path), tmp_path / "t")
    meta = json.loads((tmp_path / "t" / "meta.json").read_text())
    (tmp_path / "t" / "meta.json").write_text(json.dumps(meta | {"files": {}}))  # else sizes and hashes stop it before
    bomb = pickle.dumps(Bomb(str(tmp_path / "boom")))
    np.save(tmp_path / "t" / "frames.npy", np.array([Bomb(str(tmp_path / "boom"))], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError):
        artifacts.load(Track, tmp_path / "t")
    (tmp_path / "t" / "arrays.safetensors").write_bytes(bomb)
    with pytest.raises(ArtifactError):
        artifacts.load(Track, tmp_path / "t")
    assert not (tmp_path / "boom").exists()


def test_series_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    artifacts.save(track(tmp_path), tmp_path / "t")
    meta = json.loads((tmp_path / "t" / "meta.json").read_text())
    np.save(tmp_path / "secret.npy", np.zeros((3, 6, 8, 3), np.uint8))
    meta["coin"]["images"]["series"] = "../secret.npy"
    (tmp_path / "t" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ArtifactError, match="secret"):
        artifacts.load(Track, tmp_path / "t")


def test_arrays_keep_type_and_sharing_does_not_matter(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    given = {"a": base, "b": base.T, "c": base[1:], "ids": torch.tensor([1, 2]), "flags": torch.tensor([True])}
    artifacts.save_arrays(tmp_path, given)
    back = artifacts.load_arrays(tmp_path)
    assert all(same(given[k].contiguous(), back[k]) for k in given) and set(back) == set(given)


HOLD = """
import sys, time
from gsth import artifacts
with artifacts.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_run_is_told_who_writes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            with pytest.raises(InputError, match=f"process {other.pid} on .* for [0-9]+ s"):
                artifacts.save(motion(), tmp_path / "m")
        finally:
            other.kill()
    for _ in range(50):  # the system frees a killed process's lock
        if other.poll() is not None:
            break
        time.sleep(0.1)
    artifacts.save(motion(), tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


def test_lock_is_reentrant_and_goes(tmp_path: Path) -> None:
    with artifacts.lock(tmp_path / "m"):
        artifacts.save(motion(), tmp_path / "m")
        assert (tmp_path / ".m.lock").exists()
    assert os.listdir(tmp_path) == ["m"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert artifacts.sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="cannot be read"):
        artifacts.sha256(tmp_path / "absent")


@pytest.mark.parametrize("name", ["meta.json", "arrays.safetensors", "frames.npy"])
def test_links_are_refused(tmp_path: Path, name: str) -> None:
    artifacts.save(track(tmp_path), tmp_path / "t")
    (tmp_path / "t" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "t" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a link"):
        artifacts.load(Track, tmp_path / "t")


def test_damage_is_told_from_content(tmp_path: Path) -> None:
    artifacts.save(motion(), tmp_path / "m")
    arrays = tmp_path / "m" / "arrays.safetensors"
    data = bytearray(arrays.read_bytes())
    data[-3] ^= 1  # a bit of a number: the file is still whole in form
    arrays.write_bytes(data)
    with pytest.raises(ArtifactError, match="hash differs"):
        artifacts.load(Motion, tmp_path / "m")
    arrays.write_bytes(data + b" ")
    with pytest.raises(ArtifactError, match="bytes, it was written with"):
        artifacts.load(Motion, tmp_path / "m")
    arrays.unlink()
    with pytest.raises(ArtifactError, match="has no bytes"):
        artifacts.load(Motion, tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../x": {"bytes": 1}}},
        {"files": {"..": {"bytes": 1}}},
        {"files": 3},
        {"files": {"a": 3}},
        {"version": 1e999},
        {"version": [1]},
    ],
)
def test_meta_that_somebody_made_up_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    artifacts.save(motion(), tmp_path / "m")
    file = tmp_path / "m" / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.load(Motion, tmp_path / "m")


def test_files_that_would_fill_the_memory_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.save(motion(), tmp_path / "m")
    monkeypatch.setattr(artifacts, "MAX_ARRAYS_BYTES", 100)
    with pytest.raises(ArtifactError, match="at most 100 are read"):
        artifacts.load(Motion, tmp_path / "m")
    (tmp_path / "m" / "meta.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.load(Motion, tmp_path / "m")
    monkeypatch.setattr(artifacts, "MAX_META_BYTES", 1000)
    with pytest.raises(ArtifactError, match="at most 1000 are read"):
        artifacts.load(Motion, tmp_path / "m")
