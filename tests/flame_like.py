"""A made-up model in FLAME's layout: the built-in head's skin and eyes (CC0), FLAME's arrays, axes and joints."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from gsth import head

AXES = np.array((1.0, -1.0, -1.0))


def arrays() -> dict[str, np.ndarray]:
    """v_template, f, shapedirs, posedirs, J_regressor, weights, kintree_table, J."""
    model = head.load("builtin")
    keep = torch.ones(len(model.faces), dtype=torch.bool)
    for part in ("hair_cap", "drape", "lashes", "bust", "teeth_upper", "teeth_lower", "tongue"):
        if part in model.parts:
            keep[model.parts[part]] = False
    used, faces = model.faces[keep].unique(return_inverse=True)
    v = len(used)
    rng = np.random.default_rng(0)
    shape = np.zeros((300, v, 3))
    own = model.shape_basis[:, used].numpy()
    shape[: len(own)] = own
    expr = np.zeros((100, v, 3))
    mix = np.linalg.qr(rng.normal(size=(60, 60)))[0][:, :52]
    expr[:60] = np.einsum("de,evc->dvc", mix, model.expr_basis[:, used].numpy())
    w = model.weights[used].numpy()
    jaw = np.clip(
        np.linalg.norm(model.expr_basis[model.expression_names.index("jawOpen"), used].numpy(), axis=1), 0, 0.02
    )
    jaw = jaw / max(float(jaw.max()), 1e-9) * w[:, 2]
    weights = np.column_stack((w[:, 0], w[:, 1] + w[:, 2] - jaw, jaw, w[:, 3], w[:, 4]))
    template = model.template[used].numpy() * AXES + (0.01, 1.5, 0.03)  # FLAME's origin is not its neck
    places = model.pivots.numpy()[[0, 2, 2, 3, 4]] * AXES + (0.01, 1.5, 0.03)
    places[2] += (0, -0.01, 0.02)
    regressor = np.zeros((5, v))
    for j, place in enumerate(places):
        near = np.linalg.norm(template - place, axis=1).argsort()[:20]
        regressor[j, near] = 1 / 20
    return {
        "v_template": template,
        "f": faces.numpy().astype(np.uint32),
        "shapedirs": np.moveaxis(np.concatenate((shape, expr)) * AXES, 0, -1),
        "posedirs": np.zeros((v, 3, 36)),
        "J_regressor": regressor,
        "J": regressor @ template,
        "weights": weights,
        "kintree_table": np.array(((2**32 - 1, 0, 1, 1, 1), (0, 1, 2, 3, 4)), np.int64),
    }


def write_npz(path: Path) -> Path:
    """As FLAME 2023 Open comes."""
    np.savez(path, **arrays())
    return path


def _classes() -> tuple[type, type]:
    """Classes that pickle under the names of chumpy and scipy."""
    out = []
    for module, name in (("chumpy.ch", "Ch"), ("scipy.sparse.csc", "csc_matrix")):
        made = type(name, (), {"__module__": module})
        holder = ModuleType(module)
        setattr(holder, name, made)
        out.append((module, holder, made))
    import sys

    for module, holder, _ in out:
        parts = module.split(".")
        for k in range(1, len(parts)):
            sys.modules.setdefault(".".join(parts[:k]), ModuleType(".".join(parts[:k])))
        sys.modules[module] = holder
    return out[0][2], out[1][2]


def write_pkl(path: Path) -> Path:
    """As FLAME 2020 comes: protocol 2, shapedirs a chumpy object, the regressor a sparse matrix by columns."""
    import sys

    before = dict(sys.modules)
    data: dict[str, Any] = arrays()
    try:
        chumpy, csc = _classes()
        shapes = chumpy()
        shapes.__dict__.update(x=data["shapedirs"], _dirty_vars=set(), _status="new")
        dense = data["J_regressor"]
        sparse = csc()
        columns, rows = np.nonzero(dense.T)
        indptr = np.concatenate(([0], np.cumsum(np.bincount(columns, minlength=dense.shape[1]))))
        sparse.__dict__.update(
            _shape=dense.shape, data=dense[rows, columns], indices=rows.astype(np.int32), indptr=indptr.astype(np.int32)
        )
        data |= {"shapedirs": shapes, "J_regressor": sparse, "bs_style": "lbs", "bs_type": "lrotmin"}
        path.write_bytes(pickle.dumps(data, protocol=2))
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
        sys.modules.update(before)
    return path
