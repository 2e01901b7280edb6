"""How well the lips follow speech: ``python benchmarks/lips.py [CLIP.mp4 ...] [--sounds a.wav ... [--recogniser DIR]]
[--camera CLIP.mp4] [--avatar A] [--hours 3] [--json FILE]``.

Clips, of people who say what is heard: correlation of the predicted mouth opening (the built-in head's lips) with the
detected one (MediaPipe's inner lips, points 13 and 14, over the distance of the irises) on frames with speech, at the
best lag within +-5 frames, for the general model, and for the person's own layer, learned on the first 80 % of the clip
and scored on the rest; loudness alone beside them. Opening ratio: spread of the predicted over that of the detected
opening, both over their own training part. Jitter: second differences of the opening over its spread, by the real one.
Sounds, the first one English: spread of the opening, alone, over that of the envelope in dB (recordings differ in it by
themselves: how deep gaps between words are is the room's), over that of its amplitude relative to the level, and
the change of each to the first; with ``--recogniser`` the same of the curves that its words, heard, aligned and turned
into visemes, ask for (``asked``), the share of their spread that is met, and the correlation with them.
Camera: how long after a picture of the file its motion is there, and with ``--avatar`` that avatar's picture, ms.
Hours: one file of that length, 8 kHz mono, driven as a stream: memory that the process grows by, time per second.
Always: closures, silence, vowels and languages on synthesised voices that training never heard (spread of the opening
over that of the true curves, by language, and its change to English), and the cost of streaming.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _exact_words
import numpy as np
import torch
from torch import Tensor

from gsth import audio, head, math3d, media, speech
from gsth.drive import Manner, fit_speech
from gsth.drive._corpus import HELD_OUT
from gsth.drive._person import general_voice, opening_weights, voice_of
from gsth.drive._speaking import LiveSpeech
from gsth.drive._speech_net import at_pictures, hidden_states
from gsth.drive.audio import Config as SoundConfig
from gsth.drive.webcam import Config as CameraConfig
from gsth.drive.webcam import WebcamDriver
from gsth.types import Motion

# Two sentences of ours, and Article 1 of the Universal Declaration of Human Rights in the words of each language.
LANGUAGES = {
    "en-us": "The old man walked down to the river and looked for his boat among the trees. She always wanted to know "
    "why the people of this town never open their windows. All human beings are born free and equal in dignity and "
    "rights. They are endowed with reason and conscience and should act towards one another in a spirit of "
    "brotherhood.",
    "de": "Der alte Mann ging langsam zum Fluss hinunter und suchte sein Boot unter den Bäumen. Sie wollte immer "
    "wissen, warum die Leute in dieser Stadt niemals ihre Fenster öffnen. Alle Menschen sind frei und gleich an Würde "
    "und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geiste der Brüderlichkeit "
    "begegnen.",
    "cmn": "那个老人慢慢走到河边，在树下寻找他的小船。她一直想知道为什么这个城市的人从来不打开他们的窗户。"
    "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "es": "El viejo bajó despacio hasta el río y buscó su barca entre los árboles. Ella siempre quiso saber por qué "
    "la gente de esta ciudad nunca abre sus ventanas. Todos los seres humanos nacen libres e iguales en dignidad y "
    "derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "fr-fr": "Le vieil homme descendit lentement vers la rivière et chercha son bateau parmi les arbres. Elle a "
    "toujours voulu savoir pourquoi les gens de cette ville n'ouvrent jamais leurs fenêtres. Tous les êtres humains "
    "naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les "
    "uns envers les autres dans un esprit de fraternité.",
}
MAX_LAG = 5
HOLDOUT = 0.2
FPS = 25.0
BARS = "first_frame_s 0.3  cost_s_per_s 0.1"
SENTENCES = (
    "People may buy a better piano. My mother moved a big bamboo boat.",
    "Papa remembers a warm summer by the sea, and Bob makes a map for me.",
    "The problem with the number is simple: maybe we both stopped before the bridge.",
)


# ------------------------------------------------------------------------------------------------ real clips


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
    return SimpleNamespace(head=model, motion=motion, source=source, speech={}, field=None)


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
    own: Any = SimpleNamespace(
        head=made.head, motion=made.motion, source=made.source, speech=fit_speech(made, sound), field=None
    )
    learned = voice_of(own)
    personal = learned.expressions(hidden) @ gap
    loud = torch.log(audio.log_mel(sound, fps=clip.fps).exp().mean(1))[: len(seen)]
    loud = torch.nn.functional.pad(loud, (0, len(seen) - len(loud)))
    first = made.source.train_frames
    tracked = made.motion.expr @ gap
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
        "opening_ratio": round(float(personal[use].std() / tracked[: len(use)][use[: len(tracked)]].std()), 3),
        "jitter_ratio": round(_jitter(personal) / _jitter(seen[~seen.isnan()]), 3),
        "opening_in_pauses_mm": round(float(general[quiet].abs().mean()) * 1000, 2) if bool(quiet.any()) else None,
        "evidence": {k: round(v, 3) for k, v in learned.evidence.items()},
    }


def _jitter(opening: Tensor) -> float:
    return float(opening.diff(n=2).square().mean().sqrt() / opening.std())


# ------------------------------------------------------------------------------------------------ made-up speech


def neutral() -> Any:
    """Someone whose face never moved: the general model alone speaks."""
    return pretend(torch.full((int(FPS),), 1e-9), FPS)


def spoken(person: Any, samples: np.ndarray) -> tuple[Tensor, Tensor]:
    """Opening (m) and rounding of a sound, [t]."""
    live = LiveSpeech(person, Manner(), level_db=audio.speech_level(samples))
    parts = [m.expr for m in (live.push(samples), live.finish()) if m is not None]
    expr, names = torch.cat(parts), person.head.expression_names
    rounding = sum((expr[:, names.index(n)] for n in ("mouthPucker", "mouthFunnel")), torch.zeros(len(expr)))
    return expr @ opening_weights(person.head), rounding


def made_up() -> dict[str, Any]:
    """Closures, silence and vowels of voices held out from training, shares of what is right."""
    person = neutral()
    closed, rest, slow = [], [], []
    for voice in sorted(HELD_OUT):
        for language in ("en-us", "en-gb"):
            for sentence in SENTENCES:
                said = speech.synthesize(sentence, f"{language}+{voice}", 150)
                pause = np.zeros(audio.RATE, np.float32)
                samples = media.resampled(said.samples, said.sample_rate, audio.RATE)
                opening, _ = spoken(person, np.concatenate((pause, samples, pause)))
                opening = opening / opening.quantile(0.95)
                for p in said.phonemes:
                    if p.symbol.strip("ˈˌː") in ("p", "b", "m"):
                        a, b = (1 + p.start_s) * FPS, (1 + p.end_s) * FPS
                        closed.append(float(opening[max(int(a) - 1, 0) : int(np.ceil(b)) + 1].min()) < 0.10)
                # A breath before a phrase is allowed: the last 0.3 s before speech do not count, nor its echo after it.
                quiet = torch.cat((opening[: int(0.7 * FPS)], opening[-int(0.7 * FPS) :]))
                rest += (quiet.abs() < 0.08).tolist()
                slow += (quiet.diff().abs() < 0.02).tolist()
    return {
        "closures": (round(float(np.mean(closed)), 3), len(closed)),
        "silence_at_rest": (round(float(np.mean(rest)), 3), len(rest)),
        "silence_still": (round(float(np.mean(slow)), 3), len(slow)),
        "vowels": vowels(person),
    }


def vowels(person: Any) -> tuple[float, int]:
    """Share of right orders: a opens more than o, o more than u; u and o are rounder than a."""
    right = []
    for voice in sorted(HELD_OUT):
        for onset in "dgkln":
            shape = {}
            for vowel in "aou":
                said = speech.synthesize(f"[[{onset}'{vowel}:{onset}'{vowel}:]]", f"de+{voice}", 130)
                samples = media.resampled(said.samples, said.sample_rate, audio.RATE)
                opening, rounding = spoken(person, np.pad(samples, 4000))
                frames = [
                    slice(int((p.start_s + 0.25) * FPS), int((p.end_s + 0.25) * FPS) + 1)
                    for p in said.phonemes
                    if p.symbol.strip("ˈˌː")[:1] in ("a", "ɑ", "o", "u")
                ]
                shape[vowel] = tuple(
                    float(np.mean([float(v[f].quantile(0.75)) for f in frames])) for v in (opening, rounding)
                )
            (a, a_round), (o, o_round), (u, u_round) = (shape[v] for v in "aou")
            right += [a > o, o > u, u_round > a_round, o_round > a_round]
    return round(float(np.mean(right)), 3), len(right)


def languages(paths: list[Path], weights: Path | None) -> list[dict[str, Any]]:
    """How far the mouth moves for the movement of the envelope, per sound, and its change to the first.

    With a recogniser's weights also how far the words would have it move, and how well that is followed.
    """
    person, out = neutral(), []
    gap, names = opening_weights(person.head), person.head.expression_names
    for path in paths:
        samples = media.sound(path)
        opening, _ = spoken(person, samples)
        use = audio.activity(samples, FPS, len(opening)) > 0.5
        db = 10 * torch.log10(audio.per_picture(_power(samples)[:, None], FPS, len(opening))[:, 0] + 1e-9)
        spread = float(opening[use].std()) * 1000
        amplitude = 10 ** ((db - audio.speech_level(samples)) / 20)
        figures = {
            "opening_mm": round(spread, 3),
            "mm_per_db": round(spread / float(db[use].std()), 4),
            "mm_per_amplitude": round(spread / float(amplitude[use].std()), 3),
        }
        fit: dict[str, Any] = {"jitter": round(_jitter(opening), 3)}
        if weights:
            asked = speech.visemes(_exact_words.phonemes(path, weights), FPS, len(opening), names) @ gap
            figures |= {
                "asked_mm": round(float(asked[use].std()) * 1000, 3),
                "asked_mm_per_db": round(float(asked[use].std()) * 1000 / float(db[use].std()), 4),
                "share_of_asked": round(spread / 1000 / float(asked[use].std()), 3),
            }
            fit["correlation"], fit["lag_frames"] = best_lag(opening, asked, use)
            fit["correlation"] = round(fit["correlation"], 3)
        out.append({"sound": path.name, **figures, **fit})
        out[-1] |= {f"change_{k}": round(v / out[0][k] - 1, 3) for k, v in figures.items()}
    return out


def foreign() -> dict[str, dict[str, float]]:
    """Spread of the opening of held-out voices over that of the true curves, by language, and its change to English."""
    person, out = neutral(), {}
    gap, names = opening_weights(person.head), person.head.expression_names
    for language, text in LANGUAGES.items():
        heard, true = [], []
        for voice in sorted(HELD_OUT):
            said = speech.synthesize(text, f"{language}+{voice}", 150)
            samples = media.resampled(said.samples, said.sample_rate, audio.RATE)
            opening, _ = spoken(person, samples)
            use = audio.activity(samples, FPS, len(opening)) > 0.5
            heard.append(opening[use])
            true.append((speech.visemes(said.phonemes, FPS, len(opening), names) @ gap)[use])
        pair = torch.stack((torch.cat(heard), torch.cat(true)))
        share = float(pair[0].std() / pair[1].std())
        first = next(iter(out.values()))["share_of_true"] if out else share
        out[language] = {
            "share_of_true": round(share, 3),
            "change": round(share / first - 1, 3),
            "correlation": round(float(torch.corrcoef(pair)[0, 1]), 3),
        }
    return out


def _power(samples: np.ndarray) -> Tensor:
    count = len(samples) // audio.HOP * audio.HOP
    return torch.from_numpy(samples[:count]).reshape(-1, audio.HOP).square().mean(1)


def streaming() -> dict[str, float]:
    """Sound heard before the first frame, and processor time of one second in pieces of 20 ms on one thread."""
    said = speech.synthesize(" ".join(SENTENCES), "en-us", 150)
    samples = media.resampled(said.samples, said.sample_rate, audio.RATE)
    live, heard = LiveSpeech(neutral(), Manner()), None
    begun = time.process_time()
    for start in range(0, len(samples), 320):
        if live.push(samples[start : start + 320]) is not None and heard is None:
            heard = (start + 320) / audio.RATE
    spent = time.process_time() - begun
    return {"first_frame_s": heard or np.nan, "cost_s_per_s": round(spent / (len(samples) / audio.RATE), 4)}


def camera(path: Path, person: Any | None) -> dict[str, float]:
    """Time from when a picture is there until its motion is, and with an avatar until it is drawn, ms."""
    import cv2

    from gsth import render

    class Watched:
        """A video file in the camera's place that knows when it gave its last picture."""

        def __init__(self) -> None:
            self._file, self.shown = cv2.VideoCapture(str(path)), 0.0

        def read(self) -> Any:
            picture = self._file.read()
            self.shown = time.perf_counter()
            return picture

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    source = Watched()
    driver = WebcamDriver(person or neutral(), source, CameraConfig(str(path)))
    background: Any = person.background() if person else None
    moved, drawn = [], []
    for motion in driver.stream():
        moved.append(time.perf_counter() - source.shown)
        if person:
            with torch.no_grad():
                render.render(person.pose(motion), person.cameras, background=background)
            drawn.append(time.perf_counter() - source.shown)
    out: dict[str, float] = {"frames": len(moved)}
    for name, times in (("motion_ms", moved), ("drawn_ms", drawn)):
        if times:
            out |= {name: round(1000 * float(np.median(times)), 1)}
            out |= {f"{name}_95_percent": round(1000 * float(np.quantile(times, 0.95)), 1)}
    return out


