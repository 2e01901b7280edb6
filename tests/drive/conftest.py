"""A made-up person on the built-in head, who said a few sentences, and sounds to speak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from gsth import audio, head, math3d, speech
from gsth.drive._person import LOWER_FACE
from gsth.types import Identity, Motion

FPS = 25.0
HELD_OUT_VOICE = "en-us+f4"
"""A voice that the prior was not trained on."""
TEXT = (
    "People may buy a better piano. My mother moved a big bamboo boat. We hope that you feel fine about the new "
    "room. Papa remembers a warm summer by the sea, and Bob makes a map for me."
)


def _spoken(text: str = TEXT, voice: str = HELD_OUT_VOICE, rate_wpm: int = 150):
    """16 kHz samples and phonemes of a text."""
    from scipy.signal import resample_poly

    said = speech.synthesize(text, voice, rate_wpm)
    samples = resample_poly(said.samples, 320, 441) if said.sample_rate == 22050 else said.samples
    return samples.astype(np.float32), said.phonemes


def _person(expr: torch.Tensor, train_frames: int, fps: float = FPS) -> SimpleNamespace:
    """Something with an avatar's attributes that drivers use, tracked with these expressions [t 52]."""
    model = head.load()
    frames = len(expr)
    t = torch.arange(frames) / fps
    joints = math3d.quat_identity(frames, 5)
    joints[:, 2] = math3d.rotvec_to_quat(torch.stack((0.05 * torch.sin(t), 0.1 * torch.cos(0.7 * t), 0 * t), 1))
    place = torch.tensor((1.0, 0, 0, 0, 0.02, 0.1, 0.7)).repeat(frames, 1)
    return SimpleNamespace(
        head=model,
        identity=Identity(model.id, torch.zeros(len(model.shape_basis))),
        motion=Motion(model.id, fps, expr, joints, place),
        source=SimpleNamespace(
            fps=fps,
            train_frames=train_frames,
            frame_ids=torch.arange(frames),
            found=torch.ones(frames, dtype=torch.bool),
        ),
        field=None,
        speech={},
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors here are tiny; on a busy machine waiting for a second thread takes far longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def spoken() -> Callable[..., tuple[np.ndarray, tuple[speech.Phoneme, ...]]]:
    """Makes speech: text, voice, words per minute to 16 kHz samples and phonemes."""
    return _spoken


@pytest.fixture(scope="session")
def person() -> Callable[..., SimpleNamespace]:
    """Makes a person: tracked expressions, number of training frames, frame rate."""
    return _person


@pytest.fixture(scope="session")
def sentence() -> tuple[np.ndarray, tuple[speech.Phoneme, ...]]:
    """Speech of a held-out voice with its phonemes."""
    return _spoken()


@pytest.fixture(scope="session")
def clip(sentence) -> tuple[SimpleNamespace, np.ndarray]:
    """A person who said the sentence in a manner of their own, and the sound of it.

    The manner: a wide mouth, lips that round half as much, cheeks that go along with the jaw, a faint smile at rest.
    """
    samples, phonemes = sentence
    names = list(head.load().expression_names)
    frames = audio.frames_of(len(samples), FPS)
    expr = speech.visemes(phonemes, FPS, frames, names)
    closed = expr[:, names.index("mouthClose")] / expr[:, names.index("jawOpen")].clamp_min(0.02)
    manner = expr.clone()
    manner[:, names.index("jawOpen")] *= 1.5
    manner[:, names.index("mouthClose")] = closed * manner[:, names.index("jawOpen")]
    for side in ("Left", "Right"):
        manner[:, names.index("mouthSmile" + side)] = 0.15 + expr[:, names.index("mouthStretch" + side)]
        manner[:, names.index("cheekSquint" + side)] = 0.6 * expr[:, names.index("jawOpen")]
    for name in ("mouthPucker", "mouthFunnel"):
        manner[:, names.index(name)] *= 0.5
    lower = [i for i, n in enumerate(names) if n.startswith(LOWER_FACE)]
    noise = torch.randn(frames, len(lower), generator=torch.Generator().manual_seed(3)) * 0.02
    manner[:, lower] = (manner[:, lower] + noise).clamp(0, 1)
    return _person(manner, int(0.75 * frames)), samples


@pytest.fixture
def wav(tmp_path: Path, sentence) -> Path:
    """The sentence as a file."""
    path = tmp_path / "sentence.wav"
    soundfile.write(path, sentence[0], audio.RATE)
    return path
