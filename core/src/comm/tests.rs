//! Collectives between ranks of one device, and of as many as there are ranks, against their definitions.

use std::rc::Rc;

use super::{Collective, CollectiveKind, LocalComm, Mesh, Placement, Reduce, Traffic, World};
use crate::device::cpu::CpuDevice;
use crate::device::{Device, Purpose};
use crate::recording::Recording;
use crate::shard::Split;
use crate::tensor::Tensor;
use crate::{DType, Result};

/// Ranks together on one device, or each on its own.
fn world(ranks: usize, together: bool) -> World {
    let one: Rc<dyn Device> = Rc::new(CpuDevice::new());
    let placed = (0..ranks).map(|rank| {
        let placement = Placement::new(Mesh::tensor(ranks), rank, Split::even(ranks), false);
        let device = match together {
            true => Rc::clone(&one),
            false => Rc::new(CpuDevice::new()),
        };
        (placement.unwrap(), device)
    });
    World::new(placed.collect(), Rc::new(LocalComm)).unwrap()
}

/// What each rank has: numbers whose sum depends on its order.
fn array(rank: usize, len: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 37 + rank * 101) % 997) as f32 * 1.0e-3 + (rank as f32).exp2();
    (0..len).map(value).collect()
}

/// The outputs of one collective, and what was sent.
fn run(
    world: &World,
    shapes: impl Fn(usize) -> (Vec<usize>, Vec<usize>),
    kind: impl Fn(usize) -> CollectiveKind,
) -> Result<(Vec<Vec<f32>>, Traffic)> {
    pollster::block_on(async {
        let mut recordings = world.recordings();
        let mut outputs = Vec::new();
        for (rank, r) in recordings.iter_mut().enumerate() {
            let (input, output) = shapes(rank);
            let values = array(rank, input.iter().product());
            let device = world.device(rank);
            let buffer = device
                .alloc(4 * values.len() as u64, Purpose::Activations, "input")
                .await?;
            device.write(&buffer, 0, bytemuck::cast_slice(&values))?;
            let y = r.scratch(DType::F32, &output)?;
            r.keep(&y);
            r.communicate(Collective {
                kind: kind(rank),
                group: Rc::clone(&r.placement().tp),
                input: Some(Tensor::of(buffer, DType::F32, &input)),
                output: Some(y.clone()),
                counts: None,
            })?;
            outputs.push(y);
        }
        let program = world.prepare(recordings).await?;
        world.run(&program).await?;
        let mut found = Vec::new();
        for (rank, y) in outputs.iter().enumerate() {
            let buffer = program.tensor(rank, y).unwrap();
            let bytes = world.device(rank).read(&buffer, 0, y.bytes()).await?;
            found.push(bytemuck::allocation::pod_collect_to_vec(&bytes));
        }
        Ok((found, world.traffic()))
    })
}

/// Runs it both ways; gives the outputs and bytes sent, which must be the same.
fn both(
    ranks: usize,
    shapes: impl Fn(usize) -> (Vec<usize>, Vec<usize>),
    kind: impl Fn(usize) -> CollectiveKind,
) -> (Vec<Vec<f32>>, u64) {
    let [(together, one), (apart, many)] =
        [true, false].map(|together| run(&world(ranks, together), &shapes, &kind).unwrap());
    assert_eq!(together, apart, "{ranks} ranks: {:?}", kind(0));
    assert_eq!(one, many, "{ranks} ranks: {:?}", kind(0));
    (together, one.bytes())
}

const RANKS: [usize; 8] = [2, 3, 4, 5, 7, 8, 9, 17];

#[test]
fn reductions_are_made_in_the_order_of_ranks() {
    for ranks in RANKS {
        let n = 35;
        let (found, bytes) = both(
            ranks,
            |_| (vec![5, 7], vec![5, 7]),
            |_| CollectiveKind::AllReduce(Reduce::Sum),
        );
        let mut want = array(0, n);
        for rank in 1..ranks {
            for (sum, x) in want.iter_mut().zip(array(rank, n)) {
                *sum += x;
            }
        }
        assert!(found.iter().all(|y| *y == want), "{ranks} ranks");
        assert_eq!(bytes, 2 * (ranks as u64 - 1) * 4 * n as u64);

        let lens: Vec<usize> = (0..ranks).map(|r| 1 + r % 3).collect();
        let rows: usize = lens.iter().sum();
        let kind = CollectiveKind::ReduceScatter {
            reduce: Reduce::Max,
            lens: lens.clone(),
        };
        let (found, bytes) = both(
            ranks,
            |rank| (vec![rows, 3], vec![lens[rank], 3]),
            |_| kind.clone(),
        );
        // The last rank has the largest numbers.
        assert_eq!(found.concat(), array(ranks - 1, 3 * rows));
        assert_eq!(bytes, (ranks as u64 - 1) * 4 * 3 * rows as u64);
    }
}

