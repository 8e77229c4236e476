// derivative: of the activation function number ACT, as in core/src/kernels/act.rs; where there is
// none, the one from the left.

#import activation

// Of x * sigmoid(u), du being the derivative of u. Far out sigmoid(-u) is 0, and what it is
// multiplied with must not overflow.
fn act_gated(x: f32, u: f32, du: f32) -> f32 {
    return act_sigmoid(u) * (1.0 + clamp(x * du, -1e30, 1e30) * act_sigmoid(-u));
}

fn derivative(x: f32) -> f32 {
    switch ACT {
        case 1u: {
            return act_gated(x, ALPHA * x, ALPHA);
        }
        case 2u: {
            return act_phi(x) + x * 0.3989423 * exp(max(-0.5 * x * x, -80.0));
        }
        case 3u: {
            let s = x * x;
            return act_gated(x, 1.5957691 * (x + 0.044715 * x * s), 1.5957691 * (1.0 + 0.134145 * s));
        }
        case 4u: {
            return select(0.0, 1.0, x > 0.0);
        }
        case 5u: {
            return 2.0 * max(x, 0.0);
        }
        case 6u: {
            return act_sigmoid(x) * act_sigmoid(-x);
        }
        case 7u: {
            return act_gated(x, 1.702 * x, 1.702);
        }
        case 8u: {
            return 4.0 * act_sigmoid(2.0 * x) * act_sigmoid(-2.0 * x);
        }
        case 9u: {
            return select(ALPHA, 1.0, x > 0.0);
        }
        case 10u: {
            return select(ALPHA * exp(clamp(x, -80.0, 0.0)), 1.0, x > 0.0);
        }
        case 11u: {
            return act_sigmoid(x);
        }
        case 12u: {
            return select(select(x / 3.0 + 0.5, 0.0, x <= -3.0), 1.0, x > 3.0);
        }
        default: {
            return 1.0;
        }
    }
}
