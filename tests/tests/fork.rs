//! Conversations that share a model: each goes its own way, and weights are there once.

use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::builtin::{TINY, TINY_NAME};
use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::{Device, MemoryUse};
use shardlight::kv_cache::KvDType;
use shardlight::session::{Conversation, Event, GenerateOptions, Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight_tests::devices;

const BEGIN: &str = "Once upon a time there was a little girl who";
const CAT: &str = "Once upon a time there was a little girl who had a cat. The cat";
const DOG: &str = "Once upon a time there was a little girl who had a dog. The dog";

fn session(devices: &[Rc<dyn Device>], kv: KvDType) -> Session {
    let source = Rc::new(BytesSource::new(TINY_NAME, TINY));
    let files = pollster::block_on(ModelFiles::open(vec![source])).expect("it opens");
    let tp = devices.len();
    let mesh = Mesh {
        tp,
        ..Mesh::default()
    };
    let ranks = devices.iter().enumerate().map(|(rank, device)| {
        let placement = Placement::new(mesh, rank, Split::even(tp), false).expect("a placement");
        (placement, Rc::clone(device))
    });
    let world = World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world");
    let options = SessionOptions {
        context_length: Some(128),
        kv,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files, world, options, quiet))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn ids(session: &Session, text: &str) -> Vec<u32> {
    let tokenizer = session.tokenizer().expect("it has a tokenizer");
    tokenizer.encode(text, true, false).expect("it has ids")
}

/// The answer, and how many tokens of the prompt were in the cache.
fn answer(session: &mut Session, prompt: &str) -> (Vec<u32>, usize) {
    let prompt = ids(session, prompt);
    let options = GenerateOptions {
        max_tokens: 8,
        ..GenerateOptions::default()
    };
    let mut found = 0;
    let hear = &mut |event: Event<'_>| {
        if let Event::Prefill { reused, .. } = event {
            found = reused;
        }
        ControlFlow::Continue(())
    };
    let answer = pollster::block_on(session.generate(&prompt, &options, hear));
    (answer.unwrap_or_else(|e| panic!("{e}")).tokens, found)
}

fn switch(session: &mut Session, to: Conversation) {
    pollster::block_on(session.switch_to(to)).unwrap_or_else(|e| panic!("{e}"));
}

fn fork(session: &mut Session) -> Conversation {
    pollster::block_on(session.fork()).unwrap_or_else(|e| panic!("{e}"))
}

fn memory(session: &Session) -> MemoryUse {
    session.memory()[0].used
}

/// Devices of sessions that are tested: one, and two ranks on it.
fn layouts() -> Vec<Vec<Rc<dyn Device>>> {
    let each =
        |device: Rc<dyn Device>| [vec![Rc::clone(&device)], vec![Rc::clone(&device), device]];
    devices().into_iter().flat_map(each).collect()
}

#[test]
fn a_copy_goes_on_where_it_was_made_and_both_go_their_own_ways() {
    for ranks in layouts() {
        for kv in [KvDType::F16, KvDType::F32, KvDType::Q8_0] {
            let at = format!("{} ranks on {}, {kv:?}", ranks.len(), ranks[0].info());
            let mut alone = session(&ranks, kv);
            let said = answer(&mut alone, BEGIN).0;
            let cat = answer(&mut alone, CAT).0;
            alone.reset();
            answer(&mut alone, BEGIN);
            let dog = answer(&mut alone, DOG).0;
            assert_ne!(cat, dog, "{at}");
            drop(alone);

            let mut session = session(&ranks, kv);
            let first = session.conversation();
            assert_eq!(answer(&mut session, BEGIN).0, said, "{at}");
            let before = memory(&session);
            let second = fork(&mut session);
            let with = memory(&session);
            assert_eq!(
                (with.weights, with.kv),
                (before.weights, 2 * before.kv),
                "{at}"
            );
            assert_eq!(
                session.shards()[0].cache_bytes * ranks.len() as u64,
                with.kv,
                "{at}"
            );
            let common = ids(&session, BEGIN).len();

            switch(&mut session, second);
            assert_eq!(session.conversation(), second);
            let (text, reused) = answer(&mut session, DOG);
            // Heads of 32 have q8_0 rows of 34 bytes on the CPU, which are computed again.
            let whole = match (kv, ranks[0].info().kind.is_gpu()) {
                (KvDType::Q8_0, false) => 0,
                _ => common,
            };
            assert_eq!((text, reused), (dog.clone(), whole), "{at}");
            switch(&mut session, first);
            assert_eq!(answer(&mut session, CAT), (cat.clone(), common), "{at}");
            switch(&mut session, second);
            // All but the last token is there.
            let last = ids(&session, DOG).len() - 1;
            assert_eq!(answer(&mut session, DOG), (dog, last), "{at}");

            session.forget(first).expect("it is there");
            pollster::block_on(session.end(second)).expect("it is there");
            assert_eq!(session.conversation(), first);
            assert_eq!(memory(&session).kv, before.kv, "{at}");
            assert_eq!(answer(&mut session, CAT), (cat, 0), "{at}");
        }
    }
}

#[test]
fn a_lost_device_brings_all_conversations_back_and_the_weights_once() {
    for ranks in layouts() {
        if !ranks[0].info().kind.is_gpu() {
            continue;
        }
        let mut session = session(&ranks, KvDType::F16);
        let said = answer(&mut session, BEGIN).0;
        let second = fork(&mut session);
        let cat = answer(&mut session, CAT).0;
        let before = memory(&session);
        ranks[0].destroy();
        assert_eq!(answer(&mut session, CAT), (cat.clone(), 0));
        // The other one gets memory when it goes on.
        assert!(memory(&session).kv < before.kv);
        let first = session.conversation();
        switch(&mut session, second);
        let now = memory(&session);
        assert_eq!((now.weights, now.kv), (before.weights, before.kv));
        assert_eq!(answer(&mut session, BEGIN), (said.clone(), 0));

        // While nothing runs: what asks first finds it lost.
        ranks[0].destroy();
        let third = fork(&mut session);
        switch(&mut session, third);
        assert_eq!(answer(&mut session, CAT), (cat.clone(), 0));
        ranks[0].destroy();
        switch(&mut session, first);
        assert_eq!(answer(&mut session, BEGIN).0, said);
        assert_eq!(memory(&session).weights, before.weights);
    }
}

#[test]
fn conversations_that_are_not_there_are_errors() {
    let mut session = session(&devices()[..1], KvDType::F16);
    let first = session.conversation();
    let none = Conversation(7);
    assert!(session.forget(none).is_err());
    let error = pollster::block_on(session.switch_to(none)).expect_err("there is none");
    assert_eq!(
        error.to_string(),
        "there is no such conversation, or it has ended"
    );
    assert!(pollster::block_on(session.end(none)).is_err());
    let error = pollster::block_on(session.end(first)).expect_err("it is the only one");
    assert!(
        error.to_string().contains("one conversation at least"),
        "{error}"
    );
    // Of several any can end, this one too.
    let second = fork(&mut session);
    pollster::block_on(session.end(first)).expect("another one goes on");
    assert_eq!(session.conversation(), second);
    assert!(session.forget(first).is_err());
    // Numbers are not used again.
    assert_eq!(fork(&mut session), Conversation(2));
}
