// The kernels for one instruction set. Library headers come before the target is switched, so that no function that
// the linker may share with other files is compiled for it.
#include <omp.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"



#define GSTH_ISA 0
#include "simd.h"

#include "../include/splat_math.h"
#include "blend_impl.h"
#include "project_impl.h"
#include "rig_impl.h"
#include "ssim_impl.h"

namespace gsth {

const Kernels& kernels_plain() {
    static constexpr Kernels table = {"plain", kTileW, kTileH, project_all, blend_all, blend_backward_all,
                                      project_backward_all, rig_all, rig_backward_all, l1_ssim_all};
    return table;
}

}  // namespace gsth

