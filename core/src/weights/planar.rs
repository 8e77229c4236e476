//! The device's layout of a weight: each row repacked on its own into 16-byte words.
//!
//! A row of K elements is made of C = ceil(K / 32) chunks of 32 elements, in S = K / 256
//! superblocks where the format has them. A row starts with the quants of all chunks and goes on
//! with planes of side data; it ends with zeros up to a multiple of 16 bytes, so rows can be
//! bound as `array<vec4<u32>>`, sliced, streamed and paged one by one. Everything is little
//! endian. The decoders in `shaders/shared/*.wgsl` follow this table:
//!
//! | type | quants, bytes 0.. | plane A | plane B | plane C |
//! |------|-------------------|---------|---------|---------|
//! | f32  | 128 B a chunk: the elements, then zeros up to 32 C | | | |
//! | f16, bf16 | 64 B a chunk, likewise | | | |
//! | q4_0 | 16 B a chunk: nibbles | 16 C: f16 d a chunk | | |
//! | q4_1 | 16 B a chunk: nibbles | 16 C: u32 d \| m << 16 a chunk | | |
//! | q5_0 | 16 B a chunk: low nibbles | 16 C: u32 fifth bits a chunk | 20 C: f16 d a chunk | |
//! | q5_1 | 16 B a chunk: low nibbles | 16 C: u32 fifth bits a chunk | 20 C: u32 d \| m << 16 a chunk | |
//! | q8_0 | 32 B a chunk: int8 in order | 32 C: f16 d a chunk | | |
//! | q4_k | 16 B a chunk: nibbles | 16 C: 16 B a superblock: u32 d \| dmin << 16, then the 12 scale bytes of ggml | | |
//! | q5_k | 16 B a chunk: low nibbles | 16 C: 16 B a superblock, as q4_k | 16 C + 16 S: u32 fifth bits a chunk | |
//! | q6_k | 16 B a chunk: low nibbles | 16 C: 16 B a superblock: 16 int8 scales | 16 C + 16 S: 2 u32 of high pairs a chunk | 24 C + 16 S: f16 d a superblock |
//! | mxfp4 | 16 B a chunk: nibbles, of e2m1 | 16 C: u8 e8m0 a chunk | | |
//!
//! d, m and dmin are f16 bits; "d | m << 16" has d in the low half. All planes start at a multiple
//! of 4 bytes, and those with 16 B entries at a multiple of 16. [`RowLayout`] has the offsets.
//!
//! **Nibbles.** Word j (0 to 3) of a chunk's `vec4<u32>` holds elements 8j to 8j + 7: its byte i
//! has element 8j + i in the low nibble and element 8j + 4 + i in the high one. So
//! `unpack4xU8(w & 0x0F0F0F0F)` gives elements 8j to 8j + 3 and
//! `unpack4xU8((w >> 4) & 0x0F0F0F0F)` elements 8j + 4 to 8j + 7.
//!
//! **Fifth bits.** Bit e of the word is bit 4 of element e of the chunk.
//!
//! **High pairs.** Bits 2 (e % 16) and the next of word e / 16 are bits 4 and 5 of element e.
//!
//! Elements are in logical order, that of [`dequantize`](super::dequant::dequantize); quants keep
//! ggml's offsets (8 for q4_0, 16 for q5_0, 32 for q6_k).

use half::{bf16, f16};

use super::dequant::{E2M1, f16_at, half_e8m0, scale_min_k4, u32_at};
use crate::DType;

/// Elements of a chunk.
pub const CHUNK: usize = 32;
const SUPERBLOCK: usize = 256;
const LOW: u32 = 0x0F0F_0F0F;

/// Where things lie in one row; offsets and sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLayout {
    /// Number of 32-element chunks.
    pub chunks: usize,
    /// Number of 256-element superblocks; 0 for formats without them.
    pub superblocks: usize,
    /// Start of plane A, which is the end of the quants.
    pub a: usize,
    /// Start of plane B; equal to the end of plane A when there is none.
    pub b: usize,
    /// Start of plane C; equal to the end of plane B when there is none.
    pub c: usize,
    /// The row's length, a multiple of 16.
    pub bytes: usize,
}

