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
    /// x sigmoid(alpha x) with alpha 1, also called swish (arXiv:1710.05941)
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
    /// x, or alpha x when x < 0, with alpha 0.01
    LeakyRelu = 9,
    /// x, or alpha (exp(x) - 1) when x < 0, with alpha 1 (arXiv:1511.07289)
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

    /// Other names: those of Hugging Face (`hidden_act`) and flash-attn, and the gated units by
    /// their inner function.
    pub const ALIASES: &'static [(&'static str, Activation)] = &[
        ("linear", Activation::Identity),
        ("none", Activation::Identity),
        ("swish", Activation::Silu),
        ("swiglu", Activation::Silu),
        ("geglu", Activation::Gelu),
        ("gelu_python", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_approx", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu2", Activation::SqRelu),
        ("relu_squared", Activation::SqRelu),
        ("glu", Activation::Sigmoid),
        ("hardswish", Activation::HardSwish),
    ];

    /// The activation of this name or [alias](Activation::ALIASES).
    pub fn from_name(name: &str) -> Option<Activation> {
        let known = Self::ALL.iter().copied().find(|a| a.name() == name);
        let alias = || Self::ALIASES.iter().find(|(alias, _)| *alias == name);
        known.or_else(|| alias().map(|(_, act)| *act))
    }

    /// Its formula, and where it comes from.
    pub const fn formula(self) -> &'static str {
        match self {
            Activation::Identity => "x",
            Activation::Silu => "x sigmoid(alpha x) (arXiv:1710.05941)",
            Activation::Gelu => "x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2 (arXiv:1606.08415)",
            Activation::GeluTanh => "x (1 + tanh(0.79788456 (x + 0.044715 x^3))) / 2",
            Activation::Relu => "max(x, 0)",
            Activation::SqRelu => "max(x, 0)^2 (arXiv:2109.08668)",
            Activation::Sigmoid => "1 / (1 + exp(-x))",
            Activation::QuickGelu => "x sigmoid(1.702 x)",
            Activation::Tanh => "tanh(x)",
            Activation::LeakyRelu => "x, or alpha x when x < 0",
            Activation::Elu => "x, or alpha (exp(x) - 1) when x < 0 (arXiv:1511.07289)",
            Activation::Softplus => "ln(1 + exp(x))",
            Activation::HardSwish => "x min(max(x + 3, 0), 6) / 6 (arXiv:1905.02244)",
        }
    }

    /// Has it a parameter alpha?
    pub const fn has_alpha(self) -> bool {
        matches!(
            self,
            Activation::Silu | Activation::LeakyRelu | Activation::Elu
        )
    }

    /// What its alpha is when nobody says: 0.01 for [`Activation::LeakyRelu`], else 1.
    pub const fn alpha(self) -> f32 {
        match self {
            Activation::LeakyRelu => 0.01,
            _ => 1.0,
        }
    }

    /// The definition, in f64, with the usual alpha.
    pub fn f64(self, x: f64) -> f64 {
        let alpha = match self {
            // 0.01 itself, not the f32 next to it.
            Activation::LeakyRelu => 0.01,
            _ => f64::from(self.alpha()),
        };
        self.f64_alpha(x, alpha)
    }

    /// The definition, in f64.
    pub fn f64_alpha(self, x: f64, alpha: f64) -> f64 {
        match self {
            Activation::Identity => x,
            Activation::Silu => x * sigmoid(alpha * x),
            Activation::Gelu => x * phi(x),
            Activation::GeluTanh => x * sigmoid(GELU_TANH * (x + 0.044715 * x * x * x)),
            Activation::Relu => x.max(0.0),
            Activation::SqRelu => x.max(0.0).powi(2),
            Activation::Sigmoid => sigmoid(x),
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Tanh => x.tanh(),
            Activation::LeakyRelu if x > 0.0 => x,
            Activation::LeakyRelu => alpha * x,
            Activation::Elu if x > 0.0 => x,
            Activation::Elu => alpha * x.exp_m1(),
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    /// The derivative's definition, in f64. Where there is none (relu and leaky_relu at 0,
    /// hard_swish at -3 and 3) it is the one from the left, as in PyTorch.
    pub fn derivative_f64(self, x: f64, alpha: f64) -> f64 {
        // Of x sigmoid(u(x)), du being u'(x).
        let gated = |u: f64, du: f64| sigmoid(u) * (1.0 + x * du * sigmoid(-u));
        match self {
            Activation::Identity => 1.0,
            Activation::Silu => gated(alpha * x, alpha),
            Activation::Gelu => phi(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
            Activation::GeluTanh => gated(
                GELU_TANH * (x + 0.044715 * x * x * x),
                GELU_TANH * (1.0 + 3.0 * 0.044715 * x * x),
            ),
            Activation::Relu => f64::from(u8::from(x > 0.0)),
            Activation::SqRelu => 2.0 * x.max(0.0),
            Activation::Sigmoid => sigmoid(x) * sigmoid(-x),
            Activation::QuickGelu => gated(1.702 * x, 1.702),
            Activation::Tanh => 4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x),
            Activation::LeakyRelu | Activation::Elu if x > 0.0 => 1.0,
            Activation::LeakyRelu => alpha,
            Activation::Elu => alpha * x.exp(),
            Activation::Softplus => sigmoid(x),
            Activation::HardSwish if x <= -3.0 => 0.0,
            Activation::HardSwish if x > 3.0 => 1.0,
            Activation::HardSwish => x / 3.0 + 0.5,
        }
    }

    /// The value in f32, to about 2e-7 of the true one, with the usual alpha.
    pub fn f32(self, x: f32) -> f32 {
        self.f32_alpha(x, self.alpha())
    }

    /// The value in f32, to about 2e-7 of the true one.
    pub fn f32_alpha(self, x: f32, alpha: f32) -> f32 {
        match self {
            Activation::Identity => x,
            Activation::Silu => x * sigmoid_f32(alpha * x),
            Activation::Gelu => x * phi_f32(x),
            Activation::GeluTanh => x * sigmoid_f32(GELU_TANH as f32 * (x + 0.044715 * x * x * x)),
            Activation::Relu => x.max(0.0),
            Activation::SqRelu => x.max(0.0).powi(2),
            Activation::Sigmoid => sigmoid_f32(x),
            Activation::QuickGelu => x * sigmoid_f32(1.702 * x),
            Activation::Tanh => x.tanh(),
            Activation::LeakyRelu if x > 0.0 => x,
            Activation::LeakyRelu => alpha * x,
            Activation::Elu if x > 0.0 => x,
            Activation::Elu => alpha * x.exp_m1(),
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    /// The derivative in f32, to about 5e-7 of the largest term.
    pub fn derivative_f32(self, x: f32, alpha: f32) -> f32 {
        // Far out sigmoid(-u) is 0, and what it is multiplied with must not be infinite.
        let gated = |u: f32, du: f32| {
            let far = (x * du).clamp(-1e30, 1e30);
            sigmoid_f32(u) * (1.0 + far * sigmoid_f32(-u))
        };
        match self {
            Activation::Identity => 1.0,
            Activation::Silu => gated(alpha * x, alpha),
            Activation::Gelu => phi_f32(x) + x * (-0.5 * x * x).exp() * 0.398_942_3,
            Activation::GeluTanh => gated(
                GELU_TANH as f32 * (x + 0.044715 * x * x * x),
                GELU_TANH as f32 * (1.0 + 3.0 * 0.044715 * x * x),
            ),
            Activation::Relu => f32::from(u8::from(x > 0.0)),
            Activation::SqRelu => 2.0 * x.max(0.0),
            Activation::Sigmoid => sigmoid_f32(x) * sigmoid_f32(-x),
            Activation::QuickGelu => gated(1.702 * x, 1.702),
            Activation::Tanh => 4.0 * sigmoid_f32(2.0 * x) * sigmoid_f32(-2.0 * x),
            Activation::LeakyRelu | Activation::Elu if x > 0.0 => 1.0,
            Activation::LeakyRelu => alpha,
            Activation::Elu => alpha * x.exp(),
            Activation::Softplus => sigmoid_f32(x),
            Activation::HardSwish if x <= -3.0 => 0.0,
            Activation::HardSwish if x > 3.0 => 1.0,
            Activation::HardSwish => x / 3.0 + 0.5,
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn sigmoid_f32(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The normal distribution's Phi, `(1 + erf(x / sqrt 2)) / 2`.
pub(super) fn phi(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
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

/// [`phi`] as in `activation.wgsl`: N. Juffa's polynomials for erf.
pub(super) fn phi_f32(x: f32) -> f32 {
    let a = (x * FRAC_1_SQRT_2 as f32).clamp(-5.0, 5.0);
    let (t, s) = (a.abs(), a * a);
    if t > 0.927_734_4 {
        let mut r = -1.728_534_7e-5 * t + 3.831_971_3e-4;
        r = r * s + (-3.883_964_4e-3 * t + 2.425_462_2e-2);
        for c in [0.106_777_88, 0.634_846_7, 0.128_717_51] {
            r = r * t - c;
        }
        let tail = 0.5 * (r * t - t).exp();
        return if x > 0.0 { 1.0 - tail } else { tail };
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
    0.5 + 0.5 * (r * a + a)
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
    fn derivatives_are_differences() {
        const H: f64 = 1e-5;
        for act in Activation::ALL {
            for alpha in [f64::from(act.alpha()), 0.3, 2.5] {
                // Never within H of a kink at 0, -3 or 3.
                for i in -800..800 {
                    let x = i as f64 * 0.0125 + 0.004;
                    let value = |x| act.f64_alpha(x, alpha);
                    let want = (value(x + H) - value(x - H)) / (2.0 * H);
                    let got = act.derivative_f64(x, alpha);
                    assert!(
                        (got - want).abs() < 1e-8 * want.abs().max(1.0),
                        "{act}'({x}), alpha {alpha}: want {want}, got {got}"
                    );
                    let single = f64::from(act.derivative_f32(x as f32, alpha as f32));
                    let exact = act.derivative_f64(f64::from(x as f32), f64::from(alpha as f32));
                    assert!(
                        (single - exact).abs() < 6e-7 * exact.abs().max(1.0),
                        "{act}'({x}), alpha {alpha}: want {exact}, got {single} in f32"
                    );
                }
            }
            for x in [-1e30f32, -1e4, 1e4, 1e30] {
                let slope = act.derivative_f32(x, act.alpha());
                assert!(slope.is_finite(), "{act}'({x}) is {slope}");
            }
        }
    }

    #[test]
    fn at_a_kink_the_derivative_is_the_left_one() {
        for (act, x, want) in [
            (Activation::Relu, 0.0, 0.0),
            (Activation::LeakyRelu, 0.0, 0.25),
            (Activation::HardSwish, -3.0, 0.0),
            (Activation::HardSwish, 3.0, 1.5),
        ] {
            assert_eq!(act.derivative_f64(x, 0.25), want, "{act}'({x})");
            assert_eq!(f64::from(act.derivative_f32(x as f32, 0.25)), want);
        }
    }

    #[test]
    fn alpha_is_that_of_onnx_and_pytorch() {
        let with: Vec<_> = Activation::ALL.iter().filter(|a| a.has_alpha()).collect();
        let alphas: Vec<_> = with.iter().map(|a| (a.name(), a.alpha())).collect();
        assert_eq!(alphas, [("silu", 1.0), ("leaky_relu", 0.01), ("elu", 1.0)]);
        assert_eq!(Activation::Elu.f64_alpha(-1.0, 2.0), 2.0 * (-1f64).exp_m1());
        assert_eq!(Activation::LeakyRelu.f64_alpha(-4.0, 2.0), -8.0);
        let quick = Activation::QuickGelu.f64(0.7);
        assert_eq!(Activation::Silu.f64_alpha(0.7, 1.702), quick);
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
        for (alias, act) in Activation::ALIASES {
            assert_eq!(Activation::from_name(alias), Some(*act));
        }
        assert_eq!(Activation::from_name("mish"), None);
    }
}
