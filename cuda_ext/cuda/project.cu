// Projection, colour and tile counting in one pass, and its backward pass. One thread owns one splat.
#include <type_traits>

#include "common.cuh"

namespace gsth {
namespace {

constexpr int kThreads = 256, kBackThreads = 128;
constexpr int kMaxBases = 16;
constexpr float kSh0 = 0.28209479177387814f;

struct Loaded {
    SplatIn<float> in;
    float opacity;
    unsigned bad;  // bits of arrays with a value that is not finite
};

__device__ __forceinline__ Camera camera_of(const GsthCudaScene& s, int view) {
    return make_camera(s.viewmats + 16 * view, s.Ks + 9 * view, s.width, s.height, s.antialiased != 0);
}

__device__ __forceinline__ bool finite(float x) { return x - x == 0.f; }

__device__ __forceinline__ Loaded load_splat(const GsthCudaScene& s, int view, int i) {
    Loaded l;
    const int64_t at = int64_t(s.sets == 1 ? 0 : view) * s.n + i;
    float check[3] = {0.f, 0.f, 0.f};
    for (int j = 0; j < 3; ++j) {
        l.in.mean[j] = s.means[3 * at + j], check[0] += l.in.mean[j] * 0.f;
        l.in.scale[j] = s.scales[3 * at + j], check[2] += l.in.scale[j] * 0.f;
    }
    for (int j = 0; j < 4; ++j) l.in.quat[j] = s.quats[4 * at + j], check[1] += l.in.quat[j] * 0.f;
    l.opacity = s.opacities[i];
    // An opacity of 0 or below gives a very low logarithm, never NaN; the splat is then not drawn.
    l.in.log2_opacity = l.opacity > 1e-30f ? log2f(l.opacity) : -100.f;
    l.bad = 0;
    for (int k = 0; k < 3; ++k) l.bad |= unsigned(check[k] != 0.f) << k;
    l.bad |= unsigned(!finite(l.opacity)) << kOpacities;
    return l;
}

struct Direction {
    float n[3], inv_length;
};

// From the camera to the splat, world axes: R^T p, normalised.
__device__ __forceinline__ Direction direction_of(const Camera& cam, const float p[3]) {
    Direction d;
    float square = 0.f;
    for (int j = 0; j < 3; ++j) {
        d.n[j] = cam.R[j] * p[0] + cam.R[3 + j] * p[1] + cam.R[6 + j] * p[2];
        square += d.n[j] * d.n[j];
    }
    d.inv_length = 1.f / fmaxf(sqrtf(square), 1e-12f);
    for (int j = 0; j < 3; ++j) d.n[j] *= d.inv_length;
    return d;
}

// Sum of the harmonics plus 0.5, not yet clamped.
template <int kBases>
__device__ __forceinline__ void color_of(const GsthCudaScene& s, const Camera& cam, const float p[3], int i,
                                         float color[3], unsigned& bad) {
    float basis[kMaxBases] = {kSh0};
    if (kBases > 1) {
        const Direction d = direction_of(cam, p);
        sh_basis(kBases, d.n[0], d.n[1], d.n[2], basis);
    }
    float check = 0.f;
    color[0] = color[1] = color[2] = 0.5f;
    const float* sh = s.sh + int64_t(i) * kBases * 3;
    for (int k = 0; k < kBases; ++k)
        for (int j = 0; j < 3; ++j) {
            const float c = sh[3 * k + j];
            color[j] += basis[k] * c, check += c * 0.f;
        }
    bad |= unsigned(check != 0.f) << kSh;
}

__device__ __forceinline__ Span span_of(const SplatOut<float>& o, const Grid& grid) {
    // A box that is a little too large costs a test in the tile; one too small would lose pixels to rounding.
    constexpr float slack = 0.01f;
    const float limit_x = float(grid.columns * kTilePx), limit_y = float(grid.rows * kTilePx);
    const int x0 = int(ceilf(fminf(fmaxf(o.x - o.extent_x - 0.5f - slack, 0.f), limit_x)));
    const int x1 = int(floorf(fminf(fmaxf(o.x + o.extent_x - 0.5f + slack, -1.f), limit_x - 1.f)));
    const int y0 = int(ceilf(fminf(fmaxf(o.y - o.extent_y - 0.5f - slack, 0.f), limit_y)));
    const int y1 = int(floorf(fminf(fmaxf(o.y + o.extent_y - 0.5f + slack, -1.f), limit_y - 1.f)));
    if (x0 > x1 || y0 > y1) return {0, 0, 0, 0, 0};
    const int column = x0 / kTilePx, row = y0 / kTilePx;
    return {0, column, row, x1 / kTilePx - column + 1, y1 / kTilePx - row + 1};
}

// Slots for a whole warp with one atomic operation; which come first does not matter, only the ends are used.
__device__ __forceinline__ int claim_slots(int64_t* total, int count) {
    const int lane = threadIdx.x & 31;
    int sum = count;
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kFull, sum, step);
        if (lane >= step) sum += other;
    }
    unsigned long long base = 0;
    if (lane == 31 && sum > 0)
        base = atomicAdd(reinterpret_cast<unsigned long long*>(total), (unsigned long long)(sum));
    return int(__shfl_sync(kFull, base, 31)) + sum - count;
}