def hours(count: float) -> dict[str, float]:
    """One long file driven as a stream: frames, growth of the process's largest memory, MB, and time per second."""
    said = speech.synthesize(" ".join(SENTENCES), "en-us", 150)
    samples = media.resampled(said.samples, said.sample_rate, 8000)
    data = np.round(samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            for _ in range(math.ceil(count * 3600 * 8000 / len(samples))):
                file.writeframes(data)
        person = neutral()
        next(SoundConfig(path).build(person).stream())  # what is loaded once does not count
        Path("/proc/self/clear_refs").write_text("5")  # the peak of what ran before this does not count either
        before, begun = _largest_mb(), time.process_time()
        frames = sum(len(motion) for motion in SoundConfig(path).build(person).stream())
        spent = time.process_time() - begun
    seconds = frames / FPS
    return {
        "hours": round(seconds / 3600, 2),
        "frames": frames,
        "grown_mb": round(_largest_mb() - before, 1),
        "cost_s_per_s": round(spent / seconds, 4),
    }


def _largest_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(result: dict[str, Any]) -> None:
    """Print it as tables."""
    for clip in result["clips"]:
        for name, row in clip["rows"].items():
            print(f"{clip['clip']:<16}{name:<28}{row['correlation']:>7.3f}{row['lag_frames']:>5}")
        for name in ("opening_ratio", "jitter_ratio", "opening_in_pauses_mm", "evidence"):
            print(f"{clip['clip']:<16}{name:<28}{clip[name]!s:>7}")
    for sound in result["sounds"]:
        print("  ".join(f"{k} {v}" for k, v in sound.items()))
    for name, (share, count) in result["made_up"].items():
        print(f"{name:<16}{100 * share:5.1f} % of {count}")
    for language, row in result["foreign"].items():
        print(f"{language:<16}" + "  ".join(f"{k} {v}" for k, v in row.items()))
    for name in ("camera", "hours"):
        if name in result:
            print(f"{name:<16}" + "  ".join(f"{k} {v}" for k, v in result[name].items()))
    print("streaming       ", "  ".join(f"{k} {v}" for k, v in result["streaming"].items()), f"(bars: {BARS})")


def main() -> None:
    """Measure and print; write the same as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--avatar", type=Path)
    parser.add_argument("--sounds", nargs="*", type=Path, default=[])
    parser.add_argument("--recogniser", type=Path, help="folder of faster-whisper weights that know many languages")
    parser.add_argument("--camera", type=Path)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    person = None
    if args.avatar:
        from gsth.avatar import Avatar

        person = Avatar.load(args.avatar)
    result = {
        "clips": [measure(path) for path in args.clips],
        "sounds": languages(args.sounds, args.recogniser),
        "made_up": made_up(),
        "foreign": foreign(),
        "streaming": streaming(),
    }
    if args.camera:
        result["camera"] = camera(args.camera, person)
    if args.hours:
        result["hours"] = hours(args.hours)
    show(result)
    if args.json:
        part = args.json.with_suffix(".part")
        part.write_text(json.dumps(result, indent=2) + "\n")
        part.replace(args.json)


if __name__ == "__main__":
    main()
