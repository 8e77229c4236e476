// activate: the activation function number ACT, as in core/src/kernels/act.rs. The kernel
// declares `const ACT: u32`. ALPHA is the parameter of silu, leaky_relu and elu.
//
// Arguments of exp are clamped so that nothing overflows: WGSL lets compilers assume that there
// are no infinities. Functions that lose digits near 0 (tanh, elu, softplus) have a series there.

const ALPHA: f32 = select(1.0, 0.01, ACT == 9u);

fn act_sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0)));
}

fn act_tanh(x: f32) -> f32 {
    let s = x * x;
    let near = x * (1.0 + s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 + s * 0.021869489))));
    let far = 1.0 - 2.0 / (exp(clamp(2.0 * x, -40.0, 40.0)) + 1.0);
    return select(far, near, abs(x) < 0.25);
}

// Phi(x), the normal distribution's. erf within 1 ulp by N. Juffa's polynomials; 1 - exp(r) is
// erf(|x| / sqrt 2) beyond 0.9277, so exp(r) is what a negative x leaves without cancellation.
fn act_phi(x: f32) -> f32 {
    let a = clamp(x * 0.70710678, -5.0, 5.0);
    let t = abs(a);
    let s = a * a;
    if t > 0.927734375 {
        var r = -1.72853470e-5 * t + 3.83197126e-4;
        r = r * s + (-3.88396438e-3 * t + 2.42546219e-2);
        r = r * t - 1.06777877e-1;
        r = r * t - 6.34846687e-1;
        r = r * t - 1.28717512e-1;
        r = r * t - t;
        let tail = 0.5 * exp(r);
        return select(tail, 1.0 - tail, x > 0.0);
    }
    var r = -5.96761703e-4;
    r = r * s + 4.99119423e-3;
    r = r * s - 2.67681349e-2;
    r = r * s + 1.12819925e-1;
    r = r * s - 3.76125336e-1;
    r = r * s + 1.28379166e-1;
    return 0.5 + 0.5 * (r * a + a);
}

fn act_elu(x: f32) -> f32 {
    let near = x * (1.0 + 0.5 * x * (1.0 + 0.33333333 * x * (1.0 + 0.25 * x * (1.0 + 0.2 * x))));
    let low = ALPHA * select(exp(max(x, -80.0)) - 1.0, near, x > -0.1);
    return select(low, x, x > 0.0);
}

fn act_softplus(x: f32) -> f32 {
    let e = exp(-min(abs(x), 80.0));
    let log1p = select(log(1.0 + e), e * (1.0 - e * (0.5 - 0.33333333 * e)), e < 0.01);
    return max(x, 0.0) + log1p;
}

fn activate(x: f32) -> f32 {
    switch ACT {
        case 1u: {
            return x * act_sigmoid(ALPHA * x);
        }
        case 2u: {
            return x * act_phi(x);
        }
        case 3u: {
            // 0.5 (1 + tanh u) is sigmoid(2 u).
            return x * act_sigmoid(1.5957691 * (x + 0.044715 * x * x * x));
        }
        case 4u: {
            return max(x, 0.0);
        }
        case 5u: {
            let r = max(x, 0.0);
            return r * r;
        }
        case 6u: {
            return act_sigmoid(x);
        }
        case 7u: {
            return x * act_sigmoid(1.702 * x);
        }
        case 8u: {
            return act_tanh(x);
        }
        case 9u: {
            return select(ALPHA * x, x, x > 0.0);
        }
        case 10u: {
            return act_elu(x);
        }
        case 11u: {
            return act_softplus(x);
        }
        case 12u: {
            return x * clamp(x + 3.0, 0.0, 6.0) / 6.0;
        }
        default: {
            return x;
        }
    }
}
