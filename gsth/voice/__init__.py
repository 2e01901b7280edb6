"""Speaking text: engines that turn text into sound with phoneme times.

To add one: a public file in this room with a frozen ``Config`` (its first field is ``voice``: a name, or a model file)
whose ``build()`` returns a ``Speaker``. The configs import nothing heavy.
"""

from __future__ import annotations

from typing import Protocol

from gsth.speech import Utterance

__all__ = ["ENGINE_OF_SUFFIX", "Speaker", "Utterance"]

ENGINE_OF_SUFFIX = {".onnx": "piper"}
"""The engine of a voice that is given as a file."""


class Speaker(Protocol):
    """One voice of one engine."""

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """Speak a text.

        Args:
            text: At least one word.
            rate: Factor on the voice's own speed, 0.5 to 2.
            pitch: Factor on the voice's own fundamental frequency, 0.5 to 2; engines that cannot change it leave it.

        Returns:
            Sound at the engine's rate. ``phonemes`` is empty where the engine does not tell their times.

        Raises:
            InputError: There is nothing to say in the text, or a number is out of range.
        """
        ...
