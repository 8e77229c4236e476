// What WGSL has and CUDA C++ has not: vectors and matrices in WGSL's layout, arithmetic that is defined for every
// operand, packed and subgroup built-ins. No header is included, so that NVRTC needs no folder of CUDA's.
//
// Sources: WGSL (https://www.w3.org/TR/WGSL/), sections 8.7 (arithmetic), 8.8 (comparison), 17 (built-in functions);
// PTX ISA 9.0 for the inline assembly. WGSL_HOST: compiled for a CPU, which has no PTX.

// WGSL_SIZE_X, _Y, _Z: threads of a block.

typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef short i16;
typedef unsigned short u16;
typedef float f32;
typedef double f64;

#define WGSL_FN __device__ __forceinline__

namespace wgsl {

// ---- f16 ----

#ifdef WGSL_HOST
typedef _Float16 f16;
#define WGSL_F16(bits, value) ((_Float16)value)
WGSL_FN f32 f16_to_f32(f16 a) { return (f32)a; }
WGSL_FN f16 f32_to_f16(f32 a) { return (f16)a; }
WGSL_FN u16 f16_bits(f16 a) { u16 r; __builtin_memcpy(&r, &a, 2); return r; }
WGSL_FN f16 f16_of(u16 a) { f16 r; __builtin_memcpy(&r, &a, 2); return r; }
#else
struct f16 {
    u16 bits;
    f16() = default;
    WGSL_FN explicit f16(i32 a) { f32 b = (f32)a; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(b)); }
};
__device__ constexpr f16 f16_of(u16 bits) {
    f16 r{};
    r.bits = bits;
    return r;
}
#define WGSL_F16(bits, value) (wgsl::f16_of((u16)bits))
WGSL_FN f32 f16_to_f32(f16 a) { f32 r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(a.bits)); return r; }
WGSL_FN f16 f32_to_f16(f32 a) { f16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(a)); return r; }
WGSL_FN u16 f16_bits(f16 a) { return a.bits; }
#define WGSL_F16_OP(op, ptx) \
    WGSL_FN f16 operator op(f16 a, f16 b) { f16 r; asm(ptx ".f16 %0, %1, %2;" : "=h"(r.bits) : "h"(a.bits), "h"(b.bits)); return r; }
WGSL_F16_OP(+, "add.rn")
WGSL_F16_OP(-, "sub.rn")
WGSL_F16_OP(*, "mul.rn")
// An f32 quotient rounded to f16 is the rounded quotient: 24 >= 2 * 11 + 2 bits.
WGSL_FN f16 operator/(f16 a, f16 b) { return f32_to_f16(f16_to_f32(a) / f16_to_f32(b)); }
WGSL_FN f16 operator-(f16 a) { return f16_of((u16)(a.bits ^ 0x8000)); }
#define WGSL_F16_COMPARE(op) \
    WGSL_FN bool operator op(f16 a, f16 b) { return f16_to_f32(a) op f16_to_f32(b); }
WGSL_F16_COMPARE(==)
WGSL_F16_COMPARE(!=)
WGSL_F16_COMPARE(<)
WGSL_F16_COMPARE(<=)
WGSL_F16_COMPARE(>)
WGSL_F16_COMPARE(>=)
#endif

// ---- types ----

template <class T, int N> struct vec;
template <class T> struct alignas(2 * sizeof(T)) vec<T, 2> {
    T x, y;
};
// Not padded: WGSL puts a scalar behind it. Strides are `slot`'s.
template <class T> struct vec<T, 3> {
    T x, y, z;
};
template <class T> struct alignas(4 * sizeof(T)) vec<T, 4> {
    T x, y, z, w;
};

// An element that is smaller than its stride.
template <class T, u32 S> struct slot {
    T v;
    unsigned char pad[S - sizeof(T)];
};

template <class T, u32 N, u32 S, bool PACKED = sizeof(T) == S> struct array {
    T v[N];
    WGSL_FN T &operator[](u32 i) { return v[i]; }
    WGSL_FN const T &operator[](u32 i) const { return v[i]; }
};
template <class T, u32 N, u32 S> struct array<T, N, S, false> {
    slot<T, S> v[N];
    WGSL_FN T &operator[](u32 i) { return v[i].v; }
    WGSL_FN const T &operator[](u32 i) const { return v[i].v; }
};

// C columns of R rows.
template <class T, int C, int R> struct mat {
    array<vec<T, R>, C, (R == 3 ? 4 : R) * sizeof(T)> c;
    WGSL_FN vec<T, R> &operator[](u32 i) { return c[i]; }
    WGSL_FN const vec<T, R> &operator[](u32 i) const { return c[i]; }
};

// ---- components ----

template <class T> WGSL_FN vec<T, 2> cat(T a, T b) { return {a, b}; }
template <class T> WGSL_FN vec<T, 3> cat(vec<T, 2> a, T b) { return {a.x, a.y, b}; }
template <class T> WGSL_FN vec<T, 3> cat(T a, vec<T, 2> b) { return {a, b.x, b.y}; }
template <class T> WGSL_FN vec<T, 4> cat(vec<T, 2> a, vec<T, 2> b) { return {a.x, a.y, b.x, b.y}; }
template <class T> WGSL_FN vec<T, 4> cat(vec<T, 3> a, T b) { return {a.x, a.y, a.z, b}; }
template <class T> WGSL_FN vec<T, 4> cat(T a, vec<T, 3> b) { return {a, b.x, b.y, b.z}; }

template <int N, class T> WGSL_FN vec<T, N> splat(T a) {
    if constexpr (N == 2) return {a, a};
    else if constexpr (N == 3) return {a, a, a};
    else return {a, a, a, a};
}

template <int I, class T, int N> WGSL_FN T get(vec<T, N> a) {
    if constexpr (I == 0) return a.x;
    else if constexpr (I == 1) return a.y;
    else if constexpr (I == 2) return a.z;
    else return a.w;
}
template <int... I, class T, int N> WGSL_FN vec<T, (int)sizeof...(I)> swizzle(vec<T, N> a) { return {get<I>(a)...}; }

