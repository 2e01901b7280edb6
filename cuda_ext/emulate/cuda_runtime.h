// Stands in for the CUDA toolkit's cuda_runtime.h: the .cu files compile with g++ and their kernels run on the CPU.
//
// Blocks run one after the other; the threads of a block are fibers that run until they meet a barrier or a warp
// collective. That keeps the meaning of shared memory, barriers, shuffles, votes and atomics, and it is stricter than a
// GPU: a collective that not all lanes of a warp reach, different collectives met at once, or a barrier that a thread
// of the block has left out stops the launch with an error. GSTH's kernels use full-warp collectives only.
// Blocks and threads can run in any order (gsth_emulate_order), so a result that depends on the order, which is what a
// missing barrier or a forgotten atomic makes of it, shows as a difference between two orders.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// One block runs at a time, so what a block shares is what is static.
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

typedef int cudaError_t;
typedef struct CUstream_st* cudaStream_t;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t code);
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
    std::memset(p, value, bytes);
    return cudaSuccess;
}

struct cudaFuncAttributes { int numRegs; };
template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*)(P...)) {
    attributes->numRegs = 0;
    return cudaSuccess;
}

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulate {

void run(dim3 grid, dim3 block, const std::function<void()>& thread);
// Waits for all lanes of the warp, then returns the 64-bit values that each of them brought.
const uint64_t* meet_warp(uint64_t value, const char* what);
// Waits for all threads of the block; returns how many of them brought true.
int meet_block(bool vote);
// Stops the launch.
[[noreturn]] void fail(const char* why);

inline int lane() { return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31; }

template <class T>
inline T exchange(unsigned mask, T value, int from, const char* what) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a shuffle moves up to 8 bytes");
    if (mask != 0xffffffffu) fail("a warp collective of less than a whole warp");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    const uint64_t* all = meet_warp(bits, what);
    T result;
    std::memcpy(&result, &all[from & 31], sizeof(T));
    return result;
}

template <class... P, class... A>
void launch(dim3 grid, dim3 block, void (*kernel)(P...), const A&... arguments) {
    run(grid, block, [&] { kernel(arguments...); });
}

}  // namespace emulate

inline void __syncthreads() { emulate::meet_block(false); }
inline int __syncthreads_count(int vote) { return emulate::meet_block(vote != 0); }
inline int __syncthreads_and(int vote) { return emulate::meet_block(vote == 0) == 0; }
inline int __syncthreads_or(int vote) { return emulate::meet_block(vote != 0) != 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulate::exchange(mask, 0, 0, "__syncwarp"); }
inline unsigned __ballot_sync(unsigned mask, int vote) {
    if (mask != 0xffffffffu) emulate::fail("a warp collective of less than a whole warp");
    const uint64_t* all = emulate::meet_warp(vote != 0, "__ballot_sync");
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= unsigned(all[i]) << i;
    return bits;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == 0xffffffffu; }
template <class T>
inline T __shfl_sync(unsigned mask, T value, int from) {
    return emulate::exchange(mask, value, from, "__shfl_sync");
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return emulate::exchange(mask, value, emulate::lane() ^ bits, "__shfl_xor_sync");
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int distance) {
    const int from = emulate::lane() - distance;
    return emulate::exchange(mask, value, from < 0 ? emulate::lane() : from, "__shfl_up_sync");
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int distance) {
    const int from = emulate::lane() + distance;
    return emulate::exchange(mask, value, from > 31 ? emulate::lane() : from, "__shfl_down_sync");
}

template <class T>
inline T atomicAdd(T* p, T value) {
    const T before = *p;
    *p = before + value;
    return before;
}
template <class T>
inline T atomicOr(T* p, T value) {
    const T before = *p;
    *p = before | value;
    return before;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
template <class T>
inline T __ldg(const T* p) {
    return *p;
}
