// One splat's arithmetic, host and device: projection (EWA splatting) and spherical harmonics, forward and backward.
// Real is float, or a SIMD vector of floats with the helpers of cpu/simd.h (select, root, larger, smaller, log2_of).
// The definition that this must match is gsth/render/torch_ref.py.
#pragma once

#if defined(__CUDACC__)
#define GSTH_INLINE __host__ __device__ __forceinline__
#else
#define GSTH_INLINE inline __attribute__((always_inline))
#endif

namespace gsth {

constexpr float kNear = 0.01f;         // m
constexpr float kDilation = 0.3f;      // px^2
constexpr float kAlphaMax = 0.99f;
constexpr float kTransmittanceMin = 1e-4f;
constexpr float kLog2AlphaMin = -7.9943534368588578f;  // log2(1 / 255)
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kHuge = 3e38f;

struct Camera {
    float R[9], t[3];  // world to camera
    float fx, fy, cx, cy, width, height;
    // The linearised projection is held beyond these slopes x/z, y/z.
    float low_x, high_x, low_y, high_y;
    bool antialiased;
};

GSTH_INLINE Camera make_camera(const float* viewmat, const float* K, int width, int height, bool antialiased) {
    Camera c;
    c.antialiased = antialiased;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) c.R[3 * i + j] = viewmat[4 * i + j];
        c.t[i] = viewmat[4 * i + 3];
    }
    c.fx = K[0], c.fy = K[4], c.cx = K[2], c.cy = K[5];
    c.width = float(width), c.height = float(height);
    const float margin_x = 0.15f * c.width / c.fx, margin_y = 0.15f * c.height / c.fy;
    c.low_x = -(c.cx / c.fx + margin_x), c.high_x = (c.width - c.cx) / c.fx + margin_x;
    c.low_y = -(c.cy / c.fy + margin_y), c.high_y = (c.height - c.cy) / c.fy + margin_y;
    return c;
}

template <class Real>
struct SplatIn {
    Real mean[3], quat[4], scale[3], log2_opacity;
};

template <class Real>
struct SplatOut {
    Real x, y, z;           // centre, px and m
    Real a, b, c;           // conic xx, xy, yy
    Real extent_x, extent_y;
    Real cov_xx, cov_xy, cov_yy, det;
    Real log2_opacity;      // compensated where the camera is antialiased
    Real drawn;             // 1 or 0
};

// Steps between the inputs and the image covariance that the backward pass needs again.
template <class Real>
struct Steps {
    Real p[3], inv_z, u, v;   // camera-frame centre, 1 / z, clamped slopes
    Real q[4], inv_q;         // unit quaternion, 1 / length
    Real M[9], B[9];          // rotation of the splat, and seen from the camera
    Real h0[3], h1[3];        // rows of (Jacobian * B * scale)
};

constexpr float kShareMin = 1e-30f;

// Determinant of the image covariance before dilation: as a cross product it does not cancel for thin splats.
template <class Real>
GSTH_INLINE Real sharp_det(const Steps<Real>& s) {
    const Real x = s.h0[1] * s.h1[2] - s.h0[2] * s.h1[1], y = s.h0[2] * s.h1[0] - s.h0[0] * s.h1[2],
               z = s.h0[0] * s.h1[1] - s.h0[1] * s.h1[0];
    return x * x + y * y + z * z;
}

template <class Real>
GSTH_INLINE void rotation_of(const Real q[4], Real M[9]) {
    const Real w = q[0], x = q[1], y = q[2], z = q[3];
    M[0] = 1.f - 2.f * (y * y + z * z), M[1] = 2.f * (x * y - w * z), M[2] = 2.f * (x * z + w * y);
    M[3] = 2.f * (x * y + w * z), M[4] = 1.f - 2.f * (x * x + z * z), M[5] = 2.f * (y * z - w * x);
    M[6] = 2.f * (x * z - w * y), M[7] = 2.f * (y * z + w * x), M[8] = 1.f - 2.f * (x * x + y * y);
}

template <class Real>
GSTH_INLINE void rotation_of_backward(const Real q[4], const Real v[9], Real g[4]) {
    const Real w = q[0], x = q[1], y = q[2], z = q[3];
    g[0] = 2.f * (z * (v[3] - v[1]) + y * (v[2] - v[6]) + x * (v[7] - v[5]));
    g[1] = 2.f * (y * (v[1] + v[3]) + z * (v[2] + v[6]) + w * (v[7] - v[5]) - 2.f * x * (v[4] + v[8]));
    g[2] = 2.f * (x * (v[1] + v[3]) + z * (v[5] + v[7]) + w * (v[2] - v[6]) - 2.f * y * (v[0] + v[8]));
    g[3] = 2.f * (x * (v[2] + v[6]) + y * (v[5] + v[7]) + w * (v[3] - v[1]) - 2.f * z * (v[0] + v[4]));
}

