// Splats in triangle frames to the world and back (gsth/render/torch_ref.py: triangle_frames, rig).
#include <omp.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "kernels.h"

namespace {

struct V3 {
    float x, y, z;
};

inline V3 operator+(V3 a, V3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline V3 operator-(V3 a, V3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline V3 operator*(float s, V3 a) { return {s * a.x, s * a.y, s * a.z}; }
inline float dot(V3 a, V3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline V3 cross(V3 a, V3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
inline V3 at(const float* p, int64_t i) { return {p[3 * i], p[3 * i + 1], p[3 * i + 2]}; }
inline void put(float* p, int64_t i, V3 a) { p[3 * i] = a.x, p[3 * i + 1] = a.y, p[3 * i + 2] = a.z; }
inline float length(V3 a) { return std::sqrt(dot(a, a)); }
inline V3 unit(V3 a) { return (1.f / std::fmax(length(a), 1e-12f)) * a; }

struct Quat {
    float w, x, y, z;
};

inline Quat operator*(Quat a, Quat b) {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}

inline Quat quat_at(const float* p, int64_t i) { return {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]}; }
inline void put(float* p, int64_t i, Quat q) {
    p[4 * i] = q.w, p[4 * i + 1] = q.x, p[4 * i + 2] = q.y, p[4 * i + 3] = q.z;
}

// Columns a, b, c of a rotation to a unit quaternion with w >= 0 (Shepperd 1978).
inline Quat quat_of(V3 a, V3 b, V3 c) {
    const float four[4] = {1 + a.x + b.y + c.z, 1 + a.x - b.y - c.z, 1 - a.x + b.y - c.z, 1 - a.x - b.y + c.z};
    int best = 0;
    for (int i = 1; i < 4; ++i)
        if (four[i] > four[best]) best = i;
    const float x = b.z - c.y, y = c.x - a.z, z = a.y - b.x, d = b.x + a.y, e = c.x + a.z, f = c.y + b.z, m = four[best];
    const Quat rows[4] = {{m, x, y, z}, {x, m, d, e}, {y, d, m, f}, {z, e, f, m}};
    const Quat q = rows[best];
    const float norm = std::sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
    const float s = (q.w < 0 ? -1.f : 1.f) / std::fmax(norm, 1e-12f);
    return {s * q.w, s * q.x, s * q.y, s * q.z};
}

struct Frame {
    V3 origin, a0, a1, a2, e1;  // centroid; first edge, normal and their cross product; second edge
    float edge, height, size;
    Quat q;

    V3 turn(V3 v) const { return v.x * a0 + v.y * a1 + v.z * a2; }
    V3 turn_back(V3 v) const { return {dot(v, a0), dot(v, a1), dot(v, a2)}; }
};

inline Frame frame_of(const GsthRigged& r, int64_t face) {
    const V3 a = at(r.verts, r.faces[3 * face]), b = at(r.verts, r.faces[3 * face + 1]),
             c = at(r.verts, r.faces[3 * face + 2]);
    Frame f;
    const V3 e0 = b - a;
    f.e1 = c - a;
    f.origin = (1.f / 3.f) * (a + b + c);
    f.edge = length(e0), f.a0 = unit(e0), f.a1 = unit(cross(e0, f.e1)), f.a2 = cross(f.a0, f.a1);
    f.height = std::fabs(dot(f.e1, f.a2)), f.size = 0.5f * (dot(e0, f.a0) + f.height);
    f.q = quat_of(f.a0, f.a1, f.a2);
    return f;
}

inline float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }

inline bool in_range(const GsthRigged& r, int64_t face) {
    if (face < 0 || face >= r.faces_count) return false;
    for (int c = 0; c < 3; ++c)
        if (r.faces[3 * face + c] < 0 || r.faces[3 * face + c] >= r.verts_count) return false;
    return true;
}

// What the splats of one triangle pass on to its frame.
struct FrameGrad {
    V3 origin{}, spin{};  // spin: by a small rotation of the frame about the world's axes
    float size = 0;
};

inline void splat_backward(const GsthRigged& r, const GsthRigGrads& g, const Frame& f, int64_t i, FrameGrad& sum) {
    const V3 v_mean = at(g.v_means, i), offset = f.turn(at(r.means_tri, i));
    sum.origin = sum.origin + v_mean;
    sum.spin = sum.spin + f.size * cross(offset, v_mean);
    sum.size += dot(v_mean, offset);
    put(g.means_tri, i, f.size * f.turn_back(v_mean));
    const Quat v = quat_at(g.v_quats, i), q = f.q * quat_at(r.quats_tri, i);
    const Quat back{f.q.w, -f.q.x, -f.q.y, -f.q.z};
    put(g.quats_tri, i, back * v);
    sum.spin = sum.spin + 0.5f * V3{-v.w * q.x + v.x * q.w - v.y * q.z + v.z * q.y,
                                    -v.w * q.y + v.x * q.z + v.y * q.w - v.z * q.x,
                                    -v.w * q.z - v.x * q.y + v.y * q.x + v.z * q.w};
    for (int j = 0; j < 3; ++j) {
        const float along = g.v_scales[3 * i + j] * std::exp(r.log_scales[3 * i + j]);
        sum.size += along;
        g.log_scales[3 * i + j] = along * f.size;
    }
    const float opacity = sigmoid(r.logit_opacities[i]);
    g.logit_opacities[i] = g.v_opacities[i] * opacity * (1.f - opacity);
}

// A frame's gradient to the triangle's corners [3 3]. An edge moves the frame by turning a0 towards a1 and a2; the
// other edge by turning the normal about a0. Triangles without area pass nothing on.
inline void frame_backward(const Frame& f, const FrameGrad& g, float* corners) {
    V3 v_e0{}, v_e1{};
    if (f.edge > 1e-12f && f.height > 1e-12f) {
        const float along = dot(f.e1, f.a0) / f.edge;
        const float s0 = dot(g.spin, f.a0) / f.height, s1 = dot(g.spin, f.a1) / f.edge, s2 = dot(g.spin, f.a2) / f.edge;
        const float v_size = 0.5f * g.size;
        v_e0 = v_size * (f.a0 + along * f.a2) + (s2 - s0 * along) * f.a1 - s1 * f.a2;
        v_e1 = s0 * f.a1 - v_size * f.a2;
    }
    const V3 share = (1.f / 3.f) * g.origin;
    put(corners, 0, share - v_e0 - v_e1), put(corners, 1, share + v_e0), put(corners, 2, share + v_e1);
}

}  // namespace

namespace gsth {

bool rig(const GsthRigged& r, float* means, float* quats, float* scales, float* opacities, int threads) {
    bool good = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : good)
    for (int64_t i = 0; i < r.n; ++i) {
        if (!in_range(r, r.face_ids[i])) {
            good = false;
            continue;
        }
        const Frame f = frame_of(r, r.face_ids[i]);
        put(means, i, f.origin + f.size * f.turn(at(r.means_tri, i)));
        put(quats, i, f.q * quat_at(r.quats_tri, i));
        for (int j = 0; j < 3; ++j) scales[3 * i + j] = f.size * std::exp(r.log_scales[3 * i + j]);
        opacities[i] = sigmoid(r.logit_opacities[i]);
    }
    return good;
}

void rig_backward(const GsthRigged& r, const GsthRigGrads& g, int threads) {
    // Splats grouped by face, so that every sum has one owner and one order.
    const std::unique_ptr<int32_t[]> firsts(new int32_t[r.faces_count + 2]()), members(new int32_t[r.n + 1]);
    const std::unique_ptr<float[]> corners(new float[9 * r.faces_count + 1]);
    for (int64_t i = 0; i < r.n; ++i) ++firsts[r.face_ids[i] + 2];
    for (int64_t f = 0; f < r.faces_count; ++f) firsts[f + 2] += firsts[f + 1];
    for (int64_t i = 0; i < r.n; ++i) members[firsts[r.face_ids[i] + 1]++] = int32_t(i);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 256)
    for (int64_t face = 0; face < r.faces_count; ++face) {
        if (firsts[face] == firsts[face + 1]) continue;
        const Frame f = frame_of(r, face);
        FrameGrad sum;
        for (int32_t k = firsts[face]; k < firsts[face + 1]; ++k) splat_backward(r, g, f, members[k], sum);
        frame_backward(f, sum, corners.get() + 9 * face);
    }
    std::memset(g.verts, 0, size_t(r.verts_count) * 3 * sizeof(float));
    for (int64_t face = 0; face < r.faces_count; ++face)
        if (firsts[face] < firsts[face + 1])
            for (int c = 0; c < 3; ++c)
                for (int j = 0; j < 3; ++j) g.verts[3 * r.faces[3 * face + c] + j] += corners[9 * face + 3 * c + j];
}

}  // namespace gsth
