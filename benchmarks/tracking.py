"""How well tracking finds what is known of a synthetic actor, and how it fares on real clips.

    python benchmarks/tracking.py [me.mp4 ...]      # tables; writes benchmarks/results/tracking.json
    python benchmarks/tracking.py --no-actor me.mp4 ...     # these clips alone; rows of other clips stay in the file
    python benchmarks/tracking.py --no-actor --minutes 5 me.mp4     # the clip to and fro for so long: memory, speed

The actor (10 s, turns of 30 degrees to either side) is tracked by landmarks alone and with the photometric stage. Its
film tells the lens, as a phone's does; in the column "lens untold" tracking does not listen, and "position" counts the
error of the focal length, too; "bearing" is only the part across the line of sight.

In that film the smile stays at 0.05 but for what speech adds, so its row says little of smiles. "actor, smiling" is the
same person in the same film with four smiles (``SMILES``).

"funnel and pucker" is the sum of the two, which a front view hardly tells apart: both bring the corners of the mouth
together, and speech has them at the same time. Each is printed on its own, too.

"jitter_pct" is what trembles where a face is calm, "calm_step_pct" all that moves there, speech included
(``gsth.track._quality.calm_pct``). A last table for the actor tells what both say of the truth, which does not tremble,
and of the truth with known noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from gsth import artifacts, head, math3d, media, synth, track
from gsth.track import TrackConfig, _quality
from gsth.types import Done, Identity, Motion, Step, Track

RESULTS = Path(__file__).parent / "results" / "tracking.json"
ACTOR = synth.SynthConfig(seconds=10, turn_deg=30)
SMILES = ((0.9, 0.6, 0.35), (2.6, 1.8, 0.7), (5.6, 0.9, 0.3), (7.4, 1.5, 0.5))
"""Begin, s, length at full height, s, and height of each smile: while speaking and turning, as people do."""
SMILE_RISE_S = 0.4
"""A smile comes and goes in so long (Schmidt et al. 2006: spontaneous ones take 0.3 to 0.7 s)."""
CHEEKS = 0.5
"""Share of a smile that raises the cheeks, too."""
ACTIONS = {
    "jawOpen": ("jawOpen",),
    "mouthFunnel": ("mouthFunnel",),
    "mouthPucker": ("mouthPucker",),
    "funnel and pucker": ("mouthFunnel", "mouthPucker"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
}
BARS = {
    "landmarks_pct": 1.2, "rotation_deg": 1.5, "position_pct": 2.0, **dict.fromkeys(ACTIONS, 0.9),
    "reprojection_pct": 1.2, "lips_pct": 3.0, "jitter_pct": 0.15, "frames_per_s": 12.0, "peak_memory_gb": 3.0,
}  # fmt: skip
HIGHER = {*ACTIONS, "frames_per_s"}
OUTER_EYES = (33, 263)
NOISES = (0.0, 0.003, 0.006, 0.012)
"""Deviations of activations, for ``trembling``."""


def smiling(made: synth.Actor) -> synth.Actor:
    """The actor with ``SMILES``."""
    motion = made.truth.motion
    names, expr = made.head.expression_names, motion.expr.clone()
    times = (torch.arange(len(motion)) + 0.5) / motion.fps
    smile = torch.zeros(len(motion))
    for begin, full, height in SMILES:
        rise, fall = ((times - begin) / SMILE_RISE_S, (begin + full - times) / SMILE_RISE_S + 2)
        amount = torch.minimum(rise, fall).clamp(0, 1)
        smile = torch.maximum(smile, height * amount.square() * (3 - 2 * amount))
    for action, share in (("mouthSmile", 1.0), ("cheekSquint", CHEEKS)):
        for side in ("Left", "Right"):
            expr[:, names.index(action + side)] += share * smile
    return made.moving(motion.replace(expr=expr.clamp(0, 1)))


def skull(motion: Motion) -> torch.Tensor:
    """World rotation of the head joint [t 4]."""
    torso = math3d.quat_mul(motion.T_world_head[:, :4], motion.joints[:, 0])
    return math3d.quat_mul(torso, math3d.quat_mul(motion.joints[:, 1], motion.joints[:, 2]))


def aligned(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Points a [n 3] brought onto b by the best similarity (Umeyama 1991)."""
    x, y = a - a.mean(0), b - b.mean(0)
    u, s, vt = torch.linalg.svd(x.T @ y)
    sign = torch.ones(3)
    sign[2] = torch.sign(torch.det(u @ vt))
    return (s * sign).sum() / x.square().sum() * x @ (u * sign @ vt) + b.mean(0)


