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
typedef int32_t IntsAnywhere __attribute__((vector_size(sizeof(Vec)), aligned(4), may_alias));

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

#if GSTH_ISA == 512
inline Vec larger(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec smaller(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec root(Vec x) { return _mm512_sqrt_ps(x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
// Comparisons give false for the lanes outside `among`; keep() gives 0 for those outside m.
inline Mask at_least(Mask among, Vec a, Vec b) { return _mm512_mask_cmp_ps_mask(among, a, b, _CMP_GE_OQ); }
inline Mask first_only(Mask a, Mask b) { return _kandn_mask16(b, a); }
inline Vec keep(Mask m, Vec a) { return _mm512_maskz_mov_ps(m, a); }
inline bool any(Mask m) { return m != 0; }
inline Mask every_lane() { return 0xffff; }
inline Mask first_lanes(int count) { return Mask((1u << count) - 1); }
inline Vec reciprocal(Vec x) {
    const Vec r = _mm512_rcp14_ps(x);
    return r * fnma(x, r, all(2.f));
}
inline Vec nearest(Vec x) { return _mm512_roundscale_ps(x, 0); }
inline Vec times_power_of_2(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
#elif GSTH_ISA == 2
inline Vec larger(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec smaller(Vec a, Vec b) { return _mm256_min_ps(a, b); }
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
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline Vec smaller(Vec a, Vec b) { return a < b ? a : b; }
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
inline Mask at_least(Mask among, Vec a, Vec b) { return among & (a >= b); }
inline Mask first_only(Mask a, Mask b) { return a & ~b; }
inline Vec keep(Mask m, Vec a) { return reinterpret_cast<Vec>(reinterpret_cast<Mask>(a) & m); }
inline Mask every_lane() { return ~Mask{}; }
inline Mask first_lanes(int count) {
    Mask m;
    for (int i = 0; i < kLanes; ++i) m[i] = i < count ? -1 : 0;
    return m;
}
inline Vec times_power_of_2(Vec x, Vec n) {
    return reinterpret_cast<Vec>(reinterpret_cast<Ints>(x) + (__builtin_convertvector(n, Ints) << 23));
}
#endif

// The floats p[index[lane]].
inline Vec load_at(const float* p, Ints index) {
#if GSTH_ISA == 512
    return _mm512_i32gather_ps(reinterpret_cast<__m512i>(index), p, 4);
#elif GSTH_ISA == 2
    return _mm256_i32gather_ps(p, reinterpret_cast<__m256i>(index), 4);
#else
    return Vec{p[index[0]], p[index[1]], p[index[2]], p[index[3]]};
#endif
}

// Writes the lanes of m to p[index[lane]].
inline void store_at(float* p, Ints index, Mask m, Vec x) {
#if GSTH_ISA == 512
    _mm512_mask_i32scatter_ps(p, m, reinterpret_cast<__m512i>(index), x, 4);
#else
    for (int i = 0; i < kLanes; ++i)
        if (m[i]) p[index[i]] = x[i];
#endif
}

// 2^x for -126 < x < 126, relative error 3e-06 (minimax polynomial of degree 4 on [-0.5, 0.5]). What it gives outside is
// finite or not as it comes: callers mask it.
inline Vec exp2_of(Vec x) {
    const Vec n = nearest(x), f = x - n;
    Vec p = fma(f, all(0.00957010191f), all(0.0559178603f));
    p = fma(f, p, all(0.240247448f));
    p = fma(f, p, all(0.693121815f));
    p = fma(f, p, all(0.999999261f));
    return times_power_of_2(p, n);
}

// log2(x) for normal x > 0, error 1e-7: x = 2^n m with m around 1, and the series of atanh((m - 1) / (m + 1)).
inline Vec log2_of(Vec x) {
    constexpr int32_t root_half = 0x3f3504f3;  // bits of sqrt(0.5), the least m
    const Ints bits = reinterpret_cast<Ints>(x), n = (bits - root_half) >> 23;
    const Vec m = reinterpret_cast<Vec>(bits - (n << 23)), s = (m - 1.f) / (m + 1.f), square = s * s;
    Vec p = fma(square, all(0.412198583f), all(0.577078016f));
    p = fma(square, p, all(0.961796694f));
    p = fma(square, p, all(2.88539008f));
    return fma(s, p, __builtin_convertvector(n, Vec));
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
