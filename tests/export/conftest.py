"""A made-up person on the built-in head: skin, a red nose, a green crown and a blue left ear, turned and nodding."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import flame_like
import numpy as np
import pytest
import torch
from export_people import CROWN, FRAMES, LEFT_EAR, NOSE, SKIN, SPLATS, colours

from gsth import head, math3d
from gsth.avatar import Avatar, Correctives, Source
from gsth.drive import _person
from gsth.head import flame
from gsth.types import Cameras, Identity, Motion, RiggedSplats

NODE = Path(__file__).parent / "node"


def _motion(head_id: object, expressions: tuple[str, ...]) -> Motion:
    """Turns, nods, opens the jaw and blinks, half a metre away, with a torso that leans."""
    phase = torch.linspace(0, 2 * math.pi, FRAMES)
    expr = torch.zeros(FRAMES, len(expressions))
    expr[:, expressions.index("jawOpen")] = 0.5 - 0.5 * phase.cos()
    expr[:, expressions.index("eyeBlinkLeft")] = phase.sin().relu()
    joints = math3d.quat_identity(FRAMES, 5)
    zero = torch.zeros(FRAMES)
    joints[:, 1] = math3d.rotvec_to_quat(torch.stack((0.1 * phase.sin(), zero, zero), 1))
    joints[:, 2] = math3d.rotvec_to_quat(torch.stack((zero, 0.3 * phase.sin(), zero), 1))
    lean = math3d.rotvec_to_quat(torch.stack((zero + 0.2, zero - 0.3, 0.1 + 0.05 * phase.cos()), 1))
    place = torch.cat((lean, torch.stack((0.02 * phase.cos() + 0.05, zero + 0.1, zero + 0.6), 1)), 1)
    return Motion(head_id, 25.0, expr, joints, place)  # type: ignore[arg-type]


def _splats(model: head.HeadModel, generator: torch.Generator) -> RiggedSplats:
    parts = {name: model.parts[name] for name in ("nose", "scalp", "ears", "face", "lips", "teeth_lower")}
    left = parts["ears"][model.template[model.faces[parts["ears"]]].mean(1)[:, 0] > 0]
    carriers = ((parts["nose"], NOSE), (parts["scalp"], CROWN), (left, LEFT_EAR))
    ids, colours = [], []
    for faces, colour in carriers:
        ids.append(faces[torch.randint(len(faces), (40,), generator=generator)])
        colours += [colour] * 40
    rest = torch.cat([parts["face"], parts["lips"], parts["teeth_lower"]])
    rest = rest[~torch.isin(rest, torch.cat([faces for faces, _ in carriers]))]
    ids.append(rest[torch.randint(len(rest), (SPLATS - 120,), generator=generator)])
    colours += [SKIN] * (SPLATS - 120)
    sh = torch.randn(SPLATS, 4, 3, generator=generator) * 0.1
    sh[:, 0] = (torch.tensor(colours) - 0.5) / 0.28209479177387814
    return RiggedSplats(
        face_ids=torch.cat(ids),
        means_tri=torch.randn(SPLATS, 3, generator=generator) * 0.1,
        quats_tri=math3d.quat_normalize(torch.randn(SPLATS, 4, generator=generator)),
        log_scales=torch.rand(SPLATS, 3, generator=generator) - 1,
        logit_opacities=torch.rand(SPLATS, generator=generator) * 6 - 2,
        sh=sh,
    )


@pytest.fixture(scope="session")
def person() -> Avatar:
    """600 splats with SH of degree 1, two correctives, six frames at 25 fps, the general voice."""
    model, generator = head.load(), torch.Generator().manual_seed(3)
    motion = _motion(model.id, model.expression_names)
    identity = Identity(model.id, torch.randn(len(model.shape_basis), generator=generator) * 0.3)
    K = torch.tensor(((160.0, 0, 48), (0, 160, 48), (0, 0, 1)))
    features = motion.expr.shape[1] + 9
    correctives = Correctives(
        mean=torch.randn(features, generator=generator) * 0.05,
        basis=torch.randn(2, features, generator=generator) * 0.3,
        means_delta=torch.randn(SPLATS, 2, 3, generator=generator) * 0.05,
        sh_delta=torch.randn(SPLATS, 2, 3, generator=generator) * 0.01,
    )
    source = Source(
        clip_path=Path("made_up.mp4"),
        sha256="0" * 64,
        fps=25.0,
        crop_px=(0, 0, 96, 96),
        train_frames=4,
        frame_ids=torch.arange(FRAMES),
        found=torch.ones(FRAMES, dtype=torch.bool),
        error_pct=torch.zeros(FRAMES),
    )
    cameras = Cameras(torch.eye(4)[None], K[None], 96, 96)
    splats = _splats(model, generator)
    made = Avatar(model, identity, splats, cameras, motion, source, correctives=correctives)
    return dataclasses.replace(made, speech=_person.general_voice(made).tensors())


@pytest.fixture(scope="session")
def flame_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder, and in it flame.npz: a made-up model in FLAME's layout."""
    pytest.importorskip("mediapipe")
    home = tmp_path_factory.mktemp("flame")
    flame_like.write_npz(home / "flame.npz")
    return home


@pytest.fixture(scope="module")
def flame_person(person: Avatar, flame_home: Path) -> Iterator[Avatar]:
    """The person's motion on the made-up FLAME, with splats and offsets of its own; head.load finds the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(flame_home))
        model, generator = flame.Config(path=flame_home / "flame.npz").build(), torch.Generator().manual_seed(4)
        offsets = torch.randn(len(model.template), 3, generator=generator) * 1e-3
        identity = Identity(model.id, torch.randn(len(model.shape_basis), generator=generator) * 0.3, offsets)
        ids = torch.randint(len(model.faces), (SPLATS,), generator=generator)
        motion = person.motion.replace(head=model.id, joints=person.motion.joints.clone())
        motion.joints[:, 3:] = motion.joints[:, 1:2]
        yield dataclasses.replace(
            person, head=model, identity=identity, splats=person.splats.replace(face_ids=ids), motion=motion,
            correctives=None, speech={},
        )  # fmt: skip


@pytest.fixture(scope="session")
def want(person: Avatar) -> tuple[np.ndarray, np.ndarray]:
    """Positions and colours of the person at rest, by an own way: forward kinematics with everything at rest."""
    from gsth.export import _scene

    posed = person.pose(_scene.rest_motion(person, person.motion))
    back = math3d.transform_inverse(math3d.mean_placement(person.motion.T_world_head))
    means = math3d.transform_points(back[None], posed.means) * torch.tensor((1.0, -1.0, -1.0))
    return means.numpy(), colours(posed.sh[:, 0].numpy())


@pytest.fixture(scope="session")
def node() -> Callable[..., str]:
    """Runs a node script with the packages of tests/export/node; skips where they are not installed."""
    program = shutil.which("node")
    if program is None or not (NODE / "node_modules").is_dir():
        pytest.skip("needs node, and `npm ci --ignore-scripts` in tests/export/node")

    def run(script: str, *args: str | Path) -> str:
        ran = subprocess.run(
            [program, script, *map(str, args)], capture_output=True, text=True, cwd=NODE, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


@pytest.fixture(scope="session")
def splat_transform(node: Callable[..., str]) -> Callable[[Path, Path], None]:
    """PlayCanvas' converter: reads a file and writes another."""
    return lambda source, out: void(
        node("node_modules/@playcanvas/splat-transform/bin/cli.mjs", "-q", "-w", source, out)
    )


def void(_: str) -> None:
    """What a tool says does not matter where it succeeded."""
