// What CUDA C++ has built in, for kernels that are compiled for the CPU by g++. Included before every kernel;
// standard headers would cost more time than the kernel itself.
//
// Sources: CUDA C++ Programming Guide 13.0, chapter 10 (C++ language extensions); CUDA Math API 13.0.
#pragma once
#include "abi.h"

#define SHARDLIGHT_CUDA_HOST 1
#define WGSL_HOST 1
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1

// Not `always_inline`: g++ would take up to four times as long for a kernel that is not faster by as much.
#define CUDA_HOST_FN inline
#define CUDA_HOST_EXPORT __attribute__((visibility("default")))

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__
// Blocks run on different threads of the operating system, and a block never changes its own.
#define __shared__ static thread_local

namespace cuda_host {

CUDA_HOST_FN Thread *self() {
    unsigned long long stack;
    // Not volatile: whichever value it has, the slot is the same, so it may be computed once.
#if defined(__x86_64__)
    asm("movq %%rsp, %0" : "=r"(stack));
#elif defined(__aarch64__)
    asm("mov %0, sp" : "=r"(stack));
#else
#error "cuda-host knows x86-64 and aarch64"
#endif
    return *slot(stack);
}

template <unsigned... I> struct Sequence {};
template <unsigned N> using Count = Sequence<__integer_pack(N)...>;
template <class T> constexpr bool is_pointer = false;
template <class T> constexpr bool is_pointer<T *> = true;
template <class T> constexpr bool is_pointer<T *__restrict__> = true;

template <auto F> struct Entry;
template <class... A, void (*F)(A...)> struct Entry<F> {
    static constexpr Parameter parameters[sizeof...(A) + 1] = {{(unsigned)sizeof(A), is_pointer<A>}..., {}};
    static constexpr unsigned count = sizeof...(A);
    template <unsigned... I> static void call(void *const *arguments, Sequence<I...>) { F(*(A *)arguments[I]...); }
    static void run(void *const *arguments) { call(arguments, Count<sizeof...(A)>{}); }
};

template <class To, class From> CUDA_HOST_FN To bits(From a) {
    static_assert(sizeof(To) == sizeof(From));
    To r;
    __builtin_memcpy(&r, &a, sizeof r);
    return r;
}

template <class T> CUDA_HOST_FN unsigned long long widen(T a) {
    static_assert(sizeof(T) <= 8);
    unsigned long long r = 0;
    __builtin_memcpy(&r, &a, sizeof a);
    return r;
}
template <class T> CUDA_HOST_FN T narrow(unsigned long long a) {
    T r;
    __builtin_memcpy(&r, &a, sizeof r);
    return r;
}

CUDA_HOST_FN unsigned long long collect(Collective what, unsigned mask, unsigned long long value = 0, unsigned source = 0) {
    Thread *thread = self();
    unsigned long long r = thread->collect(thread, what, mask, value, source);
    // The other lanes ran meanwhile.
    asm volatile("" ::: "memory");
    return r;
}

CUDA_HOST_FN int barrier(unsigned line, Vote vote = NOTHING, int predicate = 0) {
    asm volatile("" ::: "memory");
    Thread *thread = self();
    int r = thread->barrier(thread, line, vote, predicate);
    asm volatile("" ::: "memory");
    return r;
}

CUDA_HOST_FN void fail(Failure failure, const char *what, unsigned line) {
    Thread *thread = self();
    thread->fail(thread, failure, what, line);
    __builtin_unreachable();
}

CUDA_HOST_FN unsigned lane() { return self()->linear & 31; }

}  // namespace cuda_host

// nvrtc.cpp adds a line of it for every kernel that it finds.
#define CUDA_HOST_KERNEL(name, bounds)                                                                      \
    extern "C" {                                                                                            \
    extern CUDA_HOST_EXPORT const cuda_host::Kernel cuda_host_kernel_##name;                                \
    const cuda_host::Kernel cuda_host_kernel_##name = {&cuda_host::Entry<&name>::run,                       \
                                                       cuda_host::Entry<&name>::parameters,                 \
                                                       cuda_host::Entry<&name>::count, (unsigned)(bounds)}; \
    }
extern "C" {
extern CUDA_HOST_EXPORT const unsigned cuda_host_abi;
const unsigned cuda_host_abi = cuda_host::ABI;
}

// ---- where a thread is ----

typedef unsigned long size_t;
#define threadIdx (::cuda_host::self()->thread)
#define blockIdx (::cuda_host::self()->block)
#define blockDim (::cuda_host::self()->block_size)
#define gridDim (::cuda_host::self()->grid_size)
#define warpSize 32

