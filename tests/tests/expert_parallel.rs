//! Ranks of a sequence-parallel step that send tokens to each other's experts.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value;
use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::Device;
use shardlight::device::cpu::CpuDevice;
use shardlight::kv_cache::KvDType;
use shardlight::session::{Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight_tests::golden::{greedy, ids, json, nmse};
use shardlight_tests::{data, devices, source};

fn family(name: &str) -> PathBuf {
    data().join("families").join(name)
}

fn tokens(name: &str) -> Vec<u32> {
    ids(&json(family(name).join("case.json"))["tokens"])
}

/// A family's model, of whose weights `change` may change the bytes.
fn files(name: &str, change: fn(&str, &mut [u8])) -> ModelFiles {
    let folder = family(name);
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header = usize::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    let (header, weights) = bytes[8..].split_at_mut(header);
    let header: Value = serde_json::from_slice(header).expect("a header");
    for (name, tensor) in header.as_object().expect("names") {
        if name != "__metadata__" {
            let range = ids(&tensor["data_offsets"]);
            change(name, &mut weights[range[0] as usize..range[1] as usize]);
        }
    }
    let model = BytesSource::new(path.to_string_lossy(), bytes);
    let sources = vec![source(&folder.join("config.json")), Rc::new(model)];
    pollster::block_on(ModelFiles::open(sources)).unwrap_or_else(|e| panic!("{e}"))
}

/// A session of `tp` ranks that split their tokens; they are on these devices in turns.
fn session(files: ModelFiles, tp: usize, ep: usize, devices: &[Rc<dyn Device>]) -> Session {
    let mesh = Mesh {
        ep,
        ..Mesh::tensor(tp)
    };
    let ranks = (0..tp).map(|rank| {
        let placement = Placement::new(mesh, rank, Split::even(tp), tp > 1);
        let device = Rc::clone(&devices[rank % devices.len()]);
        (placement.expect("a placement"), device)
    });
    let world = World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world");
    let options = SessionOptions {
        context_length: Some(64),
        kv: KvDType::F32,
        prefill_chunk: 64,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    let session = Session::load(files, world, options, quiet);
    pollster::block_on(session).unwrap_or_else(|e| panic!("tp {tp}, ep {ep}: {e}"))
}

fn logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    pollster::block_on(session.logits(tokens, true)).unwrap_or_else(|e| panic!("{e}"))
}

fn sent(session: &Session, name: &str) -> u64 {
    let traffic = session.world().traffic();
    traffic
        .iter()
        .find(|(n, _)| *n == name)
        .map_or(0, |(_, sent)| sent.bytes)
}

fn cpus(count: usize) -> Vec<Rc<dyn Device>> {
    (0..count)
        .map(|_| Rc::new(CpuDevice::new()) as Rc<dyn Device>)
        .collect()
}

fn unchanged(_: &str, _: &mut [u8]) {}

#[test]
fn tokens_that_go_to_their_experts_are_fewer_bytes_than_all_tokens_to_all() {
    for name in ["mixtral", "qwen3_moe"] {
        let tokens = tokens(name);
        let config = files(name, unchanged).config;
        let moe = config.moe.as_ref().expect("experts");
        let (r, t, k) = (4, tokens.len() as u64, moe.router.k as u64);
        let (layers, c) = (config.num_hidden_layers as u64, config.hidden_size as u64);
        let [mut gathers, mut exchanges] =
            [1, 4].map(|ep| session(files(name, unchanged), 4, ep, &cpus(1)));
        let [a, b] = [&mut gathers, &mut exchanges].map(|s| logits(s, &tokens));
        assert!(nmse(&a, &b) <= 1e-10, "{name}");
        // One all-gather and one reduce-scatter of all tokens a layer are left out; the counts are gathered.
        let all = layers * (r - 1) * 4 * t * c;
        let counts = layers * (r - 1) * 4 * r * r;
        let [before, after] = [&gathers, &exchanges].map(|s| sent(s, "all_gather"));
        assert_eq!(after, before - all + counts, "{name}");
        let [before, after] = [&gathers, &exchanges].map(|s| sent(s, "reduce_scatter"));
        assert_eq!(after, before - all, "{name}");
        let exchanged = sent(&exchanges, "all_to_all_counted");
        // A token goes to at most k other ranks, with ids and probabilities, and comes back from them.
        let most = layers * t * k * 4 * (c + 2 * k + c);
        assert!(
            0 < exchanged && exchanged < most,
            "{name}: {exchanged} of {most}"
        );
        assert!(
            exchanged + counts < 2 * all,
            "{name}: {exchanged} instead of {}",
            2 * all
        );
        println!(
            "{name}: {} bytes instead of {}",
            exchanged + counts,
            2 * all
        );
    }
}

#[test]
fn ranks_apart_exchange_the_same_bits() {
    for name in ["mixtral", "qwen2_moe", "deepseek_v2"] {
        for (tp, ep) in [(2, 2), (4, 2), (4, 4)] {
            let [mut together, mut apart] =
                [1, 4].map(|count| session(files(name, unchanged), tp, ep, &cpus(count)));
            let tokens = tokens(name);
            let [a, b] = [&mut together, &mut apart].map(|s| logits(s, &tokens));
            assert!(a == b, "{name}, tp {tp}, ep {ep}: other bits");
            let [a, b] = [&together, &apart].map(|s| s.world().traffic());
            assert_eq!(a, b, "{name}, tp {tp}, ep {ep}");
        }
    }
}

/// All experts are alike to such a router, and the first ones are chosen.
fn no_router(name: &str, bytes: &mut [u8]) {
    if name.ends_with("gate.weight") && name.contains("layers") {
        bytes.fill(0);
    }
}

#[test]
fn one_rank_may_get_all_tokens_and_others_none() {
    let name = "mixtral";
    let tokens = tokens(name);
    for device in devices() {
        let devices = [device];
        let mut whole = session(files(name, no_router), 1, 1, &devices);
        let want = logits(&mut whole, &tokens);
        let text = greedy(&mut whole, &tokens, 8);
        for (tp, ep) in [(2, 2), (4, 2), (4, 4)] {
            let mut session = session(files(name, no_router), tp, ep, &devices);
            let error = nmse(&logits(&mut session, &tokens), &want);
            assert!(error <= 1e-10, "tp {tp}, ep {ep}: NMSE {error:e}");
            if tp == 4 {
                // What is not on a rank of the first group goes to each of its ranks, and comes back.
                let config = session.config();
                let (layers, c) = (config.num_hidden_layers as u64, config.hidden_size as u64);
                let lens = session.world().ranks()[0].token_lens(tokens.len());
                let sent: usize = (0..4 / ep).map(|to| tokens.len() - lens[to]).sum();
                let bytes = layers * sent as u64 * 4 * (c + 4 + c);
                assert_eq!(
                    self::sent(&session, "all_to_all_counted"),
                    bytes,
                    "tp {tp}, ep {ep}"
                );
            }
            assert_eq!(greedy(&mut session, &tokens, 8), text, "tp {tp}, ep {ep}");
        }
    }
}

/// A weight of a router is no number.
fn bad_router(name: &str, bytes: &mut [u8]) {
    if name.contains("layers.1.") && name.ends_with("gate.weight") {
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
}

#[test]
fn a_token_that_cannot_be_routed_is_named_by_its_place_among_all() {
    let tokens = tokens("mixtral");
    let told = |tp, ep| {
        let mut session = session(files("mixtral", bad_router), tp, ep, &cpus(1));
        let told = pollster::block_on(session.generate(
            &tokens,
            &shardlight::session::GenerateOptions::default(),
            &mut |_| ControlFlow::Continue(()),
        ));
        told.expect_err("no logits").to_string()
    };
    let alone = told(1, 1);
    assert_eq!(told(4, 4), alone);
    assert_eq!(told(4, 2), alone);
    println!("{alone}");
}