template <class Real>
GSTH_INLINE void project_steps(const Camera& cam, const SplatIn<Real>& in, Steps<Real>& s) {
    for (int i = 0; i < 3; ++i)
        s.p[i] = cam.R[3 * i] * in.mean[0] + cam.R[3 * i + 1] * in.mean[1] + cam.R[3 * i + 2] * in.mean[2] + cam.t[i];
    const Real near = s.p[2] * 0.f + kNear;
    s.inv_z = 1.f / larger(s.p[2], near);
    s.u = smaller(larger(s.p[0] * s.inv_z, near * 0.f + cam.low_x), near * 0.f + cam.high_x);
    s.v = smaller(larger(s.p[1] * s.inv_z, near * 0.f + cam.low_y), near * 0.f + cam.high_y);
    Real square = in.quat[0] * in.quat[0] + in.quat[1] * in.quat[1] + in.quat[2] * in.quat[2] + in.quat[3] * in.quat[3];
    s.inv_q = 1.f / larger(root(square), near * 0.f + 1e-12f);
    for (int i = 0; i < 4; ++i) s.q[i] = in.quat[i] * s.inv_q;
    rotation_of(s.q, s.M);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            s.B[3 * i + j] =
                cam.R[3 * i] * s.M[j] + cam.R[3 * i + 1] * s.M[3 + j] + cam.R[3 * i + 2] * s.M[6 + j];
    for (int j = 0; j < 3; ++j) {
        s.h0[j] = cam.fx * s.inv_z * (s.B[j] - s.u * s.B[6 + j]) * in.scale[j];
        s.h1[j] = cam.fy * s.inv_z * (s.B[3 + j] - s.v * s.B[6 + j]) * in.scale[j];
    }
}

template <class Real>
GSTH_INLINE SplatOut<Real> project(const Camera& cam, const SplatIn<Real>& in, Steps<Real>& s) {
    project_steps(cam, in, s);
    SplatOut<Real> out;
    const Real zero = s.inv_z * 0.f;
    const Real xx = s.h0[0] * s.h0[0] + s.h0[1] * s.h0[1] + s.h0[2] * s.h0[2] + kDilation;
    const Real xy = s.h0[0] * s.h1[0] + s.h0[1] * s.h1[1] + s.h0[2] * s.h1[2];
    const Real yy = s.h1[0] * s.h1[0] + s.h1[1] * s.h1[1] + s.h1[2] * s.h1[2] + kDilation;
    const Real det = xx * yy - xy * xy;
    const Real inv = 1.f / det;
    out.x = cam.fx * s.p[0] * s.inv_z + cam.cx, out.y = cam.fy * s.p[1] * s.inv_z + cam.cy, out.z = s.p[2];
    out.a = yy * inv, out.b = zero - xy * inv, out.c = xx * inv;
    out.cov_xx = xx, out.cov_xy = xy, out.cov_yy = yy, out.det = det;
    out.log2_opacity = in.log2_opacity;
    if (cam.antialiased)
        out.log2_opacity = out.log2_opacity + 0.5f * log2_of(larger(sharp_det(s) * inv, zero + kShareMin));
    const Real reach = larger(2.f * kLn2 * (out.log2_opacity - kLog2AlphaMin), zero);
    out.extent_x = root(reach * xx), out.extent_y = root(reach * yy);
    Real drawn = select(s.p[2] >= zero + kNear, zero + 1.f, zero);
    drawn = select(reach > zero, drawn, zero);
    drawn = select(det > zero, drawn, zero);
    drawn = select(det < zero + kHuge, drawn, zero);
    drawn = select(out.x + out.extent_x > zero, drawn, zero);
    drawn = select(out.y + out.extent_y > zero, drawn, zero);
    drawn = select(out.x - out.extent_x < zero + cam.width, drawn, zero);
    drawn = select(out.y - out.extent_y < zero + cam.height, drawn, zero);
    out.drawn = drawn;
    return out;
}

