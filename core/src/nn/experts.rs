//! The experts of a mixture of experts: each token goes through those that were chosen for it.

use std::ops::Range;
use std::rc::Rc;

use super::Linear;
use crate::expert_cache::Pages;
use crate::kernels::gated_mlp::{self, First};
use crate::kernels::{
    Activation, Order, Pairs, Size, expert_combine, expert_order, matmul, matvec,
};
use crate::recording::{Paged, Recording};
use crate::tensor::Tensor;
use crate::weights::{Slice, Weight};
use crate::{DType, Error, Result};

/// Up to this many pairs of a token and an expert each pair reads its expert's rows; above, pairs are
/// sorted by expert first and tiles reuse what they read.
const FEW_PAIRS: usize = 32;

/// Feed-forward blocks of the same shape, of which each token uses some: `down(act(gate x) * up x)`, or
/// without gates `down(act(up x))`.
///
/// A rank may hold some of the experts, or of each a part: rows of gate and up, columns of down. Its
/// results are then to be summed over ranks, and the biases of down belong to one of them.
pub struct Experts {
    matrices: Matrices,
    activation: Activation,
    limit: Option<f32>,
    count: usize,
    held: Range<usize>,
}

/// Where the matrices are.
enum Matrices {
    /// All in device memory.
    Here(Box<Resident>),
    /// In files, until they are needed.
    Paged(Pages),
}

/// Matrices in device memory: of the experts held, or of the slots of a cache.
#[derive(Clone)]
struct Resident {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl Experts {
    /// The experts `held` of `count`: weights of gate and up `(held F, C)` and down `(held O, F)`, one
    /// expert below the other in slices of whole experts, with biases as long as their rows, or none.
    /// Without `gate` the blocks are plain.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit or a slice cuts an expert.
    pub fn new(
        count: usize,
        held: Range<usize>,
        gate: Option<Linear>,
        [up, down]: [Linear; 2],
        activation: Activation,
    ) -> Result<Self> {
        let invalid = |what: String| Err(Error::Invalid(format!("experts: {what}")));
        let own = held.len();
        if own == 0 || held.end > count {
            return invalid(format!("{held:?} held of {count}"));
        }
        for (name, linear) in [
            ("gate", gate.as_ref()),
            ("up", Some(&up)),
            ("down", Some(&down)),
        ] {
            let Some(weight) = linear.map(|l| &l.weight) else {
                continue;
            };
            let unit = weight.rows / own;
            let whole = |s: &Slice| s.first.is_multiple_of(unit) && s.rows.is_multiple_of(unit);
            if !weight.rows.is_multiple_of(own) || !weight.slices.iter().all(whole) {
                return invalid(format!(
                    "{name} has {} rows in {} slices, expected whole experts of {own}",
                    weight.rows,
                    weight.slices.len()
                ));
            }
        }
        if let Some(gate) = &gate
            && ((gate.outputs(), gate.inputs()) != (up.outputs(), up.inputs())
                || gate.bias.is_some() != up.bias.is_some())
        {
            return invalid(format!(
                "gate ({}, {}) and up ({}, {}) differ, or one has a bias",
                gate.outputs(),
                gate.inputs(),
                up.outputs(),
                up.inputs()
            ));
        }
        if down.inputs() * own != up.outputs() {
            return invalid(format!(
                "up gives {} channels, down takes {}",
                up.outputs() / own,
                down.inputs()
            ));
        }
        Ok(Experts {
            matrices: Matrices::Here(Box::new(Resident { gate, up, down })),
            activation,
            limit: None,
            count,
            held,
        })
    }

    /// Experts that are in files and are brought into an [`ExpertCache`](crate::expert_cache::ExpertCache) when tokens need
    /// them.
    pub(super) fn paged(pages: Pages, activation: Activation) -> Self {
        Experts {
            count: pages.stored().count,
            held: pages.stored().held.clone(),
            matrices: Matrices::Paged(pages),
            activation,
            limit: None,
        }
    }

    /// Length of the inputs, and of an expert's outputs; has it gates?
    fn shape(&self) -> (usize, usize, bool) {
        match &self.matrices {
            Matrices::Here(m) => {
                let outputs = m.down.outputs() / self.held.len();
                (m.up.inputs(), outputs, m.gate.is_some())
            }
            Matrices::Paged(pages) => match pages.shapes()[..] {
                [_, [_, inputs], [outputs, _]] => (inputs, outputs, true),
                [[_, inputs], [outputs, _]] => (inputs, outputs, false),
                _ => (0, 0, false),
            },
        }
    }