// ---- barriers, fences, failures ----

// The line stands for the barrier: threads that wait at different ones are an error.
#define __syncthreads() ((void)::cuda_host::barrier(__LINE__))
#define __syncthreads_count(p) (::cuda_host::barrier(__LINE__, ::cuda_host::COUNT, !!(p)))
#define __syncthreads_and(p) (::cuda_host::barrier(__LINE__, ::cuda_host::EVERY, !!(p)))
#define __syncthreads_or(p) (::cuda_host::barrier(__LINE__, ::cuda_host::SOME, !!(p)))
CUDA_HOST_FN void __syncwarp(unsigned mask = ~0u) { cuda_host::collect(cuda_host::SYNC, mask); }
CUDA_HOST_FN void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CUDA_HOST_FN void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CUDA_HOST_FN void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#define __trap() (::cuda_host::fail(::cuda_host::TRAP, "__trap()", __LINE__))
#define assert(condition) ((condition) ? (void)0 : ::cuda_host::fail(::cuda_host::ASSERTION, #condition, __LINE__))
CUDA_HOST_FN void __nanosleep(unsigned) {}

// ---- warps ----

CUDA_HOST_FN unsigned __activemask() {
    cuda_host::Thread *thread = cuda_host::self();
    return thread->active(thread);
}
template <class T> CUDA_HOST_FN T __shfl_sync(unsigned mask, T a, int source, int width = 32) {
    unsigned first = cuda_host::lane() & ~(unsigned)(width - 1), from = first + ((unsigned)source & (width - 1));
    return cuda_host::narrow<T>(cuda_host::collect(cuda_host::SHUFFLE, mask, cuda_host::widen(a), from));
}
template <class T> CUDA_HOST_FN T __shfl_up_sync(unsigned mask, T a, unsigned delta, int width = 32) {
    unsigned lane = cuda_host::lane(), from = (lane & (width - 1)) >= delta ? lane - delta : lane;
    return cuda_host::narrow<T>(cuda_host::collect(cuda_host::SHUFFLE, mask, cuda_host::widen(a), from));
}
template <class T> CUDA_HOST_FN T __shfl_down_sync(unsigned mask, T a, unsigned delta, int width = 32) {
    unsigned lane = cuda_host::lane(), from = (lane & (width - 1)) + delta < (unsigned)width ? lane + delta : lane;
    return cuda_host::narrow<T>(cuda_host::collect(cuda_host::SHUFFLE, mask, cuda_host::widen(a), from));
}
template <class T> CUDA_HOST_FN T __shfl_xor_sync(unsigned mask, T a, int bits, int width = 32) {
    // A lane of a lower segment may be read, one of a higher segment may not.
    unsigned lane = cuda_host::lane(), other = lane ^ bits, from = other < (lane & ~(unsigned)(width - 1)) + width ? other : lane;
    return cuda_host::narrow<T>(cuda_host::collect(cuda_host::SHUFFLE, mask, cuda_host::widen(a), from));
}
CUDA_HOST_FN unsigned __ballot_sync(unsigned mask, int a) { return (unsigned)cuda_host::collect(cuda_host::BALLOT, mask, a != 0); }
CUDA_HOST_FN int __all_sync(unsigned mask, int a) { return (int)cuda_host::collect(cuda_host::ALL, mask, a != 0); }
CUDA_HOST_FN int __any_sync(unsigned mask, int a) { return (int)cuda_host::collect(cuda_host::ANY, mask, a != 0); }
template <class T> CUDA_HOST_FN unsigned __match_any_sync(unsigned mask, T a) {
    return (unsigned)cuda_host::collect(cuda_host::MATCH_ANY, mask, cuda_host::widen(a));
}
#define CUDA_HOST_REDUCE(name, type, what)                                               \
    CUDA_HOST_FN type name(unsigned mask, type a) {                                      \
        return (type)cuda_host::collect(cuda_host::what, mask, (unsigned long long)a);   \
    }
CUDA_HOST_REDUCE(__reduce_add_sync, unsigned, ADD)
CUDA_HOST_REDUCE(__reduce_add_sync, int, ADD)
CUDA_HOST_REDUCE(__reduce_min_sync, unsigned, MIN_UNSIGNED)
CUDA_HOST_REDUCE(__reduce_min_sync, int, MIN_SIGNED)
CUDA_HOST_REDUCE(__reduce_max_sync, unsigned, MAX_UNSIGNED)
CUDA_HOST_REDUCE(__reduce_max_sync, int, MAX_SIGNED)
CUDA_HOST_REDUCE(__reduce_and_sync, unsigned, AND)
CUDA_HOST_REDUCE(__reduce_or_sync, unsigned, OR)
CUDA_HOST_REDUCE(__reduce_xor_sync, unsigned, XOR)

