//! Integer weights as fastllm stores them: 8 or 4 bits, one scale and zero point or minimum for
//! each row or group of a row.
//!
//! All of them are `min + scale q` with unsigned q; a zero point z gives `min = -scale z`.
//! [`IntWeight`] keeps that, repacked for devices. A four-bit pair's even element is in the high
//! half of its byte.
//!
//! | format | bytes of a row | beside them |
//! |---|---|---|
//! | int8, int4 | quants | a row's scale and zero point; in a file its smallest and largest value |
//! | int4_nozero | quants | a row's min and scale |
//! | int4_group | quants | min and scale of each group, 128 elements by default |
//! | int8_perchannel, int4_perchannel | quants, then f32 min, f32 scale | |
//! | int4_group128 | for each 128 elements: quants, f32 min, f32 scale | |
//! | int4_group32 | for each 4 groups of 32: quants, then their bf16 scales; the zero point is 8 | |
//!
//! Source: fastllm, `fastllm.h` and `fastllm.cpp` (`Data`, `LowBitConfig`).

use half::bf16;

use crate::{Error, Result};

/// Elements that devices read at once; a group is a multiple of it.
pub const CHUNK: usize = 32;

/// fastllm's integer formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntFormat {
    /// 8 bits, scale and zero point a row.
    Int8,
    /// 4 bits, scale and zero point a row.
    Int4,
    /// 4 bits, min and scale a row.
    Int4NoZero,
    /// 4 bits, min and scale a group of so many elements.
    Int4Group(usize),
    /// 8 bits, min and scale behind each row.
    Int8PerChannel,
    /// 4 bits, min and scale behind each row.
    Int4PerChannel,
    /// 4 bits, min and scale behind each 128 elements.
    Int4Group128,
    /// 4 bits around 8, a bf16 scale for 32 elements, behind each 128 of them.
    Int4Group32,
}

impl IntFormat {
    /// Bits of an element.
    pub fn bits(self) -> usize {
        match self {
            IntFormat::Int8 | IntFormat::Int8PerChannel => 8,
            _ => 4,
        }
    }

    /// Elements with one scale, in rows of `cols`.
    pub fn group(self, cols: usize) -> usize {
        match self {
            IntFormat::Int4Group(group) => group,
            IntFormat::Int4Group128 => 128,
            IntFormat::Int4Group32 => 32,
            _ => cols,
        }
    }

    /// Bytes of a row of `cols` elements, scales included where they lie in it.
    fn row_bytes(self, cols: usize) -> usize {
        let quants = cols * self.bits() / 8;
        quants
            + match self {
                IntFormat::Int8PerChannel | IntFormat::Int4PerChannel => 8,
                IntFormat::Int4Group128 => cols / 128 * 8,
                IntFormat::Int4Group32 => cols / 32 * 2,
                _ => 0,
            }
    }

    /// Does a row hold its own scales?
    pub fn is_inline(self) -> bool {
        use IntFormat::{Int4Group32, Int4Group128, Int4PerChannel, Int8PerChannel};
        matches!(
            self,
            Int8PerChannel | Int4PerChannel | Int4Group128 | Int4Group32
        )
    }
}

/// An integer weight `(rows, cols)`, element `min + scale q`.
#[derive(Clone, Debug, PartialEq)]
pub struct IntWeight {
    /// Bits of an element: 8 or 4.
    pub bits: usize,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Elements with one scale: a multiple of [`CHUNK`], or `cols`.
    pub group: usize,
    /// The quants, each row padded to whole chunks: bytes in order, or nibbles as in
    /// [`planar`](super::planar).
    pub quants: Vec<u8>,
    /// Min and scale of each group, row by row.
    pub sides: Vec<[f32; 2]>,
}

