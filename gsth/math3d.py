"""Quaternions (wxyz), rigid transforms (wxyz + xyz) and camera conversions, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of wxyz quaternions, [..., 4]: first rotate by b, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )


def quat_conj(q: Tensor) -> Tensor:
    """Inverse of unit quaternions, [..., 4]."""
    return q * q.new_tensor((1.0, -1.0, -1.0, -1.0))


def quat_normalize(q: Tensor) -> Tensor:
    """Unit quaternions, [..., 4]."""
    return q / q.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def quat_identity(*batch: int, device: torch.device | str | None = None) -> Tensor:
    """Identity rotations, [*batch, 4]."""
    q = torch.zeros(*batch, 4, device=device)
    q[..., 0] = 1.0
    return q


def quat_to_mat(q: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] of any length but 0."""
    w, x, y, z = quat_normalize(q).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(r, -1) for r in rows], -2)


def mat_to_quat(m: Tensor) -> Tensor:
    """Unit quaternions [..., 4], w >= 0, of rotation matrices [..., 3, 3].

    Source: Shepperd 1978, the largest of the four candidates, so it is stable for every rotation.
    """
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    four = torch.stack((m00 + m11 + m22, m00 - m11 - m22, m11 - m00 - m22, m22 - m00 - m11), -1) + 1.0
    half = 0.5 * four.clamp_min(1e-12).sqrt()
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    q4 = 4.0 * half * half
    rows = (
        torch.stack((q4[..., 0], a, b, c), -1),
        torch.stack((a, q4[..., 1], d, e), -1),
        torch.stack((b, d, q4[..., 2], f), -1),
        torch.stack((c, e, f, q4[..., 3]), -1),
    )
    best = half.argmax(-1, keepdim=True)[..., None]
    q = torch.stack(rows, -2).gather(-2, best.expand(*best.shape[:-1], 4)).squeeze(-2)
    q = quat_normalize(q)
    return torch.where(q[..., :1] < 0, -q, q)


def rotvec_to_quat(v: Tensor) -> Tensor:
    """Unit quaternions [..., 4] of rotation vectors [..., 3], rad; differentiable at 0."""
    squared = (v * v).sum(-1, keepdim=True)
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    scale = torch.where(small, 0.5 - squared / 48, torch.sin(angle / 2) / angle)
    w = torch.where(small, 1 - squared / 8, torch.cos(angle / 2))
    return torch.cat((w, v * scale), -1)


def quat_to_rotvec(q: Tensor) -> Tensor:
    """Rotation vectors [..., 3], rad, angle at most pi, of unit quaternions [..., 4]."""
    q = torch.where(q[..., :1] < 0, -q, q)
    sin = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sin, q[..., :1])
    return q[..., 1:] * torch.where(sin < 1e-7, torch.full_like(sin, 2.0), angle / sin.clamp_min(1e-7))


def quat_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors [..., 3] rotated by unit quaternions [..., 4]."""
    u, w = q[..., 1:], q[..., :1]
    t = 2 * torch.linalg.cross(u, v, dim=-1)
    return v + w * t + torch.linalg.cross(u, t, dim=-1)


def quat_slerp(a: Tensor, b: Tensor, amount: Tensor | float) -> Tensor:
    """From unit quaternion a (amount 0) to b (amount 1) on the shorter way, [..., 4]."""
    return quat_mul(a, rotvec_to_quat(quat_to_rotvec(quat_mul(quat_conj(a), b)) * amount))


def mean_rotation(quats: Tensor) -> Tensor:
    """The mean [4] of unit quaternions [t 4]: largest eigenvector of sum q q^T (Markley et al. 2007); w >= 0."""
    mean = torch.linalg.eigh((quats.T @ quats).double())[1][:, -1].to(quats.dtype)
    return mean if mean[0] >= 0 else -mean


def mean_placement(T_a_b: Tensor) -> Tensor:
    """The mean [7] of rigid placements [t 7]: mean rotation, mean position."""
    return torch.cat((mean_rotation(T_a_b[:, :4]), T_a_b[:, 4:].mean(0)))


def transform_points(T_a_b: Tensor, points_b: Tensor) -> Tensor:
    """Points [..., 3] of frame b, seen from frame a."""
    return quat_rotate(T_a_b[..., :4], points_b) + T_a_b[..., 4:]


def transform_mul(T_a_b: Tensor, T_b_c: Tensor) -> Tensor:
    """T_a_c, [..., 7]."""
    return torch.cat((quat_mul(T_a_b[..., :4], T_b_c[..., :4]), transform_points(T_a_b, T_b_c[..., 4:])), -1)


def transform_inverse(T_a_b: Tensor) -> Tensor:
    """T_b_a, [..., 7]."""
    q = quat_conj(T_a_b[..., :4])
    return torch.cat((q, -quat_rotate(q, T_a_b[..., 4:])), -1)


def transform_to_mat(T_a_b: Tensor) -> Tensor:
    """Homogeneous matrices [..., 4, 4]."""
    m = torch.zeros(*T_a_b.shape[:-1], 4, 4, dtype=T_a_b.dtype, device=T_a_b.device)
    m[..., :3, :3] = quat_to_mat(T_a_b[..., :4])
    m[..., :3, 3] = T_a_b[..., 4:]
    m[..., 3, 3] = 1
    return m


def project(points_cam: Tensor, K: Tensor) -> Tensor:
    """Pixels [..., 2] of camera-frame points [..., 3] by intrinsic matrices [..., 3, 3], which are broadcast."""
    xy = points_cam[..., :2] / points_cam[..., 2:].clamp_min(1e-6)
    return xy * torch.stack((K[..., 0, 0], K[..., 1, 1]), -1) + K[..., :2, 2]


def look_at(eye: Tensor, target: Tensor, down: Tensor) -> Tensor:
    """World-to-camera matrix [4, 4] (OpenCV axes) of a camera at ``eye`` [3] that looks at ``target`` [3].

    Args:
        down: The world direction that should point down in the picture; (0, 1, 0) in the house frame.
    """
    z = torch.nn.functional.normalize(target - eye, dim=0)
    x = torch.nn.functional.normalize(torch.linalg.cross(down, z), dim=0)
    y = torch.linalg.cross(z, x)
    view = torch.eye(4, dtype=eye.dtype, device=eye.device)
    view[:3, :3] = torch.stack((x, y, z))
    view[:3, 3] = -view[:3, :3] @ eye
    return view


def orbit(target: Tensor, yaw_rad: float, pitch_rad: float = 0.0) -> Tensor:
    """World-to-camera matrix [4, 4] of the camera at the world's origin after it moved around ``target`` [3].

    Positive yaw moves it to the right in the picture (so the target's own left side comes into view for a face that
    looks into the camera), positive pitch upwards; it keeps its distance.
    """
    turn = quat_mul(
        rotvec_to_quat(target.new_tensor((pitch_rad, 0.0, 0.0))), rotvec_to_quat(target.new_tensor((0.0, yaw_rad, 0.0)))
    )
    view = torch.eye(4, dtype=target.dtype, device=target.device)
    view[:3, :3] = quat_to_mat(turn)
    view[:3, 3] = target - view[:3, :3] @ target
    return view
