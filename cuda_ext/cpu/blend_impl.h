// Blending of one tile at a time, forward and backward. Included once per instruction set, after simd.h.
//
// A tile is 8 x 8 blocks of kLanes pixels, so a 64-bit mask says which blocks a splat touches. Forward goes block by
// block (the pixels' state stays in registers), backward splat by splat (the splat's gradient sums do). A pixel that has
// finished leaves its block's `alive` mask.
#pragma once

namespace {

using namespace gsth;

constexpr int kBlockW = kLanes == 4 ? 2 : 4, kBlockH = kLanes / kBlockW;
constexpr int kBlocks = 64;
constexpr int kTileW = 8 * kBlockW, kTileH = 8 * kBlockH;
constexpr int kChunk = 256;  // entries handled at once; their index in the chunk fits a byte
constexpr int kAhead = 16;   // entries to prefetch

// One splat as blending needs it, centre relative to the tile.
struct Drop {
    float x, y, a, b, c, log2_opacity, color[3], z;
};

struct LaneOffsets {
    alignas(64) float x[kLanes], y[kLanes];
    LaneOffsets() {
        for (int i = 0; i < kLanes; ++i) x[i] = float(i % kBlockW) + 0.5f, y[i] = float(i / kBlockW) + 0.5f;
    }
};

typedef float Rows __attribute__((vector_size(32)));
typedef int32_t RowInts __attribute__((vector_size(32)));
typedef uint8_t RowBytes __attribute__((vector_size(8)));

#if GSTH_ISA == 512 || GSTH_ISA == 2
inline Rows root8(Rows x) { return _mm256_sqrt_ps(x); }
inline Rows clamped(Rows x, Rows low, Rows high) { return _mm256_min_ps(_mm256_max_ps(x, low), high); }
#else
inline Rows root8(Rows x) {
    for (int i = 0; i < 8; ++i) x[i] = std::sqrt(x[i]);
    return x;
}
inline Rows clamped(Rows x, Rows low, Rows high) {
    x = x > low ? x : low;
    return x < high ? x : high;
}
#endif

// Bit 8 * row + column is set where the ellipse alpha = 1/255 may touch a pixel centre of that block: all eight rows of
// blocks at once. Within a strip of rows the ellipse reaches furthest right at its rightmost point, or, where that lies
// outside the strip, at the strip's nearer edge.
inline uint64_t touched_blocks(const float* pack, float x, float y) {
    const Rows row = {0, 1, 2, 3, 4, 5, 6, 7};
    const Rows zero = {};
    const Rows top = row * float(kBlockH) + (0.5f - y), bottom = top + float(kBlockH - 1);
    const float turn = pack[kTurn], slope = pack[kSlope], curve = pack[kCurve], width2 = pack[kWidth2];
    const Rows at_right = clamped(zero + turn, top, bottom), at_left = clamped(zero - turn, top, bottom);
    const Rows right2 = width2 - curve * at_right * at_right, left2 = width2 - curve * at_left * at_left;
    const Rows far = zero + 3e38f, eight = zero + 8.f;
    Rows right = x + slope * at_right + root8(clamped(right2, zero, far));
    Rows left = x + slope * at_left - root8(clamped(left2, zero, far));
    left = clamped((left + 0.5f) * (1.f / kBlockW), zero, eight);
    right = clamped((right - 0.5f) * (1.f / kBlockW) + 1.f, zero, eight);
    right = right2 > zero ? right : zero;
    // Blocks first .. last - 1.
    const RowInts first = __builtin_convertvector(left, RowInts), last = __builtin_convertvector(right, RowInts);
    const RowInts bits = (0xff >> (8 - last)) & (0xff << first);
    const RowBytes bytes = __builtin_convertvector(bits, RowBytes);
    uint64_t mask;
    std::memcpy(&mask, &bytes, 8);
    return mask;
}

struct Tile {
    int left, top, begin, end;
    uint64_t inside;  // blocks with at least one pixel in the image

