"""Conversations: who speaks when, who listens, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsth.drive import offline, script
from gsth.drive._person import opening_weights
from gsth.errors import InputError

GOOD = """
speakers:
  anna: {avatar: a.avatar, voice: en-us+f3, emotion: "happy:0.5"}
  ben: {avatar: b.avatar, voice: en-gb+m3, seed: 4}
lines:
  - anna: Hello Ben, my friend. How are you today?
  - ben: I am *very* well, thank you.
    emotion: sad
  - anna: Good.
    pause_s: 1.5
"""


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "dialogue.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def made(person):
    return person(torch.zeros(50, 52), 50)


def test_lines_follow_each_other_and_listeners_rest(tmp_path: Path, made) -> None:
    play = script.read(_file(tmp_path, GOOD))
    assert play.roles["ben"].avatar == tmp_path / "b.avatar" and play.roles["ben"].manner.seed == 4
    drivers, sound = script.perform(play, {"anna": made, "ben": made})
    motions = {n: offline(d) for n, d in drivers.items()}
    assert len(motions["anna"]) == len(motions["ben"])
    assert len(motions["anna"]) / 25 == pytest.approx(len(sound.samples) / sound.rate, abs=0.06)
    own = {n: np.abs(d.sound.samples) > 0.01 for n, d in drivers.items()}
    assert not (own["anna"] & own["ben"]).any()  # nobody interrupts
    gap = opening_weights(made.head)
    for speaker, listener in (("anna", "ben"), ("ben", "anna")):
        said = own[speaker].nonzero()[0] / sound.rate
        first, last = (int(t * 25) for t in (said[0], said[0] + 1.0))
        opened = {n: (m.expr @ gap * 1000)[first + 6 : last] for n, m in motions.items()}
        assert float(opened[speaker].max()) > 3 and float(opened[listener].max()) < 1.0, (speaker, opened)
    frown = motions["ben"].expr[:, made.head.expression_names.index("mouthFrownLeft")]
    spoken = own["ben"].nonzero()[0] / sound.rate * 25
    assert frown[int(spoken[0]) + 10 : int(spoken[-1]) - 5].mean() > 0.2 and frown[:10].max() < 0.05
    smile = motions["anna"].expr[:, made.head.expression_names.index("mouthSmileLeft")]
    assert smile.mean() > 0.1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("lines:", "line:"), "speakers and lines"),
        (("- ben: I am", "- bob: I am"), "nobody is called 'bob'"),
        (("emotion: sad", "emotion: glum"), "line 2 .ben.*glum"),
        (("pause_s: 1.5", "pause_s: long"), "pause_s is 'long'"),
        (("seed: 4", "sead: 4"), "unknown key 'sead'"),
        (("voice: en-gb+m3", "voice: klingon"), "no voice"),
        (("I am *very* well, thank you.", "''"), "line 2 .ben.: the text is empty"),
        (("speakers:", "speakers: ["), "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, made, change: tuple[str, str], reason: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(InputError, match=reason):
        script.perform(script.read(_file(tmp_path, GOOD.replace(*change))), {"anna": made, "ben": made})


def test_a_missing_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        script.read(tmp_path / "none.yaml")