// Cameras and background that are not finite; by all threads of all blocks together.
__device__ __forceinline__ void check_rest(const GsthCudaScene& s, int64_t* status) {
    const int64_t first = int64_t(blockIdx.y * gridDim.x + blockIdx.x) * kThreads + threadIdx.x;
    const int64_t step = int64_t(gridDim.x) * gridDim.y * kThreads;
    const auto check = [&](const float* p, int64_t count, Array array) {
        float sum = 0.f;
        for (int64_t i = first; i < count; i += step) sum += p[i] * 0.f;
        if (sum != 0.f) atomicOr(reinterpret_cast<unsigned long long*>(status + 1), 1ull << array);
    };
    check(s.viewmats, 16 * s.views, kViewmats);
    check(s.Ks, 9 * s.views, kKs);
    check(s.background, s.background_stride == 0 ? 3 : int64_t(3) * s.width * s.height, kBackground);
}

template <int kBases>
__global__ void __launch_bounds__(kThreads) project_kernel(GsthCudaScene s, GsthCudaLists lists, Grid grid,
                                                           float* means2d, float* radii_px) {
    const int i = blockIdx.x * kThreads + threadIdx.x, view = blockIdx.y;
    check_rest(s, lists.status);
    const int64_t at = int64_t(view) * s.n + i;
    Span span = {0, 0, 0, 0, 0};
    if (i < s.n) {
        const Camera cam = camera_of(s, view);
        Loaded l = load_splat(s, view, i);
        Steps<float> steps;
        const SplatOut<float> o = project(cam, l.in, steps);
        float color[3];
        color_of<kBases>(s, cam, steps.p, i, color, l.bad);
        if (l.bad) atomicOr(reinterpret_cast<unsigned long long*>(lists.status + 1), (unsigned long long)(l.bad));
        const bool drawn = o.drawn != 0.f;
        if (drawn) span = span_of(o, grid);
        const float reach = fmaxf(o.log2_opacity - kLog2AlphaMin, 0.f) * 1.0001f + 1e-3f;
        float4* pack = reinterpret_cast<float4*>(lists.packs) + 3 * at;
        pack[0] = make_float4(o.x, o.y, 0.5f * kLog2E * o.a, kLog2E * o.b);
        pack[1] = make_float4(0.5f * kLog2E * o.c, o.log2_opacity, fmaxf(color[0], 0.f), fmaxf(color[1], 0.f));
        pack[2] = make_float4(fmaxf(color[2], 0.f), o.z, reach, drawn ? 1.f : 0.f);
        radii_px[at] = drawn ? fmaxf(o.extent_x, o.extent_y) : 0.f;
        reinterpret_cast<float2*>(means2d)[at] = drawn ? make_float2(o.x, o.y) : make_float2(0.f, 0.f);
    }
    span.slot = claim_slots(lists.status, span.count());
    if (i < s.n) put_span(lists.spans, at, span);
    int32_t* counts = lists.cursors + int64_t(view) * grid.tiles();
    each_tile(span, grid, 0, [&](int tile, uint64_t) { atomicAdd(&counts[tile], 1); });
}

// Sums of a splat's gradient slots in the order of its tiles; the warp shares the long ones.
__device__ __forceinline__ void sum_slots(const float* slots, const Span& mine, float sums[kSums]) {
    const auto add = [&](int slot, float* total) {
        const float4* p = reinterpret_cast<const float4*>(slots) + int64_t(slot) * (kSlot / 4);
        const float4 u = p[0], v = p[1], w = p[2];
        total[0] += u.x, total[1] += u.y, total[2] += u.z, total[3] += u.w, total[4] += v.x;
        total[5] += v.y, total[6] += v.z, total[7] += v.w, total[8] += w.x, total[9] += w.y;
    };
    const int count = mine.count();
    for (int f = 0; f < kSums; ++f) sums[f] = 0.f;
    if (count <= kOwn)
        for (int k = 0; k < count; ++k) add(mine.slot + k, sums);
    for (unsigned large = __ballot_sync(kFull, count > kOwn); large; large &= large - 1) {
        const int owner = __ffs(int(large)) - 1, lane = threadIdx.x & 31;
        const int first = __shfl_sync(kFull, mine.slot, owner), all = __shfl_sync(kFull, count, owner);
        float part[kSums] = {};
        for (int k = lane; k < all; k += 32) add(first + k, part);
        for (int f = 0; f < kSums; ++f) {
            for (int step = 16; step > 0; step /= 2) part[f] += __shfl_xor_sync(kFull, part[f], step);
            if (lane == owner) sums[f] = part[f];
        }
    }
}

