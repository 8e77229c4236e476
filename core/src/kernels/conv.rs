//! Convolution (cross-correlation) over one to three spatial dimensions, with zero padding,
//! stride, dilation and groups: `y[n, f, o] = sum_{c, k} w[f, c, k] x[n, c, o S + k D - P]
//! (+ bias[f])`.
//!
//! Params: `N` images, `C` input and `F` output channels in `G` groups, those of [`Window`],
//! switch `BIAS`.
//!
//! Source: PyTorch, `torch.nn.Conv1d`, `Conv2d`, `Conv3d`; ONNX, `Conv`.

use super::window::{Window, flat, places};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "conv",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("w", Access::Read),
        Binding::optional("bias", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &[
        "N", "C", "F", "G", "KD", "KH", "KW", "SD", "SH", "SW", "DD", "DH", "DW", "PD", "PH", "PW",
        "ID", "IH", "IW", "OD", "OH", "OW",
    ],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Channels of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Of the input.
    pub input: usize,
    /// Of the output.
    pub output: usize,
    /// Groups that do not see each other; divides both.
    pub groups: usize,
}

/// Parameters of a call: `images` inputs of the spatial sizes `input`; `output` is what
/// [`Window::output`] gives for them.
pub fn params(
    images: usize,
    channels: Channels,
    window: &Window,
    input: [usize; 3],
    output: [usize; 3],
    bias: bool,
) -> Params {
    let p = Params::new()
        .u32("N", images as u32)
        .u32("C", channels.input as u32)
        .u32("F", channels.output as u32)
        .u32("G", channels.groups as u32)
        .bool("BIAS", bias);
    window.params(p, input, output)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    const WG: u32 = 64;
    let group = p.get("F") / p.get("G");
    let each = group.min(4);
    let places = p.get("OD") * p.get("OH") * p.get("OW");
    let invocations = p.get("N") * p.get("G") * group.div_ceil(each) * places;
    let groups = fold(invocations.div_ceil(WG), limits);
    vec![
        Variant::new("direct", groups)
            .set("WG", WG)
            .set("EACH", each),
    ]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (channels, filters, groups) = (p.size("C"), p.size("F"), p.size("G"));
    let (window, input, output) = Window::of(p);
    let (x, w, mut y) = (d.f32(0), d.f32(1), d.f32_mut(3));
    let bias = d.has(2).then(|| d.f32(2));
    let (x, w, bias) = (&*x, &*w, bias.as_deref());
    let (plane, taps) = (
        input.iter().product::<usize>(),
        window.kernel.iter().product::<usize>(),
    );
    let inner = channels / groups;
    let len = output.iter().product();
    cpu::for_each_row(&mut y, len, p.size("N") * filters, |row, y| {
        let (n, f) = (row / filters, row % filters);
        y.fill(bias.map_or(0.0, |b| b[f]));
        let first = f / (filters / groups) * inner;
        for c in 0..inner {
            let x = &x[(n * channels + first + c) * plane..][..plane];
            let w = &w[(f * inner + c) * taps..][..taps];
            for (k, weight) in places(window.kernel).zip(w) {
                add_tap(&window, k, *weight, (x, input), (y, output));
            }
        }
    });
}

