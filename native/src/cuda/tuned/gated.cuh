// What a gated MLP makes of two sums. Source of the definition: core/src/kernels/gated_mlp.rs; numbers of
// core/src/kernels/act.rs: silu, gelu_tanh.

FN float activate(float x) {
    if (ACT == 1) return x / (1 + expf(-x));
    if (ACT == 3) return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    return x;
}
FN float gated(float gate, float up) {
#if CLAMP
    // A comparison that is false for NaN keeps it.
    gate = gate > LIMIT ? LIMIT : gate;
    up = (up > LIMIT ? LIMIT : up < -LIMIT ? -LIMIT : up) + 1;
#endif
    return activate(gate) * up;
}
