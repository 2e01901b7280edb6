"""Marked-up text: pauses, emphasis, rate, pitch and mood inside what is to be said.

A small part of SSML, without the ``<speak>`` around it (which may be there): ``<break time="500ms"/>``,
``<emphasis level="strong">``, ``<prosody rate="80%" pitch="+2st" volume="loud">``, and ``<mood name="happy"
level="0.7">``. Plain text may also say ``[0.5s]`` for a pause and ``*word*`` for emphasis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from xml.etree import ElementTree

from gsth.errors import InputError

_TAGS = ("speak", "break", "emphasis", "prosody", "mood", "p", "s")
_IS_MARKED = re.compile(rf"</?(?:{'|'.join(_TAGS)})\b")
_PAUSE = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*\]")
_STARRED = re.compile(r"(?<![\w*])\*([^*\n]+?)\*(?![\w*])")
_STRENGTHS_S = {"none": 0.0, "x-weak": 0.1, "weak": 0.2, "medium": 0.4, "strong": 0.7, "x-strong": 1.2}
_PARAGRAPH_S, _SENTENCE_S = 0.6, 0.25
_EMPHASIS = {"strong": (0.8, 1.15, 1.4, 1.3), "moderate": (0.88, 1.08, 1.2, 1.15), "none": (1.0, 1.0, 1.0, 1.0),
             "reduced": (1.12, 0.96, 0.75, 0.8)}  # fmt: skip
"""Rate, pitch, loudness and effort of each level."""
_WORDS = {
    "rate": {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.3, "x-fast": 1.7},
    "pitch": {"x-low": 0.7, "low": 0.85, "medium": 1.0, "default": 1.0, "high": 1.15, "x-high": 1.35},
    "volume": {"silent": 0.0, "x-soft": 0.35, "soft": 0.6, "medium": 1.0, "default": 1.0, "loud": 1.4, "x-loud": 2.0},
}
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Manner:
    """How a piece of text is said; factors on the voice's own."""

    rate: float = 1.0
    pitch: float = 1.0
    loudness: float = 1.0
    effort: float = 1.0
    """On the movements of the mouth."""
    mood: str = ""
    """Name of an emotion, "" for none of its own."""
    mood_level: float = 1.0


@dataclass(frozen=True)
class Piece:
    """A piece of text that is said in one manner, after a pause."""

    text: str
    """"" is a pause alone."""
    pause_s: float = 0.0
    """Silence before it, besides what the voice makes itself."""
    manner: Manner = Manner()


def pieces(text: str) -> list[Piece]:
    """Take a text apart.

    Raises:
        InputError: Nothing is to be said, or the markup is broken or unknown.
    """
    if _IS_MARKED.search(text):
        try:
            root = ElementTree.fromstring(f"<text>{text}</text>")
        except ElementTree.ParseError as e:
            line, column = e.position
            raise InputError(
                f"the markup cannot be read at line {line}, column {max(column - 6, 0)}: {e.msg.split(':')[0]}; "
                "every <tag> needs its </tag>, and & is written &amp;"
            ) from e
    else:
        root = ElementTree.Element("text")
        root.text = text
    out: list[Piece] = []
    _walk(root, Manner(), out)
    joined = _joined(out)
    if not any(p.text for p in joined):
        raise InputError("the text is empty; want at least one word to say")
    return joined


def _walk(node: ElementTree.Element, manner: Manner, out: list[Piece]) -> None:
    out += _plain(node.text or "", manner)
    for child in node:
        if child.tag not in _TAGS:
            raise InputError(f"the markup <{child.tag}> is not known; there are: {', '.join(_TAGS)}")
        if child.tag == "break":
            out.append(Piece("", _break(child)))
        else:
            pause = {"p": _PARAGRAPH_S, "s": _SENTENCE_S}.get(child.tag, 0.0)
            out.append(Piece("", pause))
            _walk(child, _manner(child, manner), out)
        out += _plain(child.tail or "", manner)


