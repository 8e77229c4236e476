//! Pairs of a token and an expert sorted by expert, each expert's in their own order, and cut into
//! tiles of at most `TT` pairs of one expert: what `matmul` and `gated_mlp` take with `EXPERTS`.
//!
//! Params: `T` pairs, `FIRST` and `COUNT` of the experts that are wanted, `TILES` and `TT` of an
//! [`Order`].

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant};
use crate::device::cpu::CpuDispatch;
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "expert_order",
    bindings: &[
        Binding::new("experts", Access::Read),
        Binding::new("order", Access::Write),
    ],
    uniforms: &["T", "FIRST", "COUNT", "TILES", "TT"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Most experts that are ordered at once.
pub const MOST: usize = 512;

/// What of the u32 array `order` is where: the number of tiles, then [`Order::tiles`] tiles of three
/// words (expert, place of the first pair, number of pairs), then pairs in order. Tiles and pairs
/// beyond those there are stay what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Pairs that are ordered.
    pub pairs: usize,
    /// Most pairs in a tile: 16, 32 or 64.
    pub tile: usize,
    /// Most tiles that there can be.
    pub tiles: usize,
}

impl Order {
    /// The order of `pairs` pairs with `count` experts. Tiles are as long as an expert's pairs, if
    /// all have the same number.
    ///
    /// ```
    /// use shardlight::kernels::Order;
    /// let order = Order::new(1000, 8);
    /// assert_eq!((order.tile, order.tiles), (64, 8 + 992 / 64));
    /// assert_eq!(Order::new(3, 8).tiles, 3);
    /// ```
    pub fn new(pairs: usize, count: usize) -> Self {
        let tile = (pairs / count.max(1)).next_power_of_two().clamp(16, 64);
        // Each expert that has pairs at all can leave a tile unfilled.
        let busy = pairs.min(count);
        Order {
            pairs,
            tile,
            tiles: busy + (pairs - busy) / tile,
        }
    }

    /// The order that a call was given.
    pub(crate) fn of(p: &Params) -> Self {
        Order {
            pairs: p.size("T"),
            tile: p.size("TT"),
            tiles: p.size("TILES"),
        }
    }

    /// Words of the array.
    pub fn words(&self) -> usize {
        self.place(self.pairs)
    }

    /// The word of a place in the order.
    fn place(&self, place: usize) -> usize {
        1 + 3 * self.tiles + place
    }

    fn tile_at(&self, i: usize) -> usize {
        1 + 3 * i
    }
}

/// The pairs that a call with `EXPERTS` multiplies, each with its expert counted from `FIRST`; `word`
/// gives the elements of its binding `pairs`.
pub(crate) fn chosen(p: &Params, word: impl Fn(usize) -> u32) -> Vec<(usize, usize)> {
    let (order, first, count) = (Order::of(p), p.get("FIRST"), p.get("COUNT"));
    let held = |expert: u32| {
        let own = expert.wrapping_sub(first);
        (own < count).then_some(own as usize)
    };
    if order.tile == 0 {
        let pairs = (0..order.pairs).map(|pair| Some((pair, held(word(pair))?)));
        return pairs.flatten().collect();
    }
    let mut chosen = Vec::new();
    for tile in 0..word(0) as usize {
        let at = order.tile_at(tile);
        if let Some(own) = held(word(at)) {
            let first = word(at + 1) as usize;
            let places = first..first + word(at + 2) as usize;
            chosen.extend(places.map(|place| (word(order.place(place)) as usize, own)));
        }
    }
    chosen
}

