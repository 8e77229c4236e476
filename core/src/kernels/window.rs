//! Sliding windows over one to three spatial dimensions, as [`conv`](super::conv) and
//! [`max_pool`](super::max_pool) use them.

use super::Params;

/// Kernel size, stride, dilation and zero padding of a sliding window: depth, height, width.
/// Fewer dimensions have leading ones (and padding 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Elements of the window.
    pub kernel: [usize; 3],
    /// From one window to the next.
    pub stride: [usize; 3],
    /// From one of its elements to the next.
    pub dilation: [usize; 3],
    /// Elements outside, before the first.
    pub begin: [usize; 3],
    /// Elements outside, after the last.
    pub end: [usize; 3],
}

/// Names of the constants, by dimension.
const KERNEL: [&str; 3] = ["KD", "KH", "KW"];
const STRIDE: [&str; 3] = ["SD", "SH", "SW"];
const DILATION: [&str; 3] = ["DD", "DH", "DW"];
const BEGIN: [&str; 3] = ["PD", "PH", "PW"];
const INPUT: [&str; 3] = ["ID", "IH", "IW"];
const OUTPUT: [&str; 3] = ["OD", "OH", "OW"];

impl Window {
    /// A window of these sizes, stride and dilation 1, no padding.
    pub fn new(kernel: [usize; 3]) -> Self {
        Window {
            kernel,
            stride: [1; 3],
            dilation: [1; 3],
            begin: [0; 3],
            end: [0; 3],
        }
    }

    /// The same with other strides.
    pub fn stride(self, stride: [usize; 3]) -> Self {
        Window { stride, ..self }
    }

    /// The same with other dilations.
    pub fn dilation(self, dilation: [usize; 3]) -> Self {
        Window { dilation, ..self }
    }

    /// The same with this padding on both sides.
    pub fn pad(self, pad: [usize; 3]) -> Self {
        Window {
            begin: pad,
            end: pad,
            ..self
        }
    }

    /// The same with the least padding that gives `ceil(input / stride)` windows; `lower`: an odd
    /// padding has its last element before the input.
    ///
    /// Source: ONNX, `Conv`, `auto_pad`.
    pub fn same(self, input: [usize; 3], lower: bool) -> Self {
        let mut window = self;
        for (d, len) in input.into_iter().enumerate() {
            let last = (len.div_ceil(self.stride[d]).max(1) - 1) * self.stride[d];
            let pad = last.saturating_add(self.span(d)).saturating_sub(len);
            let (less, more) = (pad / 2, pad.div_ceil(2));
            (window.begin[d], window.end[d]) = if lower { (more, less) } else { (less, more) };
        }
        window
    }

    /// Input elements from the first to the last of a window, in dimension `d`.
    pub fn span(&self, d: usize) -> usize {
        let steps = self.kernel[d].saturating_sub(1);
        self.dilation[d].saturating_mul(steps).saturating_add(1)
    }

    /// Windows in each dimension; `None` when a size, stride or dilation is 0, or the padded input
    /// is smaller than one window or too large for 32-bit places.
    ///
    /// `ceil`: a last window may reach beyond the padded input, if it begins inside the input or
    /// the padding before it (the rule of PyTorch and ONNX).
    pub fn output(&self, input: [usize; 3], ceil: bool) -> Option<[usize; 3]> {
        const LARGEST: u64 = 1 << 31;
        let mut output = [0; 3];
        for d in 0..3 {
            let sizes = [
                self.kernel[d],
                self.stride[d],
                self.dilation[d],
                input[d],
                self.begin[d],
            ];
            let [kernel, stride, dilation, len, begin] = sizes.map(|size| size as u64);
            if kernel == 0 || stride == 0 || dilation == 0 {
                return None;
            }
            let padded = len.checked_add(begin)?.checked_add(self.end[d] as u64)?;
            let span = dilation.checked_mul(kernel - 1)?.checked_add(1)?;
            if padded > LARGEST || stride > LARGEST {
                return None;
            }
            let free = padded.checked_sub(span)?;
            let mut windows = free / stride + 1;
            if ceil && free % stride != 0 && windows * stride < len + begin {
                windows += 1;
            }
            output[d] = usize::try_from(windows).ok()?;
        }
        Some(output)
    }

