//! Collectives between CUDA devices by NCCL: the bits and bytes of host memory's, and models that say the same.
//!
//! Where there is no NVIDIA GPU, `cargo xtest cuda` puts tests/cuda-host in the place of driver and NCCL. Between
//! processes: tests/mpi/nccl.rs.

use std::env;
use std::ops::ControlFlow;
use std::process::{Command, Output};
use std::rc::Rc;

use pollster::block_on;
use shardlight::DType;
use shardlight::builtin;
use shardlight::comm::{
    Collective, CollectiveKind, Communicator, Group, LocalComm, Mesh, Part, Placement, Reduce,
    Sharding, World,
};
use shardlight::device::{Buffer, Device, Purpose, register};
use shardlight::session::{Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::tensor::Tensor;
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight_cli::cuda::nccl::{Choice, choose};
use shardlight_cli::cuda::{BACKEND, BoundsPolicy, CudaDevice, Kernels};
use shardlight_tests::cuda::{nccl_counters, several};
use shardlight_tests::golden::greedy;
use shardlight_tests::program;

/// Ranks on devices of their own, joined by NCCL.
fn world(ranks: usize) -> World {
    let placed = (0..ranks).map(|rank| {
        let placement = Placement::new(Mesh::tensor(ranks), rank, Split::even(ranks), false);
        let device = CudaDevice::open(rank, BoundsPolicy::Check, Kernels::Generated);
        let device: Rc<dyn Device> = Rc::new(device.unwrap_or_else(|e| panic!("{e}")));
        (placement.unwrap_or_else(|e| panic!("{e}")), device)
    });
    let world = World::new(placed.collect(), Rc::new(LocalComm));
    let mut world = world.unwrap_or_else(|e| panic!("{e}"));
    choose(Choice::Nccl, &mut world).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(world.communicator().name(), "nccl");
    world
}

/// Numbers whose sums depend on their order and do not overflow.
fn data(dtype: DType, rank: usize, len: usize) -> Vec<u8> {
    let bits = |i: usize| {
        let mut x = (i * 4096 + rank + 1) as u64;
        // xorshift64 (Marsaglia 2003).
        for _ in 0..3 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        x
    };
    let mut bytes = Vec::new();
    for x in (0..len).map(bits) {
        let (sign, mantissa, exponent) = (x >> 63, x >> 16, x % 16);
        match dtype {
            DType::F32 => {
                let x = sign << 31 | (exponent + 115) << 23 | mantissa & 0x7f_ffff;
                bytes.extend((x as u32).to_le_bytes());
            }
            DType::F16 => {
                let x = sign << 15 | (exponent + 3) << 10 | mantissa & 0x3ff;
                bytes.extend((x as u16).to_le_bytes());
            }
            _ => bytes.extend((x as u32).to_le_bytes()),
        }
    }
    bytes
}

type Shape = Option<Vec<usize>>;

/// One rank's part: what it does, gives and gets.
struct Case {
    kind: CollectiveKind,
    dtype: DType,
    input: Shape,
    output: Shape,
    counts: Option<Vec<u32>>,
}

/// A collective by its shapes on each rank.
fn all(
    ranks: usize,
    dtype: DType,
    of: impl Fn(usize) -> (CollectiveKind, Shape, Shape),
) -> Vec<Case> {
    let case = |rank| {
        let (kind, input, output) = of(rank);
        Case {
            kind,
            dtype,
            input,
            output,
            counts: None,
        }
    };
    (0..ranks).map(case).collect()
}

/// Every kind, with parts that differ in size and some that are empty. Devices read and write words of 4 bytes.
fn cases(ranks: usize) -> Vec<Vec<Case>> {
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::U32] {
        let unit = if dtype == DType::F16 { 2 } else { 1 };
        for reduce in [Reduce::Sum, Reduce::Max] {
            for n in [unit, 3 * unit, 1031 * unit, 40_002] {
                let kind = CollectiveKind::AllReduce(reduce);
                cases.push(all(ranks, dtype, |_| {
                    (kind.clone(), Some(vec![n]), Some(vec![n]))
                }));
            }
            let lens: Vec<usize> = (0..ranks).map(|rank| unit * (rank * 5 % 4)).collect();
            let total = lens.iter().sum();
            let kind = CollectiveKind::ReduceScatter {
                reduce,
                lens: lens.clone(),
            };
            cases.push(all(ranks, dtype, |rank| {
                let output = vec![lens[rank], 7];
                (kind.clone(), Some(vec![total, 7]), Some(output))
            }));
        }
        for axis in 0..3 {
            let lens: Vec<usize> = (0..ranks).map(|rank| 2 * ((rank + 2) % 3)).collect();
            let shape = |len| {
                let mut shape = vec![3, 5, 9];
                shape[axis] = len;
                Some(shape)
            };
            let kind = CollectiveKind::AllGather {
                axis,
                lens: lens.clone(),
            };
            let total = lens.iter().sum();
            cases.push(all(ranks, dtype, |rank| {
                (kind.clone(), shape(lens[rank]), shape(total))
            }));
        }
        for root in 0..ranks {
            cases.push(all(ranks, dtype, |rank| {
                let shape = Some(vec![4, 11]);
                let input = shape.clone().filter(|_| rank == root);
                (CollectiveKind::Broadcast { root }, input, shape)
            }));
        }
        let rows = |from: usize, to: usize| unit * ((from * 3 + to * 2) % 4);
        cases.push(all(ranks, dtype, |rank| {
            let sends: Vec<usize> = (0..ranks).map(|to| rows(rank, to)).collect();
            let receives: Vec<usize> = (0..ranks).map(|from| rows(from, rank)).collect();
            let shape = |rows: &[usize]| Some(vec![rows.iter().sum(), 3]);
            let (input, output) = (shape(&sends), shape(&receives));
            (CollectiveKind::AllToAll { sends, receives }, input, output)
        }));
        cases.push(all(ranks, dtype, |rank| {
            let shape = Some(vec![2 * 1511]);
            match rank {
                0 => (CollectiveKind::Send { to: ranks - 1 }, shape, None),
                // The others have nothing to do.
                _ => (
                    CollectiveKind::Receive { from: 0 },
                    None,
                    shape.filter(|_| rank == ranks - 1),
                ),
            }
        }));
    }
    for back in [false, true] {
        let kind = CollectiveKind::AllToAllCounted { back };
        let shape = Some(vec![ranks, 5, 6]);
        let mut one = all(ranks, DType::F32, |_| {
            (kind.clone(), shape.clone(), shape.clone())
        });
        for case in &mut one {
            let count = |i: usize| ((i / ranks * 2 + i % ranks * 3) % 6) as u32;
            case.counts = Some((0..ranks * ranks).map(count).collect());
        }
        cases.push(one);
    }
    cases
}