/// Parameters of a call for the experts `first .. first + count`.
pub fn params(order: Order, first: usize, count: usize) -> Params {
    Params::new()
        .u32("T", order.pairs as u32)
        .u32("FIRST", first as u32)
        .u32("COUNT", count as u32)
        .u32("TILES", order.tiles as u32)
        .u32("TT", order.tile as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let size = limits.max_workgroup_size.min(256);
    let workgroup = Variant::new("workgroup", [p.get("COUNT"), 1, 1]).set("WG", size);
    let serial = Variant::new("serial", [1, 1, 1]).flag("SERIAL");
    match limits.kind {
        DeviceKind::SoftwareGpu => vec![serial, workgroup],
        _ => vec![workgroup, serial],
    }
}

/// Writes the order of `experts`.
fn write(p: &Params, experts: impl Iterator<Item = u32>, mut put: impl FnMut(usize, u32)) {
    let (order, first) = (Order::of(p), p.get("FIRST"));
    let mut queues = vec![Vec::new(); p.size("COUNT")];
    for (pair, expert) in experts.take(order.pairs).enumerate() {
        if let Some(queue) = queues.get_mut(expert.wrapping_sub(first) as usize) {
            queue.push(pair as u32);
        }
    }
    let (mut tiles, mut place) = (0, 0);
    for (expert, queue) in (first..).zip(&queues) {
        for pairs in queue.chunks(order.tile) {
            let tile = [expert, place as u32, pairs.len() as u32];
            for (i, word) in tile.into_iter().enumerate() {
                put(order.tile_at(tiles) + i, word);
            }
            for pair in pairs {
                put(order.place(place), *pair);
                place += 1;
            }
            tiles += 1;
        }
    }
    put(0, tiles as u32);
}

fn cpu(d: &CpuDispatch<'_>) {
    let (experts, mut order) = (d.u32(0), d.write::<u32>(1));
    write(d.params, experts.iter().copied(), |i, word| order[i] = word);
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [experts, order] = arrays else { return };
    let experts = experts.iter().map(|e| *e as u32);
    write(p, experts, |i, word| order[i] = f64::from(word));
}

/// Experts of pairs as tests take them: some experts have none, some pairs an expert that there is not.
pub(crate) fn random_experts(seed: u64, pairs: usize, count: usize) -> Vec<u32> {
    let numbers = super::case::random(seed, pairs);
    let of = |(i, x): (usize, &f32)| match i % 11 {
        7 => u32::MAX,
        _ => ((x.abs() * 1e4) as usize % count / 2 * 2) as u32,
    };
    numbers.iter().enumerate().map(of).collect()
}

/// The order of these experts as `matmul` takes it.
pub(super) fn ordered(order: Order, experts: &[u32], first: usize, count: usize) -> HostArray {
    let mut words = vec![u32::MAX; order.words()];
    let p = params(order, first, count);
    write(&p, experts.iter().copied(), |i, word| words[i] = word);
    HostArray::u32(&[words.len()], &words)
}

fn cases() -> Vec<Case> {
    let case_of = |experts: &[u32], first: usize, count: usize| {
        let order = Order::new(experts.len(), count);
        Case {
            params: params(order, first, count),
            arrays: vec![
                Some(HostArray::u32(&[experts.len()], experts)),
                Some(HostArray::u32(&[order.words()], &vec![7; order.words()])),
            ],
            bound: 0.0,
        }
    };
    let mut cases = Vec::new();
    for (pairs, count) in [
        (1, 1),
        (5, 3),
        (64, 8),
        (257, 8),
        (1000, 60),
        (4099, 128),
        (6000, 512),
    ] {
        cases.push(case_of(&random_experts(3, pairs, count), 0, count));
    }
    // All pairs have one expert; none has; a rank's experts.
    cases.push(case_of(&[2; 129], 0, 3));
    cases.push(case_of(&[9; 33], 0, 3));
    cases.push(case_of(&[u32::MAX; 3], 0, 512));
    cases.push(case_of(&random_experts(4, 300, 24), 8, 7));
    cases.push(case_of(&random_experts(5, 40, 24), 23, 1));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_never_outnumber_their_places() {
        for count in [1, 2, 7, 64] {
            for pairs in [1, 2, 15, 16, 17, 100, 1031] {
                let order = Order::new(pairs, count);
                // The worst case: as many experts as possible have one pair, another has the rest.
                let busy = count.min(pairs);
                let worst: Vec<u32> = (0..pairs).map(|i| i.min(busy - 1) as u32).collect();
                let mut tiles = 0;
                write(&params(order, 0, count), worst.into_iter(), |i, word| {
                    if i == 0 {
                        tiles = word as usize;
                    }
                });
                assert!(
                    tiles <= order.tiles,
                    "{pairs} pairs, {count} experts: {tiles}"
                );
            }
        }
    }

    #[test]
    fn a_call_reads_from_an_order_what_it_reads_from_experts() {
        let experts = random_experts(1, 203, 9);
        let order = Order::new(203, 9);
        let words = ordered(order, &experts, 2, 6).to_f64();
        let held = |tile: usize, tiles: usize| {
            (params(order, 4, 3).u32("TT", tile as u32)).u32("TILES", tiles as u32)
        };
        let mut by_order = chosen(&held(order.tile, order.tiles), |i| words[i] as u32);
        by_order.sort_unstable();
        assert_eq!(by_order, chosen(&held(0, 0), |i| experts[i]));
        assert!(!by_order.is_empty());
    }
}