    Tile(int index, const Grid& grid, const GsthCamera& camera, const GsthLists& lists) {
        left = index % grid.columns * kTileW, top = index / grid.columns * kTileH;
        begin = lists.tile_firsts[index], end = lists.tile_firsts[index + 1];
        inside = 0;
        for (int b = 0; b < kBlocks; ++b)
            if (left + b % 8 * kBlockW < camera.width && top + b / 8 * kBlockH < camera.height) inside |= 1ull << b;
    }
};

// Calls use(row-major pixel, lane) for the pixels of a block that lie in the image.
template <class Use>
inline void each_pixel(const Tile& tile, const GsthCamera& camera, int block, Use&& use) {
    const int x0 = tile.left + block % 8 * kBlockW, y0 = tile.top + block / 8 * kBlockH;
    for (int i = 0; i < kLanes; ++i) {
        const int x = x0 + i % kBlockW, y = y0 + i / kBlockW;
        if (x < camera.width && y < camera.height) use(ptrdiff_t(y) * camera.width + x, i);
    }
}

inline const float* pack_of(const GsthLists& lists, int entry) {
    return lists.packs + ptrdiff_t(lists.entries[2 * ptrdiff_t(entry)]) * GSTH_PACK_FLOATS;
}

// Must be inlined early: GCC takes a function that only prefetches for one without effect, and drops its calls.
__attribute__((always_inline)) inline void prefetch(const GsthLists& lists, int entry, int end) {
    if (entry < end) __builtin_prefetch(pack_of(lists, entry));
}

inline Drop drop_of(const float* pack, const Tile& tile) {
    return {pack[kX] - float(tile.left), pack[kY] - float(tile.top), pack[kA], pack[kB], pack[kC], pack[kLog2Opacity],
            {pack[kRed], pack[kGreen], pack[kBlue]}, pack[kZ]};
}

// The step that both passes must take alike: alpha is 0 where a pixel is not coloured.
struct Touch {
    Vec dx, dy, exponent, alpha, next;
    Mask seen, stop;  // living pixels where alpha >= 1/255; those of them that finish instead of being coloured
};

__attribute__((always_inline)) inline Touch touch(const Drop& s, Vec px, Vec py, Vec left_over, Mask& alive) {
    Touch t;
    t.dx = px - s.x, t.dy = py - s.y;
    const Vec cross = fma(all(s.b), t.dx, s.c * t.dy);
    t.exponent = fnma(t.dy, cross, fnma(s.a * t.dx, t.dx, all(s.log2_opacity)));
    t.seen = at_least(alive, t.exponent, all(kLog2AlphaMin));
    t.alpha = keep(t.seen, smaller(exp2_of(t.exponent), all(kAlphaMax)));
    t.next = fnma(t.alpha, left_over, left_over);
    t.stop = at_least(t.seen, all(kTransmittanceMin), t.next);
    if (__builtin_expect(any(t.stop), 0)) {
        alive = first_only(alive, t.stop);
        t.alpha = keep(alive, t.alpha);
        t.next = fnma(t.alpha, left_over, left_over);
    }
    return t;
}

struct Canvas {
    alignas(64) float left_over[kBlocks][kLanes], color[3][kBlocks][kLanes], z[kBlocks][kLanes];
    Mask alive[kBlocks];
};

// Pixels of a block that lie in the image.
inline Mask pixels_inside(const Tile& tile, const GsthCamera& camera, int block) {
    alignas(64) float inside[kLanes] = {};
    each_pixel(tile, camera, block, [&](ptrdiff_t, int i) { inside[i] = 1.f; });
    return at_least(every_lane(), load(inside), all(0.5f));
}

inline bool is_whole(const Tile& tile, const GsthCamera& camera) {
    return tile.left + kTileW <= camera.width && tile.top + kTileH <= camera.height;
}

inline void start(Canvas& canvas, const Tile& tile, const GsthCamera& camera) {
    const bool whole = is_whole(tile, camera);
    for (int b = 0; b < kBlocks; ++b) {
        store(canvas.left_over[b], all(1.f));
        store(canvas.z[b], Vec{});
        for (int j = 0; j < 3; ++j) store(canvas.color[j][b], Vec{});
        canvas.alive[b] = whole ? every_lane() : pixels_inside(tile, camera, b);
    }
}

// Draws the listed drops on one block; false when all its pixels have finished.
template <bool kRecord>
inline bool blend_block(Canvas& canvas, int b, const LaneOffsets& lanes, const Drop* drops, const uint8_t* list,
                        int count, uint64_t* hits) {
    const Vec px = load(lanes.x) + float(b % 8 * kBlockW), py = load(lanes.y) + float(b / 8 * kBlockH);
    Vec left_over = load(canvas.left_over[b]), z = load(canvas.z[b]);
    Vec red = load(canvas.color[0][b]), green = load(canvas.color[1][b]), blue = load(canvas.color[2][b]);
    Mask alive = canvas.alive[b];
    for (int i = 0; i < count; ++i) {
        const Drop& s = drops[list[i]];
        const Touch t = touch(s, px, py, left_over, alive);
        const Vec weight = t.alpha * left_over;
        red = fma(weight, all(s.color[0]), red), green = fma(weight, all(s.color[1]), green);
        blue = fma(weight, all(s.color[2]), blue), z = fma(weight, all(s.z), z);
        if (kRecord) hits[list[i]] |= uint64_t(any(t.seen)) << b;
        left_over = t.next;
        if (__builtin_expect(any(t.stop), 0) && !any(alive)) break;
    }
    store(canvas.left_over[b], left_over), store(canvas.z[b], z);
    store(canvas.color[0][b], red), store(canvas.color[1][b], green), store(canvas.color[2][b], blue);
    canvas.alive[b] = alive;
    return any(alive);
}

// One row of a tile's pixels, in and out of the blocks' layout: compilers vectorise loops over rows.
typedef float RowOfTile[kTileW];
typedef float Blocks[kBlocks][kLanes];

inline void from_blocks(const Blocks& blocks, int y, RowOfTile& row) {
    for (int x = 0; x < 8; ++x)
        std::memcpy(row + x * kBlockW, blocks[y / kBlockH * 8 + x] + y % kBlockH * kBlockW, kBlockW * sizeof(float));
}

inline void to_blocks(const RowOfTile& row, int y, Blocks& blocks) {
    for (int x = 0; x < 8; ++x)
        std::memcpy(blocks[y / kBlockH * 8 + x] + y % kBlockH * kBlockW, row + x * kBlockW, kBlockW * sizeof(float));
}

inline void finish(const Canvas& canvas, const Tile& tile, const GsthCamera& camera, const float* background,
                   int stride, float* rgb, float* alpha, float* depth) {
    alignas(64) float behind[3 * kTileW], out[3 * kTileW];
    alignas(64) RowOfTile color[3], rest, hit, z;
    if (!stride)
        for (int i = 0; i < 3 * kTileW; ++i) behind[i] = background[i % 3];
    const int wide = camera.width - tile.left < kTileW ? camera.width - tile.left : kTileW;
    for (int y = 0; y < kTileH && tile.top + y < camera.height; ++y) {
        const ptrdiff_t first = ptrdiff_t(tile.top + y) * camera.width + tile.left;
        if (stride) std::memcpy(behind, background + 3 * first, size_t(wide) * 3 * sizeof(float));
        for (int j = 0; j < 3; ++j) from_blocks(canvas.color[j], y, color[j]);
        from_blocks(canvas.left_over, y, rest), from_blocks(canvas.z, y, z);
        for (int i = 0; i < kTileW; ++i) {
            hit[i] = 1.f - rest[i];
            z[i] /= hit[i] > 1e-10f ? hit[i] : 1e-10f;
            for (int j = 0; j < 3; ++j) out[3 * i + j] = color[j][i] + rest[i] * behind[3 * i + j];
        }
        std::memcpy(rgb + 3 * first, out, size_t(wide) * 3 * sizeof(float));
        std::memcpy(alpha + first, hit, size_t(wide) * sizeof(float));
        std::memcpy(depth + first, z, size_t(wide) * sizeof(float));
    }
}

template <bool kRecord>
inline void blend_tile(const Tile& tile, const GsthCamera& camera, const GsthLists& lists, const LaneOffsets& lanes,
                       Canvas& canvas) {
    Drop drops[kChunk];
    uint8_t blocks[kBlocks][kChunk];
    uint64_t open = tile.inside;
    start(canvas, tile, camera);
    for (int begin = tile.begin; begin < tile.end; begin += kChunk) {
        const int count = tile.end - begin < kChunk ? tile.end - begin : kChunk;
        uint64_t* hits = kRecord ? lists.hits + begin : nullptr;
        if (kRecord) std::memset(hits, 0, size_t(count) * sizeof(uint64_t));
        if (!open) continue;
        uint8_t* ends[kBlocks];
        for (int b = 0; b < kBlocks; ++b) ends[b] = blocks[b];
        for (int i = 0; i < count; ++i) {
            prefetch(lists, begin + i + kAhead, tile.end);
            const float* pack = pack_of(lists, begin + i);
            drops[i] = drop_of(pack, tile);
            for (uint64_t m = touched_blocks(pack, drops[i].x, drops[i].y) & open; m; m &= m - 1)
                *ends[__builtin_ctzll(m)]++ = uint8_t(i);
        }
        for (uint64_t m = open; m; m &= m - 1) {
            const int b = __builtin_ctzll(m), listed = int(ends[b] - blocks[b]);
            if (!blend_block<kRecord>(canvas, b, lanes, drops, blocks[b], listed, hits)) open &= ~(1ull << b);
        }
    }
}

void blend_all(const GsthCamera& camera, const GsthLists& lists, const Grid& grid, const float* background, int stride,
               float* rgb, float* alpha, float* depth, int threads) {
    const LaneOffsets lanes;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int index = 0; index < grid.columns * grid.rows; ++index) {
        const Tile tile(index, grid, camera, lists);
        Canvas canvas;
        if (lists.hits) blend_tile<true>(tile, camera, lists, lanes, canvas);
        else blend_tile<false>(tile, camera, lists, lanes, canvas);
        finish(canvas, tile, camera, background, stride, rgb, alpha, depth);
    }
}

