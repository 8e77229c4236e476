//! Vectors of 16 f32 in whatever registers the processor has.
//!
//! Numeric code is written once, generic over [`Simd`], as a [`Task`]; [`dispatch`] compiles it
//! for every instruction set and runs the best one that the processor has. Everything between
//! `dispatch` and a [`Simd`] method must be `#[inline(always)]`, so that it ends up in the one
//! function for which the instruction set is switched on.

use std::sync::atomic::{AtomicU8, Ordering};

pub mod math;
mod scalar;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

/// An instruction set, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust.
    Scalar,
    /// WebAssembly's 128-bit vectors.
    Simd128,
    /// Arm's 128-bit vectors.
    Neon,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Level {
    /// Its name, as [`crate::device::DeviceInfo::driver`] gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Simd128 => "simd128",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Can this processor run it?
    pub fn is_available(self) -> bool {
        match self {
            Level::Scalar => true,
            Level::Simd128 => cfg!(all(target_arch = "wasm32", target_feature = "simd128")),
            Level::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::has_avx512(),
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 => false,
        }
    }

    /// The best one that this processor can run.
    pub fn best() -> Level {
        Level::available().last().unwrap_or(Level::Scalar)
    }
}

/// The level in use, or [`UNKNOWN`].
static CURRENT: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = u8::MAX;

const LEVELS: [Level; 5] = [
    Level::Scalar,
    Level::Simd128,
    Level::Neon,
    Level::Avx2,
    Level::Avx512,
];

impl Level {
    /// The one that kernels use: the best, or what [`force_level`] has set.
    pub fn current() -> Level {
        match CURRENT.load(Ordering::Relaxed) {
            UNKNOWN => {
                let best = Level::best();
                CURRENT.store(best as u8, Ordering::Relaxed);
                best
            }
            level => LEVELS[usize::from(level)],
        }
    }

    /// All that this processor can run, worst first.
    pub fn available() -> impl Iterator<Item = Level> {
        LEVELS.into_iter().filter(|l| l.is_available())
    }
}

/// Makes kernels use `level` if the processor has it, for tests and measurements; returns whether
/// it has.
pub fn force_level(level: Level) -> bool {
    let available = level.is_available();
    if available {
        CURRENT.store(level as u8, Ordering::Relaxed);
    }
    available
}

/// Code that is generic over the instruction set.
pub trait Task {
    /// Result.
    type Out;

    /// The code; must be `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Runs `task` with the instruction set `level`, or plain Rust where the processor lacks it.
pub fn dispatch<T: Task>(level: Level, task: T) -> T::Out {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.is_available() => {
            // SAFETY: the guard has just detected all features that `avx512` enables.
            unsafe { x86::avx512(task) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.is_available() => {
            // SAFETY: the guard has just detected all features that `avx2` enables.
            unsafe { x86::avx2(task) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => task.run(neon::Neon),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Level::Simd128 => task.run(wasm::Simd128),
        _ => task.run(scalar::Scalar),
    }
}

/// Vectors of 16 f32 (`V`) and of 32 bytes (`B`). A value of a type that has this trait proves
/// that the processor has the instructions.
pub trait Simd: Copy {
    /// 16 f32.
    type V: Copy;
    /// 32 bytes.
    type B: Copy;

    /// Are there registers for 30 `V`s? Else for about 8.
    const WIDE: bool;

    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// `low` in lanes 0 to 7, `high` in the others.
    fn halves(self, low: f32, high: f32) -> Self::V;
    /// Loads 16 elements.
    fn load(self, x: &[f32; 16]) -> Self::V;
    /// Stores 16 elements.
    fn store(self, v: Self::V, y: &mut [f32; 16]);
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger one; `b` where it is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` where it is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, with one rounding where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The nearest whole number.
    fn round(self, v: Self::V) -> Self::V;
    /// 2^v for whole `v` from -126 to 127.
    fn pow2(self, v: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// Largest lane.
    fn max_lane(self, v: Self::V) -> f32;

    /// 16 unsigned bytes as numbers.
    fn u8s(self, b: &[u8; 16]) -> Self::V;
    /// 16 signed bytes as numbers.
    fn i8s(self, b: &[u8; 16]) -> Self::V;
    /// 16 little-endian f16.
    fn f16s(self, b: &[u8; 32]) -> Self::V;
    /// 16 little-endian bf16.
    fn bf16s(self, b: &[u8; 32]) -> Self::V;
    /// Low and high nibbles of 16 bytes as numbers.
    fn nibbles(self, b: &[u8; 16]) -> [Self::V; 2];
    /// Low and high nibbles of 16 bytes as numbers of type e2m1, doubled: [`E2M1`](crate::weights::dequant::E2M1).
    fn e2m1s(self, b: &[u8; 16]) -> [Self::V; 2];
    /// Adds 16 to the lanes whose bit is set.
    fn add_16(self, v: Self::V, bits: u16) -> Self::V;

    /// Loads 32 bytes.
    fn bytes(self, b: &[u8; 32]) -> Self::B;
    /// `b >> N`; the upper N bits of a byte are undefined.
    fn shr<const N: i32>(self, b: Self::B) -> Self::B;
    /// `b << N`; the lower N bits of a byte are undefined.
    fn shl<const N: i32>(self, b: Self::B) -> Self::B;
    /// `b & mask`.
    fn and(self, b: Self::B, mask: u8) -> Self::B;
    /// `a | b`.
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// The bytes as numbers.
    fn widen(self, b: Self::B) -> [Self::V; 2];

    /// Lane j of vector i becomes lane i of vector j.
    #[inline(always)]
    fn transpose(self, rows: [Self::V; 16]) -> [Self::V; 16] {
        let mut grid = [[0.0; 16]; 16];
        for (v, row) in rows.into_iter().zip(&mut grid) {
            self.store(v, row);
        }
        let mut out = rows;
        for (j, out) in out.iter_mut().enumerate() {
            let mut column = [0.0; 16];
            for (c, row) in column.iter_mut().zip(&grid) {
                *c = row[j];
            }
            *out = self.load(&column);
        }
        out
    }

    /// Lane i is the sum of vector i's lanes.
    #[inline(always)]
    fn sums(self, rows: [Self::V; 16]) -> Self::V {
        let mut sums = [0.0; 16];
        for (v, sum) in rows.into_iter().zip(&mut sums) {
            *sum = self.sum(v);
        }
        self.load(&sums)
    }
}

/// The 16 elements at `at`.
#[inline(always)]
pub fn lanes<T>(x: &[T], at: usize) -> &[T; 16] {
    x[at..].first_chunk().expect("16 elements")
}

/// The 16 elements at `at`, to be written.
#[inline(always)]
pub fn lanes_mut<T>(x: &mut [T], at: usize) -> &mut [T; 16] {
    x[at..].first_chunk_mut().expect("16 elements")
}

/// The 32 bytes at `at`.
#[inline(always)]
pub fn bytes32(x: &[u8], at: usize) -> &[u8; 32] {
    x[at..].first_chunk().expect("32 bytes")
}

#[cfg(test)]
mod tests;