// A component by number, in memory, and in registers, which cannot be indexed.
template <class T, int N> WGSL_FN T &at(vec<T, N> &a, u32 i) { return (&a.x)[i]; }
template <class T, int N> WGSL_FN const T &at(const vec<T, N> &a, u32 i) { return (&a.x)[i]; }
template <class T> WGSL_FN T pick(vec<T, 2> a, u32 i) { return i == 0 ? a.x : a.y; }
template <class T> WGSL_FN T pick(vec<T, 3> a, u32 i) { return i == 0 ? a.x : i == 1 ? a.y : a.z; }
template <class T> WGSL_FN T pick(vec<T, 4> a, u32 i) { return i < 2 ? (i == 0 ? a.x : a.y) : (i == 2 ? a.z : a.w); }
template <class T, int N> WGSL_FN void put(vec<T, N> &a, u32 i, T b) {
    a.x = i == 0 ? b : a.x;
    a.y = i == 1 ? b : a.y;
    if constexpr (N > 2) a.z = i == 2 ? b : a.z;
    if constexpr (N > 3) a.w = i == 3 ? b : a.w;
}

// `name` of vectors from `name` of their components; R is what one of them gives.
#define WGSL_MAP1(R, name) \
    template <class T> WGSL_FN vec<R, 2> name(vec<T, 2> a) { return {name(a.x), name(a.y)}; } \
    template <class T> WGSL_FN vec<R, 3> name(vec<T, 3> a) { return {name(a.x), name(a.y), name(a.z)}; } \
    template <class T> WGSL_FN vec<R, 4> name(vec<T, 4> a) { return {name(a.x), name(a.y), name(a.z), name(a.w)}; }
#define WGSL_MAP2(R, name) \
    template <class T> WGSL_FN vec<R, 2> name(vec<T, 2> a, vec<T, 2> b) { return {name(a.x, b.x), name(a.y, b.y)}; } \
    template <class T> WGSL_FN vec<R, 3> name(vec<T, 3> a, vec<T, 3> b) { return {name(a.x, b.x), name(a.y, b.y), name(a.z, b.z)}; } \
    template <class T> WGSL_FN vec<R, 4> name(vec<T, 4> a, vec<T, 4> b) { return {name(a.x, b.x), name(a.y, b.y), name(a.z, b.z), name(a.w, b.w)}; }
// The same with integers of type U.
#define WGSL_MAP_BY(name, U) \
    template <class T> WGSL_FN vec<T, 2> name(vec<T, 2> a, vec<U, 2> b) { return {name(a.x, b.x), name(a.y, b.y)}; } \
    template <class T> WGSL_FN vec<T, 3> name(vec<T, 3> a, vec<U, 3> b) { return {name(a.x, b.x), name(a.y, b.y), name(a.z, b.z)}; } \
    template <class T> WGSL_FN vec<T, 4> name(vec<T, 4> a, vec<U, 4> b) { return {name(a.x, b.x), name(a.y, b.y), name(a.z, b.z), name(a.w, b.w)}; }
#define WGSL_MAP3(name) \
    template <class T> WGSL_FN vec<T, 2> name(vec<T, 2> a, vec<T, 2> b, vec<T, 2> c) { return {name(a.x, b.x, c.x), name(a.y, b.y, c.y)}; } \
    template <class T> WGSL_FN vec<T, 3> name(vec<T, 3> a, vec<T, 3> b, vec<T, 3> c) { return {name(a.x, b.x, c.x), name(a.y, b.y, c.y), name(a.z, b.z, c.z)}; } \
    template <class T> WGSL_FN vec<T, 4> name(vec<T, 4> a, vec<T, 4> b, vec<T, 4> c) { return {name(a.x, b.x, c.x), name(a.y, b.y, c.y), name(a.z, b.z, c.z), name(a.w, b.w, c.w)}; }

// ---- arithmetic ----

