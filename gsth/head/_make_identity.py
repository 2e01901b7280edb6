"""Identity space of the built-in head, from MakeHuman's targets. Development only, see ``_make_builtin``."""

from __future__ import annotations

import numpy as np

from gsth.head import _make_source as source

_ROOMS = ("eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "forehead", "head", "neck", "asym")
_RACES = ("african", "asian", "caucasian")
_OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
    ("compress", "uncompress"),
)  # fmt: skip
EXPLICIT = (
    "head_scale", "overall_scale", "torso_width", "shoulder_height", "torso_depth", "neck_length", "shoulder_slope",
)  # fmt: skip
"""What the first identity coefficients mean; the others are principal components."""


def macro_offsets(age: float, male: float, races: np.ndarray, weight: float, muscle: float) -> np.ndarray:
    """Whole-body offsets [v 3] from base.obj of one adult, as MakeHuman blends them.

    Args:
        age: 0 is about 25 years, 1 about 90.
        male: 0 is female, 1 is male.
        races: Shares of african, asian and caucasian, sum 1, [3].
        weight: -1 is thin, 0 average, 1 heavy.
        muscle: -1 to 1, likewise.
    """
    out = np.zeros_like(source.base_mesh().verts)
    for sex, share_sex in (("female", 1 - male), ("male", male)):
        for years, share_age in (("young", 1 - age), ("old", age)):
            share = share_sex * share_age
            for race, share_race in zip(_RACES, races, strict=True):
                out += share * share_race * source.macro_target(f"{race}-{sex}-{years}")
            for m_name, m in _three_way(muscle, "muscle"):
                for w_name, w in _three_way(weight, "weight"):
                    if share * m * w > 1e-6:
                        out += share * m * w * source.macro_target(f"universal-{sex}-{years}-{m_name}-{w_name}")
    return out


def _three_way(value: float, noun: str) -> tuple[tuple[str, float], ...]:
    return (
        (f"min{noun}", max(-value, 0.0)),
        (f"average{noun}", 1 - abs(value)),
        (f"max{noun}", max(value, 0.0)),
    )


def average_adult() -> np.ndarray:
    """Offsets [v 3] from base.obj of the mean: androgynous, about 38 years, of no one ancestry."""
    return macro_offsets(0.2, 0.5, np.full(3, 1 / 3), 0.0, 0.0)


def sample_people(count: int, rng: np.random.Generator) -> np.ndarray:
    """Offsets of random adults from the average adult, [count v 3], float32.

    Local sliders come in opposite pairs; the two sides of the face mostly agree (the asymmetric rest has a third
    of the spread). Macro axes: age, sex, ancestry, weight, muscle.
    """
    sliders = _sliders()
    mean = average_adult()
    out = np.empty((count, *mean.shape), np.float32)
    for i in range(count):
        person = macro_offsets(
            rng.uniform(0, 0.75), rng.uniform(), rng.dirichlet((0.6, 0.6, 0.6)),
            float(np.clip(rng.normal(0, 0.35), -1, 1)), float(np.clip(rng.normal(0, 0.3), -1, 1)),
        ) - mean  # fmt: skip
        for sides in sliders.values():
            common = rng.normal(0, 0.25)
            for low, high in sides:
                u = float(np.clip(common + (rng.normal(0, 0.08) if len(sides) > 1 else 0.0), -1, 1))
                end = high if u > 0 else low
                if end is not None:
                    person[end[0]] += abs(u) * end[1]
        out[i] = person
    return out


_Sparse = tuple[np.ndarray, np.ndarray]


def _sliders() -> dict[str, list[tuple[_Sparse | None, _Sparse | None]]]:
    """Opposite ends of every local slider, sparse; both sides of the face under one name."""
    sparse = {}
    for name, dense in source.local_targets(_ROOMS).items():
        ids = np.flatnonzero(np.abs(dense).max(1) > 0)
        sparse[name] = (ids, dense[ids])
    out: dict[str, list[tuple[_Sparse | None, _Sparse | None]]] = {}
    for name, end in sparse.items():
        base, _, last = name.rpartition("-")
        pair = next((p for p in _OPPOSITES if last in p), None)
        if name.startswith("asym"):
            # left and right variants of one lopsidedness are opposite ends
            if last == "l":
                out[base] = [(sparse.get(f"{base}-r"), end)]
        elif pair is None:
            out[name] = [(None, end)]
        elif last == pair[1] or f"{base}-{pair[1]}" not in sparse:
            key = base.removeprefix("l-").removeprefix("r-")
            low = sparse.get(f"{base}-{pair[0]}")
            out.setdefault(key, []).append((low, end if last == pair[1] else None))
    return out


def without_similarity(offsets: np.ndarray, points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Take the best rigid motion and scale out of every offset field.

    Without this, stature and age own the first components (they move and scale the whole head).

    Args:
        offsets: [n v 3].
        points: Where the vertices are, [v 3].
        weight: How much each vertex counts in the fit, [v].
    """
    centre = (weight[:, None] * points).sum(0) / weight.sum()
    arm = points - centre
    zero = np.zeros(len(points))
    x, y, z = arm.T
    modes = [np.tile(axis, (len(points), 1)) for axis in np.eye(3)]
    modes += [np.stack(m, 1) for m in ((zero, -z, y), (z, zero, -x), (-y, x, zero))] + [arm]
    basis = np.stack(modes).reshape(7, -1)
    rows = np.repeat(weight, 3)
    gram = (basis * rows) @ basis.T
    flat = offsets.reshape(len(offsets), -1)
    coefficients = np.linalg.solve(gram, (basis * rows) @ flat.T)
    return (flat - (coefficients.T @ basis)).reshape(offsets.shape).astype(np.float32)


def principal_components(offsets: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Directions [count v 3], each one standard deviation long; vertices count by ``weight`` [v]."""
    flat = offsets.reshape(len(offsets), -1)
    flat = flat - flat.mean(0)
    root = np.sqrt(np.repeat(weight, 3)).astype(np.float32)
    scaled = flat * root
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    top = np.argsort(values)[::-1][:count]
    # people as columns: U^T X = S V, the field that the samples share, unweighted
    fields = vectors[:, top].T @ flat
    return (fields / np.sqrt(len(flat))).reshape(count, *offsets.shape[1:])


def explicit_components(points: np.ndarray, weights: np.ndarray, shoulder: np.ndarray) -> np.ndarray:
    """Hand-made directions in the order of ``EXPLICIT``, one standard deviation each, [7 v 3].

    They cover what a picture of head and shoulders varies in but the face-local targets do not say.

    Args:
        points: Model frame (origin at the neck joint), [v 3].
        weights: Skinning weights, [v j].
        shoulder: Centre of the left shoulder joint, [3].
    """
    torso = weights[:, :1]
    below_neck = np.clip(1 - torso, 0, 1)
    side = np.clip(np.abs(points[:, :1]) / shoulder[0], 0, 1.1)
    x, y, z = np.eye(3)
    return np.stack(
        (
            0.03 * below_neck * points,
            0.03 * points,
            0.08 * torso * points * x,
            0.02 * torso * y,
            torso * (0.08 * points * z + 0.008 * z),
            -0.012 * below_neck * y,
            0.014 * torso * side**2 * y,
        )
    )
