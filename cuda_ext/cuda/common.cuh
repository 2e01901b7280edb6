// What all CUDA kernels share. Framework-free; compiled by nvcc for GPUs and, over ../emulate, by g++ for tests.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include "../include/gsth_cuda.h"

namespace gsth {

// The scalar versions of what cpu/simd.h gives for vectors; splat_math.h is written in these.
__host__ __device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }
__host__ __device__ __forceinline__ float smaller(float a, float b) { return a < b ? a : b; }
__host__ __device__ __forceinline__ float root(float a) { return sqrtf(a); }
__host__ __device__ __forceinline__ float log2_of(float a) { return log2f(a); }
__host__ __device__ __forceinline__ float select(bool yes, float a, float b) { return yes ? a : b; }

}  // namespace gsth

#include "../include/splat_math.h"

namespace gsth {

constexpr unsigned kFull = 0xffffffffu;
constexpr int kTilePx = GSTH_CUDA_TILE_PX, kPack = GSTH_CUDA_PACK_FLOATS, kSlot = GSTH_SLOT_FLOATS, kSums = 10;

// What lies where in a pack. The exponent of a splat at offset (dx, dy) from its centre is
// log2_opacity - (a dx^2 + b dx dy + c dy^2); reach: how far below log2_opacity the exponent may fall, with slack.
enum Pack { kX, kY, kA, kB, kC, kLog2Opacity, kRed, kGreen, kBlue, kZ, kReach };
// Sums of gradients per (tile, splat).
enum Sum { kVx, kVy, kVa, kVb, kVc, kVLogOpacity, kVRed, kVGreen, kVBlue, kVz };
// Bits of GsthCudaLists::status[1].
enum Array { kMeans, kQuats, kScales, kOpacities, kSh, kViewmats, kKs, kBackground };

struct Grid {
    int columns, rows;  // of tiles, per view
    __host__ __device__ int tiles() const { return columns * rows; }
};

inline Grid grid_of(const GsthCudaScene& s) {
    return {(s.width + kTilePx - 1) / kTilePx, (s.height + kTilePx - 1) / kTilePx};
}

// Tiles that a splat's box touches, and where its gradient slots begin: one slot per tile, row after row.
struct Span {
    int slot, x0, y0, columns, rows;

