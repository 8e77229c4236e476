use super::*;

/// Byte-level BPE over all bytes, a few merges, a control and an added token.
fn tiny(pre: &str) -> TokenizerData {
    let mut tokens: Vec<String> = vocab::byte_level().iter().map(char::to_string).collect();
    let merges = ["a a", "aa aa", "h e", "l l", "he ll", "hell o", "Ġ hello"];
    tokens.extend(merges.iter().map(|m| m.replace(' ', "")));
    let mut token_types = vec![1; tokens.len()];
    tokens.extend(["<|im_end|>".to_owned(), "<extra>".to_owned()]);
    token_types.extend([3, 4]);
    TokenizerData {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types,
        merges: merges.map(String::from).to_vec(),
        bos: Some(0),
        eos: Some(1),
        ..TokenizerData::default()
    }
}

/// SentencePiece: the three special tokens, bytes, and pieces with scores.
fn tiny_spm() -> TokenizerData {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let mut token_types = vec![2, 3, 3];
    let mut scores = vec![0.0; 3];
    for byte in 0..=255_u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        token_types.push(6);
        scores.push(0.0);
    }
    for (i, piece) in ["▁", "a", "b", "c", "▁a", "bc", "ab", "<", "s", ">", "<s"]
        .iter()
        .enumerate()
    {
        tokens.push((*piece).to_owned());
        token_types.push(1);
        scores.push(-(i as f32));
    }
    TokenizerData {
        model: "llama".into(),
        tokens,
        token_types,
        scores,
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..TokenizerData::default()
    }
}

fn json(model: &str, rest: &str) -> String {
    format!(
        r#"{{"added_tokens":[{{"id":3,"content":"<e>","special":true}}]{rest},"model":{model}}}"#
    )
}

const BPE_MODEL: &str = r#"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}"#;

#[test]
fn words_are_merged_and_decode_to_the_same_text() {
    let t = Tokenizer::new(tiny("gpt-2")).unwrap();
    let ids = t.encode("hello hello aaaaa", false, false).unwrap();
    let texts: Vec<_> = ids.iter().map(|&id| t.token_bytes(id)).collect();
    assert_eq!(texts, [&b"hello"[..], b" hello", b" ", b"aaaa", b"a"]);
    for text in [
        "",
        "héllo 😀\n\n \t x",
        "\u{0}\u{7f}",
        "日本語 hello<|im_end|><extra>",
    ] {
        for parse in [false, true] {
            let ids = t.encode(text, false, parse).unwrap();
            assert_eq!(t.decode(&ids, false), text);
        }
    }
}

#[test]
fn control_tokens_in_user_text_stay_text() {
    let t = Tokenizer::new(tiny("gpt-2")).unwrap();
    let id = t.token_id("<|im_end|>").unwrap();
    assert!(t.is_special(id) && t.is_eos(id) && t.eos_ids().contains(&1));
    assert_eq!(t.encode("<|im_end|>", false, true).unwrap(), [id]);
    assert!(!t.encode("<|im_end|>", false, false).unwrap().contains(&id));
    let s = Tokenizer::new(tiny_spm()).unwrap();
    assert!(
        !s.encode("<s>", false, false).unwrap().contains(&1),
        "merging must not make a control token"
    );
}

#[test]
fn pieces_leave_no_trace_at_their_borders() {
    for data in [tiny("gpt-2"), tiny_spm()] {
        let t = Tokenizer::new(data).unwrap();
        let piece = |text: &str, special| Piece {
            text: text.to_owned(),
            special,
        };
        let pieces = [
            piece("<|im_end|>a", true),
            piece("aaab he", false),
            piece("llo", true),
        ];
        let plain: String = pieces.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(
            t.encode_pieces(&pieces, true).unwrap(),
            t.encode(&plain, true, true).unwrap()
        );
        let split = [piece("<|im_", true), piece("end|>", false)];
        assert_eq!(
            t.encode_pieces(&split, false).unwrap(),
            t.encode("<|im_end|>", false, false).unwrap(),
            "a user must not be able to finish a control token"
        );
    }
}

#[test]
fn spm_takes_the_best_score_the_space_and_the_bytes() {
    let t = Tokenizer::new(tiny_spm()).unwrap();
    let id = |text: &str| t.token_id(text).unwrap();
    assert_eq!(
        t.encode("abc", true, true).unwrap(),
        [1, id("▁a"), id("bc")]
    );
    assert_eq!(
        t.encode("é", false, false).unwrap(),
        [id("▁"), id("<0xC3>"), id("<0xA9>")]
    );
    assert_eq!(
        t.encode("a<s>a", false, true).unwrap(),
        [id("▁a"), 1, id("▁a")]
    );
    let ids = t.encode(" abc é", true, false).unwrap();
    assert_eq!(t.decode(&ids, true), " abc é");
}

