//! Loading a model keeps little of it in host memory, whatever its size.

use std::cell::Cell;
use std::rc::Rc;

use peak_alloc::PeakAlloc;
use shardlight::DType;
use shardlight::device::{
    Buffer, Device, DeviceInfo, DeviceKind, Layout, Ledger, Limits, Prepared, Purpose,
};
use shardlight::models;
use shardlight::recording::Recording;
use shardlight::weights::gguf::{MetaArray, MetaValue, Writer};
use shardlight::weights::source::{LocalFuture, check_range};
use shardlight::weights::{Loader, ModelFiles, WeightSource};
use shardlight::{Error, Result};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MOST: usize = 64 << 20;

/// A model of about 1.1 B parameters with a vocabulary like Llama 3's.
const LAYERS: usize = 16;
const WIDTH: usize = 2048;
const INNER: usize = 5632;
const KV: usize = 512;
const HEADS: u32 = 16;
const CONTEXT: u32 = 131_072;
const TOKENS: usize = 128_256;

/// A file whose header is real and whose tensors are made when they are read.
struct Synthetic {
    header: Vec<u8>,
    len: u64,
}

impl WeightSource for Synthetic {
    fn name(&self) -> &str {
        "synthetic.gguf"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            check_range(self.name(), offset, out.len() as u64, self.len)?;
            // 0x3c in every place makes small numbers of every type.
            out.fill(0x3c);
            if let Some(head) = self.header.get(offset as usize..) {
                let n = head.len().min(out.len());
                out[..n].copy_from_slice(&head[..n]);
            }
            Ok(())
        })
    }
}

/// A device with memory elsewhere: what is written is gone.
struct Remote {
    info: DeviceInfo,
    limits: Limits,
    ledger: Ledger,
    written: Cell<u64>,
}

impl Device for Remote {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn alloc<'a>(
        &'a self,
        bytes: u64,
        _: Purpose,
        _label: &'a str,
    ) -> LocalFuture<'a, Result<Buffer>> {
        Box::pin(async move { Ok(Buffer::new((), bytes)) })
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(offset + bytes.len() as u64 <= buffer.bytes());
        self.written.set(self.written.get() + bytes.len() as u64);
        Ok(())
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn read<'a>(&'a self, _: &'a Buffer, _: u64, _: u64) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async { Err(Error::Invalid("this device only takes".into())) })
    }

    fn prepare<'a>(&'a self, _: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        Box::pin(async { Err(Error::Invalid("this device only takes".into())) })
    }

    fn run_segment(&self, _: &Prepared, _: usize) -> Result<()> {
        Err(Error::Invalid("this device only takes".into()))
    }
}

fn remote() -> Remote {
    Remote {
        info: DeviceInfo {
            name: "remote".into(),
            backend: "none".into(),
            kind: DeviceKind::DiscreteGpu,
            driver: String::new(),
        },
        limits: Limits {
            kind: DeviceKind::DiscreteGpu,
            layout: Layout::Planar,
            max_binding_bytes: 128 << 20,
            max_workgroup_size: 256,
            max_workgroup_bytes: 16 << 10,
            max_workgroups: 65_535,
            subgroup: None,
            f16: false,
            packed_dot: false,
        },
        ledger: Ledger::default(),
        written: Cell::new(0),
    }
}

/// Words of lower-case letters, each with the merge that makes it of a shorter one.
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let letters = || ('a'..='z').map(String::from);
    let mut tokens: Vec<String> = letters().collect();
    let mut merges = Vec::new();
    let mut i = 0;
    while tokens.len() < TOKENS {
        let shorter = tokens[i].clone();
        for letter in letters().take(TOKENS - tokens.len()) {
            merges.push(format!("{shorter} {letter}"));
            tokens.push(format!("{shorter}{letter}"));
        }
        i += 1;
    }
    (tokens, merges)
}

fn tensors() -> Vec<(String, DType, Vec<usize>)> {
    let mut all = vec![
        (
            "token_embd.weight".to_string(),
            DType::Q6K,
            vec![TOKENS, WIDTH],
        ),
        ("output_norm.weight".to_string(), DType::F32, vec![WIDTH]),
    ];
    for layer in 0..LAYERS {
        let matrices = [
            ("attn_q", DType::Q4K, WIDTH, WIDTH),
            ("attn_k", DType::Q8_0, KV, WIDTH),
            ("attn_v", DType::F16, KV, WIDTH),
            ("attn_output", DType::Q4_0, WIDTH, WIDTH),
            ("ffn_gate", DType::Q4K, INNER, WIDTH),
            ("ffn_up", DType::Q4K, INNER, WIDTH),
            ("ffn_down", DType::Q6K, WIDTH, INNER),
        ];
        for (name, dtype, rows, cols) in matrices {
            all.push((
                format!("blk.{layer}.{name}.weight"),
                dtype,
                vec![rows, cols],
            ));
        }
        for name in ["attn_norm", "ffn_norm"] {
            all.push((
                format!("blk.{layer}.{name}.weight"),
                DType::F32,
                vec![WIDTH],
            ));
        }
    }
    all
}

