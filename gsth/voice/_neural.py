"""What the neural voices share: a session of onnxruntime that also tells phoneme durations, and their bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsth.errors import InputError, MissingExtraError
from gsth.speech import Phoneme

WORD_GAP_S = 0.06
"""A gap between words that is longer is a silence; a shorter one belongs to the sound before it."""
KOKORO_HOP_S = 600 / 24_000
"""Frame of Kokoro and of what is distilled from it, s."""
_KOKORO_EARLY_S = 0.031
"""Their sound runs ahead of their own times by this much: measured against espeak-ng's times of the same sounds."""
Unit = tuple[str | None, int]
"""A sound (IPA; "" in silence, None for the gap between words) and how many tokens of the model it spans."""


def session(model: Path, extra_output: str | None = None, seed: int = 0) -> Any:
    """A single-threaded inference session, if wanted with one more output: an inner value, by its name.

    The name is appended to the file's bytes as a second piece of the same message; protobuf merges the two, so that no
    package is needed to edit the graph.

    Raises:
        InputError: The file is missing or no model.
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise MissingExtraError("onnxruntime", "voices", "neural voices") from e
    if not model.is_file():
        raise InputError(f"{model}: there is no such file; want a voice model (.onnx)")
    data = model.read_bytes()
    if extra_output is not None:
        name = extra_output.encode()
        output = bytes((0x0A, len(name))) + name  # ValueInfoProto.name
        graph = bytes((0x62, len(output))) + output  # GraphProto.output
        data += bytes((0x3A, len(graph))) + graph  # ModelProto.graph
    onnxruntime.set_seed(seed)  # of the random numbers that models draw; a session keeps what was set before it
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors have no common base
        raise InputError(f"{model}: cannot be read as a voice model ({str(e)[:200]})") from e


def phonemes(units: Sequence[Unit], durations_s: Sequence[float], end_s: float) -> tuple[Phoneme, ...]:
    """Phonemes from the duration of each token; without gaps from 0 to ``end_s``, silences that touch are one."""
    out: list[Phoneme] = []
    at, now = 0, 0.0
    for symbol, tokens in units:
        start, now = now, now + sum(durations_s[at : at + tokens])
        at += tokens
        last = out[-1] if out else None
        if symbol is None:
            symbol = "" if now - start > WORD_GAP_S or last is None else last.symbol
            joins = last is not None
        else:
            joins = symbol == "" and last is not None
        if joins and last is not None and last.symbol == symbol:
            out[-1] = Phoneme(symbol, last.start_s, now)
        elif now > start:
            out.append(Phoneme(symbol, start, now))
    out = [Phoneme(p.symbol, min(p.start_s, end_s), min(p.end_s, end_s)) for p in out if p.start_s < end_s]
    if out and out[-1].end_s < end_s:
        last = out.pop()
        rest = [Phoneme("", last.end_s, end_s)]
        out += [Phoneme("", last.start_s, end_s)] if last.symbol == "" else [last, *rest]
    return tuple(out)


def kokoro_seconds(durations: Sequence[float]) -> list[float]:
    """Seconds of each token of one run of Kokoro, or of what is distilled from it, from its frames of each."""
    out = [float(n) * KOKORO_HOP_S for n in durations]
    early = min(out[0], _KOKORO_EARLY_S)
    out[0], out[-1] = out[0] - early, out[-1] + early
    return out


def check(rate: float, pitch: float) -> None:
    """Raises InputError where a factor is out of range."""
    for name, value in (("rate", rate), ("pitch", pitch)):
        if not 0.5 <= value <= 2:
            raise InputError(f"{name} is {value}; it must be 0.5 to 2")
