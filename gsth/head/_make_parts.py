"""Which triangles of base.obj belong to which named part. Development only, see ``_make_builtin``."""

from __future__ import annotations

import numpy as np

from gsth.head import _make_source as source

_HELPERS = {
    "teeth_upper": ("helper-upper-teeth",),
    "teeth_lower": ("helper-lower-teeth",),
    "tongue": ("helper-tongue",),
    "eye_l": ("helper-l-eye",),
    "eye_r": ("helper-r-eye",),
    "lashes": tuple(f"helper-{s}-eyelashes-{n}" for s in "lr" for n in (1, 2)),
}
_LOWEST_Y = -0.275
"""Lower chest in base.obj, m."""
_ARM_KEPT = 0.55
"""How far along the upper arm skin is kept, of the way from shoulder to elbow."""


def quads_and_parts() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The quads that the head keeps, and which of them form each part.

    Returns:
        Quad indices into base.obj [q], and for every part a mask [q].
    """
    base = source.base_mesh()
    body = base.groups["body"]
    keep_body = body[_near_enough(base.verts[base.quads[body]].mean(1))]
    helpers = {part: np.concatenate([base.groups[g] for g in groups]) for part, groups in _HELPERS.items()}
    quads = np.concatenate((keep_body, *helpers.values()))
    centre = base.verts[base.quads[quads]].mean(1)
    skin = np.zeros(len(quads), bool)
    skin[: len(keep_body)] = True
    parts = {part: np.isin(quads, ids) for part, ids in helpers.items()}
    parts |= _skin_parts(quads, centre, skin)
    return quads, parts


def _near_enough(centre: np.ndarray) -> np.ndarray:
    """Body quads above the lower chest and not beyond the middle of the upper arm."""
    shoulder, elbow = (joint_centre(f"joint-l-{j}") for j in ("shoulder", "elbow"))
    axis = elbow - shoulder
    folded = np.concatenate((np.abs(centre[:, :1]), centre[:, 1:]), 1)
    along = (folded - shoulder) @ axis / (axis @ axis)
    off_axis = np.linalg.norm(folded - shoulder - along[:, None] * axis, axis=1)
    arm = (along > _ARM_KEPT) & ((off_axis < 0.09) | (folded[:, 0] > elbow[0]))
    return (centre[:, 1] < _LOWEST_Y) & ~arm


def joint_centre(group: str) -> np.ndarray:
    """Centre of a joint cube of base.obj, [3]."""
    base = source.base_mesh()
    return base.verts[base.group_verts(group)].mean(0)


def _skin_parts(quads: np.ndarray, centre: np.ndarray, skin: np.ndarray) -> dict[str, np.ndarray]:
    """Parts of the skin, by MakeHuman's texture masks where it has one, else by place in base.obj."""
    x, y, z = np.abs(centre[:, 0]), centre[:, 1], centre[:, 2]
    corners = source.base_mesh().quads[quads]
    weights = source.rig_weights()
    neck_w = np.sum([weights[f"neck0{k}"] for k in (1, 2, 3)], axis=0)[corners].mean(1)
    head_w = 1 - (neck_w + _torso_weight(weights)[corners].mean(1))
    masks = {name: _texture_mask(name, quads) & skin for name in ("lips", "inside-mouth", "ears", "eyelids")}
    inner = masks["inside-mouth"]
    ears = masks["ears"] & ~inner & (x > 0.055)
    head = skin & (head_w > 0.5) & ~inner
    scalp = head & ~ears & (y < _hairline_y(z))
    under_jaw = y > np.interp(z, (-0.15, -0.055), (-0.612, -0.652))
    face = head & ~ears & ~scalp & ~under_jaw & (z < -0.055)
    bust = skin & (_torso_weight(weights)[corners].mean(1) > 0.5)
    jaw = source.face_unit("jawOpen")[corners].mean(1)[:, 1]
    lips = masks["lips"] & ~inner & (y > -0.68) & (z < -0.125)
    low = jaw > _middle_by_x(x, jaw, lips)
    blink = np.linalg.norm(source.face_unit("eyeBlinkLeft") + source.face_unit("eyeBlinkRight"), axis=1)
    lids = face & (masks["eyelids"] | (blink[corners].mean(1) > 0.003))
    brows = face & (y < -0.742) & (y > -0.758) & (x > 0.008) & (x < 0.056) & ~lids
    nose = face & (x < 0.021) & (y > -0.728) & (y < -0.676) & (z < -0.135) & ~lips
    return {
        "skin": skin,
        "face": face | lips,
        "lips": lips,
        "upper_lip": lips & ~low,
        "lower_lip": lips & low,
        "mouth_inner": inner,
        "lids": lids,
        "brows": brows,
        "ears": ears,
        "scalp": scalp,
        "forehead": face & (y < -0.75) & (z < -0.09) & ~brows,
        "nose": nose,
        "neck": skin & ~inner & ~face & ~scalp & ~ears & ~lips & ~bust,
        "bust": bust,
    }


