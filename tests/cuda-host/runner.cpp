#include "runner.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>

// void cuda_host_switch(void **save, void *load)
#if defined(__x86_64__)
asm(R"(
.text
.globl cuda_host_switch
.hidden cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_host_switch, . - cuda_host_switch
)");
constexpr std::size_t FRAME = 8, RETURN = 6;  // words of a new stack; where the entry stands among them
#elif defined(__aarch64__)
asm(R"(
.text
.globl cuda_host_switch
.hidden cuda_host_switch
.type cuda_host_switch, @function
cuda_host_switch:
    stp x19, x20, [sp, #-160]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x19, x20, [sp], #160
    ret
.size cuda_host_switch, . - cuda_host_switch
)");
constexpr std::size_t FRAME = 20, RETURN = 11;
#else
#error "cuda-host knows x86-64 and aarch64"
#endif
// The dynamic loader's: this thread's storage of a module, made if need be; index is {module, offset}.
extern "C" void *__tls_get_addr(std::size_t *index);

namespace cuda_host {

thread_local std::unique_ptr<Runner> runner;

// Stacks are made 64 at a time, each with a page at its lower end that may not be touched.
char *Runner::new_stack() {
    if (free.empty()) {
        constexpr std::size_t N = 64;
        std::size_t bytes = (N + 1) * STACK;
        void *map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) throw std::bad_alloc();
        char *first = (char *)(((std::uintptr_t)map + STACK - 1) / STACK * STACK);
        for (std::size_t i = 0; i < N; i++) {
            mprotect(first + i * STACK, (std::size_t)sysconf(_SC_PAGESIZE), PROT_NONE);
            stacks.push_back(first + i * STACK);
            free.push_back(first + i * STACK);
        }
    }
    char *stack = free.back();
    free.pop_back();
    return stack;
}

// All that runs on a fibre's stack: one thread after the other, as long as the next is a fresh one.
static void fibre() {
    Runner &r = *runner;
    for (;;) {
        Lane *lane = r.current;
        r.launch->kernel->run(r.launch->arguments.data());
        r.exited(lane);
        Lane *next = r.take(r.warp_of(lane));
        char *stack = lane->stack;
        lane->stack = nullptr;
        if (next != nullptr && next->state == FRESH) {
            next->stack = stack;
            *slot((std::uintptr_t)stack) = next;
            next->state = RUNNING;
            r.current = next;
            continue;
        }
        // Used again at the earliest when we have left it.
        r.free.push_back(stack);
        void *unused;
        r.transfer(&unused, next);
    }
}

void Runner::start(Lane *lane) {
    lane->stack = new_stack();
    *slot((std::uintptr_t)lane->stack) = lane;
    // Stacks begin at different offsets for the cache's sake.
    std::uintptr_t top = (std::uintptr_t)lane->stack + STACK - SLOTS - (std::uintptr_t)lane->stack / STACK % 32 * 320;
    void **frame = (void **)(top & ~(std::uintptr_t)63) - FRAME;
    std::fill(frame, frame + FRAME, nullptr);
    frame[RETURN] = (void *)&fibre;
    lane->saved = frame;
}

void Runner::transfer(void **save, Lane *next) {
    if (next == nullptr) {
        cuda_host_switch(save, scheduler);
        return;
    }
    if (next->state == FRESH) start(next);
    next->state = RUNNING;
    current = next;
    cuda_host_switch(save, next->saved);
}

// Lets others run until something has made the lane ready.
void Runner::wait(Lane *lane) { transfer(&lane->saved, take(warp_of(lane))); }

void Runner::release_barrier() {
    unsigned line = 0, sum = 0;
    for (unsigned i = 0; i < count; i++) {
        const Lane &lane = lanes[i];
        if (lane.state != AT_BARRIER) continue;
        if (line != 0 && lane.line != line)
            return stop(LAUNCH_FAILED, "threads wait at different barriers, lines " + std::to_string(line) + " and " +
                                           std::to_string(lane.line));
        line = lane.line;
        sum += lane.predicate != 0;
    }
    for (unsigned i = 0; i < count; i++) {
        Lane &lane = lanes[i];
        if (lane.state != AT_BARRIER) continue;
        lane.result = lane.vote == COUNT ? sum : lane.vote == EVERY ? sum == live : sum != 0;
        lane.state = READY;
        warp_of(&lane).ready |= bit(&lane);
    }
    at_barrier = 0;
}

static std::uint64_t combine(Collective what, std::uint64_t a, std::uint64_t b) {
    switch (what) {
        case ADD: return a + b;
        case MIN_SIGNED: return (std::int32_t)b < (std::int32_t)a ? b : a;
        case MAX_SIGNED: return (std::int32_t)b > (std::int32_t)a ? b : a;
        case MIN_UNSIGNED: return std::min((std::uint32_t)a, (std::uint32_t)b);
        case MAX_UNSIGNED: return std::max((std::uint32_t)a, (std::uint32_t)b);
        case AND: return a & b;
        case OR: return a | b;
        default: return a ^ b;
    }
}

// Ends the collective that a lane waits in, if all lanes of its mask that still live are there.
bool Runner::complete(Warp &warp, const Lane *lane) {
    unsigned members = lane->mask & warp.live;
    if ((warp.waiting & members) != members) return false;
    Lane *first = &lanes[(&warp - warps) * WARP];
    for (unsigned m = members; m != 0; m &= m - 1) {
        const Lane &other = first[__builtin_ctz(m)];
        if (other.mask != lane->mask || other.what != lane->what) {
            stop(LAUNCH_FAILED, "lanes of a warp wait in different warp functions, or with different masks");
            return true;
        }
    }
    std::uint64_t all = 0;
    if (lane->what >= ADD) {
        all = first[__builtin_ctz(members)].value;
        for (unsigned m = members & (members - 1); m != 0; m &= m - 1)
            all = combine(lane->what, all, first[__builtin_ctz(m)].value);
    } else if (lane->what == BALLOT || lane->what == ALL || lane->what == ANY) {
        for (unsigned m = members; m != 0; m &= m - 1)
            if (first[__builtin_ctz(m)].value != 0) all |= m & -m;
        if (lane->what == ALL) all = all == members;
        if (lane->what == ANY) all = all != 0;
    }
    for (unsigned m = members; m != 0; m &= m - 1) {
        Lane &one = first[__builtin_ctz(m)];
        if (one.what == SHUFFLE) {
            // A lane that takes no part has no value: all bits set, a NaN.
            one.result = members >> one.source & 1 ? first[one.source].value : ~0ull;
        } else if (one.what == MATCH_ANY) {
            one.result = 0;
            for (unsigned o = members; o != 0; o &= o - 1)
                if (first[__builtin_ctz(o)].value == one.value) one.result |= o & -o;
        } else {
            one.result = all;
        }
        one.state = READY;
    }
    warp.waiting &= ~members;
    warp.ready |= members;
    return true;
}

// An exited thread counts as arrived everywhere, so others may go on.
void Runner::exited(Lane *lane) {
    lane->state = EXITED;
    Warp &warp = warp_of(lane);
    warp.live &= ~bit(lane);
    live--;
    for (unsigned left = warp.waiting; left != 0;) {
        const Lane *other = &lanes[(&warp - warps) * WARP + __builtin_ctz(left)];
        left &= left - 1;
        if (complete(warp, other)) left &= warp.waiting;
    }
    if (live != 0 && at_barrier == live) release_barrier();
    if (fault.error != SUCCESS) abandon();
}

static int barrier(Thread *thread, unsigned line, Vote vote, int predicate) {
    Lane *lane = (Lane *)thread;
    Runner &r = *lane->runner;
    lane->state = AT_BARRIER;
    lane->line = line;
    lane->vote = vote;
    lane->predicate = predicate;
    if (++r.at_barrier == r.live) {
        r.release_barrier();
        if (r.fault.error != SUCCESS) r.abandon();
        r.warp_of(lane).ready &= ~Runner::bit(lane);
        lane->state = RUNNING;
    } else {
        r.wait(lane);
    }
    return (int)lane->result;
}

static unsigned long long collect(Thread *thread, Collective what, unsigned mask, unsigned long long value, unsigned source) {
    Lane *lane = (Lane *)thread;
    Runner &r = *lane->runner;
    Warp &warp = r.warp_of(lane);
    if ((mask & Runner::bit(lane)) == 0) {
        r.stop(LAUNCH_FAILED, "the mask of a warp function lacks the lane that calls it");
        r.abandon();
    }
    lane->state = IN_WARP;
    lane->what = what;
    lane->mask = mask;
    lane->value = value;
    lane->source = source % WARP;
    warp.waiting |= Runner::bit(lane);
    if (r.complete(warp, lane)) {
        if (r.fault.error != SUCCESS) r.abandon();
        warp.ready &= ~Runner::bit(lane);
        lane->state = RUNNING;
    } else {
        r.wait(lane);
    }
    return lane->result;
}

// Which lanes are on the same path is not known; those that have not exited might be.
static unsigned active(Thread *thread) { return ((Lane *)thread)->runner->warp_of((Lane *)thread).live; }

static void fail(Thread *, Failure failure, const char *what, unsigned line) {
    std::string place = std::string(what) + ", line " + std::to_string(line);
    runner->stop(failure == ASSERTION ? ASSERT : LAUNCH_FAILED, (failure == ASSERTION ? "assertion failed: " : "") + place);
    runner->abandon();
}

void Runner::schedule() {
    unsigned used = (count + WARP - 1) / WARP;
    while (live != 0) {
        bool progress = false;
        for (unsigned w = 0; w < used; w++) {
            while (Lane *lane = take(warps[w])) {
                progress = true;
                transfer(&scheduler, lane);
                if (fault.error != SUCCESS) return;
            }
        }
        if (!progress)
            return stop(LAUNCH_TIMEOUT, "deadlock: " + std::to_string(at_barrier) + " of " + std::to_string(live) +
                                            " threads wait at a barrier, the others for lanes of their warp");
    }
}

void Runner::run_block(const Launch &l, Index block) {
    launch = &l;
    count = l.block.x * l.block.y * l.block.z;
    live = count;
    at_barrier = 0;
    // Shared memory is undefined at the start: NaNs.
    if (l.static_shared != 0) {
        std::size_t index[2] = {l.tls_module, 0};
        memset(__tls_get_addr(index), 0xff, l.static_shared);
    }
    dynamic_shared.assign(l.dynamic_shared + 1024, 0xff);
    unsigned char *dynamic = (unsigned char *)(((std::uintptr_t)dynamic_shared.data() + 1023) / 1024 * 1024);
    Index at = {0, 0, 0};
    for (unsigned i = 0; i < count; i++) {
        Lane &lane = lanes[i];
        (Thread &)lane = {at, block, l.block, l.grid, i, dynamic, barrier, collect, active, fail};
        lane.runner = this;
        lane.state = FRESH;
        lane.stack = nullptr;
        lane.saved = nullptr;
        if (++at.x == l.block.x) {
            at.x = 0;
            if (++at.y == l.block.y) at.y = 0, at.z++;
        }
    }
    for (unsigned w = 0; w * WARP < count; w++) {
        unsigned left = count - w * WARP, all = left >= WARP ? ~0u : (1u << left) - 1;
        warps[w] = {all, all, 0};
    }
    if (sigsetjmp(escape, 0) == 0) {
        in_kernel = 1;
        schedule();
    }
    in_kernel = 0;
    if (fault.error != SUCCESS) free = stacks;
}

// ---- wild pointers ----

static struct sigaction previous[2];

// A kernel that reads or writes where nothing is ends its launch, not the process.
static void on_fault(int signal, siginfo_t *info, void *context) {
    if (runner != nullptr && runner->in_kernel) {
        char address[32];
        snprintf(address, sizeof address, "%p", info->si_addr);
        auto at = (char *)info->si_addr;
        const Lane *lane = runner->current;
        bool overflow = lane != nullptr && lane->stack != nullptr && at >= lane->stack && at < lane->stack + 65536;
        runner->stop(ILLEGAL_ADDRESS, overflow ? "stack overflow" : std::string("illegal address ") + address);
        siglongjmp(runner->escape, 1);
    }
    const struct sigaction &old = previous[signal == SIGBUS];
    if ((old.sa_flags & SA_SIGINFO) != 0) return old.sa_sigaction(signal, info, context);
    if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(signal);
    sigaction(signal, &old, nullptr);
}

static void catch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &previous[0]);
        sigaction(SIGBUS, &action, &previous[1]);
    });
}

// The handler cannot run on a stack that has overflown, so it has its own; another's may be too small.
constexpr std::size_t SIGNAL_STACK = 64 << 10;

Runner::Runner() {
    catch_faults();
    stack_t own = {};
    void *map = mmap(nullptr, SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    signal_stack = own.ss_sp = map;
    own.ss_size = SIGNAL_STACK;
    sigaltstack(&own, nullptr);
}

Runner::~Runner() {
    for (char *stack : stacks) munmap(stack, STACK);
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
    munmap(signal_stack, SIGNAL_STACK);
}

}  // namespace cuda_host
