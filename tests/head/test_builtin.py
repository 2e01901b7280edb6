"""The built-in head: what its file promises."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from gsth import head, math3d
from gsth.errors import InputError
from gsth.head import HeadModel, _raster, landmark_groups
from gsth.head._arkit import ARKIT, mirrored
from gsth.types import HeadId, Identity, Motion

PARTS = (
    *("skin", "face", "forehead", "nose", "brows", "lids", "lips", "upper_lip", "lower_lip", "ears", "scalp", "neck"),
    *("bust", "mouth_inner", "teeth_upper", "teeth_lower", "tongue", "eye_l", "eye_r", "lashes", "hair_cap", "drape"),
)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return head.load("builtin")


def part_verts(model: HeadModel, part: str) -> torch.Tensor:
    return torch.unique(model.faces[model.parts[part]])


def with_expr(model: HeadModel, **values: float) -> torch.Tensor:
    """Neutral vertices [1 v 3] with some expressions."""
    e = torch.zeros(len(model.expression_names))
    for name, value in values.items():
        e[model.expression_names.index(name)] = value
    return (model.template + torch.einsum("e,evc->vc", e, model.expr_basis))[None]


def still(model: HeadModel, frames: int = 1) -> Motion:
    pose = torch.zeros(frames, 7)
    pose[:, 0] = 1
    quats = math3d.quat_identity(frames, len(head.JOINTS))
    return Motion(model.id, 25.0, torch.zeros(frames, len(model.expression_names)), quats, pose)


def average(model: HeadModel) -> Identity:
    return Identity(model.id, torch.zeros(len(model.shape_basis)))


def mirror_map(model: HeadModel) -> torch.Tensor:
    """For each vertex without a uv twin or hair: the vertex at its mirrored place."""
    flipped = model.template * torch.tensor((-1.0, 1.0, 1.0))
    return torch.cdist(flipped, model.template).argmin(1)


def test_shapes_agree(model: HeadModel) -> None:
    v, e, s = len(model.template), len(ARKIT), len(model.shape_basis)
    assert model.expression_names == ARKIT and e == 52
    assert model.expr_basis.shape == (e, v, 3) and model.shape_basis.shape == (s, v, 3)
    assert 80 <= s <= 110
    assert model.weights.shape == (v, len(head.JOINTS)) and model.uvs.shape == (v, 2)
    assert model.pivots.shape == (len(head.JOINTS), 3) and model.pivot_basis.shape == (s, len(head.JOINTS), 3)
    assert model.landmark_faces.shape == (landmark_groups.COUNT,)
    assert int(model.faces.max()) == v - 1 and int(model.faces.min()) == 0


def test_weights_are_a_partition(model: HeadModel) -> None:
    assert torch.allclose(model.weights.sum(1), torch.ones(len(model.weights)), atol=1e-5)
    assert float(model.weights.min()) >= 0
    assert (model.weights[part_verts(model, "eye_l"), 3] == 1).all()
    assert (model.weights[part_verts(model, "eye_r"), 4] == 1).all()
    for part in ("teeth_upper", "teeth_lower", "tongue"):
        assert (model.weights[part_verts(model, part), 2] == 1).all()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_triangles(model: HeadModel, part: str) -> None:
    ids = model.parts[part]
    assert len(ids) > 0 and int(ids.max()) < len(model.faces)
    assert len(torch.unique(ids)) == len(ids)


def test_parts_do_not_contradict(model: HeadModel) -> None:
    sets = {k: set(v.tolist()) for k, v in model.parts.items()}
    assert set(PARTS) == set(sets)
    assert sets["upper_lip"] | sets["lower_lip"] == sets["lips"]
    assert not sets["upper_lip"] & sets["lower_lip"]
    for a, b in (("face", "scalp"), ("face", "neck"), ("neck", "bust"), ("mouth_inner", "face"), ("scalp", "ears")):
        assert not sets[a] & sets[b], (a, b)
    tiles = ("face", "ears", "scalp", "neck", "bust", "mouth_inner")
    assert set().union(*(sets[t] for t in tiles)) == sets["skin"]


def test_frame_and_size_are_those_of_a_person(model: HeadModel) -> None:
    face, scalp = (model.template[part_verts(model, p)] for p in ("face", "scalp"))
    assert torch.allclose(model.pivots[1], torch.zeros(3), atol=1e-6)
    assert float(model.pivots[3, 0]) > 0.02 > float(model.pivots[4, 0])
    assert float(face[:, 2].min()) < float(model.pivots[2, 2]) - 0.08, "the face looks along -z"
    assert 0.19 < float(face[:, 1].max() - scalp[:, 1].min()) < 0.26, "chin to crown, y down"
    ball = model.template[part_verts(model, "eye_l")] - model.pivots[3]
    assert float(ball.norm(dim=1).max()) < 0.018


def test_triangles_face_outwards(model: HeadModel) -> None:
    corner = model.template[model.faces[model.parts["scalp"]]]
    normal = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    outward = ((corner.mean(1) - model.template[part_verts(model, "scalp")].mean(0)) * normal).sum(1)
    assert float((outward > 0).float().mean()) > 0.97


@pytest.mark.parametrize("name", [n for n in ARKIT if n.endswith("Left")])
def test_left_mirrors_right(model: HeadModel, name: str) -> None:
    other = mirrored(name)
    a, b = (model.expr_basis[ARKIT.index(n)] for n in (name, other))
    flip = torch.tensor((-1.0, 1.0, 1.0))
    # welded positions only: a uv twin is as good as the vertex itself
    bald = torch.unique(model.faces[model.parts["skin"]])
    error = (a[mirror_map(model)][bald] * flip - b[bald]).norm(dim=1)
    assert float(error.mean()) < 0.02 * float(b.norm(dim=1).max())


def test_left_is_the_persons_left(model: HeadModel) -> None:
    moved = model.expr_basis[ARKIT.index("eyeBlinkLeft")].norm(dim=1)
    assert float((model.template[:, 0] * moved).sum()) > 0


def test_jaw_takes_lower_teeth_and_tongue_only(model: HeadModel) -> None:
    moved = model.expr_basis[ARKIT.index("jawOpen")].norm(dim=1)
    assert float(moved[part_verts(model, "teeth_lower")].min()) > 0.003
    assert float(moved[part_verts(model, "tongue")].mean()) > 0.003
    assert float(moved[part_verts(model, "teeth_upper")].max()) == 0


def test_gaze_expressions_leave_the_eyeballs_to_their_joints(model: HeadModel) -> None:
    for name in (n for n in ARKIT if n.startswith("eyeLook")):
        moved = model.expr_basis[ARKIT.index(name)].norm(dim=1)
        assert float(moved[part_verts(model, "eye_l")].max()) == float(moved[part_verts(model, "eye_r")].max()) == 0
        if "Down" in name or "Up" in name:
            assert float(moved[part_verts(model, "lids")].max()) > 0.0005


def seen_from_front(model: HeadModel, verts: torch.Tensor, centre: torch.Tensor, half_m: float) -> dict[str, int]:
    """Pixels of each part in a 300 x 300 front view without hair and lashes."""
    hidden = torch.cat([model.parts[p] for p in ("hair_cap", "drape", "lashes")]).numpy()
    shown = np.setdiff1d(np.arange(len(model.faces)), hidden)
    cam = (verts - centre).numpy() + (0, 0, 0.6)
    K = np.array(((150 * 0.6 / half_m, 0, 150), (0, 150 * 0.6 / half_m, 150), (0, 0, 1)))
    seen = _raster.rasterize(cam, model.faces.numpy()[shown], K, (300, 300)).face_ids
    ids = shown[seen[seen >= 0]]
    return {name: int(np.isin(ids, part.numpy()).sum()) for name, part in model.parts.items()}


def test_lips_are_closed_at_rest_and_part_with_the_jaw(model: HeadModel) -> None:
    centre = model.template[part_verts(model, "lips")].mean(0)
    inside = ("teeth_upper", "teeth_lower", "tongue", "mouth_inner")
    rest = seen_from_front(model, model.template, centre, 0.03)
    wide = seen_from_front(model, with_expr(model, jawOpen=1.0)[0], centre, 0.03)
    assert rest["lips"] > 10000
    assert sum(rest[p] for p in inside) < 0.005 * rest["lips"]
    assert sum(wide[p] for p in inside) > 0.2 * rest["lips"]


def test_tongue_shows_when_it_is_out(model: HeadModel) -> None:
    centre = model.template[part_verts(model, "lips")].mean(0)
    ajar = seen_from_front(model, with_expr(model, jawOpen=0.4)[0], centre, 0.03)
    out = seen_from_front(model, with_expr(model, jawOpen=0.4, tongueOut=1.0)[0], centre, 0.03)
    assert out["tongue"] > 1.2 * ajar["tongue"]
    tip = with_expr(model, tongueOut=1.0)[0, part_verts(model, "tongue"), 2].min()
    assert float(tip) < float(model.template[part_verts(model, "teeth_upper"), 2].min())


@pytest.mark.parametrize(("side", "upper", "lower"), [("Left", 386, 374), ("Right", 159, 145)])
def test_blink_shuts_the_eye(model: HeadModel, side: str, upper: int, lower: int) -> None:
    eye = f"eye_{side[0].lower()}"
    centre = model.template[part_verts(model, eye)].mean(0)
    wide = seen_from_front(model, model.template, centre, 0.02)[eye]
    shut = with_expr(model, **{f"eyeBlink{side}": 1.0})
    assert wide > 3000
    assert seen_from_front(model, shut[0], centre, 0.02)[eye] < 0.01 * wide
    gap_wide, gap_shut = (
        float(points[0, lower, 1] - points[0, upper, 1])
        for points in (model.landmarks(model.template[None]), model.landmarks(shut))
    )
    assert gap_wide > 0.006
    assert abs(gap_shut) < 0.15 * gap_wide


def test_identity_directions_hold_no_rigid_motion_or_scale(model: HeadModel) -> None:
    """After the explicit ones, no direction may move or scale the face as a whole."""
    ids = part_verts(model, "face")
    arm = model.template[ids] - model.template[ids].mean(0)
    fields = model.shape_basis[7:, ids]
    spread = fields.norm(dim=2).square().mean(1).sqrt()
    assert float((fields.mean(1).norm(dim=1) / spread).mean()) < 0.4
    scale = (fields * arm).sum((1, 2)) / arm.square().sum()
    assert float(scale.abs().max()) < 0.02


def test_embedding_lies_where_its_names_say(model: HeadModel) -> None:
    points = model.landmarks(model.template[None])[0]
    assert torch.allclose(model.landmark_bary.sum(1), torch.ones(landmark_groups.COUNT), atol=1e-4)
    assert float(model.landmark_bary.min()) >= -1e-4
    on = model.landmark_faces.tolist()
    sets = {k: set(v.tolist()) for k, v in model.parts.items()}
    for name, part in (("lips_inner_upper", "upper_lip"), ("lips_inner_lower", "lower_lip")):
        assert all(on[i] in sets[part] for i in landmark_groups.GROUPS[name][1:-1]), name
    assert all(on[i] in sets["eye_r"] for i in landmark_groups.IRIS_R)
    assert all(on[i] in sets["eye_l"] for i in landmark_groups.IRIS_L)
    assert points[10, 1] < points[1, 1] < points[13, 1] <= points[152, 1], "forehead, nose, lip, chin: y is down"
    assert points[33, 0] < points[133, 0] < points[362, 0] < points[263, 0]
    assert 0.08 < float((points[263] - points[33]).norm()) < 0.11


def test_embedding_is_symmetric(model: HeadModel) -> None:
    points = model.landmarks(model.template[None])[0]
    named = landmark_groups.GROUPS
    for right, left in (("eye_r_upper", "eye_l_upper"), ("eye_r_lower", "eye_l_lower")):
        mirrored_left = points[list(named[left])[::-1]] * torch.tensor((-1.0, 1.0, 1.0))
        assert float((points[list(named[right])] - mirrored_left).norm(dim=1).max()) < 0.001
    lips = points[list(landmark_groups.LIPS_OUTER_UPPER)]
    assert float((lips - lips.flip(0) * torch.tensor((-1.0, 1.0, 1.0))).norm(dim=1).max()) < 0.001


def test_inner_lip_landmarks_part_with_the_jaw(model: HeadModel) -> None:
    rest, wide = model.landmarks(model.template[None])[0], model.landmarks(with_expr(model, jawOpen=1.0))[0]
    pairs = zip(landmark_groups.LIPS_INNER_UPPER[2:-2], landmark_groups.LIPS_INNER_LOWER[2:-2], strict=True)
    for upper, lower in pairs:
        assert float((rest[upper] - rest[lower]).norm()) < 0.005
        assert float(wide[lower, 1] - wide[upper, 1]) > 0.01


def test_posed_is_differentiable_and_right_at_rest(model: HeadModel) -> None:
    motion = still(model, 2)
    expr, pose = motion.expr.clone().requires_grad_(), motion.T_world_head.clone().requires_grad_()
    joints = motion.joints.clone().requires_grad_()
    mesh = model.shaped(average(model)).posed(motion.replace(expr=expr, joints=joints, T_world_head=pose))
    assert torch.allclose(mesh.verts[1], model.template, atol=1e-6)
    (mesh.verts**2).sum().backward()
    for grad in (expr.grad, pose.grad, joints.grad):
        assert grad is not None and torch.isfinite(grad).all() and float(grad.abs().max()) > 0


def test_head_joint_turns_the_skull_and_leaves_the_bust(model: HeadModel) -> None:
    motion = still(model)
    quats = motion.joints.clone()
    quats[0, 2] = math3d.rotvec_to_quat(torch.tensor((0.0, 0.5, 0.0)))
    verts = model.shaped(average(model)).posed(motion.replace(joints=quats)).verts[0]
    moved = (verts - model.template).norm(dim=1)
    assert float(moved[part_verts(model, "nose")].min()) > 0.03
    assert float(moved[part_verts(model, "bust")].median()) < 1e-4
    drape = part_verts(model, "drape")
    height = model.template[drape, 1]
    assert float(moved[drape][height <= height.quantile(0.05)].mean()) > 0.03
    assert float(moved[drape][height > height.quantile(0.9)].max()) < 1e-3


def test_hair_carriers_stay_off_the_face(model: HeadModel) -> None:
    face = model.template[part_verts(model, "nose")]
    drape = model.template[part_verts(model, "drape")]
    assert float(torch.cdist(drape, face).min()) > 0.03
    cap = model.template[part_verts(model, "hair_cap")]
    gap = torch.cdist(cap, model.template[part_verts(model, "scalp")]).min(1).values
    assert float(gap.min()) > 0.002 and float(gap.median()) > 0.006 and float(gap.max()) < 0.015


def test_other_heads_data_are_refused(model: HeadModel) -> None:
    other = HeadId("flame", "2020", "0" * 16)
    with pytest.raises(InputError, match="flame"):
        model.shaped(average(model).replace(head=other))
    with pytest.raises(InputError, match="flame"):
        model.shaped(average(model)).posed(still(model).replace(head=other))
    with pytest.raises(InputError, match="installed"):
        head.load(HeadId("builtin", "1", "0" * 16))


def test_loads_fast_and_once() -> None:
    from gsth.head import builtin

    builtin._load.cache_clear()
    start = time.perf_counter()
    first = head.load()
    took = time.perf_counter() - start
    assert head.load() is first
    assert took < 2.0, "0.1 s on an idle core"


@pytest.mark.slow
def test_detector_agrees_with_the_embedding(model: HeadModel) -> None:
    """Detect on a drawn head; the embedding projects to what was detected."""
    face_mesh = pytest.importorskip("mediapipe.python.solutions.face_mesh")
    bald = np.setdiff1d(np.arange(len(model.faces)), torch.cat((model.parts["hair_cap"], model.parts["drape"])).numpy())
    faces = model.faces.numpy()[bald]
    cam = model.template.numpy() - (0, -0.11, -0.06) + (0, 0, 0.75)
    K = np.array(((1500.0, 0, 320), (0, 1500, 320), (0, 0, 1)))
    image = _raster.shade(cam, faces, _raster.rasterize(cam, faces, K, (640, 640)), np.full((len(faces), 3), 0.75))
    with face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as net:
        found = net.process(image).multi_face_landmarks
    assert found
    px = np.array([(p.x, p.y) for p in found[0].landmark]) * 640
    points = model.landmarks(torch.from_numpy(cam)[None].float())[0].numpy()
    miss = np.linalg.norm(points[:, :2] / points[:, 2:] * 1500 + 320 - px, axis=1)
    apart = np.linalg.norm(px[33] - px[263])
    assert miss.mean() < 0.03 * apart
    assert miss[list(landmark_groups.GROUPS["lips"])].mean() < 0.03 * apart
