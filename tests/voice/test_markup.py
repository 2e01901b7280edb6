"""Marked-up text taken apart: pauses, emphasis, prosody, mood; broken markup is refused with its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth.errors import InputError
from gsth.voice.markup import LONGEST_PAUSE_S, Manner, Piece, pieces


def test_plain_text_is_one_piece() -> None:
    assert pieces("  Hello\n there,  world. 3 < 5 & so on ") == [Piece("Hello there, world. 3 < 5 & so on")]


def test_short_marks() -> None:
    found = pieces("I am *very* well. [500ms] And you?")
    assert [p.text for p in found] == ["I am", "very", "well.", "And you?"]
    assert [p.pause_s for p in found] == [0, 0, 0, 0.5]
    assert found[1].manner.effort > 1 and found[1].manner.pitch > 1 and found[1].manner.rate < 1
    assert found[0].manner == found[2].manner == Manner()


def test_stars_in_sums_and_rules_are_no_emphasis() -> None:
    assert pieces("2*3*4 and a ** b")[0].text == "2*3*4 and a ** b"


def test_ssml() -> None:
    text = (
        '<speak>Hello <break time="1.5s"/> there <emphasis level="reduced">friend</emphasis>.'
        '<prosody rate="80%" pitch="+12st" volume="-6dB">Slow</prosody>'
        '<mood name="happy" level="0.4">Good <emphasis>news</emphasis></mood></speak>'
    )
    hello, there, friend, slow, good, news = pieces(text)
    assert (hello.text, there.text, friend.text, slow.text) == ("Hello", "there", "friend.", "Slow")
    assert there.pause_s == 1.5 and friend.manner.effort < 1
    assert slow.manner.rate == pytest.approx(0.8) and slow.manner.pitch == pytest.approx(2.0)
    assert slow.manner.loudness == pytest.approx(0.5012, abs=1e-3)
    assert (good.manner.mood, good.manner.mood_level, news.manner.mood) == ("happy", 0.4, "happy")
    assert news.manner.effort > 1


def test_pause_at_the_end_is_kept() -> None:
    assert pieces('Hi <break strength="strong"/>')[-1] == Piece("", 0.7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("[2s]", "empty"),
        ('<break time="1s"/>', "empty"),
        ("<emphasis>Hi", "line 1"),
        ("<emphasis level='loud'>Hi</emphasis>", "strong"),
        ('Hi <break time="soon"/>', "500ms"),
        ('Hi <break strength="huge"/>', "x-strong"),
        (f"Hi [{LONGEST_PAUSE_S + 1}s] you", "too long"),
        ('<prosody rate="quick">Hi</prosody>', "x-fast"),
        ('<prosody rate="-100%">Hi</prosody>', "want a word"),
        ('<mood level="much">Hi</mood>', "0 to 1"),
        ("<p>Hi <b>you</b></p>", "<b> is not known"),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        pieces(text)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        found = pieces(text)
    except InputError:
        return
    assert any(p.text for p in found) and all(p.pause_s >= 0 for p in found)
