// Depth order and tile lists. Nothing here depends on the number of threads.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace gsth {

namespace {

GsthBox* boxes_of(const GsthLists& lists) { return reinterpret_cast<GsthBox*>(lists.boxes); }

int64_t tiles_of(const GsthBox& b) { return b.x0 > b.x1 ? 0 : int64_t(b.x1 - b.x0 + 1) * (b.y1 - b.y0 + 1); }

}  // namespace

bool number_slots(int64_t n, const GsthLists& lists) {
    GsthBox* boxes = boxes_of(lists);
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) {
        lists.slots[i] = boxes[i].slot = int32_t(total);
        total += tiles_of(boxes[i]);
        if (total > INT32_MAX) return false;
    }
    lists.slots[n] = int32_t(total);
    return true;
}

namespace {

struct Keyed {
    uint32_t key, id;
};

constexpr int kAhead = 16;  // splats to prefetch
constexpr int kDigitBits = 11, kDigits = 1 << kDigitBits;

// Work of one call, in the arena. The splats are cut into `parts` runs in order, one per thread.
struct Work {
    int64_t n, count;       // splats, and those that touch a tile
    int parts, tiles;
    Keyed *now, *next;
    int32_t* places;        // [parts, max(digits, tiles)]
    int64_t* part_counts;   // [parts + 1]
    uint32_t *lows, *highs; // [parts]

    int32_t* places_of(int part) const { return places + size_t(part) * std::max(kDigits, tiles); }
    int64_t begin(int64_t total, int part) const { return total * part / parts; }
};

Work work_of(int64_t n, int tiles, int threads) {
    Work w{};
    w.n = n, w.tiles = tiles, w.parts = int(std::max<int64_t>(1, std::min<int64_t>(threads, n / 2048)));
    const size_t keyed = size_t(n) * sizeof(Keyed), places = size_t(w.parts) * std::max(kDigits, tiles) * 4;
    char* at = static_cast<char*>(arena(2 * keyed + places + size_t(w.parts + 1) * 16));
    w.now = reinterpret_cast<Keyed*>(at), w.next = reinterpret_cast<Keyed*>(at += keyed);
    w.part_counts = reinterpret_cast<int64_t*>(at += keyed);
    w.lows = reinterpret_cast<uint32_t*>(at += size_t(w.parts + 1) * 8), w.highs = w.lows + w.parts;
    w.places = reinterpret_cast<int32_t*>(at + size_t(w.parts) * 8);
    return w;
}

// Counts of (part, bin) to the place where that part writes its first element of that bin.
void counts_to_places(const Work& w, int bins, int32_t* firsts) {
    int32_t total = 0;
    for (int bin = 0; bin < bins; ++bin) {
        if (firsts) firsts[bin] = total;
        for (int part = 0; part < w.parts; ++part) {
            int32_t& place = w.places_of(part)[bin];
            const int32_t c = place;
            place = total, total += c;
        }
    }
    if (firsts) firsts[bins] = total;
}

void find_keys(Work& w, const GsthBox* boxes, int part) {
    int64_t count = 0;
    uint32_t low = UINT32_MAX, high = 0;
    for (int64_t i = w.begin(w.n, part); i < w.begin(w.n, part + 1); ++i) {
        if (boxes[i].x0 > boxes[i].x1) continue;
        ++count, low = std::min(low, boxes[i].depth), high = std::max(high, boxes[i].depth);
    }
    w.part_counts[part + 1] = count, w.lows[part] = low, w.highs[part] = high;
}

void collect(const Work& w, const GsthBox* boxes, int part) {
    Keyed* out = w.now + w.part_counts[part];
    for (int64_t i = w.begin(w.n, part); i < w.begin(w.n, part + 1); ++i)
        if (boxes[i].x0 <= boxes[i].x1) *out++ = {boxes[i].depth, uint32_t(i)};
}

// Calls visit(tile, entry's splat, entry's slot) for a part of the sorted splats.
template <class Visit>
void each_pair(const Work& w, const GsthBox* boxes, const Grid& grid, int part, Visit&& visit) {
    const int64_t end = w.begin(w.count, part + 1);
    for (int64_t i = w.begin(w.count, part); i < end; ++i) {
        const uint32_t id = w.now[i].id;
        if (i + kAhead < end) __builtin_prefetch(boxes + w.now[i + kAhead].id);
        const GsthBox box = boxes[id];
        int32_t slot = box.slot;
        for (int y = box.y0; y <= box.y1; ++y)
            for (int x = box.x0; x <= box.x1; ++x) visit(y * grid.columns + x, int32_t(id), slot++);
    }
}

}  // namespace

// Radix sort of the depths' bits, which order like the depths because these are positive (subtracting the least saves
// passes), then a counting sort of the pairs by tile. Both are stable, so that ties stay in the order of the splats.
void make_lists(int64_t n, const GsthLists& lists, const Grid& grid, int threads) {
    const GsthBox* boxes = boxes_of(lists);
    Work w = work_of(n, grid.columns * grid.rows, threads);
    const auto each_part = [&](auto&& work) {
#pragma omp parallel for num_threads(w.parts) schedule(static, 1)
        for (int part = 0; part < w.parts; ++part) work(part);
    };
    each_part([&](int part) { find_keys(w, boxes, part); });
    w.part_counts[0] = 0;
    for (int part = 0; part < w.parts; ++part) w.part_counts[part + 1] += w.part_counts[part];
    w.count = w.part_counts[w.parts];
    const uint32_t low = *std::min_element(w.lows, w.lows + w.parts);
    const uint32_t high = *std::max_element(w.highs, w.highs + w.parts);
    each_part([&](int part) { collect(w, boxes, part); });
    for (int shift = 0; w.count && shift < 32 && ((high - low) >> shift) != 0; shift += kDigitBits) {
        const auto digit = [&](const Keyed& k) { return ((k.key - low) >> shift) & (kDigits - 1); };
        each_part([&](int part) {
            int32_t* mine = w.places_of(part);
            std::memset(mine, 0, kDigits * sizeof(int32_t));
            for (int64_t i = w.begin(w.count, part); i < w.begin(w.count, part + 1); ++i) ++mine[digit(w.now[i])];
        });
        counts_to_places(w, kDigits, nullptr);
        each_part([&](int part) {
            int32_t* mine = w.places_of(part);
            for (int64_t i = w.begin(w.count, part); i < w.begin(w.count, part + 1); ++i)
                w.next[mine[digit(w.now[i])]++] = w.now[i];
        });
        std::swap(w.now, w.next);
    }
    each_part([&](int part) {
        int32_t* mine = w.places_of(part);
        std::memset(mine, 0, size_t(w.tiles) * sizeof(int32_t));
        each_pair(w, boxes, grid, part, [&](int tile, int32_t, int32_t) { ++mine[tile]; });
    });
    counts_to_places(w, w.tiles, lists.tile_firsts);
    each_part([&](int part) {
        int32_t* mine = w.places_of(part);
        each_pair(w, boxes, grid, part, [&](int tile, int32_t id, int32_t slot) {
            int32_t* entry = lists.entries + 2 * size_t(mine[tile]++);
            entry[0] = id, entry[1] = slot;
        });
    });
}

}  // namespace gsth