impl IntWeight {
    /// A weight in one of fastllm's formats. `sides` are min and scale of each row or group, in
    /// order; none where the bytes hold them.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when lengths do not fit.
    pub fn from_fastllm(
        name: &str,
        format: IntFormat,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        sides: &[[f32; 2]],
    ) -> Result<Self> {
        let wrong = |what: String| Err(Error::format(name, what));
        let bits = format.bits();
        let whole = match format {
            IntFormat::Int4Group128 => 128,
            IntFormat::Int4Group32 => 32,
            _ => 8 / bits,
        };
        if rows == 0 || cols == 0 || !cols.is_multiple_of(whole) {
            return wrong(format!(
                "{format:?} has rows of a multiple of {whole} elements, not {cols}"
            ));
        }
        let group = format.group(cols).min(cols);
        if group == 0 || (group < cols && !group.is_multiple_of(CHUNK)) {
            return wrong(format!(
                "groups of {group} elements; expected a multiple of {CHUNK}"
            ));
        }
        let width = format.row_bytes(cols);
        if rows.checked_mul(width) != Some(bytes.len()) {
            let found = bytes.len();
            return wrong(format!(
                "{rows} rows of {cols} {format:?} elements have {width} bytes each, found {found} in all"
            ));
        }
        let groups = cols.div_ceil(group);
        let wanted = if format.is_inline() { 0 } else { rows * groups };
        if sides.len() != wanted {
            return wrong(format!("{} scales, expected {wanted}", sides.len()));
        }
        let mut weight = IntWeight {
            bits,
            rows,
            cols,
            group,
            quants: Vec::with_capacity(rows * cols.div_ceil(CHUNK) * CHUNK * bits / 8),
            sides: sides.to_vec(),
        };
        let mut quants = Vec::with_capacity(cols * bits / 8);
        for row in bytes.chunks_exact(width) {
            quants.clear();
            weight.read_row(format, row, &mut quants);
            weight.push_row(&quants);
        }
        Ok(weight)
    }

    /// Splits a row into quants, and scales where it holds them.
    fn read_row(&mut self, format: IntFormat, row: &[u8], quants: &mut Vec<u8>) {
        let f32_at = |b: &[u8], i: usize| f32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let len = self.cols * self.bits / 8;
        match format {
            IntFormat::Int8PerChannel | IntFormat::Int4PerChannel => {
                quants.extend(&row[..len]);
                self.sides.push([f32_at(row, len), f32_at(row, len + 4)]);
            }
            IntFormat::Int4Group128 => {
                for block in row.chunks_exact(72) {
                    quants.extend(&block[..64]);
                    self.sides.push([f32_at(block, 64), f32_at(block, 68)]);
                }
            }
            IntFormat::Int4Group32 => {
                // The last block may have fewer than four groups.
                for block in row.chunks(4 * 18) {
                    let (low, scales) = block.split_at(block.len() / 18 * 16);
                    quants.extend(low);
                    for scale in scales.as_chunks::<2>().0 {
                        let scale = bf16::from_le_bytes(*scale).to_f32();
                        self.sides.push([-8.0 * scale, scale]);
                    }
                }
            }
            _ => quants.extend(row),
        }
    }

    /// Appends a row's quants in the devices' order.
    fn push_row(&mut self, quants: &[u8]) {
        let start = self.quants.len();
        if self.bits == 8 {
            self.quants.extend(quants);
        } else {
            // Element e of 8: fastllm's is in byte e / 2, high half first; ours in byte e % 4,
            // low half first.
            let nibble = |e: usize| {
                let byte = quants.get(e / 2).copied().unwrap_or(0);
                if e.is_multiple_of(2) {
                    byte >> 4
                } else {
                    byte & 15
                }
            };
            for eight in (0..self.cols).step_by(8) {
                self.quants
                    .extend((0..4).map(|i| nibble(eight + i) | nibble(eight + 4 + i) << 4));
            }
        }
        let width = self.row_bytes();
        self.quants.resize(start + width, 0);
    }

    /// Bytes of a row's quants on devices.
    pub fn row_bytes(&self) -> usize {
        self.cols.div_ceil(CHUNK) * CHUNK * self.bits / 8
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols.div_ceil(self.group)
    }