impl RowLayout {
    /// The layout of a row of `k` elements.
    ///
    /// # Panics
    ///
    /// If `k` is not a whole number of the type's blocks.
    pub fn new(dtype: DType, k: usize) -> RowLayout {
        assert!(
            k.is_multiple_of(dtype.block_len()),
            "{dtype}: rows of {k} elements are not whole blocks"
        );
        let chunks = k.div_ceil(CHUNK);
        let superblocks = if dtype.block_len() == SUPERBLOCK {
            k / SUPERBLOCK
        } else {
            0
        };
        let (quants, a, b, c) = match dtype {
            DType::F32 | DType::U32 => (128, 0, 0, 0),
            DType::F16 | DType::BF16 => (64, 0, 0, 0),
            DType::Q4_0 => (16, 2 * chunks, 0, 0),
            DType::Q4_1 => (16, 4 * chunks, 0, 0),
            DType::Q5_0 => (16, 4 * chunks, 2 * chunks, 0),
            DType::Q5_1 => (16, 4 * chunks, 4 * chunks, 0),
            DType::Q8_0 => (32, 2 * chunks, 0, 0),
            DType::Q4K => (16, 16 * superblocks, 0, 0),
            DType::Q5K => (16, 16 * superblocks, 4 * chunks, 0),
            DType::Q6K => (16, 16 * superblocks, 8 * chunks, 2 * superblocks),
            DType::Mxfp4 => (16, chunks, 0, 0),
        };
        let start = quants * chunks;
        RowLayout {
            chunks,
            superblocks,
            a: start,
            b: start + a,
            c: start + a + b,
            bytes: (start + a + b + c).next_multiple_of(16),
        }
    }
}

/// Bytes of one repacked row of `k` elements: a multiple of 16.
///
/// # Panics
///
/// If `k` is not a whole number of the type's blocks.
pub fn row_bytes(dtype: DType, k: usize) -> usize {
    RowLayout::new(dtype, k).bytes
}

/// Repacks whole rows of `k` elements from ggml's layout to this one.
///
/// Rows are independent: callers may cut `src` and `dst` at row boundaries and repack the parts
/// on different threads.
///
/// # Panics
///
/// If `src` is not whole rows, or `dst` is not as many rows of [`row_bytes`].
pub fn repack_rows(dtype: DType, k: usize, src: &[u8], dst: &mut [u8]) {
    let layout = RowLayout::new(dtype, k);
    if k == 0 {
        return;
    }
    let row = k / dtype.block_len() * dtype.block_bytes();
    let rows = src.len() / row;
    assert!(
        src.len() == rows * row && dst.len() == rows * layout.bytes,
        "{dtype}: {} bytes do not repack to {} in rows of {k}",
        src.len(),
        dst.len()
    );
    for (src, dst) in src
        .chunks_exact(row)
        .zip(dst.chunks_exact_mut(layout.bytes))
    {
        let (quants, side) = dst.split_at_mut(layout.a);
        match dtype {
            DType::F32 | DType::U32 | DType::F16 | DType::BF16 => {
                quants[..row].copy_from_slice(src);
                quants[row..].fill(0);
            }
            DType::Q4_0 => repack_q4::<18, 2>(src, quants, side),
            DType::Q4_1 => repack_q4::<20, 4>(src, quants, side),
            DType::Mxfp4 => repack_q4::<17, 1>(src, quants, side),
            DType::Q5_0 => repack_q5::<22, 2>(src, quants, side, layout.b - layout.a),
            DType::Q5_1 => repack_q5::<24, 4>(src, quants, side, layout.b - layout.a),
            DType::Q8_0 => repack_q8_0(src, quants, side),
            DType::Q4K => repack_q4_k(src, quants, side),
            DType::Q5K => repack_q5_k(src, quants, side, layout.b - layout.a),
            DType::Q6K => repack_q6_k(
                src,
                quants,
                side,
                [layout.b - layout.a, layout.c - layout.a],
            ),
        }
        dst[end_of_data(dtype, &layout)..].fill(0);
    }
}

/// First byte of the padding at the end of a row.
fn end_of_data(dtype: DType, layout: &RowLayout) -> usize {
    layout.c
        + match dtype {
            DType::Q6K => 2 * layout.superblocks,
            _ => 0,
        }
}

/// Two words of low nibbles, each with 4 elements, to one word of 8.
fn low_pair(a: u32, b: u32) -> u32 {
    (a & LOW) | (b & LOW) << 4
}

/// The same for the high nibbles.
fn high_pair(a: u32, b: u32) -> u32 {
    (a >> 4 & LOW) | (b & !LOW)
}

/// 16 bytes of ggml's 32-element nibbles (element j low, j + 16 high) to a chunk.
fn nibbles_32(src: &[u8; 16], dst: &mut [u8; 16]) {
    let w: [u32; 4] = std::array::from_fn(|i| u32_at(src, 4 * i));
    let out = [
        low_pair(w[0], w[1]),
        low_pair(w[2], w[3]),
        high_pair(w[0], w[1]),
        high_pair(w[2], w[3]),
    ];
    put_words(dst, out);
}