// ---- atomics: blocks run in parallel ----

#define CUDA_HOST_ATOMIC(T)                                                                                             \
    CUDA_HOST_FN T atomicAdd(T *p, T a) { return __atomic_fetch_add(p, a, __ATOMIC_RELAXED); }                          \
    CUDA_HOST_FN T atomicAnd(T *p, T a) { return __atomic_fetch_and(p, a, __ATOMIC_RELAXED); }                          \
    CUDA_HOST_FN T atomicOr(T *p, T a) { return __atomic_fetch_or(p, a, __ATOMIC_RELAXED); }                            \
    CUDA_HOST_FN T atomicXor(T *p, T a) { return __atomic_fetch_xor(p, a, __ATOMIC_RELAXED); }                          \
    CUDA_HOST_FN T atomicExch(T *p, T a) { return __atomic_exchange_n(p, a, __ATOMIC_RELAXED); }                        \
    CUDA_HOST_FN T atomicCAS(T *p, T old, T a) {                                                                        \
        __atomic_compare_exchange_n(p, &old, a, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);                             \
        return old;                                                                                                     \
    }                                                                                                                   \
    CUDA_HOST_FN T atomicMin(T *p, T a) {                                                                               \
        T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                                   \
        while (a < old && !__atomic_compare_exchange_n(p, &old, a, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}        \
        return old;                                                                                                     \
    }                                                                                                                   \
    CUDA_HOST_FN T atomicMax(T *p, T a) {                                                                               \
        T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                                   \
        while (a > old && !__atomic_compare_exchange_n(p, &old, a, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}        \
        return old;                                                                                                     \
    }
CUDA_HOST_ATOMIC(int)
CUDA_HOST_ATOMIC(unsigned)
CUDA_HOST_ATOMIC(long long)
CUDA_HOST_ATOMIC(unsigned long long)
CUDA_HOST_FN int atomicSub(int *p, int a) { return __atomic_fetch_sub(p, a, __ATOMIC_RELAXED); }
CUDA_HOST_FN unsigned atomicSub(unsigned *p, unsigned a) { return __atomic_fetch_sub(p, a, __ATOMIC_RELAXED); }
CUDA_HOST_FN unsigned atomicInc(unsigned *p, unsigned last) {
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, old >= last ? 0 : old + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
template <class F, class U> CUDA_HOST_FN F cuda_host_add(F *p, F a) {
    U old = __atomic_load_n((U *)p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n((U *)p, &old, cuda_host::bits<U>(cuda_host::bits<F>(old) + a), true,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return cuda_host::bits<F>(old);
}
CUDA_HOST_FN float atomicAdd(float *p, float a) { return cuda_host_add<float, unsigned>(p, a); }
CUDA_HOST_FN double atomicAdd(double *p, double a) { return cuda_host_add<double, unsigned long long>(p, a); }
CUDA_HOST_FN float atomicExch(float *p, float a) {
    return cuda_host::bits<float>(__atomic_exchange_n((unsigned *)p, cuda_host::bits<unsigned>(a), __ATOMIC_RELAXED));
}

// ---- bits and integers ----

CUDA_HOST_FN int __float_as_int(float a) { return cuda_host::bits<int>(a); }
CUDA_HOST_FN unsigned __float_as_uint(float a) { return cuda_host::bits<unsigned>(a); }
CUDA_HOST_FN float __int_as_float(int a) { return cuda_host::bits<float>(a); }
CUDA_HOST_FN float __uint_as_float(unsigned a) { return cuda_host::bits<float>(a); }
CUDA_HOST_FN long long __double_as_longlong(double a) { return cuda_host::bits<long long>(a); }
CUDA_HOST_FN double __longlong_as_double(long long a) { return cuda_host::bits<double>(a); }
CUDA_HOST_FN int __popc(unsigned a) { return __builtin_popcount(a); }
CUDA_HOST_FN int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
CUDA_HOST_FN int __clz(int a) { return a == 0 ? 32 : __builtin_clz(a); }
CUDA_HOST_FN int __clzll(long long a) { return a == 0 ? 64 : __builtin_clzll(a); }
CUDA_HOST_FN int __ffs(int a) { return __builtin_ffs(a); }
CUDA_HOST_FN int __ffsll(long long a) { return __builtin_ffsll(a); }
CUDA_HOST_FN unsigned __brev(unsigned a) {
    a = (a >> 1 & 0x55555555u) | (a & 0x55555555u) << 1;
    a = (a >> 2 & 0x33333333u) | (a & 0x33333333u) << 2;
    a = (a >> 4 & 0x0f0f0f0fu) | (a & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(a);
}
CUDA_HOST_FN unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
CUDA_HOST_FN int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
CUDA_HOST_FN unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned choice = s >> 4 * i & 15, byte = (unsigned)(both >> 8 * (choice & 7)) & 255;
        r |= (choice & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return r;
}
CUDA_HOST_FN unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((unsigned long long)hi << 32 | lo) << (n & 31) >> 32);
}
CUDA_HOST_FN unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((unsigned long long)hi << 32 | lo) >> (n & 31));
}
CUDA_HOST_FN int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) c = (int)((unsigned)c + (unsigned)((signed char)(a >> i) * (signed char)(b >> i)));
    return c;
}
CUDA_HOST_FN unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
    return c;
}
#define CUDA_HOST_MIN_MAX(T)                                      \
    CUDA_HOST_FN T min(T a, T b) { return b < a ? b : a; }        \
    CUDA_HOST_FN T max(T a, T b) { return a < b ? b : a; }
