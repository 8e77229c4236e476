//! Philox 4x32-10, a counter-based random number generator (Salmon, Moraes, Dror, Shaw, SC11,
//! doi:10.1145/2063384.2063405): word n of a stream depends on n, the stream and the seed only, so
//! that it is the same on every device and however the work is split.
//!
//! The same as `shared/philox.wgsl` and `shared/negative_log.wgsl`.

use super::Params;

/// Which random words a call draws: word `first + i` for element i; or, where a call has `width`
/// columns of a matrix that is `stride` wide, word `first + i / width * stride + i % width`, so that
/// each element gets the word that it would get in a call over the whole matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The generator's key.
    pub seed: u64,
    /// Tells apart draws of one seed: a layer, a step.
    pub stream: u32,
    /// Number of the first element's word.
    pub first: u32,
    /// Columns of this call.
    pub width: u32,
    /// Columns of the whole.
    pub stride: u32,
}

/// What kernels that draw have in their uniforms, in this order.
macro_rules! draw_uniforms {
    ($($more:literal),*) => {
        &["N", "FIRST", "WIDTH", "STRIDE", "STREAM", "SEED_LOW", "SEED_HIGH", $($more),*]
    };
}
pub(super) use draw_uniforms;

impl Draw {
    /// Words 0, 1, 2, ... of this seed and stream.
    pub fn new(seed: u64, stream: u32) -> Self {
        Draw {
            seed,
            stream,
            first: 0,
            width: 1,
            stride: 1,
        }
    }

    /// Params of a call over `len` elements.
    pub(super) fn params(self, len: usize) -> Params {
        Params::new()
            .u32("N", len as u32)
            .u32("FIRST", self.first)
            .u32("WIDTH", self.width)
            .u32("STRIDE", self.stride)
            .u32("STREAM", self.stream)
            .u32("SEED_LOW", self.seed as u32)
            .u32("SEED_HIGH", (self.seed >> 32) as u32)
    }

    /// What [`Draw::params`] has set.
    pub(super) fn from(p: &Params) -> Self {
        Draw {
            seed: u64::from(p.get("SEED_LOW")) | u64::from(p.get("SEED_HIGH")) << 32,
            stream: p.get("STREAM"),
            first: p.get("FIRST"),
            width: p.get("WIDTH"),
            stride: p.get("STRIDE"),
        }
    }

    /// Number of element i's word.
    pub fn number(&self, i: usize) -> u32 {
        let i = i as u32;
        (self.first + i % self.width).wrapping_add(i / self.width * self.stride)
    }

    /// Word number `n`.
    pub fn word(&self, n: u32) -> u32 {
        let counter = [n / 4, self.stream, 0, 0];
        philox(counter, [self.seed as u32, (self.seed >> 32) as u32])[n as usize % 4]
    }
}

/// Four random words of a counter and a key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let halves = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let ([mut a, mut b, mut c, mut d], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let (p, q) = (halves(0xD251_1F53, a), halves(0xCD9E_8D57, c));
        [a, b, c, d] = [q.0 ^ b ^ k, q.1, p.0 ^ d ^ l, p.1];
        k = k.wrapping_add(0x9E37_79B9);
        l = l.wrapping_add(0xBB67_AE85);
    }
    [a, b, c, d]
}

/// A number inside (0, 1), the middle of one of 2^23 equal parts; exact, so equal on all devices.
pub fn to_uniform(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) / (1u32 << 23) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123 1.14 (D. E. Shaw Research).
    #[test]
    fn philox_gives_the_published_answers() {
        let answers = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in answers {
            assert_eq!(philox(counter, key), words, "{counter:x?}");
        }
    }

    #[test]
    fn uniform_numbers_are_inside_0_and_1() {
        assert!(to_uniform(0) > 0.0);
        assert!(to_uniform(u32::MAX) < 1.0);
        assert_eq!(to_uniform(u32::MAX), 1.0 - 0.5 / (1u32 << 23) as f32);
    }

    #[test]
    fn a_part_of_a_matrix_draws_what_the_whole_does() {
        let whole = Draw::new(7, 1);
        let right = Draw {
            first: 3,
            width: 2,
            stride: 5,
            ..whole
        };
        let numbers: Vec<u32> = (0..6).map(|i| right.number(i)).collect();
        assert_eq!(numbers, [3, 4, 8, 9, 13, 14]);
        assert_eq!(whole.number(14), 14);
    }
}
