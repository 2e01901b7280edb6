"""A made-up person on the built-in head, few enough splats for software GL, and a browser that opens exports."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from player_pages import CHROMIUM_FLAGS, Quiet, Tab

from gsth import head, math3d
from gsth.head import JOINTS
from gsth.types import Cameras, Identity, Motion, RiggedSplats

SPLATS, WIDTH, HEIGHT = 3000, 320, 240


def _motion(model: head.HeadModel, frames: int = 12) -> Motion:
    """Every expression stirs, head and neck turn, the torso moves."""
    random = torch.Generator().manual_seed(5)
    expr = torch.rand(frames, len(model.expression_names), generator=random) * 0.35
    expr[:, model.expression_names.index("jawOpen")] = torch.linspace(0, 0.8, frames)
    joints = math3d.quat_identity(frames, len(JOINTS))
    for j, name in enumerate(JOINTS):
        if name != "root":
            joints[:, j] = math3d.rotvec_to_quat(0.12 * torch.randn(frames, 3, generator=random))
    place = math3d.rotvec_to_quat(0.08 * torch.randn(frames, 3, generator=random))
    where = torch.tensor((0.01, 0.1, 0.55)) + 0.01 * torch.randn(frames, 3, generator=random)
    return Motion(model.id, 25.0, expr, joints, torch.cat((place, where), 1))


@pytest.fixture(scope="session")
def person() -> Any:
    """SH of degree 1, 5 correctives (an odd number), a general voice; 320 x 240, an off-centre lens."""
    from gsth.avatar import Avatar, Correctives, Source
    from gsth.drive import _person

    random = torch.Generator().manual_seed(4)
    model, n = head.load(), SPLATS
    motion = _motion(model)
    frames = len(motion)
    faces = torch.randint(len(model.faces), (n,), generator=random)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    splats = RiggedSplats(
        face_ids=faces,
        means_tri=0.3 * noise(n, 3),
        quats_tri=noise(n, 4),
        log_scales=torch.log(torch.tensor((0.4, 0.2, 0.4))) + 0.3 * noise(n, 3),
        logit_opacities=1 + noise(n),
        sh=torch.cat((noise(n, 1, 3), 0.25 * noise(n, 3, 3)), 1),
    )
    features = len(model.expression_names) + 9
    avatar = Avatar(
        head=model,
        identity=Identity(model.id, 0.4 * noise(model.shape_basis.shape[0])),
        splats=splats,
        cameras=Cameras(torch.eye(4)[None], torch.tensor([[[430.0, 0, 150], [0, 425, 128], [0, 0, 1]]]), WIDTH, HEIGHT),
        motion=motion,
        source=Source(
            Path("made_up.mp4"),
            "0" * 64,
            25.0,
            (0, 0, WIDTH, HEIGHT),
            frames,
            frame_ids=torch.arange(frames),
            found=torch.ones(frames, dtype=torch.bool),
            error_pct=torch.zeros(frames),
        ),
        correctives=Correctives(
            0.1 * noise(features), 0.5 * noise(5, features), 0.1 * noise(n, 5, 3), 0.1 * noise(n, 5, 3)
        ),
    )
    return dataclasses.replace(avatar, speech=_person.general_voice(avatar).tensors())


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on a port of its own; the address."""
    servers = []

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def chromium(launch_chromium: Callable[[list[str]], Any]) -> Iterator[Any]:
    browser = launch_chromium(CHROMIUM_FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Tab]:
    tab = Tab(chromium)
    yield tab
    tab.context.close()


@pytest.fixture(scope="session")
def exported(person: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``gsth export web`` writes of the made-up person."""
    from gsth.export.web import Config

    out = tmp_path_factory.mktemp("web") / "page"
    list(Config().build().write(person, out))
    return out


@pytest.fixture(scope="session")
def light(person: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every tenth splat, so that software GL draws many frames a second."""
    from gsth.avatar import Correctives
    from gsth.export.web import Config

    few = slice(None, None, 10)
    splats = RiggedSplats(**{name: getattr(person.splats, name)[few] for name in vars(person.splats)})
    c = person.correctives
    thinned = Correctives(c.mean, c.basis, c.means_delta[few], c.sh_delta[few])
    out = tmp_path_factory.mktemp("light") / "page"
    list(Config().build().write(dataclasses.replace(person, splats=splats, correctives=thinned), out))
    return out


@pytest.fixture(scope="session")
def still(chromium: Any, exported: Path, serve: Callable[[Path], str]) -> Iterator[Any]:
    """One page whose loop stands and whose avatar does only what it is told, for tests of parts."""
    tab = Tab(chromium)
    page = tab.open(f"{serve(exported)}/index.html")
    page.evaluate("player.renderer.setAnimationLoop(null); player.setAlive(false); player.lookAt(null)")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.evaluate("player.fit()")
    yield page
    tab.context.close()
