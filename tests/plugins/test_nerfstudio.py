"""gsth as a method of nerfstudio. The whole way, in an environment of its own: nerfstudio_end_to_end.sh."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from pathlib import Path

import make_track
import pytest
import torch

from gsth import artifacts, cli
from gsth.avatar import Avatar
from gsth.errors import InputError, MissingExtraError
from gsth.export import _nerfstudio
from gsth.types import Track

ROOT = Path(__file__).resolve().parents[2]
HERE = importlib.util.find_spec("nerfstudio") is not None


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="needs the extra 'audio'")
    folder = tmp_path_factory.mktemp("nerfstudio") / "tiny.track"
    make_track.main(folder, 0.2, 48)
    return folder


def checkpoint(path: Path, faces: int, **change: torch.Tensor) -> Path:
    """As nerfstudio's trainer saves it."""
    n = 30
    state = {
        "face_ids": torch.arange(n) % faces, "means_tri": torch.zeros(n, 3), "quats_tri": torch.eye(4)[:1].repeat(n, 1),
        "log_scales": torch.full((n, 3), -1.0), "logit_opacities": torch.ones(n), "sh": torch.zeros(n, 1, 3),
    }  # fmt: skip
    state = {f"_model.{name}": value for name, value in (state | change).items()}
    optimizers = {"sh": torch.optim.Adam([torch.zeros(1, requires_grad=True)]).state_dict()}
    torch.save({"step": 7, "pipeline": state, "optimizers": optimizers, "schedulers": {}, "scalers": {}}, path)
    return path


def test_the_entry_point_names_what_is_there() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module, name = points["nerfstudio.method_configs"]["gsth"].split(":")
    assert importlib.util.find_spec(module) is not None
    source = (ROOT / "gsth" / "plugins" / "nerfstudio.py").read_text()
    assert f"\n{name} = MethodSpecification(" in source


@pytest.mark.skipif(HERE, reason="nerfstudio is installed here")
def test_without_nerfstudio_the_error_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"gsth\[nerfstudio\]"):
        importlib.import_module("gsth.plugins.nerfstudio")


def test_a_checkpoint_becomes_an_avatar_of_its_track(
    track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = checkpoint(tmp_path / "step-000000007.ckpt", 100)
    out = tmp_path / "me.avatar"
    assert cli.run(["import", str(saved), "--onto", str(track), "--out", str(out)]) == 0
    made, known = Avatar.load(out), artifacts.load(Track, track)
    assert len(made.splats.face_ids) == 30 and made.head.id == known.identity.head
    assert torch.isfinite(made.pose(made.motion[3]).means).all()
    assert cli.run(["import", str(saved), "--out", str(tmp_path / "other")]) == 2
    assert "give the track that it was trained on" in capsys.readouterr().err


def test_a_foreign_or_broken_checkpoint_is_refused_with_the_reason(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.mkdir, (tmp_path / "ran",)

    torch.save({"pipeline": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint(tmp_path / "a.ckpt", 100).read_bytes()[:900])
    for name in ("evil.ckpt", "cut.ckpt", "none.ckpt"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read as a checkpoint of tensors"):
            _nerfstudio.read(tmp_path / name, 100)
    torch.save({"pipeline": {"_model.means": torch.zeros(3, 3)}}, tmp_path / "splatfacto.ckpt")
    with pytest.raises(InputError, match=r"is no checkpoint of nerfstudio's method gsth: it lacks face_ids, means_tri"):
        _nerfstudio.read(tmp_path / "splatfacto.ckpt", 100)
    assert not (tmp_path / "ran").exists()
    for change, reason in (
        ({"means_tri": torch.full((30, 3), torch.nan)}, "not finite"),
        ({"face_ids": torch.full((30,), 100)}, "hangs on triangles that the head, which has 100"),
        ({"sh": torch.zeros(29, 1, 3)}, r"RiggedSplats.sh: want shape \[n=30"),
    ):
        with pytest.raises(InputError, match=reason):
            _nerfstudio.read(checkpoint(tmp_path / "b.ckpt", 100, **change), 100)


@pytest.mark.skipif(not HERE, reason="needs nerfstudio, in an environment of its own (nerfstudio_end_to_end.sh)")
def test_cameras_go_there_and_back_and_the_model_learns(track: Path) -> None:
    from gsth.plugins import nerfstudio

    known = artifacts.load(Track, track)
    centre = nerfstudio.origin(known)
    there = nerfstudio.to_nerfstudio(known.cameras.viewmats, centre)
    torch.testing.assert_close(nerfstudio.from_nerfstudio(there, centre), known.cameras.viewmats)
    assert float(there[0, 0, 3]) > 0.2 and float(there[0, 1, 3]) > 0.2, "before the face, where the viewer begins"
    assert float(there[0, 2, 1]) > 0.99, "its upward axis is the world's z"
    manager = nerfstudio.TrackManagerConfig(data=track).setup(device="cpu")
    first, batch = manager.next_train(0)
    config = nerfstudio.RiggedModelConfig(splats=800)
    model = config.setup(
        scene_box=None, num_train_data=len(manager.train_dataset), metadata=manager.train_dataset.metadata
    )
    optimizer = torch.optim.Adam([p for group in model.get_param_groups().values() for p in group], lr=0.01)
    losses = []
    for _ in range(12):
        loss = sum(model.get_loss_dict(model(first), batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0], losses
    again = config.setup(scene_box=None, num_train_data=1, metadata=manager.train_dataset.metadata)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(first)["rgb"], model(first)["rgb"])
