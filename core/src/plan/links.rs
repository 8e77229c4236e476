//! Links between ranks: the alpha-beta model. A message of n bytes takes `alpha + n / beta` (Hockney, 1994,
//! doi:10.1016/S0167-8191(06)80021-9).

use crate::comm::CollectiveKind;
use crate::{Error, Result};

/// A way from one rank to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// What `--link` calls it.
    pub name: &'static str,
    /// Alpha: seconds from sending to receiving an empty message.
    pub latency: f64,
    /// Beta: bytes per second that one rank sends.
    pub bandwidth: f64,
    /// Where the numbers come from.
    pub source: &'static str,
}

/// Latencies of wires inside a host and of InfiniBand are those that NCCL plans with.
const NCCL: &str =
    "rate: the standard, one direction; latency: NCCL, tuning.cc, hwLat, ring, LL128";
const NVLINK: &str = "rate: NVIDIA's white paper, half of what it gives for both directions; latency: NCCL, tuning.cc, hwLat, ring, LL128";
const ETHERNET: &str = "rate: IEEE 802.3; latency: assumed, TCP through a switch";

/// Known links, by what joins the ranks.
pub static LINKS: &[Link] = &[
    Link::new("pcie4", 2.5e-6, 31.5e9, NCCL),
    Link::new("pcie5", 2.5e-6, 63.0e9, NCCL),
    Link::new("nvlink3", 1.9e-6, 300e9, NVLINK),
    Link::new("nvlink4", 1.9e-6, 450e9, NVLINK),
    Link::new("ndr", 4.0e-6, 50e9, NCCL),
    Link::new("10gbe", 30e-6, 1.25e9, ETHERNET),
    Link::new("100gbe", 15e-6, 12.5e9, ETHERNET),
    Link::new("400gbe", 10e-6, 50e9, ETHERNET),
    Link::new(
        "webrtc",
        20e-3,
        12.5e6,
        "assumed: 100 Mbit/s between homes, 20 ms",
    ),
];

impl Link {
    const fn new(name: &'static str, latency: f64, bandwidth: f64, source: &'static str) -> Self {
        Link {
            name,
            latency,
            bandwidth,
            source,
        }
    }

    /// A link of [`LINKS`] by its name, or one of its own: `5us,50GB/s`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming the known ones.
    pub fn find(text: &str) -> Result<Link> {
        let lower = text.to_ascii_lowercase();
        if let Some(link) = LINKS.iter().find(|link| link.name == lower) {
            return Ok(*link);
        }
        own(&lower).ok_or_else(|| {
            let names: Vec<_> = LINKS.iter().map(|link| link.name).collect();
            Error::Unsupported {
                what: format!("link {text:?}"),
                supported: format!("{}, or latency and rate as in 5us,50GB/s", names.join(", ")),
            }
        })
    }

    /// Seconds of one rank's part in a collective among `ranks`, once all are there: it sends `bytes` in
    /// [`messages`].
    pub fn seconds(&self, messages: u64, bytes: u64) -> f64 {
        messages as f64 * self.latency + bytes as f64 / self.bandwidth
    }
}

/// `5us,50gb/s`
fn own(text: &str) -> Option<Link> {
    let (latency, bandwidth) = text.split_once(',')?;
    let unit = |text: &str, units: &[(&str, f64)]| {
        let (number, factor) = units
            .iter()
            .find_map(|(unit, factor)| Some((text.trim().strip_suffix(unit)?, factor)))?;
        let value = number.trim().parse::<f64>().ok()? * factor;
        (value.is_finite() && value >= 0.0).then_some(value)
    };
    let latency = unit(latency, &[("us", 1e-6), ("ms", 1e-3), ("ns", 1e-9)])?;
    let bandwidth = unit(bandwidth, &[("gb/s", 1e9), ("mb/s", 1e6)])?;
    (bandwidth > 0.0).then_some(Link::new("own", latency, bandwidth, "given"))
}

/// Messages that follow one another on a rank's way through a collective: a ring's steps, 2 (R - 1) for an
/// all-reduce and R - 1 for the others, as NCCL counts them (`tuning.cc`, `nsteps`; Thakur et al., 2005,
/// doi:10.1177/1094342005051521). What they carry is
/// [`Collective::bytes_sent`](crate::comm::Collective::bytes_sent).
pub fn messages(kind: &CollectiveKind, ranks: usize) -> u64 {
    let others = ranks.saturating_sub(1) as u64;
    match kind {
        CollectiveKind::AllReduce(_) => 2 * others,
        CollectiveKind::AllGather { .. }
        | CollectiveKind::ReduceScatter { .. }
        | CollectiveKind::Broadcast { .. }
        | CollectiveKind::AllToAll { .. }
        | CollectiveKind::AllToAllCounted { .. } => others,
        CollectiveKind::Send { .. } | CollectiveKind::Receive { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Reduce;

    #[test]
    fn a_link_is_known_by_name_or_by_its_numbers() {
        assert_eq!(Link::find("NVLink4").unwrap().bandwidth, 450e9);
        let own = Link::find("2.5ms, 100MB/s").unwrap();
        assert_eq!((own.latency, own.bandwidth), (2.5e-3, 100e6));
        for bad in [
            "nvlink9",
            "5us",
            "5us,0GB/s",
            "-1us,1GB/s",
            "5,5",
            "infus,1GB/s",
        ] {
            let told = Link::find(bad).unwrap_err().to_string();
            assert!(
                told.contains("nvlink4") && told.contains("5us,50GB/s"),
                "{told}"
            );
        }
    }

    #[test]
    fn every_link_has_its_own_name_and_a_source() {
        for (i, link) in LINKS.iter().enumerate() {
            assert!(
                LINKS[..i].iter().all(|l| l.name != link.name),
                "{}",
                link.name
            );
            assert!(link.latency > 0.0 && link.bandwidth > 0.0 && !link.source.is_empty());
        }
    }

    #[test]
    fn a_ring_takes_two_rounds_to_reduce_for_all() {
        let sum = CollectiveKind::AllReduce(Reduce::Sum);
        assert_eq!([1, 2, 8].map(|ranks| messages(&sum, ranks)), [0, 2, 14]);
        assert_eq!(messages(&CollectiveKind::Send { to: 1 }, 8), 1);
        // 1 MB among 8 ranks of NVLink 4: 14 x 1.9 us + 2 x 7/8 x 1 MB / 450 GB/s.
        let seconds = Link::find("nvlink4").unwrap().seconds(14, 1_750_000);
        assert!((seconds - (26.6e-6 + 3.889e-6)).abs() < 1e-9, "{seconds}");
    }
}