    /// The same with gpt-oss' unit `(clamp(up, -limit, limit) + 1) act(min(gate, limit))`, where act is
    /// [`Activation::QuickGelu`] and the limit 7 (transformers, `GptOssExperts`).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] without gates or for a limit that is not above 0.
    pub fn with_limit(mut self, limit: f32) -> Result<Self> {
        if !(self.shape().2 && limit > 0.0 && limit.is_finite()) {
            return Err(Error::Invalid(format!(
                "experts: limit {limit}; it must be above 0, and there must be gates"
            )));
        }
        self.limit = Some(limit);
        Ok(self)
    }

    /// How many experts there are, on all ranks.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Those that are here.
    pub fn held(&self) -> &Range<usize> {
        &self.held
    }

    /// O, the length of an output.
    pub fn outputs(&self) -> usize {
        self.shape().1
    }
}

/// The experts of a slice of rows `rows`, `unit` an expert, of those that are held.
fn pairs(
    (held, experts): (&Range<usize>, usize),
    rows: Range<usize>,
    unit: usize,
    share: usize,
    order: Option<Order>,
) -> Pairs {
    Pairs {
        first: held.start + rows.start / unit,
        count: rows.len() / unit,
        experts,
        share,
        order,
    }
}

/// Pairs of tokens and experts as kernels find them.
struct Routed {
    pairs: usize,
    order: Option<Order>,
    /// The order, or the experts.
    words: Tensor,
}

impl Recording {
    /// What each token's experts make of it: `x` `(T, C)` and experts `(T, k)` u32 to `(T k, O)`, pair by
    /// pair. Pairs of experts that are not held give rows that nobody may read;
    /// [`Recording::combine`] leaves them out.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn experts(&mut self, x: &Tensor, ids: &Tensor, experts: &Experts) -> Result<Tensor> {
        let (inputs, ..) = experts.shape();
        if x.cols() != inputs || x.rows() != ids.rows() || ids.dtype != DType::U32 {
            return Err(Error::Invalid(format!(
                "experts: x {:?} and {} ids {:?}, expected {inputs} channels and u32 ids of each token",
                x.shape, ids.dtype, ids.shape
            )));
        }
        let pages = match &experts.matrices {
            Matrices::Here(matrices) => {
                let all = (&experts.held, experts.count);
                return self.experts_of(x, ids, experts, matrices, all);
            }
            Matrices::Paged(pages) => pages,
        };
        let (weights, slots) = pages.weights()?;
        let linear = |(weight, bias)| Linear::with_bias(weight, bias);
        let mut matrices: Vec<_> = weights.into_iter().map(linear).collect::<Result<_>>()?;
        let (Some(down), Some(up)) = (matrices.pop(), matrices.pop()) else {
            return Err(Error::Invalid("experts: too few matrices".into()));
        };
        let gate = matrices.pop();
        let slot_ids = pages.slot_ids(&ids.shape)?;
        self.begin_paged(Paged {
            by: Rc::new(pages.clone()),
            ids: ids.clone(),
        });
        let y = self.experts_of(
            x,
            &slot_ids,
            experts,
            &Resident { gate, up, down },
            (&(0..slots), slots),
        )?;
        self.end_paged();
        Ok(y)
    }

    /// The same with matrices of the ids `held` of `all.1`.
    fn experts_of(
        &mut self,
        x: &Tensor,
        ids: &Tensor,
        experts: &Experts,
        matrices: &Resident,
        all: (&Range<usize>, usize),
    ) -> Result<Tensor> {
        let routed = self.ordered(ids, all.0)?;
        let Resident { gate, up, down } = matrices;
        let h = match gate {
            Some(gate) => self.gated_experts(x, &routed, [gate, up], experts, all)?,
            None => {
                let z = self.expert_linear(x, &routed, up, all, ids.cols())?;
                self.activate(&z, experts.activation)?
            }
        };
        self.expert_linear(&h, &routed, down, all, 1)
    }

