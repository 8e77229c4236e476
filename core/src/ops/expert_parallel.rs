//! Experts that are spread over ranks, all of them on this device, with the collectives that they have in a model.

use std::ops::Range;
use std::rc::Rc;

use super::activation::{NAMES, chosen};
use super::moe::plain;
use super::parallel::WORLD_SIZE;
use super::{Array, Call, Input, Op, Output, Setting};
use crate::comm::{Mesh, Placement};
use crate::nn::{Experts, Linear};
use crate::recording::Recording;
use crate::shard::Split;
use crate::weights::Weight;
use crate::{DType, Result};

pub static OPS: &[Op] = &[EXPERT_PARALLEL];

const EXPERT_PARALLEL: Op = Op {
    name: "expert_parallel",
    kinds: &[],
    systems: &["expert parallelism"],
    summary: "moe_experts over world_size ranks: each sends its tokens to the ranks that hold their experts, and sums what \
              comes back (arXiv:2006.16668, section 3.2)",
    inputs: &[
        Input::new("x", "T C", "each rank has its part of the tokens"),
        Input::new(
            "experts",
            "T k",
            "of each token; others than 0 to E - 1 are left out",
        ),
        Input::new("probs", "T k", "weights of the sum"),
        Input::optional("gate.weight", "E F C", "left out: plain blocks"),
        Input::new("up.weight", "E F C", ""),
        Input::new("down.weight", "E O F", ""),
    ],
    settings: &[
        WORLD_SIZE,
        Setting::int(
            "expert_parallel",
            2,
            "groups of ranks with experts of their own, which a group's ranks split along F",
        ),
        Setting::choice("activation", "silu", NAMES, "of the gate, or of up"),
    ],
    outputs: &[
        Output::new("y", "T O", ""),
        Output::new("sent", "R R", "tokens that each rank sent to each"),
    ],
    bound: 1e-11,
    record: |c| {
        Box::pin(async move {
            let (x, ids) = (c.tensor("x").await?, c.index("experts").await?);
            let (probs, tokens) = (c.tensor("probs").await?, c.axis("T"));
            let placements = placements(c, tokens)?;
            let (mut ranks, mut found) = (Vec::new(), Vec::new());
            for placement in placements {
                let (count, hidden) = (c.axis("E"), c.axis("F"));
                let share = placement.experts("experts", count, hidden, 1);
                let share = share.map_err(|e| c.error(e))?;
                let (held, part) = (share.experts, share.hidden);
                let gate = match c.has("gate.weight") {
                    true => Some(layer(c, "gate.weight", &held, Some(&part), None).await?),
                    false => None,
                };
                let up = layer(c, "up.weight", &held, Some(&part), None).await?;
                let down = layer(c, "down.weight", &held, None, Some(&part)).await?;
                let experts = Experts::new(count, held, gate, [up, down], chosen(c))?;

                let mut r = Recording::of(Rc::new(placement));
                let (own, own_ids) = (r.own_tokens(&x)?, r.own_tokens(&ids)?);
                let own_probs = r.own_tokens(&probs)?;
                let came = r.dispatch_tokens(&own, &own_ids, &own_probs, tokens, &experts)?;
                let out = r.experts(&came.x, &came.ids, &experts)?;
                let y = r.combine(&out, &came.probs, &came.ids, None, &experts)?;
                let y = r.return_tokens(&y, &came, [None; 3])?;
                found.push([r.gather_tokens(&y, tokens)?, came.counts]);
                ranks.push(r);
            }
            let [y, sent] = c.join(&ranks, &found)?.swap_remove(0);
            c.output("y", &y, &y.shape);
            c.output("sent", &sent, &sent.shape);
            Ok(())
        })
    },
    examples: || {
        vec![
            plain([12, 2], [6, 10, 8, 7])
                .random("gate.weight", &[6, 10, 8])
                .set("world_size", "4"),
            // Tokens and words that do not divide; a rank for each expert.
            plain([25, 3], [5, 6, 9, 9])
                .set("world_size", "5")
                .set("expert_parallel", "5")
                .set("activation", "relu"),
        ]
    },
};

/// Every rank's.
fn placements(c: &Call<'_>, tokens: usize) -> Result<Vec<Placement>> {
    let (ranks, ep) = (
        c.settings.size("world_size")?,
        c.settings.size("expert_parallel")?,
    );
    if ep < 2 || ranks > tokens {
        return Err(c.error(format_args!(
            "settings world_size {ranks} and expert_parallel {ep} for {tokens} tokens; there must be a token for each \
             rank, and experts of at least 2 groups"
        )));
    }
    let mesh = Mesh {
        ep,
        ..Mesh::tensor(ranks)
    };
    let placement = |rank| Placement::new(mesh, rank, Split::even(ranks), true);
    let all: Result<Vec<_>> = (0..ranks).map(placement).collect();
    all.map_err(|e| c.error(e))
}