// Adds to the sh gradients (sets them for the first view), and what the viewing direction passes on to the centre and
// the rotation. The sh gradients stay in memory: 48 registers more would halve the number of threads at work.
template <int kBases>
__device__ __forceinline__ void color_backward(const GsthCudaScene& s, const Camera& cam, const float p[3], int i,
                                               const float v_color[3], bool first, float* v_sh, SplatGrad<float>& g) {
    float basis[kMaxBases] = {kSh0}, v_basis[kMaxBases];
    Direction d;
    if (kBases > 1) d = direction_of(cam, p), sh_basis(kBases, d.n[0], d.n[1], d.n[2], basis);
    const int64_t at = int64_t(i) * kBases * 3;
    for (int k = 0; k < kBases; ++k) {
        v_basis[k] = 0.f;
        for (int j = 0; j < 3; ++j) {
            v_basis[k] += v_color[j] * s.sh[at + 3 * k + j];
            const float v = basis[k] * v_color[j];
            v_sh[at + 3 * k + j] = first ? v : v_sh[at + 3 * k + j] + v;
        }
    }
    if (kBases == 1) return;
    float v[3];
    sh_basis_backward(kBases, d.n[0], d.n[1], d.n[2], v_basis, v);
    const float along = d.n[0] * v[0] + d.n[1] * v[1] + d.n[2] * v[2];
    for (int j = 0; j < 3; ++j) v[j] = (v[j] - d.n[j] * along) * d.inv_length;
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
            g.p[a] += cam.R[3 * a + b] * v[b];
            g.R[3 * a + b] += p[a] * v[b];
        }
}

// Sums 12 values over the block; the order is fixed. Thread 0 has them.
__device__ void reduce_view(const float mine[12], float* partial) {
    __shared__ float warps[kBackThreads / 32][12];
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    for (int f = 0; f < 12; ++f) {
        float x = mine[f];
        for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFull, x, step);
        if (lane == 0) warps[warp][f] = x;
    }
    __syncthreads();
    if (threadIdx.x < 12) {
        float x = 0.f;
        for (int w = 0; w < kBackThreads / 32; ++w) x += warps[w][threadIdx.x];
        partial[threadIdx.x] = x;
    }
    __syncthreads();
}

// Gradients of one splat from one view.
struct ViewGrad {
    SplatGrad<float> g;
    float opacity;
};

template <int kBases>
__device__ __forceinline__ ViewGrad view_backward(const GsthCudaScene& s, const GsthCudaLists& lists,
                                                  const GsthCudaImageGrads& image, int view, int i,
                                                  const GsthCudaSplatGrads& out) {
    ViewGrad r = {};
    const int64_t at = int64_t(view) * s.n + (i < s.n ? i : 0);
    const float4* pack = reinterpret_cast<const float4*>(lists.packs) + 3 * at;
    const bool drawn = i < s.n && !given_up(lists) && pack[2].w > 0.f;  // the others may hold infinities: their gradients are 0
    Span span = {0, 0, 0, 0, 0};
    if (drawn) span = span_at(lists.spans, at);
    float sums[kSums];
    sum_slots(image.slots, span, sums);
    if (i < s.n) out.grad_px[at] = 0.f;
    if (!drawn) {
        if (i < s.n && view == 0)
            for (int k = 0; k < 3 * kBases; ++k) out.sh[int64_t(i) * 3 * kBases + k] = 0.f;
        return r;
    }
    const float4 u = pack[0], v = pack[1], w = pack[2];
    const Camera cam = camera_of(s, view);
    const Loaded l = load_splat(s, view, i);
    Steps<float> steps;
    project_steps(cam, l.in, steps);
    SplatGrad<float>& g = r.g;
    g.x = sums[kVx], g.y = sums[kVy], g.z = sums[kVz], g.a = sums[kVa], g.b = sums[kVb], g.c = sums[kVc];
    g.log_opacity = sums[kVLogOpacity];
    if (image.v_means2d) g.x += image.v_means2d[2 * at], g.y += image.v_means2d[2 * at + 1];
    const float v_color[3] = {v.z > 0.f ? sums[kVRed] : 0.f, v.w > 0.f ? sums[kVGreen] : 0.f,
                              w.x > 0.f ? sums[kVBlue] : 0.f};
    color_backward<kBases>(s, cam, steps.p, i, v_color, view == 0, out.sh, g);
    gsth::project_backward(cam, l.in, steps, u.z * (2.f * kLn2), u.w * kLn2, v.x * (2.f * kLn2), g);
    r.opacity = sums[kVLogOpacity] / l.opacity;
    out.grad_px[at] = sqrtf(g.x * g.x + g.y * g.y);
    return r;
}

