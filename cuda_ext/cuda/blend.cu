// Blending front to back, forward and backward. A tile is 16 x 16 px and has one block of four warps; a warp owns 8 x 8
// px, two per lane. Its lanes first test 32 splats of the tile's list at once against these 8 x 8 px, then all of them
// draw the ones that passed.
#include "common.cuh"

namespace gsth {
namespace {

constexpr int kThreads = 128, kWarps = 4, kUnitPx = 8, kBatch = 32, kPixels = 2;
constexpr float kLog2AlphaMax = -0.014499569695115089f;  // log2(0.99): alpha is clamped above

struct Place {
    int view, tile_x, tile_y, lane, warp;
    int left, top;     // of the warp's pixels
    int x, y;          // of the lane's first pixel; the second is 4 rows below
    int begin, end;    // of the tile's list

    __device__ __forceinline__ Place(const GsthCudaLists& lists, const Grid& grid) {
        const int tile = blockIdx.x, inside = tile % grid.tiles();
        view = tile / grid.tiles(), tile_x = inside % grid.columns, tile_y = inside / grid.columns;
        lane = threadIdx.x & 31, warp = threadIdx.x / 32;
        left = tile_x * kTilePx + (warp & 1) * kUnitPx, top = tile_y * kTilePx + (warp >> 1) * kUnitPx;
        x = left + (lane & 7), y = top + (lane >> 3);
        begin = lists.tile_firsts[tile], end = lists.tile_firsts[tile + 1];
    }
    __device__ __forceinline__ bool sees(const Drop& s) const {
        return touches(s, float(left) + 0.5f, float(top) + 0.5f, float(kUnitPx - 1));
    }
};

__device__ __forceinline__ int row_of(int p) { return 4 * p; }

// One pixel, forward.
struct Pixel {
    float left_over, red, green, blue, z;
};

__device__ __forceinline__ void draw(Pixel& p, const Drop& s, float px, float py) {
    const Touch t = touch(s, px, py, p.left_over);
    const float weight = t.hit ? t.alpha * p.left_over : 0.f;
    p.red = fmaf(weight, s.red, p.red), p.green = fmaf(weight, s.green, p.green);
    p.blue = fmaf(weight, s.blue, p.blue), p.z = fmaf(weight, s.z, p.z);
    p.left_over = advance(t, p.left_over);
}

__device__ __forceinline__ void finish(const Pixel& p, const GsthCudaScene& s, const GsthCudaImages& out, bool empty,
                                       int64_t at, int64_t in_view) {
    const float rest = fabsf(p.left_over), color[3] = {p.red, p.green, p.blue};
    const float poison = empty ? __uint_as_float(0x7fc00000u) : 0.f;
    for (int j = 0; j < 3; ++j)
        out.rgb[3 * at + j] = color[j] + rest * s.background[s.background_stride * in_view + j] + poison;
    out.alpha[at] = 1.f - rest + poison;
    out.depth[at] = p.z / fmaxf(1.f - rest, 1e-10f) + poison;
}

__global__ void __launch_bounds__(kThreads) blend_kernel(GsthCudaScene s, GsthCudaLists lists, Grid grid,
                                                         GsthCudaImages out) {
    __shared__ Drop shared[kWarps][kBatch];
    const Place at(lists, grid);
    Drop* drops = shared[at.warp];
    Pixel pixels[kPixels];
    for (int p = 0; p < kPixels; ++p)
        pixels[p] = {at.x < s.width && at.y + row_of(p) < s.height ? 1.f : -1.f, 0.f, 0.f, 0.f, 0.f};
    const float px = float(at.x) + 0.5f, py = float(at.y) + 0.5f;
    // The next batch is on its way from memory while this one is drawn.
    Drop next = {};
    if (at.begin + at.lane < at.end) next = drop_at(lists.packs, unsigned(lists.keys[at.begin + at.lane]));
    for (int first = at.begin; first < at.end; first += kBatch) {
        if (__all_sync(kFull, pixels[0].left_over <= 0.f && pixels[1].left_over <= 0.f)) break;
        const bool seen = first + at.lane < at.end && at.sees(next);
        if (seen) drops[at.lane] = next;
        const int ahead = first + kBatch + at.lane;
        if (ahead < at.end) next = drop_at(lists.packs, unsigned(lists.keys[ahead]));
        unsigned mask = __ballot_sync(kFull, seen);
        __syncwarp();
        for (; mask; mask &= mask - 1) {
            const Drop drop = drops[__ffs(int(mask)) - 1];
            for (int p = 0; p < kPixels; ++p) draw(pixels[p], drop, px, py + float(row_of(p)));
        }
        __syncwarp();
    }
    const bool empty = given_up(lists);
    for (int p = 0; p < kPixels; ++p) {
        const int y = at.y + row_of(p);
        if (at.x >= s.width || y >= s.height) continue;
        const int64_t in_view = int64_t(y) * s.width + at.x;
        finish(pixels[p], s, out, empty, int64_t(at.view) * s.width * s.height + in_view, in_view);
    }
}

// One pixel, backward: v is the gradient of the loss with respect to rgb and to the sum of weighted depths; rest is the
// part of (v . final values) that lies behind what has been drawn so far.
struct BackPixel {
    float left_over, rest, v[4];
};

__device__ __forceinline__ BackPixel start(const GsthCudaScene& s, const GsthCudaImageGrads& g, const Place& at,
                                           int row) {
    BackPixel p = {-1.f, 0.f, {0.f, 0.f, 0.f, 0.f}};
    const int y = at.y + row;
    if (at.x >= s.width || y >= s.height) return p;
    const int64_t i = (int64_t(at.view) * s.height + y) * s.width + at.x;
    const float alpha = g.images.alpha[i], depth = g.images.depth[i], safe = fmaxf(alpha, 1e-10f);
    // depth = sum / alpha: its gradient goes to the sum, and back through alpha.
    const float v_sum = g.v_depth ? g.v_depth[i] / safe : 0.f;
    const float v_alpha = (g.v_alpha ? g.v_alpha[i] : 0.f) - (alpha > 1e-10f ? v_sum * depth : 0.f);
    p.left_over = 1.f, p.v[3] = v_sum;
    p.rest = v_sum * depth * safe - v_alpha * (1.f - alpha);
    for (int j = 0; j < 3; ++j) p.v[j] = g.v_rgb[3 * i + j], p.rest += p.v[j] * g.images.rgb[3 * i + j];
    return p;
}

// Adds one pixel's part of a splat's sums: of g dx, g dy, g dx^2, g dx dy, g dy^2, g, and of weight * v. True if drawn.
template <bool kDepth>
__device__ __forceinline__ bool undraw(BackPixel& p, const Drop& s, float px, float py, float m[kSums]) {
    const Touch t = touch(s, px, py, p.left_over);
    if (t.hit) {
        const float weight = t.alpha * p.left_over;
        float own = p.v[0] * s.red + p.v[1] * s.green + p.v[2] * s.blue;
        if (kDepth) own += p.v[3] * s.z, m[kVz] += weight * p.v[3];
        p.rest -= weight * own;
        const float v_alpha = own * p.left_over - p.rest / (1.f - t.alpha);
        const float g = t.exponent <= kLog2AlphaMax ? v_alpha * t.alpha : 0.f, gx = g * t.dx, gy = g * t.dy;
        m[0] += gx, m[1] += gy, m[2] += gx * t.dx, m[3] += gx * t.dy, m[4] += gy * t.dy, m[5] += g;
        m[6] += weight * p.v[0], m[7] += weight * p.v[1], m[8] += weight * p.v[2];
    }
    p.left_over = advance(t, p.left_over);
    return t.hit;
}

// Sums each of 10 values over the warp with 12 shuffles instead of 50: at each step a lane gives away half of its values
// and keeps the other half. Returns the index of the value that `m[0]` then holds, or -1 in lanes left without one.
__device__ __forceinline__ int transpose_sum(float m[kSums], int lane) {
    const auto fold = [&](int bit, int lower, int count) {
        const bool upper = lane & bit;
        for (int i = 0; i < lower; ++i) {
            const float high = lower + i < count ? m[lower + i] : 0.f;
            const float got = __shfl_xor_sync(kFull, upper ? m[i] : high, bit);
            m[i] = (upper ? high : m[i]) + got;
        }
    };
    fold(16, 5, 10), fold(8, 3, 5), fold(4, 2, 3), fold(2, 1, 2);
    m[0] += __shfl_xor_sync(kFull, m[0], 1);
    const int third = (lane & 2 ? 1 : 0) + (lane & 4 ? 2 : 0);
    const int second = third + (lane & 8 ? 3 : 0);
    if ((lane & 1) || third > 2 || second > 4) return -1;
    return second + (lane & 16 ? 5 : 0);
}

struct BackShared {
    Drop drops[kBatch];
    int slots[kBatch];
    unsigned drawn[kWarps];            // bit k: the warp drew splat k of the batch
    float sums[kWarps][kBatch][kSums];
};

// Fills one batch of the tile's list.
__device__ __forceinline__ void load_batch(BackShared& shared, const GsthCudaLists& lists, const Place& at, int first) {
    if (threadIdx.x < kBatch && first + int(threadIdx.x) < at.end) {
        const unsigned id = unsigned(lists.keys[first + threadIdx.x]);
        shared.drops[threadIdx.x] = drop_at(lists.packs, id);
        shared.slots[threadIdx.x] = span_at(lists.spans, id).slot_of(at.tile_x, at.tile_y);
    }
}

// One moment of splat k of the batch: the warps' sums, added in order.
__device__ __forceinline__ float moment(const BackShared& shared, int k, int which) {
    float sum = 0.f;
    for (int w = 0; w < kWarps; ++w)
        if (shared.drawn[w] >> k & 1) sum += shared.sums[w][k][which];
    return sum;
}

// A batch's moments become gradients in its slots. Those of the centre mix the first two moments.
__device__ __forceinline__ void store_batch(const BackShared& shared, int count, float* slots) {
    for (int i = threadIdx.x; i < count * kSums; i += kThreads) {
        const int k = i / kSums, value = i % kSums;
        const Drop& s = shared.drops[k];
        float g = moment(shared, k, value);
        if (value == kVx || value == kVy)
            g = kLn2 * (2.f * (value == kVx ? s.a : s.c) * g + s.b * moment(shared, k, 1 - value));
        else if (value == kVa || value == kVc)
            g *= -0.5f;
        else if (value == kVb)
            g = -g;
        slots[int64_t(shared.slots[k]) * kSlot + value] = g;
    }
}

template <bool kDepth>
__global__ void __launch_bounds__(kThreads) blend_backward_kernel(GsthCudaScene s, GsthCudaLists lists, Grid grid,
                                                                  GsthCudaImageGrads g) {
    __shared__ BackShared shared;
    const Place at(lists, grid);
    BackPixel pixels[kPixels];
    for (int p = 0; p < kPixels; ++p) pixels[p] = start(s, g, at, row_of(p));
    const float px = float(at.x) + 0.5f, py = float(at.y) + 0.5f;
    for (int first = at.begin; first < at.end; first += kBatch) {
        const int count = min(kBatch, at.end - first);
        load_batch(shared, lists, at, first);
        __syncthreads();
        const bool open = __any_sync(kFull, pixels[0].left_over > 0.f || pixels[1].left_over > 0.f);
        const bool seen = open && at.lane < count && at.sees(shared.drops[at.lane]);
        unsigned drawn = 0;
        for (unsigned mask = __ballot_sync(kFull, seen); mask; mask &= mask - 1) {
            const int k = __ffs(int(mask)) - 1;
            const Drop drop = shared.drops[k];
            float m[kSums] = {};
            bool hit = false;
            for (int p = 0; p < kPixels; ++p) hit |= undraw<kDepth>(pixels[p], drop, px, py + float(row_of(p)), m);
            if (!__any_sync(kFull, hit)) continue;
            drawn |= 1u << k;
            const int value = transpose_sum(m, at.lane);
            if (value >= 0) shared.sums[at.warp][k][value] = m[0];
        }
        if (at.lane == 0) shared.drawn[at.warp] = drawn;
        __syncthreads();
        store_batch(shared, count, g.slots);
        __syncthreads();
    }
}

}  // namespace

void blend(const GsthCudaScene& s, const GsthCudaLists& lists, const GsthCudaImages& out, GsthStream stream) {
    const Grid grid = grid_of(s);
    launch(stream, dim3(unsigned(grid.tiles() * s.views)), kThreads, blend_kernel, s, lists, grid, out);
}

void blend_backward(const GsthCudaScene& s, const GsthCudaLists& lists, const GsthCudaImageGrads& g, GsthStream stream) {
    const Grid grid = grid_of(s);
    const auto kernel = g.v_depth ? blend_backward_kernel<true> : blend_backward_kernel<false>;
    launch(stream, dim3(unsigned(grid.tiles() * s.views)), kThreads, kernel, s, lists, grid, g);
}

}  // namespace gsth
