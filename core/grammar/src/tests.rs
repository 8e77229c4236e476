use proptest::prelude::*;

use super::*;

/// All bytes, and a few longer tokens; token 300 ends an answer, 301 is a second one that does.
fn vocabulary() -> Vocabulary {
    let mut words: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    for word in [
        "{\"", "\":", " \"", "true", "false", "null", "name", "\"}", "12", "  ", "\n",
    ] {
        words.push(word.into());
    }
    words.resize(302, Vec::new());
    let mut bytes = Vec::new();
    let ends: Vec<u32> = (words.iter())
        .map(|word| {
            bytes.extend_from_slice(word);
            bytes.len() as u32
        })
        .collect();
    Vocabulary::new(&bytes, &ends, &[300, 301]).unwrap()
}

fn allowed(matcher: &mut Matcher) -> Vec<u32> {
    let mut mask = vec![0; 10];
    matcher.mask(&mut mask).unwrap();
    (0..320)
        .filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1)
        .collect()
}

/// Byte by byte; whether all of it was allowed, and whether the answer may end there.
fn takes(grammar: &Grammar, text: &str) -> (bool, bool) {
    let mut matcher = grammar.start();
    for byte in text.bytes() {
        if !allowed(&mut matcher).contains(&u32::from(byte)) {
            return (false, false);
        }
        matcher.accept(u32::from(byte)).unwrap();
    }
    (true, matcher.may_end())
}

fn schema(value: Value) -> Grammar {
    Grammar::new(&vocabulary(), &Form::JsonSchema(value.to_string())).unwrap()
}

