//! Checks an MPI installation: every collective between processes, against the same between ranks of one
//! process.
//!
//!     mpirun -n 4 mpi-collectives             prints `ok: … collectives …` on rank 0
//!     mpirun -n 4 mpi-collectives panic 1     all print their process id; rank 1 panics while the others wait for it
//!     mpirun -n 4 mpi-collectives wait        all print their process id; rank 0 sleeps, the others wait for it

use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use shardlight::DType;
use shardlight::comm::{
    Collective, CollectiveKind, Communicator as _, Group, LocalComm, Part, Reduce,
};
use shardlight::device::{self, Buffer, Device, DeviceChoice, Purpose};
use shardlight::tensor::Tensor;
use shardlight_cli::mpi::{self, MpiComm};

fn main() -> ExitCode {
    mpi::join(|comm| run(&comm))
}

fn run(comm: &MpiComm) -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let checked = check(comm)?;
            if comm.rank() == 0 {
                println!("ok: {checked} collectives among {} ranks", comm.size());
            }
        }
        ["panic", who] => {
            tell(comm);
            // Not before all have told.
            all_reduce(comm)?;
            assert_ne!(who.parse(), Ok(comm.rank()), "asked to panic");
            all_reduce(comm)?;
        }
        ["wait"] => {
            tell(comm);
            if comm.rank() == 0 {
                std::thread::sleep(std::time::Duration::from_secs(600));
            }
            all_reduce(comm)?;
        }
        _ => anyhow::bail!("usage: mpi-collectives [panic RANK | wait]"),
    }
    Ok(())
}

fn tell(comm: &MpiComm) {
    println!("rank {} is process {}", comm.rank(), std::process::id());
}

/// Numbers that are the same in every process, and whose sums depend on their order.
struct Random(u64);

impl Random {
    /// xorshift64 (Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn tensor(&mut self, dtype: DType, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..len {
            let bits = self.next();
            // Exponents from 2^-12 to 2^3: sums round differently in another order, and do not overflow.
            let (sign, mantissa, exponent) = (bits >> 63, bits >> 16, bits % 16);
            match dtype {
                DType::F32 => {
                    let x = sign << 31 | (exponent + 115) << 23 | mantissa & 0x7f_ffff;
                    bytes.extend((x as u32).to_le_bytes());
                }
                DType::F16 => {
                    let x = sign << 15 | (exponent + 3) << 10 | mantissa & 0x3ff;
                    bytes.extend((x as u16).to_le_bytes());
                }
                _ => bytes.extend((bits as u32).to_le_bytes()),
            }
        }
        bytes
    }
}

/// Shapes of a collective's input and output for each rank.
struct Case {
    name: String,
    dtype: DType,
    /// By place in the group.
    kinds: Vec<CollectiveKind>,
    inputs: Vec<Option<Vec<usize>>>,
    outputs: Vec<Option<Vec<usize>>>,
}

impl Case {
    fn same(
        kind: &CollectiveKind,
        dtype: DType,
        inputs: Vec<Vec<usize>>,
        outputs: Vec<Vec<usize>>,
    ) -> Self {
        Case {
            name: format!("{kind:?} of {dtype} from {inputs:?} to {outputs:?}"),
            dtype,
            kinds: vec![kind.clone(); inputs.len()],
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: outputs.into_iter().map(Some).collect(),
        }
    }
}

