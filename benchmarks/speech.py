"""How well the lips follow real speech: ``python benchmarks/speech.py CLIP [CLIP ...] [--json FILE]``.

For each video with its speaker's own sound: correlation of the predicted mouth opening (the built-in head's lips) with
the detected one (MediaPipe's inner lips, points 13 and 14, over the distance of the irises) on frames with speech, at
the best lag within +-5 frames, for the general model, and for one linear layer learned on the first 80 % of the clip
and scored on the rest. Loudness alone stands beside them. Needs the extras [track] and [audio].
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsth import audio, head, math3d, media
from gsth.drive import fit_speech
from gsth.drive._person import general_voice, opening_weights, voice_of
from gsth.drive._speech_net import at_pictures, hidden_states
from gsth.types import Motion

MAX_LAG = 5
HOLDOUT = 0.2


def lip_opening(path: Path) -> Tensor:
    """Detected inner-lip opening over the inter-iris distance, NaN where no face is found, [t]."""
    import mediapipe

    out = []
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True, max_num_faces=1) as detector:
        clip = media.probe(path)
        for picture in media.frames(clip):
            faces = detector.process(picture).multi_face_landmarks
            if not faces:
                out.append(float("nan"))
                continue
            upper, lower, left, right = (
                np.array((p.x * clip.width, p.y * clip.height))
                for p in (faces[0].landmark[i] for i in (13, 14, 468, 473))
            )
            out.append(float(np.linalg.norm(upper - lower) / np.linalg.norm(left - right)))
    return torch.tensor(out)


def best_lag(heard: Tensor, seen: Tensor, use: Tensor) -> tuple[float, int]:
    """Best correlation and by how many frames the picture is later than the prediction."""
    found = []
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        a, b = heard.roll(lag), seen
        ok = use & ~b.isnan()
        ok[:MAX_LAG], ok[-MAX_LAG:] = False, False
        found.append((float(torch.corrcoef(torch.stack((a[ok], b[ok])).double())[0, 1]), lag))
    return max(found)


def pretend(opening: Tensor, fps: float) -> Any:
    """A person tracked by the lips alone: jawOpen follows the detected opening."""
    model = head.load()
    frames = len(opening)
    expr = torch.zeros(frames, len(model.expression_names))
    expr[:, model.expression_names.index("jawOpen")] = opening.nan_to_num(0.0) / opening[~opening.isnan()].max()
    motion = Motion(model.id, fps, expr, math3d.quat_identity(frames, 5), torch.eye(1, 7).repeat(frames, 1))
    source = SimpleNamespace(
        fps=fps,
        train_frames=int(frames * (1 - HOLDOUT)),
        frame_ids=torch.arange(frames),
        found=~opening.isnan(),
    )
    return SimpleNamespace(head=model, motion=motion, source=source, speech={})


def measure(path: Path) -> dict[str, Any]:
    """All figures of one clip."""
    clip = media.probe(path)
    sound = media.sound(path)
    seen = lip_opening(path)
    use = audio.activity(sound, clip.fps, len(seen)) > 0.5
    made = pretend(seen, clip.fps)
    gap = opening_weights(made.head)
    voice = general_voice(made)
    hidden = at_pictures(hidden_states(voice.net, audio.log_mel(sound)), clip.fps, len(seen))
    general = voice.expressions(hidden) @ gap
    own = SimpleNamespace(**{**vars(made), "speech": fit_speech(made, sound)})
    personal = voice_of(own).expressions(hidden) @ gap
    loud = torch.log(audio.log_mel(sound, fps=clip.fps).exp().mean(1))[: len(seen)]
    loud = torch.nn.functional.pad(loud, (0, len(seen) - len(loud)))
    first = made.source.train_frames
    rows = {
        "loudness": best_lag(loud, seen, use),
        "general": best_lag(general, seen, use),
        "general, held-out part": best_lag(general[first:], seen[first:], use[first:]),
        "personal, held-out part": best_lag(personal[first:], seen[first:], use[first:]),
    }
    quiet = ~(audio.activity(sound, clip.fps, len(seen)) > 0)
    return {
        "clip": path.name,
        "frames": len(seen),
        "speech_frames": int(use.sum()),
        "rows": {name: {"correlation": round(r, 3), "lag_frames": lag} for name, (r, lag) in rows.items()},
        "opening_in_pauses_mm": round(float(general[quiet].abs().mean()) * 1000, 2) if bool(quiet.any()) else None,
        "evidence": {k: round(v, 3) for k, v in voice_of(own).evidence.items()},
    }


def main() -> None:
    """Measure and print a table; write the same as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(path) for path in args.clips]
    print(f"{'clip':<16}{'what':<28}{'r':>7}{'lag':>5}")
    for result in results:
        for name, row in result["rows"].items():
            print(f"{result['clip']:<16}{name:<28}{row['correlation']:>7.3f}{row['lag_frames']:>5}")
        print(f"{result['clip']:<16}{'opening in pauses, mm':<28}{result['opening_in_pauses_mm']!s:>7}")
    if args.json:
        part = args.json.with_suffix(".part")
        part.write_text(json.dumps(results, indent=2) + "\n")
        part.replace(args.json)


if __name__ == "__main__":
    main()