def _plain(text: str, manner: Manner) -> list[Piece]:
    """Text without tags: its short pauses and stars."""
    out: list[Piece] = []
    parts = _PAUSE.split(text)
    for i in range(0, len(parts), 3):
        if i:
            out.append(Piece("", _checked_pause(float(parts[i - 2]) / (1000 if parts[i - 1] == "ms" else 1))))
        for j, part in enumerate(_STARRED.split(parts[i])):
            out.append(Piece(part, 0.0, _emphasised(manner, "strong") if j % 2 else manner))
    return out


def _joined(found: list[Piece]) -> list[Piece]:
    """Neighbours of one manner as one piece; pauses go to the piece after them."""
    out: list[Piece] = []
    pause = 0.0
    for piece in found:
        pause += piece.pause_s
        if not piece.text.strip():
            continue
        if out and pause == 0 and out[-1].manner == piece.manner:
            out[-1] = replace(out[-1], text=out[-1].text + " " + piece.text)
        # A mark alone cannot be said: it ends what was said before it.
        elif out and pause == 0 and not re.search(r"\w", piece.text):
            out[-1] = replace(out[-1], text=out[-1].text + piece.text.strip())
        else:
            out.append(replace(piece, pause_s=pause))
            pause = 0.0
    out = [replace(p, text=" ".join(p.text.split())) for p in out]
    return [*out, *([Piece("", pause)] if pause else [])]


def _break(node: ElementTree.Element) -> float:
    time, strength = node.get("time"), node.get("strength", "medium")
    if time is not None:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*", time)
        if not found:
            raise InputError(f'<break time="{time}">: want a time such as 500ms or 1.5s')
        return _checked_pause(float(found[1]) / (1000 if found[2] == "ms" else 1))
    if strength not in _STRENGTHS_S:
        raise InputError(f'<break strength="{strength}">: want one of {", ".join(_STRENGTHS_S)}')
    return _STRENGTHS_S[strength]


def _checked_pause(seconds: float) -> float:
    if seconds > LONGEST_PAUSE_S:
        raise InputError(f"a pause of {seconds:g} s is too long; at most {LONGEST_PAUSE_S:g} s")
    return seconds


def _emphasised(manner: Manner, level: str) -> Manner:
    rate, pitch, loudness, effort = _EMPHASIS[level]
    return replace(
        manner,
        rate=manner.rate * rate,
        pitch=manner.pitch * pitch,
        loudness=manner.loudness * loudness,
        effort=manner.effort * effort,
    )


def _manner(node: ElementTree.Element, manner: Manner) -> Manner:
    """The manner inside a tag."""
    if node.tag == "emphasis":
        level = node.get("level", "moderate")
        if level not in _EMPHASIS:
            raise InputError(f'<emphasis level="{level}">: want one of {", ".join(_EMPHASIS)}')
        return _emphasised(manner, level)
    if node.tag == "prosody":
        factors = {name: _factor(name, node.get(name, "medium")) for name in _WORDS}
        return replace(
            manner,
            rate=min(max(manner.rate * factors["rate"], 0.5), 2.0),
            pitch=min(max(manner.pitch * factors["pitch"], 0.5), 2.0),
            loudness=manner.loudness * factors["volume"],
        )
    if node.tag == "mood":
        try:
            return replace(manner, mood=node.get("name", ""), mood_level=float(node.get("level", "1")))
        except ValueError as e:
            raise InputError(f'<mood level="{node.get("level")}">: want a number from 0 to 1') from e
    return manner


def _factor(name: str, value: str) -> float:
    """A word, 80%, +20%, +3st or -6dB as a factor."""
    if value in _WORDS[name]:
        return _WORDS[name][value]
    found = re.fullmatch(r"\s*([+-]?)(\d+(?:\.\d+)?)(%|st|dB)\s*", value)
    if found:
        sign, number, unit = found[1], float(found[2]) * (-1 if found[1] == "-" else 1), found[3]
        if unit == "%":
            factor = 1 + number / 100 if sign else number / 100
        else:
            factor = 2 ** (number / 12) if unit == "st" else 10 ** (number / 20)
        if factor > 0:
            return factor
    raise InputError(f'<prosody {name}="{value}">: want a word ({", ".join(_WORDS[name])}) or a change such as +20%')
