//! Every layout of a number of ranks, and which of them are worth having.

use serde::Serialize;

use super::{Plan, Request};
use crate::Result;
use crate::comm::Mesh;
use crate::shard::Split;

/// A layout and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The layout in words.
    pub layout: String,
    /// Its plan, or why there is none.
    #[serde(flatten)]
    pub plan: std::result::Result<Plan, String>,
    /// Is no other layout at least as good in decode latency, tokens per second and memory, and better in one?
    pub best: bool,
}

/// Meshes of `ranks` ranks: tensor-parallel, pipeline- and data-parallel sizes whose product it is.
pub fn layouts(ranks: usize) -> Vec<Mesh> {
    let divisors = |n: usize| (1..=n).filter(move |d| n.is_multiple_of(*d));
    let mut found = Vec::new();
    for tp in divisors(ranks) {
        for pp in divisors(ranks / tp) {
            found.push(Mesh {
                tp,
                pp,
                dp: ranks / tp / pp,
                ..Mesh::default()
            });
        }
    }
    found
}

/// Plans every layout of `ranks` ranks, equal shares each.
///
/// # Errors
///
/// Those of [`Request::alone`]: a layout that cannot be is listed with its reason.
pub async fn sweep(request: &Request<'_>, ranks: usize) -> Result<Vec<Candidate>> {
    let alone = request.alone().await?;
    let mut found = Vec::new();
    for mesh in layouts(ranks) {
        let mut request = request.clone();
        request.layout.mesh = mesh;
        request.layout.split = Split::even(mesh.tp);
        let plan = request.plan_beside(alone).await;
        found.push(Candidate {
            layout: mesh.to_string(),
            plan: plan.map_err(|e| e.to_string()),
            best: false,
        });
    }
    mark_best(&mut found);
    Ok(found)
}

/// Marks the candidates that no other dominates, among those that fit.
pub fn mark_best(candidates: &mut [Candidate]) {
    let values: Vec<Option<[f64; 3]>> = (candidates.iter())
        .map(|candidate| {
            let plan = candidate.plan.as_ref().ok().filter(|plan| plan.fits)?;
            let decode = &plan.decode;
            Some([
                decode.seconds,
                -decode.tokens_per_second,
                plan.memory as f64,
            ])
        })
        .collect();
    for (candidate, own) in candidates.iter_mut().zip(&values) {
        let Some(own) = own else { continue };
        let dominates = |other: &[f64; 3]| {
            other.iter().zip(own).all(|(a, b)| a <= b) && other.iter().zip(own).any(|(a, b)| a < b)
        };
        candidate.best = !values.iter().flatten().any(dominates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_of_the_ranks_is_tried() {
        let found = layouts(12);
        assert!(
            found
                .iter()
                .all(|mesh| mesh.world_size() == 12 && mesh.check().is_ok())
        );
        // 12 = 2 x 2 x 3: six ways to share out the twos, three the three.
        assert_eq!(found.len(), 18);
    }
}
