// The threads of a block as fibres: one Runner for every thread of the operating system that runs blocks.
#pragma once
#include <setjmp.h>
#include <signal.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "exec.h"

// Keeps what a call must keep, and continues on another stack.
extern "C" void cuda_host_switch(void **save, void *load);

namespace cuda_host {

constexpr unsigned WARP = 32, MAX_THREADS = 1024, WARPS = MAX_THREADS / WARP;

enum State { FRESH, RUNNING, READY, AT_BARRIER, IN_WARP, EXITED };

struct Runner;

struct Lane : Thread {
    Runner *runner;
    State state;
    char *stack;  // its lowest byte; null: none
    void *saved;  // stack pointer while it does not run
    // What it waits for.
    unsigned line;
    Vote vote;
    int predicate;
    Collective what;
    unsigned mask, source;
    std::uint64_t value, result;
};

struct Warp {
    unsigned ready, live, waiting;  // one bit a lane
};

// The threads of one block at a time; one for every thread of the operating system that runs blocks.
struct Runner {
    Lane lanes[MAX_THREADS];
    Warp warps[WARPS];
    unsigned count = 0, live = 0, at_barrier = 0;
    Lane *current = nullptr;
    void *scheduler = nullptr;
    std::vector<char *> stacks, free;
    std::vector<unsigned char> dynamic_shared;
    const Launch *launch = nullptr;
    Fault fault;
    sigjmp_buf escape;  // from a signal
    volatile sig_atomic_t in_kernel = 0;
    void *signal_stack = nullptr;

    Runner();
    ~Runner();

    Warp &warp_of(const Lane *lane) { return warps[lane->linear / WARP]; }
    static unsigned bit(const Lane *lane) { return 1u << lane->linear % WARP; }

    // The next lane of a warp that can run; it is then the current one's to start.
    Lane *take(Warp &warp) {
        if (warp.ready == 0) return nullptr;
        unsigned n = (unsigned)__builtin_ctz(warp.ready);
        warp.ready &= warp.ready - 1;
        Lane *first = &lanes[(&warp - warps) * WARP];
        // Stacks of many threads do not fit into the nearest cache: fetch the one that comes after this one.
        if (warp.ready != 0) {
            auto saved = (const char *)first[__builtin_ctz(warp.ready)].saved;
            for (int line = 0; line < 4; line++) __builtin_prefetch(saved + line * 64);
        }
        return &first[n];
    }

    char *new_stack();
    void start(Lane *lane);
    void transfer(void **save, Lane *next);
    void wait(Lane *lane);
    void exited(Lane *lane);
    void release_barrier();
    bool complete(Warp &warp, const Lane *lane);
    void stop(Result error, const std::string &what) {
        if (fault.error == SUCCESS) fault = {error, "kernel " + launch->name + ": " + what};
    }
    [[noreturn]] void abandon() {
        void *unused;
        cuda_host_switch(&unused, scheduler);
        __builtin_unreachable();
    }
    void schedule();
    void run_block(const Launch &, Index block);
};

extern thread_local std::unique_ptr<Runner> runner;

}  // namespace cuda_host
