//! Measures the CPU device's kernels on the shapes of SmolLM2-135M, interleaved, and prints the
//! best of several rounds: `cargo run --release --no-default-features --example cpu_dot`.

use std::time::Instant;

use shardlight::DType;
use shardlight::device::cpu::{CpuDevice, Level, attention, force_level, instruction_set, linear};
use shardlight::device::{Buffer, Device, Purpose};
use shardlight::kernels::{Access, Binding, Kernel, Params};
use shardlight::recording::Recording;
use shardlight::tensor::{Storage, Tensor};

static LINEAR: Kernel = Kernel {
    name: "linear",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("w", Access::Weight),
        Binding::optional("bias", Access::Read),
        Binding::optional("residual", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &[],
    variants: |_, _| Vec::new(),
    cpu: linear,
    reference: |_, _| (),
    cases: Vec::new,
};

static ATTENTION: Kernel = Kernel {
    name: "attention",
    bindings: &[
        Binding::new("q", Access::Read),
        Binding::new("k_cache", Access::Read),
        Binding::new("v_cache", Access::Read),
        Binding::new("step", Access::Uniform),
        Binding::new("y", Access::Write),
    ],
    uniforms: &[],
    variants: |_, _| Vec::new(),
    cpu: attention,
    reference: |_, _| (),
    cases: Vec::new,
};

/// Something to time: a recording, how often it does the work, and the work's size.
struct Job {
    name: String,
    recording: Recording,
    calls: usize,
    work: f64,
    unit: &'static str,
    best: f64,
}

fn tensor(device: &CpuDevice, bytes: &[u8]) -> Tensor {
    let padded: Vec<u8> = bytes.iter().copied().chain([0; 16]).collect();
    let len = padded.len() / 4 * 4;
    let buffer: Buffer =
        pollster::block_on(device.alloc(len as u64, Purpose::Activations, "bench")).unwrap();
    device.write(&buffer, 0, &padded[..len]).unwrap();
    Tensor::new(Storage::Buffer(buffer), DType::F32, &[len / 4])
}

fn floats(len: usize) -> Vec<u8> {
    let value = |i: usize| ((i * 7919 % 1000) as f32 / 500.0 - 1.0).to_le_bytes();
    (0..len).flat_map(value).collect()
}

fn linear_job(
    device: &CpuDevice,
    name: &str,
    dtype: DType,
    (tokens, n, k): (usize, usize, usize),
    calls: usize,
) -> Job {
    let bytes = dtype.bytes(k).unwrap() * n;
    // Bits do not matter to the speed as long as no scale is NaN: 0x2C.. is 0.06 as an f16.
    let weight: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8 & 0x2F).collect();
    let x = tensor(device, &floats(tokens * k));
    let y = tensor(device, &floats(tokens * n));
    let params = Params::new()
        .u32("K", k as u32)
        .dtype("W", dtype)
        .u32("T", tokens as u32)
        .u32("N", n as u32)
        .u32("NY", n as u32);
    let mut recording = Recording::new();
    for _ in 0..calls {
        let w = tensor(device, &weight);
        let bindings = vec![Some(x.clone()), Some(w), None, None, Some(y.clone())];
        recording.push(&LINEAR, params.clone(), bindings).unwrap();
    }
    let (work, unit) = match tokens {
        1 => ((n * k) as f64 / 1e9, "G weights/s"),
        _ => (2.0 * (tokens * n * k) as f64 / 1e9, "GFLOP/s"),
    };
    Job {
        name: format!("{name} {dtype} T={tokens} {n}x{k}"),
        recording,
        calls,
        work,
        unit,
        best: f64::INFINITY,
    }
}

fn attention_job(device: &CpuDevice, tokens: usize, position: usize, f16: bool) -> Job {
    let (heads, kv_heads, d, capacity) = (9, 3, 64, position + tokens);
    let cache_bytes = kv_heads * capacity * d * if f16 { 2 } else { 4 };
    let step: Vec<u8> = [position as u32, 0, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let cache: Vec<u8> = (0..cache_bytes)
        .map(|i| (i * 31 % 251) as u8 & 0x2F)
        .collect();
    let bindings = [
        tensor(device, &floats(tokens * heads * d)),
        tensor(device, &cache),
        tensor(device, &cache),
        tensor(device, &step),
        tensor(device, &floats(tokens * heads * d)),
    ];
    let params = Params::new()
        .u32("H", heads as u32)
        .u32("KVH", kv_heads as u32)
        .u32("D", d as u32)
        .f32("SCALE", 0.125)
        .bool("KV_F16", f16)
        .u32("T", tokens as u32)
        .u32("S", capacity as u32);
    let (mut recording, calls) = (Recording::new(), if tokens == 1 { 30 } else { 1 });
    for _ in 0..calls {
        let bindings = bindings.iter().cloned().map(Some).collect();
        recording
            .push(&ATTENTION, params.clone(), bindings)
            .unwrap();
    }
    Job {
        name: format!(
            "attention T={tokens} pos={position} {}",
            if f16 { "f16" } else { "f32" }
        ),
        recording,
        calls,
        work: 1e-6,
        unit: "µs",
        best: f64::INFINITY,
    }
}

fn main() {
    let level = std::env::args().nth(1);
    let level = Level::available().find(|l| Some(l.name()) == level.as_deref());
    force_level(level.unwrap_or(Level::best()));
    let device = CpuDevice::new();
    println!("{} on {}", instruction_set(), device.info());
    let mut jobs = Vec::new();
    for &dtype in DType::WEIGHTS {
        jobs.push(linear_job(&device, "in cache", dtype, (1, 256, 1536), 64));
        jobs.push(linear_job(
            &device,
            "from memory",
            dtype,
            (1, 8192, 1536),
            12,
        ));
    }
    jobs.push(linear_job(
        &device,
        "dispatch",
        DType::Q4_1,
        (1, 16, 32),
        270,
    ));
    jobs.push(linear_job(
        &device,
        "dispatch",
        DType::Q4_1,
        (1, 192, 576),
        270,
    ));
    jobs.push(linear_job(
        &device,
        "dispatch",
        DType::Q4_1,
        (1, 576, 576),
        270,
    ));
    for tokens in [4, 8, 16, 64, 512] {
        jobs.push(linear_job(
            &device,
            "tokens",
            DType::Q4_1,
            (tokens, 1536, 576),
            1,
        ));
    }
    for (n, k) in [(576, 576), (1536, 576), (576, 1536), (4096, 4096)] {
        jobs.push(linear_job(&device, "matmul", DType::Q4_1, (512, n, k), 1));
    }
    for (tokens, position) in [(1, 15), (1, 127), (1, 511), (1, 2047), (512, 0)] {
        jobs.push(attention_job(&device, tokens, position, true));
    }
    jobs.push(attention_job(&device, 1, 511, false));
    let prepare = |job: &Job| pollster::block_on(device.prepare(&job.recording)).unwrap();
    let prepared: Vec<_> = jobs.iter().map(prepare).collect();
    for _ in 0..15 {
        for (job, prepared) in jobs.iter_mut().zip(&prepared) {
            let start = Instant::now();
            device.run(prepared).unwrap();
            job.best = job
                .best
                .min(start.elapsed().as_secs_f64() / job.calls as f64);
        }
    }
    for job in &jobs {
        let microseconds = job.best * 1e6;
        match job.unit {
            "µs" => println!("{:44} {microseconds:9.1} µs", job.name),
            unit => {
                let rate = job.work / job.best;
                println!("{:44} {microseconds:9.1} µs {rate:8.1} {unit}", job.name);
            }
        }
    }
}