    /// Row `n` as numbers.
    ///
    /// # Panics
    ///
    /// When there is no such row, or `out` has another length.
    pub fn decode_row(&self, n: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "a row has {} elements", self.cols);
        let width = self.row_bytes();
        let sides = &self.sides[n * self.groups()..];
        decode(
            self.bits,
            self.group,
            &self.quants[n * width..][..width],
            sides,
            out,
        );
    }

    /// Reads a tensor that fastllm exported: version, type, axis, scales, quants.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] when it is cut off or of another type.
    pub fn read_fastllm(name: &str, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self> {
        let mut left = bytes;
        let mut word = || -> Result<[u8; 4]> {
            let short = || Error::format(name, "ends within its header or scales");
            let (word, rest) = left.split_first_chunk::<4>().ok_or_else(short)?;
            left = rest;
            Ok(*word)
        };
        let version = i32::from_le_bytes(word()?);
        let number = i32::from_le_bytes(word()?);
        let format = match number {
            3 => IntFormat::Int8,
            4 => IntFormat::Int4,
            8 => IntFormat::Int4NoZero,
            9 => IntFormat::Int4Group(0),
            1008 => IntFormat::Int4Group32,
            _ => {
                return Err(Error::Unsupported {
                    what: format!("{name}: fastllm's type {number}"),
                    supported:
                        "3 (int8), 4 (int4), 8 (int4 nozero), 9 (int4 group), 1008 (int4 group 32)"
                            .into(),
                });
            }
        };
        if version != 1 {
            return Err(Error::format(
                name,
                format_args!("version {version}, expected 1"),
            ));
        }
        if format == IntFormat::Int4Group32 {
            return IntWeight::from_fastllm(name, format, rows, cols, left, &[]);
        }
        let axis = i32::from_le_bytes(word()?);
        if axis != 0 {
            let what = format_args!("scales along axis {axis}, expected 0, the rows");
            return Err(Error::format(name, what));
        }
        let mut format = format;
        let mut groups = 1;
        if let IntFormat::Int4Group(_) = format {
            let (count, len) = (i32::from_le_bytes(word()?), i32::from_le_bytes(word()?));
            let fits = |len: &usize| *len > 0 && usize::try_from(count) == Ok(cols.div_ceil(*len));
            let Some(len) = usize::try_from(len).ok().filter(fits) else {
                let what = format_args!("{count} groups of {len} in rows of {cols} elements");
                return Err(Error::format(name, what));
            };
            (format, groups) = (IntFormat::Int4Group(len), cols.div_ceil(len));
        }
        // Four bytes at least are left for each number that is read: no huge count is believed.
        let mut sides = Vec::new();
        for _ in 0..rows.saturating_mul(groups) {
            let pair = [f32::from_le_bytes(word()?), f32::from_le_bytes(word()?)];
            sides.push(match format {
                IntFormat::Int8 | IntFormat::Int4 => from_range(pair, format.bits()),
                _ => pair,
            });
        }
        IntWeight::from_fastllm(name, format, rows, cols, left, &sides)
    }
}

/// Min and scale of a zero-point format.
pub fn from_zero(scale: f32, zero: u8) -> [f32; 2] {
    [-scale * f32::from(zero), scale]
}

/// Min and scale of a zero-point format whose file names the smallest and largest value: the range
/// is made to hold 0, which gets a whole number.
///
/// Source: fastllm, `LowBitConfig`.
pub fn from_range([min, max]: [f32; 2], bits: usize) -> [f32; 2] {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let most = ((1u32 << bits) - 1) as f32;
    let scale = (max - min) / most;
    if scale == 0.0 {
        return [0.0, 0.0];
    }
    from_zero(scale, (-min / scale).round().clamp(0.0, most) as u8)
}

