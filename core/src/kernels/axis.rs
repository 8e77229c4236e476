//! Kernels that reduce one axis of a tensor, wherever it is.

use super::{Params, Variant, fold};
use crate::device::{DeviceKind, Limits};
use crate::{Error, Result};

/// One axis of a contiguous tensor `(outer, len, inner)`: its length, the product of the axes
/// before it and the product of those behind it. A *row* is what is left when the axis is fixed to
/// its elements; there are `outer * inner` of them, in the order of the other axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Product of the lengths before.
    pub outer: usize,
    /// Elements along the axis.
    pub len: usize,
    /// Product of the lengths behind: the distance of two neighbours along the axis.
    pub inner: usize,
}

impl Axis {
    /// The last axis of `(rows, len)`.
    pub fn last(rows: usize, len: usize) -> Self {
        Axis {
            outer: rows,
            len,
            inner: 1,
        }
    }

    /// Axis number `axis` of a tensor of this shape; a negative number counts from the end.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis, or a dimension is 0.
    pub fn of(shape: &[usize], axis: i64) -> Result<Self> {
        let place = resolve(shape, axis)?;
        if shape.contains(&0) {
            return Err(Error::Invalid(format!("shape {shape:?} has no elements")));
        }
        Ok(Axis {
            outer: shape[..place].iter().product(),
            len: shape[place],
            inner: shape[place + 1..].iter().product(),
        })
    }

    /// Number of rows.
    pub fn rows(self) -> usize {
        self.outer * self.inner
    }

    /// Number of elements of the tensor.
    pub fn elements(self) -> usize {
        self.rows() * self.len
    }

    /// Index of element `i` of row `row`.
    pub fn at(self, row: usize, i: usize) -> usize {
        (row / self.inner * self.len + i) * self.inner + row % self.inner
    }

    /// Sets `T` rows, `C` elements along the axis, `INNER`.
    pub(super) fn params(self) -> Params {
        Params::new()
            .u32("T", self.rows() as u32)
            .u32("C", self.len as u32)
            .u32("INNER", self.inner as u32)
    }

    /// What [`Axis::params`] has set.
    pub(super) fn from(p: &Params) -> Self {
        let inner = p.size("INNER");
        Axis {
            outer: p.size("T") / inner,
            len: p.size("C"),
            inner,
        }
    }
}

/// Axis number `axis` of a tensor of this shape as an index; a negative one counts from the end.
///
/// # Errors
///
/// [`Error::Invalid`] when there is no such axis.
pub fn resolve(shape: &[usize], axis: i64) -> Result<usize> {
    let rank = shape.len() as i64;
    let place = if axis < 0 { axis + rank } else { axis };
    if !(0..rank).contains(&place) {
        return Err(Error::Invalid(format!(
            "axis {axis} is not one of shape {shape:?}; use {} to {}",
            -rank,
            rank - 1
        )));
    }
    Ok(place as usize)
}

/// `workgroup`: one has a row (`T` of them); `serial`: an invocation has a row, no barrier. Best
/// first, see `shared/row.wgsl`.
pub(super) fn row_variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let rows = p.get("T");
    let software = limits.kind == DeviceKind::SoftwareGpu;
    let workgroup =
        Variant::new("workgroup", fold(rows, limits)).set("WG", limits.max_workgroup_size.min(256));
    let size = if software { 8 } else { 64 };
    let serial = Variant::new("serial", fold(rows.div_ceil(size), limits))
        .set("WG", size)
        .flag("SERIAL");
    // Neighbouring invocations of `serial` read neighbouring elements where the axis is not the
    // last one. One long row is better shared even where barriers cost.
    let strided = p.get("INNER") >= 32 && rows >= 4096;
    let short = p.get("C") <= 16 && rows >= 4096;
    if (software && rows >= 8) || strided || short {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_the_order_of_the_other_axes() {
        let axis = Axis::of(&[2, 3, 4], 1).unwrap();
        assert_eq!((axis.outer, axis.len, axis.inner), (2, 3, 4));
        assert_eq!(axis.rows(), 8);
        assert_eq!([axis.at(0, 0), axis.at(0, 2), axis.at(5, 1)], [0, 8, 17]);
        assert_eq!(Axis::of(&[2, 3, 4], -2).unwrap(), axis);
        assert_eq!(Axis::from(&axis.params()), axis);
    }

    #[test]
    fn an_axis_that_is_not_there_is_an_error() {
        let told = Axis::of(&[2, 3], 2).unwrap_err().to_string();
        assert_eq!(told, "axis 2 is not one of shape [2, 3]; use -2 to 1");
        assert!(Axis::of(&[2, 3], -3).is_err());
        assert!(Axis::of(&[], 0).is_err());
        assert!(Axis::of(&[2, 0], 0).is_err());
    }
}