/// 32 bytes whose low nibbles are one chunk and whose high nibbles another.
fn nibbles_64(src: &[u8; 32], low: &mut [u8; 16], high: &mut [u8; 16]) {
    let w: [u32; 8] = std::array::from_fn(|i| u32_at(src, 4 * i));
    put_words(
        low,
        std::array::from_fn(|j| low_pair(w[2 * j], w[2 * j + 1])),
    );
    put_words(
        high,
        std::array::from_fn(|j| high_pair(w[2 * j], w[2 * j + 1])),
    );
}

fn put_words(dst: &mut [u8; 16], words: [u32; 4]) {
    for (dst, word) in dst.as_chunks_mut().0.iter_mut().zip(words) {
        *dst = word.to_le_bytes();
    }
}

/// q4_0, q4_1 and mxfp4: `SIDE` bytes of d, d and m or e, then 16 of nibbles.
fn repack_q4<const BLOCK: usize, const SIDE: usize>(src: &[u8], quants: &mut [u8], a: &mut [u8]) {
    let blocks = src.as_chunks::<BLOCK>().0;
    let chunks = quants.as_chunks_mut::<16>().0;
    let sides = a.as_chunks_mut::<SIDE>().0;
    for ((block, chunk), side) in blocks.iter().zip(chunks).zip(sides) {
        side.copy_from_slice(&block[..SIDE]);
        nibbles_32(array(block, SIDE), chunk);
    }
}

/// q5_0 and q5_1: `SIDE` bytes of d or d and m, 4 of fifth bits, 16 of nibbles.
fn repack_q5<const BLOCK: usize, const SIDE: usize>(
    src: &[u8],
    quants: &mut [u8],
    side: &mut [u8],
    b: usize,
) {
    let (a, b) = side.split_at_mut(b);
    let blocks = src.as_chunks::<BLOCK>().0;
    let chunks = quants.as_chunks_mut::<16>().0;
    let highs = a.as_chunks_mut::<4>().0;
    let sides = b.as_chunks_mut::<SIDE>().0;
    for (((block, chunk), high), side) in blocks.iter().zip(chunks).zip(highs).zip(sides) {
        side.copy_from_slice(&block[..SIDE]);
        *high = *array(block, SIDE);
        nibbles_32(array(block, SIDE + 4), chunk);
    }
}

fn repack_q8_0(src: &[u8], quants: &mut [u8], a: &mut [u8]) {
    let blocks = src.as_chunks::<34>().0;
    let chunks = quants.as_chunks_mut::<32>().0;
    let sides = a.as_chunks_mut::<2>().0;
    for ((block, chunk), side) in blocks.iter().zip(chunks).zip(sides) {
        *side = *array(block, 0);
        *chunk = *array(block, 2);
    }
}

/// 128 bytes of q4_k or q5_k nibbles to 8 chunks.
fn nibbles_k(src: &[u8], chunks: &mut [u8; 128]) {
    let pairs = chunks.as_chunks_mut::<32>().0;
    for (src, pair) in src.as_chunks::<32>().0.iter().zip(pairs) {
        if let [low, high] = pair.as_chunks_mut::<16>().0 {
            nibbles_64(src, low, high);
        }
    }
}

fn repack_q4_k(src: &[u8], quants: &mut [u8], a: &mut [u8]) {
    let blocks = src.as_chunks::<144>().0;
    let chunks = quants.as_chunks_mut::<128>().0;
    let heads = a.as_chunks_mut::<16>().0;
    for ((block, chunks), head) in blocks.iter().zip(chunks).zip(heads) {
        *head = *array(block, 0);
        nibbles_k(&block[16..], chunks);
    }
}

fn repack_q5_k(src: &[u8], quants: &mut [u8], side: &mut [u8], b: usize) {
    let (a, b) = side.split_at_mut(b);
    let blocks = src.as_chunks::<176>().0;
    let chunks = quants.as_chunks_mut::<128>().0;
    let heads = a.as_chunks_mut::<16>().0;
    let highs = b.as_chunks_mut::<32>().0;
    for (((block, chunks), head), high) in blocks.iter().zip(chunks).zip(heads).zip(highs) {
        *head = *array(block, 0);
        nibbles_k(&block[48..], chunks);
        for (bit, high) in high.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for (i, high) in high.iter_mut().enumerate() {
                let eight = u64::from_le_bytes(*array(block, 16 + 8 * i));
                // Bit 0 of byte n moves to bit 56 + n.
                let ones = eight >> bit & 0x0101_0101_0101_0101;
                *high = (ones.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
            }
        }
    }
}

