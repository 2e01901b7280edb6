"""Who finds faces. To add one: a file here with a frozen ``Config`` whose ``build()`` returns a Detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

COUNT = 478
"""Points of a face, in the order of MediaPipe's mesh with irises."""
BODY = 33
"""Points of a body, in the order of MediaPipe's pose: 0 nose, 7 and 8 ears, 11 and 12 shoulders."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one picture."""

    points: np.ndarray
    """px of the picture, float32 [478 2]."""
    scores: Mapping[str, float] | None = None
    """Activation of each expression, 0 to 1, by its ARKit name, where the detector tells."""


class Detector(Protocol):
    """Finds faces. One object serves one stream of pictures in order, and only one thread; close it when done."""

    def follow(self, picture: np.ndarray) -> list[Face]:
        """Up to two faces in the next picture of the stream, RGB uint8 [h w 3]; may rest on the pictures before."""
        ...

    def look(self, picture: np.ndarray) -> list[Face]:
        """Up to one face in a picture that has nothing to do with the stream."""
        ...

    def body(self, picture: np.ndarray) -> np.ndarray | None:
        """x px, y px and visibility of the body points [33 3] in the next picture of the stream; None: nobody seen."""
        ...

    def close(self) -> None:
        """Give the models back."""
        ...