#[test]
fn spm_cuts_at_spaces_only_where_no_token_crosses_one() {
    let plain = Tokenizer::new(tiny_spm()).unwrap();
    assert_eq!(plain.encode("a a", false, false).unwrap().len(), 2);
    let mut data = tiny_spm();
    data.tokens.push("▁a▁a".into());
    data.token_types.push(1);
    data.scores.push(0.5);
    data.tokens.push("a▁".into());
    data.token_types.push(1);
    data.scores.push(0.4);
    data.tokens.push("a▁a".into());
    data.token_types.push(1);
    data.scores.push(0.3);
    let crossing = Tokenizer::new(data).unwrap();
    assert_eq!(
        crossing.encode("a a", false, false).unwrap(),
        [crossing.token_id("▁a▁a").unwrap()]
    );
}

#[test]
fn a_stream_equals_the_whole_and_never_shows_half_a_character() {
    for data in [tiny("gpt-2"), tiny_spm()] {
        let t = Tokenizer::new(data).unwrap();
        let text = "a 😀 é 日本 👨‍👩‍👧 bc";
        let ids = t.encode(text, true, false).unwrap();
        for end in 0..=ids.len() {
            let mut decoder = t.decoder(true);
            let mut out: String = ids[..end].iter().map(|&id| decoder.push(id)).collect();
            out.push_str(&decoder.finish());
            assert!(!out.contains('\u{fffd}'), "{out:?}");
            assert_eq!(out, t.decode(&ids[..end], true));
        }
        assert_eq!(t.decode(&ids, true).trim_start_matches('\0'), text);
    }
}

#[test]
fn long_unbroken_text_is_not_quadratic() {
    // A quadratic merge of 256 kB takes minutes.
    for data in [
        tiny("gpt-2"),
        tiny("llama-bpe"),
        tiny("deepseek-v3"),
        tiny_spm(),
    ] {
        let t = Tokenizer::new(data).unwrap();
        for text in [
            "a".repeat(1 << 18),
            " ".repeat(1 << 18),
            "\n a<".repeat(1 << 16),
            "é".repeat(1 << 17),
        ] {
            let ids = t.encode(&text, false, false).unwrap();
            assert_eq!(t.decode(&ids, false).len(), text.len());
        }
    }
}

#[test]
fn an_unknown_pre_tokeniser_is_a_warning() {
    let t = Tokenizer::new(tiny("nonsense")).unwrap();
    assert!(t.warnings()[0].contains("nonsense"), "{:?}", t.warnings());
    assert!(Tokenizer::new(tiny("gpt-2")).unwrap().warnings().is_empty());
}

#[test]
fn hostile_metadata_is_an_error() {
    type Change = fn(&mut TokenizerData);
    let changes: [(&str, Change); 15] = [
        ("no tokens", |d| {
            d.tokens.clear();
            d.token_types.clear();
        }),
        ("duplicate token", |d| d.tokens[5] = d.tokens[6].clone()),
        ("merge of unknown tokens", |d| d.merges.push("xyz a".into())),
        ("merge into an unknown token", |d| {
            d.merges.push("a b".into())
        }),
        ("merge of one token", |d| d.merges.push("a".into())),
        ("empty merge", |d| d.merges.push(String::new())),
        ("merge of a space", |d| d.merges.push(" ".into())),
        ("too few types", |d| d.token_types.truncate(9)),
        ("unknown type", |d| d.token_types[0] = -7),
        ("bad byte token", |d| {
            d.token_types[0] = 6;
            d.tokens[0] = "<0x-1>".into();
        }),
        ("bos out of range", |d| d.bos = Some(u32::MAX)),
        ("eos out of range", |d| d.eos = Some(100_000)),
        ("eot out of range", |d| d.eot = Some(100_000)),
        ("bos wanted and missing", |d| {
            d.bos = None;
            d.add_bos = Some(true);
        }),
        ("unknown model", |d| d.model = "magic".into()),
    ];
    for (what, change) in changes {
        let mut data = tiny("gpt-2");
        change(&mut data);
        assert!(Tokenizer::new(data).is_err(), "{what}");
    }
    for scores in [vec![], vec![0.0; 3], vec![f32::NAN; 270]] {
        let data = TokenizerData {
            scores,
            ..tiny_spm()
        };
        assert!(Tokenizer::new(data).is_err());
    }
}