/// A collective with its memory.
struct Bound {
    collective: Collective,
    buffers: [Option<Buffer>; 3],
}

async fn bound(device: &dyn Device, case: &Case, group: Group) -> shardlight::Result<Bound> {
    let memory = async |dtype: DType, shape: &Shape, bytes: Vec<u8>| {
        let Some(shape) = shape else {
            return Ok((None, None));
        };
        let n: usize = shape.iter().product();
        let size = dtype.bytes(n).unwrap_or_default() as u64;
        let buffer = device
            .alloc(size.max(4), Purpose::Activations, "test")
            .await?;
        if !bytes.is_empty() {
            device.write(&buffer, 0, &bytes)?;
        }
        let tensor = Tensor::of(buffer.clone(), dtype, shape);
        shardlight::Result::Ok((Some(tensor), Some(buffer)))
    };
    let (rank, ranks) = (group.ranks[group.me], group.len());
    let len = case.input.iter().flatten().product::<usize>();
    let given = if case.input.is_some() { len } else { 0 };
    let bytes = data(case.dtype, rank, given);
    let (input, input_buffer) = memory(case.dtype, &case.input, bytes).await?;
    let (output, output_buffer) = memory(case.dtype, &case.output, Vec::new()).await?;
    let shape = case.counts.as_ref().map(|_| vec![ranks, ranks]);
    let counts = case.counts.iter().flatten().copied();
    let counts: Vec<u8> = counts.flat_map(u32::to_le_bytes).collect();
    let (counts, counts_buffer) = memory(DType::U32, &shape, counts).await?;
    Ok(Bound {
        collective: Collective {
            kind: case.kind.clone(),
            group: Rc::new(group),
            input,
            output,
            counts,
        },
        buffers: [input_buffer, output_buffer, counts_buffer],
    })
}