CUDA_HOST_MIN_MAX(int)
CUDA_HOST_MIN_MAX(unsigned)
CUDA_HOST_MIN_MAX(long long)
CUDA_HOST_MIN_MAX(unsigned long long)
CUDA_HOST_FN int abs(int a) { return a < 0 ? -a : a; }

// ---- floats ----

#define CUDA_HOST_MATH1(name)                                               \
    extern "C" double name(double) noexcept;                                \
    extern "C" float name##f(float) noexcept;                               \
    CUDA_HOST_FN float name(float a) { return __builtin_##name##f(a); }
CUDA_HOST_MATH1(acos)
CUDA_HOST_MATH1(acosh)
CUDA_HOST_MATH1(asin)
CUDA_HOST_MATH1(asinh)
CUDA_HOST_MATH1(atan)
CUDA_HOST_MATH1(atanh)
CUDA_HOST_MATH1(cbrt)
CUDA_HOST_MATH1(ceil)
CUDA_HOST_MATH1(cos)
CUDA_HOST_MATH1(cosh)
CUDA_HOST_MATH1(erf)
CUDA_HOST_MATH1(erfc)
CUDA_HOST_MATH1(exp)
CUDA_HOST_MATH1(exp2)
CUDA_HOST_MATH1(expm1)
CUDA_HOST_MATH1(fabs)
CUDA_HOST_MATH1(floor)
CUDA_HOST_MATH1(log)
CUDA_HOST_MATH1(log10)
CUDA_HOST_MATH1(log1p)
CUDA_HOST_MATH1(log2)
CUDA_HOST_MATH1(nearbyint)
CUDA_HOST_MATH1(rint)
CUDA_HOST_MATH1(round)
CUDA_HOST_MATH1(sin)
CUDA_HOST_MATH1(sinh)
CUDA_HOST_MATH1(sqrt)
CUDA_HOST_MATH1(tan)
CUDA_HOST_MATH1(tanh)
CUDA_HOST_MATH1(trunc)
#define CUDA_HOST_MATH2(name)                                                                \
    extern "C" double name(double, double) noexcept;                                         \
    extern "C" float name##f(float, float) noexcept;                                         \
    CUDA_HOST_FN float name(float a, float b) { return __builtin_##name##f(a, b); }
CUDA_HOST_MATH2(atan2)
CUDA_HOST_MATH2(copysign)
CUDA_HOST_MATH2(fmax)
CUDA_HOST_MATH2(fmin)
CUDA_HOST_MATH2(fmod)
CUDA_HOST_MATH2(pow)
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
extern "C" double ldexp(double, int) noexcept;
extern "C" float ldexpf(float, int) noexcept;
extern "C" double frexp(double, int *) noexcept;
extern "C" float frexpf(float, int *) noexcept;
extern "C" void *memcpy(void *, const void *, size_t) noexcept;
extern "C" void *memset(void *, int, size_t) noexcept;
CUDA_HOST_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
CUDA_HOST_FN float min(float a, float b) { return __builtin_fminf(a, b); }
CUDA_HOST_FN float max(float a, float b) { return __builtin_fmaxf(a, b); }
CUDA_HOST_FN double min(double a, double b) { return __builtin_fmin(a, b); }
CUDA_HOST_FN double max(double a, double b) { return __builtin_fmax(a, b); }
CUDA_HOST_FN float abs(float a) { return __builtin_fabsf(a); }
CUDA_HOST_FN float rsqrtf(float a) { return 1.0f / __builtin_sqrtf(a); }
CUDA_HOST_FN double rsqrt(double a) { return 1.0 / __builtin_sqrt(a); }
CUDA_HOST_FN float __expf(float a) { return __builtin_expf(a); }
CUDA_HOST_FN float __logf(float a) { return __builtin_logf(a); }
CUDA_HOST_FN float __log2f(float a) { return __builtin_log2f(a); }
CUDA_HOST_FN float __sinf(float a) { return __builtin_sinf(a); }
CUDA_HOST_FN float __cosf(float a) { return __builtin_cosf(a); }
CUDA_HOST_FN float __powf(float a, float b) { return __builtin_powf(a, b); }
CUDA_HOST_FN float __fdividef(float a, float b) { return a / b; }
CUDA_HOST_FN float __frcp_rn(float a) { return 1.0f / a; }
CUDA_HOST_FN float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
CUDA_HOST_FN float __saturatef(float a) { return __builtin_fminf(__builtin_fmaxf(a, 0.0f), 1.0f); }
CUDA_HOST_FN float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
// These are never contracted to a fused multiply-add.
CUDA_HOST_FN float __fadd_rn(float a, float b) { float r = a + b; asm("" : "+m"(r)); return r; }
CUDA_HOST_FN float __fmul_rn(float a, float b) { float r = a * b; asm("" : "+m"(r)); return r; }
CUDA_HOST_FN int __float2int_rn(float a) { return (int)__builtin_rintf(a); }
CUDA_HOST_FN int __float2int_rz(float a) { return (int)a; }
CUDA_HOST_FN int __float2int_rd(float a) { return (int)__builtin_floorf(a); }
CUDA_HOST_FN float __int2float_rn(int a) { return (float)a; }
CUDA_HOST_FN bool isnan(float a) { return __builtin_isnan(a); }
CUDA_HOST_FN bool isinf(float a) { return __builtin_isinf(a) != 0; }
#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))

// f16: what cuda_fp16.h is asked for most.
typedef _Float16 __half;
typedef _Float16 half;
CUDA_HOST_FN float __half2float(__half a) { return (float)a; }
CUDA_HOST_FN __half __float2half(float a) { return (__half)a; }
CUDA_HOST_FN __half __float2half_rn(float a) { return (__half)a; }
CUDA_HOST_FN unsigned short __half_as_ushort(__half a) { return cuda_host::bits<unsigned short>(a); }
CUDA_HOST_FN __half __ushort_as_half(unsigned short a) { return cuda_host::bits<__half>(a); }

// ---- vectors ----

#define CUDA_HOST_VECTORS(T, name)                                                              \
    struct name##1 { T x; };                                                                    \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                          \
    struct name##3 { T x, y, z; };                                                              \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };          \
    CUDA_HOST_FN name##2 make_##name##2(T x, T y) { return {x, y}; }                            \
    CUDA_HOST_FN name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                    \
    CUDA_HOST_FN name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VECTORS(signed char, char)
CUDA_HOST_VECTORS(unsigned char, uchar)
CUDA_HOST_VECTORS(short, short)
CUDA_HOST_VECTORS(unsigned short, ushort)
CUDA_HOST_VECTORS(int, int)
CUDA_HOST_VECTORS(unsigned, uint)
CUDA_HOST_VECTORS(long long, longlong)
CUDA_HOST_VECTORS(unsigned long long, ulonglong)
CUDA_HOST_VECTORS(float, float)
CUDA_HOST_VECTORS(double, double)
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    dim3(cuda_host::Index a) : x(a.x), y(a.y), z(a.z) {}
};
template <class T> CUDA_HOST_FN T __ldg(const T *p) { return *p; }
template <class T> CUDA_HOST_FN T __ldcs(const T *p) { return *p; }
template <class T> CUDA_HOST_FN T __ldcg(const T *p) { return *p; }
template <class T> CUDA_HOST_FN void __stcs(T *p, T a) { *p = a; }
template <class T> CUDA_HOST_FN void __stcg(T *p, T a) { *p = a; }