/// The writer's header, and behind it the list of tensors whose data it never saw.
fn synthetic() -> Synthetic {
    let (tokens, merges) = vocabulary();
    let text = |text: &str| MetaValue::String(text.into());
    let number = |n: usize| MetaValue::U32(n as u32);
    let writer = Writer::new()
        .metadata("general.architecture", text("llama"))
        .metadata("llama.embedding_length", number(WIDTH))
        .metadata("llama.feed_forward_length", number(INNER))
        .metadata("llama.block_count", number(LAYERS))
        .metadata("llama.attention.head_count", MetaValue::U32(HEADS))
        .metadata(
            "llama.attention.head_count_kv",
            number(KV * HEADS as usize / WIDTH),
        )
        .metadata(
            "llama.attention.layer_norm_rms_epsilon",
            MetaValue::F32(1e-5),
        )
        .metadata("llama.context_length", MetaValue::U32(CONTEXT))
        .metadata("tokenizer.ggml.model", text("gpt2"))
        .metadata("tokenizer.ggml.pre", text("gpt-2"))
        .metadata(
            "tokenizer.ggml.token_type",
            MetaValue::Array(MetaArray::I32(vec![1; TOKENS])),
        )
        .metadata(
            "tokenizer.ggml.tokens",
            MetaValue::Array(MetaArray::String(tokens.into_iter().collect())),
        )
        .metadata(
            "tokenizer.ggml.merges",
            MetaValue::Array(MetaArray::String(merges.into_iter().collect())),
        );
    let mut header = writer.to_bytes().expect("a header without tensors");
    let tensors = tensors();
    header[8..16].copy_from_slice(&(tensors.len() as u64).to_le_bytes());
    let mut end = 0u64;
    for (name, dtype, shape) in tensors {
        header.extend((name.len() as u64).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend((shape.len() as u32).to_le_bytes());
        for &dim in shape.iter().rev() {
            header.extend((dim as u64).to_le_bytes());
        }
        let kind = (0..64u32).find(|&kind| DType::from_ggml(kind) == Some(dtype));
        header.extend(kind.expect("a type of ggml's").to_le_bytes());
        header.extend(end.to_le_bytes());
        let row = dtype.bytes(shape[shape.len() - 1]).expect("whole blocks") as u64;
        let rows: usize = shape[..shape.len() - 1].iter().product();
        end = (end + row * rows as u64).next_multiple_of(32);
    }
    header.resize(header.len().next_multiple_of(32), 0);
    let len = header.len() as u64 + end;
    Synthetic { header, len }
}

#[test]
fn loading_keeps_host_memory_below_64_mib() {
    let source = synthetic();
    let (bytes, header) = (source.len, source.header.len());
    assert!(bytes > 400 << 20, "{bytes} bytes");
    let source: Rc<dyn WeightSource> = Rc::new(source);
    let device = Rc::new(remote());
    // Threads and their memory are there once, not for each model.
    shardlight::device::cpu::for_each_chunk(&mut [0u8; 64], 1, |_, _| {});

    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let files = pollster::block_on(ModelFiles::open(vec![source])).expect("opens");
    let opened = MEMORY.peak_usage() - before;
    let mut told = 0;
    let mut progress = |done, total| {
        told = done;
        assert!(done <= total);
        Ok(())
    };
    let mut loader = Loader::new(&files, Rc::clone(&device) as Rc<dyn Device>, &mut progress);
    let model = pollster::block_on(models::load(&mut loader, CONTEXT as usize)).expect("loads");
    let peak = MEMORY.peak_usage() - before;
    println!(
        "{} MiB of GGUF ({} MiB header, {TOKENS} tokens, context of {CONTEXT}): \
         peak of {} KiB in host memory, {} KiB after the header",
        bytes >> 20,
        header >> 20,
        peak >> 10,
        opened >> 10
    );
    assert_eq!(told, files.bytes());
    assert!(device.written.get() >= files.bytes() * 9 / 10);
    assert_eq!(model.config().num_hidden_layers, LAYERS);
    assert!(peak < MOST, "peak of {peak} bytes, limit {MOST}");
}