#[test]
fn parts_are_joined_along_any_axis() {
    for ranks in RANKS {
        let lens: Vec<usize> = (0..ranks).map(|r| 1 + (r + 1) % 3).collect();
        let total: usize = lens.iter().sum();
        for axis in 0..3 {
            let shape = |len| {
                let mut shape = vec![2, 3, 4];
                shape[axis] = len;
                shape
            };
            let kind = CollectiveKind::AllGather {
                axis,
                lens: lens.clone(),
            };
            let (found, bytes) = both(
                ranks,
                |rank| (shape(lens[rank]), shape(total)),
                |_| kind.clone(),
            );
            let inner: usize = shape(1)[axis + 1..].iter().product();
            let outer: usize = shape(1)[..axis].iter().product();
            let mut want = Vec::new();
            for o in 0..outer {
                for (rank, len) in lens.iter().enumerate() {
                    let all = array(rank, outer * len * inner);
                    want.extend_from_slice(&all[o * len * inner..][..len * inner]);
                }
            }
            assert!(
                found.iter().all(|y| *y == want),
                "{ranks} ranks, axis {axis}"
            );
            assert_eq!(bytes, (ranks as u64 - 1) * 4 * want.len() as u64);
        }
    }
}

#[test]
fn rows_go_to_those_that_they_are_for() {
    for ranks in RANKS {
        // Rank a sends (a + 2 b) mod 4 rows to rank b.
        let rows = |from: usize, to: usize| (from + 2 * to) % 4;
        let sends = |rank| (0..ranks).map(|to| rows(rank, to)).collect::<Vec<_>>();
        let receives = |rank| (0..ranks).map(|from| rows(from, rank)).collect::<Vec<_>>();
        let (found, bytes) = both(
            ranks,
            |rank| {
                let [given, got] = [sends(rank), receives(rank)].map(|r| r.iter().sum());
                (vec![given, 3], vec![got, 3])
            },
            |rank| CollectiveKind::AllToAll {
                sends: sends(rank),
                receives: receives(rank),
            },
        );
        let mut sent = 0;
        for (to, found) in found.iter().enumerate() {
            let mut want = Vec::new();
            for from in 0..ranks {
                let all = array(from, 3 * sends(from).iter().sum::<usize>());
                let first: usize = sends(from)[..to].iter().sum();
                want.extend_from_slice(&all[3 * first..3 * (first + rows(from, to))]);
                sent += if from == to {
                    0
                } else {
                    12 * rows(from, to) as u64
                };
            }
            assert_eq!(*found, want, "{ranks} ranks, to {to}");
        }
        assert_eq!(bytes, sent);
    }
}

#[test]
fn as_many_rows_travel_as_the_counts_say() {
    const ROOM: usize = 3;
    for ranks in RANKS {
        // Rank a sends (a + 2 b) mod 4 rows to rank b; one sends nothing, one gets nothing.
        let rows = |from: usize, to: usize| match (from, to) {
            (1, _) | (_, 0) => 0,
            _ => (from + 2 * to) % (ROOM + 1),
        };
        let pairs = (0..ranks * ranks).map(|i| rows(i / ranks, i % ranks) as u32);
        let counts: Vec<u32> = pairs.collect();
        for back in [false, true] {
            let [(together, one), (apart, many)] = [true, false].map(|together| {
                let found = counted(&world(ranks, together), ROOM, &counts, back);
                found.unwrap()
            });
            let at = format!("{ranks} ranks, back: {back}");
            assert_eq!(one, many, "{at}");
            let (mut sent, mut calls) = (0, 0);
            for to in 0..ranks {
                calls += 1;
                for from in 0..ranks {
                    let n = if back { rows(to, from) } else { rows(from, to) };
                    let want = &array(from, 2 * ranks * ROOM)[2 * to * ROOM..][..2 * n];
                    for (found, how) in [(&together, "together"), (&apart, "apart")] {
                        let got = &found[to][2 * from * ROOM..][..2 * ROOM];
                        assert_eq!(got[..2 * n], *want, "{at}, {from} to {to}, {how}");
                        // The rest stays what it was.
                        let rest = got[2 * n..].iter().all(|x| *x == -1.0);
                        assert!(rest, "{at}, {from} to {to}, {how}: {got:?}");
                    }
                    sent += if from == to { 0 } else { 8 * n as u64 };
                }
            }
            let want = [("all_to_all_counted", super::Sent { calls, bytes: sent })];
            assert_eq!(one.iter().collect::<Vec<_>>(), want, "{at}");
        }
    }
}