    /// Sets what the shaders need to know.
    pub(super) fn params(&self, p: Params, input: [usize; 3], output: [usize; 3]) -> Params {
        let sets = [
            (KERNEL, self.kernel),
            (STRIDE, self.stride),
            (DILATION, self.dilation),
            (BEGIN, self.begin),
            (INPUT, input),
            (OUTPUT, output),
        ];
        let named =
            |(names, values): ([&'static str; 3], [usize; 3])| names.into_iter().zip(values);
        let all = sets.into_iter().flat_map(named);
        all.fold(p, |p, (name, value)| p.u32(name, value as u32))
    }

    /// Window, input and output sizes of a call.
    pub(super) fn of(p: &Params) -> (Self, [usize; 3], [usize; 3]) {
        let get = |names: [&str; 3]| names.map(|name| p.size(name));
        let window = Window {
            kernel: get(KERNEL),
            stride: get(STRIDE),
            dilation: get(DILATION),
            begin: get(BEGIN),
            end: [0; 3],
        };
        (window, get(INPUT), get(OUTPUT))
    }

    /// Where element `k` of window `o` lies in an input of `len`, in dimension `d`; `None` in the
    /// padding.
    pub(super) fn at(&self, d: usize, o: usize, k: usize, len: usize) -> Option<usize> {
        let at = (o * self.stride[d] + k * self.dilation[d]).checked_sub(self.begin[d])?;
        (at < len).then_some(at)
    }

    /// The windows `o` below `outputs` whose element `k` lies inside an input of `len`.
    pub(super) fn inside(&self, d: usize, k: usize, len: usize, outputs: usize) -> (usize, usize) {
        let (shift, stride) = (k * self.dilation[d], self.stride[d]);
        let first = self.begin[d].saturating_sub(shift).div_ceil(stride);
        let end = (len + self.begin[d]).saturating_sub(shift).div_ceil(stride);
        (first.min(outputs), end.min(outputs))
    }
}

/// Every element (d, h, w) of a box of these sizes, the last dimension fastest.
pub(super) fn places(sizes: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [depth, height, width] = sizes;
    (0..depth * height * width).map(move |i| [i / (height * width), i / width % height, i % width])
}

/// The flat index of a place in a box.
pub(super) fn flat(place: [usize; 3], sizes: [usize; 3]) -> usize {
    (place[0] * sizes[1] + place[1]) * sizes[2] + place[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted_as_pytorch_counts_them() {
        let window = Window::new([1, 1, 3]).stride([1, 1, 2]);
        assert_eq!(window.output([1, 1, 7], false), Some([1, 1, 3]));
        assert_eq!(window.output([1, 1, 8], false), Some([1, 1, 3]));
        assert_eq!(window.output([1, 1, 8], true), Some([1, 1, 4]));
        assert_eq!(window.output([1, 1, 2], false), None);
        assert_eq!(
            window.pad([0, 0, 1]).output([1, 1, 2], false),
            Some([1, 1, 1])
        );
        // A window that would begin behind the input is not counted.
        let one = Window::new([1, 1, 1]).stride([1, 1, 2]);
        assert_eq!(one.output([1, 1, 2], true), Some([1, 1, 1]));
        for hostile in [
            Window::new([1, 1, 0]),
            one.stride([1, 0, 1]),
            one.dilation([0, 1, 1]),
            one.pad([0, 0, usize::MAX]),
            Window::new([1, 1, 3]).dilation([1, 1, usize::MAX]),
        ] {
            assert_eq!(hostile.output([1, 1, 2], true), None, "{hostile:?}");
        }
    }

    #[test]
    fn inside_is_where_at_finds_an_element() {
        let window = Window::new([1, 1, 4])
            .stride([1, 1, 3])
            .dilation([1, 1, 2])
            .pad([0, 0, 5]);
        for k in 0..4 {
            let (first, end) = window.inside(2, k, 7, 4);
            for o in 0..4 {
                let inside = window.at(2, o, k, 7).is_some();
                assert_eq!(inside, (first..end).contains(&o), "window {o}, element {k}");
            }
        }
    }
}
