// The C ABI of gsth's kernels: raw pointers to contiguous arrays, sizes, a thread count. No torch, no C++ types.
// Every function returns 0 or an error code; gsth_last_error() then says what was wrong (per calling thread).
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GSTH_API __attribute__((visibility("default")))
#define GSTH_PACK_FLOATS 16 /* floats that projection leaves per splat */
#define GSTH_SLOT_FLOATS 12 /* floats of gradient per (tile, splat) */

enum { GSTH_OK = 0, GSTH_NOT_FINITE = 1, GSTH_TOO_LARGE = 2, GSTH_BAD_ARGUMENT = 3, GSTH_NO_MEMORY = 4 };

// n splats in the world frame, as gsth.types.Splats; bases is 1, 4, 9 or 16.
typedef struct {
    int64_t n;
    int32_t bases;
    const float *means, *quats, *scales, *opacities, *sh;
} GsthSplats;

// One pinhole camera: world to camera [4 4] and intrinsics [3 3], row-major. antialiased: 1 multiplies opacities by the
// share of its area that a splat had before it was dilated (Yu et al. 2024, Mip-Splatting; gsplat's "antialiased").
typedef struct {
    const float *viewmat, *K;
    int32_t width, height, antialiased;
} GsthCamera;

// The tiles that the box of a splat touches (none: x0 > x1), its depth's bits and its first gradient slot.
typedef struct {
    uint16_t x0, x1, y0, y1;
    uint32_t depth;
    int32_t slot;
} GsthBox;

// What the forward pass leaves for blending and for the backward pass; the caller owns the memory.
typedef struct {
    float *packs;         // [n 16] projected splats
    int32_t *boxes;       // [n 4] what sorting and binning read: see GsthBox
    int32_t *slots;       // [n + 1] first gradient slot of each splat; the last is the total m
    int32_t *tile_firsts; // [tiles + 1] first entry of each tile
    int32_t *entries;     // [m 2] splat and slot, tile after tile, front to back
    uint64_t *hits;       // [m] which of the tile's 8 x 8 blocks the entry coloured; NULL: no backward pass follows
} GsthLists;

// Hash of sources and flags that the library was built from; it changes with every change of this interface.
GSTH_API const char *gsth_build_id(void);
GSTH_API const char *gsth_last_error(void);
// "avx512", "avx2" or "plain": the instruction set in use. Setting one that the CPU lacks is an error.
GSTH_API const char *gsth_isa(void);
GSTH_API int gsth_set_isa(const char *name);
// Number of tiles of an image for the instruction set in use.
GSTH_API int32_t gsth_tiles(int32_t width, int32_t height);

// Projects, checks that all is finite, counts (tile, splat) pairs: fills packs, slots, means2d [n 2], radii_px [n].
GSTH_API int gsth_project(const GsthSplats *splats, const GsthCamera *camera, const GsthLists *lists, float *means2d,
                          float *radii_px, int32_t threads);
// Sorts, bins and blends: fills the rest of the lists, rgb [h w 3], alpha [h w], depth [h w].
// background is [3] (background_stride 0) or [h w 3] (stride 3).
GSTH_API int gsth_blend(int64_t n, const GsthCamera *camera, const GsthLists *lists, const float *background,
                        int32_t background_stride, float *rgb, float *alpha, float *depth, int32_t threads);

typedef struct {
    const float *rgb, *alpha, *depth;       // what gsth_blend returned
    const float *v_rgb, *v_alpha, *v_depth; // loss gradients; the last two may be NULL
    const float *v_means2d;                 // [n 2] gradient of the projected centres themselves, or NULL
} GsthImageGrads;

typedef struct {
    float *means, *quats, *scales, *opacities, *sh; // as GsthSplats
    float *viewmat;                                 // [4 4]
    float *grad_px;                                 // [n] norm of the gradient of means2d
} GsthSplatGrads;

// Backward of gsth_project and gsth_blend together. slot_grads is scratch of m * 12 floats.
GSTH_API int gsth_backward(const GsthSplats *splats, const GsthCamera *camera, const GsthLists *lists,
                           const GsthImageGrads *image, float *slot_grads, const GsthSplatGrads *out, int32_t threads);

// Rigged splats and one frame of a mesh, as gsth.types; face_ids and faces are int64.
typedef struct {
    int64_t n, faces_count, verts_count;
    const int64_t *face_ids, *faces;
    const float *verts, *means_tri, *quats_tri, *log_scales, *logit_opacities;
} GsthRigged;

GSTH_API int gsth_rig(const GsthRigged *rigged, float *means, float *quats, float *scales, float *opacities,
                      int32_t threads);

typedef struct {
    const float *v_means, *v_quats, *v_scales, *v_opacities;
    float *verts, *means_tri, *quats_tri, *log_scales, *logit_opacities;
} GsthRigGrads;

GSTH_API int gsth_rig_backward(const GsthRigged *rigged, const GsthRigGrads *grads, int32_t threads);

// L1 + SSIM of [h w 3] images (gsth.render.l1_ssim_loss): the value and its gradient to image (NULL: not wanted).
// weights is [h w] or NULL.
GSTH_API int gsth_l1_ssim(int32_t height, int32_t width, const float *image, const float *target, const float *weights,
                          float ssim_weight, float *loss, float *v_image, int32_t threads);

#ifdef __cplusplus
}
#endif
