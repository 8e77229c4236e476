//! Recorded results: files whose metadata names an operator (`kind`) and its settings, and whose
//! tensors are inputs and what another program made of them.

use std::collections::BTreeSet;

use super::call::names;
use super::{Array, Op, TensorFile, find, run};
use crate::device::Device;
use crate::{Error, Result};

/// One output beside its recorded values.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The operator that gave it.
    pub op: &'static str,
    /// Its name.
    pub tensor: String,
    /// `sum((got - want)^2) / sum(want^2)`; for integers 0 when all are equal, else 1.
    pub nmse: f64,
    /// The operator's bound.
    pub bound: f64,
}

impl Compared {
    /// Is it within the bound?
    pub fn passes(&self) -> bool {
        self.nmse <= self.bound
    }
}

/// Runs the operator that `file` names, and its gradient if there are recorded ones, and compares
/// every tensor that is not an input. `name` is the file's, for errors.
///
/// # Errors
///
/// [`Error::Format`] when the metadata names no operator, or a tensor is neither taken nor given;
/// those of [`run`].
pub async fn check(device: &dyn Device, name: &str, file: &TensorFile) -> Result<Vec<Compared>> {
    let mut settings = file.metadata.clone();
    let kind = settings.remove("kind").ok_or_else(|| {
        Error::format(
            name,
            "its metadata has no key \"kind\", the operator's name",
        )
    })?;
    let op = find(&kind)?;
    let mut left: BTreeSet<&str> = file.tensors.keys().map(String::as_str).collect();
    for input in op.inputs {
        left.remove(input.name);
    }
    let mut compared = Vec::new();
    let backward = format!("{}_backward", op.name);
    let ops = [Some(op), find(&backward).ok()];
    for op in ops.into_iter().flatten() {
        let wanted: Vec<&str> = op.outputs.iter().map(|o| o.name).collect();
        if !wanted.iter().any(|w| left.contains(w)) {
            continue;
        }
        let given = names(op.inputs).into_iter().filter_map(|n| {
            left.remove(n);
            let array = file.tensors.get(n)?;
            Some((n.to_owned(), array.clone()))
        });
        let ran = run(device, op, given.collect(), &settings).await?;
        for (output, got) in ran.outputs {
            if left.remove(output) {
                compared.push(compare(name, op, output, &got, &file.tensors[output])?);
            }
        }
    }
    if let Some(tensor) = left.first() {
        return Err(Error::format(
            name,
            format_args!("{} neither takes nor gives a tensor {tensor:?}", op.name),
        ));
    }
    if compared.is_empty() {
        return Err(Error::format(
            name,
            format_args!("holds no result of {} to compare with", op.name),
        ));
    }
    Ok(compared)
}

fn compare(name: &str, op: &Op, output: &str, got: &Array, want: &Array) -> Result<Compared> {
    if got.len() != want.len() {
        return Err(Error::format(
            name,
            format_args!(
                "{}: {output} has shape {:?}, recorded {:?}",
                op.name, got.shape, want.shape
            ),
        ));
    }
    let nmse = match (got.to_i64(), want.to_i64()) {
        (Some(got), Some(want)) => f64::from(u8::from(got != want)),
        _ => nmse(&got.to_f32(), &want.to_f32()),
    };
    Ok(Compared {
        op: op.name,
        tensor: output.to_owned(),
        nmse,
        bound: op.bound,
    })
}

/// `sum((got - want)^2) / sum(want^2)`; equal infinities and pairs of NaN count as equal.
pub fn nmse(got: &[f32], want: &[f32]) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for (&got, &want) in got.iter().zip(want) {
        let (got, want) = (f64::from(got), f64::from(want));
        if want.is_finite() {
            norm += want * want;
        }
        if got == want || (got.is_nan() && want.is_nan()) {
            continue;
        }
        let difference = got - want;
        error += match difference.is_finite() {
            true => difference * difference,
            false => f64::INFINITY,
        };
    }
    match (error, norm) {
        (0.0, _) => 0.0,
        (error, 0.0) => error,
        (error, norm) => error / norm,
    }
}
