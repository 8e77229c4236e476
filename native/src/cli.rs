//! The command line: every flag, its default and its help.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use shardlight::DType;
use shardlight::comm::{Mesh, Sharding, SplitChoice};
use shardlight::device::{Backend, DeviceChoice, DeviceInfo};
use shardlight::kv_cache::KvDType;

use crate::cuda::{self, Kernels, nccl};
use crate::exit::usage;
use crate::form::FormArgs;
use crate::job;
use crate::models::catalogue::DEFAULT;

/// The type of a weight's elements.
fn dtype(name: &str) -> Result<DType, String> {
    let found = DType::WEIGHTS.iter().find(|d| d.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = DType::WEIGHTS.iter().map(|d| d.name()).collect();
        format!("supported: {}", names.join(", "))
    })
}

/// Run language models on the GPU or CPU of this machine.
#[derive(Parser, Debug)]
#[command(name = "shardlight", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Print nothing on standard error but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Answer one prompt.
    Run(Run),
    /// Talk with a model.
    Chat(Chat),
    /// Print what a model file holds.
    Info(Info),
    /// List the devices of this machine and which one `--device auto` takes.
    Devices(Devices),
    /// Print the tokens of a text.
    Tokenize(Tokenize),
    /// Print the logits of the position after the given tokens.
    Logits(Logits),
    /// Measure how surprised a model is by a text.
    Perplexity(Perplexity),
    /// Measure prefill and decode speed.
    Bench(Bench),
    /// Predict memory, bytes and times of a layout of ranks on devices that need not be here.
    Plan(Plan),
    /// Run one kernel or layer on tensors from files, or list them all.
    Op(Op),
    /// Make a model file out of another.
    Synth(Synth),
    /// Download a model of the catalogue, or check it again.
    Pull(Pull),
    /// List the models of the catalogue and the files in the cache.
    List(List),
    /// Print a completion script for a shell.
    Completions(Completions),
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The prompt; words are joined by spaces. `-`, or nothing when standard input is not a terminal,
    /// reads it from there.
    #[arg(value_name = "PROMPT")]
    pub prompt: Vec<String>,
    /// Answer every line of this file; with --dp, replicas answer side by side.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompts: Option<PathBuf>,
    /// Continue the text as it is, without the model's chat template.
    #[arg(long)]
    pub raw: bool,
    /// With --json: how likely each token was, and this many of the likeliest ones.
    #[arg(long, value_name = "N", requires = "json", value_parser = clap::value_parser!(u8).range(0..=20))]
    pub logprobs: Option<u8>,
    /// Functions that the model may call: a JSON list in the shape of OpenAI's `tools`. Calls are printed as JSON, one a
    /// line, behind what is said.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "prompts"])]
    pub tools: Option<PathBuf>,
    /// Whether it calls: `auto` as it likes, `none`, `required`, or the name of a function that it calls.
    #[arg(
        long,
        value_name = "CHOICE",
        requires = "tools",
        conflicts_with = "FormArgs"
    )]
    pub tool_choice: Option<String>,
    /// Measure each kernel: a table on standard error, and a timeline for ui.perfetto.dev in FILE. The answer takes longer.
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    pub profile: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    pub talk: Talk,
    #[command(flatten)]
    pub model: Model,
}

/// Arguments of `chat`.
#[derive(Args, Debug)]
pub struct Chat {
    #[command(flatten)]
    pub talk: Talk,
    #[command(flatten)]
    pub model: Model,
}