template <class Real>
struct SplatGrad {
    Real x, y, z, a, b, c;       // in: with respect to SplatOut
    Real log_opacity;            // in: with respect to the natural logarithm of SplatOut's opacity
    Real mean[3], quat[4], scale[3];
    Real p[3];                   // in and out: with respect to the camera-frame centre
    Real R[9];                   // in and out: with respect to the camera's rotation
};

// Adds to g.p and g.R, sets g.mean, g.quat, g.scale. a, b, c are the conic of the forward pass.
template <class Real>
GSTH_INLINE void project_backward(const Camera& cam, const SplatIn<Real>& in, const Steps<Real>& s, Real a, Real b,
                                  Real c, SplatGrad<Real>& g) {
    const Real half_b = 0.5f * g.b;
    const Real x00 = a * g.a + b * half_b, x01 = a * half_b + b * g.c;
    const Real x10 = b * g.a + c * half_b, x11 = b * half_b + c * g.c;
    Real v_xx = -(x00 * a + x01 * b), v_xy = -2.f * (x00 * b + x01 * c), v_yy = -(x10 * b + x11 * c);
    if (cam.antialiased) {
        // ln of the compensation is (ln sharp - ln det) / 2; a, b, c are yy / det, -xy / det, xx / det.
        const Real half = 0.5f * g.log_opacity, per_sharp = half / larger(sharp_det(s), a * 0.f + kShareMin);
        const Real xx = s.h0[0] * s.h0[0] + s.h0[1] * s.h0[1] + s.h0[2] * s.h0[2];
        const Real xy = s.h0[0] * s.h1[0] + s.h0[1] * s.h1[1] + s.h0[2] * s.h1[2];
        const Real yy = s.h1[0] * s.h1[0] + s.h1[1] * s.h1[1] + s.h1[2] * s.h1[2];
        v_xx = v_xx + per_sharp * yy - half * a;
        v_xy = v_xy - 2.f * (per_sharp * xy + half * b);
        v_yy = v_yy + per_sharp * xx - half * c;
    }
    const Real kx = cam.fx * s.inv_z, ky = cam.fy * s.inv_z;
    Real v_B[9], v_kx = kx * 0.f, v_ky = v_kx, v_u = v_kx, v_v = v_kx;
    for (int j = 0; j < 3; ++j) {
        const Real v_h0 = 2.f * v_xx * s.h0[j] + v_xy * s.h1[j], v_h1 = 2.f * v_yy * s.h1[j] + v_xy * s.h0[j];
        const Real e0 = s.B[j] - s.u * s.B[6 + j], e1 = s.B[3 + j] - s.v * s.B[6 + j];
        const Real v_e0 = kx * v_h0, v_e1 = ky * v_h1;  // of e * scale
        g.scale[j] = v_e0 * e0 + v_e1 * e1;
        v_kx = v_kx + v_h0 * e0 * in.scale[j], v_ky = v_ky + v_h1 * e1 * in.scale[j];
        v_u = v_u - v_e0 * s.B[6 + j] * in.scale[j], v_v = v_v - v_e1 * s.B[6 + j] * in.scale[j];
        v_B[j] = v_e0 * in.scale[j], v_B[3 + j] = v_e1 * in.scale[j];
        v_B[6 + j] = -(s.u * v_e0 + s.v * v_e1) * in.scale[j];
    }
    const Real zero = kx * 0.f;
    const Real slope_x = s.p[0] * s.inv_z, slope_y = s.p[1] * s.inv_z;
    v_u = select(slope_x == s.u, v_u, zero), v_v = select(slope_y == s.v, v_v, zero);
    // Centre: x = fx slope_x + cx. Slopes: p / z. Scale of the Jacobian: f / z.
    v_u = v_u + cam.fx * g.x, v_v = v_v + cam.fy * g.y;
    g.p[0] = g.p[0] + v_u * s.inv_z;
    g.p[1] = g.p[1] + v_v * s.inv_z;
    g.p[2] = g.p[2] + g.z - (v_u * slope_x + v_v * slope_y + v_kx * kx + v_ky * ky) * s.inv_z;
    Real v_M[9], v_q[4];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            v_M[3 * i + j] = cam.R[i] * v_B[j] + cam.R[3 + i] * v_B[3 + j] + cam.R[6 + i] * v_B[6 + j];
            g.R[3 * i + j] = g.R[3 * i + j] + g.p[i] * in.mean[j] + v_B[3 * i] * s.M[3 * j] +
                             v_B[3 * i + 1] * s.M[3 * j + 1] + v_B[3 * i + 2] * s.M[3 * j + 2];
        }
    rotation_of_backward(s.q, v_M, v_q);
    const Real along = s.q[0] * v_q[0] + s.q[1] * v_q[1] + s.q[2] * v_q[2] + s.q[3] * v_q[3];
    for (int i = 0; i < 4; ++i) g.quat[i] = (v_q[i] - s.q[i] * along) * s.inv_q;
    for (int j = 0; j < 3; ++j)
        g.mean[j] = cam.R[j] * g.p[0] + cam.R[3 + j] * g.p[1] + cam.R[6 + j] * g.p[2];
}