fn repack_q6_k(src: &[u8], quants: &mut [u8], side: &mut [u8], [b, c]: [usize; 2]) {
    let (side, c) = side.split_at_mut(c);
    let (a, b) = side.split_at_mut(b);
    let blocks = src.as_chunks::<210>().0;
    let chunks = quants.as_chunks_mut::<128>().0;
    let scales = a.as_chunks_mut::<16>().0;
    let highs = b.as_chunks_mut::<64>().0;
    let ds = c.as_chunks_mut::<2>().0;
    let planes = chunks.iter_mut().zip(scales).zip(highs).zip(ds);
    for (block, (((chunks, scales), highs), d)) in blocks.iter().zip(planes) {
        *scales = *array(block, 192);
        *d = *array(block, 208);
        for half in 0..2 {
            let four = chunks[64 * half..].as_chunks_mut::<16>().0;
            if let [c0, c1, c2, c3, ..] = four {
                nibbles_64(array(block, 64 * half), c0, c2);
                nibbles_64(array(block, 64 * half + 32), c1, c3);
            }
            let highs = highs[32 * half..].as_chunks_mut::<2>().0;
            for (i, high) in highs.iter_mut().take(16).enumerate() {
                let (run, eight) = (i / 4, i % 4);
                let eight = u64::from_le_bytes(*array(block, 128 + 32 * half + 8 * eight));
                // Eight bytes of two bits each close up to 16 bits.
                let x = eight >> (2 * run) & 0x0303_0303_0303_0303;
                let x = (x | x >> 6) & 0x000F_000F_000F_000F;
                let x = (x | x >> 12) & 0x0000_00FF_0000_00FF;
                *high = ((x | x >> 24) as u16).to_le_bytes();
            }
        }
    }
}

/// The `N` bytes at `at`, which lie inside the block by the constants above.
fn array<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    match bytes[at..].first_chunk() {
        Some(array) => array,
        None => panic!("{N} bytes at {at} of {}", bytes.len()),
    }
}