/// Arguments of `info`.
#[derive(Args, Debug)]
pub struct Info {
    #[command(flatten)]
    pub name: ModelName,
    /// List every tensor.
    #[arg(long)]
    pub tensors: bool,
    /// With --tp or --pp: what of the model each rank would hold.
    #[command(flatten)]
    pub shares: Shares,
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `devices`.
#[derive(Args, Debug)]
pub struct Devices {
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `tokenize`.
#[derive(Args, Debug)]
pub struct Tokenize {
    /// The text; `-`, or nothing when standard input is not a terminal, reads it from there.
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// Take names of control tokens, such as `<|im_start|>`, for those tokens and not for text.
    #[arg(long)]
    pub special: bool,
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    pub name: ModelName,
}

/// Arguments of `perplexity`.
#[derive(Args, Debug)]
pub struct Perplexity {
    /// The text, UTF-8.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens that are looked at together; the second half of them counts.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    pub window: u32,
    /// Windows this many tokens apart, of each of which as many count.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub stride: Option<u32>,
    /// Only the first N windows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    pub model: Model,
}

/// Arguments of `logits`.
#[derive(Args, Debug)]
pub struct Logits {
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub tokens: Vec<u32>,
    /// Every position's logits instead of the last one's.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    pub model: Model,
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct Bench {
    /// Prompt lengths to measure prefill with.
    #[arg(long, value_delimiter = ',', default_value = "64,512", value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt: Vec<u32>,
    /// Numbers of tokens to measure decode with.
    #[arg(long = "gen", value_delimiter = ',', default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    pub generate: Vec<u32>,
    /// Measurements of each, after one that does not count; their median is reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub reps: u32,
    /// Measure, too, how fast the device copies a buffer of SIZE (or what it has room for), and print how much of that
    /// decode reaches [default SIZE: 1GiB].
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "1GiB")]
    pub limits: Option<ByteSize>,
    /// Measure each kernel, in one more run of each test: a table on standard error, and a timeline for ui.perfetto.dev in
    /// FILE.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    pub model: Model,
}

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct Plan {
    /// A model by its sizes, such as llama3-70b.
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    pub shape: Option<String>,
    /// A model as in `run`; its weights are not read.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Element type of the matrices of a --shape.
    #[arg(long = "type", value_name = "TYPE", default_value = "f16", value_parser = dtype)]
    pub dtype: DType,
    #[command(flatten)]
    pub shares: Shares,
    /// The device of each rank: a name of the table (--list), `measured`, or `measured:gpu:0` for a device of
    /// this machine [default: h100, with --check measured].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Units that compute products: `f32` are shader cores, which our shaders use; `f16` matrix units.
    #[arg(long, value_enum, default_value_t = Peak::F32)]
    pub peak: Peak,
    /// Memory of a device in units of 1e9 bytes [default: the table's].
    #[arg(long, value_name = "GB")]
    pub memory: Option<u32>,
    /// What joins the ranks of a host: a name of the table (--list), or latency and rate as in 5us,50GB/s.
    #[arg(long, value_name = "LINK", default_value = "nvlink4")]
    pub link: String,
    /// What joins hosts [default: as --link].
    #[arg(long, value_name = "LINK")]
    pub far_link: Option<String>,
    /// Ranks of a host.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks_per_host: u32,
    /// All ranks are simulated on one device, as `run --tp` does on one.
    #[arg(long)]
    pub one_device: bool,
    /// Context length in tokens [default: the model's, within reason].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub ctx: Option<u32>,
    /// Tokens of the prompt; decoding goes on after it.
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt: u32,
    /// Sequences that each replica decodes at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: u32,
    /// Element type of the key/value cache.
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub kv: Kv,
    /// Every layout of N ranks instead.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), conflicts_with_all = ["tp", "pp", "dp", "ep", "split", "one_device", "trace", "check"])]
    pub sweep: Option<u32>,
    /// Write one decode step for Chrome's tracing page or Perfetto, a lane for each rank.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "one_device"])]
    pub trace: Option<PathBuf>,
    /// Measure a device of this machine, then predict and measure decode steps of tp 1, 2 and 3 on it.
    #[arg(long, conflicts_with_all = ["shape", "tp", "pp", "dp", "ep", "sp", "split", "one_device"])]
    pub check: bool,
    /// List the shapes, devices and links.
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub format: Format,
}

/// Units that compute products.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum Peak {
    /// Shader cores.
    F32,
    /// Matrix units.
    F16,
}

impl From<Peak> for shardlight::plan::Peak {
    fn from(peak: Peak) -> Self {
        match peak {
            Peak::F32 => shardlight::plan::Peak::F32,
            Peak::F16 => shardlight::plan::Peak::F16,
        }
    }
}

