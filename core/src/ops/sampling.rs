//! What happens to logits before a token is drawn.

use super::{Array, Example, Input, Op, Output, Setting};
use crate::kernels::{repeat_penalty, token_bitmask};
use crate::{DType, Result};

pub static OPS: &[Op] = &[
    Op {
        name: "repeat_penalty",
        kinds: &["repetition_penalty"],
        systems: &["repeat penalty"],
        summary: "logits of tokens that occurred: below 0 times the penalty, others divided by it \
              (arXiv:1909.05858, section 4.1)",
        inputs: &[
            Input::new("logits", "V", ""),
            Input::new("ids", "any", "tokens that occurred; each counts once"),
        ],
        settings: &[Setting::float(
            "penalty",
            1.1,
            "more than 1 makes repeats less likely",
        )],
        outputs: &[Output::new("y", "V", "")],
        bound: 1e-12,
        record: |c| {
            Box::pin(async move {
                let (vocab, penalty) = (c.axis("V"), c.settings.float("penalty") as f32);
                if penalty <= 0.0 {
                    return Err(c.error(format_args!(
                        "setting penalty is {penalty}, expected more than 0"
                    )));
                }
                let mut ids = c.words("ids")?;
                ids.sort_unstable();
                ids.dedup();
                if let Some(id) = ids.last().filter(|id| **id as usize >= vocab) {
                    let id = *id as i32;
                    return Err(
                        c.error(format_args!("ids holds {id}, expected 0 to {}", vocab - 1))
                    );
                }
                let bytes = bytemuck::cast_slice(&ids);
                let list = c.upload("ids", DType::U32, &[ids.len()], bytes).await?;
                let logits = c.tensor("logits").await?;
                let params = repeat_penalty::params(ids.len(), vocab, penalty);
                let bindings = vec![Some(list), Some(logits.clone())];
                c.r.push(&repeat_penalty::KERNEL, params, bindings)?;
                c.output("y", &logits, &[vocab]);
                Result::Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("logits", &[40])
                    .input("ids", Array::i64(&[2, 3], &[3, 7, 3, 39, 0, 12]))
                    .set("penalty", "1.3"),
            ]
        },
    },
    Op {
        name: "token_bitmask",
        kinds: &["logits mask"],
        systems: &[],
        summary: "logits of tokens that a grammar does not allow: -inf (arXiv:2411.15100, section 3)",
        inputs: &[
            Input::new("logits", "V", ""),
            Input::new(
                "mask",
                "any",
                "bit t % 32 of word t / 32: token t is allowed",
            ),
        ],
        settings: &[],
        outputs: &[Output::new("y", "V", "")],
        bound: 0.0,
        record: |c| {
            Box::pin(async move {
                let vocab = c.axis("V");
                let mask = c.words("mask")?;
                let words = token_bitmask::words(vocab);
                if mask.len() != words {
                    return Err(c.error(format_args!(
                        "mask has {} words, expected {words} for {vocab} logits",
                        mask.len()
                    )));
                }
                let bytes = bytemuck::cast_slice(&mask);
                let mask = c.upload("mask", DType::U32, &[words], bytes).await?;
                let logits = c.tensor("logits").await?;
                c.r.token_bitmask(&mask, &logits, 0)?;
                c.output("y", &logits, &[vocab]);
                Result::Ok(())
            })
        },
        examples: || {
            vec![
                Example::new()
                    .random("logits", &[70])
                    .input("mask", Array::i64(&[3], &[0x8000_0001, 0x0F0F_0000, 0x2A])),
            ]
        },
    },
];
