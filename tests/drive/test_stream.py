"""Speech while it is spoken: the same for any pieces, soon enough, and cheap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gsth import audio
from gsth.drive import Manner, _speech_net
from gsth.drive._speaking import LiveSpeech
from gsth.drive._stream import RunningLevel, StepStream, steps_of


@pytest.fixture(scope="module")
def net() -> _speech_net.SpeechNet:
    return _speech_net.prior()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=9), st.booleans())
def test_any_pieces_give_the_whole(sentence, net, sizes: list[int], level_known: bool) -> None:
    samples = sentence[0][: sum(sizes) + 500]
    level = audio.speech_level(sentence[0]) if level_known else None
    whole = steps_of(net, samples, level)
    stream, parts, at = StepStream(net, level), [], 0
    for size in sizes:
        parts.append(stream.push(samples[at : at + size]))
        at += size
    parts += [stream.push(samples[at:]), stream.finish()]
    for name in ("hidden", "awake", "accent"):
        joined, wanted = torch.cat([getattr(p, name) for p in parts]), getattr(whole, name)
        assert len(wanted) == -(-len(samples) // 320)
        torch.testing.assert_close(joined, wanted, atol=3e-5, rtol=0)


def test_hidden_states_are_those_of_the_whole_sound(sentence, net) -> None:
    level = audio.speech_level(sentence[0])
    offline = _speech_net.hidden_states(net, audio.log_mel(sentence[0]))
    torch.testing.assert_close(steps_of(net, sentence[0], level).hidden, offline, atol=3e-5, rtol=0)


def test_first_frame_comes_within_300_ms(person, sentence) -> None:
    live = LiveSpeech(person(torch.zeros(50, 52), 50), Manner(), level_db=-20.0)
    heard = 0
    for piece in np.split(sentence[0], range(160, len(sentence[0]), 160)):
        heard += len(piece)
        if live.push(piece) is not None:
            break
    assert heard / audio.RATE <= 0.3


class Work(TorchDispatchMode):
    """Counts the operations that torch runs, and the multiplications of its matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.multiplications = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        name = func.overloadpacket.__name__
        if name in ("addmm", "mm", "bmm"):
            self.multiplications += out.numel() * args[name == "addmm"].shape[-1]
        return out


def test_pieces_cost_the_multiplications_of_the_whole_and_no_more_calls_as_time_goes_by(person, sentence) -> None:
    """How long a second of sound takes is measured by ``benchmarks/lips.py``; it follows from what is counted here."""
    made, samples = person(torch.zeros(50, 52), 50), sentence[0][: 2 * audio.RATE]
    pieces, work = np.split(samples, range(640, len(samples), 640)), []
    for parts in ([samples], pieces):
        live = LiveSpeech(made, Manner())
        for part in parts:
            with Work() as counted:
                live.push(part)
            work.append(counted)
    whole, *each = work
    assert 0 < sum(w.multiplications for w in each) <= whole.multiplications < 2 * 36e6
    first, second = each[: len(each) // 2], each[len(each) // 2 :]
    assert max(w.calls for w in second) <= max(w.calls for w in first) < 850


def test_running_level_finds_the_level_and_forgets_the_gain(sentence) -> None:
    levels = {}
    for gain in (0.1, 1.0):
        samples = torch.from_numpy(sentence[0][: len(sentence[0]) // 160 * 160] * gain)
        running = RunningLevel()
        levels[gain] = running.push(samples.reshape(-1, 160).square().mean(1).tolist())
    assert levels[1.0] == pytest.approx(audio.speech_level(sentence[0]), abs=2.0)
    assert levels[1.0] - levels[0.1] == pytest.approx(20, abs=0.01)
    assert RunningLevel().push([0.0] * 500) == -np.inf


def test_awake_in_speech_asleep_in_silence_and_before_it_starts(sentence, net) -> None:
    quiet = np.zeros(2 * audio.RATE, np.float32)
    noise = 0.001 * np.random.default_rng(1).standard_normal(len(sentence[0]) + 2 * len(quiet)).astype(np.float32)
    steps = steps_of(net, np.concatenate((quiet, sentence[0], quiet)) + noise, audio.speech_level(sentence[0]))
    awake, first = steps.awake[:, 0], 2 * 50
    assert float(awake[: first - 10].max()) == 0 and float(awake[-60:].max()) == 0
    assert 0 < first - int((awake > 0.5).nonzero()[0]) < 9
    assert float(awake[first + 20 : first + 100].mean()) > 0.9
    assert 0.02 < float(steps.accent.mean()) < 0.5 and float(steps.accent.max()) <= 1


def test_silence_and_nothing(net) -> None:
    for samples in (np.zeros(0, np.float32), np.zeros(5000, np.float32)):
        steps = steps_of(net, samples)
        assert len(steps.hidden) == -(-len(samples) // 320)
        assert float(steps.awake.sum()) == 0 and float(steps.accent.sum()) == 0