/// Arguments of `op`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["name", "list", "check"])))]
pub struct Op {
    /// The operator.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print every operator, or the one that NAME names, with its inputs, shapes, settings and defaults.
    #[arg(long, conflicts_with_all = ["check", "input", "out"])]
    pub list: bool,
    /// Run the operator that each FILE names in its metadata (`kind`), compare with the results it
    /// holds, and fail past the bound.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["name", "input", "tensor", "set", "out"])]
    pub check: Vec<PathBuf>,
    /// A .safetensors file whose tensors are inputs by their names; may be given several times.
    #[arg(long = "in", value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Take the tensor NAME for INPUT.
    #[arg(long, value_name = "INPUT=NAME")]
    pub tensor: Vec<String>,
    /// A setting, such as eps=1e-5; may be given several times.
    #[arg(long, value_name = "SETTING=VALUE")]
    pub set: Vec<String>,
    /// Run it this many times after the first and report the median time.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub reps: u32,
    /// Write the outputs to this .safetensors file; without it they are printed.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `synth`.
#[derive(Args, Debug)]
pub struct Synth {
    /// A dense GGUF model of llama's shape, as in `run`; OUT is a mixture of experts that are all its
    /// feed-forward blocks, with a random router, and so answers as it does.
    #[arg(long, value_name = "MODEL", required_unless_present = "shape")]
    pub upcycle: Option<String>,
    /// A shape of `plan --list`; OUT has random weights of it and no tokenizer, for `bench`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["upcycle", "experts", "k"])]
    pub shape: Option<String>,
    /// Element type of the shape's matrices.
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_0", value_parser = dtype, conflicts_with = "upcycle")]
    pub dtype: DType,
    /// Experts of each layer.
    #[arg(long, value_name = "E", default_value_t = 8)]
    pub experts: usize,
    /// Experts of a token.
    #[arg(short, long, value_name = "K", default_value_t = 2)]
    pub k: usize,
    /// Seed of the router's, or of all, weights.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Write over OUT if it is there.
    #[arg(short, long)]
    pub force: bool,
    /// The GGUF file that is written.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

/// Arguments of `pull`.
#[derive(Args, Debug)]
pub struct Pull {
    /// A name of the catalogue (see `shardlight list`).
    #[arg(default_value = DEFAULT)]
    pub name: String,
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Which model.
#[derive(Args, Debug, Clone)]
pub struct ModelName {
    /// `builtin:tiny`, `builtin:tiny-moe`, a name of the catalogue, a .gguf file, or a folder with
    /// config.json and *.safetensors.
    #[arg(short, long = "model", value_name = "MODEL", default_value = DEFAULT, env = "SHARDLIGHT_MODEL")]
    pub model: String,
}

/// Where it runs.
#[derive(Args, Debug, Clone)]
pub struct Device {
    /// `auto` (a real GPU, else the CPU), `cpu`, `gpu`, `gpu:N` of `shardlight devices`, or a backend:
    /// `vulkan`, `metal`, `dx12`, `cuda` (`cuda:N`).
    #[arg(long, default_value = "auto", env = "SHARDLIGHT_DEVICE")]
    pub device: DeviceChoice,
    /// Kernels of CUDA devices: `generated`, all made from WGSL as elsewhere; `own`, written by hand where there is one (16-bit
    /// activations); `tuned`, as `own` with cuBLASLt for prompts and F16 or BF16 weights, if it is found; `cublaslt`, as
    /// `tuned`, but it must be found [default: tuned; `op`: generated].
    #[arg(long, value_name = "WHICH", hide_possible_values = true)]
    pub kernels: Option<Kernels>,
}

impl Device {
    /// Has CUDA devices that are opened from now on run these kernels.
    pub fn choose_kernels(&self, default: Kernels) {
        cuda::choose_kernels(self.kernels.unwrap_or(default));
    }

    /// Refuses `--kernels` where it says nothing about the devices that were opened.
    ///
    /// # Errors
    ///
    /// When none of them is a CUDA device.
    pub fn check_kernels<'a>(
        &self,
        mut opened: impl Iterator<Item = &'a DeviceInfo>,
    ) -> anyhow::Result<()> {
        if self.kernels.is_some() && !opened.any(|info| info.backend == cuda::BACKEND.name()) {
            return Err(usage(
                "--kernels chooses among those of CUDA devices, and none is used; add --device cuda or leave it out",
            ));
        }
        Ok(())
    }
}

/// How the model is shared among ranks.
#[derive(Args, Debug, Clone)]
pub struct Shares {
    /// Tensor-parallel ranks: each has a part of every layer [default: 1; under mpirun, as many as make use
    /// of all processes].
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    pub tp: Option<u32>,
    /// Pipeline stages: each has some of the layers.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub pp: u32,
    /// Replicas of the model, which answer several prompts (`run --prompts`) side by side.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub dp: u32,
    /// Expert-parallel groups that the tensor-parallel ranks form: each has some of the experts, and its ranks a
    /// part of each of these. In plans it may also be a multiple of --tp that divides tp x dp.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub ep: u32,
    /// Sequence parallelism: tensor-parallel ranks share norms and residuals by tokens.
    #[arg(long)]
    pub sp: bool,
    /// Shares of the tensor-parallel ranks: `even`, `auto` (a short measurement of each device) or numbers
    /// like 0.7,0.3.
    #[arg(long, value_name = "SHARES", default_value = "even")]
    pub split: SplitChoice,
}

/// Ranks and their devices.
#[derive(Args, Debug, Clone)]
pub struct Shards {
    #[command(flatten)]
    pub shares: Shares,
    /// Devices of the ranks, such as gpu:0,gpu:1,cpu; fewer than ranks are given to them in turn, so that
    /// one is shared.
    #[arg(
        long,
        value_name = "DEVICES",
        value_delimiter = ',',
        conflicts_with = "device"
    )]
    pub devices: Vec<DeviceChoice>,
    /// What moves data between devices: `nccl` between CUDA devices, one a rank; `host` memory, by MPI between processes;
    /// `auto` is NCCL for the groups whose ranks it can join, if its library is found.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = nccl::Choice::Auto)]
    pub comm: nccl::Choice,
}

