"""Who the made-up person of these tests is, and what a foreign reader must see of them."""

from __future__ import annotations

import numpy as np

SKIN, NOSE, CROWN, LEFT_EAR = (0.8, 0.6, 0.5), (0.95, 0.1, 0.1), (0.1, 0.9, 0.2), (0.1, 0.2, 0.95)
SPLATS, FRAMES = 600, 6


def where(means: np.ndarray, rgb: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Mean position of the splats that are painted so."""
    mine = np.abs(rgb - np.array(colour)).max(1) < 0.1
    assert mine.sum() > 20, f"{mine.sum()} splats of colour {colour}"
    return means[mine].mean(0)


def assert_canonical(means: np.ndarray, rgb: np.ndarray) -> None:
    """+y up, the face looks to +z, the person's left is +x, metres: nose, crown and left ear tell.

    Args:
        means: Positions as a foreign reader gives them, [n 3].
        rgb: Their view-independent colours, 0 to 1, [n 3].
    """
    nose, crown, ear = (where(means, rgb, c) for c in (NOSE, CROWN, LEFT_EAR))
    middle = (where(means, rgb, SKIN) + crown) / 2
    assert nose[2] - middle[2] > 0.05 and abs(nose[0] - middle[0]) < 0.03, nose - middle
    assert crown[1] - nose[1] > 0.05, crown - nose
    assert ear[0] - nose[0] > 0.04 and nose[2] - ear[2] > 0.05, ear - nose
    assert np.ptp(means, axis=0).max() < 0.6


def assert_same(means: np.ndarray, rgb: np.ndarray, want_means: np.ndarray, want_rgb: np.ndarray) -> None:
    """Positions within 0.1 mm and colours within 2/255, whatever the order."""
    assert len(means) == len(want_means)
    distance = np.linalg.norm(means[:, None] - want_means[None], axis=-1)
    match = distance.argmin(1)
    assert sorted(match) == list(range(len(means)))
    assert distance.min(1).max() < 1e-4
    assert np.abs(np.clip(rgb, 0, 1) - np.clip(want_rgb[match], 0, 1)).max() <= 2 / 255


def colours(sh0: np.ndarray) -> np.ndarray:
    """rgb of SH coefficients of degree 0, [n 3]."""
    return 0.5 + 0.28209479177387814 * np.asarray(sh0, np.float64)
