"""The speech network and the clock between its steps and pictures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth import audio, speech
from gsth.drive import _speech_net
from gsth.drive._speech_net import DELAY, LOOK_AHEAD_S, NAMES, STEPS_HZ, HiddenStream, PictureClock


@pytest.fixture(scope="module")
def net() -> _speech_net.SpeechNet:
    return _speech_net.prior()


def test_size_and_look_ahead(net: _speech_net.SpeechNet) -> None:
    assert sum(p.numel() for p in net.parameters()) < 1_500_000
    assert _speech_net.WEIGHTS.stat().st_size < 3_000_000
    assert LOOK_AHEAD_S < 0.2


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_streaming_equals_the_whole(sizes: list[int]) -> None:
    net = _speech_net.prior()
    features = torch.randn(sum(sizes) + 1, audio.BANDS, generator=torch.Generator().manual_seed(1))
    whole = _speech_net.hidden_states(net, features)
    stream, parts, at = HiddenStream(net), [], 0
    for size in [*sizes, 1]:
        parts.append(stream.push(features[at : at + size]))
        at += size
    parts.append(stream.finish())
    assert len(whole) == (len(features) + 1) // 2
    torch.testing.assert_close(torch.cat(parts), whole, atol=2e-5, rtol=0)


def test_nothing_later_than_the_look_ahead_is_heard(net: _speech_net.SpeechNet) -> None:
    features = torch.randn(200, audio.BANDS, generator=torch.Generator().manual_seed(2))
    changed = features.clone()
    changed[100:] += 1.0
    a, b = (_speech_net.hidden_states(net, f) for f in (features, changed))
    first = int((a != b).any(1).nonzero()[0])
    # Column 100 belongs to step 50, which may be heard from DELAY steps earlier, and is.
    assert first == 50 - DELAY


def test_a_step_comes_out_as_soon_as_its_look_ahead_is_in(net: _speech_net.SpeechNet) -> None:
    stream = HiddenStream(net)
    assert len(stream.push(torch.zeros(2 * DELAY, audio.BANDS))) == 0
    assert len(stream.push(torch.zeros(2, audio.BANDS))) == 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([23.976, 25.0, 29.97, 30.0, 50.0, 60.0, 100.0]), st.lists(st.integers(0, 30), max_size=6))
def test_clock_reads_a_ramp_at_the_middle_of_pictures(fps: float, sizes: list[int]) -> None:
    # Step k is worth the time of its middle, so every picture must read its own middle.
    count = sum(sizes) + 5
    ramp = ((torch.arange(count) + 0.5) / STEPS_HZ)[:, None]
    clock, parts, at = PictureClock(fps), [], 0
    for size in [*sizes, 5]:
        parts.append(clock.push(ramp[at : at + size]))
        at += size
    known = torch.cat(parts)
    wanted = ((torch.arange(len(known)) + 0.5) / fps)[:, None].clamp(ramp[0, 0], ramp[-1, 0])
    torch.testing.assert_close(known, wanted, atol=1e-5, rtol=0)
    rest = clock.finish(len(known) + 3)
    assert len(rest) == 3 and torch.allclose(rest[-1], ramp[-1])


def test_packing_keeps_the_net(net: _speech_net.SpeechNet) -> None:
    again = _speech_net.unpack(_speech_net.pack(net))
    features = torch.randn(80, audio.BANDS)
    torch.testing.assert_close(
        _speech_net.hidden_states(again, features), _speech_net.hidden_states(net, features), atol=1e-6, rtol=0
    )
    assert net.head.out_features == len(NAMES)


def test_a_net_of_fewer_blocks_is_read_and_can_be_deepened() -> None:
    torch.manual_seed(4)
    short = _speech_net.SpeechNet(_speech_net.NetSize(width=16, dilations=speech.NET.dilations[:8])).eval()
    read = _speech_net.unpack(_speech_net.pack(short))  # as in avatars that were trained before nets were deeper
    assert [b.conv.dilation for b in read.blocks] == list(speech.NET.dilations[:8])
    deep = _speech_net.deepened(short, _speech_net.NetSize(width=16)).eval()
    features = torch.randn(1, 90, audio.BANDS)
    assert len(deep.blocks) == len(speech.NET.dilations) > 8
    assert torch.equal(deep(features)[0], short(features)[0])
    deep(features)[0].square().sum().backward()
    assert float(deep.blocks[-1].mix.weight.grad.abs().max()) > 0
    with pytest.raises(RuntimeError):
        _speech_net.deepened(short, _speech_net.NetSize(width=8))
    with pytest.raises(RuntimeError, match="blocks"):
        _speech_net.unpack({n: w for n, w in _speech_net.pack(short).items() if not n.startswith("blocks.")})


def test_what_is_heard_while_learning_is_what_is_heard(net: _speech_net.SpeechNet) -> None:
    features = torch.randn(1, 90, audio.BANDS, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        quick = net(features)[0]
    assert torch.equal(net(features)[0], quick)