/// Lengths with ones that do not divide, and zeros. Even, since devices write whole words of 4 bytes.
fn cases(ranks: usize, random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::U32] {
        for reduce in [Reduce::Sum, Reduce::Max] {
            for n in [2, 6, 1030, 40_002] {
                let kind = CollectiveKind::AllReduce(reduce);
                let shapes = vec![vec![n]; ranks];
                cases.push(Case::same(&kind, dtype, shapes.clone(), shapes));
            }
            let lens: Vec<usize> = (0..ranks).map(|_| 2 * random.below(5)).collect();
            let total = lens.iter().sum::<usize>();
            if total > 0 {
                let outputs = lens.iter().map(|rows| vec![*rows, 7]).collect();
                let kind = CollectiveKind::ReduceScatter { reduce, lens };
                cases.push(Case::same(
                    &kind,
                    dtype,
                    vec![vec![total, 7]; ranks],
                    outputs,
                ));
            }
        }
        for axis in 0..3 {
            let mut lens: Vec<usize> = (0..ranks).map(|_| 2 * random.below(4)).collect();
            lens[0] += 2;
            let shape = |len| {
                let mut shape = vec![3, 5, 9];
                shape[axis] = len;
                shape
            };
            let inputs = lens.iter().map(|len| shape(*len)).collect();
            let outputs = vec![shape(lens.iter().sum()); ranks];
            let kind = CollectiveKind::AllGather { axis, lens };
            cases.push(Case::same(&kind, dtype, inputs, outputs));
        }
        for root in 0..ranks {
            let shapes = vec![vec![4, 11]; ranks];
            let kind = CollectiveKind::Broadcast { root };
            let mut case = Case::same(&kind, dtype, shapes.clone(), shapes);
            for place in (0..ranks).filter(|place| *place != root) {
                case.inputs[place] = None;
            }
            cases.push(case);
        }
        cases.push(all_to_all(ranks, dtype, random));
        if ranks > 1 {
            cases.push(send(ranks, dtype, random));
        }
    }
    cases
}

fn all_to_all(ranks: usize, dtype: DType, random: &mut Random) -> Case {
    let rows: Vec<Vec<usize>> = (0..ranks)
        .map(|_| (0..ranks).map(|_| 2 * random.below(4)).collect())
        .collect();
    let received = |to: usize| rows.iter().map(|from| from[to]).collect::<Vec<_>>();
    let shape = |rows: &[usize]| Some(vec![rows.iter().sum(), 3]);
    let receives: Vec<Vec<usize>> = (0..ranks).map(received).collect();
    let kind = |(sends, receives): (&Vec<usize>, &Vec<usize>)| CollectiveKind::AllToAll {
        sends: sends.clone(),
        receives: receives.clone(),
    };
    Case {
        name: format!("all-to-all of {dtype}, rows {rows:?}"),
        dtype,
        kinds: rows.iter().zip(&receives).map(kind).collect(),
        inputs: rows.iter().map(|r| shape(r)).collect(),
        outputs: receives.iter().map(|r| shape(r)).collect(),
    }
}

/// From one rank to another; nobody else takes part, so the group is those two.
fn send(ranks: usize, dtype: DType, random: &mut Random) -> Case {
    let from = random.below(ranks);
    let to = (from + 1 + random.below(ranks - 1)) % ranks;
    let shape = vec![2 * (1 + random.below(3000))];
    let mut case = Case {
        name: format!("{dtype} from {from} to {to}"),
        dtype,
        kinds: vec![CollectiveKind::Receive { from }; ranks],
        inputs: vec![None; ranks],
        outputs: vec![None; ranks],
    };
    case.kinds[from] = CollectiveKind::Send { to };
    case.inputs[from] = Some(shape.clone());
    case.outputs[to] = Some(shape);
    case
}

/// A collective with its memory.
struct Bound {
    collective: Collective,
    input: Option<Buffer>,
    output: Option<Buffer>,
}

impl Bound {
    async fn new(device: &dyn Device, case: &Case, group: Group, data: &[u8]) -> Result<Self> {
        let me = group.me;
        let tensor = async |shape: &Option<Vec<usize>>, label| -> Result<Option<Tensor>> {
            let Some(shape) = shape else { return Ok(None) };
            let bytes = case.dtype.bytes(shape.iter().product()).context("shape")? as u64;
            // No device allocates nothing.
            let buffer = device
                .alloc(bytes.max(4), Purpose::Activations, label)
                .await?;
            Ok(Some(Tensor::of(buffer, case.dtype, shape)))
        };
        let input = tensor(&case.inputs[me], "input").await?;
        let output = tensor(&case.outputs[me], "output").await?;
        let bound = Bound {
            input: input.as_ref().and_then(buffer),
            output: output.as_ref().and_then(buffer),
            collective: Collective {
                kind: case.kinds[me].clone(),
                group: Rc::new(group),
                input,
                output,
                counts: None,
            },
        };
        if let Some(buffer) = &bound.input {
            device.write(buffer, 0, data)?;
        }
        Ok(bound)
    }

