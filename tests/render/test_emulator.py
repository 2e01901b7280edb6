"""The emulated GPU sees the faults that it is there to see."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
from emulated import build

from gsth.render import _build

FAULTS = r"""
#include <cuda_runtime.h>

// Each thread hands its value to its neighbour through shared memory.
template <bool kBarrier>
__global__ void neighbour(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = int(threadIdx.x);
    if (kBarrier) __syncthreads();
    out[threadIdx.x] = values[(threadIdx.x + 33) % 64];
}
__global__ void lonely_lanes(int* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void two_places(int* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
    else out[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
}
__global__ void lonely_warp(int* out) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void half_a_warp(int* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }
__global__ void collectives(int* out) {
    int sum = int(threadIdx.x);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const int up = __shfl_up_sync(0xffffffffu, int(threadIdx.x), 3);
    const int votes = __syncthreads_count(threadIdx.x % 3 == 0);
    atomicAdd(&out[threadIdx.x], sum + 1000 * up + 1000000 * votes);
}

extern "C" __attribute__((visibility("default"))) const char* launch(int which, int threads, int* out) {
    void (*const kernels[])(int*) = {neighbour<true>, neighbour<false>, lonely_lanes, two_places,
                                     lonely_warp, half_a_warp, collectives};
    emulate::launch(dim3(1), dim3(threads), kernels[which], out);
    return cudaGetErrorString(cudaGetLastError());
}
"""
NAMES = ("neighbour", "no barrier", "lonely lanes", "two places", "lonely warp", "half a warp", "collectives")


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if _build.source_root() is None or shutil.which(_build.compiler()) is None:
        pytest.skip("needs the kernel sources and a compiler")
    source: Path = tmp_path_factory.mktemp("faults") / "faults.cu"
    source.write_text(FAULTS)
    library = build([source], source.parent)
    library.launch.restype = ctypes.c_char_p
    return library


def launch(faults: ctypes.CDLL, name: str, order: int = 0, threads: int = 64) -> tuple[str, list[int]]:
    """The error's text and what the threads wrote."""
    out = (ctypes.c_int * 64)()
    faults.gsth_emulate_order(order)
    return faults.launch(NAMES.index(name), threads, out).decode(), list(out)


def test_a_missing_barrier_shows_between_two_orders(faults: ctypes.CDLL) -> None:
    want = [(i + 33) % 64 for i in range(64)]
    assert [launch(faults, "neighbour", order) for order in (0, 1, 2)] == [("no error", want)] * 3
    assert launch(faults, "no barrier", 0)[1] != launch(faults, "no barrier", 1)[1]


@pytest.mark.parametrize(
    ("name", "message"),
    (
        ("lonely lanes", "only 16 lanes of a warp reach __shfl_xor_sync"),
        ("two places", "different collectives"),
        ("lonely warp", "only 32 of 64 threads reach a barrier"),
        ("half a warp", "less than a whole warp"),
    ),
)
def test_threads_that_part_are_an_error(faults: ctypes.CDLL, name: str, message: str) -> None:
    assert message in launch(faults, name)[0]
    assert launch(faults, "neighbour")[0] == "no error"  # the next launch is not harmed


def test_a_launch_that_a_gpu_refuses_is_refused(faults: ctypes.CDLL) -> None:
    assert "1 blocks of 48 threads" in launch(faults, "neighbour", threads=48)[0]


@pytest.mark.parametrize("order", (0, 1, 2))
def test_collectives_give_what_cuda_gives(faults: ctypes.CDLL, order: int) -> None:
    error, got = launch(faults, "collectives", order)
    sums, votes = (sum(range(32)), sum(range(32, 64))), len(range(0, 64, 3))
    want = [sums[i // 32] + 1000 * (i - 3 if i % 32 >= 3 else i) + 1000000 * votes for i in range(64)]
    assert (error, got) == ("no error", want)
