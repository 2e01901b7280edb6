// Depth order and tile lists. Nothing here depends on the number of threads.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "kernels.h"

namespace gsth {

TileRange tile_range(const float* pack, const Grid& grid) {
    // A box that is a little too large costs a test in the tile; one too small would lose pixels to rounding.
    constexpr float slack = 0.01f;
    const float limit_x = float(grid.columns * grid.tile_w), limit_y = float(grid.rows * grid.tile_h);
    const auto low = [](float v, float limit) { return int(std::ceil(std::min(std::max(v, 0.f), limit))); };
    const auto high = [](float v, float limit) { return int(std::floor(std::min(std::max(v, -1.f), limit - 1.f))); };
    const int x0 = low(pack[kX] - pack[kExtentX] - 0.5f - slack, limit_x);
    const int x1 = high(pack[kX] + pack[kExtentX] - 0.5f + slack, limit_x);
    const int y0 = low(pack[kY] - pack[kExtentY] - 0.5f - slack, limit_y);
    const int y1 = high(pack[kY] + pack[kExtentY] - 0.5f + slack, limit_y);
    if (x0 > x1 || y0 > y1) return {1, 0, 1, 0};
    return {x0 / grid.tile_w, x1 / grid.tile_w, y0 / grid.tile_h, y1 / grid.tile_h};
}

bool prefix_slots(int64_t n, int32_t* slots) {
    int64_t total = 0;
    for (int64_t i = 0; i <= n; ++i) {
        const int32_t count = i < n ? slots[i] : 0;
        slots[i] = int32_t(total);
        total += count;
        if (total > INT32_MAX) return false;
    }
    return true;
}

namespace {

struct Keyed {
    uint32_t key, id;
};

// Ids of the splats that touch a tile, by depth then index: radix sort of the depths' bits, which order like the
// depths because these are positive. Subtracting the smallest saves passes.
std::unique_ptr<Keyed[]> depth_order(int64_t n, const GsthLists& lists, size_t& count) {
    std::unique_ptr<Keyed[]> now(new Keyed[n + 1]), next(new Keyed[n + 1]);
    count = 0;
    uint32_t low = UINT32_MAX, high = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (lists.slots[i + 1] == lists.slots[i]) continue;
        uint32_t key;
        std::memcpy(&key, lists.packs + i * GSTH_PACK_FLOATS + kZ, 4);
        now[count++] = {key, uint32_t(i)};
        low = std::min(low, key), high = std::max(high, key);
    }
    constexpr int bits = 11;
    for (int shift = 0; count && shift < 32 && ((high - low) >> shift) != 0; shift += bits) {
        uint32_t starts[1 << bits] = {};
        for (size_t i = 0; i < count; ++i) ++starts[((now[i].key - low) >> shift) & ((1 << bits) - 1)];
        uint32_t total = 0;
        for (uint32_t& s : starts) {
            const uint32_t c = s;
            s = total, total += c;
        }
        for (size_t i = 0; i < count; ++i) next[starts[((now[i].key - low) >> shift) & ((1 << bits) - 1)]++] = now[i];
        std::swap(now, next);
    }
    return now;
}

}  // namespace

void make_lists(int64_t n, const GsthLists& lists, const Grid& grid, int threads) {
    size_t count = 0;
    const auto order = depth_order(n, lists, count);
    const int tiles = grid.columns * grid.rows;
    const int parts = std::max(1, std::min(threads, int(count / 2048)));
    // next[part][tile]: first a count, then where that part writes its next entry; parts follow the depth order.
    std::unique_ptr<int32_t[]> next(new int32_t[size_t(parts) * tiles]());
    const auto each = [&](int part, auto&& visit) {
        const size_t begin = count * part / parts, end = count * (part + 1) / parts;
        for (size_t i = begin; i < end; ++i) {
            const uint32_t id = order[i].id;
            if (i + 8 < end) __builtin_prefetch(lists.packs + size_t(order[i + 8].id) * GSTH_PACK_FLOATS);
            const TileRange r = tile_range(lists.packs + size_t(id) * GSTH_PACK_FLOATS, grid);
            int32_t slot = lists.slots[id];
            for (int y = r.y0; y <= r.y1; ++y)
                for (int x = r.x0; x <= r.x1; ++x) visit(y * grid.columns + x, int32_t(id), slot++);
        }
    };
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; ++part) {
        int32_t* mine = next.get() + size_t(part) * tiles;
        each(part, [&](int tile, int32_t, int32_t) { ++mine[tile]; });
    }
    int32_t total = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        lists.tile_firsts[tile] = total;
        for (int part = 0; part < parts; ++part) {
            int32_t& place = next[size_t(part) * tiles + tile];
            const int32_t c = place;
            place = total, total += c;
        }
    }
    lists.tile_firsts[tiles] = total;
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; ++part) {
        int32_t* mine = next.get() + size_t(part) * tiles;
        each(part, [&](int tile, int32_t id, int32_t slot) {
            int32_t* entry = lists.entries + 2 * size_t(mine[tile]++);
            entry[0] = id, entry[1] = slot;
        });
    }
}

}  // namespace gsth
