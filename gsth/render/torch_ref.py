"""The definition of rendering, in plain torch: any device and dtype, differentiable in everything.

Conventions are those of gsplat's classic rasterizer (Ye et al., JMLR 2025): cameras look along +z with y down, pixel
centres lie at i + 0.5, quaternions are wxyz; EWA projection (Zwicker et al. 2002) with 0.3 px^2 added to the image
covariance, spherical harmonics up to degree 3 plus 0.5 and clamped at 0, blending front to back with alpha at most
0.99, contributions below 1/255 skipped, a pixel finished when its transmittance would fall to 1e-4. Antialiased,
opacities are multiplied by sqrt(det before / det after) of that addition (Yu et al. 2024, Mip-Splatting). Written to be
read and to be compared with, not to be fast; memory stays bounded by tiles and chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gsth import math3d
from gsth.errors import InputError
from gsth.types import Cameras, Mesh, Rendered, RiggedSplats, Splats

NEAR_M = 0.01
"""Splats whose centre is nearer than this are not drawn."""
DILATION_PX2 = 0.3
"""Added to the variances of a projected splat: the low-pass filter of EWA splatting."""
ALPHA_MIN = 1.0 / 255.0
ALPHA_MAX = 0.99
TRANSMITTANCE_MIN = 1e-4
_SHARE_MIN = 1e-30
"""Least share of its squared area that dilation may leave of a splat; it keeps the slope of the root finite."""
SSIM_SIGMA_PX = 1.5
SSIM_RADIUS_PX = 5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2

_TILE_PX = 32
_CHUNK = 1024

_SH_C0 = 0.28209479177387814
_SH_C1 = 0.4886025119029199
_SH_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
_SH_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


@dataclass(frozen=True, eq=False)
class Projected:
    """What one camera sees of the splats that it draws (m of n)."""

    ids: Tensor
    """Which splats, int64 [m]."""
    means2d: Tensor
    """Centres, px, [m 2]."""
    conics: Tensor
    """Inverse image covariance: xx, xy, yy, px^-2, [m 3]."""
    extents: Tensor
    """Half width and height of the box in which alpha reaches 1/255, px, [m 2]."""
    depths: Tensor
    """Camera z of the centres, m, [m]."""
    opacities: Tensor
    colors: Tensor
    """[m 3]."""


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on a device: it always can."""
    return None


