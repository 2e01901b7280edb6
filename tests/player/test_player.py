"""The player in a browser, against Python: rig, order, picture, voice, memory."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from player_pages import MEASURE, Tab

from gsth import audio, math3d, render
from gsth.avatar import Avatar
from gsth.export import _bin, _slim
from gsth.export.web import Config
from gsth.types import Motion

pytestmark = pytest.mark.browser
BACKGROUND = torch.tensor((0x2A, 0x2D, 0x33)) / 255


@pytest.fixture(scope="module")
def stored(exported: Path) -> Avatar:
    """What the page was given, so that only arithmetic differs and not precision on disk."""
    return _bin.unpack((exported / "avatar.gsth.bin").read_bytes())


def _floats(page: Any, script: str, argument: Any = None) -> np.ndarray:
    """A Float32Array that a script makes."""
    text = page.evaluate(
        f"""async (given) => {{
          const values = await (async (given) => {{ {script} }})(given);
          const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
          let text = "";
          for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
          return btoa(text);
        }}""",
        argument,
    )
    return np.frombuffer(base64.b64decode(text), np.float32)


_RIG = """
  globalThis.rigs ??= {};
  const file = (globalThis.file ??= await gsth.AvatarFile.parse(await (await fetch("avatar.gsth.bin")).arrayBuffer()));
  const rig = (rigs[given.simd] ??= await gsth.Rig.make(file, given.simd));
  if (rig.simd !== given.simd) throw new Error("wanted simd " + given.simd);
  rig.pose({expr: Float32Array.from(given.expr), joints: Float32Array.from(given.joints),
            place: Float32Array.from(given.place)});
