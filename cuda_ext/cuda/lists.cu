// Tile lists: running sums over tiles, emission of (depth, splat) keys, and a sort within each tile.
//
// No sort over all pairs, no host read: a tile's keys are sorted by one block, in shared memory where they fit. Keys
// are unique (a splat is in a tile once), so the order, and with it every picture, does not depend on the order in
// which the keys arrived.
#include "common.cuh"

namespace gsth {
namespace {

constexpr int kScanThreads = 1024, kEmitThreads = 256, kSortThreads = 256;
constexpr int kShared = 2048;  // keys that are sorted in shared memory: 16 KiB

// One block: firsts[i] = sum of counts before i, also into counts (now cursors); firsts[count] is the total.
__global__ void __launch_bounds__(kScanThreads) scan_kernel(GsthCudaLists lists, int count) {
    __shared__ int sums[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const bool empty = given_up(lists);
    const int each = (count + kScanThreads - 1) / kScanThreads;
    const int begin = min(int(threadIdx.x) * each, count), end = min(begin + each, count);
    int mine = 0;
    if (!empty)
        for (int i = begin; i < end; ++i) mine += lists.cursors[i];
    int sum = mine;
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kFull, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        int total = sums[lane];
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(kFull, total, step);
            if (lane >= step) total += other;
        }
        sums[lane] = total;
    }
    __syncthreads();
    int next = sum - mine + (warp > 0 ? sums[warp - 1] : 0);
    for (int i = begin; i < end; ++i) {
        const int c = empty ? 0 : lists.cursors[i];
        lists.tile_firsts[i] = lists.cursors[i] = next;
        next += c;
    }
    if (threadIdx.x == kScanThreads - 1) lists.tile_firsts[count] = next;
}

__global__ void __launch_bounds__(kEmitThreads) emit_kernel(GsthCudaLists lists, Grid grid, int n) {
    const int i = blockIdx.x * kEmitThreads + threadIdx.x, view = blockIdx.y;
    const int64_t at = int64_t(view) * n + i;
    Span span = {0, 0, 0, 0, 0};
    uint64_t key = 0;
    if (i < n && !given_up(lists)) {
        span = span_at(lists.spans, at);
        // Depths are positive, so their bits order as they do.
        key = uint64_t(__float_as_uint(lists.packs[at * kPack + kZ])) << 32 | uint64_t(at);
    }
    int32_t* cursors = lists.cursors + int64_t(view) * grid.tiles();
    each_tile(span, grid, key, [&](int tile, uint64_t k) { lists.keys[atomicAdd(&cursors[tile], 1)] = k; });
}

__device__ __forceinline__ void order(uint64_t* keys, int a, int b) {
    const uint64_t x = keys[a], y = keys[b];
    if (x > y) keys[a] = y, keys[b] = x;
}

// Bitonic merges that always put the smaller key first, so that keys past the end act as infinities without being
// there. One merge to runs of `run` keys: mirrored pairs, then pairs at ever halved distances.
__device__ __forceinline__ void mirror(uint64_t* keys, int count, int run) {
    for (int i = threadIdx.x; i * 2 < count + run; i += kSortThreads) {
        const int k = i & (run / 2 - 1), block = 2 * (i - k), b = block + run - 1 - k;  // run is a power of two
        if (b < count) order(keys, block + k, b);
    }
    __syncthreads();
}

__device__ __forceinline__ void halves(uint64_t* keys, int count, int from, int last) {
    for (int distance = from; distance >= last; distance /= 2) {
        for (int i = threadIdx.x; i * 2 < count + 2 * distance; i += kSortThreads) {
            const int a = 2 * i - (i & (distance - 1));
            if (a + distance < count) order(keys, a, a + distance);
        }
        __syncthreads();
    }
}

// Loads up to kShared keys, sorts them from scratch (from 0) or finishes a merge (from: first distance), stores them.
__device__ void sort_shared(uint64_t* keys, int count, int from) {
    __shared__ uint64_t local[kShared];
    for (int i = threadIdx.x; i < count; i += kSortThreads) local[i] = keys[i];
    __syncthreads();
    if (from > 0) halves(local, count, from, 1);
    else
        for (int run = 2; run < 2 * count; run *= 2) mirror(local, count, run), halves(local, count, run / 4, 1);
    for (int i = threadIdx.x; i < count; i += kSortThreads) keys[i] = local[i];
    __syncthreads();
}

__global__ void __launch_bounds__(kSortThreads) sort_kernel(GsthCudaLists lists) {
    const int first = lists.tile_firsts[blockIdx.x], count = lists.tile_firsts[blockIdx.x + 1] - first;
    if (count < 2) return;
    uint64_t* keys = lists.keys + first;
    for (int i = 0; i < count; i += kShared) sort_shared(keys + i, min(kShared, count - i), 0);
    // Longer lists, rare for a head: merges go through global memory while pairs are far apart.
    for (int run = 2 * kShared; run < 2 * count; run *= 2) {
        mirror(keys, count, run);
        halves(keys, count, run / 4, kShared);
        for (int i = 0; i < count; i += kShared) sort_shared(keys + i, min(kShared, count - i), kShared / 2);
    }
}

}  // namespace

void make_lists(const GsthCudaScene& s, const GsthCudaLists& lists, GsthStream stream) {
    const Grid grid = grid_of(s);
    const int tiles = grid.tiles() * s.views;
    launch(stream, dim3(1), kScanThreads, scan_kernel, lists, tiles);
    launch(stream, dim3(blocks_for(s.n, kEmitThreads), unsigned(s.views)), kEmitThreads, emit_kernel, lists, grid, s.n);
    launch(stream, dim3(unsigned(tiles)), kSortThreads, sort_kernel, lists);
}

}  // namespace gsth