def render(splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> Rendered:
    """Draw splats as the module's text defines it.

    Args:
        splats: n splats in the world frame.
        cameras: c pinhole cameras (skew is ignored).
        background: Colour behind everything, [3] or [h w 3].
        antialiased: Splats smaller than a pixel fade instead of growing to its size.

    Returns:
        Images of every camera; ``grad_px`` is filled when the loss is propagated back.

    Raises:
        InputError: A tensor holds values that are not finite; it is named.
    """
    named = {name: getattr(splats, name) for name in ("means", "quats", "scales", "opacities", "sh")}
    for name, tensor in (named | {"viewmats": cameras.viewmats, "Ks": cameras.Ks, "background": background}).items():
        if not tensor.isfinite().all():
            raise InputError(f"{name}: holds values that are not finite")
    count, device = splats.means.shape[0], splats.means.device
    grad_px = torch.zeros(len(cameras.Ks), count, dtype=splats.means.dtype, device=device)
    views = []
    for view, (viewmat, K) in enumerate(zip(cameras.viewmats, cameras.Ks, strict=True)):
        seen = project(splats, viewmat, K, (cameras.width, cameras.height), antialiased)
        means2d = splats.means.new_zeros(count, 2).index_copy(0, seen.ids, seen.means2d)
        if means2d.requires_grad:
            means2d.register_hook(partial(_keep_norm, grad_px[view]))
        image = _blend(seen, means2d[seen.ids], cameras.width, cameras.height, background)
        radii_px = seen.extents.new_zeros(count).index_copy(0, seen.ids, seen.extents.amax(-1))
        views.append((*image, means2d, radii_px))
    rgb, alpha, depth, means2d, radii_px = (torch.stack(parts) for parts in zip(*views, strict=True))
    return Rendered(rgb=rgb, alpha=alpha, depth=depth, means2d=means2d, radii_px=radii_px, grad_px=grad_px)


def _keep_norm(kept: Tensor, grad: Tensor | None) -> None:
    if grad is not None:
        kept.copy_(grad.norm(dim=-1))


def project(
    splats: Splats, viewmat: Tensor, K: Tensor, size_px: tuple[int, int], antialiased: bool = False
) -> Projected:
    """Splats as one camera sees them, without those that cannot touch its image.

    Args:
        splats: In the world frame.
        viewmat: World to camera, rigid, [4 4].
        K: Intrinsics, px, [3 3].
        size_px: Width and height of the image.
        antialiased: As in ``render``.
    """
    width, height = size_px
    rotation = viewmat[:3, :3]
    ids = (splats.means @ rotation[2] + viewmat[2, 3] >= NEAR_M).nonzero().squeeze(-1)
    means_cam = splats.means[ids] @ rotation.T + viewmat[:3, 3]
    axes = rotation @ math3d.quat_to_mat(splats.quats[ids]) * splats.scales[ids, None, :]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x, y, z = means_cam.unbind(-1)
    means2d = torch.stack((fx * x / z + cx, fy * y / z + cy), -1)
    # Far outside the image the linearisation of the projection explodes; gsplat holds it at 15 % beyond the border.
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    x = z * (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    y = z * (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack((fx / z, zero, -fx * x / z**2, zero, fy / z, -fy * y / z**2), -1).reshape(-1, 2, 3)
    half = jacobian @ axes
    cov = half @ half.mT
    xx, xy, yy = cov[:, 0, 0] + DILATION_PX2, cov[:, 0, 1], cov[:, 1, 1] + DILATION_PX2
    det = xx * yy - xy * xy
    opacities = splats.opacities[ids]
    if antialiased:
        # The determinant before dilation; as a cross product it does not cancel for thin splats.
        sharp_det = torch.linalg.cross(half[:, 0], half[:, 1]).square().sum(-1)
        opacities = opacities * (sharp_det / det).clamp_min(_SHARE_MIN).sqrt()
    with torch.no_grad():
        reach = 2 * torch.log((opacities / ALPHA_MIN).clamp_min(1.0))
        extents = torch.sqrt(reach[:, None] * torch.stack((xx, yy), -1))
        size = means2d.new_tensor(size_px)
        inside = ((means2d + extents > 0) & (means2d - extents < size)).all(-1)
        drawn = (inside & (reach > 0) & (det > 0) & det.isfinite()).nonzero().squeeze(-1)
    conics = torch.stack((yy, -xy, xx), -1)[drawn] / det[drawn, None]
    directions = (means_cam @ rotation)[drawn]
    colors = (sh_colors(splats.sh[ids[drawn]], directions) + 0.5).clamp_min(0.0)
    return Projected(ids[drawn], means2d[drawn], conics, extents[drawn], means_cam[drawn, 2], opacities[drawn], colors)


def sh_colors(sh: Tensor, directions: Tensor) -> Tensor:
    """Sum of real spherical harmonics, without the 0.5, [n 3].

    Args:
        sh: Coefficients, [n k 3] with k 1, 4, 9 or 16.
        directions: From the camera to the splats, world frame, any length, [n 3].
    """
    bases = sh.shape[1]
    if bases not in (1, 4, 9, 16):
        raise InputError(f"sh: want 1, 4, 9 or 16 bases (degree 0 to 3), got {bases}")
    color = _SH_C0 * sh[:, 0]
    if bases == 1:
        return color
    x, y, z = F.normalize(directions, dim=-1)[..., None].unbind(-2)
    color = color + _SH_C1 * (-y * sh[:, 1] + z * sh[:, 2] - x * sh[:, 3])
    if bases == 4:
        return color
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    second = (xy, yz, 2 * zz - xx - yy, xz, xx - yy)
    color = color + sum(c * basis * sh[:, 4 + i] for i, (c, basis) in enumerate(zip(_SH_C2, second, strict=True)))
    if bases == 9:
        return color
    third = (
        y * (3 * xx - yy),
        xy * z,
        y * (4 * zz - xx - yy),
        z * (2 * zz - 3 * xx - 3 * yy),
        x * (4 * zz - xx - yy),
        z * (xx - yy),
        x * (xx - 3 * yy),
    )
    return color + sum(c * basis * sh[:, 9 + i] for i, (c, basis) in enumerate(zip(_SH_C3, third, strict=True)))


def _blend(seen: Projected, means2d: Tensor, width: int, height: int, background: Tensor) -> tuple[Tensor, ...]:
    """rgb [h w 3], alpha [h w] and expected depth [h w]."""
    order = torch.sort(seen.depths.detach(), stable=True).indices
    features = torch.cat((seen.colors, seen.depths[:, None]), -1)
    splats = torch.cat((means2d, seen.conics, seen.opacities[:, None], features), -1)[order]
    low, high = (means2d - seen.extents).detach()[order], (means2d + seen.extents).detach()[order]
    rows = []
    for top in range(0, height, _TILE_PX):
        bottom, row = min(top + _TILE_PX, height), []
        for left in range(0, width, _TILE_PX):
            right = min(left + _TILE_PX, width)
            touch = (low[:, 0] < right) & (high[:, 0] > left) & (low[:, 1] < bottom) & (high[:, 1] > top)
            ys = torch.arange(top, bottom, dtype=splats.dtype, device=splats.device) + 0.5
            xs = torch.arange(left, right, dtype=splats.dtype, device=splats.device) + 0.5
            pixels = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(-1, 2)
            row.append(_blend_tile(pixels, splats[touch]).reshape(bottom - top, right - left, 5))
        rows.append(torch.cat(row, 1))
    rgb, depth, left_over = torch.cat(rows, 0).split((3, 1, 1), -1)
    alpha = 1 - left_over
    return rgb + left_over * background, alpha[..., 0], (depth / alpha.clamp_min(1e-10))[..., 0]


def _blend_tile(pixels: Tensor, splats: Tensor) -> Tensor:
    """Sum of weighted rgb and depth, then the remaining transmittance, [p 5]."""
    state = pixels.new_zeros(len(pixels), 5)
    state[:, 4] = 1
    reached = torch.ones_like(pixels[:, 0])
    if len(splats) == 0:
        return state + splats.sum()  # adds 0, and keeps the graph whole
    for chunk in splats.split(_CHUNK):
        if torch.is_grad_enabled() and splats.requires_grad:
            state, reached = checkpoint(_blend_chunk, pixels, chunk, state, reached, use_reentrant=False)
        else:
            state, reached = _blend_chunk(pixels, chunk, state, reached)
    return state


def _blend_chunk(pixels: Tensor, splats: Tensor, state: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Adds some more splats behind what ``state`` holds.

    ``reached`` [p] is the transmittance as if no pixel ever stopped: it only falls, so a pixel has stopped where it is
    at most TRANSMITTANCE_MIN.
    """
    dx, dy = (pixels[:, None, :] - splats[:, :2]).unbind(-1)
    a, b, c, opacity = splats[:, 2:6].unbind(-1)
    power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
    alpha = (opacity * torch.exp(power)).clamp_max(ALPHA_MAX)
    with torch.no_grad():
        seen = alpha >= ALPHA_MIN
        falling = reached[:, None] * torch.where(seen, 1 - alpha, 1).cumprod(-1)
        seen = seen & (falling > TRANSMITTANCE_MIN)
    alpha = torch.where(seen, alpha, 0)
    after = state[:, 4:] * (1 - alpha).cumprod(-1)
    weights = torch.cat((state[:, 4:], after[:, :-1]), -1) * alpha
    return torch.cat((state[:, :4] + weights @ splats[:, 6:], after[:, -1:]), -1), falling[:, -1]


def triangle_frames(verts: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The frames that carry rigged splats (Qian et al. 2024, GaussianAvatars).

    Args:
        verts: [v 3], m.
        faces: [f 3], int64.

    Returns:
        Origins [f 3] (centroids); rotations [f 4] whose columns are the first edge, the normal, and their cross
        product; sizes [f]: mean of the first edge's length and the height over it, m.
    """
    a, b, c = verts[faces].unbind(-2)
    edge, other = b - a, c - a
    first = F.normalize(edge, dim=-1)
    normal = F.normalize(torch.linalg.cross(edge, other, dim=-1), dim=-1)
    third = torch.linalg.cross(first, normal, dim=-1)
    size = 0.5 * ((edge * first).sum(-1) + (other * third).sum(-1).abs())
    quats = math3d.mat_to_quat(torch.stack((first, normal, third), -1))
    return (a + b + c) / 3, quats, size


def rig(splats: RiggedSplats, mesh: Mesh) -> Splats:
    """Carry splats from their triangles into the world.

    Args:
        splats: n splats in triangle frames.
        mesh: One frame.

    Returns:
        Activated splats, differentiable in the vertices and in every parameter.
    """
    origins, rotations, sizes = (part[splats.face_ids] for part in triangle_frames(mesh.verts[0], mesh.faces))
    offsets = math3d.quat_rotate(rotations, splats.means_tri)
    return Splats(
        means=origins + sizes[:, None] * offsets,
        quats=math3d.quat_mul(rotations, splats.quats_tri),
        scales=sizes[:, None] * torch.exp(splats.log_scales),
        opacities=torch.sigmoid(splats.logit_opacities),
        sh=splats.sh,
    )


def l1_ssim_loss(image: Tensor, target: Tensor, weight_map: Tensor | None, ssim_weight: float) -> Tensor:
    """Weighted mean over pixels and channels of (1 - s) |image - target| + s (1 - SSIM), s = ssim_weight.

    SSIM is that of Wang et al. 2004 as 3D Gaussian Splatting uses it: 11 x 11 gaussian window, sigma 1.5 px, zero
    beyond the border, values in 0 to 1.

    Args:
        image: [h w 3].
        target: [h w 3].
        weight_map: [h w], not negative, or None for ones; the mean divides by its sum.
        ssim_weight: 0 to 1.
    """
    offsets = torch.arange(-SSIM_RADIUS_PX, SSIM_RADIUS_PX + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-0.5 * (offsets / SSIM_SIGMA_PX) ** 2)
    window = (window / window.sum()).expand(3, 1, 1, -1)

    def blur(planes: Tensor) -> Tensor:
        rows = F.conv2d(planes, window, padding=(0, SSIM_RADIUS_PX), groups=3)
        return F.conv2d(rows, window.mT, padding=(SSIM_RADIUS_PX, 0), groups=3)

    x, y = image.movedim(-1, 0), target.movedim(-1, 0)
    mean_x, mean_y, square, product = blur(torch.stack((x, y, x * x + y * y, x * y)))
    mean_squares, mean_product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    luminance = (2 * mean_product + SSIM_C1) / (mean_squares + SSIM_C1)
    contrast = (2 * (product - mean_product) + SSIM_C2) / (square - mean_squares + SSIM_C2)
    per_pixel = ((1 - ssim_weight) * (x - y).abs() + ssim_weight * (1 - luminance * contrast)).mean(0)
    if weight_map is None:
        return per_pixel.mean()
    return (per_pixel * weight_map).sum() / weight_map.sum().clamp_min(math.ulp(1.0))
