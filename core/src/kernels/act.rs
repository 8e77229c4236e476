//! Activation functions: names, numbers shared with `shaders/shared/activation.wgsl`, and values.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;

/// An elementwise activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Activation {
    /// x
    Identity = 0,
    /// x sigmoid(x), also called swish (arXiv:1710.05941)
    Silu = 1,
    /// x Phi(x) with the exact error function (arXiv:1606.08415)
    Gelu = 2,
    /// x (1 + tanh(0.79788456 (x + 0.044715 x^3))) / 2
    GeluTanh = 3,
    /// max(x, 0)
    Relu = 4,
    /// max(x, 0)^2 (arXiv:2109.08668)
    SqRelu = 5,
    /// 1 / (1 + exp(-x))
    Sigmoid = 6,
    /// x sigmoid(1.702 x)
    QuickGelu = 7,
    /// tanh(x)
    Tanh = 8,
    /// x, or 0.01 x when x < 0
    LeakyRelu = 9,
    /// x, or exp(x) - 1 when x < 0 (arXiv:1511.07289)
    Elu = 10,
    /// ln(1 + exp(x))
    Softplus = 11,
    /// x min(max(x + 3, 0), 6) / 6 (arXiv:1905.02244)
    HardSwish = 12,
}

/// 2 sqrt(2 / pi): tanh(u) = 2 sigmoid(2 u) - 1 takes the factor 2.
const GELU_TANH: f64 = 1.595_769_121_605_730_8;