    /// The sum of what a token's experts gave, weighed: `out` `(T k, O)` of [`Recording::experts`] and
    /// `probs` `(T, k)` to `(T, O)`; pairs of experts that are not held count nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn combine(
        &mut self,
        out: &Tensor,
        probs: &Tensor,
        ids: &Tensor,
        residual: Option<&Tensor>,
        experts: &Experts,
    ) -> Result<Tensor> {
        self.combined([out, probs, ids], [residual, None, None], experts)
    }

    /// The same and what a shared expert gave, `(T, O)`, times `sigmoid(gate)` of `(T,)` if there is one
    /// (transformers, `Qwen2MoeSparseMoeBlock`).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn combine_shared(
        &mut self,
        routed: [&Tensor; 3],
        residual: Option<&Tensor>,
        shared: &Tensor,
        gate: Option<&Tensor>,
        experts: &Experts,
    ) -> Result<Tensor> {
        self.combined(routed, [residual, Some(shared), gate], experts)
    }

    fn combined(
        &mut self,
        [out, probs, ids]: [&Tensor; 3],
        [residual, shared, gate]: [Option<&Tensor>; 3],
        experts: &Experts,
    ) -> Result<Tensor> {
        let (tokens, k, channels) = (ids.rows(), ids.cols(), experts.outputs());
        let wrong = |t: Option<&Tensor>, len| t.is_some_and(|t| t.len() != len);
        if out.len() != tokens * k * channels
            || wrong(Some(probs), tokens * k)
            || wrong(residual, tokens * channels)
            || wrong(shared, tokens * channels)
            || wrong(gate, tokens)
        {
            return Err(Error::Invalid(format!(
                "experts: {:?} of {k} experts a token and probabilities {:?} cannot be combined to \
                 ({tokens}, {channels})",
                out.shape, probs.shape
            )));
        }
        let y = self.scratch(DType::F32, &[tokens, channels])?;
        let size = [tokens, channels, k];
        let params = expert_combine::params(size, experts.held.start, experts.held.len())
            .switch("RESIDUAL", residual.is_some())
            .switch("SHARED", shared.is_some())
            .switch("GATE", gate.is_some());
        let given = [Some(out), Some(probs), Some(ids), residual, shared, gate];
        let given = given.into_iter().map(|t| t.cloned());
        let bindings = given.chain([Some(y.clone())]).collect();
        self.push(&expert_combine::KERNEL, params, bindings)?;
        Ok(y)
    }

    /// Each row of `x` `(T, K)` times the matrices of `count` in `linear` that `ids` `(T, k)` name for it: `(T k, N)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub(super) fn by_id(
        &mut self,
        x: &Tensor,
        ids: &Tensor,
        linear: &Linear,
        count: usize,
    ) -> Result<Tensor> {
        let share = ids.len() / x.rows().max(1);
        if share == 0 || x.rows() * share != ids.len() || x.cols() != linear.inputs() {
            return Err(Error::Invalid(format!(
                "matrices by id: x {:?} and ids {:?}, expected {} columns",
                x.shape,
                ids.shape,
                linear.inputs()
            )));
        }
        let all = 0..count;
        let routed = self.ordered(ids, &all)?;
        self.expert_linear(x, &routed, linear, (&all, count), share)
    }

    fn ordered(&mut self, ids: &Tensor, held: &Range<usize>) -> Result<Routed> {
        let pairs = ids.len();
        if pairs <= FEW_PAIRS || held.len() > expert_order::MOST {
            return Ok(Routed {
                pairs,
                order: None,
                words: ids.clone(),
            });
        }
        let order = Order::new(pairs, held.len());
        let words = self.scratch(DType::U32, &[order.words()])?;
        let params = expert_order::params(order, held.start, held.len());
        let bindings = vec![Some(ids.clone()), Some(words.clone())];
        self.push(&expert_order::KERNEL, params, bindings)?;
        Ok(Routed {
            pairs,
            order: Some(order),
            words,
        })
    }

    /// One layer of each pair's expert; `share` pairs have a row of `x`.
    fn expert_linear(
        &mut self,
        x: &Tensor,
        routed: &Routed,
        linear: &Linear,
        (held, count): (&Range<usize>, usize),
        share: usize,
    ) -> Result<Tensor> {
        let weight = &linear.weight;
        let unit = weight.rows / held.len();
        let y = self.scratch(DType::F32, &[routed.pairs, unit])?;
        let kernel = match routed.order {
            Some(_) => &matmul::KERNEL,
            None => &matvec::KERNEL,
        };
        for slice in &weight.slices {
            let size = Size {
                row0: slice.first,
                ..Size::new(routed.pairs, unit, weight.cols)
            };
            let rows = slice.first..slice.first + slice.rows;
            let pairs = pairs((held, count), rows, unit, share, routed.order);
            let dtype = slice.tensor.dtype;
            let params = matvec::params(size, dtype, linear.bias.is_some(), false);
            let bindings = vec![
                Some(x.clone()),
                Some(slice.tensor.clone()),
                linear.bias.clone(),
                None,
                Some(y.clone()),
                Some(routed.words.clone()),
                None,
            ];
            self.push(kernel, pairs.params(params), bindings)?;
        }
        Ok(y)
    }

    fn gated_experts(
        &mut self,
        x: &Tensor,
        routed: &Routed,
        [gate, up]: [&Linear; 2],
        experts: &Experts,
        all: (&Range<usize>, usize),
    ) -> Result<Tensor> {
        let (held, share) = (all.0.len(), routed.pairs / x.rows());
        let unit = up.outputs() / held;
        let y = self.scratch(DType::F32, &[routed.pairs, unit])?;
        // As many experts at a time as lie in one slice of either weight.
        let mut row = 0;
        while row < up.outputs() {
            let (gate_slice, up_slice) = (holding(&gate.weight, row)?, holding(&up.weight, row)?);
            let end = (gate_slice.first + gate_slice.rows).min(up_slice.first + up_slice.rows);
            let first = First {
                gate: row - gate_slice.first,
                up: row - up_slice.first,
                bias: up.bias.is_some().then_some((row, row)),
            };
            let size = Size::new(routed.pairs, unit, up.inputs());
            let dtypes = [gate_slice, up_slice].map(|s| s.tensor.dtype);
            let params = gated_mlp::params(size, first, dtypes[0], dtypes[1], experts.activation);
            let params = gated_mlp::clamped(params, experts.limit);
            let pairs = pairs(all, row..end, unit, share, routed.order);
            let bindings = vec![
                Some(x.clone()),
                Some(gate_slice.tensor.clone()),
                Some(up_slice.tensor.clone()),
                gate.bias.clone(),
                up.bias.clone(),
                Some(y.clone()),
                Some(routed.words.clone()),
                None,
            ];
            self.push(&gated_mlp::KERNEL, pairs.params(params), bindings)?;
            row = end;
        }
        Ok(y)
    }
}

