// One splat's and one triangle's arithmetic of the rig: triangle frames, splats carried by them, and the way back.
// The definition that this must match is gsth/render/torch_ref.py (triangle_frames, rig).
#pragma once
#include "common.cuh"

namespace gsth {

struct V3 {
    float x, y, z;
};

__device__ __forceinline__ V3 operator+(V3 a, V3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
__device__ __forceinline__ V3 operator-(V3 a, V3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
__device__ __forceinline__ V3 operator*(float s, V3 a) { return {s * a.x, s * a.y, s * a.z}; }
__device__ __forceinline__ float dot(V3 a, V3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
__device__ __forceinline__ V3 cross(V3 a, V3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
__device__ __forceinline__ V3 at(const float* p, int64_t i) { return {p[3 * i], p[3 * i + 1], p[3 * i + 2]}; }
__device__ __forceinline__ void put(float* p, int64_t i, V3 a) { p[3 * i] = a.x, p[3 * i + 1] = a.y, p[3 * i + 2] = a.z; }
__device__ __forceinline__ float length(V3 a) { return sqrtf(dot(a, a)); }
__device__ __forceinline__ V3 unit(V3 a) { return (1.f / fmaxf(length(a), 1e-12f)) * a; }

struct Quat {
    float w, x, y, z;
};

__device__ __forceinline__ Quat operator*(Quat a, Quat b) {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}

__device__ __forceinline__ Quat quat_at(const float* p, int64_t i) { return {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]}; }
__device__ __forceinline__ void put(float* p, int64_t i, Quat q) {
    p[4 * i] = q.w, p[4 * i + 1] = q.x, p[4 * i + 2] = q.y, p[4 * i + 3] = q.z;
}

// Columns a, b, c of a rotation to a unit quaternion with w >= 0 (Shepperd 1978).
__device__ __forceinline__ Quat quat_of(V3 a, V3 b, V3 c) {
    const float w4 = 1 + a.x + b.y + c.z, x4 = 1 + a.x - b.y - c.z, y4 = 1 - a.x + b.y - c.z, z4 = 1 - a.x - b.y + c.z;
    const float x = b.z - c.y, y = c.x - a.z, z = a.y - b.x, d = b.x + a.y, e = c.x + a.z, f = c.y + b.z;
    Quat q = {w4, x, y, z};
    float best = w4;
    if (x4 > best) best = x4, q = {x, x4, d, e};
    if (y4 > best) best = y4, q = {y, d, y4, f};
    if (z4 > best) q = {z, e, f, z4};
    const float norm = sqrtf(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
    const float s = (q.w < 0 ? -1.f : 1.f) / fmaxf(norm, 1e-12f);
    return {s * q.w, s * q.x, s * q.y, s * q.z};
}

struct Frame {
    V3 origin, a0, a1, a2, e1;  // centroid; first edge, normal and their cross product; second edge
    float edge, height, size;
    Quat q;

    __device__ __forceinline__ V3 turn(V3 v) const { return v.x * a0 + v.y * a1 + v.z * a2; }
    __device__ __forceinline__ V3 turn_back(V3 v) const { return {dot(v, a0), dot(v, a1), dot(v, a2)}; }
};

__device__ __forceinline__ Frame frame_of(const float* verts, const int64_t* faces, int64_t face) {
    const V3 a = at(verts, faces[3 * face]), b = at(verts, faces[3 * face + 1]), c = at(verts, faces[3 * face + 2]);
    Frame f;
    const V3 e0 = b - a;
    f.e1 = c - a;
    f.origin = (1.f / 3.f) * (a + b + c);
    f.edge = length(e0), f.a0 = unit(e0), f.a1 = unit(cross(e0, f.e1)), f.a2 = cross(f.a0, f.a1);
    f.height = fabsf(dot(f.e1, f.a2)), f.size = 0.5f * (dot(e0, f.a0) + f.height);
    f.q = quat_of(f.a0, f.a1, f.a2);
    return f;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// What the splats of one triangle pass on to its frame.
struct FrameGrad {
    V3 origin, spin;  // spin: by a small rotation of the frame about the world's axes
    float size;
};

struct RiggedSplat {
    V3 mean;
    Quat quat;
    V3 scale;  // logs going in, gradients of logs coming out
};

// v: gradients of the world's mean, quaternion and scales. Adds to sum; returns the gradients of the parameters.
__device__ __forceinline__ RiggedSplat rig_splat_backward(const Frame& f, const RiggedSplat& s, const RiggedSplat& v, FrameGrad& sum) {
    RiggedSplat g;
    const V3 offset = f.turn(s.mean);
    sum.origin = sum.origin + v.mean;
    sum.spin = sum.spin + f.size * cross(offset, v.mean);
    sum.size += dot(v.mean, offset);
    g.mean = f.size * f.turn_back(v.mean);
    const Quat q = f.q * s.quat, back = {f.q.w, -f.q.x, -f.q.y, -f.q.z};
    g.quat = back * v.quat;
    const V3 turn = {-v.quat.w * q.x + v.quat.x * q.w - v.quat.y * q.z + v.quat.z * q.y,
                     -v.quat.w * q.y + v.quat.x * q.z + v.quat.y * q.w - v.quat.z * q.x,
                     -v.quat.w * q.z - v.quat.x * q.y + v.quat.y * q.x + v.quat.z * q.w};
    sum.spin = sum.spin + 0.5f * turn;
    const V3 along = {v.scale.x * expf(s.scale.x), v.scale.y * expf(s.scale.y), v.scale.z * expf(s.scale.z)};
    sum.size += along.x + along.y + along.z;
    g.scale = f.size * along;
    return g;
}

// A frame's gradient to the triangle's corners [3 3]. An edge moves the frame by turning a0 towards a1 and a2; the
// other edge by turning the normal about a0. Triangles without area pass nothing on.
__device__ __forceinline__ void frame_backward(const Frame& f, const FrameGrad& g, float* corners) {
    V3 v_e0 = {0.f, 0.f, 0.f}, v_e1 = {0.f, 0.f, 0.f};
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

}  // namespace gsth