#[test]
fn tokenizer_json_is_read() {
    let rest = r#","pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\S+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated"},
        "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<e>","type_id":0}},{"Sequence":{"id":"A"}}],
        "special_tokens":{"<e>":{"id":"<e>","ids":[3],"tokens":["<e>"]}}}"#;
    let t = Tokenizer::from_json(json(BPE_MODEL, rest).as_bytes(), None).unwrap();
    assert_eq!(t.encode("ab<e>b", true, true).unwrap(), [3, 2, 3, 1]);
    assert_eq!(t.encode("ab<e>b", false, false).unwrap(), [2, 1]);
    assert_eq!((t.vocab_size(), t.bos()), (4, Some(3)));
    let config = br#"{"bos_token":{"content":"<e>"},"add_bos_token":false,"eos_token":"<e>"}"#;
    let t = Tokenizer::from_json(json(BPE_MODEL, rest).as_bytes(), Some(config)).unwrap();
    assert_eq!(t.encode("ab", true, true).unwrap(), [2]);
    assert_eq!(t.eos_ids(), [3]);
}

#[test]
fn hostile_json_is_an_error() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let split = |regex: &str| {
        format!(
            r#","pre_tokenizer":{{"type":"Split","pattern":{{"Regex":"{regex}"}},"behavior":"Isolated"}}"#
        )
    };
    let models = [
        r#"{"type":"BPE","vocab":{},"merges":[]}"#,
        r#"{"type":"BPE","vocab":{"a":0},"merges":["a z"]}"#,
        r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}"#,
        r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":["ab"]}"#,
        r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a"]]}"#,
        r#"{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}"#,
        r#"{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}"#,
        r#"{"type":"BPE","vocab":{"a":4294967295},"merges":[]}"#,
        r#"{"type":"BPE","vocab":{"a":-1},"merges":[]}"#,
        r#"{"type":"BPE","vocab":{"a":3},"merges":[]}"#,
        r#"{"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"zz"}"#,
        r#"{"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.5}"#,
        r#"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"],"continuing_subword_prefix":"longer than all"}"#,
        r#"{"type":"WordPiece","vocab":{"a":0}}"#,
        r#"{"type":"Unigram","vocab":[["a",0.0]],"unk_id":7}"#,
        r#"{"type":"Magic","vocab":{}}"#,
    ];
    let mut files: Vec<String> = models.iter().map(|m| json(m, "")).collect();
    for rest in [
        split("("),
        split("((a{1000}){1000}){1000}"),
        format!(r#","decoder":{deep}"#),
        r#","normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}"#.to_owned(),
        r#","normalizer":{"type":"Replace"}"#.to_owned(),
        r#","pre_tokenizer":{"type":"FixedLength","length":0}"#.to_owned(),
        r#","pre_tokenizer":{"type":"Sequence"}"#.to_owned(),
        r#","post_processor":{"type":"RobertaProcessing","cls":["x",99],"sep":["y",0]}"#.to_owned(),
    ] {
        files.push(json(BPE_MODEL, &rest));
    }
    files.extend(["", "null", "{}", "[]", "\u{fffd}"].map(String::from));
    for file in files {
        let shown = file.get(..200).unwrap_or(&file);
        assert!(
            Tokenizer::from_json(file.as_bytes(), None).is_err(),
            "{shown}"
        );
    }
}

#[test]
fn a_catastrophic_pattern_in_the_file_is_an_error_at_encoding() {
    let rest = r#","pre_tokenizer":{"type":"Split","pattern":{"Regex":"(?:(a|a)*)*\\1z"},"behavior":"Isolated"}"#;
    let t = Tokenizer::from_json(json(BPE_MODEL, rest).as_bytes(), None).unwrap();
    assert!(t.encode(&"a".repeat(3000), false, false).is_err());
}

proptest::proptest! {
    #[test]
    fn cut_or_changed_json_never_panics(at in 0_usize..400, byte: u8, cut: bool) {
        let rest = r#","decoder":{"type":"ByteLevel"},"pre_tokenizer":{"type":"ByteLevel"},"normalizer":{"type":"NFC"}"#;
        let mut file = json(BPE_MODEL, rest).into_bytes();
        let at = at % file.len();
        if cut { file.truncate(at) } else { file[at] = byte }
        if let Ok(t) = Tokenizer::from_json(&file, None) {
            drop(t.encode("ab <e> é", true, true));
        }
    }

    #[test]
    fn any_text_survives(text in ".*") {
        for pre in ["gpt-2", "llama-bpe", "deepseek-llm", "default", "tekken"] {
            let t = Tokenizer::new(tiny(pre)).unwrap();
            let ids = t.encode(&text, false, false).unwrap();
            proptest::prop_assert_eq!(t.decode(&ids, false), text.as_str());
        }
    }
}
