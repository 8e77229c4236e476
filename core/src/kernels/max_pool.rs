//! Largest element of each window, over one to three spatial dimensions:
//! `y[r, o] = max_k x[r, o S + k D - P]`, the padding left out.
//!
//! Params: `R` rows (images times channels), those of [`Window`], switches `INDICES`,
//! `COLUMN_MAJOR` and `WHOLE`, see [`Indices`].
//!
//! Source: PyTorch, `torch.nn.MaxPool1d`, `MaxPool2d`, `MaxPool3d`; ONNX, `MaxPool`.

use super::window::{Window, flat, places};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "max_pool",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
        Binding::optional("indices", Access::Write),
    ],
    uniforms: &[
        "R", "KD", "KH", "KW", "SD", "SH", "SW", "DD", "DH", "DW", "PD", "PH", "PW", "ID", "IH",
        "IW", "OD", "OH", "OW",
    ],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// How the places of the largest elements are counted; the first of equal ones is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indices {
    /// They are not written.
    None,
    /// In each row (image and channel) on its own, as PyTorch does.
    Plane,
    /// From the first row on, as ONNX does.
    Whole {
        /// Does the width count slowest (`storage_order = 1`)?
        column_major: bool,
    },
}

/// Parameters of a call; `output` is what [`Window::output`] gives for `input`.
pub fn params(
    rows: usize,
    window: &Window,
    input: [usize; 3],
    output: [usize; 3],
    indices: Indices,
) -> Params {
    let whole = matches!(indices, Indices::Whole { .. });
    let column_major = indices == Indices::Whole { column_major: true };
    let p = Params::new()
        .u32("R", rows as u32)
        .bool("INDICES", indices != Indices::None)
        .bool("COLUMN_MAJOR", column_major)
        .bool("WHOLE", whole);
    window.params(p, input, output)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    const WG: u32 = 64;
    let windows = p.get("R") * p.get("OD") * p.get("OH") * p.get("OW");
    vec![Variant::new("direct", fold(windows.div_ceil(WG), limits)).set("WG", WG)]
}

/// Place of the largest element of window `o` of a row, the first of equal ones.
fn largest<T: PartialOrd + Copy>(
    window: &Window,
    x: &[T],
    input: [usize; 3],
    o: [usize; 3],
) -> Option<[usize; 3]> {
    let mut best: Option<[usize; 3]> = None;
    for k in places(window.kernel) {
        let at = |d: usize| window.at(d, o[d], k[d], input[d]);
        if let (Some(d), Some(h), Some(w)) = (at(0), at(1), at(2)) {
            let place = [d, h, w];
            if best.is_none_or(|best| x[flat(place, input)] > x[flat(best, input)]) {
                best = Some(place);
            }
        }
    }
    best
}

/// The number by which a place is named.
fn index(p: &Params, row: usize, place: [usize; 3], input: [usize; 3]) -> usize {
    let inside = if p.is("COLUMN_MAJOR") {
        let ([d, h, w], [depth, height, width]) = (place, input);
        flat([w, h, d], [width, height, depth])
    } else {
        flat(place, input)
    };
    let before = if p.is("WHOLE") { row } else { 0 };
    before * input.iter().product::<usize>() + inside
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (window, input, output) = Window::of(p);
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &*x;
    let (plane, len) = (
        input.iter().product::<usize>(),
        output.iter().product::<usize>(),
    );
    let rows = p.size("R");
    let row_of = |row: usize| &x[row * plane..][..plane];
    cpu::for_each_row(&mut y, len, rows, |row, y| {
        let x = row_of(row);
        for (y, o) in y.iter_mut().zip(places(output)) {
            let best = largest(&window, x, input, o);
            *y = best.map_or(f32::MIN, |place| x[flat(place, input)]);
        }
    });
    if p.is("INDICES") {
        let mut indices = d.write::<u32>(2);
        cpu::for_each_row(&mut indices, len, rows, |row, indices| {
            for (i, o) in indices.iter_mut().zip(places(output)) {
                let best = largest(&window, row_of(row), input, o).unwrap_or([0; 3]);
                *i = index(p, row, best, input) as u32;
            }
        });
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (window, input, output) = Window::of(p);
    let plane: usize = input.iter().product();
    let len: usize = output.iter().product();
    for row in 0..p.size("R") {
        for (i, o) in places(output).enumerate() {
            let x = &arrays[0][row * plane..][..plane];
            let mut values = places(window.kernel).filter_map(|k| {
                let at = |d: usize| window.at(d, o[d], k[d], input[d]);
                let place = [at(0)?, at(1)?, at(2)?];
                Some((x[flat(place, input)], place))
            });
            let lowest = (f64::from(f32::MIN), [0; 3]);
            let first = values.next().unwrap_or(lowest);
            let (value, place) = values.fold(first, |a, b| if b.0 > a.0 { b } else { a });
            arrays[1][row * len + i] = value;
            if p.is("INDICES") {
                arrays[2][row * len + i] = index(p, row, place, input) as f64;
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let line = Window::new([1, 1, 2]).stride([1, 1, 2]);
    let square = Window::new([1, 3, 3]).stride([1, 2, 2]).pad([0, 1, 1]);
    let whole = |column_major| Indices::Whole { column_major };
    [
        (1, Window::new([1, 1, 1]), [1, 1, 1], false, Indices::None),
        (3, line, [1, 1, 37], false, Indices::Plane),
        (3, line, [1, 1, 37], true, whole(false)),
        (7, square, [1, 9, 11], false, Indices::None),
        (7, square, [1, 8, 11], true, Indices::Plane),
        (
            2,
            Window::new([1, 2, 3]).dilation([1, 2, 1]),
            [1, 5, 5],
            false,
            whole(true),
        ),
        (
            2,
            Window::new([1, 5, 5]).pad([0, 2, 2]),
            [1, 5, 5],
            false,
            whole(false),
        ),
        (
            2,
            Window::new([2, 2, 3]).stride([2, 1, 1]).pad([1, 0, 1]),
            [3, 4, 5],
            true,
            whole(true),
        ),
        // These windows see padding only.
        (
            1,
            Window::new([1, 1, 2]).dilation([1, 1, 4]).pad([0, 0, 2]),
            [1, 1, 2],
            false,
            Indices::None,
        ),
        (
            17,
            Window::new([1, 2, 2]).stride([1, 2, 2]),
            [1, 32, 33],
            false,
            Indices::None,
        ),
    ]
    .into_iter()
    .map(|(rows, window, input, ceil, indices)| {
        let output = window.output(input, ceil).expect("the window fits");
        let shape = |[d, h, w]: [usize; 3]| [rows, d, h, w];
        let len = rows * output.iter().product::<usize>();
        let places = HostArray::u32(&shape(output), &vec![0; len]);
        Case {
            params: params(rows, &window, input, output, indices),
            arrays: vec![
                Some(HostArray::random(1, &shape(input))),
                Some(HostArray::random(2, &shape(output))),
                (indices != Indices::None).then_some(places),
            ],
            bound: 0.0,
        }
    })
    .collect()
}
