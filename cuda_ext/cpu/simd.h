// A SIMD vector of floats (Vec), its comparison result (Mask) and the few operations that the kernels need, for the
// instruction set that GSTH_ISA names: 512 (AVX-512), 2 (AVX2 + FMA), 0 (whatever the compiler's default has).
// Vec is a GCC vector: + - * / also take a float on one side. All sits in an unnamed namespace, because each
// instruction set compiles this file anew and the linker must not mix them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if GSTH_ISA == 512
using Vec = __m512;
using Mask = __mmask16;
#elif GSTH_ISA == 2
using Vec = __m256;
typedef int32_t Mask __attribute__((vector_size(32)));
#else
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));
#endif

constexpr int kLanes = sizeof(Vec) / sizeof(float);
typedef float VecAnywhere __attribute__((vector_size(sizeof(Vec)), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(sizeof(Vec))));

inline Vec all(float x) {
#if GSTH_ISA == 512
    return _mm512_set1_ps(x);
#elif GSTH_ISA == 2
    return _mm256_set1_ps(x);
#else
    return Vec{x, x, x, x};
#endif
}
inline Vec load(const float* p) { return *reinterpret_cast<const VecAnywhere*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<VecAnywhere*>(p) = x; }

// Used by the shared arithmetic, where conditions are the vectors that GCC's comparisons give.
inline Vec select(Ints yes, Vec a, Vec b) { return yes ? a : b; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }

#if GSTH_ISA == 512
inline Vec root(Vec x) { return _mm512_sqrt_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
inline Mask at_least(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask above(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask both(Mask a, Mask b) { return _kand_mask16(a, b); }
inline Mask first_only(Mask a, Mask b) { return _kandn_mask16(b, a); }
inline Vec pick(Mask m, Vec a, Vec b) { return _mm512_mask_blend_ps(m, b, a); }
inline Vec keep(Mask m, Vec a) { return _mm512_maskz_mov_ps(m, a); }
inline bool any(Mask m) { return m != 0; }
inline Vec reciprocal(Vec x) {
    const Vec r = _mm512_rcp14_ps(x);
    return r * fnma(x, r, all(2.f));
}
inline Vec nearest(Vec x) { return _mm512_roundscale_ps(x, 0); }
inline Vec times_power_of_2(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
#elif GSTH_ISA == 2
inline Vec root(Vec x) { return _mm256_sqrt_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
inline bool any(Mask m) { return _mm256_movemask_ps(reinterpret_cast<Vec>(m)) != 0; }
inline Vec reciprocal(Vec x) {
    const Vec r = _mm256_rcp_ps(x);
    return r * fnma(x, r, all(2.f));
}
inline Vec nearest(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
#else
inline Vec root(Vec x) {
    for (int i = 0; i < kLanes; ++i) x[i] = std::sqrt(x[i]);
    return x;
}
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
inline Vec fnma(Vec a, Vec b, Vec c) { return c - a * b; }
inline bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
inline Vec reciprocal(Vec x) { return 1.f / x; }
inline Vec nearest(Vec x) {
    // Adding and taking away 1.5 * 2^23 rounds |x| < 2^22 to an integer; the kernels clamp before.
    return (x + 12582912.f) - 12582912.f;
}
#endif

#if GSTH_ISA != 512
inline Mask at_least(Vec a, Vec b) { return a >= b; }
inline Mask above(Vec a, Vec b) { return a > b; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Mask first_only(Mask a, Mask b) { return a & ~b; }
inline Vec pick(Mask m, Vec a, Vec b) { return m ? a : b; }
inline Vec keep(Mask m, Vec a) { return reinterpret_cast<Vec>(reinterpret_cast<Mask>(a) & m); }
inline Vec times_power_of_2(Vec x, Vec n) {
    return reinterpret_cast<Vec>(reinterpret_cast<Ints>(x) + (__builtin_convertvector(n, Ints) << 23));
}
#endif

// 2^x for -126 < x < 126, relative error 1e-7 (minimax polynomial of degree 5 on [-0.5, 0.5]).
inline Vec exp2_of(Vec x) {
    const Vec n = nearest(x), f = x - n;
    Vec p = fma(f, all(1.32647e-3f), all(9.67152e-3f));
    p = fma(f, p, all(5.550734e-2f));
    p = fma(f, p, all(2.4022242e-1f));
    p = fma(f, p, all(6.9314698e-1f));
    p = fma(f, p, all(1.f));
    return times_power_of_2(p, n);
}

inline float sum(Vec x) {
#if GSTH_ISA == 512
    return _mm512_reduce_add_ps(x);
#else
    float total = 0;
    for (int i = 0; i < kLanes; ++i) total += x[i];
    return total;
#endif
}

// Sums of the lanes of eight vectors, at once.
inline void sums_of_8(const Vec v[8], float out[8]) {
#if GSTH_ISA == 512 || GSTH_ISA == 2
    __m256 h[8];
    for (int i = 0; i < 8; ++i) {
#if GSTH_ISA == 512
        h[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
#else
        h[i] = v[i];
#endif
    }
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(h[0], h[1]), _mm256_hadd_ps(h[2], h[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(h[4], h[5]), _mm256_hadd_ps(h[6], h[7]));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
#else
    for (int i = 0; i < 8; ++i) out[i] = sum(v[i]);
#endif
}

}  // namespace