/// Outputs of rows of two numbers, -1 where nothing came, and what was sent.
fn counted(
    world: &World,
    room: usize,
    counts: &[u32],
    back: bool,
) -> Result<(Vec<Vec<f32>>, Traffic)> {
    pollster::block_on(async {
        let ranks = world.ranks().len();
        let mut recordings = world.recordings();
        let mut outputs = Vec::new();
        for (rank, r) in recordings.iter_mut().enumerate() {
            let device = world.device(rank);
            let shape = [ranks, room, 2];
            let mut tensors = Vec::new();
            for values in [array(rank, 2 * ranks * room), vec![-1.0; 2 * ranks * room]] {
                let buffer = device
                    .alloc(4 * values.len() as u64, Purpose::Activations, "rows")
                    .await?;
                device.write(&buffer, 0, bytemuck::cast_slice(&values))?;
                tensors.push(Tensor::of(buffer, DType::F32, &shape));
            }
            let buffer = device
                .alloc(4 * counts.len() as u64, Purpose::Activations, "counts")
                .await?;
            device.write(&buffer, 0, bytemuck::cast_slice(counts))?;
            let output = tensors.pop();
            outputs.extend(output.clone());
            r.communicate(Collective {
                kind: CollectiveKind::AllToAllCounted { back },
                group: Rc::clone(&r.placement().tp),
                input: tensors.pop(),
                output,
                counts: Some(Tensor::of(buffer, DType::U32, &[ranks, ranks])),
            })?;
        }
        let program = world.prepare(recordings).await?;
        world.run(&program).await?;
        let mut found = Vec::new();
        for (rank, y) in outputs.iter().enumerate() {
            let buffer = program.tensor(rank, y).unwrap();
            let bytes = world.device(rank).read(&buffer, 0, y.bytes()).await?;
            found.push(bytemuck::allocation::pod_collect_to_vec(&bytes));
        }
        Ok((found, world.traffic()))
    })
}

#[test]
fn counts_without_room_are_told() {
    for together in [true, false] {
        let told = counted(&world(2, together), 3, &[0, 4, 1, 0], false);
        assert_eq!(
            told.err().unwrap().to_string(),
            "rank 0: sends 4 rows, and there is room for 3",
            "together: {together}"
        );
    }
}

#[test]
fn a_broadcast_gives_everybody_what_the_root_has() {
    for ranks in RANKS {
        let root = ranks / 2;
        let (found, bytes) = both(
            ranks,
            |_| (vec![11], vec![11]),
            |_| CollectiveKind::Broadcast { root },
        );
        assert!(found.iter().all(|y| *y == array(root, 11)), "{ranks} ranks");
        assert_eq!(bytes, (ranks as u64 - 1) * 44);
    }
}

#[test]
fn ranks_that_wait_for_each_other_are_told() {
    let world = world(2, true);
    let mut recordings = world.recordings();
    let x = Tensor::of(crate::device::Buffer::new((), 16), DType::F32, &[4]);
    for (rank, r) in recordings.iter_mut().enumerate() {
        let group = Rc::clone(&r.placement().tp);
        let communicate = |r: &mut Recording, kind| {
            r.communicate(Collective {
                kind,
                group: Rc::clone(&group),
                input: Some(x.clone()),
                output: Some(x.clone()),
                counts: None,
            })
        };
        let sum = CollectiveKind::AllReduce(Reduce::Sum);
        let give = CollectiveKind::Broadcast { root: 0 };
        let [first, second] = if rank == 0 { [sum, give] } else { [give, sum] };
        communicate(r, first).unwrap();
        communicate(r, second).unwrap();
    }
    let told = pollster::block_on(world.prepare(recordings));
    let told = told.err().unwrap().to_string();
    assert_eq!(
        told,
        "ranks wait for each other: rank 0 for AllReduce(Sum) among [0, 1], rank 1 for Broadcast { root: 0 } among [0, 1]"
    );
}

#[test]
fn what_ranks_of_a_device_compute_alike_is_computed_once() {
    let world = world(3, true);
    let mut recordings = world.recordings();
    for r in &mut recordings {
        let x = r.scratch(DType::F32, &[2, 8]).unwrap();
        let x = r.all_reduce(&x).unwrap();
        let norm = crate::nn::RmsNorm::new(None, 1e-5);
        let y = r.rms_norm(&x, &norm).unwrap();
        let z = r.add(&x, &y).unwrap();
        r.keep(&z);
    }
    let lowered = super::lower::lower(&recordings, &[0, 0, 0]).unwrap();
    let kernels: Vec<_> = (lowered.recordings[0].dispatches())
        .map(|d| d.kernel.name)
        .collect();
    assert_eq!(kernels, ["all_reduce", "norm", "add"]);
}

