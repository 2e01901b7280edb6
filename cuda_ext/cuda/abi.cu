// The C ABI: checks sizes, clears counters, turns trouble into error codes.
#include <stdio.h>

#include "common.cuh"

#ifndef GSTH_BUILD_ID
#define GSTH_BUILD_ID "unknown"
#endif

namespace {

using gsth::grid_of;

thread_local char last_error[256] = "";

int fail(int code, const char* what) {
    snprintf(last_error, sizeof last_error, "%s", what);
    return code;
}

// What the launches since the last call came to; what a kernel does wrong later shows in a later call.
int launched() {
    const cudaError_t code = cudaGetLastError();
    if (code == cudaSuccess) return GSTH_OK;
    snprintf(last_error, sizeof last_error, "CUDA error %d: %s", int(code), cudaGetErrorString(code));
    return GSTH_CUDA_FAILED;
}

int check(const GsthCudaScene& s) {
    if (s.n < 0 || s.views < 1 || s.width < 1 || s.height < 1 || (s.sets != 1 && s.sets != s.views) ||
        (s.bases != 1 && s.bases != 4 && s.bases != 9 && s.bases != 16) ||
        (s.background_stride != 0 && s.background_stride != 3))
        return fail(GSTH_BAD_ARGUMENT, "the scene has a size that cannot be");
    if (s.views > 65535 || s.width > 65535 || s.height > 65535 || int64_t(s.n) * s.views > INT32_MAX ||
        int64_t(grid_of(s).tiles()) * s.views > INT32_MAX - 1)
        return fail(GSTH_TOO_LARGE, "more than 2^31 splats or tiles in one launch; render fewer views at a time");
    return GSTH_OK;
}

}  // namespace

extern "C" {

const char* gsth_cuda_build_id(void) { return GSTH_BUILD_ID; }
const char* gsth_cuda_last_error(void) { return last_error; }

int gsth_cuda_can_run(void) {
    if (gsth::can_run()) return GSTH_OK;
    const char* why = cudaGetErrorString(cudaGetLastError());
    snprintf(last_error, sizeof last_error, "not compiled for this GPU (%s)", why);
    return GSTH_CUDA_FAILED;
}

int gsth_cuda_project(const GsthCudaScene* scene, const GsthCudaLists* lists, float* means2d, float* radii_px,
                      GsthStream stream) {
    if (const int bad = check(*scene)) return bad;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    cudaMemsetAsync(lists->status, 0, 2 * sizeof(int64_t), s);
    cudaMemsetAsync(lists->cursors, 0, sizeof(int32_t) * size_t(grid_of(*scene).tiles()) * scene->views, s);
    gsth::project(*scene, *lists, means2d, radii_px, stream);
    return launched();
}

int gsth_cuda_blend(const GsthCudaScene* scene, const GsthCudaLists* lists, const GsthCudaImages* images,
                    GsthStream stream) {
    if (const int bad = check(*scene)) return bad;
    gsth::make_lists(*scene, *lists, stream);
    gsth::blend(*scene, *lists, *images, stream);
    return launched();
}

int gsth_cuda_backward(const GsthCudaScene* scene, const GsthCudaLists* lists, const GsthCudaImageGrads* image,
                       const GsthCudaSplatGrads* out, GsthStream stream) {
    if (const int bad = check(*scene)) return bad;
    gsth::blend_backward(*scene, *lists, *image, stream);
    gsth::project_backward(*scene, *lists, *image, *out, stream);
    return launched();
}

int gsth_cuda_rig(const GsthCudaRigged* rigged, float* means, float* quats, float* scales, float* opacities,
                  GsthStream stream) {
    gsth::rig(*rigged, means, quats, scales, opacities, stream);
    return launched();
}

int gsth_cuda_rig_backward(const GsthCudaRigged* rigged, const GsthCudaRigOwners* owners,
                           const GsthCudaRigGrads* grads, GsthStream stream) {
    gsth::rig_backward(*rigged, *owners, *grads, stream);
    return launched();
}

int32_t gsth_cuda_l1_ssim_blocks(int32_t height, int32_t width) { return gsth::loss_blocks(height, width); }

int gsth_cuda_l1_ssim(const GsthCudaLoss* loss, GsthStream stream) {
    if (loss->height < 1 || loss->width < 1 || loss->width > INT32_MAX / 3)
        return fail(GSTH_BAD_ARGUMENT, "the images have a size that cannot be");
    gsth::l1_ssim(*loss, stream);
    return launched();
}

}  // extern "C"
