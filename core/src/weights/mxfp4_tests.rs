use std::collections::BTreeMap;
use std::ops::Range;

use pollster::block_on;
use serde_json::json;

use super::*;
use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::weights::dequant::{E2M1, dequantize, half_e8m0};
use crate::weights::{BytesSource, ExpertMatrix, Loader, ModelFiles, Part};

const EXPERTS: &str = "model.layers.0.mlp.experts";
/// E, F, C.
const SHAPE: [usize; 3] = [3, 2, 64];

/// Tensors of bytes `(shape, data)` by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn bytes(seed: usize, n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| (i * 73 + seed * 29 + i / 11) as u8)
        .collect()
}

fn tensors() -> Tensors {
    let [count, hidden, channels] = SHAPE;
    let mut tensors = Tensors::new();
    for (seed, (name, rows, cols)) in [("gate_up", 2 * hidden, channels), ("down", channels, 32)]
        .into_iter()
        .enumerate()
    {
        let blocks = count * rows * cols / 32;
        let scales = bytes(seed + 7, blocks)
            .iter()
            .map(|b| 120 + b % 16)
            .collect();
        let shape = vec![count, rows, cols / 32];
        let mut nibbles = shape.clone();
        nibbles.push(16);
        tensors.insert(
            format!("{EXPERTS}.{name}_proj_blocks"),
            (nibbles, bytes(seed, 16 * blocks)),
        );
        tensors.insert(format!("{EXPERTS}.{name}_proj_scales"), (shape, scales));
    }
    tensors
}

fn open(tensors: &Tensors) -> Result<ModelFiles> {
    let config = json!({
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 64,
        "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 64, "num_local_experts": 3,
        "num_experts_per_tok": 1, "sliding_window": 8, "vocab_size": 8, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "rope_theta": 1e4,
        "quantization_config": {"quant_method": "mxfp4"},
    });
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, (shape, bytes)) in tensors {
        let from = data.len();
        data.extend(bytes);
        let place = json!({"dtype": "U8", "shape": shape, "data_offsets": [from, data.len()]});
        header.insert(name.clone(), place);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    let sources: [Rc<dyn WeightSource>; 2] = [
        Rc::new(BytesSource::new("config.json", config.to_string())),
        Rc::new(BytesSource::new("model.safetensors", file)),
    ];
    block_on(ModelFiles::open(sources.into()))
}

/// Element `(expert, row, col)` of a pair, as the format defines it.
fn element(tensors: &Tensors, name: &str, at: [usize; 3]) -> f32 {
    let (shape, scales) = &tensors[&format!("{EXPERTS}.{name}_proj_scales")];
    let blocks = &tensors[&format!("{EXPERTS}.{name}_proj_blocks")].1;
    let [expert, row, col] = at;
    let block = (expert * shape[1] + row) * shape[2] + col / 32;
    let byte = blocks[16 * block + col % 32 / 2];
    let nibble = if col % 2 == 0 { byte & 15 } else { byte >> 4 };
    let value = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(nibble & 7)];
    let sign = if nibble < 8 { 1.0 } else { -1.0 };
    sign * value * 2f32.powi(i32::from(scales[block]) - 127)
}

/// That part of an expert matrix in the memory of a CPU device, which has the layout of files.
fn load(
    files: &ModelFiles,
    (which, shape): (&'static str, [usize; 3]),
    held: Range<usize>,
    part: &Part,
) -> Result<Vec<f32>> {
    let device: Rc<dyn Device> = Rc::new(CpuDevice::new());
    let mut progress = |_, _| Ok(());
    let mut loader = Loader::new(files, Rc::clone(&device), &mut progress);
    let matrix = ExpertMatrix::new("blk.0", which, shape);
    let weight = block_on(loader.expert_matrix(&matrix, held, part))?;
    let mut values = Vec::new();
    for slice in &weight.slices {
        assert_eq!(slice.tensor.dtype, DType::Mxfp4, "{which}");
        let crate::tensor::Storage::Buffer(buffer) = &slice.tensor.storage else {
            panic!("a weight is in a buffer");
        };
        let bytes = block_on(device.read(buffer, 0, slice.tensor.bytes()))?;
        let mut own = vec![0.0; bytes.len() / BLOCK * 32];
        dequantize(DType::Mxfp4, &bytes, &mut own);
        values.extend(own);
    }
    Ok(values)
}

#[test]
fn parts_of_packed_experts_have_the_elements_that_the_format_defines() {
    let tensors = tensors();
    let files = open(&tensors).unwrap();
    let [_, hidden, channels] = SHAPE;
    for (which, stored, turns, first) in [
        ("gate", "gate_up", 2, 0),
        ("up", "gate_up", 2, 1),
        ("down", "down", 1, 0),
    ] {
        // F of 32 columns for down.
        let shape = if which == "down" {
            [3, 32, channels]
        } else {
            SHAPE
        };
        let (rows, cols) = if which == "down" {
            (channels, 32)
        } else {
            (hidden, channels)
        };
        for (held, rows, cols) in [
            (0..3, 0..rows, 0..cols),
            (1..2, 0..rows, 0..32),
            (1..3, 1..rows, cols - 32..cols),
            (2..3, 1..2, 0..cols),
        ] {
            let part = Part { rows, cols };
            let got = load(&files, (which, shape), held.clone(), &part).unwrap();
            let mut want = Vec::new();
            for e in held.clone() {
                for r in part.rows.clone() {
                    let at = |c| [e, r * turns + first, c];
                    want.extend(part.cols.clone().map(|c| element(&tensors, stored, at(c))));
                }
            }
            assert_eq!(got, want, "{which}, {held:?}, {part:?}");
        }
    }
}

#[test]
fn any_range_of_bytes_is_that_of_the_whole() {
    let files = open(&tensors()).unwrap();
    let info = files
        .tensor("blk.0.ffn_gate_up_exps.weight", &[3, 4, 64])
        .unwrap();
    let source = files.source(info);
    let len = source.len() as usize;
    assert_eq!((len as u64, len), (info.bytes, 3 * 4 * 2 * BLOCK));
    let mut whole = vec![0; len];
    block_on(source.read(0, &mut whole)).unwrap();
    for from in 0..len {
        for to in (from..len).step_by(13).chain([len]) {
            let mut got = vec![0; to - from];
            block_on(source.read(from as u64, &mut got)).unwrap();
            assert!(got == whole[from..to], "{from}..{to}");
        }
    }
    let mut two = [0; 2];
    let told = block_on(source.read(len as u64 - 1, &mut two))
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("bytes 407 + 2 asked for, file has 408"),
        "{told}"
    );
}