/// Decodes one repacked row: equal, bit for bit, to
/// [`dequantize`](super::dequant::dequantize) of the original row.
///
/// # Panics
///
/// If `row` or `out` is not one row of `k` elements.
pub fn decode_row(dtype: DType, k: usize, row: &[u8], out: &mut [f32]) {
    let at = RowLayout::new(dtype, k);
    assert!(
        row.len() == at.bytes && out.len() == k,
        "{dtype}: row of {} bytes and {} elements, expected {} and {k}",
        row.len(),
        out.len(),
        at.bytes
    );
    for (i, y) in out.iter_mut().enumerate() {
        let (chunk, e, sup) = (i / CHUNK, i % CHUNK, i / SUPERBLOCK);
        let word = u32_at(row, 16 * chunk + 4 * (e / 8));
        let nibble = word >> (8 * (e % 4) + 4 * (e / 4 % 2)) & 15;
        let fifth = |plane: usize| (u32_at(row, plane + 4 * chunk) >> e & 1) << 4;
        let d_and_m = |i: usize| (f16_at(row, i), f16_at(row, i + 2));
        let scaled_k = |q: u32| {
            let head = at.a + 16 * sup;
            let (d, dmin) = d_and_m(head);
            let (scale, min) = scale_min_k4(chunk % 8, &row[head + 4..head + 16]);
            d * f32::from(scale) * q as f32 - dmin * f32::from(min)
        };
        *y = match dtype {
            DType::F32 => f32::from_bits(u32_at(row, 4 * i)),
            DType::U32 => u32_at(row, 4 * i) as f32,
            DType::F16 => f16::from_le_bytes(*array(row, 2 * i)).to_f32(),
            DType::BF16 => bf16::from_le_bytes(*array(row, 2 * i)).to_f32(),
            DType::Q4_0 => (nibble as i32 - 8) as f32 * f16_at(row, at.a + 2 * chunk),
            DType::Q4_1 => {
                let (d, m) = d_and_m(at.a + 4 * chunk);
                nibble as f32 * d + m
            }
            DType::Q5_0 => {
                let q = (nibble | fifth(at.a)) as i32 - 16;
                q as f32 * f16_at(row, at.b + 2 * chunk)
            }
            DType::Q5_1 => {
                let (d, m) = d_and_m(at.b + 4 * chunk);
                (nibble | fifth(at.a)) as f32 * d + m
            }
            DType::Q8_0 => f32::from(row[i] as i8) * f16_at(row, at.a + 2 * chunk),
            DType::Q4K => scaled_k(nibble),
            DType::Q5K => scaled_k(nibble | fifth(at.b)),
            DType::Q6K => {
                let pairs = u32_at(row, at.b + 8 * chunk + 4 * (e / 16));
                let q = (nibble | (pairs >> (2 * (e % 16)) & 3) << 4) as i32 - 32;
                let scale = row[at.a + i / 16] as i8;
                f16_at(row, at.c + 2 * sup) * f32::from(scale) * q as f32
            }
            DType::Mxfp4 => half_e8m0(row[at.a + chunk]) * f32::from(E2M1[nibble as usize]),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::dequant::{dequantize, random_blocks};
    use super::*;

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    fn lengths(dtype: DType) -> Vec<usize> {
        match dtype.block_len() {
            1 => vec![1, 31, 32, 33, 64, 577],
            n => vec![n, 2 * n, 3 * n, 5 * n, 18 * n],
        }
    }

    #[test]
    fn repacked_rows_decode_to_the_same_bits() {
        for &dtype in DType::WEIGHTS {
            for k in lengths(dtype) {
                let rows = 3;
                let blocks = rows * k / dtype.block_len();
                let src = random_blocks(dtype, blocks, k as u64);
                let mut want = vec![0.0; rows * k];
                dequantize(dtype, &src, &mut want);
                let bytes = row_bytes(dtype, k);
                let mut packed = vec![0xAA; rows * bytes];
                repack_rows(dtype, k, &src, &mut packed);
                for r in 0..rows {
                    let mut got = vec![0.0; k];
                    decode_row(dtype, k, &packed[r * bytes..][..bytes], &mut got);
                    let same = bits(&got) == bits(&want[r * k..][..k]);
                    assert!(same, "{dtype} k={k} row {r}");
                }
            }
        }
    }

    #[test]
    fn planes_lie_where_the_table_says_and_padding_is_zero() {
        let layout = |dtype, k| {
            let l = RowLayout::new(dtype, k);
            [l.chunks, l.superblocks, l.a, l.b, l.c, l.bytes]
        };
        assert_eq!(layout(DType::F32, 33), [2, 0, 256, 256, 256, 256]);
        assert_eq!(layout(DType::BF16, 1), [1, 0, 64, 64, 64, 64]);
        assert_eq!(layout(DType::Q4_0, 96), [3, 0, 48, 54, 54, 64]);
        assert_eq!(layout(DType::Q4_1, 576), [18, 0, 288, 360, 360, 368]);
        assert_eq!(layout(DType::Q5_0, 96), [3, 0, 48, 60, 66, 80]);
        assert_eq!(layout(DType::Q5_1, 96), [3, 0, 48, 60, 72, 80]);
        assert_eq!(layout(DType::Q8_0, 64), [2, 0, 64, 68, 68, 80]);
        assert_eq!(layout(DType::Q4K, 512), [16, 2, 256, 288, 288, 288]);
        assert_eq!(layout(DType::Q5K, 512), [16, 2, 256, 288, 352, 352]);
        assert_eq!(layout(DType::Q6K, 512), [16, 2, 256, 288, 416, 432]);
        assert_eq!(layout(DType::Mxfp4, 96), [3, 0, 48, 51, 51, 64]);
        for &dtype in DType::WEIGHTS {
            for k in lengths(dtype) {
                let l = RowLayout::new(dtype, k);
                let end = end_of_data(dtype, &l);
                assert!(l.bytes.is_multiple_of(16) && end <= l.bytes && l.bytes < end + 16);
                let mut packed = vec![0xAA; l.bytes];
                let src = random_blocks(dtype, k / dtype.block_len(), 7);
                repack_rows(dtype, k, &src, &mut packed);
                assert!(packed[end..].iter().all(|&b| b == 0), "{dtype} k={k}");
                if dtype.block_len() == 1 {
                    let raw = k * dtype.block_bytes();
                    assert!(packed[raw..].iter().all(|&b| b == 0), "{dtype} k={k}");
                }
            }
        }
    }

    #[test]
    fn nibbles_are_in_the_documented_order() {
        // Elements of value e % 16: word j byte i has 8j + i low and 8j + 4 + i high.
        let mut src = vec![0, 0x3C];
        src.extend((0..16).map(|j: u8| j | j << 4));
        let mut row = vec![0; row_bytes(DType::Q4_0, 32)];
        repack_rows(DType::Q4_0, 32, &src, &mut row);
        let half = [0x40, 0x51, 0x62, 0x73, 0xC8, 0xD9, 0xEA, 0xFB];
        assert_eq!(row[..16], [half, half].concat());
        assert_eq!(row[16..18], [0, 0x3C]);
    }
}
