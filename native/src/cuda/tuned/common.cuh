// Types and loads of the kernels written by hand.
//
// Source: PTX ISA 9.0, section 9.7.9.8 (ld.global.nc). WGSL_HOST: compiled for a CPU, which has no PTX.

#define FN __device__ __forceinline__

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;

struct alignas(16) U4 {
    u32 w[4];
};
struct alignas(16) F4 {
    float v[4];
};

#ifdef WGSL_HOST
FN float half_to_float(u16 a) { _Float16 r; __builtin_memcpy(&r, &a, 2); return (float)r; }
FN u16 float_to_half(float a) { _Float16 h = (_Float16)a; u16 r; __builtin_memcpy(&r, &h, 2); return r; }
FN U4 load4(const U4 *p) { return *p; }
FN u32 load(const u32 *p) { return *p; }
FN u16 load(const u16 *p) { return *p; }
#else
FN float half_to_float(u16 a) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(a)); return r; }
FN u16 float_to_half(float a) { u16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(a)); return r; }
// Weights are read once: they need no place in the first-level cache.
FN U4 load4(const U4 *p) {
    U4 r;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.w[0]), "=r"(r.w[1]), "=r"(r.w[2]), "=r"(r.w[3]) : "l"(p));
    return r;
}
FN u32 load(const u32 *p) { u32 r; asm("ld.global.nc.u32 %0, [%1];" : "=r"(r) : "l"(p)); return r; }
FN u16 load(const u16 *p) { u16 r; asm("ld.global.nc.u16 %0, [%1];" : "=h"(r) : "l"(p)); return r; }
#endif
