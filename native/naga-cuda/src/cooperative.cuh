// Cooperative matrices of 16 x 16 elements: f16 factors, sums of f16 or f32, on tensor cores (mma.sync.m16n8k16).
//
// A warp holds a matrix, 8 elements a lane. With g = lane / 4 and t = lane % 4 (PTX ISA 9.0, section 9.7.14.5.8), element
// i of a lane is, for two products of 16 x 8 beside each other,
//   A: row g + 8 (i / 2 % 2), column 2 t + i % 2 + 8 (i / 4)
//   B: row 2 t + i % 2 + 8 (i / 2 % 2), column g + 8 (i / 4)
//   C: row g + 8 (i / 2 % 2), column 2 t + i % 2 + 8 (i / 4)

namespace wgsl {

enum role { COOP_A, COOP_B, COOP_C };

template <class T, role R> struct coop {
    T e[8];
};

template <role R> WGSL_FN u32 coop_row(u32 lane, u32 i) {
    return R == COOP_B ? 2 * (lane & 3) + (i & 1) + 8 * (i >> 1 & 1) : (lane >> 2) + 8 * (i >> 1 & 1);
}
template <role R> WGSL_FN u32 coop_column(u32 lane, u32 i) {
    return R == COOP_B ? (lane >> 2) + 8 * (i >> 2) : 2 * (lane & 3) + (i & 1) + 8 * (i >> 2);
}
template <role R, bool ROW_MAJOR> WGSL_FN u32 coop_at(u32 i, u32 stride) {
    u32 row = coop_row<R>(lane(), i), column = coop_column<R>(lane(), i);
    return ROW_MAJOR ? row * stride + column : column * stride + row;
}

template <class T, role R, bool ROW_MAJOR> WGSL_FN coop<T, R> coop_load(const T *from, u32 stride) {
    coop<T, R> r;
#pragma unroll
    for (u32 i = 0; i < 8; i++) r.e[i] = from[coop_at<R, ROW_MAJOR>(i, stride)];
    return r;
}
template <bool ROW_MAJOR, class T, role R> WGSL_FN void coop_store(coop<T, R> value, T *to, u32 stride) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) to[coop_at<R, ROW_MAJOR>(i, stride)] = value.e[i];
    __syncwarp(warp_mask());
}

template <class T, role R> WGSL_FN coop<T, R> add(coop<T, R> a, coop<T, R> b) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) a.e[i] = a.e[i] + b.e[i];
    return a;
}
template <class T, role R> WGSL_FN coop<T, R> sub(coop<T, R> a, coop<T, R> b) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) a.e[i] = a.e[i] - b.e[i];
    return a;
}
template <class T, role R> WGSL_FN coop<T, R> mat_scale(coop<T, R> a, T b) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) a.e[i] = a.e[i] * b;
    return a;
}
template <class T, role R> WGSL_FN coop<T, R> mat_scale(T a, coop<T, R> b) { return mat_scale(b, a); }

#ifdef WGSL_HOST
template <class T> WGSL_FN coop<T, COOP_C> coop_multiply_add(coop<f16, COOP_A> a, coop<f16, COOP_B> b, coop<T, COOP_C> c) {
    f32 rows[16][16], columns[16][16];
    for (u32 from = 0; from < 32; from++)
        for (u32 i = 0; i < 8; i++) {
            rows[coop_row<COOP_A>(from, i)][coop_column<COOP_A>(from, i)] = to_f32(shuffle(a.e[i], from));
            columns[coop_column<COOP_B>(from, i)][coop_row<COOP_B>(from, i)] = to_f32(shuffle(b.e[i], from));
        }
    for (u32 i = 0; i < 8; i++) {
        f32 sum = (f32)c.e[i];
        for (u32 k = 0; k < 16; k++) sum += rows[coop_row<COOP_C>(lane(), i)][k] * columns[coop_column<COOP_C>(lane(), i)][k];
        c.e[i] = (T)sum;
    }
    return c;
}
#else
WGSL_FN u32 coop_pair(f16 a, f16 b) { return (u32)a.bits | (u32)b.bits << 16; }
WGSL_FN coop<f32, COOP_C> coop_multiply_add(coop<f16, COOP_A> a, coop<f16, COOP_B> b, coop<f32, COOP_C> c) {
    u32 a0 = coop_pair(a.e[0], a.e[1]), a1 = coop_pair(a.e[2], a.e[3]), a2 = coop_pair(a.e[4], a.e[5]), a3 = coop_pair(a.e[6], a.e[7]);
#pragma unroll
    for (u32 h = 0; h < 8; h += 4)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c.e[h]), "+f"(c.e[h + 1]), "+f"(c.e[h + 2]), "+f"(c.e[h + 3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(coop_pair(b.e[h], b.e[h + 1])), "r"(coop_pair(b.e[h + 2], b.e[h + 3])));
    return c;
}
WGSL_FN coop<f16, COOP_C> coop_multiply_add(coop<f16, COOP_A> a, coop<f16, COOP_B> b, coop<f16, COOP_C> c) {
    u32 a0 = coop_pair(a.e[0], a.e[1]), a1 = coop_pair(a.e[2], a.e[3]), a2 = coop_pair(a.e[4], a.e[5]), a3 = coop_pair(a.e[6], a.e[7]);
#pragma unroll
    for (u32 h = 0; h < 8; h += 4) {
        u32 low = coop_pair(c.e[h], c.e[h + 1]), high = coop_pair(c.e[h + 2], c.e[h + 3]);
        asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
            : "+r"(low), "+r"(high)
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(coop_pair(b.e[h], b.e[h + 1])), "r"(coop_pair(b.e[h + 2], b.e[h + 3])));
        c.e[h] = f16_of((u16)low);
        c.e[h + 1] = f16_of((u16)(low >> 16));
        c.e[h + 2] = f16_of((u16)high);
        c.e[h + 3] = f16_of((u16)(high >> 16));
    }
    return c;
}
#endif

}  // namespace wgsl