impl Activation {
    /// Every activation, in the order of their numbers.
    pub const ALL: &'static [Activation] = &[
        Activation::Identity,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::SqRelu,
        Activation::Sigmoid,
        Activation::QuickGelu,
        Activation::Tanh,
        Activation::LeakyRelu,
        Activation::Elu,
        Activation::Softplus,
        Activation::HardSwish,
    ];

    /// The activation of a kernel's parameter `ACT`.
    pub fn from_number(number: u32) -> Option<Activation> {
        Self::ALL.get(number as usize).copied()
    }

    /// Its number: the value of the constant `ACT`.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::Identity => "identity",
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Relu => "relu",
            Activation::SqRelu => "sqrelu",
            Activation::Sigmoid => "sigmoid",
            Activation::QuickGelu => "quick_gelu",
            Activation::Tanh => "tanh",
            Activation::LeakyRelu => "leaky_relu",
            Activation::Elu => "elu",
            Activation::Softplus => "softplus",
            Activation::HardSwish => "hard_swish",
        }
    }

    /// The activation that a model's configuration calls `name`: our names, those of Hugging Face
    /// (`hidden_act`) and flash-attn, and the gated units by their inner function.
    pub fn from_name(name: &str) -> Option<Activation> {
        let known = Self::ALL.iter().copied().find(|a| a.name() == name);
        known.or(match name {
            "linear" | "none" => Some(Activation::Identity),
            "swish" | "swiglu" => Some(Activation::Silu),
            "geglu" | "gelu_python" => Some(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_approx" | "gelu_pytorch_tanh" => {
                Some(Activation::GeluTanh)
            }
            "relu2" | "relu_squared" => Some(Activation::SqRelu),
            "glu" => Some(Activation::Sigmoid),
            "hardswish" => Some(Activation::HardSwish),
            _ => None,
        })
    }

    /// The definition, in f64.
    pub fn f64(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Activation::Identity => x,
            Activation::Silu => x * sigmoid(x),
            Activation::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Activation::GeluTanh => x * sigmoid(GELU_TANH * (x + 0.044715 * x * x * x)),
            Activation::Relu => x.max(0.0),
            Activation::SqRelu => x.max(0.0).powi(2),
            Activation::Sigmoid => sigmoid(x),
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Tanh => x.tanh(),
            Activation::LeakyRelu => x.max(0.01 * x),
            Activation::Elu => {
                if x > 0.0 {
                    x
                } else {
                    x.exp_m1()
                }
            }
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    /// The value in f32, to about 2e-7 of the true one.
    pub fn f32(self, x: f32) -> f32 {
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        match self {
            Activation::Identity => x,
            Activation::Silu => x * sigmoid(x),
            Activation::Gelu => gelu_f32(x),
            Activation::GeluTanh => x * sigmoid(GELU_TANH as f32 * (x + 0.044715 * x * x * x)),
            Activation::Relu => x.max(0.0),
            Activation::SqRelu => x.max(0.0).powi(2),
            Activation::Sigmoid => sigmoid(x),
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Tanh => x.tanh(),
            Activation::LeakyRelu => x.max(0.01 * x),
            Activation::Elu => {
                if x > 0.0 {
                    x
                } else {
                    x.exp_m1()
                }
            }
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// erf by its series with terms of one sign (Abramowitz and Stegun, 7.1.6): no cancellation.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// As in `activation.wgsl`: N. Juffa's polynomials for erf.
fn gelu_f32(x: f32) -> f32 {
    let a = (x * FRAC_1_SQRT_2 as f32).clamp(-5.0, 5.0);
    let (t, s) = (a.abs(), a * a);
    if t > 0.927_734_4 {
        let mut r = -1.728_534_7e-5 * t + 3.831_971_3e-4;
        r = r * s + (-3.883_964_4e-3 * t + 2.425_462_2e-2);
        for c in [0.106_777_88, 0.634_846_7, 0.128_717_51] {
            r = r * t - c;
        }
        let tail = 0.5 * (r * t - t).exp();
        return x * if x > 0.0 { 1.0 - tail } else { tail };
    }
    let mut r = -5.967_617e-4;
    for c in [
        4.991_194_2e-3,
        -2.676_813_5e-2,
        0.112_819_925,
        -0.376_125_34,
        0.128_379_17,
    ] {
        r = r * s + c;
    }
    x * (0.5 + 0.5 * (r * a + a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_is_within_3e_7_of_f64() {
        for act in Activation::ALL {
            for i in -4000..=4000 {
                let x = i as f32 * 0.005;
                let (got, want) = (f64::from(act.f32(x)), act.f64(f64::from(x)));
                let error = (got - want).abs() / want.abs().max(f64::from(x).abs()).max(1e-3);
                assert!(error < 3e-7, "{act}({x}): want {want}, got {got}");
            }
            for x in [-1e30f32, -1e4, 1e4] {
                assert!(act.f32(x).is_finite() || x * x > 1e38, "{act}({x})");
            }
        }
    }

    #[test]
    fn values_are_those_of_other_libraries() {
        // torch.nn.functional, float64.
        let known = [
            (Activation::Gelu, 1.0, 0.841_344_746_068_542_9),
            (Activation::Gelu, -3.0, -0.004_049_694_094_890_287),
            (Activation::GeluTanh, 1.0, 0.841_191_990_608_276_5),
            (Activation::Silu, 1.0, 0.731_058_578_630_004_9),
            (Activation::Softplus, -2.0, 0.126_928_011_042_972_5),
            (Activation::HardSwish, 1.0, 0.666_666_666_666_666_6),
        ];
        for (act, x, want) in known {
            let got = act.f64(x);
            assert!(
                (got - want).abs() < 1e-12,
                "{act}({x}): want {want}, got {got}"
            );
        }
    }

    #[test]
    fn numbers_and_names_lead_back() {
        for (i, act) in Activation::ALL.iter().enumerate() {
            assert_eq!(act.number() as usize, i);
            assert_eq!(Activation::from_number(i as u32), Some(*act));
            assert_eq!(Activation::from_name(act.name()), Some(*act));
        }
        assert_eq!(Activation::from_number(Activation::ALL.len() as u32), None);
        assert_eq!(
            Activation::from_name("gelu_new"),
            Some(Activation::GeluTanh)
        );
        assert_eq!(Activation::from_name("mish"), None);
    }
}