template <int kBases>
__global__ void __launch_bounds__(kBackThreads) project_backward_kernel(GsthCudaScene s, GsthCudaLists lists,
                                                                    GsthCudaImageGrads image, GsthCudaSplatGrads out) {
    const int i = blockIdx.x * kBackThreads + threadIdx.x;
    float v_opacity = 0.f, mean[3] = {}, quat[4] = {}, scale[3] = {};
    for (int view = 0; view < s.views; ++view) {
        const ViewGrad r = view_backward<kBases>(s, lists, image, view, i, out);
        v_opacity += r.opacity;
        if (s.sets > 1)
            for (int j = 0; j < 4; ++j) mean[j % 3] = scale[j % 3] = quat[j] = 0.f;
        for (int j = 0; j < 3; ++j) mean[j] += r.g.mean[j], scale[j] += r.g.scale[j];
        for (int j = 0; j < 4; ++j) quat[j] += r.g.quat[j];
        if (i < s.n && (s.sets > 1 || view == s.views - 1)) {
            const int64_t at = int64_t(s.sets > 1 ? view : 0) * s.n + i;
            for (int j = 0; j < 3; ++j) out.means[3 * at + j] = mean[j], out.scales[3 * at + j] = scale[j];
            for (int j = 0; j < 4; ++j) out.quats[4 * at + j] = quat[j];
        }
        if (out.viewmats) {
            float sums[12];
            for (int j = 0; j < 9; ++j) sums[j] = r.g.R[j];
            for (int j = 0; j < 3; ++j) sums[9 + j] = r.g.p[j];
            reduce_view(sums, image.partials + (int64_t(view) * gridDim.x + blockIdx.x) * 12);
        }
    }
    if (i < s.n) out.opacities[i] = v_opacity;
}

// One block per view, one warp per value of R and t: the blocks' sums, as a 4 x 4 matrix.
__global__ void __launch_bounds__(12 * 32) viewmat_kernel(const float* partials, int blocks, float* viewmats) {
    const int view = blockIdx.x, lane = threadIdx.x & 31, value = threadIdx.x / 32;
    float total = 0.f;
    for (int b = lane; b < blocks; b += 32) total += partials[(int64_t(view) * blocks + b) * 12 + value];
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(kFull, total, step);
    float* out = viewmats + 16 * view;
    if (lane == 0) out[value < 9 ? value / 3 * 4 + value % 3 : (value - 9) * 4 + 3] = total;
    if (threadIdx.x < 4) out[12 + threadIdx.x] = 0.f;
}

// Calls use with the number of bases as a constant.
template <class Use>
void with_bases(int bases, Use&& use) {
    switch (bases) {
        case 1: return use(std::integral_constant<int, 1>());
        case 4: return use(std::integral_constant<int, 4>());
        case 9: return use(std::integral_constant<int, 9>());
        default: return use(std::integral_constant<int, 16>());
    }
}

}  // namespace

void project(const GsthCudaScene& s, const GsthCudaLists& lists, float* means2d, float* radii_px, GsthStream stream) {
    // One block at least: cameras and background are checked even where there is no splat.
    const dim3 blocks(s.n ? blocks_for(s.n, kThreads) : 1, unsigned(s.views));
    with_bases(s.bases, [&](auto bases) {
        launch(stream, blocks, kThreads, project_kernel<decltype(bases)::value>, s, lists, grid_of(s), means2d, radii_px);
    });
}

bool can_run() {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, project_kernel<1>) == cudaSuccess;
}

void project_backward(const GsthCudaScene& s, const GsthCudaLists& lists, const GsthCudaImageGrads& image,
                      const GsthCudaSplatGrads& out, GsthStream stream) {
    const unsigned blocks = blocks_for(s.n, kBackThreads);
    with_bases(s.bases, [&](auto bases) {
        launch(stream, dim3(blocks), kBackThreads, project_backward_kernel<decltype(bases)::value>, s, lists, image, out);
    });
    if (out.viewmats)
        launch(stream, dim3(unsigned(s.views)), 12 * 32, viewmat_kernel, image.partials, int(blocks), out.viewmats);
}

}  // namespace gsth