#[test]
fn a_line_of_ranks_passes_things_on_in_order() {
    // Three stages, four micro-batches: rank 0 sends while rank 1 sends too.
    let mesh = Mesh {
        pp: 3,
        ..Mesh::default()
    };
    for together in [true, false] {
        let one: Rc<dyn Device> = Rc::new(CpuDevice::new());
        let placed = (0..3).map(|rank| {
            let placement = Placement::new(mesh, rank, Split::even(1), false).unwrap();
            let device = match together {
                true => Rc::clone(&one),
                false => Rc::new(CpuDevice::new()),
            };
            (placement, device)
        });
        let world = World::new(placed.collect(), Rc::new(LocalComm)).unwrap();
        let found: Result<Vec<Vec<f32>>> = pollster::block_on(async {
            let mut recordings = world.recordings();
            let mut ends = Vec::new();
            for micro in 0..4 {
                for (rank, r) in recordings.iter_mut().enumerate() {
                    let x = match rank {
                        0 => {
                            let buffer =
                                world.device(0).alloc(16, Purpose::Activations, "x").await?;
                            let values = array(micro, 4);
                            world
                                .device(0)
                                .write(&buffer, 0, bytemuck::cast_slice(&values))?;
                            Tensor::of(buffer, DType::F32, &[1, 4])
                        }
                        _ => r.receive_hidden(1, 4)?,
                    };
                    let y = r.add(&x, &x)?;
                    match rank {
                        2 => {
                            r.keep(&y);
                            ends.push(y);
                        }
                        _ => r.send_hidden(&y)?,
                    }
                }
            }
            let program = world.prepare(recordings).await?;
            world.run(&program).await?;
            let mut found = Vec::new();
            for y in &ends {
                let buffer = program.tensor(2, y).unwrap();
                let bytes = world.device(2).read(&buffer, 0, y.bytes()).await?;
                found.push(bytemuck::allocation::pod_collect_to_vec(&bytes));
            }
            Ok(found)
        });
        for (micro, y) in found.unwrap().iter().enumerate() {
            let want: Vec<f32> = array(micro, 4).iter().map(|x| 8.0 * x).collect();
            assert_eq!(*y, want, "micro-batch {micro}, together: {together}");
        }
    }
}

#[test]
fn products_that_are_summed_add_to_each_other() {
    let world = world(3, true);
    let found: Result<(Vec<&str>, Vec<f32>)> = pollster::block_on(async {
        let device = Rc::clone(world.device(0));
        let mut recordings = world.recordings();
        let mut sums = Vec::new();
        for (rank, r) in recordings.iter_mut().enumerate() {
            let values = array(rank, 6);
            let buffer = device.alloc(32, Purpose::Activations, "x").await?;
            device.write(&buffer, 0, bytemuck::cast_slice(&values[..2]))?;
            let x = Tensor::of(buffer, DType::F32, &[1, 2]);
            let bytes = bytemuck::cast_slice(&values[2..]);
            let weight =
                crate::weights::Weight::from_bytes(device.as_ref(), "w", DType::F32, 2, 2, bytes);
            let linear = crate::nn::Linear::new(weight.await?).row_parallel();
            let y = r.linear(&x, &linear)?;
            r.keep(&y);
            sums.push(y);
        }
        let lowered = super::lower::lower(&recordings, &[0, 0, 0])?;
        let kernels = lowered.recordings[0].dispatches().map(|d| d.kernel.name);
        let kernels = kernels.collect();
        let program = world.prepare(recordings).await?;
        world.run(&program).await?;
        let buffer = program.tensor(2, &sums[2]).unwrap();
        let bytes = device.read(&buffer, 0, 8).await?;
        Ok((kernels, bytemuck::allocation::pod_collect_to_vec(&bytes)))
    });
    let (kernels, sum) = found.unwrap();
    assert_eq!(kernels, ["matvec"; 3]);
    let product = |rank: usize, row: usize| {
        let v = array(rank, 6);
        f64::from(v[0]) * f64::from(v[2 + 2 * row]) + f64::from(v[1]) * f64::from(v[3 + 2 * row])
    };
    for (row, found) in sum.iter().enumerate() {
        let want: f64 = (0..3).map(|rank| product(rank, row)).sum();
        assert!(
            (f64::from(*found) - want).abs() < 1e-5 * want,
            "{found}, {want}"
        );
    }
}
