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
    // False: an index is out of range.
    bool (*rig)(const GsthRigged&, float* means, float* quats, float* scales, float* opacities, int threads);
    void (*rig_backward)(const GsthRigged&, const GsthRigGrads&, int threads);
    void (*l1_ssim)(int h, int w, const float* image, const float* target, const float* weights, float ssim_weight,
                    float* loss, float* v_image, int threads);
};

const Kernels& kernels_plain();
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define GSTH_HAS_X86 1
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

// Memory of the calling thread, kept from call to call and grown when needed; 64-byte aligned, not cleared. One use at
// a time: what it held before is lost. Throws std::bad_alloc.
void* arena(size_t bytes);

// lists.cpp: depth order and the lists of every tile; entries of one tile are front to back, ties by splat index.
// Gives every (tile, splat) pair a gradient slot, splat after splat; false where these do not fit 32 bits.
bool number_slots(int64_t n, const GsthLists& lists);
void make_lists(int64_t n, const GsthLists& lists, const Grid& grid, int threads);

// What lies where in a pack of 16 floats. The exponent of a splat at offset (dx, dy) from its centre is
// log2_opacity - (a dx^2 + b dx dy + c dy^2). kDrawn is 1 or 0; the last four give the ellipse's reach in a strip of
// rows.
enum Pack {
    kX, kY, kA, kB, kC, kLog2Opacity, kRed, kGreen, kBlue, kZ, kDrawn, kSpare, kTurn, kSlope, kCurve, kWidth2
};
enum Slot { kVx, kVy, kVa, kVb, kVc, kVLogOpacity, kVRed, kVGreen, kVBlue, kVz };

}  // namespace gsth
