// The scheduler of the emulated GPU: fibers with barriers. See cuda_runtime.h.
#include "cuda_runtime.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t kStack = 128 * 1024;
enum class State { kNew, kReady, kWarp, kBlock, kDone };

struct Fiber {
    std::unique_ptr<char[]> stack;
    ucontext_t entry;
    jmp_buf resume;
    State state;
    dim3 index;
    const char* what;    // the warp collective that it waits in
    uint64_t value[2];   // what it brings, double-buffered: a fast lane may already bring the next
    unsigned meetings;   // warp collectives so far
    bool vote;
};

struct Warp {
    uint64_t values[2][32];
};

enum Order { kForward, kBackward, kShuffled };

std::vector<Fiber> fibers;
std::vector<Warp> warps;
jmp_buf scheduler;
int current, votes, order = kForward;
const std::function<void()>* body;
char failure[200] = "";
cudaError_t last_error = cudaSuccess;

void yield(State state) {
    Fiber& f = fibers[current];
    f.state = state;
    if (_setjmp(f.resume) == 0) _longjmp(scheduler, 1);
}

void enter() {
    (*body)();
    fibers[current].state = State::kDone;
    _longjmp(scheduler, 1);
}

void resume(int i) {
    current = i;
    Fiber& f = fibers[i];
    threadIdx = f.index;
    if (_setjmp(scheduler) != 0) return;
    if (f.state == State::kNew) {
        f.state = State::kReady;
        setcontext(&f.entry);
    }
    _longjmp(f.resume, 1);
}

void prepare(int i) {
    Fiber& f = fibers[i];
    if (!f.stack) f.stack.reset(new char[kStack]);
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f.stack.get(), kStack);  // the last fiber left its frames by a jump
#endif
    f.state = State::kNew, f.meetings = 0;
    f.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    getcontext(&f.entry);
    f.entry.uc_stack.ss_sp = f.stack.get(), f.entry.uc_stack.ss_size = kStack, f.entry.uc_link = nullptr;
    makecontext(&f.entry, enter, 0);
}

std::vector<int> sequence(int count) {
    static std::mt19937 random(1);
    std::vector<int> s(count);
    for (int i = 0; i < count; ++i) s[i] = order == kBackward ? count - 1 - i : i;
    if (order == kShuffled) std::shuffle(s.begin(), s.end(), random);
    return s;
}

// Lets the lanes of a warp go on if all of them wait in the same collective.
bool release_warp(int w) {
    Fiber* lanes = &fibers[32 * w];
    int waiting = 0;
    const char* what = "";
    for (int i = 0; i < 32; ++i)
        if (lanes[i].state == State::kWarp) ++waiting, what = lanes[i].what;
    if (waiting == 0) return false;
    for (int i = 0; i < 32; ++i) {
        if (waiting == 32 && std::strcmp(lanes[i].what, lanes[0].what)) {
            std::snprintf(failure, sizeof failure, "%s", "lanes of a warp meet in different collectives");
            return false;
        }
        // The others of this warp have run as far as they can.
        if (waiting < 32 && (lanes[i].state == State::kDone || lanes[i].state == State::kBlock)) {
            std::snprintf(failure, sizeof failure, "only %d lanes of a warp reach %s", waiting, what);
            return false;
        }
    }
    if (waiting < 32) return false;
    const unsigned slot = lanes[0].meetings & 1;
    for (int i = 0; i < 32; ++i) {
        warps[w].values[slot][i] = lanes[i].value[slot];
        lanes[i].state = State::kReady, ++lanes[i].meetings;
    }
    return true;
}

bool release_block(int count) {
    int waiting = 0, done = 0;
    for (int i = 0; i < count; ++i) waiting += fibers[i].state == State::kBlock, done += fibers[i].state == State::kDone;
    if (waiting == 0) return false;
    if (waiting < count) {
        if (waiting + done == count) std::snprintf(failure, sizeof failure, "only %d of %d threads reach a barrier", waiting, count);
        return false;
    }
    votes = 0;
    for (int i = 0; i < count; ++i) votes += fibers[i].vote, fibers[i].state = State::kReady;
    return true;
}

void run_block(int count) {
    for (int i = 0; i < count; ++i) prepare(i);
    for (;;) {
        bool moved = false;
        for (int i : sequence(count))
            if (fibers[i].state == State::kNew || fibers[i].state == State::kReady) {
                resume(i);
                if (failure[0]) return;
                moved = true;
            }
        for (int w = 0; w < count / 32; ++w) moved |= release_warp(w);
        moved |= release_block(count);
        if (failure[0]) return;
        if (!moved) {
            for (int i = 0; i < count; ++i)
                if (fibers[i].state != State::kDone) std::snprintf(failure, sizeof failure, "deadlock at %s", fibers[i].what);
            return;
        }
    }
}

}  // namespace

namespace emulate {

void fail(const char* why) {
    std::snprintf(failure, sizeof failure, "%s", why);
    _longjmp(scheduler, 1);
}

const uint64_t* meet_warp(uint64_t value, const char* what) {
    Fiber& f = fibers[current];
    const unsigned slot = f.meetings & 1;
    f.value[slot] = value, f.what = what;
    const int warp = current / 32;
    yield(State::kWarp);
    return warps[warp].values[slot];
}

int meet_block(bool vote) {
    fibers[current].vote = vote, fibers[current].what = "a barrier of the block";
    yield(State::kBlock);
    return votes;
}

void run(dim3 grid, dim3 block, const std::function<void()>& thread) {
    const int count = int(block.x * block.y * block.z);
    const int blocks = int(grid.x * grid.y * grid.z);
    if (last_error != cudaSuccess) return;  // as on a GPU, nothing runs after a failure
    failure[0] = 0;
    if (count < 32 || count > 1024 || count % 32 || blocks < 1 || grid.y > 65535 || grid.z > 65535) {
        last_error = cudaErrorInvalidValue;
        std::snprintf(failure, sizeof failure, "a launch of %d blocks of %d threads", blocks, count);
        return;
    }
    if (fibers.size() < size_t(count)) fibers.resize(count), warps.resize(count / 32);
    body = &thread, gridDim = grid, blockDim = block;
    for (int b : sequence(blocks)) {
        blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y));
        run_block(count);
        if (failure[0]) {
            last_error = cudaErrorLaunchFailure;
            return;
        }
    }
}

}  // namespace emulate

cudaError_t cudaGetLastError() {
    const cudaError_t code = last_error;
    last_error = cudaSuccess;
    return code;
}

const char* cudaGetErrorString(cudaError_t code) { return code == cudaSuccess ? "no error" : failure; }

// In which order blocks and threads run: 0 forward, 1 backward, 2 shuffled, anew at every barrier.
extern "C" __attribute__((visibility("default"))) void gsth_emulate_order(int which) { order = which; }