/// Decodes a row's quants in the devices' order.
pub fn decode(bits: usize, group: usize, quants: &[u8], sides: &[[f32; 2]], out: &mut [f32]) {
    for (out, (g, [min, scale])) in out.chunks_mut(group).zip(sides.iter().enumerate()) {
        let first = g * group;
        if bits == 8 {
            for (y, q) in out.iter_mut().zip(&quants[first..]) {
                *y = min + scale * f32::from(*q);
            }
            continue;
        }
        for (eight, word) in out.chunks_mut(8).zip(quants[first / 2..].chunks_exact(4)) {
            for (e, y) in eight.iter_mut().enumerate() {
                *y = min + scale * f32::from(word[e % 4] >> (e / 4 * 4) & 15);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(weight: &IntWeight) -> Vec<f32> {
        let mut out = vec![0.0; weight.rows * weight.cols];
        for (n, row) in out.chunks_mut(weight.cols).enumerate() {
            weight.decode_row(n, row);
        }
        out
    }

    #[test]
    fn the_high_half_of_a_byte_is_the_even_element() {
        let bytes = [0x12, 0x34, 0x56, 0x78, 0x9A];
        let sides = [[-1.0, 0.5]];
        let weight = IntWeight::from_fastllm("w", IntFormat::Int4NoZero, 1, 10, &bytes, &sides);
        let want: Vec<f32> = (1..=10).map(|q| -1.0 + 0.5 * q as f32).collect();
        assert_eq!(values(&weight.unwrap()), want);
    }

    #[test]
    fn formats_that_mean_the_same_decode_to_the_same() {
        let (rows, cols) = (3, 256);
        let bytes: Vec<u8> = (0..rows * cols / 2).map(|i| (i * 37 % 251) as u8).collect();
        let scale = |n: usize| 0.25 + n as f32;
        // A zero point of 8 in every format.
        let sides: Vec<_> = (0..rows).map(|n| from_zero(scale(n), 8)).collect();
        let read = |format, bytes: &[u8], sides: &[[f32; 2]]| {
            values(&IntWeight::from_fastllm("w", format, rows, cols, bytes, sides).unwrap())
        };
        let want = read(IntFormat::Int4, &bytes, &sides);
        let groups: Vec<_> = sides.iter().flat_map(|s| [*s; 2]).collect();
        assert_eq!(read(IntFormat::Int4Group(128), &bytes, &groups), want);

        let side = |n: usize| {
            sides[n]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let rows_of = || bytes.chunks(cols / 2).enumerate();
        let inline: Vec<u8> = rows_of()
            .flat_map(|(n, r)| [r, &side(n)[..]].concat())
            .collect();
        assert_eq!(read(IntFormat::Int4PerChannel, &inline, &[]), want);
        let blocks: Vec<u8> = rows_of()
            .flat_map(|(n, r)| {
                r.chunks(64)
                    .flat_map(move |b| b.to_vec())
                    .collect::<Vec<u8>>()
                    .chunks(64)
                    .flat_map(|b| [b, &side(n)[..]].concat())
                    .collect::<Vec<u8>>()
            })
            .collect();
        assert_eq!(read(IntFormat::Int4Group128, &blocks, &[]), want);
        let symmetric: Vec<u8> = rows_of()
            .flat_map(|(n, r)| {
                let scales = bf16::from_f32(scale(n)).to_le_bytes().repeat(4);
                r.chunks(64)
                    .flat_map(|b| [b, &scales[..]].concat())
                    .collect::<Vec<u8>>()
            })
            .collect();
        assert_eq!(read(IntFormat::Int4Group32, &symmetric, &[]), want);
    }

    #[test]
    fn a_last_block_of_group_32_may_be_short() {
        let mut row = vec![0x9Au8; 5 * 16];
        // Four groups and their scales, one group and its scale.
        let scale = |s: f32| bf16::from_f32(s).to_le_bytes();
        let scales: Vec<u8> = [1.0, 2.0, 3.0, 4.0].into_iter().flat_map(scale).collect();
        row.splice(64..64, scales);
        row.extend(scale(0.5));
        let weight =
            IntWeight::from_fastllm("w", IntFormat::Int4Group32, 1, 160, &row, &[]).unwrap();
        let values = values(&weight);
        assert_eq!(values[..2], [1.0, 2.0]);
        assert_eq!(values[96..98], [4.0, 8.0]);
        assert_eq!(values[128..130], [0.5, 1.0]);
    }

    #[test]
    fn an_exported_tensor_is_read_and_a_cut_one_refused() {
        let mut bytes: Vec<u8> = [1i32, 4, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        // One row from -1 to 2 in 16 steps: scale 0.2, zero point 5.
        bytes.extend([-1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend([0x05, 0xF6]);
        let weight = IntWeight::read_fastllm("w", 1, 4, &bytes).unwrap();
        let got = values(&weight);
        for (got, want) in got.iter().zip([-1.0, 0.0, 2.0, 0.2]) {
            assert!((got - want).abs() < 1e-6, "{got} for {want}");
        }
        for cut in 0..bytes.len() {
            assert!(
                IntWeight::read_fastllm("w", 1, 4, &bytes[..cut]).is_err(),
                "{cut} bytes"
            );
        }
        let huge = IntWeight::read_fastllm("w", usize::MAX, 4, &bytes);
        assert!(huge.is_err());
    }
}
