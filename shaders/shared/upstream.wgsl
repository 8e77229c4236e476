// upstream: the gradient of the result by the loss of row t. The kernel declares dy if DY (one
// element if DY_ONE, else one per row) and total, by which it is divided, if TOTAL.

fn upstream(t: u32) -> f32 {
    var up = 1.0;
#if DY
#if DY_ONE
    up = dy[0];
#else
    up = dy[t];
#endif
#endif
#if TOTAL
    up /= total[0];
#endif
    return up;
}
