from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import small_work
import torch

from gsth import head, pipeline, render
from gsth._config import presets
from gsth.avatar import Avatar, AvatarConfig, Crew, DensityConfig, _regions, _step, _train, train
from gsth.avatar._crew import device_of
from gsth.avatar._reel import Reel
from gsth.avatar._scene import Scene
from gsth.errors import DivergedError, InputError
from gsth.types import Cameras, Densified, Done, Rendered, Saved, Splats, Step, Track

CONFIG = AvatarConfig(
    steps=120, splats=400, max_splats=600, correctives=3, checkpoint_every=40, density=DensityConfig(every=20)
)


def run(track: Track, work: Path, config: AvatarConfig = CONFIG, stop_after: int | None = None) -> list:
    events = []
    for event in train(track, config, work, train_frames=8):
        events.append(event)
        if isinstance(event, Saved) and stop_after and len(events) >= stop_after:
            break
    return events


@pytest.fixture(scope="module")
def trained(ball_track: Track, tmp_path_factory: pytest.TempPathFactory) -> list:
    """Events of one whole run; the last names its avatar."""
    return run(ball_track, tmp_path_factory.mktemp("whole"))


def held_out_psnr(avatar: Avatar, track: Track) -> float:
    errors = []
    for i in range(avatar.source.train_frames, len(track.frame_ids)):
        drawn = render.render(avatar.pose(avatar.motion[i]), avatar.cameras, background=avatar.background())
        errors.append((drawn.rgb[0] - torch.from_numpy(track.images[i]) / 255).square().mean())
    return float(-10 * torch.stack(errors).mean().log10())


def test_training_shows_frames_never_seen(ball_track: Track, trained: list) -> None:
    events, avatar = trained, Avatar.load(trained[-1].path)
    mean_image = torch.from_numpy(ball_track.images[:8] / 255).float().mean(0)
    baseline = -10 * (torch.from_numpy(ball_track.images[8:]) / 255 - mean_image).square().mean().log10()
    assert held_out_psnr(avatar, ball_track) > float(baseline) + 3
    assert isinstance(events[-1], Done)
    assert any(isinstance(e, Densified) for e in events)
    assert len(avatar.splats.face_ids) <= CONFIG.max_splats
    assert [e for e in events if isinstance(e, Step) and e.stage == "train"][-1].done == CONFIG.steps


def test_killed_run_ends_the_same(ball_track: Track, trained: list, tmp_path: Path) -> None:
    whole = Avatar.load(trained[-1].path)
    interrupted = run(ball_track, tmp_path / "cut", stop_after=1)
    assert isinstance(interrupted[-1], Saved)
    rest = run(ball_track, tmp_path / "cut")
    assert [e for e in rest if isinstance(e, Step)][0].done > 40
    cut = Avatar.load(rest[-1].path)
    for f in dataclasses.fields(whole.splats):
        torch.testing.assert_close(getattr(cut.splats, f.name), getattr(whole.splats, f.name), rtol=0, atol=0)


def test_checkpoint_of_another_config_is_not_continued(ball_track: Track, tmp_path: Path) -> None:
    run(ball_track, tmp_path, stop_after=1)
    other = dataclasses.replace(CONFIG, seed=1, steps=60)
    steps = [e for e in run(ball_track, tmp_path, other) if isinstance(e, Step)]
    assert steps[0].done < 40


def test_avatar_artifact_round_trip(ball_track: Track, trained: list, tmp_path: Path) -> None:
    avatar = Avatar.load(trained[-1].path)
    avatar.save(tmp_path / "again")
    again = Avatar.load(tmp_path / "again")
    a, b = avatar.pose(avatar.motion[3]), again.pose(again.motion[3])
    torch.testing.assert_close(a.means, b.means, rtol=0, atol=0)
    torch.testing.assert_close(a.sh, b.sh, rtol=0, atol=0)
    assert again.source.crop_px == ball_track.crop_px
    torch.testing.assert_close(again.background(), ball_track.plate, atol=0.5 / 255, rtol=0)


def test_pose_refuses_other_heads_and_several_frames(trained: list) -> None:
    avatar = Avatar.load(trained[-1].path)
    with pytest.raises(InputError, match="one frame"):
        avatar.pose(avatar.motion)
    stranger = avatar.motion.replace(head=dataclasses.replace(avatar.motion.head, name="other"))
    with pytest.raises(InputError, match="other"):
        avatar.pose(stranger[0])


def test_teeth_keep_their_places_while_skin_follows_the_motion(tmp_path: Path) -> None:
    track, config = small_work.track(tmp_path / "clip.mp4"), small_work.config(splats=3000, max_splats=4000).avatar
    *_, done = train(track, config, tmp_path / "work", 8)
    avatar = Avatar.load(done.path)
    assert avatar.correctives is not None
    moved = avatar.correctives.means_delta.abs().amax((1, 2))
    names = [_regions.REGIONS[i].name for i in _regions.region_of_faces(avatar.head)[avatar.splats.face_ids]]
    teeth = torch.tensor([name.startswith("teeth") for name in names])
    skin = torch.tensor([name == "face" for name in names])
    assert teeth.sum() > 10 and (moved[teeth] == 0).all() and (moved[skin] > 0).float().mean() > 0.5