// Per pixel of a tile: v is the gradient of the loss with respect to rgb and to the sum of weighted depths; rest is
// the part of (v . final values) that lies behind what has been drawn so far.
struct BackCanvas {
    alignas(64) float left_over[kBlocks][kLanes], rest[kBlocks][kLanes], v[4][kBlocks][kLanes];
    Mask alive[kBlocks];
};

// A row of an image [h w channels] from the tile's left edge on; zeros beyond the image.
template <int kChannels>
inline void read_row(const float* image, ptrdiff_t first, int wide, float* row) {
    std::memcpy(row, image + kChannels * first, size_t(wide) * kChannels * sizeof(float));
    std::memset(row + kChannels * wide, 0, size_t(kTileW - wide) * kChannels * sizeof(float));
}

inline void start_backward(BackCanvas& canvas, const Tile& tile, const GsthCamera& camera, const GsthImageGrads& g) {
    alignas(64) float colors[3 * kTileW], v_colors[3 * kTileW];
    alignas(64) RowOfTile alpha, depth, v_alpha = {}, v_depth = {}, v[4], rest;
    const bool whole = is_whole(tile, camera);
    for (int b = 0; b < kBlocks; ++b) {
        store(canvas.left_over[b], all(1.f));
        canvas.alive[b] = whole ? every_lane() : pixels_inside(tile, camera, b);
    }
    for (int y = 0; y < kTileH; ++y) {
        const bool inside = tile.top + y < camera.height;  // else zeros: what is not drawn still enters sums, times 0
        const ptrdiff_t first = inside ? ptrdiff_t(tile.top + y) * camera.width + tile.left : 0;
        const int left = inside ? camera.width - tile.left : 0, wide = left < kTileW ? left : kTileW;
        read_row<3>(g.rgb, first, wide, colors), read_row<3>(g.v_rgb, first, wide, v_colors);
        read_row<1>(g.alpha, first, wide, alpha), read_row<1>(g.depth, first, wide, depth);
        if (g.v_alpha) read_row<1>(g.v_alpha, first, wide, v_alpha);
        if (g.v_depth) read_row<1>(g.v_depth, first, wide, v_depth);
        for (int i = 0; i < kTileW; ++i) {
            const float safe = alpha[i] > 1e-10f ? alpha[i] : 1e-10f;
            // depth = sum / alpha: its gradient goes to the sum, and back through alpha.
            const float v_sum = v_depth[i] / safe;
            const float through_alpha = v_alpha[i] - (alpha[i] > 1e-10f ? v_sum * depth[i] : 0.f);
            float behind = v_sum * depth[i] * safe - through_alpha * (1.f - alpha[i]);
            for (int j = 0; j < 3; ++j) v[j][i] = v_colors[3 * i + j], behind += v_colors[3 * i + j] * colors[3 * i + j];
            v[3][i] = v_sum, rest[i] = behind;
        }
        for (int j = 0; j < 4; ++j) to_blocks(v[j], y, canvas.v[j]);
        to_blocks(rest, y, canvas.rest);
    }
}