#[test]
fn every_pair_of_scale_and_nibble_is_the_formats_value() {
    for scale in 0..255 {
        let nibbles: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let mut values = [0.0; 32];
        dequantize(DType::Mxfp4, &block(scale, &nibbles), &mut values);
        for i in 0..16 {
            let value = |q: usize| half_e8m0(scale) * f32::from(E2M1[q]);
            assert_eq!(values[2 * i..][..2], [value(i), value(15 - i)], "{scale}");
            // The largest are infinite.
            let power = 2f64.powi(i32::from(scale) - 127);
            let want = (f64::from(E2M1[i]) / 2.0 * power) as f32;
            assert_eq!(value(i), want, "{scale}");
        }
    }
}

#[test]
fn pairs_that_are_none_are_refused_with_names_and_shapes() {
    let at = |name: &str| format!("{EXPERTS}.gate_up_proj_{name}");
    let told = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors();
        change(&mut tensors);
        let told = open(&tensors).err().expect("is refused").to_string();
        assert!(!told.contains('\n'), "{told}");
        told
    };
    for (gone, left) in [("scales", "blocks"), ("blocks", "scales")] {
        let told = told(&|t| drop(t.remove(&at(gone))));
        let want = format!(
            "model.safetensors: tensor {}: has no {} of type U8 beside it",
            at(left),
            at(gone)
        );
        assert_eq!(told, want);
    }
    let shapes: [(&str, &[usize]); 4] = [
        ("scales", &[3, 2, 4]),
        ("scales", &[24]),
        ("blocks", &[3, 4, 4, 8]),
        ("blocks", &[3, 4, 32]),
    ];
    for (name, shape) in shapes {
        let told = told(&|t| t.get_mut(&at(name)).unwrap().0 = shape.to_vec());
        assert!(
            told.contains(&at("blocks")) && told.contains(&format!("{shape:?}")),
            "{told}"
        );
        assert!(
            told.contains("expected [experts, rows, columns / 32, 16]"),
            "{told}"
        );
    }
    // Gate and up of one row in all.
    let odd = told(&|t| {
        for (name, shape) in [("blocks", vec![12, 1, 2, 16]), ("scales", vec![12, 1, 2])] {
            t.get_mut(&at(name)).unwrap().0 = shape;
        }
    });
    assert!(odd.ends_with("the rows a multiple of 2"), "{odd}");
    let none = told(&|t| {
        for (name, shape) in [("blocks", vec![0, 4, 2, 16]), ("scales", vec![0, 4, 2])] {
            t.insert(at(name), (shape, Vec::new()));
        }
    });
    assert!(none.contains("[0, 4, 2, 16]"), "{none}");
}

#[test]
fn a_part_that_cuts_a_block_and_experts_of_another_shape_are_refused() {
    let files = open(&tensors()).unwrap();
    let part = Part {
        rows: 0..2,
        cols: 16..64,
    };
    let told = load(&files, ("up", SHAPE), 0..3, &part)
        .unwrap_err()
        .to_string();
    let want = "blk.0.ffn_gate_up_exps.weight: columns 16..64 cut blocks of 32 mxfp4 elements";
    assert!(told.ends_with(want), "{told}");
    let told = load(&files, ("gate", [3, 4, 64]), 0..3, &Part::all(4, 64))
        .unwrap_err()
        .to_string();
    assert!(
        told.ends_with("has shape [3, 4, 64], expected [3, 8, 64]"),
        "{told}"
    );
}

#[test]
fn bytes_that_are_no_expert_are_no_tensor() {
    let mut tensors = tensors();
    tensors.insert("model.norm.weight".into(), (vec![64], vec![0; 64]));
    tensors.insert("other_blocks".into(), (vec![1, 1, 1, 16], vec![0; 16]));
    let files = open(&tensors).unwrap();
    assert_eq!(files.tensors().len(), 2);
    let told = files
        .tensor("output_norm.weight", &[64])
        .unwrap_err()
        .to_string();
    assert!(told.contains("output_norm.weight: has type U8"), "{told}");
}