template <class T> WGSL_FN T add(T a, T b) { return a + b; }
template <class T> WGSL_FN T sub(T a, T b) { return a - b; }
template <class T> WGSL_FN T mul(T a, T b) { return a * b; }
template <class T> WGSL_FN T div(T a, T b) { return a / b; }
template <class T> WGSL_FN T neg(T a) { return -a; }
// Signed integers wrap.
template <> WGSL_FN i32 add(i32 a, i32 b) { return (i32)((u32)a + (u32)b); }
template <> WGSL_FN i32 sub(i32 a, i32 b) { return (i32)((u32)a - (u32)b); }
template <> WGSL_FN i32 mul(i32 a, i32 b) { return (i32)((u32)a * (u32)b); }
template <> WGSL_FN i32 neg(i32 a) { return (i32)(0u - (u32)a); }
template <> WGSL_FN i64 add(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
template <> WGSL_FN i64 sub(i64 a, i64 b) { return (i64)((u64)a - (u64)b); }
template <> WGSL_FN i64 mul(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
template <> WGSL_FN i64 neg(i64 a) { return (i64)(0ull - (u64)a); }
// x / 0 is x, x % 0 is 0; so are the quotient and remainder of the lowest number and -1.
template <> WGSL_FN u32 div(u32 a, u32 b) { return a / (b == 0 ? 1u : b); }
template <> WGSL_FN u64 div(u64 a, u64 b) { return a / (b == 0 ? 1ull : b); }
template <> WGSL_FN i32 div(i32 a, i32 b) { return a / (b == 0 || (a == -2147483647 - 1 && b == -1) ? 1 : b); }
template <> WGSL_FN i64 div(i64 a, i64 b) { return a / (b == 0 || (a == -9223372036854775807ll - 1 && b == -1) ? 1ll : b); }
WGSL_FN u32 mod(u32 a, u32 b) { return a % (b == 0 ? 1u : b); }
WGSL_FN u64 mod(u64 a, u64 b) { return a % (b == 0 ? 1ull : b); }
WGSL_FN i32 mod(i32 a, i32 b) { return a % (b == 0 || (a == -2147483647 - 1 && b == -1) ? 1 : b); }
WGSL_FN i64 mod(i64 a, i64 b) { return a % (b == 0 || (a == -9223372036854775807ll - 1 && b == -1) ? 1ll : b); }
WGSL_FN f32 mod(f32 a, f32 b) { return fmodf(a, b); }
WGSL_FN f64 mod(f64 a, f64 b) { return fmod(a, b); }
WGSL_FN f16 mod(f16 a, f16 b) { return f32_to_f16(fmodf(f16_to_f32(a), f16_to_f32(b))); }
// Shifts take the distance modulo the width.
WGSL_FN u32 shl(u32 a, u32 b) { return a << (b & 31); }
WGSL_FN i32 shl(i32 a, u32 b) { return (i32)((u32)a << (b & 31)); }
WGSL_FN u64 shl(u64 a, u32 b) { return a << (b & 63); }
WGSL_FN i64 shl(i64 a, u32 b) { return (i64)((u64)a << (b & 63)); }
WGSL_FN u32 shr(u32 a, u32 b) { return a >> (b & 31); }
WGSL_FN i32 shr(i32 a, u32 b) { return a >> (b & 31); }
WGSL_FN u64 shr(u64 a, u32 b) { return a >> (b & 63); }
WGSL_FN i64 shr(i64 a, u32 b) { return a >> (b & 63); }
template <class T> WGSL_FN T bit_and(T a, T b) { return a & b; }
template <class T> WGSL_FN T bit_or(T a, T b) { return a | b; }
template <class T> WGSL_FN T bit_xor(T a, T b) { return a ^ b; }
template <class T> WGSL_FN T bit_not(T a) { return ~a; }
WGSL_FN bool bit_and(bool a, bool b) { return a && b; }
WGSL_FN bool bit_or(bool a, bool b) { return a || b; }
WGSL_FN bool bit_xor(bool a, bool b) { return a != b; }
WGSL_FN bool logical_not(bool a) { return !a; }
template <class T> WGSL_FN bool eq(T a, T b) { return a == b; }
template <class T> WGSL_FN bool ne(T a, T b) { return a != b; }
template <class T> WGSL_FN bool lt(T a, T b) { return a < b; }
template <class T> WGSL_FN bool le(T a, T b) { return a <= b; }
template <class T> WGSL_FN bool gt(T a, T b) { return a > b; }
template <class T> WGSL_FN bool ge(T a, T b) { return a >= b; }
WGSL_MAP1(T, neg)
WGSL_MAP1(T, bit_not)
WGSL_MAP1(T, logical_not)
WGSL_MAP2(T, add)
WGSL_MAP2(T, sub)
WGSL_MAP2(T, mul)
WGSL_MAP2(T, div)
WGSL_MAP2(T, mod)
WGSL_MAP_BY(shl, u32)
WGSL_MAP_BY(shr, u32)
WGSL_MAP2(T, bit_and)
WGSL_MAP2(T, bit_or)
WGSL_MAP2(T, bit_xor)
WGSL_MAP2(bool, eq)
WGSL_MAP2(bool, ne)
WGSL_MAP2(bool, lt)
WGSL_MAP2(bool, le)
WGSL_MAP2(bool, gt)
WGSL_MAP2(bool, ge)

template <class T> WGSL_FN T select(T reject, T accept, bool c) { return c ? accept : reject; }
template <class T> WGSL_FN vec<T, 2> select(vec<T, 2> r, vec<T, 2> a, vec<bool, 2> c) { return {c.x ? a.x : r.x, c.y ? a.y : r.y}; }
template <class T> WGSL_FN vec<T, 3> select(vec<T, 3> r, vec<T, 3> a, vec<bool, 3> c) { return {c.x ? a.x : r.x, c.y ? a.y : r.y, c.z ? a.z : r.z}; }
template <class T> WGSL_FN vec<T, 4> select(vec<T, 4> r, vec<T, 4> a, vec<bool, 4> c) { return {c.x ? a.x : r.x, c.y ? a.y : r.y, c.z ? a.z : r.z, c.w ? a.w : r.w}; }

WGSL_FN bool all(bool a) { return a; }
WGSL_FN bool any(bool a) { return a; }
WGSL_FN bool all(vec<bool, 2> a) { return a.x && a.y; }
WGSL_FN bool all(vec<bool, 3> a) { return a.x && a.y && a.z; }
WGSL_FN bool all(vec<bool, 4> a) { return a.x && a.y && a.z && a.w; }
WGSL_FN bool any(vec<bool, 2> a) { return a.x || a.y; }
WGSL_FN bool any(vec<bool, 3> a) { return a.x || a.y || a.z; }
WGSL_FN bool any(vec<bool, 4> a) { return a.x || a.y || a.z || a.w; }

// ---- conversions ----

// Numbers outside an integer's range become its nearest one that the float has (naga's rule for every backend).
#define WGSL_CONVERT_FLOAT(F) \
    WGSL_FN i32 to_i32(F a) { return (i32)fminf(fmaxf((f32)a, -2147483648.0f), 2147483520.0f); } \
    WGSL_FN u32 to_u32(F a) { return (u32)fminf(fmaxf((f32)a, 0.0f), 4294967040.0f); } \
    WGSL_FN i64 to_i64(F a) { return (i64)fminf(fmaxf((f32)a, -9223372036854775808.0f), 9223371487098961920.0f); } \
    WGSL_FN u64 to_u64(F a) { return (u64)fminf(fmaxf((f32)a, 0.0f), 18446742974197923840.0f); } \
    WGSL_FN bool to_bool(F a) { return a != (F)0; }
WGSL_CONVERT_FLOAT(f32)
WGSL_FN i32 to_i32(f64 a) { return (i32)fmin(fmax(a, -2147483648.0), 2147483647.0); }
WGSL_FN u32 to_u32(f64 a) { return (u32)fmin(fmax(a, 0.0), 4294967295.0); }
WGSL_FN i64 to_i64(f64 a) { return (i64)fmin(fmax(a, -9223372036854775808.0), 9223372036854774784.0); }
WGSL_FN u64 to_u64(f64 a) { return (u64)fmin(fmax(a, 0.0), 18446744073709549568.0); }
WGSL_FN bool to_bool(f64 a) { return a != 0.0; }
WGSL_FN f32 to_f32(f32 a) { return a; }
WGSL_FN f64 to_f64(f32 a) { return a; }
WGSL_FN f16 to_f16(f32 a) { return f32_to_f16(a); }
WGSL_FN f32 to_f32(f64 a) { return (f32)a; }
WGSL_FN f64 to_f64(f64 a) { return a; }
WGSL_FN f16 to_f16(f64 a) { return f32_to_f16((f32)a); }
#define WGSL_CONVERT_INTEGER(I) \
    WGSL_FN i32 to_i32(I a) { return (i32)a; } \
    WGSL_FN u32 to_u32(I a) { return (u32)a; } \
    WGSL_FN i64 to_i64(I a) { return (i64)a; } \
    WGSL_FN u64 to_u64(I a) { return (u64)a; } \
    WGSL_FN f32 to_f32(I a) { return (f32)a; } \
    WGSL_FN f64 to_f64(I a) { return (f64)a; } \
    WGSL_FN f16 to_f16(I a) { return f32_to_f16((f32)a); } \
    WGSL_FN bool to_bool(I a) { return a != 0; }
WGSL_CONVERT_INTEGER(i32)
WGSL_CONVERT_INTEGER(u32)
WGSL_CONVERT_INTEGER(i64)
WGSL_CONVERT_INTEGER(u64)
WGSL_CONVERT_INTEGER(bool)
WGSL_FN i32 to_i32(f16 a) { return to_i32(f16_to_f32(a)); }
WGSL_FN u32 to_u32(f16 a) { return to_u32(f16_to_f32(a)); }
WGSL_FN i64 to_i64(f16 a) { return to_i64(f16_to_f32(a)); }
WGSL_FN u64 to_u64(f16 a) { return to_u64(f16_to_f32(a)); }
WGSL_FN bool to_bool(f16 a) { return f16_to_f32(a) != 0.0f; }
WGSL_FN f32 to_f32(f16 a) { return f16_to_f32(a); }
WGSL_FN f64 to_f64(f16 a) { return f16_to_f32(a); }
WGSL_FN f16 to_f16(f16 a) { return a; }
WGSL_MAP1(i32, to_i32)
WGSL_MAP1(u32, to_u32)
WGSL_MAP1(i64, to_i64)
WGSL_MAP1(u64, to_u64)
WGSL_MAP1(f32, to_f32)
WGSL_MAP1(f64, to_f64)
WGSL_MAP1(f16, to_f16)
WGSL_MAP1(bool, to_bool)

WGSL_FN i32 as_i32(i32 a) { return a; }
WGSL_FN i32 as_i32(u32 a) { return (i32)a; }
WGSL_FN i32 as_i32(f32 a) { return __float_as_int(a); }
WGSL_FN u32 as_u32(u32 a) { return a; }
WGSL_FN u32 as_u32(i32 a) { return (u32)a; }
WGSL_FN u32 as_u32(f32 a) { return __float_as_uint(a); }
WGSL_FN f32 as_f32(f32 a) { return a; }
WGSL_FN f32 as_f32(i32 a) { return __int_as_float(a); }
WGSL_FN f32 as_f32(u32 a) { return __uint_as_float(a); }
WGSL_FN i64 as_i64(i64 a) { return a; }
WGSL_FN i64 as_i64(u64 a) { return (i64)a; }
WGSL_FN i64 as_i64(f64 a) { return __double_as_longlong(a); }
WGSL_FN u64 as_u64(u64 a) { return a; }
WGSL_FN u64 as_u64(i64 a) { return (u64)a; }
WGSL_FN u64 as_u64(f64 a) { return (u64)__double_as_longlong(a); }
WGSL_FN f64 as_f64(f64 a) { return a; }
WGSL_FN f64 as_f64(i64 a) { return __longlong_as_double(a); }
WGSL_FN f64 as_f64(u64 a) { return __longlong_as_double((i64)a); }
WGSL_FN f16 as_f16(f16 a) { return a; }
WGSL_MAP1(i32, as_i32)
WGSL_MAP1(u32, as_u32)
WGSL_MAP1(f32, as_f32)
WGSL_MAP1(i64, as_i64)
WGSL_MAP1(u64, as_u64)
WGSL_MAP1(f64, as_f64)
WGSL_MAP1(f16, as_f16)

// ---- mathematics ----

#define WGSL_FLOAT1(name, f, d) \
    WGSL_FN f32 name(f32 a) { return f(a); } \
    WGSL_FN f64 name(f64 a) { return d(a); } \
    WGSL_FN f16 name(f16 a) { return f32_to_f16(f(f16_to_f32(a))); } \
    WGSL_MAP1(T, name)
WGSL_FLOAT1(cos, cosf, ::cos)
WGSL_FLOAT1(cosh, coshf, ::cosh)
WGSL_FLOAT1(sin, sinf, ::sin)
WGSL_FLOAT1(sinh, sinhf, ::sinh)
WGSL_FLOAT1(tan, tanf, ::tan)
WGSL_FLOAT1(tanh, tanhf, ::tanh)
WGSL_FLOAT1(acos, acosf, ::acos)
WGSL_FLOAT1(asin, asinf, ::asin)
WGSL_FLOAT1(atan, atanf, ::atan)
WGSL_FLOAT1(asinh, asinhf, ::asinh)
WGSL_FLOAT1(acosh, acoshf, ::acosh)
WGSL_FLOAT1(atanh, atanhf, ::atanh)
WGSL_FLOAT1(ceil, ceilf, ::ceil)
WGSL_FLOAT1(floor, floorf, ::floor)
WGSL_FLOAT1(round, rintf, ::rint)
WGSL_FLOAT1(trunc, truncf, ::trunc)
WGSL_FLOAT1(exp, expf, ::exp)
WGSL_FLOAT1(exp2, exp2f, ::exp2)
WGSL_FLOAT1(log, logf, ::log)
WGSL_FLOAT1(log2, log2f, ::log2)
WGSL_FLOAT1(sqrt, sqrtf, ::sqrt)
WGSL_FLOAT1(inverse_sqrt, rsqrtf, ::rsqrt)
#define WGSL_FLOAT2(name, f, d) \
    WGSL_FN f32 name(f32 a, f32 b) { return f(a, b); } \
    WGSL_FN f64 name(f64 a, f64 b) { return d(a, b); } \
    WGSL_FN f16 name(f16 a, f16 b) { return f32_to_f16(f(f16_to_f32(a), f16_to_f32(b))); } \
    WGSL_MAP2(T, name)
WGSL_FLOAT2(atan2, atan2f, ::atan2)
WGSL_FLOAT2(pow, powf, ::pow)
WGSL_FN f32 fma(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }
WGSL_FN f64 fma(f64 a, f64 b, f64 c) { return ::fma(a, b, c); }
#ifdef WGSL_HOST
WGSL_FN f16 fma(f16 a, f16 b, f16 c) { return (f16)((f64)a * (f64)b + (f64)c); }
#else
WGSL_FN f16 fma(f16 a, f16 b, f16 c) { f16 r; asm("fma.rn.f16 %0, %1, %2, %3;" : "=h"(r.bits) : "h"(a.bits), "h"(b.bits), "h"(c.bits)); return r; }
#endif
WGSL_MAP3(fma)
WGSL_FN f32 abs(f32 a) { return fabsf(a); }
WGSL_FN f64 abs(f64 a) { return fabs(a); }
WGSL_FN f16 abs(f16 a) { return f16_of((u16)(f16_bits(a) & 0x7fff)); }
WGSL_FN i32 abs(i32 a) { return a < 0 ? neg(a) : a; }
WGSL_FN i64 abs(i64 a) { return a < 0 ? neg(a) : a; }
WGSL_FN u32 abs(u32 a) { return a; }
WGSL_FN u64 abs(u64 a) { return a; }
WGSL_MAP1(T, abs)
template <class T> WGSL_FN T min(T a, T b) { return b < a ? b : a; }
template <class T> WGSL_FN T max(T a, T b) { return a < b ? b : a; }
template <> WGSL_FN f32 min(f32 a, f32 b) { return fminf(a, b); }
template <> WGSL_FN f32 max(f32 a, f32 b) { return fmaxf(a, b); }
template <> WGSL_FN f64 min(f64 a, f64 b) { return fmin(a, b); }
template <> WGSL_FN f64 max(f64 a, f64 b) { return fmax(a, b); }
WGSL_MAP2(T, min)
WGSL_MAP2(T, max)
template <class T> WGSL_FN T clamp(T a, T lo, T hi) { return min(max(a, lo), hi); }
WGSL_FN f32 saturate(f32 a) { return fminf(fmaxf(a, 0.0f), 1.0f); }
WGSL_FN f64 saturate(f64 a) { return fmin(fmax(a, 0.0), 1.0); }
WGSL_FN f16 saturate(f16 a) { return f32_to_f16(saturate(f16_to_f32(a))); }
WGSL_MAP1(T, saturate)
template <class T> WGSL_FN T sign(T a) { return (T)((a > (T)0) - (a < (T)0)); }
template <class T, int N> WGSL_FN vec<T, N> fract(vec<T, N> a) { return sub(a, floor(a)); }
WGSL_FN f32 fract(f32 a) { return a - floorf(a); }
WGSL_FN f64 fract(f64 a) { return a - ::floor(a); }
WGSL_FN f16 fract(f16 a) { return a - floor(a); }
WGSL_FN f16 sign(f16 a) { return f32_to_f16(sign(f16_to_f32(a))); }
WGSL_MAP1(T, sign)
WGSL_FN f32 radians(f32 a) { return a * 0.017453292519943295f; }
WGSL_FN f32 degrees(f32 a) { return a * 57.29577951308232f; }
WGSL_FN f16 radians(f16 a) { return f32_to_f16(radians(f16_to_f32(a))); }
WGSL_FN f16 degrees(f16 a) { return f32_to_f16(degrees(f16_to_f32(a))); }
WGSL_FN f64 radians(f64 a) { return a * 0.017453292519943295; }
WGSL_FN f64 degrees(f64 a) { return a * 57.29577951308232; }
WGSL_MAP1(T, radians)
WGSL_MAP1(T, degrees)
template <class T> WGSL_FN T mix(T a, T b, T t) { return a * (to_f32(1.0f) - t) + b * t; }
template <> WGSL_FN f64 mix(f64 a, f64 b, f64 t) { return a * (1.0 - t) + b * t; }
template <> WGSL_FN f16 mix(f16 a, f16 b, f16 t) { return a * (to_f16(1.0f) - t) + b * t; }
WGSL_MAP3(mix)
template <class T, int N> WGSL_FN vec<T, N> mix(vec<T, N> a, vec<T, N> b, T t) { return mix(a, b, splat<N>(t)); }
WGSL_FN f32 step(f32 edge, f32 a) { return edge <= a ? 1.0f : 0.0f; }
WGSL_FN f64 step(f64 edge, f64 a) { return edge <= a ? 1.0 : 0.0; }
WGSL_FN f16 step(f16 edge, f16 a) { return to_f16(edge <= a ? 1.0f : 0.0f); }
WGSL_MAP2(T, step)
WGSL_FN f32 smoothstep(f32 lo, f32 hi, f32 a) { f32 t = saturate((a - lo) / (hi - lo)); return t * t * (3.0f - 2.0f * t); }
WGSL_FN f64 smoothstep(f64 lo, f64 hi, f64 a) { f64 t = saturate((a - lo) / (hi - lo)); return t * t * (3.0 - 2.0 * t); }
WGSL_FN f16 smoothstep(f16 lo, f16 hi, f16 a) { return to_f16(smoothstep(to_f32(lo), to_f32(hi), to_f32(a))); }
WGSL_MAP3(smoothstep)
WGSL_FN f32 ldexp(f32 a, i32 e) { return ldexpf(a, e); }
WGSL_FN f64 ldexp(f64 a, i32 e) { return ::ldexp(a, e); }
WGSL_FN f16 ldexp(f16 a, i32 e) { return to_f16(ldexpf(to_f32(a), e)); }
WGSL_MAP_BY(ldexp, i32)
WGSL_FN f32 quantize_to_f16(f32 a) { return f16_to_f32(f32_to_f16(a)); }
WGSL_MAP1(f32, quantize_to_f16)
// R is a struct of the module: {fract, whole} or {fract, exp}.
template <class R, class T> WGSL_FN R modf(T a) { R r{}; r.whole_1 = trunc(a); r.fract_0 = sub(a, r.whole_1); return r; }
WGSL_FN f32 mantissa(f32 a, i32 &e) { return frexpf(a, &e); }
WGSL_FN f64 mantissa(f64 a, i32 &e) { return ::frexp(a, &e); }
WGSL_FN f16 mantissa(f16 a, i32 &e) { return to_f16(frexpf(to_f32(a), &e)); }
template <class T> WGSL_FN vec<T, 2> mantissa(vec<T, 2> a, vec<i32, 2> &e) { return {mantissa(a.x, e.x), mantissa(a.y, e.y)}; }
template <class T> WGSL_FN vec<T, 3> mantissa(vec<T, 3> a, vec<i32, 3> &e) { return {mantissa(a.x, e.x), mantissa(a.y, e.y), mantissa(a.z, e.z)}; }
template <class T> WGSL_FN vec<T, 4> mantissa(vec<T, 4> a, vec<i32, 4> &e) { return {mantissa(a.x, e.x), mantissa(a.y, e.y), mantissa(a.z, e.z), mantissa(a.w, e.w)}; }
template <class R, class T> WGSL_FN R frexp(T a) { R r{}; r.fract_0 = mantissa(a, r.exp_1); return r; }

// ---- geometry ----

template <class T> WGSL_FN T dot(vec<T, 2> a, vec<T, 2> b) { return add(mul(a.x, b.x), mul(a.y, b.y)); }
template <class T> WGSL_FN T dot(vec<T, 3> a, vec<T, 3> b) { return add(add(mul(a.x, b.x), mul(a.y, b.y)), mul(a.z, b.z)); }
template <class T> WGSL_FN T dot(vec<T, 4> a, vec<T, 4> b) { return add(add(add(mul(a.x, b.x), mul(a.y, b.y)), mul(a.z, b.z)), mul(a.w, b.w)); }
template <class T> WGSL_FN vec<T, 3> cross(vec<T, 3> a, vec<T, 3> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
template <class T, int N> WGSL_FN T length(vec<T, N> a) { return sqrt(dot(a, a)); }
template <class T> WGSL_FN T length(T a) { return abs(a); }
template <class T> WGSL_FN T distance(T a, T b) { return abs(sub(a, b)); }
template <class T, int N> WGSL_FN T distance(vec<T, N> a, vec<T, N> b) { return length(sub(a, b)); }
template <class T, int N> WGSL_FN vec<T, N> normalize(vec<T, N> a) { return div(a, splat<N>(length(a))); }
template <class T, int N> WGSL_FN vec<T, N> face_forward(vec<T, N> a, vec<T, N> i, vec<T, N> n) { return dot(i, n) < (T)0 ? a : neg(a); }
template <class T, int N> WGSL_FN vec<T, N> reflect(vec<T, N> i, vec<T, N> n) { T d = dot(n, i); return sub(i, mul(splat<N>(d + d), n)); }
template <class T, int N> WGSL_FN vec<T, N> refract(vec<T, N> i, vec<T, N> n, T eta) {
    T d = dot(n, i), one = (T)1, k = one - eta * eta * (one - d * d);
    return k < (T)0 ? vec<T, N>{} : sub(mul(splat<N>(eta), i), mul(splat<N>(eta * d + sqrt(k)), n));
}
template <class T, int C, int R> WGSL_FN mat<T, C, R> mat_scale(mat<T, C, R> a, T b) {
    for (int i = 0; i < C; i++) a[i] = mul(a[i], splat<R>(b));
    return a;
}
template <class T, int C, int R> WGSL_FN mat<T, C, R> mat_scale(T a, mat<T, C, R> b) { return mat_scale(b, a); }
template <class T, int C, int R> WGSL_FN mat<T, C, R> add(mat<T, C, R> a, mat<T, C, R> b) {
    for (int i = 0; i < C; i++) a[i] = add(a[i], b[i]);
    return a;
}
template <class T, int C, int R> WGSL_FN mat<T, C, R> sub(mat<T, C, R> a, mat<T, C, R> b) {
    for (int i = 0; i < C; i++) a[i] = sub(a[i], b[i]);
    return a;
}
template <class T, int C, int R> WGSL_FN mat<T, C, R> neg(mat<T, C, R> a) {
    for (int i = 0; i < C; i++) a[i] = neg(a[i]);
    return a;
}
template <class T, int C, int R> WGSL_FN vec<T, R> mat_mul(mat<T, C, R> a, vec<T, C> b) {
    vec<T, R> sum = mul(a[0], splat<R>(b.x));
    for (int i = 1; i < C; i++) sum = add(sum, mul(a[i], splat<R>(at(b, i))));
    return sum;
}
template <class T, int C, int R> WGSL_FN vec<T, C> mat_mul(vec<T, R> a, mat<T, C, R> b) {
    vec<T, C> r;
    for (int i = 0; i < C; i++) at(r, i) = dot(a, b[i]);
    return r;
}
template <class T, int C, int K, int R> WGSL_FN mat<T, C, R> mat_mul(mat<T, K, R> a, mat<T, C, K> b) {
    mat<T, C, R> r;
    for (int i = 0; i < C; i++) r[i] = mat_mul(a, b[i]);
    return r;
}
template <class T, int C, int R> WGSL_FN mat<T, R, C> transpose(mat<T, C, R> a) {
    mat<T, R, C> r;
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) at(r[i], j) = at(a[j], i);
    return r;
}
template <class T> WGSL_FN T determinant(mat<T, 2, 2> m) { return m[0].x * m[1].y - m[1].x * m[0].y; }
template <class T> WGSL_FN T determinant(mat<T, 3, 3> m) { return dot(m[0], cross(m[1], m[2])); }
template <class T> WGSL_FN T determinant(mat<T, 4, 4> m) {
    T sum = (T)0;
    for (int i = 0; i < 4; i++) {
        mat<T, 3, 3> minor;
        for (int j = 0, k = 0; j < 4; j++)
            if (j != i) minor[k++] = {m[j].y, m[j].z, m[j].w};
        T part = m[i].x * determinant(minor);
        sum = i % 2 == 0 ? sum + part : sum - part;
    }
    return sum;
}

// ---- bits ----

WGSL_FN u32 count_one_bits(u32 a) { return (u32)__popc(a); }
WGSL_FN u32 count_leading_zeros(u32 a) { return (u32)__clz((i32)a); }
WGSL_FN u32 count_trailing_zeros(u32 a) { return a == 0 ? 32u : (u32)__ffs((i32)a) - 1u; }
WGSL_FN u32 reverse_bits(u32 a) { return __brev(a); }
WGSL_FN u32 first_trailing_bit(u32 a) { return (u32)__ffs((i32)a) - 1u; }
WGSL_FN u32 first_leading_bit(u32 a) { return 31u - (u32)__clz((i32)a); }
WGSL_FN i32 first_leading_bit(i32 a) { return (i32)first_leading_bit((u32)(a < 0 ? ~a : a)); }
#define WGSL_SIGNED_BITS(name) WGSL_FN i32 name(i32 a) { return (i32)name((u32)a); }
WGSL_SIGNED_BITS(count_one_bits)
WGSL_SIGNED_BITS(count_leading_zeros)
WGSL_SIGNED_BITS(count_trailing_zeros)
WGSL_SIGNED_BITS(reverse_bits)
WGSL_SIGNED_BITS(first_trailing_bit)
WGSL_MAP1(T, count_one_bits)
WGSL_MAP1(T, count_leading_zeros)
WGSL_MAP1(T, count_trailing_zeros)
WGSL_MAP1(T, reverse_bits)
WGSL_MAP1(T, first_trailing_bit)
WGSL_MAP1(T, first_leading_bit)
WGSL_FN u32 low_bits(u32 count) { return count >= 32 ? ~0u : (1u << count) - 1u; }
WGSL_FN u32 extract_bits(u32 a, u32 offset, u32 count) {
    u32 o = offset < 32 ? offset : 32, c = count < 32 - o ? count : 32 - o;
    return c == 0 ? 0 : (a >> o) & low_bits(c);
}
WGSL_FN i32 extract_bits(i32 a, u32 offset, u32 count) {
    u32 o = offset < 32 ? offset : 32, c = count < 32 - o ? count : 32 - o;
    return c == 0 ? 0 : (i32)((u32)a << (32 - o - c)) >> (32 - c);
}
WGSL_FN u32 insert_bits(u32 a, u32 b, u32 offset, u32 count) {
    u32 o = offset < 32 ? offset : 32, c = count < 32 - o ? count : 32 - o;
    if (c == 0) return a;
    u32 mask = low_bits(c) << o;
    return (a & ~mask) | ((b << o) & mask);
}
WGSL_FN i32 insert_bits(i32 a, i32 b, u32 offset, u32 count) { return (i32)insert_bits((u32)a, (u32)b, offset, count); }
template <class T> WGSL_FN vec<T, 2> extract_bits(vec<T, 2> a, u32 o, u32 c) { return {extract_bits(a.x, o, c), extract_bits(a.y, o, c)}; }
template <class T> WGSL_FN vec<T, 3> extract_bits(vec<T, 3> a, u32 o, u32 c) { return {extract_bits(a.x, o, c), extract_bits(a.y, o, c), extract_bits(a.z, o, c)}; }
template <class T> WGSL_FN vec<T, 4> extract_bits(vec<T, 4> a, u32 o, u32 c) { return {extract_bits(a.x, o, c), extract_bits(a.y, o, c), extract_bits(a.z, o, c), extract_bits(a.w, o, c)}; }
template <class T> WGSL_FN vec<T, 2> insert_bits(vec<T, 2> a, vec<T, 2> b, u32 o, u32 c) { return {insert_bits(a.x, b.x, o, c), insert_bits(a.y, b.y, o, c)}; }
template <class T> WGSL_FN vec<T, 3> insert_bits(vec<T, 3> a, vec<T, 3> b, u32 o, u32 c) { return {insert_bits(a.x, b.x, o, c), insert_bits(a.y, b.y, o, c), insert_bits(a.z, b.z, o, c)}; }
template <class T> WGSL_FN vec<T, 4> insert_bits(vec<T, 4> a, vec<T, 4> b, u32 o, u32 c) { return {insert_bits(a.x, b.x, o, c), insert_bits(a.y, b.y, o, c), insert_bits(a.z, b.z, o, c), insert_bits(a.w, b.w, o, c)}; }

// ---- packed numbers ----

WGSL_FN i32 dot4_i8(u32 a, u32 b) { return __dp4a((i32)a, (i32)b, 0); }
WGSL_FN u32 dot4_u8(u32 a, u32 b) { return __dp4a(a, b, 0u); }
WGSL_FN vec<i32, 4> unpack4_i8(u32 a) { return {(i32)(a << 24) >> 24, (i32)(a << 16) >> 24, (i32)(a << 8) >> 24, (i32)a >> 24}; }
WGSL_FN vec<u32, 4> unpack4_u8(u32 a) { return {a & 255, (a >> 8) & 255, (a >> 16) & 255, a >> 24}; }
WGSL_FN u32 pack4_u8(vec<u32, 4> a) { return (a.x & 255) | (a.y & 255) << 8 | (a.z & 255) << 16 | a.w << 24; }
WGSL_FN u32 pack4_i8(vec<i32, 4> a) { return pack4_u8(to_u32(a)); }
WGSL_FN u32 pack4_u8_clamp(vec<u32, 4> a) { return pack4_u8(min(a, splat<4>(255u))); }
WGSL_FN u32 pack4_i8_clamp(vec<i32, 4> a) { return pack4_i8(clamp(a, splat<4>(-128), splat<4>(127))); }
WGSL_FN u32 pack2_f16(vec<f32, 2> a) { return (u32)f16_bits(f32_to_f16(a.x)) | (u32)f16_bits(f32_to_f16(a.y)) << 16; }
WGSL_FN vec<f32, 2> unpack2_f16(u32 a) { return {f16_to_f32(f16_of((u16)a)), f16_to_f32(f16_of((u16)(a >> 16)))}; }
WGSL_FN u32 pack4_snorm(vec<f32, 4> a) {
    return pack4_i8(to_i32(floor(add(mul(clamp(a, splat<4>(-1.0f), splat<4>(1.0f)), splat<4>(127.0f)), splat<4>(0.5f)))));
}
WGSL_FN u32 pack4_unorm(vec<f32, 4> a) { return pack4_u8(to_u32(floor(add(mul(saturate(a), splat<4>(255.0f)), splat<4>(0.5f))))); }
WGSL_FN vec<f32, 4> unpack4_snorm(u32 a) { return max(div(to_f32(unpack4_i8(a)), splat<4>(127.0f)), splat<4>(-1.0f)); }
WGSL_FN vec<f32, 4> unpack4_unorm(u32 a) { return div(to_f32(unpack4_u8(a)), splat<4>(255.0f)); }
WGSL_FN u32 pack2_snorm(vec<f32, 2> a) {
    vec<i32, 2> r = to_i32(floor(add(mul(clamp(a, splat<2>(-1.0f), splat<2>(1.0f)), splat<2>(32767.0f)), splat<2>(0.5f))));
    return ((u32)r.x & 65535) | (u32)r.y << 16;
}
WGSL_FN u32 pack2_unorm(vec<f32, 2> a) {
    vec<u32, 2> r = to_u32(floor(add(mul(saturate(a), splat<2>(65535.0f)), splat<2>(0.5f))));
    return r.x | r.y << 16;
}
WGSL_FN vec<f32, 2> unpack2_snorm(u32 a) {
    vec<i32, 2> v = {(i32)(a << 16) >> 16, (i32)a >> 16};
    return max(div(to_f32(v), splat<2>(32767.0f)), splat<2>(-1.0f));
}
WGSL_FN vec<f32, 2> unpack2_unorm(u32 a) { return {(f32)(a & 65535) / 65535.0f, (f32)(a >> 16) / 65535.0f}; }

// ---- memory ----

template <class T> WGSL_FN T atomic_load(const T &a) { return *(const volatile T *)&a; }
template <class T> WGSL_FN void atomic_store(T &a, T b) { *(volatile T *)&a = b; }
template <class T> WGSL_FN T atomic_sub(T *a, T b) { return atomicAdd(a, neg(b)); }
template <class R, class T> WGSL_FN R atomic_compare_exchange(T *a, T compare, T value) {
    R r{};
    r.old_value_0 = atomicCAS(a, compare, value);
    r.exchanged_1 = r.old_value_0 == compare;
    return r;
}
// How `BoundsPolicy` treats index i of n.
WGSL_FN u32 restrict_index(u32 i, u32 n) { return i < n ? i : n - 1; }
WGSL_FN u32 check_index(u32 i, u32 n) {
    if (i >= n) __trap();
    return i;
}
constexpr u32 THREADS = WGSL_SIZE_X * WGSL_SIZE_Y * WGSL_SIZE_Z;
WGSL_FN u32 thread_index() {
    u32 i = threadIdx.x;
    if constexpr (WGSL_SIZE_Y > 1) i += WGSL_SIZE_X * threadIdx.y;
    if constexpr (WGSL_SIZE_Z > 1) i += WGSL_SIZE_X * WGSL_SIZE_Y * threadIdx.z;
    return i;
}
template <class T> WGSL_FN void zero(T &variable) {
    if constexpr (sizeof(T) % 4 == 0)
        for (u32 i = thread_index(); i < sizeof(T) / 4; i += THREADS) ((u32 *)&variable)[i] = 0;
    else
        for (u32 i = thread_index(); i < sizeof(T); i += THREADS) ((unsigned char *)&variable)[i] = 0;
}
template <class T> WGSL_FN T uniform_load(const T &variable) {
    __syncthreads();
    T value = variable;
    __syncthreads();
    return value;
}

// ---- subgroups: warps of 32 lanes; the last one may have fewer ----

WGSL_FN u32 warp_lanes() {
    if constexpr (THREADS % 32 == 0) return 32;
    u32 rest = THREADS - (thread_index() & ~31u);
    return rest < 32 ? rest : 32;
}
WGSL_FN u32 warp_mask() { u32 n = warp_lanes(); return n == 32 ? ~0u : (1u << n) - 1u; }
WGSL_FN u32 lane() { return thread_index() & 31u; }
WGSL_FN f32 shuffle(f32 a, u32 from) { return __shfl_sync(warp_mask(), a, (i32)from); }
WGSL_FN i32 shuffle(i32 a, u32 from) { return __shfl_sync(warp_mask(), a, (i32)from); }
WGSL_FN u32 shuffle(u32 a, u32 from) { return __shfl_sync(warp_mask(), a, (i32)from); }
WGSL_FN f16 shuffle(f16 a, u32 from) { return f16_of((u16)shuffle((u32)f16_bits(a), from)); }
WGSL_FN bool shuffle(bool a, u32 from) { return shuffle((u32)a, from) != 0; }
template <class T> WGSL_FN vec<T, 2> shuffle(vec<T, 2> a, u32 f) { return {shuffle(a.x, f), shuffle(a.y, f)}; }
template <class T> WGSL_FN vec<T, 3> shuffle(vec<T, 3> a, u32 f) { return {shuffle(a.x, f), shuffle(a.y, f), shuffle(a.z, f)}; }
template <class T> WGSL_FN vec<T, 4> shuffle(vec<T, 4> a, u32 f) { return {shuffle(a.x, f), shuffle(a.y, f), shuffle(a.z, f), shuffle(a.w, f)}; }
template <class T> WGSL_FN T shuffle_xor(T a, u32 mask) { return shuffle(a, (lane() ^ mask) & 31u); }
template <class T> WGSL_FN T shuffle_up(T a, u32 delta) { return shuffle(a, (lane() - delta) & 31u); }
template <class T> WGSL_FN T shuffle_down(T a, u32 delta) { return shuffle(a, (lane() + delta) & 31u); }
WGSL_FN vec<u32, 4> ballot(bool a) { return {__ballot_sync(warp_mask(), a), 0u, 0u, 0u}; }
WGSL_FN bool subgroup_all(bool a) { return __all_sync(warp_mask(), a) != 0; }
WGSL_FN bool subgroup_any(bool a) { return __any_sync(warp_mask(), a) != 0; }

#define WGSL_SUBGROUP(name, op) \
    template <class T> WGSL_FN T subgroup_##name(T a) { \
        if constexpr (THREADS % 32 == 0) { \
            for (u32 m = 16; m > 0; m >>= 1) a = op(a, shuffle_xor(a, m)); \
            return a; \
        } else { \
            u32 n = warp_lanes(); \
            T sum = shuffle(a, 0); \
            for (u32 i = 1; i < n; i++) sum = op(sum, shuffle(a, i)); \
            return sum; \
        } \
    }
#define WGSL_SCAN(name, op, identity) \
    template <class T> WGSL_FN T subgroup_inclusive_##name(T a) { \
        for (u32 d = 1; d < 32; d <<= 1) { \
            T below = shuffle_up(a, d); \
            a = lane() >= d ? op(below, a) : a; \
        } \
        return a; \
    } \
    template <class T> WGSL_FN T subgroup_exclusive_##name(T a) { \
        T below = shuffle_up(subgroup_inclusive_##name(a), 1); \
        return lane() == 0 ? (T)identity : below; \
    } \
    template <class T, int N> WGSL_FN vec<T, N> subgroup_exclusive_##name(vec<T, N> a) { \
        vec<T, N> below = shuffle_up(subgroup_inclusive_##name(a), 1); \
        return lane() == 0 ? splat<N>((T)identity) : below; \
    }
WGSL_SUBGROUP(add, add)
WGSL_SUBGROUP(mul, mul)
WGSL_SUBGROUP(min, min)
WGSL_SUBGROUP(max, max)
WGSL_SUBGROUP(and, bit_and)
WGSL_SUBGROUP(or, bit_or)
WGSL_SUBGROUP(xor, bit_xor)
WGSL_SCAN(add, add, 0)
WGSL_SCAN(mul, mul, 1)

}  // namespace wgsl
