//! Answers of a given form, from outside.

use std::fs;

use super::{json, tiny};

const SCHEMA: &str = r#"{"type":"object","properties":{"animal":{"enum":["cat","dog"]},"legs":{"type":"integer","minimum":0,"maximum":4}},
    "required":["animal","legs"],"additionalProperties":false}"#;

#[test]
fn an_answer_has_the_form_that_was_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(at("schema.json"), SCHEMA).expect("written");
    fs::write(
        at("form.lark"),
        "start: \"It is \" (\"sunny\" | \"cloudy\") \".\"",
    )
    .expect("written");
    let answer = |form: &[&str]| {
        let args = [
            &["--device", "cpu", "--raw"][..],
            form,
            &["Once upon a time"],
        ]
        .concat();
        tiny("run", &args).run().ok().stdout
    };
    let text = answer(&["-j", SCHEMA]);
    let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert!(
        value["animal"] == "cat" || value["animal"] == "dog",
        "{text}"
    );
    assert!((0..=4).contains(&value["legs"].as_i64().expect("a number")));
    assert_eq!(answer(&["--json-schema-file", &at("schema.json")]), text);
    let weather = answer(&["--grammar-file", &at("form.lark")]);
    assert!(
        ["It is sunny.\n", "It is cloudy.\n"].contains(&weather.as_str()),
        "{weather}"
    );
    let number = answer(&["--regex", "[0-9]{4}"]);
    assert!(
        number.trim().len() == 4 && number.trim().parse::<u32>().is_ok(),
        "{number}"
    );
}

#[test]
fn json_tells_how_likely_tokens_were() {
    let args = [
        "--device",
        "cpu",
        "--raw",
        "-n",
        "3",
        "--json",
        "--logprobs",
        "2",
        "Once upon",
    ];
    let object = json(&tiny("run", &args).run().ok());
    let told = object["logprobs"].as_array().expect("a list");
    assert_eq!(told.len(), 3, "{object}");
    for (token, id) in told
        .iter()
        .zip(object["tokens"].as_array().expect("a list"))
    {
        // Greedy: the token is the likeliest one.
        assert_eq!(token["id"], *id);
        let top = token["top"].as_array().expect("a list");
        assert_eq!(
            (top.len(), &top[0]["id"], &top[0]["logprob"]),
            (2, id, &token["logprob"])
        );
        assert!(token["logprob"].as_f64().expect("a number") <= 0.0 && top[0]["text"].is_string());
    }
}

#[test]
fn a_form_that_is_none_is_one_line() {
    let cases: [(&[&str], i32, &str); 8] = [
        (&["-j", "{"], 2, "error: schema: it is not JSON: EOF"),
        (
            &["-j", "7"],
            2,
            "error: schema: a JSON schema is an object, true or false",
        ),
        (
            &["-j", r#"{"type":"objekt"}"#],
            2,
            "error: schema: Invalid type: objekt",
        ),
        (&["--regex", "a("], 2, "error: regex: "),
        (
            &["--grammar-file", "no/such.lark"],
            1,
            "error: no/such.lark: ",
        ),
        (
            &["--json-schema-file", "no/such.json"],
            1,
            "error: no/such.json: ",
        ),
        (
            &["--regex", "a", "-j", "{}"],
            2,
            "error: the argument '--regex <REGEX>' cannot be used with",
        ),
        (
            &["--logprobs", "2"],
            2,
            "error: the following required arguments were not provided",
        ),
    ];
    for (form, code, begin) in cases {
        let args = [&["--device", "cpu", "-n", "4"][..], form, &["x"]].concat();
        let end = tiny("run", &args).run();
        assert_eq!(
            (end.code, end.stdout.as_str()),
            (Some(code), ""),
            "{form:?}: {end:?}"
        );
        assert!(end.stderr.starts_with(begin), "{form:?}: {}", end.stderr);
        let usage = end.stderr.contains("For more information, try '--help'.");
        assert!(
            usage || end.stderr.trim_end().lines().count() == 1,
            "{}",
            end.stderr
        );
    }
}