    fn part<'a>(&'a self, device: &'a dyn Device) -> Part<'a> {
        Part {
            device,
            collective: &self.collective,
            input: self.input.as_ref(),
            output: self.output.as_ref(),
            counts: None,
        }
    }

    async fn result(&self, device: &dyn Device) -> Result<Vec<u8>> {
        match (&self.output, &self.collective.output) {
            (Some(buffer), Some(tensor)) => Ok(device.read(buffer, 0, tensor.bytes()).await?),
            _ => Ok(Vec::new()),
        }
    }
}

fn buffer(tensor: &Tensor) -> Option<Buffer> {
    match &tensor.storage {
        shardlight::tensor::Storage::Buffer(buffer) => Some(buffer.clone()),
        shardlight::tensor::Storage::Scratch(_) => None,
    }
}

/// Groups that every process lists in the same order: all ranks, their reverse, every other one, pairs.
fn groups(size: usize) -> Vec<Vec<usize>> {
    let mut groups = vec![(0..size).collect::<Vec<_>>()];
    if size > 1 {
        groups.push((0..size).rev().collect());
        groups.push((0..size).step_by(2).collect());
        groups.extend((1..size).map(|rank| vec![rank - 1, rank]));
    }
    groups
}

fn check(comm: &MpiComm) -> Result<usize> {
    let device = pollster::block_on(device::open(&DeviceChoice::Cpu))?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut checked = 0;
    for ranks in groups(comm.size()) {
        for case in cases(ranks.len(), &mut random) {
            let mut data = Vec::new();
            for shape in &case.inputs {
                let len = shape.as_ref().map_or(0, |shape| shape.iter().product());
                data.push(random.tensor(case.dtype, len));
            }
            if let Some(me) = ranks.iter().position(|rank| *rank == comm.rank()) {
                let compared = compare(comm, &*device, &case, &ranks, me, &data);
                pollster::block_on(compared)
                    .with_context(|| format!("{} among {ranks:?}", case.name))?;
                checked += 1;
            }
        }
    }
    Ok(checked)
}

async fn compare(
    comm: &MpiComm,
    device: &dyn Device,
    case: &Case,
    ranks: &[usize],
    me: usize,
    data: &[Vec<u8>],
) -> Result<()> {
    let group = |me| Group {
        ranks: ranks.to_vec(),
        me,
    };
    let mut local = Vec::new();
    for (place, data) in data.iter().enumerate() {
        local.push(Bound::new(device, case, group(place), data).await?);
    }
    // In a send the others have nothing to do.
    let takes_part = |b: &Bound| b.collective.input.is_some() || b.collective.output.is_some();
    let parts: Vec<Part<'_>> = local
        .iter()
        .filter(|b| takes_part(b))
        .map(|b| b.part(device))
        .collect();
    LocalComm.perform(&parts).await?;
    if !takes_part(&local[me]) {
        return Ok(());
    }
    let bound = Bound::new(device, case, group(me), &data[me]).await?;
    let sent = comm.perform(&[bound.part(device)]).await?;
    let (got, want) = (bound.result(device).await?, local[me].result(device).await?);
    ensure!(got == want, "other bits than between ranks of one process");
    let said = bound.collective.bytes_sent();
    ensure!(sent == [said], "{sent:?} bytes were sent, expected {said}");
    Ok(())
}

/// Waits for everybody.
fn all_reduce(comm: &MpiComm) -> Result<()> {
    let device = pollster::block_on(device::open(&DeviceChoice::Cpu))?;
    let kind = CollectiveKind::AllReduce(Reduce::Sum);
    let shapes = vec![vec![64]; comm.size()];
    let case = Case::same(&kind, DType::F32, shapes.clone(), shapes);
    let group = Group {
        ranks: (0..comm.size()).collect(),
        me: comm.rank(),
    };
    pollster::block_on(async {
        let bound = Bound::new(&*device, &case, group, &[0; 256]).await?;
        comm.perform(&[bound.part(&*device)]).await?;
        Ok(())
    })
}
