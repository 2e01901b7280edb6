// Splats in triangle frames to the world, for some frames of a mesh at once, and back without atomics: every splat,
// triangle and vertex sums what it owns, in a fixed order.
#include "rig_math.cuh"

namespace gsth {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ RiggedSplat parameters(const GsthCudaRigged& r, int i) {
    return {at(r.means_tri, i), quat_at(r.quats_tri, i), at(r.log_scales, i)};
}

__device__ __forceinline__ const float* verts_of(const GsthCudaRigged& r, int frame) {
    return r.verts + int64_t(frame) * r.verts_count * 3;
}

__global__ void __launch_bounds__(kThreads) rig_kernel(GsthCudaRigged r, float* means, float* quats, float* scales,
                                                       float* opacities) {
    const int i = blockIdx.x * kThreads + threadIdx.x, frame = blockIdx.y;
    if (i >= r.n) return;
    const int64_t to = int64_t(frame) * r.n + i;
    const Frame f = frame_of(verts_of(r, frame), r.faces, r.face_ids[i]);
    const RiggedSplat s = parameters(r, i);
    put(means, to, f.origin + f.size * f.turn(s.mean));
    put(quats, to, f.q * s.quat);
    put(scales, to, V3{f.size * expf(s.scale.x), f.size * expf(s.scale.y), f.size * expf(s.scale.z)});
    if (frame == 0) opacities[i] = sigmoid(r.logit_opacities[i]);
}

// One thread per splat, all frames: gradients of its parameters, and what it passes on to its triangle's frame.
__global__ void __launch_bounds__(kThreads) splat_kernel(GsthCudaRigged r, GsthCudaRigGrads g) {
    const int i = blockIdx.x * kThreads + threadIdx.x;
    if (i >= r.n) return;
    RiggedSplat total = {};
    const RiggedSplat s = parameters(r, i);
    const int64_t face = r.face_ids[i];
    for (int frame = 0; frame < r.frames; ++frame) {
        const int64_t from = int64_t(frame) * r.n + i;
        const Frame f = frame_of(verts_of(r, frame), r.faces, face);
        FrameGrad sum = {};
        const RiggedSplat v = {at(g.v_means, from), quat_at(g.v_quats, from), at(g.v_scales, from)};
        const RiggedSplat part = rig_splat_backward(f, s, v, sum);
        total.mean = total.mean + part.mean, total.scale = total.scale + part.scale;
        total.quat = {total.quat.w + part.quat.w, total.quat.x + part.quat.x, total.quat.y + part.quat.y,
                      total.quat.z + part.quat.z};
        if (g.verts) {
            float4* out = reinterpret_cast<float4*>(g.splat_sums) + 2 * from;
            out[0] = make_float4(sum.origin.x, sum.origin.y, sum.origin.z, sum.size);
            out[1] = make_float4(sum.spin.x, sum.spin.y, sum.spin.z, 0.f);
        }
    }
    put(g.means_tri, i, total.mean), put(g.quats_tri, i, total.quat), put(g.log_scales, i, total.scale);
    const float opacity = sigmoid(r.logit_opacities[i]);
    g.logit_opacities[i] = g.v_opacities[i] * opacity * (1.f - opacity);
}

__global__ void __launch_bounds__(kThreads) face_kernel(GsthCudaRigged r, GsthCudaRigOwners owners,
                                                        GsthCudaRigGrads g) {
    const int face = blockIdx.x * kThreads + threadIdx.x, frame = blockIdx.y;
    if (face >= r.faces_count) return;
    float* corners = g.corner_sums + (int64_t(frame) * r.faces_count + face) * 9;
    const int begin = owners.face_firsts[face], end = owners.face_firsts[face + 1];
    if (begin == end) {
        for (int k = 0; k < 9; ++k) corners[k] = 0.f;
        return;
    }
    FrameGrad sum = {};
    for (int k = begin; k < end; ++k) {
        const int64_t from = int64_t(frame) * r.n + owners.face_members[k];
        const float4 u = reinterpret_cast<const float4*>(g.splat_sums)[2 * from];
        const float4 v = reinterpret_cast<const float4*>(g.splat_sums)[2 * from + 1];
        sum.origin = sum.origin + V3{u.x, u.y, u.z}, sum.spin = sum.spin + V3{v.x, v.y, v.z}, sum.size += u.w;
    }
    frame_backward(frame_of(verts_of(r, frame), r.faces, face), sum, corners);
}

__global__ void __launch_bounds__(kThreads) vert_kernel(GsthCudaRigged r, GsthCudaRigOwners owners,
                                                        GsthCudaRigGrads g) {
    const int vert = blockIdx.x * kThreads + threadIdx.x, frame = blockIdx.y;
    if (vert >= r.verts_count) return;
    V3 sum = {0.f, 0.f, 0.f};
    const float* corners = g.corner_sums + int64_t(frame) * r.faces_count * 9;
    for (int k = owners.vert_firsts[vert]; k < owners.vert_firsts[vert + 1]; ++k)
        sum = sum + at(corners, owners.vert_members[k]);
    put(g.verts, int64_t(frame) * r.verts_count + vert, sum);
}

}  // namespace

void rig(const GsthCudaRigged& r, float* means, float* quats, float* scales, float* opacities, GsthStream stream) {
    launch(stream, dim3(blocks_for(r.n, kThreads), unsigned(r.frames)), kThreads, rig_kernel, r, means, quats, scales,
           opacities);
}

void rig_backward(const GsthCudaRigged& r, const GsthCudaRigOwners& owners, const GsthCudaRigGrads& g,
                  GsthStream stream) {
    launch(stream, dim3(blocks_for(r.n, kThreads)), kThreads, splat_kernel, r, g);
    if (!g.verts) return;
    const unsigned frames = unsigned(r.frames);
    launch(stream, dim3(blocks_for(r.faces_count, kThreads), frames), kThreads, face_kernel, r, owners, g);
    launch(stream, dim3(blocks_for(r.verts_count, kThreads), frames), kThreads, vert_kernel, r, owners, g);
}

}  // namespace gsth