impl Shares {
    /// Sizes of the groups.
    pub fn mesh(&self) -> Mesh {
        let (pp, dp) = (self.pp as usize, self.dp as usize);
        let left = || (job::size() / pp / dp).max(1);
        Mesh {
            tp: self.tp.map_or_else(left, |tp| tp as usize),
            pp,
            dp,
            ep: self.ep as usize,
            ..Mesh::default()
        }
    }
}

impl Shards {
    /// The core's words; `device` is what `--device` says.
    pub fn sharding(&self, device: &DeviceChoice) -> Sharding {
        Sharding {
            mesh: self.shares.mesh(),
            sequence_parallel: self.shares.sp,
            split: self.shares.split.clone(),
            devices: match self.devices.is_empty() {
                true => vec![device.clone()],
                false => self.devices.clone(),
            },
        }
    }
}

/// Which model, where it runs and how much it remembers.
#[derive(Args, Debug, Clone)]
pub struct Model {
    #[command(flatten)]
    pub name: ModelName,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub shards: Shards,
    /// Context length in tokens [default: the model's, within reason].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub ctx: Option<u32>,
    /// Element type of the key/value cache.
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub kv: Kv,
    /// Leave the experts of a mixture of experts in its file, and bring them to this much memory of each device when
    /// tokens need them, such as 2GiB.
    #[arg(long, value_name = "SIZE")]
    pub expert_cache: Option<ByteSize>,
    /// Count how often each expert of a mixture of experts is chosen; `run` and `chat` tell it behind an answer.
    #[arg(long)]
    pub expert_stats: bool,
}

/// Element types of the key/value cache.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum Kv {
    /// Half the memory.
    F16,
    /// Exact.
    F32,
    /// A quarter of the memory.
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<Kv> for KvDType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => KvDType::F16,
            Kv::F32 => KvDType::F32,
            Kv::Q8_0 => KvDType::Q8_0,
        }
    }
}

/// How answers are written.
#[derive(Args, Debug, Clone)]
pub struct Talk {
    /// Most tokens to write.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 512)]
    pub max_tokens: u32,
    /// Instructions that come before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Stop before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Temperature; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, value_parser = not_negative)]
    pub temp: f32,
    /// Choose among this many likeliest tokens; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub top_k: u32,
    /// Choose among the likeliest tokens that have this probability together; 1 is all.
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = probability)]
    pub top_p: f32,
    /// Choose among tokens at least this likely relative to the likeliest; 0 is all.
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = probability)]
    pub min_p: f32,
    /// Make tokens that came up lately this much less likely; 1 is off.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive)]
    pub repeat_penalty: f32,
    /// Seed of the random choices [default: another one each time].
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub form: FormArgs,
}

fn number(text: &str, holds: fn(f32) -> bool, want: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(x) if holds(x) => Ok(x),
        _ => Err(format!("not a number {want}")),
    }
}

fn not_negative(text: &str) -> Result<f32, String> {
    number(text, |x| x >= 0.0 && x.is_finite(), "that is 0 or more")
}

fn positive(text: &str) -> Result<f32, String> {
    number(text, |x| x > 0.0 && x.is_finite(), "above 0")
}

fn probability(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "from 0 to 1")
}

/// How results are printed.
#[derive(Args, Debug, Clone, Copy)]
pub struct Format {
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