/// Of the experts `held` these rows and columns of their matrices; all that are not named.
async fn layer(
    c: &Call<'_>,
    name: &str,
    held: &Range<usize>,
    rows: Option<&Range<usize>>,
    cols: Option<&Range<usize>>,
) -> Result<Linear> {
    let array: &Array = c.array(name);
    let (all_rows, all_cols) = (array.shape[1], array.shape[2]);
    let rows = rows.cloned().unwrap_or(0..all_rows);
    let cols = cols.cloned().unwrap_or(0..all_cols);
    let (values, mut part) = (array.to_f32(), Vec::new());
    for row in held
        .clone()
        .flat_map(|e| rows.clone().map(move |r| e * all_rows + r))
    {
        let row = &values[row * all_cols..][..all_cols];
        part.extend_from_slice(&row[cols.clone()]);
    }
    let shape = [held.len(), rows.len(), cols.len()];
    let bytes = bytemuck::cast_slice(&part);
    let weight = Weight::of_experts(c.device(), name, DType::F32, shape, bytes).await?;
    Ok(Linear::new(weight))
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::{Example, Ran, find, nmse, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    fn call(op: &str, example: &Example) -> Result<Ran> {
        let (inputs, settings) = example.call();
        block_on(run(&CpuDevice::new(), find(op)?, inputs, &settings))
    }

    fn y(op: &str, example: &Example) -> Vec<f32> {
        call(op, example).unwrap().outputs["y"].to_f32()
    }

    /// The same experts for other tokens.
    fn routed(example: &Example, ids: impl Fn(usize) -> i64) -> Example {
        let mut example = example.clone();
        for (_, array) in example.inputs.iter_mut().filter(|(n, _)| *n == "experts") {
            let ids: Vec<i64> = (0..array.shape.iter().product()).map(&ids).collect();
            *array = Array::i64(&array.shape, &ids);
        }
        example
    }

    #[test]
    fn ranks_that_exchange_tokens_give_what_one_gives() {
        let gated = plain([29, 3], [12, 64, 16, 12]).random("gate.weight", &[12, 64, 16]);
        let example = plain([29, 3], [12, 64, 16, 12]);
        let skews: [fn(usize) -> i64; 5] = [
            |i| (i * i * 7 % 12) as i64,
            // All to the first rank, to the last, to nobody; in turns, so that some ranks get nothing.
            |i| (i % 3) as i64,
            |i| (9 + i % 3) as i64,
            |_| -1,
            |i| if i % 2 == 0 { 0 } else { 11 },
        ];
        for example in [&gated, &example] {
            for (i, skew) in skews.into_iter().enumerate() {
                let example = routed(example, skew);
                let want = y("moe_experts", &example);
                for (ranks, ep) in [("2", "2"), ("4", "2"), ("4", "4"), ("6", "3"), ("12", "12")] {
                    let spread = (example.clone())
                        .set("world_size", ranks)
                        .set("expert_parallel", ep);
                    let error = nmse(&y("expert_parallel", &spread), &want);
                    let nothing = want.iter().all(|y| *y == 0.0);
                    assert_eq!(nothing, i == 3);
                    assert!(error < 1e-12, "{ranks} ranks, ep {ep}, skew {i}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn a_token_goes_once_to_each_rank_that_holds_a_part_of_its_experts() {
        // Eight tokens on four ranks; expert 2 i is of the ranks 2 i and 2 i + 1.
        let example = routed(&plain([8, 2], [4, 6, 8, 8]), |i| match i / 2 {
            0 => [0, 1][i % 2],
            1 => [1, 2][i % 2],
            7 => [3, -1][i % 2],
            _ => -1,
        });
        let example = example.set("world_size", "4").set("expert_parallel", "2");
        let sent = call("expert_parallel", &example).unwrap();
        let sent = sent.outputs["sent"].to_i64().unwrap();
        assert_eq!(sent, [2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn a_token_that_cannot_be_routed_is_no_number_and_no_other() {
        let mut example = plain([6, 2], [4, 6, 8, 8]);
        let mut probs = vec![0.5; 12];
        probs[6] = f32::NAN;
        example = routed(&example, |i| if i / 2 == 3 { -1 } else { (i % 4) as i64 });
        for (_, array) in example.inputs.iter_mut().filter(|(n, _)| *n == "probs") {
            *array = Array::f32(&[6, 2], &probs);
        }
        let y = y("expert_parallel", &example);
        for (t, y) in y.chunks(8).enumerate() {
            assert!(y.iter().all(|y| y.is_nan() == (t == 3)), "token {t}: {y:?}");
        }
    }

    #[test]
    fn ranks_without_tokens_or_experts_of_their_own_are_refused() {
        let told = |ranks, ep| {
            let example = plain([6, 2], [4, 6, 8, 8]).set("world_size", ranks);
            let told = call("expert_parallel", &example.set("expert_parallel", ep));
            told.err().unwrap().to_string()
        };
        assert!(told("7", "7").contains("world_size 7 and expert_parallel 7 for 6 tokens"));
        assert!(told("2", "1").contains("expert_parallel 1"));
        let text = told("3", "3");
        assert!(text.contains("ep 3 must divide 4 experts"), "{text}");
    }
}