def _middle_by_x(x: np.ndarray, value: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Half way between the least and the largest ``value`` of those quads of a group that lie at about this x, [q]."""
    out = np.zeros(len(x))
    for i in np.flatnonzero(among):
        beside = value[among & (np.abs(x - x[i]) < 0.004)]
        out[i] = (beside.min() + beside.max()) / 2
    return out


def _torso_weight(weights: dict[str, np.ndarray]) -> np.ndarray:
    """Weight of everything that the root joint turns, [v]."""
    stems = ("spine", "clavicle", "shoulder", "upperarm", "lowerarm", "breast", "root", "pelvis", "wrist")
    return np.sum([w for bone, w in weights.items() if bone.startswith(stems)], axis=0)


def joint_weights() -> np.ndarray:
    """MakeHuman's rig collapsed to the house's joints (root, neck, head, eye_l, eye_r), [v 5].

    Eyeballs are rigid; lids and lashes go with the head (blinks are expressions).
    """
    weights = source.rig_weights()
    base = source.base_mesh()
    out = np.zeros((len(base.verts), 5))
    out[:, 0] = _torso_weight(weights)
    out[:, 1] = sum(weights[f"neck0{k}"] for k in (1, 2, 3))
    out[:, 2] = (1 - out[:, 0] - out[:, 1]).clip(0)
    for part, names in _HELPERS.items():
        joint = {"eye_l": 3, "eye_r": 4}.get(part, 2)
        for group in names:
            out[base.group_verts(group)] = np.eye(5)[joint]
    inner = base.quads[base.groups["body"]][_texture_mask("inside-mouth", base.groups["body"])]
    out[np.unique(inner)] = np.eye(5)[2]
    return out / out.sum(1, keepdims=True)


def _hairline_y(z: np.ndarray) -> np.ndarray:
    """Height above which a head's skin bears hair, by depth, in base.obj, m."""
    return np.interp(z, (-0.17, -0.15, -0.11, -0.068, -0.062, -0.03, 0.02, 0.06),
                     (-0.797, -0.797, -0.79, -0.76, -0.735, -0.705, -0.665, -0.65))  # fmt: skip


def _texture_mask(name: str, quads: np.ndarray) -> np.ndarray:
    """Quads that MakeHuman's mask ``mpfb_<name>.jpg`` marks, [q]."""
    import imageio.v3 as iio

    base = source.base_mesh()
    image = iio.imread(source.data_dir() / f"mpfb2/textures/mpfb_{name}.jpg")
    image = image if image.ndim == 2 else image[..., 0]
    uv = base.uvs[base.quad_uvs[quads]].mean(1)
    column = (uv[:, 0] * image.shape[1]).astype(int).clip(0, image.shape[1] - 1)
    row = (uv[:, 1] * image.shape[0]).astype(int).clip(0, image.shape[0] - 1)
    marked = image[row, column] > 100
    # the painted masks are not quite symmetric: what is marked on both sides counts
    corners = np.sort(base.quads[quads], 1)
    place = {tuple(c): i for i, c in enumerate(corners)}
    other = [place.get(tuple(c), i) for i, c in enumerate(np.sort(base.mirror[base.quads[quads]], 1))]
    return marked & marked[other]
