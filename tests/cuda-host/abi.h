// What a compiled kernel and the driver that runs it have in common. Kernels include it, so it needs no header.
#pragma once

namespace cuda_host {

struct Index {
    unsigned x, y, z;
};

// What the lanes of a warp do together; `value` is 64 bits wide, results too.
enum Collective : unsigned {
    SYNC, SHUFFLE, BALLOT, ALL, ANY, MATCH_ANY,
    ADD, MIN_SIGNED, MAX_SIGNED, MIN_UNSIGNED, MAX_UNSIGNED, AND, OR, XOR,
};

// What a barrier counts among the predicates that the threads bring.
enum Vote : unsigned { NOTHING, COUNT, EVERY, SOME };

enum Failure : unsigned { TRAP, ASSERTION };

// One CUDA thread, as a kernel sees it.
struct Thread {
    Index thread, block, block_size, grid_size;
    unsigned linear;  // number within the block
    unsigned char *dynamic_shared;
    int (*barrier)(Thread *, unsigned line, Vote, int predicate);
    // `source`: for SHUFFLE, the lane whose value is wanted.
    unsigned long long (*collect)(Thread *, Collective, unsigned mask, unsigned long long value, unsigned source);
    unsigned (*active)(Thread *);
    void (*fail)(Thread *, Failure, const char *what, unsigned line);  // does not return
};

// Every thread runs on a stack of this size at a multiple of it. Near the stack's end stands a pointer to its
// `Thread`, at a place that differs from stack to stack so that they do not all fall into the same cache set.
constexpr unsigned long long STACK = 1 << 17;
constexpr unsigned long long SLOTS = 64 * 64;

inline Thread **slot(unsigned long long on_stack) {
    return (Thread **)((on_stack | (STACK - 1)) + 1 - 64 - on_stack / STACK % 64 * 64);
}

struct Parameter {
    unsigned bytes;
    bool pointer;
};

// A `__global__` function; every one in a library is exported as `cuda_host_kernel_NAME`.
struct Kernel {
    void (*run)(void *const *arguments);
    const Parameter *parameters;
    unsigned count;
    unsigned max_threads;  // from __launch_bounds__; 0: not given
};

// The value of `cuda_host_abi` in a library: changes with anything in this file.
constexpr unsigned ABI = 1;

}  // namespace cuda_host
