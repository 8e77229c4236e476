//! How often each expert was chosen, for people and for programs.

use serde_json::{Value, json};
use shardlight::session::ExpertStatistics;

use crate::ui::Ui;

/// `{layers, count, chosen, tokens}`: `chosen` has a list of `count` numbers for each of the layers.
pub fn object(statistics: &ExpertStatistics) -> Value {
    let chosen: Vec<&[u64]> = statistics.counts.chunks(statistics.experts).collect();
    json!({
        "layers": statistics.layers,
        "count": statistics.experts,
        "chosen": chosen,
        "tokens": statistics.tokens,
    })
}

/// A line for each layer, and one for all: how often each expert was chosen, and the largest of these over their mean.
pub fn table(statistics: &ExpertStatistics, ui: Ui) {
    let count = statistics.experts;
    let mut sums = vec![0; count];
    for chosen in statistics.counts.chunks(count) {
        for (sum, n) in sums.iter_mut().zip(chosen) {
            *sum += n;
        }
    }
    ui.aside(format_args!(
        "tokens of each of {count} experts, of {} tokens",
        statistics.tokens
    ));
    for (layer, chosen) in statistics
        .layers
        .iter()
        .zip(statistics.counts.chunks(count))
    {
        ui.aside(line(&format!("layer {layer}"), chosen));
    }
    ui.aside(line("all", &sums));
}

fn line(what: &str, chosen: &[u64]) -> String {
    let numbers: Vec<String> = chosen.iter().map(|n| format!("{n:>5}")).collect();
    let sum: u64 = chosen.iter().sum();
    let most = chosen.iter().max().copied().unwrap_or_default();
    let over_mean = (most * chosen.len() as u64) as f64 / sum.max(1) as f64;
    format!("{what:<10}{}  most / mean {over_mean:.2}", numbers.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_expert_and_how_uneven_they_are() {
        assert_eq!(
            line("layer 3", &[2, 0, 6, 0]),
            "layer 3       2    0    6    0  most / mean 3.00"
        );
        assert!(line("all", &[0, 0]).ends_with("most / mean 0.00"));
    }

    #[test]
    fn programs_get_a_list_for_each_layer() {
        let statistics = ExpertStatistics {
            layers: vec![1, 2],
            experts: 2,
            counts: vec![3, 5, 8, 0],
            tokens: 8,
            cache: None,
        };
        let want = json!({"layers": [1, 2], "count": 2, "chosen": [[3, 5], [8, 0]], "tokens": 8});
        assert_eq!(object(&statistics), want);
    }
}