@pytest.mark.parametrize(
    "wrong", [{"settle": -0.1}, {"settle": 3.0}, {"coarse_until": 1.5}, {"correctives": -1}, {"steps": 0}], ids=str
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(CONFIG, **wrong)


def test_settling_at_once_settles(ball_track: Track, tmp_path: Path) -> None:
    made = run(ball_track, tmp_path, dataclasses.replace(CONFIG, settle=0.0, steps=10))[-1]
    never = run(ball_track, tmp_path / "n", dataclasses.replace(CONFIG, settle=1.0, steps=10))[-1]
    assert Avatar.load(made.path).unseen is not None and Avatar.load(never.path).unseen is None
    assert Avatar.load(made.path).unseen.any()  # type: ignore[union-attr]


def test_five_minutes_of_the_largest_preset_stay_below_thirty_megabytes(trained: list, tmp_path: Path) -> None:
    """Beside this lies a still background, a megabyte or two."""
    avatar = Avatar.load(trained[-1].path)
    assert avatar.correctives is not None
    config, frames = presets(pipeline.TrainConfig, "train")["high"].avatar, 7500
    rows, names = torch.arange(config.max_splats) % len(avatar.splats.face_ids), head.load().expression_names
    long = avatar.taken(rows)
    assert long.correctives is not None
    kept = torch.arange(config.correctives) % len(long.correctives.basis)
    deltas = {n: getattr(long.correctives, n)[:, kept] for n in ("means_delta", "sh_delta")}
    deltas["basis"] = long.correctives.basis[kept]
    which = torch.arange(frames) % len(avatar.motion)
    fields = {n: getattr(avatar.motion, n)[which] for n in ("joints", "T_world_head")}
    motion = avatar.motion.replace(expr=torch.rand(frames, len(names)), **fields)
    source = avatar.source.replace(**{n: getattr(avatar.source, n)[which] for n in ("frame_ids", "found", "error_pct")})
    dataclasses.replace(
        long, motion=motion, landmark_motion=motion, source=source, correctives=long.correctives.replace(**deltas)
    ).save(tmp_path / "long.avatar")
    size = sum(path.stat().st_size for path in (tmp_path / "long.avatar").rglob("*"))
    assert size < 28e6


def test_nan_stops_with_the_name_of_what_broke(ball_track: Track, tmp_path: Path) -> None:
    broken = ball_track.replace(plate=torch.full_like(ball_track.plate, float("nan")))
    with pytest.raises((DivergedError, InputError)):
        run(broken, tmp_path)


def test_no_face_in_the_training_part(ball_track: Track, tmp_path: Path) -> None:
    blind = ball_track.replace(found=torch.zeros_like(ball_track.found))
    with pytest.raises(InputError, match="no face"):
        run(blind, tmp_path)


def test_a_step_is_computed_where_the_scene_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device that has no values: torch refuses to mix it with the processor, as it would a GPU."""
    here, meta = torch.device("cpu"), torch.device("meta")
    track, config = small_work.track(tmp_path / "clip.mp4"), small_work.config().avatar
    scenes = {d: Scene.of(Reel.of(track, 8), head.load(), config, d) for d in (here, meta)}
    state = _train._start(scenes[here], config)
    for name in ("face_ids", "lent", "pull", "height"):
        setattr(state, name, getattr(state, name).to(meta))
    state.params = {name: p.detach().to(meta).requires_grad_() for name, p in state.params.items()}

    def drawn(splats: Splats, cameras: Cameras, *, background: torch.Tensor) -> Rendered:
        value = splats.means.mean() + splats.sh.mean() + cameras.viewmats.mean() + background.mean()
        rgb = value + torch.zeros(1, cameras.height, cameras.width, 3, device=meta)
        return Rendered(rgb, rgb[..., 0], rgb[..., 0], splats.means[None, :, :2], splats.means[None, :, 0])

    monkeypatch.setattr(render, "render", drawn)
    loss, _, image = _step.one_frame(scenes[meta], state, config, 0, state.refinement.leaf(0))
    assert loss.device == image.device == meta
    with pytest.raises((RuntimeError, NotImplementedError)):
        _step.one_frame(scenes[here], state, config, 0, state.refinement.leaf(0))


@pytest.mark.gpu
def test_training_on_a_gpu_learns_what_the_processor_learns(tmp_path: Path) -> None:
    if device_of("auto").type != "cuda":
        pytest.skip("gsth can use no GPU here")
    made = {}
    track, config = small_work.track(tmp_path / "clip.mp4"), small_work.config().avatar
    for device in ("cpu", "cuda"):
        *_, done = train(track, config, tmp_path / device, 8, Crew(device=torch.device(device)))
        made[device] = Avatar.load(done.path)
    ours, theirs = made.values()
    assert held_out_psnr(theirs, track) == pytest.approx(held_out_psnr(ours, track), abs=0.2)
    seen = [
        render.render(a.to("cuda").pose(a.motion[0].to("cuda")), a.cameras.to("cuda"), background=torch.zeros(3).cuda())
        for a in (ours, theirs)
    ]
    assert seen[0].rgb.device.type == "cuda" and float((seen[0].rgb - seen[1].rgb).abs().mean()) < 0.01
