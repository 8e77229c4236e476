// Where halves.cu leaves activations for tiles.cu: scales of all tokens, then rows of f16 with zeros up to whole steps.

// Elements of a step of tiles.cu, and pieces of 8 in a row.
constexpr u32 STEP = 64, PIECES = (K + STEP - 1) / STEP * (STEP / 8);

FN float *scales(void *workspace) { return (float *)workspace; }
FN U4 *halves(void *workspace, u32 tokens) { return (U4 *)workspace + (tokens + 3) / 4; }

// Two of f16 in a word, the first in its lower half.
#ifdef WGSL_HOST
FN u32 pair(float a, float b) { return (u32)float_to_half(a) | (u32)float_to_half(b) << 16; }
FN u32 sub2(u32 a, u32 b) { return pair(half_to_float(a) - half_to_float(b), half_to_float(a >> 16) - half_to_float(b >> 16)); }
FN u32 fma2(u32 a, u32 b, u32 c) {
    return pair(half_to_float(a) * half_to_float(b) + half_to_float(c), half_to_float(a >> 16) * half_to_float(b >> 16) + half_to_float(c >> 16));
}
#else
FN u32 pair(float a, float b) { u32 r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a)); return r; }
FN u32 sub2(u32 a, u32 b) { u32 r; asm("sub.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b)); return r; }
FN u32 fma2(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
#endif
