// What each instruction set provides; abi.cpp picks one table at run time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../include/gsth.h"

namespace gsth {

struct Grid {
    int tile_w, tile_h;  // px
    int columns, rows;   // of tiles
};

struct Kernels {
    const char* name;
    int tile_w, tile_h;
    // Index of the first array that holds a value that is not finite (0 means .. 4 sh), or -1.
    int (*project)(const GsthSplats&, const GsthCamera&, const GsthLists&, const Grid&, float* means2d, float* radii,
                   int threads);
    void (*blend)(const GsthCamera&, const GsthLists&, const Grid&, const float* background, int stride, float* rgb,
                  float* alpha, float* depth, int threads);
    void (*blend_backward)(const GsthCamera&, const GsthLists&, const Grid&, const GsthImageGrads&, float* slots,
                           int threads);
    void (*project_backward)(const GsthSplats&, const GsthCamera&, const GsthLists&, const float* v_means2d,
                             const float* slots, const GsthSplatGrads&, int threads);
    void (*l1_ssim)(int h, int w, const float* image, const float* target, const float* weights, float ssim_weight,
                    float* loss, float* v_image, int threads);
};

const Kernels& kernels_plain();
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define GSTH_HAS_X86 1
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

// Range of tiles that a splat's box touches; empty where x0 > x1 or y0 > y1. Pixel centres lie at i + 0.5.
struct TileRange {
    int x0, x1, y0, y1;
    int count() const { return x0 > x1 || y0 > y1 ? 0 : (x1 - x0 + 1) * (y1 - y0 + 1); }
};

// lists.cpp: depth order and the lists of every tile; entries of one tile are front to back, ties by splat index.
// Counts to running sums; false where these do not fit 32 bits.
bool prefix_slots(int64_t n, int32_t* slots);
void make_lists(int64_t n, const GsthLists& lists, const Grid& grid, int threads);

// rig.cpp: gsth_rig (false: an index is out of range) and gsth_rig_backward.
bool rig(const GsthRigged& rigged, float* means, float* quats, float* scales, float* opacities, int threads);
void rig_backward(const GsthRigged& rigged, const GsthRigGrads& grads, int threads);

// Where what lies in a pack of 16 floats. The exponent of a splat at offset (dx, dy) from its centre is
// log2_opacity - (a dx^2 + b dx dy + c dy^2); kExtentX is 0 where the splat is not drawn; the last four give the ellipse's reach in a strip of rows.
enum Pack {
    kX, kY, kA, kB, kC, kLog2Opacity, kRed, kGreen, kBlue, kZ, kExtentX, kExtentY, kTurn, kSlope, kCurve, kWidth2
};
enum Slot { kVx, kVy, kVa, kVb, kVc, kVLogOpacity, kVRed, kVGreen, kVBlue, kVz };

TileRange tile_range(const float* pack, const Grid& grid);

}  // namespace gsth