// Real spherical harmonics of a unit direction; bases is 1, 4, 9 or 16.
template <class Real>
GSTH_INLINE void sh_basis(int bases, Real x, Real y, Real z, Real* f) {
    f[0] = x * 0.f + 0.28209479177387814f;
    if (bases < 4) return;
    constexpr float c1 = 0.4886025119029199f;
    f[1] = -c1 * y, f[2] = c1 * z, f[3] = -c1 * x;
    if (bases < 9) return;
    const Real xx = x * x, yy = y * y, zz = z * z;
    f[4] = 1.0925484305920792f * x * y, f[5] = -1.0925484305920792f * y * z;
    f[6] = 0.31539156525252005f * (2.f * zz - xx - yy);
    f[7] = -1.0925484305920792f * x * z, f[8] = 0.5462742152960396f * (xx - yy);
    if (bases < 16) return;
    f[9] = -0.5900435899266435f * y * (3.f * xx - yy), f[10] = 2.890611442640554f * x * y * z;
    f[11] = -0.4570457994644658f * y * (4.f * zz - xx - yy);
    f[12] = 0.3731763325901154f * z * (2.f * zz - 3.f * xx - 3.f * yy);
    f[13] = -0.4570457994644658f * x * (4.f * zz - xx - yy), f[14] = 1.445305721320277f * z * (xx - yy);
    f[15] = -0.5900435899266435f * x * (xx - 3.f * yy);
}

// Gradient to the unit direction, given g[i] = loss gradient with respect to basis value i.
template <class Real>
GSTH_INLINE void sh_basis_backward(int bases, Real x, Real y, Real z, const Real* g, Real v[3]) {
    v[0] = v[1] = v[2] = x * 0.f;
    if (bases < 4) return;
    constexpr float c1 = 0.4886025119029199f, c2 = 1.0925484305920792f, c20 = 0.31539156525252005f,
                    c22 = 0.5462742152960396f;
    v[0] = -c1 * g[3], v[1] = -c1 * g[1], v[2] = c1 * g[2];
    if (bases < 9) return;
    v[0] = v[0] + c2 * (y * g[4] - z * g[7]) - 2.f * c20 * x * g[6] + 2.f * c22 * x * g[8];
    v[1] = v[1] + c2 * (x * g[4] - z * g[5]) - 2.f * c20 * y * g[6] - 2.f * c22 * y * g[8];
    v[2] = v[2] - c2 * (y * g[5] + x * g[7]) + 4.f * c20 * z * g[6];
    if (bases < 16) return;
    const Real xx = x * x, yy = y * y, zz = z * z, xy = x * y, xz = x * z, yz = y * z;
    const Real g9 = -0.5900435899266435f * g[9], g10 = 2.890611442640554f * g[10], g11 = -0.4570457994644658f * g[11];
    const Real g12 = 0.3731763325901154f * g[12], g13 = -0.4570457994644658f * g[13], g14 = 1.445305721320277f * g[14];
    const Real g15 = -0.5900435899266435f * g[15];
    v[0] = v[0] + 6.f * xy * g9 + yz * g10 - 2.f * xy * g11 - 6.f * xz * g12 + (4.f * zz - 3.f * xx - yy) * g13 +
           2.f * xz * g14 + 3.f * (xx - yy) * g15;
    v[1] = v[1] + 3.f * (xx - yy) * g9 + xz * g10 + (4.f * zz - xx - 3.f * yy) * g11 - 6.f * yz * g12 -
           2.f * xy * g13 - 2.f * yz * g14 - 6.f * xy * g15;
    v[2] = v[2] + xy * g10 + 8.f * yz * g11 + (6.f * zz - 3.f * xx - 3.f * yy) * g12 + 8.f * xz * g13 + (xx - yy) * g14;
}

}  // namespace gsth
