"""Every exporter of the room, whoever wrote it: settings, help, events, whole files, errors; and the two verbs."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gsth import artifacts, cli, registry
from gsth.avatar import Avatar
from gsth.errors import GsthError, InputError
from gsth.export import _scene
from gsth.types import Done, Event

NAMES = registry.names("export")
ENDINGS = {"usd": ".usdc"}


@pytest.fixture(scope="module")
def folder(person: Avatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("room") / "me.avatar"
    person.save(made)
    return made


@pytest.fixture
def fitting(name: str, request: pytest.FixtureRequest) -> Avatar:
    """A person on the head that the format is for."""
    return request.getfixturevalue("flame_person" if name == "gaussianavatars" else "person")


def out_name(name: str) -> str:
    return f"out{ENDINGS.get(name, '.' + name)}"


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_explained_and_need_no_torch(name: str) -> None:
    config = registry.plugin("export", name)
    assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen and config.__doc__
    assert config() == config()
    source = "".join(inspect.getsource(c) for c in config.__mro__ if dataclasses.is_dataclass(c))
    for field in dataclasses.fields(config):
        after = source.split(f"    {field.name}: ", 1)[1].split("\n", 1)[1]
        assert after.lstrip().startswith('"""'), f"{name}: --{field.name} is not explained"
    code = f"import sys, gsth.export.{name} as m; m.Config(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_it_writes_one_whole_thing_and_says_so(name: str, fitting: Avatar, tmp_path: Path) -> None:
    out = tmp_path / out_name(name)
    events = list(registry.plugin("export", name)().build().write(fitting, out))
    assert all(isinstance(e, Event) for e in events)
    assert isinstance(events[-1], Done) and events[-1].path == out
    assert [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == [out]


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_cannot_be_written_is_named(name: str, fitting: Avatar, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GsthError, match="file"):
        list(registry.plugin("export", name)().build().write(fitting, tmp_path / "file" / out_name(name)))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("argv", [["ply", "--sequence"], ["glb"], ["usd", "--animate"]], ids=" ".join)
def test_a_motion_of_another_artifact_is_exported(
    argv: list[str], folder: Path, person: Avatar, tmp_path: Path
) -> None:
    artifacts.save(person.motion[1:4], tmp_path / "m")
    out = tmp_path / out_name(argv[0])
    ran = cli.run(["export", str(folder), *argv, "--motion", str(tmp_path / "m"), "--out", str(out)])
    assert ran == 0 and out.exists()
    if argv[0] == "ply":
        assert len(list(out.glob("*.ply"))) == 3
    foreign = person.motion.replace(head=dataclasses.replace(person.head.id, digest="f" * 16))
    artifacts.save(foreign, tmp_path / "foreign")
    with pytest.raises(InputError, match="stands on builtin"):
        _scene.motion_of(person, tmp_path / "foreign")


def test_the_verbs_go_there_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    glb, again = tmp_path / "a.glb", tmp_path / "again.avatar"
    slim = ["--splats", "200", "--finetune", "5", "--expressions", "jawOpen", "mouthClose"]
    assert cli.run(["export", str(folder), "glb", "--out", str(glb), *slim]) == 0
    assert cli.run(["import", str(glb), "--out", str(again)]) == 0
    made = Avatar.load(again)
    assert made.head.expression_names == ("jawOpen", "mouthClose") and len(made.splats.face_ids) == 200
    assert torch.isfinite(made.pose(made.motion[0]).means).all()
    assert "finetune  5/5" in capsys.readouterr().out
    assert cli.run(["import", str(tmp_path / "none.glb"), "--out", str(tmp_path / "b")]) == 2
    assert "none.glb: cannot be read" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep").write_text("x")
    assert cli.run(["import", str(glb), "--out", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "keep").exists()
