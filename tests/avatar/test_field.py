from __future__ import annotations

import dataclasses

import pytest
import torch

from gsth import head, render
from gsth.avatar import Avatar, AvatarConfig, DensityConfig, _step, _train, train
from gsth.avatar._field import Field, Kind, Listeners
from gsth.avatar._reel import Reel
from gsth.avatar._scene import Scene
from gsth.errors import InputError
from gsth.head import HeadModel
from gsth.types import Identity, Motion, RiggedSplats, Saved, Track

KINDS: tuple[Kind, ...] = ("attention", "region")
CONFIG = AvatarConfig(
    steps=240,
    splats=400,
    max_splats=700,
    correctives=0,
    settle=0.25,
    checkpoint_every=100,
    density=DensityConfig(every=20),
)


@pytest.fixture(scope="module")
def speaking(ball_track: Track) -> Track:
    """The ball, whose skin brightens with the sound: nothing in expressions or pose says so."""
    t = len(ball_track.frame_ids)
    loud = torch.tensor([1.0, 0.0] * t)[:t]
    skin = torch.from_numpy(ball_track.mattes.copy()).float()[..., None] / 255
    images = torch.from_numpy(ball_track.images.copy()).float() + 50 * loud[:, None, None, None] * skin
    audio = torch.stack((loud, 1 - loud, torch.ones(t)), 1)
    return ball_track.replace(images=images.clamp(0, 255).byte().numpy(), motion=ball_track.motion.replace(audio=audio))


def fresh(kind: Kind, ball: HeadModel, track: Track) -> Field:
    assert track.motion.audio is not None
    return Field.fresh(kind, ball.shaped(Identity(ball.id, torch.zeros(1))), track.motion.audio, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_begins_by_moving_nothing_and_stays_within_bounds(kind: Kind, ball: HeadModel, speaking: Track) -> None:
    field = fresh(kind, ball, speaking)
    points = ball.template[:50]
    inside = torch.zeros(50, dtype=torch.bool)
    features = field.features(points)
    assert (field(features, inside, speaking.motion[0]) == 0).all()
    for p in field.parameters():
        torch.nn.init.normal_(p, std=3.0)
    delta = field(field.features(points), inside, speaking.motion[0])
    assert delta.abs().max() > 1e-4
    assert delta[:, :3].abs().max() <= 0.002 and delta[:, 3:].abs().max() <= 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_comes_back_from_its_arrays(kind: Kind, ball: HeadModel, speaking: Track) -> None:
    field = fresh(kind, ball, speaking)
    for p in field.parameters():
        torch.nn.init.normal_(p)
    again = Field.of(field.tensors())
    inside = torch.arange(50) % 2 == 0
    points = ball.template[:50]
    ours, theirs = (f(f.features(points), inside, speaking.motion[3]) for f in (field, again))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_learns_what_only_the_sound_tells(
    kind: Kind, speaking: Track, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = dataclasses.replace(CONFIG, field=kind)
    events = list(train(speaking, config, tmp_path_factory.mktemp(kind), 8))
    avatar = Avatar.load(events[-1].path)
    assert avatar.field is not None and avatar.motion.audio is not None
    motion = avatar.motion[8]
    loud, quiet = (motion.replace(audio=torch.tensor([[on, 1 - on, 1.0]])) for on in (1.0, 0.0))
    rows = Listeners.of(avatar.shaped, avatar.splats).rows
    brighter = (avatar.pose(loud).sh - avatar.pose(quiet).sh)[rows].mean()
    # The pictures differ by 0.7 in SH units; a good part of it must be the sound's.
    assert brighter > 0.03
    silent = avatar.pose(motion.replace(audio=None))
    torch.testing.assert_close(silent.sh, dataclasses.replace(avatar, field=None).pose(motion).sh)


def test_one_frame_at_a_time_equals_all_at_once(ball: HeadModel, speaking: Track) -> None:
    field = fresh("region", ball, speaking)
    torch.nn.init.normal_(field.body.face[-1].weight)  # type: ignore[union-attr]
    features, inside = field.features(ball.template[:20]), torch.zeros(20, dtype=torch.bool)
    cut = speaking.motion[2:5]
    whole: Motion = speaking.motion
    torch.testing.assert_close(field(features, inside, whole[3]), field(features, inside, cut[1]), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_training_draws_what_the_avatar_will_be(kind: Kind, speaking: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    """Correctives move splats, but not the places that the field is asked about."""
    config = dataclasses.replace(CONFIG, field=kind, correctives=2, pose_refinement=False, steps=10)
    scene = Scene.of(Reel.of(speaking, 8), head.load("ball"), config, torch.device("cpu"))
    state = _train._start(scene, config)
    state.voice, state.step = _train._voice(scene, config), 9
    for values in (state.params["means_delta"], *state.voice.field.parameters()):
        torch.nn.init.normal_(values, std=0.5)
    drawn: list[RiggedSplats] = []
    rig = render.rig
    monkeypatch.setattr(render, "rig", lambda splats, mesh: (drawn.append(splats), rig(splats, mesh))[1])
    _step.one_frame(scene, state, config, 3, state.refinement.leaf(3))
    _train._avatar(scene, state).pose(speaking.motion[3])
    step, later = drawn
    torch.testing.assert_close(step.means_tri, later.means_tri)
    torch.testing.assert_close(step.sh, later.sh)


def test_inside_the_mouth_the_region_field_moves_mostly_up_and_down(ball: HeadModel, speaking: Track) -> None:
    field = fresh("region", ball, speaking)
    for branch in (field.body.face, field.body.mouth):
        torch.nn.init.constant_(branch[-1].bias, 0.5)  # type: ignore[index,union-attr]
    features, inside = field.features(ball.template[:2]), torch.tensor((False, True))
    skin, mouth = field(features, inside, speaking.motion[2]).detach()[:, :3].abs()
    torch.testing.assert_close(skin, skin[1].expand(3))
    assert mouth[1] == skin[1] and (mouth[[0, 2]] < 0.3 * mouth[1]).all()


def test_killed_run_with_a_field_ends_the_same(speaking: Track, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = dataclasses.replace(CONFIG, field="region", steps=40, checkpoint_every=20)
    folder = tmp_path_factory.mktemp("whole")
    *_, done = train(speaking, config, folder, 8)
    cut = tmp_path_factory.mktemp("cut")
    for event in train(speaking, config, cut, 8):
        if isinstance(event, Saved):
            break
    *_, again = train(speaking, config, cut, 8)
    a, b = (Avatar.load(d.path) for d in (done, again))
    torch.testing.assert_close(a.splats.means_tri, b.splats.means_tri, rtol=0, atol=0)
    assert a.field is not None and b.field is not None
    for name, value in a.field.tensors().items():
        torch.testing.assert_close(b.field.tensors()[name], value, rtol=0, atol=0)


def test_a_field_without_sound_is_refused(ball_track: Track, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = dataclasses.replace(CONFIG, field="attention")
    with pytest.raises(InputError, match="no audio features"):
        list(train(ball_track, config, tmp_path_factory.mktemp("mute"), 8))
