//! Matrices that files have as inputs by outputs (GPT-2's `Conv1D`), read as outputs by inputs.

use std::cell::RefCell;
use std::rc::Rc;

use super::source::{LocalFuture, check_range};
use super::{TensorInfo, WeightSource, shown};
use crate::Result;

/// Behind names of such tensors.
const SUFFIX: &str = ".transposed";

/// The one that was read last, by its source's name.
pub(super) type Last = Rc<RefCell<Option<(String, Vec<u8>)>>>;

/// One of them. All of it is read at once, and kept until another one is read.
struct Transposed {
    name: String,
    file: Rc<dyn WeightSource>,
    offset: u64,
    /// Of the file.
    rows: usize,
    cols: usize,
    element: usize,
    last: Last,
}

/// A tensor whose name says so as one of the other shape, with a source of its own; another one as it is. What cannot be
/// turned keeps its name, and is missed later.
pub(super) fn turn(
    tensor: TensorInfo,
    sources: &mut Vec<Rc<dyn WeightSource>>,
    last: &Last,
) -> TensorInfo {
    let (Some(name), [rows, cols], 1) = (
        tensor.name.strip_suffix(SUFFIX),
        &tensor.shape[..],
        tensor.dtype.block_len(),
    ) else {
        return tensor;
    };
    let file = Rc::clone(&sources[tensor.file]);
    let source = Transposed {
        name: format!("{}: {}", file.name(), shown(&tensor.name)),
        file,
        offset: tensor.offset,
        rows: *rows,
        cols: *cols,
        element: tensor.dtype.block_bytes(),
        last: Rc::clone(last),
    };
    sources.push(Rc::new(source));
    TensorInfo {
        name: format!("{name}.weight"),
        dtype: tensor.dtype,
        shape: vec![*cols, *rows],
        offset: 0,
        bytes: tensor.bytes,
        file: sources.len() - 1,
    }
}

impl WeightSource for Transposed {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        (self.rows * self.cols * self.element) as u64
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            check_range(&self.name, offset, out.len() as u64, self.len())?;
            let known = (self.last.borrow().as_ref()).is_some_and(|(name, _)| *name == self.name);
            if !known {
                let mut bytes = vec![0; self.len() as usize];
                self.file.read(self.offset, &mut bytes).await?;
                let turned = turned(&bytes, self.cols, self.element);
                self.last.replace(Some((self.name.clone(), turned)));
            }
            if let Some((_, bytes)) = &*self.last.borrow() {
                out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
            }
            Ok(())
        })
    }
}

/// Elements of `size` bytes of a matrix of `cols` columns, column by column.
fn turned(bytes: &[u8], cols: usize, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for col in 0..cols {
        for row in bytes.chunks_exact(cols * size) {
            out.extend_from_slice(&row[col * size..][..size]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::weights::BytesSource;

    fn info(name: &str, shape: &[usize]) -> TensorInfo {
        TensorInfo {
            name: name.into(),
            dtype: DType::F16,
            shape: shape.to_vec(),
            offset: 2,
            bytes: 2 * shape.iter().product::<usize>() as u64,
            file: 0,
        }
    }

    #[test]
    fn a_matrix_is_read_by_its_columns_and_in_parts() {
        // Two bytes of something else, then 2 rows of 3.
        let bytes: Vec<u8> = [9, 9, 0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15].into();
        let mut sources: Vec<Rc<dyn WeightSource>> =
            vec![Rc::new(BytesSource::new("m.safetensors", bytes))];
        let turned = turn(
            info("blk.0.ffn_up.transposed", &[2, 3]),
            &mut sources,
            &Last::default(),
        );
        assert_eq!(
            (turned.name.as_str(), &turned.shape[..]),
            ("blk.0.ffn_up.weight", &[3, 2][..])
        );
        let source = &sources[turned.file];
        let read = |offset, len| {
            let mut out = vec![0; len];
            pollster::block_on(source.read(offset, &mut out)).map(|()| out)
        };
        assert_eq!(
            read(0, 12).unwrap(),
            [0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15]
        );
        assert_eq!(read(4, 4).unwrap(), [2, 3, 12, 13]);
        assert!(read(8, 5).is_err());
    }

    #[test]
    fn others_stay_as_they_are() {
        let mut sources: Vec<Rc<dyn WeightSource>> = Vec::new();
        for (name, shape) in [
            ("blk.0.ffn_up.weight", &[2, 3][..]),
            ("x.transposed", &[2, 3, 4]),
        ] {
            let kept = turn(info(name, shape), &mut sources, &Last::default());
            assert_eq!((kept.name.as_str(), &kept.shape[..]), (name, shape));
        }
        assert!(sources.is_empty());
    }
}