/// The slice that holds a row.
fn holding(weight: &Weight, row: usize) -> Result<&Slice> {
    let holds = |s: &&Slice| s.first <= row && row < s.first + s.rows;
    let slice = weight.slices.iter().find(holds);
    slice.ok_or_else(|| {
        Error::Invalid(format!(
            "experts: no slice has row {row} of {}",
            weight.rows
        ))
    })
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::device::{Device, Purpose};
    use crate::kernels::case::random;
    use crate::nn::GatedMlp;
    use crate::weights::dequant::quantize;

    const CHANNELS: usize = 64;
    const HIDDEN: usize = 96;
    const EXPERTS: usize = 5;

    struct Test {
        device: CpuDevice,
        dtype: DType,
    }

    impl Test {
        fn tensor(&self, dtype: DType, shape: &[usize], bytes: &[u8]) -> Tensor {
            let buffer =
                block_on(self.device.alloc(bytes.len() as u64, Purpose::Weights, "t")).unwrap();
            self.device.write(&buffer, 0, bytes).unwrap();
            Tensor::of(buffer, dtype, shape)
        }

        fn floats(&self, shape: &[usize], values: &[f32]) -> Tensor {
            self.tensor(DType::F32, shape, bytemuck::cast_slice(values))
        }

        /// The same matrix and bias, `count` times, in slices of `most` copies.
        fn copies(&self, seed: u64, rows: usize, cols: usize, count: usize, most: usize) -> Linear {
            let bytes = quantize(self.dtype, &random(seed, rows * cols));
            let weights = (0..count).step_by(most).map(|first| {
                let n = most.min(count - first);
                let bytes = bytes.repeat(n);
                let shape = [n, rows, cols];
                let weight = Weight::of_experts(&self.device, "w", self.dtype, shape, &bytes);
                block_on(weight).unwrap()
            });
            let bias = random(seed + 10, rows).repeat(count);
            let bias = self.floats(&[count * rows], &bias);
            Linear::with_bias(Weight::stack(weights).unwrap(), Some(bias)).unwrap()
        }

        fn experts(&self, held: Range<usize>, most: [usize; 3]) -> Experts {
            let own = held.len();
            let gate = self.copies(1, HIDDEN, CHANNELS, own, most[0]);
            let up = self.copies(2, HIDDEN, CHANNELS, own, most[1]);
            let down = self.copies(3, CHANNELS, HIDDEN, own, most[2]);
            let silu = Activation::Silu;
            Experts::new(EXPERTS, held, Some(gate), [up, down], silu).unwrap()
        }

        fn read(&self, r: &mut Recording, y: &Tensor) -> Vec<f32> {
            r.keep(y);
            let prepared = block_on(self.device.prepare(r)).unwrap();
            self.device.run(&prepared).unwrap();
            let buffer = prepared.tensor(y).unwrap();
            let bytes = block_on(self.device.read(buffer, 0, 4 * y.len() as u64)).unwrap();
            bytemuck::allocation::pod_collect_to_vec(&bytes)
        }
    }

    fn nmse(got: &[f32], want: &[f32]) -> f64 {
        crate::ops::nmse(got, want)
    }

    #[test]
    fn identical_experts_are_the_dense_block_whatever_the_ids() {
        for dtype in [DType::F32, DType::Q8_0, DType::Q4_1] {
            let test = Test {
                device: CpuDevice::new(),
                dtype,
            };
            for (tokens, k) in [(1, 2), (7, 3), (50, 2)] {
                let x = test.floats(&[tokens, CHANNELS], &random(7, tokens * CHANNELS));
                let residual = random(8, tokens * CHANNELS);
                let residual = test.floats(&[tokens, CHANNELS], &residual);
                let one = |seed, rows, cols| test.copies(seed, rows, cols, 1, 1);
                let [gate, up] = [1, 2].map(|seed| one(seed, HIDDEN, CHANNELS));
                let down = one(3, CHANNELS, HIDDEN);
                let dense = GatedMlp::new(gate, up, down, Activation::Silu).unwrap();
                let mut r = Recording::new();
                let y = r.gated_mlp(&x, &dense).unwrap();
                let y = r.add(&y, &residual).unwrap();
                let want = test.read(&mut r, &y);

                let ids: Vec<u32> = (0..tokens * k).map(|i| (i * i % EXPERTS) as u32).collect();
                let ids = test.tensor(DType::U32, &[tokens, k], bytemuck::cast_slice(&ids));
                let probs = test.floats(&[tokens, k], &vec![1.0 / k as f32; tokens * k]);
                for most in [[5, 5, 5], [2, 3, 1]] {
                    let experts = test.experts(0..EXPERTS, most);
                    let mut r = Recording::new();
                    let out = r.experts(&x, &ids, &experts).unwrap();
                    let y = r.combine(&out, &probs, &ids, Some(&residual), &experts);
                    let got = test.read(&mut r, &y.unwrap());
                    let error = nmse(&got, &want);
                    assert!(
                        error < 1e-12,
                        "{dtype} {tokens} {k} {most:?}: NMSE {error:e}"
                    );
                }
                // Two ranks' experts, one after the other.
                let mut r = Recording::new();
                let mut sum = residual.clone();
                for held in [0..2, 2..EXPERTS] {
                    let experts = test.experts(held, [2, 1, 3]);
                    let out = r.experts(&x, &ids, &experts).unwrap();
                    sum = (r.combine(&out, &probs, &ids, Some(&sum), &experts)).unwrap();
                }
                let error = nmse(&test.read(&mut r, &sum), &want);
                assert!(
                    error < 1e-12,
                    "{dtype} {tokens} {k} by rank: NMSE {error:e}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_experts_is_refused() {
        let test = Test {
            device: CpuDevice::new(),
            dtype: DType::F32,
        };
        let silu = Activation::Silu;
        let up = |rows, most| test.copies(1, rows, 8, 4, most);
        let down = |cols| test.copies(1, 8, cols, 4, 4);
        assert!(Experts::new(4, 0..4, None, [up(6, 4), down(6)], silu).is_ok());
        // Five of four; three of 24 rows; another width; a gate of another shape.
        assert!(Experts::new(4, 0..5, None, [up(6, 4), down(6)], silu).is_err());
        assert!(Experts::new(4, 1..1, None, [up(6, 4), down(6)], silu).is_err());
        assert!(Experts::new(5, 0..5, None, [up(6, 4), down(6)], silu).is_err());
        assert!(Experts::new(4, 0..4, None, [up(6, 4), down(7)], silu).is_err());
        assert!(Experts::new(4, 0..4, Some(up(5, 4)), [up(6, 4), down(6)], silu).is_err());
        // Slices of one expert's rows are half an expert when there are two.
        assert!(Experts::new(2, 0..2, None, [up(6, 1), down(12)], silu).is_err());
        let plain = Experts::new(4, 0..4, None, [up(6, 4), down(6)], silu).unwrap();
        assert!(plain.with_limit(7.0).is_err());
    }
}
