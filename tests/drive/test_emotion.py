"""Emotions: read from data, shown, blended over time, and kept out of closed lips."""

from __future__ import annotations

import pytest
import torch

from gsth import head, speech
from gsth.drive._emotion import Emotion, Feeling, Mood, library, moods
from gsth.drive._person import opening_weights
from gsth.errors import InputError

WANTED = {"happy", "sad", "angry", "surprised", "disgusted", "afraid", "calm"}


@pytest.fixture(scope="module")
def model():
    return head.load()


def _feeling(model, text: str) -> Feeling:
    return Feeling.of(moods(text), model, opening_weights(model))


def test_all_are_there_and_differ(model) -> None:
    assert set(library()) == WANTED
    rest = torch.zeros(1, 52)
    faces = torch.cat([_feeling(model, n).shown(rest, torch.tensor([1.0])) for n in sorted(WANTED)])
    apart = torch.cdist(faces, faces) + torch.eye(len(faces)) * 9
    assert float(apart.min()) > 0.15 and float(faces.max()) <= 1
    assert all(0.3 < faces[i].norm() for i, n in enumerate(sorted(WANTED)) if n != "calm")


@pytest.mark.parametrize("name", sorted(WANTED))
def test_closed_lips_stay_closed_and_speech_stays_readable(model, name: str) -> None:
    gap = opening_weights(model)
    said = speech.synthesize("Papa may buy a big brown boat for Bob and me.")
    frames = int(said.seconds * 25)
    spoken = speech.visemes(said.phonemes, 25.0, frames, model.expression_names)
    times = (torch.arange(frames) + 0.5) / 25
    felt = _feeling(model, name).shown(spoken, times)
    before, after = spoken @ gap, felt @ gap
    closed = before < 0.0005
    assert int(closed.sum()) > 10
    assert float((after - before)[closed].max()) < 0.0012  # m
    assert float(torch.corrcoef(torch.stack((before, after)))[0, 1]) > 0.95


def test_intensity_scales(model) -> None:
    rest, now = torch.zeros(1, 52), torch.tensor([1.0])
    smile = model.expression_names.index("mouthSmileLeft")
    half, full = (_feeling(model, f"happy:{x}").shown(rest, now)[0, smile] for x in (0.5, 1.0))
    assert float(half) == pytest.approx(float(full) / 2)
    assert torch.equal(_feeling(model, "happy:0").shown(rest, now), rest)


def test_moods_blend_over_time(model) -> None:
    feeling = _feeling(model, "happy, sad@2, none@4")
    times = torch.arange(0, 6, 0.04)
    shown = feeling.shown(torch.zeros(len(times), 52), times)
    smile, brow = (shown[:, model.expression_names.index(n)] for n in ("mouthSmileLeft", "browInnerUp"))
    assert smile[0] > 0.3 and brow[0] == 0 and smile[75] == 0 and brow[75] > 0.5 and shown[-1].abs().max() == 0
    assert float(shown.diff(dim=0).abs().max()) < 0.12  # no jump
    assert float(feeling.mouth(times)[0]) > 1 > float(feeling.mouth(times)[75])
    assert float(feeling.nod(times)[75]) > 0 > float(feeling.nod(times)[0])


def test_parsing() -> None:
    assert moods("none") == (Mood(0.0, ""),) and moods("") == ()
    assert moods("sad@3, happy:0.25") == (Mood(0.0, "happy", 0.25), Mood(3.0, "sad", 1.0))


@pytest.mark.parametrize("text", ["joyful", "happy:2", "happy:x", "happy@soon", "happy:-1"])
def test_what_is_no_emotion_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        moods(text)


def test_data_are_checked(model) -> None:
    with pytest.raises(InputError, match="-1 to 1"):
        Emotion({"mouthSmile": 3.0})
    with pytest.raises(InputError, match="0.3 to 2"):
        Emotion(mouth=9.0)
