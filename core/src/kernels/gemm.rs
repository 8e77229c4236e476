//! General matrix product, `y = alpha a b (+ beta c)`, batched, for any strides: a transposition
//! exchanges two strides, a broadcast has stride 0 (BLAS level 3; ONNX Gemm and MatMul).
//!
//! Params: those of [`Gemm`], and the switch `C`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::cpu;
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "gemm",
    bindings: &[
        Binding::new("a", Access::Read),
        Binding::new("b", Access::Read),
        Binding::optional("c", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &[
        "M", "N", "K", "BATCHES", "BATCH1", "ALPHA", "BETA", "A0", "A1", "AM", "AK", "AO", "B0",
        "B1", "BK", "BN", "BO", "C0", "C1", "CM", "CN", "CO", "Y0", "Y1", "YM", "YO",
    ],
    variants,
    cpu: cpu::gemm,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Where the elements of a batch of matrices are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// First element.
    pub first: usize,
    /// From one matrix to the next, outer and inner batch.
    pub batch: [usize; 2],
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
}

/// Sizes, strides and factors of a call.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Outer and inner number of matrices.
    pub batch: [usize; 2],
    /// Rows of a and y.
    pub m: usize,
    /// Columns of b and y.
    pub n: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of c.
    pub beta: f32,
    /// Of a (M, K).
    pub a: Strides,
    /// Of b (K, N).
    pub b: Strides,
    /// Of c (M, N), if there is one.
    pub c: Option<Strides>,
    /// Of y (M, N); columns are neighbours, rows do not overlap and are in order.
    pub y: Strides,
}

impl Gemm {
    /// The product of contiguous matrices, `(M, K)` by `(K, N)`.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        let rows_of = |row| Strides {
            row,
            column: 1,
            ..Strides::default()
        };
        Gemm {
            batch: [1, 1],
            m,
            n,
            k,
            alpha: 1.0,
            beta: 1.0,
            a: rows_of(k),
            b: rows_of(n),
            c: None,
            y: rows_of(n),
        }
    }

    /// Parameters that say it.
    pub fn params(&self) -> Params {
        let p = Params::new()
            .u32("M", self.m as u32)
            .u32("N", self.n as u32)
            .u32("K", self.k as u32)
            .u32("BATCHES", (self.batch[0] * self.batch[1]) as u32)
            .u32("BATCH1", self.batch[1] as u32)
            .f32("ALPHA", self.alpha)
            .f32("BETA", self.beta)
            .bool("C", self.c.is_some());
        let p = set(p, ["A0", "A1", "AM", "AK", "AO"], self.a);
        let p = set(p, ["B0", "B1", "BK", "BN", "BO"], self.b);
        let c = self.c.unwrap_or_default();
        let p = set(p, ["C0", "C1", "CM", "CN", "CO"], c);
        let [y0, y1] = self.y.batch;
        p.u32("Y0", y0 as u32)
            .u32("Y1", y1 as u32)
            .u32("YM", self.y.row as u32)
            .u32("YO", self.y.first as u32)
    }

    /// What a call's parameters say.
    pub fn of(p: &Params) -> Self {
        let inner = p.size("BATCH1");
        Gemm {
            batch: [p.size("BATCHES") / inner, inner],
            m: p.size("M"),
            n: p.size("N"),
            k: p.size("K"),
            alpha: p.number("ALPHA"),
            beta: p.number("BETA"),
            a: get(p, ["A0", "A1", "AM", "AK", "AO"]),
            b: get(p, ["B0", "B1", "BK", "BN", "BO"]),
            c: p.is("C").then(|| get(p, ["C0", "C1", "CM", "CN", "CO"])),
            y: Strides {
                column: 1,
                ..get(p, ["Y0", "Y1", "YM", "", "YO"])
            },
        }
    }
}

impl Strides {
    /// Place of an element.
    pub fn at(&self, batch: [usize; 2], row: usize, column: usize) -> usize {
        self.first
            + batch[0] * self.batch[0]
            + batch[1] * self.batch[1]
            + row * self.row
            + column * self.column
    }
}

