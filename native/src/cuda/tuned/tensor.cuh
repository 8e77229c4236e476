// Tensor cores: pairs of f16, copies into shared memory that are waited for, fragments and their product.
//
// Source: PTX ISA 9.0, sections 9.7.14.5.8 (mma.m16n8k16), 9.7.14.5.15 (ldmatrix), 9.7.9.25 (cp.async).

constexpr u32 LANES = 32;

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

#ifdef WGSL_HOST
FN void copy(U4 *to, const U4 *from) { *to = *from; }
FN void commit() {}
template <u32 PENDING> FN void wait() {}
#else
FN u32 shared(const void *at) { return (u32)__cvta_generic_to_shared(at); }
FN void copy(U4 *to, const U4 *from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared(to)), "l"(from) : "memory"); }
FN void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <u32 PENDING> FN void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
#endif

// Four matrices of 8 rows of a piece; lane l names row l % 8 of matrix l / 8 and gets elements 2 (l % 4) and the next of
// row l / 4 of each; with TRANSPOSED those of column l / 4.
template <bool TRANSPOSED = false> FN void load_matrices(u32 (&to)[4], const U4 *memory, u32 at) {
#ifdef WGSL_HOST
    u32 lane = threadIdx.x % LANES, two = lane % 4;
    for (u32 i = 0; i < 4; i++) {
        if (TRANSPOSED) {
            u32 first = __shfl_sync(~0u, at, 8 * i + 2 * two), second = __shfl_sync(~0u, at, 8 * i + 2 * two + 1);
            u32 word = lane / 8, shift = lane / 4 % 2 * 16;
            to[i] = (memory[first].w[word] >> shift & 0xFFFF) | memory[second].w[word] >> shift << 16;
        } else {
            to[i] = memory[__shfl_sync(~0u, at, 8 * i + lane / 4)].w[two];
        }
    }
#else
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(shared(memory + at)) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(shared(memory + at)) : "memory");
#endif
}

// What a CPU needs to do as a warp does: a row of words for each lane.
typedef u32 (*Exchange)[6];
#ifdef WGSL_HOST
#define EXCHANGE(WARPS)                        \
    __shared__ u32 exchange[WARPS][LANES][6]; \
    Exchange seen = exchange[threadIdx.x / LANES];
#else
#define EXCHANGE(WARPS) Exchange seen = nullptr;
#endif

// c += a b^T of 16 tokens, 8 rows and 16 elements. With g = lane / 4 and e = 2 (lane % 4) a lane has of
//   a: tokens g, g + 8, g, g + 8; elements e, e, e + 8, e + 8, and the next of each
//   b: row g; elements e, e + 8, and the next
//   c: tokens g, g, g + 8, g + 8; rows e, e + 1, e, e + 1
#ifdef WGSL_HOST
FN void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Exchange seen) {
    u32 lane = threadIdx.x % LANES, g = lane / 4, e = lane % 4 * 2;
    for (u32 i = 0; i < 4; i++) seen[lane][i] = a[i];
    seen[lane][4] = b0, seen[lane][5] = b1;
    __syncwarp();
    for (u32 i = 0; i < 4; i++)
        for (u32 k = 0; k < 16; k++) {
            u32 from = k / 2 % 4, shift = 16 * (k % 2);
            u32 of = seen[4 * g + from][i / 2 + k / 8 * 2] >> shift, row = seen[4 * (e + i % 2) + from][4 + k / 8] >> shift;
            c[i] += half_to_float(of) * half_to_float(row);
        }
    __syncwarp();
}
#else
FN void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Exchange) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif
