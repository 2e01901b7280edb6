// The C ABI of gsth's CUDA kernels: raw device pointers to contiguous arrays, sizes, a stream. Errors as in gsth.h.
//
// Nothing here allocates, waits for the device or reads from it, so every sequence of calls can be captured in a CUDA
// graph. What the host must know it reads itself from status, when it likes: see GsthCudaLists.
#pragma once
#include "gsth.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GSTH_CUDA_PACK_FLOATS 12
#define GSTH_CUDA_SPAN_INTS 4
#define GSTH_CUDA_TILE_PX 16

enum { GSTH_CUDA_FAILED = 5 };

typedef void *GsthStream;  // cudaStream_t

// n splats, shared by all views (sets 1) or placed anew for every view (sets = views), and one camera per view.
typedef struct {
    int32_t n, views, sets, bases;
    const float *means, *quats, *scales;  // [sets n 3], [sets n 4], [sets n 3]
    const float *opacities, *sh;          // [n], [n bases 3]
    const float *viewmats, *Ks;           // [views 4 4], [views 3 3]
    const float *background;              // [3] (background_stride 0) or [height width 3] (stride 3)
    int32_t background_stride, width, height, antialiased;  // antialiased: as in GsthCamera
} GsthCudaScene;

// What the forward pass leaves for the backward pass; the caller owns the memory.
typedef struct {
    float *packs;          // [views n 12] projected splats
    int32_t *spans;        // [views n 4] first gradient slot, tile range
    int32_t *cursors;      // [views tiles] scratch
    int32_t *tile_firsts;  // [views tiles + 1] first key of each tile
    uint64_t *keys;        // [capacity] depth and splat, tile after tile, front to back
    // [2]: number of (tile, splat) pairs; bit k set: array k (means quats scales opacities sh viewmats Ks background)
    // holds a value that is not finite. Filled by gsth_cuda_project. Where pairs > capacity or a bit is set, the
    // lists stay empty and gsth_cuda_blend paints NaN: a wrong picture is never taken for a right one.
    int64_t *status;
    int32_t capacity;
} GsthCudaLists;

// Where blending leaves its pictures.
typedef struct {
    float *rgb, *alpha, *depth;  // [views height width 3], [views height width] twice
} GsthCudaImages;

GSTH_API const char *gsth_cuda_build_id(void);
GSTH_API const char *gsth_cuda_last_error(void);
// GSTH_OK where the current device can run these kernels; an error where they were compiled for other devices.
GSTH_API int gsth_cuda_can_run(void);

// Projects and counts: fills packs, spans, status, means2d [views n 2], radii_px [views n].
GSTH_API int gsth_cuda_project(const GsthCudaScene *scene, const GsthCudaLists *lists, float *means2d, float *radii_px,
                               GsthStream stream);
// Bins, sorts and blends; after gsth_cuda_project.
GSTH_API int gsth_cuda_blend(const GsthCudaScene *scene, const GsthCudaLists *lists, const GsthCudaImages *images,
                             GsthStream stream);

typedef struct {
    GsthCudaImages images;                  // what gsth_cuda_blend returned
    const float *v_rgb, *v_alpha, *v_depth; // loss gradients; the last two may be NULL
    const float *v_means2d;                 // [views n 2] gradient of the projected centres themselves, or NULL
    float *slots;                           // [capacity 12] scratch
    float *partials;                        // [views (n + 127) / 128 12] scratch; may be NULL where viewmats is
} GsthCudaImageGrads;

typedef struct {
    float *means, *quats, *scales, *opacities, *sh;  // as GsthCudaScene
    float *viewmats;                                 // [views 4 4], or NULL
    float *grad_px;                                  // [views n] norm of the gradient of means2d
} GsthCudaSplatGrads;

GSTH_API int gsth_cuda_backward(const GsthCudaScene *scene, const GsthCudaLists *lists,
                                const GsthCudaImageGrads *image, const GsthCudaSplatGrads *out, GsthStream stream);

// Rigged splats and some frames of a mesh; face_ids and faces are int64 and must lie in range: nobody checks here.
typedef struct {
    int32_t n, faces_count, verts_count, frames;
    const int64_t *face_ids, *faces;
    const float *verts;  // [frames v 3]
    const float *means_tri, *quats_tri, *log_scales, *logit_opacities;
} GsthCudaRigged;

// means [frames n 3], quats [frames n 4], scales [frames n 3], opacities [n].
GSTH_API int gsth_cuda_rig(const GsthCudaRigged *rigged, float *means, float *quats, float *scales, float *opacities,
                           GsthStream stream);

// Which splats each triangle carries and which triangle corners meet in each vertex: members[firsts[i] ..
// firsts[i + 1]) belong to i. A corner is 3 * face + 0, 1 or 2.
typedef struct {
    const int32_t *face_firsts, *face_members;    // [faces + 1], [n]
    const int32_t *vert_firsts, *vert_members;    // [verts + 1], [3 faces]
} GsthCudaRigOwners;

typedef struct {
    const float *v_means, *v_quats, *v_scales, *v_opacities;  // as gsth_cuda_rig returned them
    float *verts;                                             // [frames v 3], or NULL
    float *means_tri, *quats_tri, *log_scales, *logit_opacities;
    float *splat_sums;   // [frames n 8] scratch
    float *corner_sums;  // [frames faces 9] scratch
} GsthCudaRigGrads;

GSTH_API int gsth_cuda_rig_backward(const GsthCudaRigged *rigged, const GsthCudaRigOwners *owners,
                                    const GsthCudaRigGrads *grads, GsthStream stream);

// L1 + SSIM of [height width 3] images: loss [1] and its gradient to image (NULL: not wanted). weights is [height
// width] or NULL. derivatives [9 height width] may be NULL where v_image is; sums is scratch of
// 3 * gsth_cuda_l1_ssim_blocks(height, width) + 1 doubles.
typedef struct {
    int32_t height, width;
    float ssim_weight;
    const float *image, *target, *weights;
    float *loss, *v_image, *derivatives;
    double *sums;
} GsthCudaLoss;

GSTH_API int32_t gsth_cuda_l1_ssim_blocks(int32_t height, int32_t width);
GSTH_API int gsth_cuda_l1_ssim(const GsthCudaLoss *loss, GsthStream stream);

#ifdef __cplusplus
}
#endif