fn set(p: Params, names: [&'static str; 5], s: Strides) -> Params {
    let values = [s.batch[0], s.batch[1], s.row, s.column, s.first];
    let mut all = names.into_iter().zip(values);
    all.by_ref().fold(p, |p, (name, v)| p.u32(name, v as u32))
}

fn get(p: &Params, names: [&str; 5]) -> Strides {
    let [batch0, batch1, row, column, first] = names.map(|name| p.size(name));
    Strides {
        first,
        batch: [batch0, batch1],
        row,
        column,
    }
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (m, n, batches) = (p.get("M"), p.get("N"), p.get("BATCHES"));
    // Sums an invocation along a side of `len` elements, `lanes` invocations wide.
    let sums = |len: u32, lanes: u32| len.div_ceil(lanes).next_power_of_two().min(4);
    let groups = |rows: u32, columns: u32| {
        let tiles = m.div_ceil(rows) * n.div_ceil(columns);
        fold(tiles * batches, limits)
    };
    let (rm, rn) = (sums(m, 16), sums(n, 16));
    let tile = Variant::new("tile", groups(16 * rm, 16 * rn))
        .set("RM", rm)
        .set("RN", rn);
    let (rm, rn) = (sums(m, 1), sums(n, 8));
    let serial = Variant::new("serial", groups(rm, 8 * rn))
        .set("RM", rm)
        .set("RN", rn)
        .flag("SERIAL");
    // A tile of few rows is mostly idle.
    if limits.kind == DeviceKind::SoftwareGpu || m < 4 {
        vec![serial, tile]
    } else {
        vec![tile, serial]
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let g = Gemm::of(p);
    for i in 0..g.batch[0] * g.batch[1] {
        let batch = [i / g.batch[1], i % g.batch[1]];
        for m in 0..g.m {
            for n in 0..g.n {
                let term = |k| arrays[0][g.a.at(batch, m, k)] * arrays[1][g.b.at(batch, k, n)];
                let sum: f64 = (0..g.k).map(term).sum();
                let c = g.c.map_or(0.0, |c| arrays[2][c.at(batch, m, n)]);
                arrays[3][g.y.at(batch, m, n)] = f64::from(g.alpha) * sum + f64::from(g.beta) * c;
            }
        }
    }
}

fn case(g: Gemm) -> Case {
    // As large as the last element asks for.
    let array = |seed, s: &Strides, rows: usize, columns: usize| {
        let last = s.at(g.batch.map(|b| b - 1), rows - 1, columns - 1);
        HostArray::random(seed, &[last + 1])
    };
    Case {
        params: g.params(),
        arrays: vec![
            Some(array(1, &g.a, g.m, g.k)),
            Some(array(2, &g.b, g.k, g.n)),
            g.c.as_ref().map(|c| array(3, c, g.m, g.n)),
            Some(array(4, &g.y, g.m, g.n)),
        ],
        bound: 1e-10,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let sizes = [
        (1, 1, 1),
        (1, 131, 67),
        (5, 1, 33),
        (16, 16, 16),
        (17, 15, 31),
        (64, 64, 48),
        (65, 67, 1031),
        (3, 200, 7),
        (200, 3, 64),
    ];
    let strides = |row, column| Strides {
        row,
        column,
        ..Strides::default()
    };
    for (i, (m, n, k)) in sizes.into_iter().enumerate() {
        let plain = Gemm::new(m, n, k);
        cases.push(case(plain));
        // Every transposition; c in every broadcast.
        let a = if i % 2 == 0 { strides(1, m) } else { plain.a };
        let b = if i % 3 > 0 { strides(1, k) } else { plain.b };
        let c = [strides(n, 1), strides(0, 1), strides(1, 0), strides(0, 0)][i % 4];
        cases.push(case(Gemm {
            a,
            b,
            c: Some(c),
            alpha: 0.25,
            beta: 0.35,
            ..plain
        }));
    }
    // Batches that broadcast, columns of a wider y, parts of larger arrays.
    let (m, n, k) = (7, 19, 21);
    let mut g = Gemm::new(m, n, k);
    g.batch = [3, 2];
    g.a.batch = [m * k, 0];
    g.b.batch = [0, k * n];
    g.y.batch = [2 * m * n, m * n];
    cases.push(case(g));
    g.a.batch = [0, m * k];
    g.a.first = 5;
    g.b.batch = [2 * k * n + 3, k * n];
    g.b.first = 11;
    g.c = Some(Strides {
        first: 2,
        batch: [1, 0],
        row: 4,
        column: 0,
    });
    g.beta = -2.0;
    g.y = Strides {
        first: 13,
        batch: [2 * m * 50, m * 50],
        row: 50,
        column: 1,
    };
    cases.push(case(g));
    cases
}