def against_truth(made: Track, truth: synth.Truth) -> dict[str, float]:
    """Errors of a track of the actor."""
    model = head.load(truth.head)
    face = model.faces[model.parts["face"]].unique()

    def seen(identity: Identity, motion: Motion) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shaped = model.shaped(identity)
        verts = shaped.posed(motion).verts
        return shaped.rest[face], verts[:, face].mean(1), model.landmarks(verts)

    rest, centre, landmarks = seen(made.identity, made.motion)
    rest0, centre0, _ = seen(truth.identity, truth.motion)
    x0, y0, x1, _ = made.crop_px
    scale = made.cameras.width / (x1 - x0)
    px = math3d.project(landmarks, made.cameras.Ks[0]) / scale + torch.tensor((x0, y0))
    ruler = (truth.landmarks_px[:, OUTER_EYES[0]] - truth.landmarks_px[:, OUTER_EYES[1]]).norm(dim=-1)
    ruler = torch.maximum(ruler, 0.6 * ruler.median())
    turn = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(skull(truth.motion)), skull(made.motion)))
    off, far = centre - centre0, centre0.norm(dim=-1)
    ray = torch.nn.functional.normalize(centre0, dim=-1)
    across = off - (off * ray).sum(-1, keepdim=True) * ray
    out = {
        "landmarks_pct": ((px - truth.landmarks_px).norm(dim=-1).mean(1) / ruler).mean() * 100,
        "rotation_deg": turn.norm(dim=-1).mean().rad2deg(),
        "rotation_less_bias_deg": (turn - turn.mean(0)).norm(dim=-1).mean().rad2deg(),
        "position_pct": (off.norm(dim=-1) / far).mean() * 100,
        "bearing_pct": (across.norm(dim=-1) / far).mean() * 100,
        "identity_mm": (aligned(rest, rest0) - rest0).norm(dim=-1).mean() * 1000,
        "expression_error": (made.motion.expr - truth.motion.expr).abs().mean(),
    }
    for name, actions in ACTIONS.items():
        ids = [model.expression_names.index(a) for a in actions]
        pair = torch.stack((made.motion.expr[:, ids].mean(1), truth.motion.expr[:, ids].mean(1)))
        out[name] = torch.corrcoef(pair)[0, 1]
    return {name: float(value) for name, value in out.items()}


def trembling(made: Track, truth: synth.Truth) -> dict[str, dict[str, float]]:
    """What the measure of jitter finds of the truth itself, as it is and with white noise of known size added.

    Each column is a deviation of the noise in all activations; "alone" is that noise on a face at rest.
    """
    columns = {}
    for size in NOISES:
        noise = size * torch.randn(truth.motion.expr.shape, generator=torch.Generator().manual_seed(0))
        moving, alone = (
            _quality.calm_pct(made.replace(identity=truth.identity, motion=truth.motion.replace(expr=expr)))
            for expr in (truth.motion.expr + noise, noise)
        )
        columns[f"noise {size:g}"] = {**moving, **{f"{n}_alone": value for n, value in alone.items()}}
    return columns


