"""A picture that looks like one: smooth shapes, edges and texture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


def made_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = rng.integers(20, 235, (9, 9, 3), np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    picture[height // 3 : height // 2, width // 4 : width // 2] *= 0.4
    picture += rng.normal(0, 4, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return made_picture(512, 512)
