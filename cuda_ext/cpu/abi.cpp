// The C ABI: picks the instruction set, checks sizes, turns trouble into error codes.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

#include "kernels.h"

#ifndef GSTH_BUILD_ID
#define GSTH_BUILD_ID "unknown"
#endif

namespace {

using gsth::Grid;
using gsth::Kernels;

thread_local char last_error[256] = "";

int fail(int code, const char* format, const char* what) {
    std::snprintf(last_error, sizeof last_error, format, what);
    return code;
}

// The table of a name, or null where this CPU cannot run it.
const Kernels* find(const char* name) {
#ifdef GSTH_HAS_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512 && !std::strcmp(name, "avx512")) return &gsth::kernels_avx512();
    if (avx2 && !std::strcmp(name, "avx2")) return &gsth::kernels_avx2();
#endif
    return std::strcmp(name, "plain") ? nullptr : &gsth::kernels_plain();
}

const Kernels* best() {
    for (const char* name : {"avx512", "avx2"})
        if (const Kernels* k = find(name)) return k;
    return find("plain");
}

std::atomic<const Kernels*> chosen{nullptr};

const Kernels& kernels() {
    const Kernels* k = chosen.load();
    if (!k) chosen = k = best();
    return *k;
}

Grid grid_of(const Kernels& k, int width, int height) {
    return {k.tile_w, k.tile_h, (width + k.tile_w - 1) / k.tile_w, (height + k.tile_h - 1) / k.tile_h};
}

int clamp_threads(int threads) { return threads < 1 ? 1 : threads > 256 ? 256 : threads; }

// Of one calling thread.
struct Arena {
    void* memory = nullptr;
    size_t size = 0;
    ~Arena() { std::free(memory); }
};

template <class Work>
int guarded(Work&& work) {
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return fail(GSTH_NO_MEMORY, "%s", "out of memory");
    }
}

}  // namespace

void* gsth::arena(size_t bytes) {
    static thread_local Arena mine;
    if (bytes > mine.size) {
        std::free(mine.memory);
        mine.size = 0;
        const size_t size = (bytes + bytes / 4 + 63) / 64 * 64;
        if (!(mine.memory = std::aligned_alloc(64, size))) throw std::bad_alloc();
        mine.size = size;
    }
    return mine.memory;
}

extern "C" {

const char* gsth_build_id(void) { return GSTH_BUILD_ID; }
const char* gsth_last_error(void) { return last_error; }
const char* gsth_isa(void) { return kernels().name; }

int gsth_set_isa(const char* name) {
    const Kernels* k = find(name);
    if (!k) return fail(GSTH_BAD_ARGUMENT, "this CPU cannot run the instruction set %s", name);
    chosen = k;
    return GSTH_OK;
}

int32_t gsth_tiles(int32_t width, int32_t height) {
    const Grid grid = grid_of(kernels(), width, height);
    return grid.columns * grid.rows;
}

int gsth_project(const GsthSplats* splats, const GsthCamera* camera, const GsthLists* lists, float* means2d,
                 float* radii_px, int32_t threads) {
    const Kernels& k = kernels();
    const Grid grid = grid_of(k, camera->width, camera->height);
    const int bad = k.project(*splats, *camera, *lists, grid, means2d, radii_px, clamp_threads(threads));
    if (bad >= 0) {
        static const char* const names[] = {"means", "quats", "scales", "opacities", "sh"};
        return fail(GSTH_NOT_FINITE, "%s", names[bad]);
    }
    if (!gsth::number_slots(splats->n, *lists))
        return fail(GSTH_TOO_LARGE, "%s", "more than 2^31 (tile, splat) pairs; are the scales in metres?");
    return GSTH_OK;
}

int gsth_blend(int64_t n, const GsthCamera* camera, const GsthLists* lists, const float* background,
               int32_t background_stride, float* rgb, float* alpha, float* depth, int32_t threads) {
    return guarded([&] {
        const Kernels& k = kernels();
        const Grid grid = grid_of(k, camera->width, camera->height);
        gsth::make_lists(n, *lists, grid, clamp_threads(threads));
        k.blend(*camera, *lists, grid, background, background_stride, rgb, alpha, depth, clamp_threads(threads));
        return int(GSTH_OK);
    });
}

int gsth_backward(const GsthSplats* splats, const GsthCamera* camera, const GsthLists* lists,
                  const GsthImageGrads* image, float* slot_grads, const GsthSplatGrads* out, int32_t threads) {
    return guarded([&] {
        const Kernels& k = kernels();
        const Grid grid = grid_of(k, camera->width, camera->height);
        k.blend_backward(*camera, *lists, grid, *image, slot_grads, clamp_threads(threads));
        k.project_backward(*splats, *camera, *lists, image->v_means2d, slot_grads, *out, clamp_threads(threads));
        return int(GSTH_OK);
    });
}

int gsth_rig(const GsthRigged* rigged, float* means, float* quats, float* scales, float* opacities, int32_t threads) {
    if (!kernels().rig(*rigged, means, quats, scales, opacities, clamp_threads(threads)))
        return fail(GSTH_BAD_ARGUMENT, "%s", "face_ids or faces point past the end of the mesh");
    return GSTH_OK;
}

int gsth_rig_backward(const GsthRigged* rigged, const GsthRigGrads* grads, int32_t threads) {
    return guarded([&] {
        kernels().rig_backward(*rigged, *grads, clamp_threads(threads));
        return int(GSTH_OK);
    });
}

int gsth_l1_ssim(int32_t height, int32_t width, const float* image, const float* target, const float* weights,
                 float ssim_weight, float* loss, float* v_image, int32_t threads) {
    return guarded([&] {
        kernels().l1_ssim(height, width, image, target, weights, ssim_weight, loss, v_image, clamp_threads(threads));
        return int(GSTH_OK);
    });
}

}  // extern "C"
