//! Functions offered with `run --tools`, from outside. The model is one that calls a function when it is offered one, see
//! tests/tools/scripted_model.py.

use std::fs;
use std::path::Path;

use super::json;
use super::program::{End, Program};

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}]"#;

fn run(tools: &str, args: &[&str]) -> End {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tools.json");
    fs::write(&file, tools).expect("written");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tools/scripted.gguf");
    let (model, file) = (
        model.to_str().expect("UTF-8"),
        file.to_str().expect("UTF-8"),
    );
    let mut all = vec!["run", "-q", "-m", model, "--device", "cpu", "--tools", file];
    all.extend(args);
    Program::new(&all).run()
}

#[test]
fn calls_are_printed_behind_what_is_said() {
    let text = run(TOOLS, &["Weather?"]).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "Let me look."), "{text}");
    let call: serde_json::Value = serde_json::from_str(lines[1]).expect(&text);
    assert_eq!(call["type"], "function");
    assert_eq!(call["function"]["name"], "get_weather");
    assert_eq!(
        call["function"]["arguments"],
        "{\"city\":\"Pará 🦙\",\"days\":3}"
    );
    assert!(
        call["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("call_"))
    );
    let object = json(&run(TOOLS, &["--json", "Weather?"]).ok());
    assert_eq!(object["text"], "Let me look.");
    assert_eq!(object["tool_calls"], serde_json::json!([call]));
    assert_eq!(object["stop"], "eos");
}

#[test]
fn a_call_that_is_demanded_comes() {
    let two = TOOLS.trim_end_matches(']').to_owned()
        + r#", {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}, "additionalProperties": false}}}]"#;
    for (choice, names) in [
        ("required", &["get_weather", "now"][..]),
        ("now", &["now"]),
        ("get_weather", &["get_weather"]),
    ] {
        let object = json(
            &run(
                &two,
                &["--json", "-n", "200", "--tool-choice", choice, "Hello"],
            )
            .ok(),
        );
        let calls = object["tool_calls"].as_array().expect("a list");
        assert_eq!(
            (calls.len(), &object["text"]),
            (1, &serde_json::json!("")),
            "{choice}: {object}"
        );
        let function = &calls[0]["function"];
        assert!(
            names.contains(&function["name"].as_str().expect("a name")),
            "{object}"
        );
        let arguments = function["arguments"].as_str().expect("JSON");
        let arguments: serde_json::Value = serde_json::from_str(arguments).expect("JSON");
        assert_eq!(
            arguments.get("city").is_some(),
            function["name"] == "get_weather"
        );
    }
    let none = json(&run(TOOLS, &["--json", "--tool-choice", "none", "Weather?"]).ok());
    assert_eq!(none.get("tool_calls"), None);
    let end = run(TOOLS, &["--tool-choice", "later", "Weather?"]);
    assert_eq!(end.code, Some(2));
    assert!(
        end.stderr.contains("--tool-choice: ")
            && end.stderr.contains("later")
            && end.stderr.lines().count() == 1,
        "{end:?}"
    );
}

#[test]
fn a_call_that_is_cut_or_of_another_function_is_text() {
    let object = json(&run(TOOLS, &["--json", "-n", "8", "Weather?"]).ok());
    assert_eq!(
        object["text"],
        "Let me look.\n\n<tool_call>\n{\"name\": \"get_weather\""
    );
    assert_eq!(object["tool_calls"], serde_json::json!([]));
    let other = TOOLS.replace("get_weather", "get_time");
    let object = json(&run(&other, &["--json", "Weather?"]).ok());
    assert!(
        object["text"]
            .as_str()
            .is_some_and(|text| text.ends_with("\n</tool_call>")),
        "{object}"
    );
    assert_eq!(object["tool_calls"], serde_json::json!([]));
}

#[test]
fn wrong_tools_are_one_line() {
    for (tools, code, want) in [
        ("[{", 1, "tools.json: EOF while parsing an object"),
        (
            "{}",
            1,
            "tools.json: tools: expected a list, found an object",
        ),
        (
            r#"[{"type": "function", "function": {"name": "a b"}}]"#,
            1,
            "tools.json: tools[0].function.name: \"a b\" is not",
        ),
    ] {
        let end = run(tools, &["Weather?"]);
        assert_eq!((end.code, end.stdout.as_str()), (Some(code), ""), "{end:?}");
        assert!(
            end.stderr.contains(want) && end.stderr.lines().count() == 1,
            "{end:?}"
        );
    }
    let end = run(TOOLS, &["--raw", "Weather?"]);
    assert_eq!(end.code, Some(2), "{end:?}");
}