"""


def _pose(avatar: Avatar, frame: int, simd: bool) -> dict[str, Any]:
    m = avatar.motion[frame]
    return {
        "simd": simd,
        "expr": m.expr[0].tolist(),
        "joints": m.joints.flatten().tolist(),
        "place": m.T_world_head[0].tolist(),
    }


@pytest.mark.parametrize("simd", [True, False], ids=["simd", "plain"])
@pytest.mark.parametrize("frame", [0, 7])
def test_the_rig_is_that_of_python(still: Any, stored: Avatar, simd: bool, frame: int) -> None:
    given = _pose(stored, frame, simd)
    used = torch.unique(stored.head.faces[stored.splats.face_ids])
    verts = _floats(still, _RIG + "return rig.verts.slice();", given).reshape(-1, 4)[:, :3]
    wanted = stored.shaped.posed(stored.motion[frame]).verts[0, used].numpy()
    assert np.abs(verts - wanted).max() < 1e-5
    posed = _floats(still, _RIG + "return new Float32Array(rig.posed.slice().buffer);", given)
    posed = posed.reshape(-1, 4)[: len(stored.splats.face_ids)]
    splats = stored.pose(stored.motion[frame])
    assert np.abs(posed[:, :3] - splats.means.numpy()).max() < 1e-5
    packed = posed[:, 3].copy().view(np.uint32)
    levels = np.stack((packed >> 21, packed >> 10 & 2047, packed & 1023), 1) / (2047, 2047, 1023) * 2.5 - 0.5
    colours = (0.5 + 0.28209479177387814 * splats.sh[:, 0]).clamp(-0.5, 2.0).numpy()
    assert np.abs(levels - colours).max() < 1.3e-3


@pytest.mark.parametrize("simd", [True, False], ids=["simd", "plain"])
@pytest.mark.parametrize("radial", [True, False], ids=["radial", "depth"])
def test_splats_are_drawn_from_far_to_near(still: Any, stored: Avatar, simd: bool, radial: bool) -> None:
    eye, direction = torch.tensor((0.1, -0.05, 0.05)), torch.tensor((0.0, 0.0, 1.0))
    given = _pose(stored, 3, simd) | {"radial": radial}
    order = _floats(
        still,
        _RIG
        + """rig.sort({radial: given.radial, eye: new Float32Array([0.1, -0.05, 0.05]),
                       direction: new Float32Array([0, 0, 1]), cullCosine: 2});
             return new Float32Array(rig.order.slice(0, rig.drawn).buffer);""",
        given,
    ).view(np.uint32)
    means = stored.pose(stored.motion[3]).means
    depth = ((means - eye).norm(dim=1) if radial else means @ direction).numpy()
    assert sorted(order) == list(range(len(means)))
    step = (depth.max() - depth.min()) / 65535
    assert np.diff(depth[order]).max() <= 1.01 * step + 1e-6


def test_skin_that_looks_away_can_be_left_out(still: Any, stored: Avatar) -> None:
    frame, cosine = 2, 0.3
    drawn = _floats(
        still,
        _RIG
        + """const direction = new Float32Array([0, 0, 1]);
             rig.sort({radial: true, eye: new Float32Array(3), direction, cullCosine: 0.3});
             return new Float32Array(rig.order.slice(0, rig.drawn).buffer);""",
        _pose(stored, frame, True),
    ).view(np.uint32)
    mesh = stored.shaped.posed(stored.motion[frame])
    origins, quats, _ = render.triangle_frames(mesh.verts[0], mesh.faces)
    normals = math3d.quat_rotate(quats, torch.tensor((0.0, 1.0, 0.0)).expand(len(quats), 3))
    away = (origins * normals).sum(1) / origins.norm(dim=1)
    closed = torch.isin(torch.arange(len(mesh.faces)), torch.cat([stored.head.parts[p] for p in ("face", "neck")]))
    kept = ~(closed & (away > cosine))[stored.splats.face_ids]
    assert 0 < int((~kept).sum()) < len(kept)
    assert abs(len(drawn) - int(kept.sum())) <= 2  # a triangle on the very edge may fall either way
    assert len(set(drawn) ^ set(kept.nonzero()[:, 0].tolist())) <= 2


def _picture(page: Any) -> torch.Tensor:
    pixels = _floats(page, "const s = player.snapshot(); return Float32Array.from(s.data);")
    width, height = page.evaluate("[player.renderer.domElement.width, player.renderer.domElement.height]")
    return torch.from_numpy(pixels.reshape(height, width, 4)[..., :3] / 255)


def _psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(float((a - b.clamp(0, 1)).square().mean()))


@pytest.mark.parametrize("frame", [1, 11])
def test_the_picture_is_that_of_our_rasterizer(still: Any, person: Avatar, frame: int) -> None:
    still.evaluate(f"player.resetView(); player.show({(frame + 0.5) / person.motion.fps})")
    wanted = render.render(person.pose(person.motion[frame]), person.cameras, background=BACKGROUND).rgb[0]
    assert _psnr(_picture(still), wanted) >= 45


def test_around_the_head_too(still: Any, person: Avatar) -> None:
    still.evaluate(f"player.show({4.5 / person.motion.fps}); player.orbit(0.5, 0.2)")
    x, y, z = still.evaluate("player.headPoint(player.point.clone()).toArray()")
    viewmat = math3d.orbit(torch.tensor((x, -y, -z)), 0.5, 0.2)
    cameras = person.cameras.replace(viewmats=viewmat[None])
    wanted = render.render(person.pose(person.motion[4]), cameras, background=BACKGROUND).rgb[0]
    got = _picture(still)
    still.evaluate("player.resetView()")
    assert _psnr(got, wanted) >= 45


def test_an_expression_moves_what_it_should(still: Any, person: Avatar) -> None:
    names, motion = person.head.expression_names, person.motion[0]
    expr = motion.expr.clone()
    expr[0, names.index("cheekPuff")] = 1
    still.evaluate(f"player.show({0.5 / person.motion.fps})")
    before = _picture(still)
    still.evaluate("player.setExpression('cheekPuff', 1)")
    moved = _picture(still)
    still.evaluate("player.setExpression('cheekPuff', null)")
    wanted = render.render(person.pose(motion.replace(expr=expr)), person.cameras, background=BACKGROUND).rgb[0]
    assert _psnr(moved, wanted) >= 45 and _psnr(moved, before) < 35
    assert torch.equal(_picture(still), before)
    with pytest.raises(Exception, match="no expression is called earWiggle"):
        still.evaluate("player.setExpression('earWiggle', 1)")


def test_a_personal_basis_plays_and_obeys_the_names_of_the_head(
    tab: Tab, person: Avatar, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    """Its film has weights of either sign; expressions go through the map, and its voice is still there."""
    own = _slim.with_personal_basis(person)
    assert own.motion.expr.min() < -0.1
    list(Config().build().write(own, tmp_path / "page"))
    page = tab.open(f"{serve(tmp_path / 'page')}/index.html")
    page.evaluate("player.renderer.setAnimationLoop(null); player.setAlive(false); player.lookAt(null)")
    order = person.splats.face_ids.argsort(stable=True)

    def far(avatar: Avatar, motion: Motion) -> float:
        posed = _floats(page, "return new Float32Array(player.rig.posed.slice().buffer);").reshape(-1, 4)
        return float(np.abs(posed[: len(order), :3] - avatar.pose(motion).means[order].numpy()).max())

    page.evaluate(f"player.show({7.5 / person.motion.fps})")
    assert far(own, own.motion[7]) < 2e-4
    names = person.head.expression_names
    assert page.evaluate("player.expressions.length") == len(names) + len(own.head.expression_names)
    page.evaluate("player.setExpression('jawOpen', 1)")
    page.evaluate(f"player.show({7.5 / person.motion.fps})")
    matrix = torch.tensor(own.meta["expression_map"]["matrix"])
    opened = own.motion[7].expr + matrix[names.index("jawOpen")]
    assert far(own, own.motion[7].replace(expr=opened)) < 2e-4
    assert far(own, own.motion[7]) > 5e-3
    assert page.evaluate("player.voice.moved.length") == len(person.speech["moved"])
    assert tab.wrong() == []


def test_the_eyes_meet_who_looks(still: Any, person: Avatar) -> None:
    gaze = """
      player.rest(); player.lookAt([0.15, -0.1, 0.2]); player.performer.settle();
      player.performer.dt = 0.05;
      player.draw(true);
      const rig = player.rig;
      for (let i = 0; i < 200; i++) {  // without drawing, which software GL would still be at when the test has ended
        player.performer.perform();
        rig.pose(player.performer.pose);
      }
      const out = [3, 4].map((j) => {
        const r = rig.jointRotations[j], p = rig.jointPlaces[j];
        const to = [0.15 - p[0], 0.1 - p[1], -0.2 - p[2]], n = Math.hypot(...to);
        return -(r[2] * to[0] + r[5] * to[1] + r[8] * to[2]) / n;
      });
      player.lookAt(null); player.performer.settle();
    """
    cosines = still.evaluate(f"() => {{ {gaze} return out; }}")
    assert min(cosines) > math.cos(math.radians(2))


# ------------------------------------------------------------------------------------------------ voice


def _speechlike(seconds: float = 1.6) -> np.ndarray:
    """Bursts of a buzz through a moving formant, with pauses."""
    t = np.arange(int(seconds * audio.RATE)) / audio.RATE
    random = np.random.default_rng(3)
    buzz = np.sign(np.sin(2 * np.pi * 120 * t)) * (1 + 0.5 * np.sin(2 * np.pi * (500 + 300 * np.sin(5 * t)) * t))
    loud = np.clip(np.sin(2 * np.pi * 2.3 * t), 0, 1) * (t > 0.3)
    return (0.2 * loud * buzz + 0.001 * random.normal(size=len(t))).astype(np.float32)


def test_features_are_those_of_python(still: Any) -> None:
    samples = _speechlike()
    got = _floats(still, "return gsth.logMel(Float32Array.from(given));", samples.tolist()).reshape(-1, audio.BANDS)
    assert np.abs(got - audio.log_mel(samples).numpy()).max() < 2e-3


_SAID = """
  const file = await gsth.AvatarFile.parse(await (await fetch("avatar.gsth.bin")).arrayBuffer());
  const voice = await gsth.voiceOf(file, new Float32Array(52), given.simd);
  const samples = Float32Array.from(given.samples);
  let speech;
  if (given.live) {
    speech = new gsth.Live(voice, -65);  // Python's threshold; a microphone's is higher
    for (let i = 0; i < samples.length; i += 333) speech.push(samples.subarray(i, i + 333));
  } else {
    speech = new gsth.Recording(voice, samples);
    speech.finish();
  }
  const steps = Math.round(speech.known * 50), out = new Float32Array(steps * 53);
  for (let k = 0; k < steps; k++) {
    const face = Float32Array.from(voice.rest);
    speech.time = (k + 0.5) / 50;
    speech.sample(face);
    out.set(face, k * 53);
    out[k * 53 + 52] = speech.accent;
  }
  return out;