/// Adds one element of the kernel times what it sees.
fn add_tap(
    window: &Window,
    k: [usize; 3],
    weight: f32,
    (x, input): (&[f32], [usize; 3]),
    (y, output): (&mut [f32], [usize; 3]),
) {
    let range = |d: usize| window.inside(d, k[d], input[d], output[d]);
    let at =
        |d: usize, o: usize| o * window.stride[d] + k[d] * window.dilation[d] - window.begin[d];
    let ((d0, d1), (h0, h1), (w0, w1)) = (range(0), range(1), range(2));
    if w0 >= w1 {
        return;
    }
    for od in d0..d1 {
        for oh in h0..h1 {
            let from = flat([at(0, od), at(1, oh), at(2, w0)], input);
            let y = &mut y[flat([od, oh, w0], output)..][..w1 - w0];
            if window.stride[2] == 1 {
                for (y, x) in y.iter_mut().zip(&x[from..]) {
                    *y += weight * x;
                }
            } else {
                for (y, x) in y.iter_mut().zip(x[from..].iter().step_by(window.stride[2])) {
                    *y += weight * x;
                }
            }
        }
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (channels, filters, groups) = (p.size("C"), p.size("F"), p.size("G"));
    let (window, input, output) = Window::of(p);
    let (plane, taps) = (
        input.iter().product::<usize>(),
        window.kernel.iter().product::<usize>(),
    );
    let (inner, group) = (channels / groups, filters / groups);
    let len: usize = output.iter().product();
    for n in 0..p.size("N") {
        for f in 0..filters {
            for o in places(output) {
                let mut sum = if p.is("BIAS") { arrays[2][f] } else { 0.0 };
                for c in 0..inner {
                    for k in places(window.kernel) {
                        let at = |d: usize| window.at(d, o[d], k[d], input[d]);
                        if let (Some(d), Some(h), Some(v)) = (at(0), at(1), at(2)) {
                            let x = (n * channels + f / group * inner + c) * plane;
                            let w = (f * inner + c) * taps + flat(k, window.kernel);
                            sum += arrays[0][x + flat([d, h, v], input)] * arrays[1][w];
                        }
                    }
                }
                arrays[3][(n * filters + f) * len + flat(o, output)] = sum;
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let of = |input, output, groups| Channels {
        input,
        output,
        groups,
    };
    let one = Window::new([1, 1, 1]);
    let line = Window::new([1, 1, 5]).pad([0, 0, 2]);
    let square = Window::new([1, 3, 3]);
    let uneven = Window {
        begin: [0, 1, 0],
        end: [0, 2, 1],
        ..Window::new([1, 3, 2]).stride([1, 2, 3]).dilation([1, 2, 1])
    };
    let cube = Window::new([2, 3, 2]).stride([1, 2, 1]).pad([1, 1, 0]);
    [
        (1, of(1, 1, 1), one, [1, 1, 1]),
        (2, of(3, 5, 1), line, [1, 1, 37]),
        (1, of(8, 16, 1), line.stride([1, 1, 2]), [1, 1, 128]),
        (
            3,
            of(2, 4, 1),
            line.dilation([1, 1, 3]).pad([0, 0, 7]),
            [1, 1, 11],
        ),
        (1, of(1, 7, 1), square, [1, 3, 3]),
        (2, of(5, 3, 1), square.pad([0, 1, 1]), [1, 9, 9]),
        (
            2,
            of(4, 6, 2),
            square.stride([1, 2, 2]).pad([0, 1, 1]),
            [1, 8, 13],
        ),
        (1, of(6, 6, 6), square.pad([0, 2, 2]), [1, 5, 4]),
        (1, of(6, 12, 3), uneven, [1, 11, 10]),
        (1, of(2, 3, 1), square.pad([0, 4, 4]), [1, 1, 2]),
        (2, of(3, 5, 1), cube, [3, 5, 4]),
        (1, of(16, 17, 1), square, [1, 20, 19]),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (images, channels, window, input))| {
        let output = window.output(input, false).expect("the window fits");
        let bias = i % 2 == 1;
        let shape = |n, c, [d, h, w]: [usize; 3]| [n, c, d, h, w];
        let inner = channels.input / channels.groups;
        Case {
            params: params(images, channels, &window, input, output, bias),
            arrays: vec![
                Some(HostArray::random(1, &shape(images, channels.input, input))),
                Some(HostArray::random(
                    2,
                    &shape(channels.output, inner, window.kernel),
                )),
                bias.then(|| HostArray::random(3, &[channels.output])),
                Some(HostArray::random(
                    4,
                    &shape(images, channels.output, output),
                )),
            ],
            bound: 1e-11,
        }
    })
    .collect()
}