#[test]
fn a_schema_allows_what_it_accepts_and_nothing_else() {
    let grammar = schema(json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 5 },
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "tags": { "type": "array", "items": { "enum": ["a", "b"] }, "maxItems": 2 },
        },
        "required": ["name", "age"],
        "additionalProperties": false,
    }));
    let whole = (true, true);
    assert_eq!(takes(&grammar, r#"{"name":"Ada","age":36}"#), whole);
    assert_eq!(
        takes(
            &grammar,
            "{\"name\": \"Ada\", \"age\": 36,\n  \"tags\": [\"a\", \"b\"]}"
        ),
        whole
    );
    for wrong in [
        "[",
        r#"{"age":36,"#.trim_end_matches(',').replace("36", "121").as_str(),
        r#"{"name":"Charles"#,
        r#"{"name":"Ada"}"#,
        r#"{"name":"Ada","age":-"#,
        r#"{"name":"Ada","age":36,"tags":["c"#,
        r#"{"name":"Ada","age":36,"tags":["a","a","#,
        r#"{"name":"Ada","age":36,"more"#,
        "{\n\n",
    ] {
        assert!(!takes(&grammar, wrong).0, "{wrong}");
    }
    assert_eq!(takes(&grammar, r#"{"name":"Ada","age":3"#), (true, false));
}

#[test]
fn the_end_is_allowed_where_the_answer_is_whole() {
    let grammar = Grammar::new(&vocabulary(), &Form::Regex("[0-9]{2,3}".into())).unwrap();
    let mut matcher = grammar.start();
    let digits: Vec<u32> = (48..58).collect();
    let twelve = 256 + 8;
    assert_eq!(allowed(&mut matcher), [&digits[..], &[twelve]].concat());
    assert!(!matcher.accept(twelve).unwrap());
    assert_eq!(allowed(&mut matcher), [&digits[..], &[300, 301]].concat());
    assert!(
        matcher.accept(48).unwrap(),
        "three digits are all there are"
    );
    assert_eq!(allowed(&mut matcher), [300, 301]);
    // Another answer begins anew.
    assert!(allowed(&mut grammar.start()).contains(&twelve));
}

#[test]
fn lark_grammars_are_taken() {
    let text = "start: \"yes\" | \"no\" (\" because \" /[a-z]+/)?";
    let grammar = Grammar::new(&vocabulary(), &Form::Lark(text.into())).unwrap();
    assert_eq!(takes(&grammar, "yes"), (true, true));
    assert_eq!(takes(&grammar, "no because rain"), (true, true));
    assert_eq!(takes(&grammar, "no because "), (true, false));
    assert!(!takes(&grammar, "maybe").0);
}

#[test]
fn references_within_a_schema_are_followed() {
    let grammar = schema(json!({
        "$ref": "#/$defs/tree",
        "$defs": { "tree": { "type": "object", "required": ["left"], "additionalProperties": false,
            "properties": { "left": { "anyOf": [{ "$ref": "#/$defs/tree" }, { "type": "null" }] } } } },
    }));
    assert_eq!(
        takes(&grammar, r#"{"left":{"left":{"left":null}}}"#),
        (true, true)
    );
    assert!(!takes(&grammar, r#"{"left":1"#).0);
}

#[test]
fn what_is_no_form_is_one_line() {
    let vocabulary = vocabulary();
    let error = |form: Form| match Grammar::new(&vocabulary, &form) {
        Err(e) => e.to_string(),
        Ok(_) => format!("taken: {form:?}"),
    };
    let schema = |text: &str| error(Form::JsonSchema(text.into()));
    assert!(
        schema("{").starts_with("schema: it is not JSON: EOF"),
        "{}",
        schema("{")
    );
    assert_eq!(
        schema("[1]"),
        "schema: a JSON schema is an object, true or false"
    );
    for (text, named) in [
        (r#"{"type": "objekt"}"#, "objekt"),
        (r#"{"type": "array", "uniqueItems": true}"#, "uniqueItems"),
        (r##"{"$ref": "#/nowhere"}"##, "nowhere"),
        (r#"{"$ref": "https://example.com/x.json"}"#, "example.com"),
        (r#"{"type": "string", "pattern": "("}"#, "("),
        (r#"{"type": "integer", "minimum": 3, "maximum": 2}"#, "3"),
        (r#"false"#, "false"),
    ] {
        let error = schema(text);
        assert!(
            error.starts_with("schema: ") && !error.contains('\n'),
            "{error}"
        );
        assert!(error.contains(named), "{text}: {error}");
    }
    let regex = error(Form::Regex("a(b".into()));
    assert!(
        regex.starts_with("regex: ") && !regex.contains('\n'),
        "{regex}"
    );
    let lark = error(Form::Lark("start: nothing".into()));
    assert!(
        lark.starts_with("grammar: ") && lark.contains("nothing"),
        "{lark}"
    );
    let long = error(Form::Regex("a".repeat(MOST_TEXT + 1)));
    assert!(long.contains("1048577 bytes"), "{long}");
}

#[test]
fn hostile_forms_end_soon() {
    let vocabulary = vocabulary();
    let deep = format!("{}1{}", r#"{"items":"#.repeat(5000), "}".repeat(5000));
    let wide = format!("({}){{1000}}", "a{1000}".repeat(200));
    for form in [
        Form::JsonSchema(deep),
        Form::Regex(wide),
        Form::Lark(format!(
            "start: {}\"x\"{}",
            "(".repeat(3000),
            ")".repeat(3000)
        )),
        Form::Regex("(a*)*b{0,99999}".into()),
    ] {
        if let Ok(grammar) = Grammar::new(&vocabulary, &form) {
            let mut matcher = grammar.start();
            let _ = matcher.mask(&mut [0; 10]);
        }
    }
}

#[test]
fn vocabularies_that_cannot_be_are_refused() {
    let error = Vocabulary::new(b"abc", &[1, 4], &[])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "vocabulary: token 1 is bytes 1 to 4 of 3");
    assert!(Vocabulary::new(b"abc", &[2, 1], &[]).is_err());
    // No end, no tokens, a token longer than the trie is deep.
    let long = [vec![b'a'; 5000], b"b".to_vec()].concat();
    let vocabulary = Vocabulary::new(&long, &[5000, 5001], &[]).unwrap();
    let grammar = Grammar::new(&vocabulary, &Form::Regex("[ab]+".into())).unwrap();
    assert_eq!(allowed(&mut grammar.start()), [1]);
    let none = Vocabulary::new(b"", &[], &[]).unwrap();
    assert!(Grammar::new(&none, &Form::Regex("a".into())).is_ok());
    let mut few = grammar.start();
    assert!(
        few.mask(&mut [])
            .unwrap_err()
            .to_string()
            .contains("0 words for 2 tokens")
    );
}

proptest! {
    #[test]
    fn random_texts_are_forms_or_one_line(text in "\\PC{0,60}") {
        let vocabulary = vocabulary();
        for form in [Form::JsonSchema(text.clone()), Form::Regex(text.clone()), Form::Lark(text.clone())] {
            match Grammar::new(&vocabulary, &form) {
                Ok(grammar) => { let _ = grammar.start().mask(&mut [0; 10]); }
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }

    #[test]
    fn whatever_is_chosen_the_answer_is_json(choices in prop::collection::vec(any::<u16>(), 400)) {
        let grammar = schema(json!({
            "type": "object", "additionalProperties": false, "required": ["name", "list"],
            "properties": { "name": { "type": "string", "maxLength": 8 }, "list": { "type": "array", "maxItems": 3,
                "items": { "type": ["boolean", "null", "integer"] } } },
        }));
        let mut matcher = grammar.start();
        let mut text: Vec<u8> = Vec::new();
        let words = ["{\"", "\":", " \"", "true", "false", "null", "name", "\"}", "12", "  ", "\n"];
        for choice in choices {
            let all = allowed(&mut matcher);
            // Towards an end where there is one: random choices seldom find it.
            let end = matcher.may_end();
            prop_assert_eq!(end, all.contains(&300));
            if end {
                let value: Value = serde_json::from_slice(&text).unwrap();
                prop_assert!(value["name"].is_string() && value["list"].is_array());
                return Ok(());
            }
            let token = all[choice as usize % all.len()];
            match token {
                0..=255 => text.push(token as u8),
                _ => text.extend_from_slice(words[token as usize - 256].as_bytes()),
            }
            matcher.accept(token).unwrap();
        }
        // Not done within these choices: strings and numbers may be long.
    }
}