/// What each rank got and sent.
type Results = (Vec<Vec<u8>>, Vec<u64>);

async fn perform(
    world: &World,
    by: &dyn Communicator,
    ranks: &[usize],
    cases: &[Case],
) -> shardlight::Result<Results> {
    let mut members = Vec::new();
    for (me, case) in cases.iter().enumerate() {
        if case.input.is_none() && case.output.is_none() {
            continue;
        }
        let group = Group {
            ranks: ranks.to_vec(),
            me,
        };
        let device = world.device(ranks[me]).as_ref();
        members.push((device, bound(device, case, group).await?));
    }
    let mut parts = Vec::new();
    for (device, bound) in &members {
        let [input, output, counts] = &bound.buffers;
        parts.push(Part {
            device: *device,
            collective: &bound.collective,
            input: input.as_ref(),
            output: output.as_ref(),
            counts: counts.as_ref(),
        });
    }
    let sent = by.perform(&parts).await?;
    let mut found = Vec::new();
    for part in &parts {
        found.push(match (part.output, &part.collective.output) {
            (Some(buffer), Some(tensor)) => part.device.read(buffer, 0, tensor.bytes()).await?,
            _ => Vec::new(),
        });
    }
    Ok((found, sent))
}

#[test]
fn collectives_give_the_bits_and_bytes_of_host_memory() {
    if !several(4) {
        return;
    }
    let mut checked = 0;
    for size in [2, 3, 4] {
        let world = world(size);
        let by_nccl = world.communicator().as_ref();
        // All ranks, the other way round, a pair.
        let mut groups: Vec<Vec<usize>> = vec![(0..size).collect(), (0..size).rev().collect()];
        groups.push(vec![size - 1, 0]);
        for ranks in groups {
            for cases in cases(ranks.len()) {
                let what = format!("{:?} of {} among {ranks:?}", cases[0].kind, cases[0].dtype);
                let run = |by| block_on(perform(&world, by, &ranks, &cases));
                let want = run(&LocalComm).unwrap_or_else(|e| panic!("{what}: {e}"));
                let before = nccl_counters();
                // Twice: the second time, graphs are captured and memory is used again.
                for _ in 0..2 {
                    let got = run(by_nccl).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(got.1, want.1, "{what}: bytes sent");
                    assert!(got.0 == want.0, "{what}: other bits");
                }
                let summed = matches!(
                    cases[0].kind,
                    CollectiveKind::AllReduce(_) | CollectiveKind::ReduceScatter { .. }
                );
                if let (Some(before), Some(after)) = (before, nccl_counters()) {
                    // Other tests use the library too: at least these.
                    let bytes = if summed && cases[0].dtype != DType::F32 {
                        0
                    } else {
                        2 * want.1.iter().sum::<u64>()
                    };
                    assert!(after[2] - before[2] >= bytes, "{what}: not by NCCL");
                }
                checked += 1;
            }
        }
    }
    println!("nccl: {checked} collectives have the bits and bytes of host memory");
}