def tracked(clip: Path, out: Path, config: TrackConfig) -> tuple[Track, dict[str, float]]:
    """Track a clip; what the tracker says, jitter, speed, and ms per frame of each stage (two run side by side)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of this run alone
    began = last = time.perf_counter()
    stages: dict[str, float] = {}
    done = None
    for done in track.run(clip, out, config):
        now = time.perf_counter()
        stage = done.stage.split(":")[0] if isinstance(done, Step) else "other"
        stages[stage] = stages.get(stage, 0.0) + now - last
        last = now
    seconds = last - began
    assert isinstance(done, Done)
    made = artifacts.load(Track, out)
    found = made.found
    return made, {
        "reprojection_pct": float(made.error_pct[found].median()),
        "lips_pct": done.values["lips_error_pct"],
        "jitter_pct": done.values["jitter_pct"],
        "calm_step_pct": done.values["calm_step_pct"],
        "frames_per_s": len(found) / seconds,
        **{f"{stage}_ms": 1000 * spent / len(found) for stage, spent in stages.items()},
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def show(title: str, columns: dict[str, dict[str, float]], judged: bool = True) -> None:
    """A table with a row for each figure and, if ``judged``, its bar and how the last column does against it."""
    print(f"\n{title:<26}" + "".join(f"{c:>14}" for c in columns) + (f"{'bar':>10}" if judged else ""))
    *_, last = columns.values()
    for name in last:
        bar = BARS.get(name) if judged else None
        verdict = ""
        if bar is not None:
            met = last[name] >= bar if name in HIGHER else last[name] <= bar
            verdict = f"{bar:>10.4g}  {'met' if met else 'missed'}"
        print(f"{name:<26}" + "".join(f"{c.get(name, float('nan')):>14.3f}" for c in columns.values()) + verdict)


def measured(clip: Path, scratch: Path, truth: synth.Truth | None) -> dict[str, dict[str, float]]:
    """Figures of a clip, tracked in each way."""
    ways = {"landmarks": TrackConfig(photometric=False), "photometric": TrackConfig()}
    if truth is not None:
        ways = {"lens untold": TrackConfig(film_lens=False), **ways}
    columns, tracks = {}, []
    for name, config in ways.items():
        made, figures = tracked(clip, scratch / f"{clip.stem}.{name}", config)
        columns[name] = {**(against_truth(made, truth) if truth is not None else {}), **figures}
        tracks.append(made)
    show(f"{clip.stem}, {media.probe(clip).frames} frames", columns)
    if truth is None:
        return columns
    noises = trembling(tracks[-1], truth)  # of any: detections alone decide what is calm
    show(f"{clip.stem}, the truth", noises, judged=False)
    return columns | noises


def lengthened(clip: Path, minutes: float, out: Path) -> Path:
    """The clip played to and fro, without a cut, for so many minutes."""
    known = media.probe(clip)
    shape = (known.frames, known.height, known.width, 3)
    unpacked = out.with_suffix(".npy")
    pictures = np.lib.format.open_memmap(unpacked, "w+", np.uint8, shape)
    for i, picture in enumerate(media.frames(known)):
        pictures[i] = picture
    there_and_back = itertools.cycle((*range(known.frames), *range(known.frames - 2, 0, -1)))
    wanted = itertools.islice(there_and_back, round(60 * minutes * known.fps))
    media.write_video(out, (pictures[i] for i in wanted), known.fps, crf=media.DRAFT_CRF)
    unpacked.unlink()
    return out


def kept(out: Path, about: dict[str, object]) -> dict[str, dict[str, dict[str, float]]]:
    """Rows that an earlier run wrote, if it ran on the like."""
    if not out.is_file():
        return {}
    earlier = json.loads(out.read_text())
    return earlier["rows"] if {n: earlier.get(n) for n in about} == about else {}


def main() -> None:
    """Track the actor and the clips that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--no-actor", action="store_true", help="leave the synthetic actor out")
    parser.add_argument("--minutes", type=float, help="play each clip to and fro for so long, and track that")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    about: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    rows = kept(args.out, about)
    with tempfile.TemporaryDirectory() as scratch:
        made = None if args.no_actor else synth.actor(ACTOR)
        for actor in () if made is None else (made, smiling(made)):
            path = Path(scratch) / ("actor.mp4" if actor is made else "actor, smiling.mp4")
            for _ in synth.shoot(actor, path):
                pass
            rows[path.stem] = measured(path, Path(scratch), actor.truth)
        for clip in args.clips:
            if args.minutes is None:
                rows[clip.stem] = measured(clip, Path(scratch), None)
            else:
                name = f"{clip.stem}, {args.minutes:g} min"
                long = lengthened(clip, args.minutes, Path(scratch) / f"{clip.stem}.mp4")
                _, figures = tracked(long, Path(scratch) / "long.track", TrackConfig())
                rows[name] = {"photometric": figures}
                show(name, rows[name])
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