    __device__ __forceinline__ int count() const { return columns * rows; }
    __device__ __forceinline__ int slot_of(int tile_x, int tile_y) const {
        return slot + (tile_y - y0) * columns + tile_x - x0;
    }
};

__device__ __forceinline__ Span span_at(const int32_t* spans, int64_t i) {
    const int4 s = reinterpret_cast<const int4*>(spans)[i];
    return {s.x, s.y & 0xffff, int(unsigned(s.y) >> 16), s.z & 0xffff, int(unsigned(s.z) >> 16)};
}

__device__ __forceinline__ void put_span(int32_t* spans, int64_t i, const Span& s) {
    reinterpret_cast<int4*>(spans)[i] = make_int4(s.slot, s.x0 | s.y0 << 16, s.columns | s.rows << 16, 0);
}

constexpr int kOwn = 16;  // tiles or slots that a thread handles by itself; its warp shares what is more

// Calls use(tile, payload) for every tile of every lane's span; the whole warp must come here.
template <class Use>
__device__ __forceinline__ void each_tile(const Span& mine, const Grid& grid, uint64_t payload, Use&& use) {
    const int count = mine.count();
    if (count <= kOwn)
        for (int y = mine.y0; y < mine.y0 + mine.rows; ++y)
            for (int x = mine.x0; x < mine.x0 + mine.columns; ++x) use(y * grid.columns + x, payload);
    for (unsigned large = __ballot_sync(kFull, count > kOwn); large; large &= large - 1) {
        const int owner = __ffs(int(large)) - 1;
        const int x0 = __shfl_sync(kFull, mine.x0, owner), y0 = __shfl_sync(kFull, mine.y0, owner);
        const int columns = __shfl_sync(kFull, mine.columns, owner), all = __shfl_sync(kFull, count, owner);
        const uint64_t theirs = __shfl_sync(kFull, payload, owner);
        for (int k = threadIdx.x & 31; k < all; k += 32) use((y0 + k / columns) * grid.columns + x0 + k % columns, theirs);
    }
}

// True where the forward pass had to give up; its lists are then empty.
__device__ __forceinline__ bool given_up(const GsthCudaLists& lists) {
    return lists.status[0] > lists.capacity || lists.status[1] != 0;
}

// Starts a kernel of `threads` threads per block.
template <class... P, class... A>
inline void launch(GsthStream stream, dim3 blocks, int threads, void (*kernel)(P...), const A&... arguments) {
    if (blocks.x == 0 || blocks.y == 0) return;
#ifdef __CUDACC__
    kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
#else
    (void)stream;
    emulate::launch(blocks, dim3(threads), kernel, arguments...);
#endif
}

inline unsigned blocks_for(int64_t count, int threads) { return unsigned((count + threads - 1) / threads); }

__device__ __forceinline__ float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// A splat where the blending kernels keep it: in shared memory, all lanes reading one address.
struct alignas(16) Drop {
    float x, y, a, b, c, log2_opacity, red, green, blue, z, reach, unused;
};

__device__ __forceinline__ Drop drop_at(const float* packs, unsigned id) {
    const float4* p = reinterpret_cast<const float4*>(packs) + size_t(id) * 3;
    const float4 u = __ldg(p), v = __ldg(p + 1), w = __ldg(p + 2);
    return {u.x, u.y, u.z, u.w, v.x, v.y, v.z, v.w, w.x, w.y, w.z, 0.f};
}

// Whether alpha may reach 1/255 anywhere in the box of pixel centres [left, left + side] x [top, top + side]: the
// smallest value of the quadratic form on the box lies on one of its two edges that face the centre.
__device__ __forceinline__ bool touches(const Drop& s, float left, float top, float side) {
    const float x0 = left - s.x, x1 = x0 + side, y0 = top - s.y, y1 = y0 + side;
    const float near_x = fminf(fmaxf(0.f, x0), x1), near_y = fminf(fmaxf(0.f, y0), y1);
    const float dy = fminf(fmaxf(-0.5f * s.b * near_x / s.c, y0), y1);
    const float dx = fminf(fmaxf(-0.5f * s.b * near_y / s.a, x0), x1);
    const float squares_1 = s.a * near_x * near_x + s.c * dy * dy, squares_2 = s.a * dx * dx + s.c * near_y * near_y;
    // The terms of a long splat cancel; what rounding may leave of that counts as touched.
    constexpr float kRounding = 2e-6f;
    return squares_1 + s.b * near_x * dy <= s.reach + kRounding * squares_1 ||
           squares_2 + s.b * dx * near_y <= s.reach + kRounding * squares_2;
}

// One splat on one pixel: the step that both passes must take alike, so every fused operation is written out.
// left_over is the pixel's transmittance, negative once it has finished.
struct Touch {
    float dx, dy, exponent, alpha, next;
    bool hit, stop;
};

__device__ __forceinline__ Touch touch(const Drop& s, float px, float py, float left_over) {
    Touch t;
    t.dx = px - s.x, t.dy = py - s.y;
    const float cross = fmaf(s.b, t.dx, s.c * t.dy);
    t.exponent = fmaf(-t.dy, cross, fmaf(-(s.a * t.dx), t.dx, s.log2_opacity));
    t.alpha = fminf(exp2_fast(t.exponent), kAlphaMax);
    t.next = fmaf(-t.alpha, left_over, left_over);
    const bool seen = t.exponent >= kLog2AlphaMin && left_over > 0.f, open = t.next > kTransmittanceMin;
    t.hit = seen && open, t.stop = seen && !open;
    return t;
}

__device__ __forceinline__ float advance(const Touch& t, float left_over) {
    return t.stop ? -left_over : t.hit ? t.next : left_over;
}

// The kernels' launchers, one file each. can_run: whether the current device has machine code in this library.
bool can_run();
void project(const GsthCudaScene&, const GsthCudaLists&, float* means2d, float* radii_px, GsthStream);
void make_lists(const GsthCudaScene&, const GsthCudaLists&, GsthStream);
void blend(const GsthCudaScene&, const GsthCudaLists&, const GsthCudaImages&, GsthStream);
void blend_backward(const GsthCudaScene&, const GsthCudaLists&, const GsthCudaImageGrads&, GsthStream);
void project_backward(const GsthCudaScene&, const GsthCudaLists&, const GsthCudaImageGrads&, const GsthCudaSplatGrads&,
                      GsthStream);
void rig(const GsthCudaRigged&, float* means, float* quats, float* scales, float* opacities, GsthStream);
void rig_backward(const GsthCudaRigged&, const GsthCudaRigOwners&, const GsthCudaRigGrads&, GsthStream);
int loss_blocks(int height, int width);
void l1_ssim(const GsthCudaLoss&, GsthStream);

}  // namespace gsth