#[test]
fn ranks_that_do_not_agree_are_told_and_do_not_wait() {
    if !several(2) {
        return;
    }
    let world = world(2);
    let mut cases = all(2, DType::F32, |_| {
        let kind = CollectiveKind::AllToAll {
            sends: vec![1, 1],
            receives: vec![1, 1],
        };
        (kind, Some(vec![2, 3]), Some(vec![2, 3]))
    });
    cases[1].kind = CollectiveKind::AllToAll {
        sends: vec![2, 0],
        receives: vec![1, 1],
    };
    let told = block_on(perform(
        &world,
        world.communicator().as_ref(),
        &[0, 1],
        &cases,
    ));
    let told = told.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(told.contains("ranks do not agree"), "{told}");
}

const PROMPT: &str = "Once upon a time";

/// What a model says, its devices and what joins them.
fn say(name: &str, devices: &[&str], mesh: Mesh, sequence: bool) -> (String, &'static str) {
    register(&BACKEND);
    let found = builtin::MODELS.iter().find(|(n, _)| *n == name);
    let (_, bytes) = found.expect("it is compiled in");
    let files = ModelFiles::open(vec![Rc::new(BytesSource::new(name, *bytes))]);
    let files = block_on(files).unwrap_or_else(|e| panic!("{e}"));
    let device = |d: &&str| d.parse().unwrap_or_else(|e| panic!("{e}"));
    let sharding = Sharding {
        mesh,
        sequence_parallel: sequence,
        devices: devices.iter().map(device).collect(),
        ..Sharding::default()
    };
    let opened = block_on(sharding.open(0, &|| 0.0, &|device| device));
    let mut world = opened.unwrap_or_else(|e| panic!("{e}")).world;
    choose(Choice::Auto, &mut world).unwrap_or_else(|e| panic!("{e}"));
    let by = world.communicator().name();
    let quiet = &mut |_| ControlFlow::Continue(());
    let loaded = block_on(Session::load(
        files,
        world,
        SessionOptions::default(),
        quiet,
    ));
    let mut session = loaded.unwrap_or_else(|e| panic!("{e}"));
    let tokenizer = session.tokenizer().expect("the file has a tokenizer");
    let prompt = tokenizer.encode(PROMPT, true, false);
    let prompt = prompt.unwrap_or_else(|e| panic!("{e}"));
    (greedy(&mut session, &prompt, 24).1, by)
}

fn mesh(tp: usize, pp: usize, ep: usize) -> Mesh {
    Mesh {
        tp,
        pp,
        ep,
        ..Mesh::default()
    }
}

const CUDA: [&str; 4] = ["cuda:0", "cuda:1", "cuda:2", "cuda:3"];

#[test]
fn models_on_several_devices_say_what_they_say_on_one() {
    if !several(4) {
        return;
    }
    let (dense, moe) = (builtin::TINY_NAME, builtin::TINY_MOE_NAME);
    for (name, layouts) in [
        (
            dense,
            &[(2, 1, 1, false), (4, 1, 1, true), (2, 2, 1, false)][..],
        ),
        (moe, &[(2, 1, 1, false), (4, 1, 2, false), (2, 1, 2, true)]),
    ] {
        let (want, _) = say(name, &["cpu"], mesh(1, 1, 1), false);
        for (tp, pp, ep, sequence) in layouts {
            let mesh = mesh(*tp, *pp, *ep);
            let (got, by) = say(name, &CUDA[..tp * pp], mesh, *sequence);
            assert_eq!((got, by), (want.clone(), "nccl"), "{name}, {mesh}");
            println!("nccl: {name}, {mesh}, sequence parallel: {sequence}: the same text");
        }
    }
}

#[test]
fn devices_of_several_backends_share_a_model() {
    if !several(3) {
        return;
    }
    // `cargo xtest cuda` runs this with Vulkan too; without it the CPU has its place.
    let other = if has_vulkan() { "vulkan" } else { "cpu" };
    println!("nccl: cuda:0, cuda:1, {other}, cpu in one layout");
    let (want, _) = say(builtin::TINY_NAME, &["cpu"], mesh(1, 1, 1), false);
    // NCCL joins some groups, host memory the others.
    for devices in [
        ["cuda:0", "cuda:1", other, "cpu"],
        ["cuda:0", "cuda:1", "cpu", "cuda:2"],
        ["cuda:0", "cuda:0", "cuda:1", other],
    ] {
        for (tp, pp) in [(2, 2), (4, 1)] {
            let (got, by) = say(builtin::TINY_NAME, &devices, mesh(tp, pp, 1), false);
            assert_eq!((got, by), (want.clone(), "nccl"), "{devices:?}, tp {tp}");
        }
    }
}