"""


@pytest.mark.parametrize(
    ("simd", "live"), [(True, False), (False, False), (True, True)], ids=["recording", "recording, plain", "stream"]
)
def test_the_mouth_says_what_python_says(still: Any, stored: Avatar, simd: bool, live: bool) -> None:
    """Face and accent of each step, of a file and of a stream that must find out how loud it is."""
    from gsth.drive import _person, _stream

    samples = np.tile(_speechlike(), 2)
    samples[len(samples) // 2 :] *= 0.5
    got = _floats(still, _SAID, {"samples": samples.tolist(), "simd": simd, "live": live}).reshape(-1, 53)
    voice = _person.voice_of(stored)
    steps = _stream.steps_of(voice.net, samples, None if live else audio.speech_level(samples))
    wanted = voice.expressions(steps.hidden, steps.awake).numpy()[: len(got)]
    accent = (steps.accent * steps.awake)[: len(got), 0].numpy()
    assert len(steps.hidden) - len(got) <= (12 if live else 0)  # a stream's end lies beyond what has been heard
    assert wanted[:, stored.head.expression_names.index("jawOpen")].max() > 0.05 and accent.max() > 0.2
    assert np.abs(got[:, :52] - wanted).max() < 2e-3
    assert np.abs(got[:, 52] - accent).max() < 2e-3


def test_silence_keeps_the_mouth_at_rest(still: Any) -> None:
    script = """
      const file = await gsth.AvatarFile.parse(await (await fetch("avatar.gsth.bin")).arrayBuffer());
      const voice = await gsth.voiceOf(file, new Float32Array(52));
      const live = new gsth.Live(voice), noise = new Float32Array(32000);
      for (let i = 0; i < noise.length; i++) noise[i] = 1e-3 * Math.sin(i * i);
      live.push(noise);
      const out = new Float32Array(52);
      for (let t = 0; t < 1.5; t += 0.1) {
        const face = Float32Array.from(voice.rest);
        live.time = t;
        live.sample(face);
        face.forEach((x, i) => out[i] = Math.max(out[i], Math.abs(x - voice.rest[i])));
      }
      return out;
    """
    assert _floats(still, script).max() < 0.02


@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_other_rates_become_16_khz(still: Any, rate: int) -> None:
    t = np.arange(rate) / rate
    tones = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.4 * np.sin(2 * np.pi * 11_000 * t)
    script = """
      const samples = Float32Array.from(given.samples), made = new gsth.Resampler(given.rate, 16000), out = [];
      for (let i = 0; i < samples.length; i += 960) {
        const count = made.push(samples.subarray(i, i + 960));
        out.push(...made.out.subarray(0, count));
      }
      return Float32Array.from(out);
    """
    got = _floats(still, script, {"samples": tones.tolist(), "rate": rate})
    assert abs(len(got) - 16_000) < 40
    wanted = 0.4 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / 16_000)  # 11 kHz cannot be held and must be gone
    assert np.abs(got - wanted)[200:-200].max() < 0.01


def test_without_a_voice_loudness_opens_the_jaw(still: Any) -> None:
    samples = _speechlike()
    script = """
      const file = await gsth.AvatarFile.parse(await (await fetch("avatar.gsth.bin")).arrayBuffer());
      for (const name of file.names()) if (name.startsWith("voice/")) delete file.header.arrays[name];
      const voice = await gsth.voiceOf(file, new Float32Array(52)), jaw = file.header.expressions.indexOf("jawOpen");
      const recording = new gsth.Recording(voice, Float32Array.from(given));
      recording.finish();
      return Float32Array.from({length: recording.steps}, (_, k) => {
        const face = new Float32Array(52);
        recording.time = (k + 0.5) / 50;
        recording.sample(face);
        return face[jaw];
      });
    """
    jaw = _floats(still, script, samples.tolist())
    loud = np.sqrt(np.square(samples[: len(jaw) * 320]).reshape(len(jaw), 320).mean(1))
    assert np.corrcoef(jaw, loud)[0, 1] > 0.6
    assert jaw[:8].max() < 0.02 < 0.2 < jaw.max()


def test_loud_syllables_raise_the_brows_and_lower_the_head(still: Any) -> None:
    """Of a living body; one that does only what it is told holds still."""
    script = """
      const {performer, rig} = player;
      const accent = { seconds: 9, sample: () => true, follow() {}, accent: 1 };
      const clock = { time: 1, ended: false, stop() {} };
      const brow = player.expressions.indexOf("browInnerUp");
      player.rest(); player.lookAt(null); performer.idle.blinksPerMinute = 0;
      const shown = (speech) => {
        performer.setSpeech(speech, clock);
        performer.settle();
        performer.time = 5;
        performer.dt = 0;
        performer.perform();
        rig.pose(performer.pose);
        return [performer.pose.expr[brow], -rig.jointRotations[2][5]];  // how far the face's axis points down
      };
      performer.alive = true;
      const loud = shown(accent), level = shown({...accent, accent: 0});
      performer.alive = false;
      const told = shown(accent), quiet = shown({...accent, accent: 0});
      performer.setSpeech(null, null);
      performer.idle.blinksPerMinute = 17;
      return Float32Array.from([loud[0] - level[0], loud[1] - level[1], told[0] - quiet[0]]);
    """
    raised, lowered, told = _floats(still, script)
    assert raised == pytest.approx(0.22, abs=1e-3)
    assert 0.01 < lowered < 0.03 and told == 0


# ------------------------------------------------------------------------------------------------ running


_FRAMES = (
    MEASURE
    + """
  const {performer, renderer, voice} = player, clock = { time: 0, ended: false, stop() {} };
  renderer.setAnimationLoop(null);
  if (given !== "drawing") renderer.render = () => {};
  player.tuner.enabled = false;
  if (given === "film") player.play();
  const buzz = (seconds, rate) => Float32Array.from({length: seconds * rate}, (_, i) =>
    0.2 * Math.max(0, Math.sin(17.6 * i / rate)) * Math.sign(Math.sin(800 * i / rate)));
  const resampler = new gsth.Resampler(48000, 16000), piece = buzz(0.02, 48000), second = buzz(1, 16000);
  const live = new gsth.Live(voice), said = new Float32Array(400 * 16000);
  for (let i = 0; i < said.length; i += 16000) said.set(second, i);
  if (given === "recording") performer.setSpeech(new gsth.Recording(voice, said), clock);
  if (given === "stream") performer.setSpeech(live, clock);
  globalThis.now = Math.ceil(performance.now()) + 1000; // whole numbers are not boxed
  return Float32Array.from(measure(() => {
    if (given === "stream") {
      const count = resampler.push(piece);
      live.push(resampler.out, count);
    }
    clock.time += 0.016;
    if (given === "recording" && clock.time > 400) clock.time = 0;
    player.tick(now += 16);
  }, given !== "drawing"));
