//! As many rows as a count says, from one tensor into another: `y[TO + l, i] = x[FROM + l, i]` for
//! `l < min(LEN, counts[AT])`; the rest of y stays. Words of 4 bytes, which keep their bits.
//!
//! Params: `INNER` words of a row, `FROM`, `TO`, `LEN` and `AT`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "exchange_rows",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("counts", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["INNER", "FROM", "TO", "LEN", "AT"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call for at most `len` rows of `inner` words, from row `from` to row `to`; their number is `counts[at]`.
pub fn params(inner: usize, from: usize, to: usize, len: usize, at: usize) -> Params {
    Params::new()
        .u32("INNER", inner as u32)
        .u32("FROM", from as u32)
        .u32("TO", to as u32)
        .u32("LEN", len as u32)
        .u32("AT", at as u32)
}

/// Elements of an invocation.
const EACH: u32 = 4;

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let words = p.get("LEN").saturating_mul(p.get("INNER"));
    let variant = |name, elements: u32| {
        let groups = fold(elements.div_ceil(64 * EACH), limits);
        Variant::new(name, groups).set("WG", 64).set("EACH", EACH)
    };
    let elements = variant("elements", words);
    match p.get("INNER").is_multiple_of(4) {
        true => vec![variant("fours", words / 4).flag("FOURS"), elements],
        false => vec![elements],
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (x, counts) = (d.u32(0), d.u32(1));
    let rows = p.size("LEN").min(counts[p.size("AT")] as usize);
    let words = |rows: usize| rows * p.size("INNER");
    let x = &x[words(p.size("FROM"))..];
    let mut y = d.write::<u32>(2);
    let y = &mut y[words(p.size("TO"))..][..words(rows)];
    cpu::for_each_part(y, |start, y| {
        y.copy_from_slice(&x[start..start + y.len()]);
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let inner = p.size("INNER");
    let rows = p.size("LEN").min(arrays[1][p.size("AT")] as usize);
    for l in 0..rows {
        for i in 0..inner {
            let from = (p.size("FROM") + l) * inner + i;
            arrays[2][(p.size("TO") + l) * inner + i] = arrays[0][from];
        }
    }
}

fn cases() -> Vec<Case> {
    // inner; rows of x, the first; rows of y, the first; len; count
    let sizes = [
        (1, (1, 0), (1, 0), 1, 1),
        (33, (12, 3), (20, 8), 9, 5),
        (64, (12, 4), (9, 1), 8, 8),
        (580, (40, 0), (57, 17), 40, 31),
        (4, (7, 2), (7, 0), 5, 0),
        // A count that there is no room for.
        (8, (6, 1), (9, 2), 4, 1000),
    ];
    sizes
        .into_iter()
        .map(|(inner, x, y, len, count)| Case {
            params: params(inner, x.1, y.1, len, 2),
            arrays: vec![
                Some(HostArray::random(1, &[x.0, inner])),
                Some(HostArray::u32(&[4], &[99, 99, count, 99])),
                Some(HostArray::random(2, &[y.0, inner])),
            ],
            bound: 0.0,
        })
        .collect()
}