fn has_vulkan() -> bool {
    let choice = "vulkan".parse().unwrap_or_else(|e| panic!("{e}"));
    let found = block_on(shardlight::device::open(&choice));
    let wanted = env::var("SHARDLIGHT_REQUIRE_VULKAN").is_ok_and(|v| v == "1");
    assert!(found.is_ok() || !wanted, "no Vulkan adapter");
    found.is_ok()
}

fn command(more: &[&str]) -> Command {
    let mut command = Command::new(program("shardlight"));
    command.args(["run", "-m", builtin::TINY_NAME, "-n", "8", "--json"]);
    command.args(more).arg(PROMPT);
    command
}

/// The one line of an error.
fn told(output: &Output) -> String {
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors = text.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{text}");
    text
}

#[test]
fn the_command_chooses_and_says_why_it_cannot() {
    if !several(2) {
        return;
    }
    let pair = ["--tp", "2", "--devices", "cuda:0,cuda:1"];
    for (choice, joined) in [("auto", true), ("nccl", true), ("host", false)] {
        let output = command(&["--comm", choice]).args(pair).output();
        let output = output.expect("it starts");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.contains("joined by NCCL"), joined, "{choice}: {text}");
    }
    for (args, reason) in [
        (
            &["--tp", "2", "--devices", "cuda:0,cpu"][..],
            "nccl: rank 1 is on ",
        ),
        (
            &["--tp", "2", "--device", "cuda"],
            "nccl: ranks 0 and 1 are both on one device, ",
        ),
        (&["--device", "cuda"], "nccl: there is one rank"),
    ] {
        let output = command(&["--comm", "nccl"]).args(args).output();
        let told = told(&output.expect("it starts"));
        assert!(told.contains(reason), "{told}");
    }
    // A library that is not there, where only NCCL is asked for; otherwise host memory does.
    let missing = |choice| {
        let mut command = command(&["--comm", choice]);
        command
            .args(pair)
            .env("SHARDLIGHT_NCCL", "/no/such/library");
        command.output().expect("it starts")
    };
    let output = missing("nccl");
    assert!(
        told(&output).contains("nccl: SHARDLIGHT_NCCL = /no/such/library"),
        "{output:?}"
    );
    let output = missing("auto");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("through host memory"),
        "{output:?}"
    );
}

#[test]
fn without_the_library_it_says_so() {
    if !several(2) || nccl_counters().is_none() {
        return;
    }
    // Driver and compiler without NCCL.
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["libcuda.so.1", "libnvrtc.so.13"] {
        let file = env::split_paths(&path)
            .map(|f| f.join(name))
            .find(|f| f.is_file());
        std::fs::copy(file.expect("it is there"), folder.path().join(name)).expect("a copy");
    }
    let mut command = command(&["--comm", "nccl", "--tp", "2", "--devices", "cuda:0,cuda:1"]);
    let output = command.env("LD_LIBRARY_PATH", folder.path()).output();
    let told = told(&output.expect("it starts"));
    assert!(
        told.contains("nccl: no NCCL library (libnccl.so.2) found"),
        "{told}"
    );
}

#[test]
fn a_collective_that_fails_ends_the_answer_with_a_reason() {
    if !several(2) || nccl_counters().is_none() {
        return;
    }
    let mut command = command(&["--comm", "nccl", "--tp", "2", "--devices", "cuda:0,cuda:1"]);
    let output = command.env("SHARDLIGHT_NCCL_HOST_FAIL", "7").output();
    let told = told(&output.expect("it starts"));
    let line = "NCCL: ncclGroupEnd: internal error: asked to fail";
    assert!(told.contains(line), "{told}");
}