template <bool kDepth>
inline void entry_backward(BackCanvas& canvas, const LaneOffsets& lanes, const Drop& s, uint64_t hits, float* slot) {
    Vec m[10] = {};  // sums over pixels of g dx, g dy, g dx^2, g dx dy, g dy^2, g, and of weight * v
    for (; hits; hits &= hits - 1) {
        const int b = __builtin_ctzll(hits);
        const Vec px = load(lanes.x) + float(b % 8 * kBlockW), py = load(lanes.y) + float(b / 8 * kBlockH);
        const Vec left_over = load(canvas.left_over[b]);
        const Touch t = touch(s, px, py, left_over, canvas.alive[b]);
        const Vec weight = t.alpha * left_over;
        const Vec red = load(canvas.v[0][b]), green = load(canvas.v[1][b]), blue = load(canvas.v[2][b]);
        Vec own = fma(red, all(s.color[0]), fma(green, all(s.color[1]), blue * s.color[2]));
        if (kDepth) {
            const Vec v_z = load(canvas.v[3][b]);
            own = fma(v_z, all(s.z), own), m[kVz] = fma(weight, v_z, m[kVz]);
        }
        const Vec rest = fnma(weight, own, load(canvas.rest[b]));
        store(canvas.rest[b], rest);
        store(canvas.left_over[b], t.next);
        const Vec v_alpha = fnma(rest, reciprocal(1.f - t.alpha), own * left_over);
        // Where alpha is held at its maximum the splat's shape has no say. log2(0.99) is where that begins.
        const Mask free = at_least(every_lane(), all(-0.014499569695115089f), t.exponent);
        const Vec g = keep(free, v_alpha * t.alpha), gx = g * t.dx, gy = g * t.dy;
        m[0] += gx, m[1] += gy, m[2] = fma(gx, t.dx, m[2]), m[3] = fma(gx, t.dy, m[3]), m[4] = fma(gy, t.dy, m[4]);
        m[5] += g;
        m[6] = fma(weight, red, m[6]), m[7] = fma(weight, green, m[7]), m[8] = fma(weight, blue, m[8]);
    }
    float sums[8];
    sums_of_8(m, sums);
    const float a = s.a * (2.f * kLn2), b = s.b * kLn2, c = s.c * (2.f * kLn2);
    slot[kVx] = a * sums[0] + b * sums[1], slot[kVy] = b * sums[0] + c * sums[1];
    slot[kVa] = -0.5f * sums[2], slot[kVb] = -sums[3], slot[kVc] = -0.5f * sums[4];
    slot[kVLogOpacity] = sums[5], slot[kVRed] = sums[6], slot[kVGreen] = sums[7], slot[kVBlue] = sum(m[8]);
    slot[kVz] = kDepth ? sum(m[kVz]) : 0.f;
}

void blend_backward_all(const GsthCamera& camera, const GsthLists& lists, const Grid& grid, const GsthImageGrads& g,
                        float* slots, int threads) {
    const LaneOffsets lanes;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int index = 0; index < grid.columns * grid.rows; ++index) {
        const Tile tile(index, grid, camera, lists);
        BackCanvas canvas;
        start_backward(canvas, tile, camera, g);
        for (int i = tile.begin; i < tile.end; ++i) {
            prefetch(lists, i + kAhead, tile.end);
            float* slot = slots + ptrdiff_t(lists.entries[2 * ptrdiff_t(i) + 1]) * GSTH_SLOT_FLOATS;
            if (!lists.hits[i]) {
                std::memset(slot, 0, GSTH_SLOT_FLOATS * sizeof(float));
                continue;
            }
            const Drop s = drop_of(pack_of(lists, i), tile);
            if (g.v_depth) entry_backward<true>(canvas, lanes, s, lists.hits[i], slot);
            else entry_backward<false>(canvas, lanes, s, lists.hits[i], slot);
        }
    }
}

}  // namespace
