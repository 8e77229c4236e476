//! How often each expert is chosen: the same on every device, however a model is split and a prompt is cut.

use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::{Device, DeviceKind};
use shardlight::kv_cache::KvDType;
use shardlight::session::{Event, ExpertStatistics, GenerateOptions, Session, SessionOptions};
use shardlight::shard::Split;
use shardlight_tests::golden::{ids, json};
use shardlight_tests::{data, devices, open};

/// Tokens that are generated.
const COUNT: usize = 12;

fn load(name: &str, device: &Rc<dyn Device>, mesh: Mesh, options: SessionOptions) -> Session {
    let folder = data().join("families").join(name);
    let files = open(&[folder.join("config.json"), folder.join("model.safetensors")]);
    let ranks = (0..mesh.world_size()).map(|rank| {
        let placement = Placement::new(mesh, rank, Split::even(mesh.tp), mesh.tp > 1);
        (placement.expect("a placement"), Rc::clone(device))
    });
    let world = World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world");
    let quiet = &mut |_| ControlFlow::Continue(());
    let session = Session::load(files, world, options, quiet);
    pollster::block_on(session).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn counting(chunk: usize, expert_cache: Option<u64>) -> SessionOptions {
    SessionOptions {
        context_length: Some(128),
        kv: KvDType::F32,
        prefill_chunk: chunk,
        expert_cache,
        expert_statistics: true,
    }
}

/// What an answer to `prompt` counts, with what was told after each step.
fn counted(session: &mut Session, prompt: &[u32]) -> (ExpertStatistics, Vec<u64>) {
    let options = GenerateOptions {
        max_tokens: COUNT,
        ..GenerateOptions::default()
    };
    let mut told = Vec::new();
    let answer = pollster::block_on(session.generate(prompt, &options, &mut |event| {
        if let Event::Experts(statistics) = event {
            told.push(statistics.counts.iter().sum());
        }
        ControlFlow::Continue(())
    }));
    let answer = answer.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(answer.tokens.len(), COUNT, "no early end");
    let statistics = session.expert_statistics().expect("statistics").clone();
    (statistics, told)
}

fn prompt(name: &str) -> Vec<u32> {
    let folder = data().join("families").join(name);
    ids(&json(folder.join("case.json"))["tokens"])
}

#[test]
fn every_device_layout_and_chunk_counts_the_same() {
    for (name, first_dense) in [("mixtral", 0), ("deepseek_v2", 1)] {
        let prompt = prompt(name);
        let mut want: Option<ExpertStatistics> = None;
        for device in devices() {
            let layouts = [
                (1, 1, 1, 256),
                (1, 1, 1, 7),
                (2, 1, 1, 256),
                (2, 1, 2, 7),
                (1, 2, 1, 16),
            ];
            for (tp, pp, ep, chunk) in layouts {
                let place = format!(
                    "{name}: tp {tp}, pp {pp}, ep {ep}, {chunk} tokens at once on {}",
                    device.info()
                );
                let mesh = Mesh {
                    tp,
                    pp,
                    ep,
                    ..Mesh::default()
                };
                let mut session = load(name, &device, mesh, counting(chunk, None));
                let moe = session.config().moe.clone().expect("experts");
                let layers = session.config().num_hidden_layers;
                let (got, told) = counted(&mut session, &prompt);
                // The last token is given out, not computed.
                let tokens = prompt.len() + COUNT - 1;
                assert_eq!(got.tokens, tokens as u64, "{place}");
                assert_eq!(
                    got.layers,
                    (first_dense..layers).collect::<Vec<_>>(),
                    "{place}"
                );
                assert_eq!(got.experts, moe.num_experts, "{place}");
                for chosen in got.counts.chunks(got.experts) {
                    let sum: u64 = chosen.iter().sum();
                    assert_eq!(sum, (tokens * moe.router.k) as u64, "{place}");
                }
                let pairs = |tokens: usize| (tokens * moe.router.k * got.layers.len()) as u64;
                let mut ends: Vec<usize> = (0..prompt.len()).step_by(chunk).skip(1).collect();
                ends.extend(prompt.len()..=tokens);
                let ends: Vec<u64> = ends.into_iter().map(pairs).collect();
                assert_eq!(told, ends, "{place}: after each step");
                match &want {
                    Some(want) => assert_eq!(&got, want, "{place}"),
                    None => want = Some(got),
                }
            }
        }
        let want = want.expect("a device");
        let uneven = want.counts.iter().any(|n| *n != want.counts[0]);
        assert!(uneven, "{name}: {:?} tell nothing", want.counts);
    }
}

#[test]
fn a_cache_of_experts_counts_the_same_and_is_told() {
    let prompt = prompt("mixtral");
    for device in devices() {
        let mut whole = load("mixtral", &device, Mesh::default(), counting(7, None));
        let want = counted(&mut whole, &prompt).0;
        assert_eq!(want.cache, None);
        let mut paged = load(
            "mixtral",
            &device,
            Mesh::default(),
            counting(7, Some(1 << 18)),
        );
        let got = counted(&mut paged, &prompt).0;
        assert_eq!(got.counts, want.counts, "{}", device.info());
        assert_eq!(got.cache, paged.expert_cache(), "{}", device.info());
        assert!(
            got.cache.is_some_and(|cache| cache.misses > 0),
            "{}",
            device.info()
        );
    }
}

#[test]
fn nothing_is_counted_unless_it_is_asked_for_and_there_are_experts() {
    for device in devices() {
        if device.info().kind != DeviceKind::Cpu {
            continue;
        }
        let off = SessionOptions::default();
        assert!(!off.expert_statistics);
        let mut session = load("mixtral", &device, Mesh::default(), off);
        let mut told = 0;
        let options = GenerateOptions {
            max_tokens: 2,
            ..GenerateOptions::default()
        };
        let answer = pollster::block_on(session.generate(&[1, 2], &options, &mut |event| {
            told += usize::from(matches!(event, Event::Experts(_)));
            ControlFlow::Continue(())
        }));
        answer.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((told, session.expert_statistics()), (0, None));
        let dense = load("llama", &device, Mesh::default(), counting(256, None));
        assert_eq!(dense.expert_statistics(), None);
    }
}
