//! The classifiers of emotions from EEG, convolution, pooling and recurrent layers, against what
//! PyTorch recorded.

use std::path::PathBuf;

use pollster::block_on;
use shardlight::nn::Arrays;
use shardlight::ops::{self, TensorFile};
use shardlight::recording::Recording;
use shardlight::tensor::Tensor;
use shardlight::{DType, models::eeg};
use shardlight_tests::{data, devices};

fn read(path: &PathBuf) -> TensorFile {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    TensorFile::read(&path.to_string_lossy(), &bytes).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn recorded_results_are_matched_on_every_device() {
    let mut files: Vec<PathBuf> = ["eeg", "signals"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(data().join(folder)).expect("the folder is there"))
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.extend(["lstm", "gru"].map(|f| data().join(format!("layers/{f}.safetensors"))));
    assert_eq!(files.len(), 15);
    for path in &files {
        let file = read(path);
        for device in devices() {
            let name = path.to_string_lossy();
            let compared = block_on(ops::check(&*device, &name, &file));
            for c in compared.unwrap_or_else(|e| panic!("{e}")) {
                let backend = &device.info().backend;
                println!("{name} {} on {backend}: NMSE {:.1e}", c.tensor, c.nmse);
                assert!(
                    c.passes(),
                    "{name} {} on {backend}: {:.1e}",
                    c.tensor,
                    c.nmse
                );
            }
        }
    }
}

#[test]
fn a_classifier_is_loaded_and_run_from_rust() {
    let file = read(&data().join("eeg/recurrent_gru.safetensors"));
    for device in devices() {
        let arrays = Arrays {
            device: &*device,
            name: "recurrent_gru",
            arrays: &file.tensors,
        };
        block_on(async {
            let model = eeg::RecurrentClassifier::load(&arrays).await?;
            let x: Tensor = arrays.tensor("x", &arrays.shape::<3>("x")?).await?;
            let mut r = Recording::new();
            let y = model.forward(&mut r, &x)?;
            r.keep(&y);
            let prepared = device.prepare(&r).await?;
            device.run(&prepared)?;
            let buffer = prepared.tensor(&y).expect("y was computed");
            let bytes = device
                .read(buffer, 0, DType::F32.bytes(y.len()).unwrap_or(0) as u64)
                .await?;
            let got: Vec<f32> = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            assert_eq!(y.shape, [3, 4]);
            for row in got.chunks(4) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
            }
            assert!(ops::nmse(&got, &file.tensors["y"].to_f32()) < 1e-10);
            Ok::<(), shardlight::Error>(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    }
}