"""
)


@pytest.mark.parametrize("doing", ["idle", "film", "recording", "stream", "drawing"])
def test_frames_leave_nothing_behind_in_memory(doing: str, tab: Tab, light: Path, serve: Callable[[Path], str]) -> None:
    """Of 2,000 whole frames nothing stays; of each, less than one boxed number comes and goes (three's drawing aside).

    A boxed number has 12 bytes, the smallest array 16. What comes and goes at all belongs to rare things (a glance, a
    blink, the clock that is read at every seventh frame).
    """
    blocks = _floats(tab.open(f"{serve(light)}/index.html"), _FRAMES, doing).reshape(-1, 2)
    garbage, stays = blocks[-1]
    assert stays < 0.25, f"bytes that stay of each frame: {blocks[:, 1]}"
    assert doing == "drawing" or garbage < 12, f"bytes of garbage of each frame: {blocks[:, 0]}"


def test_the_tuner_steps_down_when_frames_are_late_and_recovers(still: Any) -> None:
    levels = still.evaluate(
        """() => {
          const seen = [], tuner = new gsth.Tuner((l) => seen.push(l.deviations));
          const run = (ms, frames) => { for (let i = 0; i < frames; i++) tuner.frame(ms, 13.9); return tuner.level; };
          return [run(14, 315), run(25, 45), run(25, 90), run(14, 45 * 6), run(600, 100),
                  run(14, 45 * 12), seen.length];
        }"""
    )
    assert levels == [0, 1, 3, 2, 2, 0, 6]
