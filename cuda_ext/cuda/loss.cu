// Fused L1 + SSIM: statistics and value in one pass over 16 x 16 px tiles, the gradient in a second one, each with a
// separable 11-tap window in shared memory. Sums are made per block and then in order: the same bits at every run.
#include <math.h>

#include "common.cuh"

namespace gsth {
namespace {

constexpr int kSide = 16, kThreads = kSide * kSide, kRadius = 5, kTaps = 2 * kRadius + 1, kWide = kSide + 2 * kRadius;
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;

struct Window {
    float taps[kTaps];
};

Window window() {
    Window w;
    double total = 0, raw[kTaps];
    for (int i = 0; i < kTaps; ++i) total += raw[i] = exp(-0.5 * (i - kRadius) * (i - kRadius) / (1.5 * 1.5));
    for (int i = 0; i < kTaps; ++i) w.taps[i] = float(raw[i] / total);
    return w;
}

// Blurs `kMaps` planes of a tile with its rim: plane m at (x, y) is read(m, x, y), 0 <= x, y < kWide. The result for
// the thread's own pixel goes to out.
template <int kMaps, class Read>
__device__ __forceinline__ void blur(const Window& window, Read&& read, float out[kMaps]) {
    __shared__ float rows[kMaps][kWide][kSide];
    for (int i = threadIdx.x; i < kWide * kSide; i += kThreads) {
        const int x = i % kSide, y = i / kSide;
        float sums[kMaps] = {};
        for (int k = 0; k < kTaps; ++k) {
            float values[kMaps];
            read(x + k, y, values);
            for (int m = 0; m < kMaps; ++m) sums[m] = fmaf(window.taps[k], values[m], sums[m]);
        }
        for (int m = 0; m < kMaps; ++m) rows[m][y][x] = sums[m];
    }
    __syncthreads();
    const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
    for (int m = 0; m < kMaps; ++m) {
        out[m] = 0.f;
        for (int k = 0; k < kTaps; ++k) out[m] = fmaf(window.taps[k], rows[m][y + k][x], out[m]);
    }
    __syncthreads();
}

// Sum over the block in a fixed order; thread 0 has it.
__device__ double block_sum(double x) {
    __shared__ double warps[kThreads / 32];
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFull, x, step);
    if ((threadIdx.x & 31) == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < kThreads / 32; ++w) total += warps[w];
    __syncthreads();
    return total;
}

// Similarity of one pixel and channel from the blurred x, y, x^2 + y^2, x y, and its derivatives by the means of
// x, x^2 and x y.
__device__ __forceinline__ float similarity(const float m[4], float by[3]) {
    const float squares = m[0] * m[0] + m[1] * m[1], product = m[0] * m[1];
    const float a1 = 2.f * product + kC1, a2 = 2.f * (m[3] - product) + kC2;
    const float b1 = squares + kC1, b2 = (m[2] - squares) + kC2;
    const float inv = 1.f / (b1 * b2), value = a1 * a2 * inv;
    by[0] = 2.f * (m[1] * (a2 - a1) * inv + m[0] * value * (b1 - b2) * inv);
    by[1] = -(value * b1 * inv), by[2] = 2.f * a1 * inv;
    return value;
}

__global__ void __launch_bounds__(kThreads) statistics_kernel(GsthCudaLoss l, Window window) {
    __shared__ float image[kWide][kWide * 3], target[kWide][kWide * 3];
    const int left = blockIdx.x * kSide - kRadius, top = blockIdx.y * kSide - kRadius;
    for (int i = threadIdx.x; i < kWide * kWide * 3; i += kThreads) {
        const int y = top + i / (kWide * 3), x3 = 3 * left + i % (kWide * 3);
        const bool inside = y >= 0 && y < l.height && x3 >= 0 && x3 < 3 * l.width;
        const int64_t from = int64_t(y) * 3 * l.width + x3;
        image[i / (kWide * 3)][i % (kWide * 3)] = inside ? l.image[from] : 0.f;
        target[i / (kWide * 3)][i % (kWide * 3)] = inside ? l.target[from] : 0.f;
    }
    __syncthreads();
    const int x = left + kRadius + int(threadIdx.x) % kSide, y = top + kRadius + int(threadIdx.x) / kSide;
    const bool inside = x < l.width && y < l.height;
    const int64_t pixel = int64_t(y) * l.width + x, plane = int64_t(l.height) * l.width;
    const float weight = !inside ? 0.f : l.weights ? l.weights[pixel] : 1.f;
    float differences = 0.f, dissimilarities = 0.f;
    for (int c = 0; c < 3; ++c) {
        float m[4], by[3];
        blur<4>(window, [&](int u, int v, float* values) {
            const float a = image[v][3 * u + c], b = target[v][3 * u + c];
            values[0] = a, values[1] = b, values[2] = a * a + b * b, values[3] = a * b;
        }, m);
        const int u = int(threadIdx.x) % kSide + kRadius, v = int(threadIdx.x) / kSide + kRadius;
        differences += fabsf(image[v][3 * u + c] - target[v][3 * u + c]);
        dissimilarities += 1.f - similarity(m, by);
        if (inside && l.v_image)
            for (int k = 0; k < 3; ++k) l.derivatives[(3 * c + k) * plane + pixel] = weight * by[k];
    }
    const double sums[3] = {weight * differences, weight * dissimilarities, weight};
    const int block = blockIdx.y * gridDim.x + blockIdx.x;
    for (int k = 0; k < 3; ++k) {
        const double total = block_sum(sums[k]);
        if (threadIdx.x == 0) l.sums[3 * block + k] = total;
    }
}

// One block: the loss, and 1 / (3 * sum of weights) behind the blocks' sums.
__global__ void __launch_bounds__(kThreads) value_kernel(GsthCudaLoss l, int blocks) {
    double totals[3];
    for (int k = 0; k < 3; ++k) {
        double mine = 0;
        for (int b = threadIdx.x; b < blocks; b += kThreads) mine += l.sums[3 * b + k];
        totals[k] = block_sum(mine);
    }
    const double norm = 1 / (3 * (totals[2] > 2.220446049250313e-16 ? totals[2] : 2.220446049250313e-16));
    if (threadIdx.x != 0) return;
    l.sums[3 * blocks] = norm;
    l.loss[0] = float(norm * ((1.0 - l.ssim_weight) * totals[0] + l.ssim_weight * totals[1]));
}

__global__ void __launch_bounds__(kThreads) gradient_kernel(GsthCudaLoss l, Window window, int blocks) {
    __shared__ float maps[3][kWide][kWide + 1];
    const int left = blockIdx.x * kSide - kRadius, top = blockIdx.y * kSide - kRadius;
    const int x = left + kRadius + int(threadIdx.x) % kSide, y = top + kRadius + int(threadIdx.x) / kSide;
    const bool inside = x < l.width && y < l.height;
    const int64_t pixel = int64_t(y) * l.width + x, plane = int64_t(l.height) * l.width;
    const float norm = float(l.sums[3 * blocks]);
    const float weight = inside ? norm * (1.f - l.ssim_weight) * (l.weights ? l.weights[pixel] : 1.f) : 0.f;
    for (int c = 0; c < 3; ++c) {
        for (int i = threadIdx.x; i < 3 * kWide * kWide; i += kThreads) {
            const int m = i / (kWide * kWide), v = i / kWide % kWide, u = i % kWide;
            const bool within = top + v >= 0 && top + v < l.height && left + u >= 0 && left + u < l.width;
            const int64_t from = (3 * c + m) * plane + int64_t(top + v) * l.width + left + u;
            maps[m][v][u] = within ? l.derivatives[from] : 0.f;
        }
        __syncthreads();
        float by[3];
        blur<3>(window, [&](int u, int v, float* values) {
            for (int m = 0; m < 3; ++m) values[m] = maps[m][v][u];
        }, by);
        if (!inside) continue;
        const float a = l.image[3 * pixel + c], b = l.target[3 * pixel + c];
        const float sign = a > b ? weight : a < b ? -weight : 0.f;
        l.v_image[3 * pixel + c] = sign - norm * l.ssim_weight * (by[0] + 2.f * a * by[1] + b * by[2]);
    }
}

dim3 tiles_of(int height, int width) { return dim3(blocks_for(width, kSide), blocks_for(height, kSide)); }

}  // namespace

int loss_blocks(int height, int width) {
    const dim3 tiles = tiles_of(height, width);
    return int(tiles.x * tiles.y);
}

void l1_ssim(const GsthCudaLoss& l, GsthStream stream) {
    const dim3 tiles = tiles_of(l.height, l.width);
    const Window w = window();
    const int blocks = loss_blocks(l.height, l.width);
    launch(stream, tiles, kThreads, statistics_kernel, l, w);
    launch(stream, dim3(1), kThreads, value_kernel, l, blocks);
    if (l.v_image) launch(stream, tiles, kThreads, gradient_kernel, l, w, blocks);
}

}  // namespace gsth
