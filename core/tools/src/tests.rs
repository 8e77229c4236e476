use proptest::prelude::*;
use serde_json::{Value, json};

use super::format::{Body, GENERIC};
use super::*;
use shardlight::chat::{ChatTemplate, Message, Options};

fn tools() -> Tools {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]});
    Tools::new(&json!([
        {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": weather}},
        {"type": "function", "function": {"name": "now"}},
    ]))
    .unwrap()
}

/// Text and calls, `NAME(ARGUMENTS)`, neighbouring texts joined.
fn joined(parts: impl IntoIterator<Item = Part>) -> Vec<String> {
    let mut out: Vec<(bool, String)> = Vec::new();
    for part in parts {
        match (part, out.last_mut()) {
            (Part::Text(text), Some((false, last))) => last.push_str(&text),
            (Part::Text(text), _) => out.push((false, text)),
            (Part::Call(call), _) => out.push((true, format!("{}({})", call.name, call.arguments))),
        }
    }
    out.into_iter().map(|(_, text)| text).collect()
}

fn parse<'a>(format: &'static Format, pieces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let tools = tools();
    let mut calls = ToolCalls::new(format, &tools, &[1]);
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        parts.extend(calls.push(piece));
    }
    parts.extend(calls.finish());
    joined(parts)
}

/// The row that a template with this text in it has.
fn format(source: &str) -> &'static Format {
    Format::of(source).unwrap()
}

const PARIS: &str = r#"get_weather({"city":"Paris"})"#;

#[test]
fn every_form_is_read() {
    let call = r#"{"name": "get_weather", "arguments": {"city": "Paris"}}"#;
    let llama = r#"{"name": "get_weather", "parameters": {"city": "Paris"}}"#;
    let cases: &[(&str, &str, String)] = &[
        ("Hermes", "<tool_call>", format!("<tool_call>\n{call}\n</tool_call>")),
        ("Hermes", "<tool_call>", format!("<tool_call>{call}")),
        ("Hermes", "<tool_call>", r#"<tool_call>{"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}</tool_call>"#.into()),
        ("Qwen3-Coder", "<tool_call><function=<parameter=", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>".into()),
        ("GLM", "<tool_call><arg_key><arg_value>", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>".into()),
        ("Mistral", "[TOOL_CALLS]", format!("[TOOL_CALLS] [{call}]")),
        ("Mistral", "[TOOL_CALLS]", r#"[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}"#.into()),
        ("Mistral", "[TOOL_CALLS]", r#"[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{"city": "Paris"}"#.into()),
        ("DeepSeek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>".into()),
        ("DeepSeek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>".into()),
        ("Kimi-K2", "<|tool_calls_section_begin|>", "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>".into()),
        ("Granite", "<|tool_call|>", format!("<|tool_call|>[{call}]")),
        ("Phi-4-mini", "<|tool|><|/tool|>", format!("<|tool_call|>[{call}]<|/tool_call|>")),
        ("Phi-4-mini", "<|tool|><|/tool|>", format!("functools[{call}]")),
        ("Nemotron", "<TOOLCALL>", format!("<TOOLCALL>[{call}]</TOOLCALL>")),
        ("Command-R", "<|START_ACTION|>", r#"<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}]<|END_ACTION|>"#.into()),
        ("Apertus", "<|tools_prefix|>", r#"<|tools_prefix|>[{"get_weather": {"city": "Paris"}}]<|tools_suffix|>"#.into()),
        ("GigaChat", "<|function_call|>", format!("<|function_call|>{call}")),
        ("Llama 3", "<|start_header_id|>\"parameters\": ", llama.into()),
        ("Llama 3", "<|start_header_id|>\"parameters\": ", format!("<|python_tag|>{llama}")),
        ("Llama 3", "<|start_header_id|>\"parameters\": ", r#"{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}"#.into()),
    ];
    for (name, source, text) in cases {
        let format = format(source);
        assert_eq!(format.name, *name);
        assert_eq!(parse(format, [text.as_str()]), [PARIS], "{text}");
        let letters: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(
            parse(format, letters.iter().map(String::as_str)),
            [PARIS],
            "{text}"
        );
        assert_eq!(parse(format, ["  ", text, "\n"]), [PARIS], "{text}");
        if !format.bare {
            assert_eq!(
                parse(format, ["Let me look.\n\n", text, "\nDone."]),
                ["Let me look.", PARIS, "\nDone."],
                "{text}"
            );
        }
    }
    for text in [
        call.to_owned(),
        format!("```json\n[{call}]\n```"),
        format!("{{\"tool_call\": {call}}}"),
        format!("{{\"tool_calls\": [{call}]}}"),
        format!("{{\"type\": \"function\", \"function\": {call}}}"),
    ] {
        assert_eq!(parse(&GENERIC, [text.as_str()]), [PARIS], "{text}");
    }
}

#[test]
fn several_calls_are_several() {
    let hermes = "A\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    assert_eq!(
        parse(format("<tool_call>"), [hermes]),
        ["A", "now({})", PARIS]
    );
    let mistral = r#"[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}"#;
    assert_eq!(parse(format("[TOOL_CALLS]"), [mistral]), ["now({})", PARIS]);
    let list = r#"[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Paris"}}]"#;
    assert_eq!(parse(format("[TOOL_CALLS]"), [list]), ["now({})", PARIS]);
    let llama = r#"{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Paris"}}"#;
    assert_eq!(
        parse(format("<|start_header_id|>\"parameters\": "), [llama]),
        ["now({})", PARIS]
    );
    let deepseek = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    assert_eq!(
        parse(format("<｜tool▁calls▁begin｜>"), [deepseek]),
        ["now({})", PARIS]
    );
}

#[test]
fn only_the_first_call_is_taken_where_that_is_asked_for() {
    let tools = tools();
    let mut calls = ToolCalls::new(format("[TOOL_CALLS]"), &tools, &[]).first_call();
    let list =
        r#"[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}] and"#;
    assert_eq!(joined(calls.push(list)), ["now({})"]);
    assert!(calls.is_done() && calls.called());
    assert!(calls.finish().is_empty());
}

#[test]
fn what_is_no_call_is_text_and_all_of_it() {
    for text in [
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}\n</tool_call> x",
        "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"b\n\"}}</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>",
        "<tool_call>{\"name\": \"now\"",
        " a <tool_ca",
        "The tag <tool_call> begins a call.\n",
        "<tool_call>{\"name\": True}",
        "<tool_call>}",
        "<tool_call>{]]}}",
    ] {
        assert_eq!(parse(format("<tool_call>"), [text]), [text]);
    }
    // What is broken does not hide the next one.
    let text = "<tool_call>{</tool_call>\n<tool_call>{\"name\": \"now\"}</tool_call>";
    assert_eq!(
        parse(format("<tool_call>"), [text]),
        ["<tool_call>{</tool_call>", "now({})"]
    );
    for text in [
        "[TOOL_CALLS]unknown[ARGS]{}",
        "[TOOL_CALLS]now[ARGS]{",
        "[TOOL_CALLS]now",
        "[TOOL_CALLS]{}",
    ] {
        assert_eq!(parse(format("[TOOL_CALLS]"), [text]), [text]);
    }
    for text in [
        "{\"a\": 1}",
        "[1, 2] is a list",
        "{",
        " {x}",
        "x {\"name\": \"now\"}",
        "```json\n{\"a\": 1}\n```\nis JSON",
    ] {
        assert_eq!(parse(&GENERIC, [text]), [text]);
    }
}

#[test]
fn values_without_quotes_get_the_types_of_the_schema() {
    let text = "<tool_call><function=get_weather><parameter=city>\n12\n</parameter><parameter=days>3</parameter><parameter=other>{\"a\": [1]}</parameter><parameter=words>a < b</parameter></function></tool_call>";
    assert_eq!(
        parse(format("<tool_call><function=<parameter="), [text]),
        [r#"get_weather({"city":"12","days":3,"other":{"a":[1]},"words":"a < b"})"#]
    );
}

#[test]
fn a_long_call_is_found_in_whatever_pieces() {
    let text = format!(
        "<tool_call>{{\"name\": \"now\", \"arguments\": {{\"x\": \"{}\"}}}}</tool_call>!",
        "a}b".repeat(3000)
    );
    let want = parse(format("<tool_call>"), [text.as_str()]);
    assert_eq!(want.len(), 2);
    for size in [1, 7, 1000] {
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(size)
            .map(|c| std::str::from_utf8(c).unwrap())
            .collect();
        assert_eq!(parse(format("<tool_call>"), pieces), want, "{size}");
    }
}

#[test]
fn ids_differ_and_are_the_same_for_the_same_prompt() {
    let tools = tools();
    let ids = |tokens: &[u32]| -> Vec<String> {
        let mut calls = ToolCalls::new(&GENERIC, &tools, tokens);
        let parts = calls.push(r#"[{"name": "now"}, {"name": "now"}]"#);
        parts
            .into_iter()
            .map(|part| {
                if let Part::Call(call) = part {
                    call.id
                } else {
                    panic!("{part:?}")
                }
            })
            .collect()
    };
    let (a, again, b) = (ids(&[1, 2]), ids(&[1, 2]), ids(&[1, 3]));
    assert_eq!(a, again);
    assert_ne!(a[0], a[1]);
    assert!(!b.contains(&a[0]) && !b.contains(&a[1]));
    assert!(
        a.iter().all(|id| id.len() == 29 && id.starts_with("call_")),
        "{a:?}"
    );
}

/// A call in this form.
fn a_call(format: &Format) -> String {
    let open = format.open.concat();
    match &format.body {
        Body::Json => format!("{open}{{\"name\": \"now\", \"arguments\": {{}}}}"),
        Body::Named { .. } => format!("{open}now{{}}"),
        Body::Elements(marks) => format!("{open}{}now{}{}", marks.name, marks.name_end, marks.end),
    }
}

/// A form, and texts that are likely to be parts of its calls, or whole ones.
fn fragments() -> impl Strategy<Value = (&'static Format, Vec<String>)> {
    let all: Vec<&'static Format> = format::FORMATS.iter().chain([&GENERIC]).collect();
    proptest::sample::select(all).prop_flat_map(|format| {
        let fragment = prop_oneof![2 => Just(a_call(format)), 3 => fragment()];
        (Just(format), proptest::collection::vec(fragment, 0..8))
    })
}

/// Texts that are likely to be parts of calls, and others.
fn fragment() -> impl Strategy<Value = String> {
    let marks: Vec<String> = format::FORMATS
        .iter()
        .chain([&GENERIC])
        .flat_map(Format::marks)
        .map(String::from)
        .collect();
    let parts = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ":",
        ",",
        "{\"name\": \"now\", \"arguments\": {}}",
        "now",
        "get_weather",
        "<function=now>",
        "</function>",
        "<parameter=city>",
        "</parameter>",
        "<arg_key>a</arg_key>",
        "<arg_value>1</arg_value>",
        "\n",
        " ",
        "é🦙",
        "a",
    ];
    let marks: Vec<String> = marks.into_iter().chain(parts.map(String::from)).collect();
    prop_oneof![4 => proptest::sample::select(marks), 1 => ".{0,6}"]
}

proptest! {
    #[test]
    fn cutting_a_text_changes_nothing(
        (format, fragments) in fragments(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let text = fragments.concat();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).filter(|at| text.is_char_boundary(*at)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let pieces = ends.windows(2).map(|ends| &text[ends[0]..ends[1]]);
        let whole = parse(format, [text.as_str()]);
        prop_assert_eq!(&parse(format, pieces), &whole);
        // What is no call is there, in its order.
        let mut rest = text.as_str();
        for part in whole.iter().filter(|part| !part.ends_with(')')) {
            let at = rest.find(part.as_str());
            prop_assert!(at.is_some(), "{:?} of {:?}", part, text);
            rest = &rest[at.unwrap() + part.len()..];
        }
    }

    #[test]
    fn text_without_calls_comes_back(text in "[a-z <>\\[\\]{}|\"\\n]{0,60}", which in any::<proptest::sample::Index>()) {
        let all: Vec<&'static Format> = format::FORMATS.iter().chain([&GENERIC]).collect();
        let want: Vec<String> = if text.is_empty() { vec![] } else { vec![text.clone()] };
        prop_assert_eq!(parse(all[which.index(all.len())], [text.as_str()]), want);
    }
}

#[test]
fn a_wrong_list_is_one_line_with_its_place() {
    let function = |function: Value| json!([{"type": "function", "function": function}]);
    for (list, want) in [
        (json!({}), "tools: expected a list, found an object"),
        (
            json!([]),
            "tools: is empty; leave it out to offer no function",
        ),
        (json!([1]), "tools[0]: expected an object, found a number"),
        (
            json!([{"function": {"name": "f"}}]),
            "tools[0].type: is missing",
        ),
        (
            json!([{"type": "custom"}]),
            "tools[0].type: \"custom\"; supported: function",
        ),
        (
            json!([{"type": "function"}]),
            "tools[0].function: expected an object, found nothing",
        ),
        (function(json!({})), "tools[0].function.name: is missing"),
        (
            function(json!({"name": 3})),
            "tools[0].function.name: expected text, found a number",
        ),
        (
            function(json!({"name": "a b"})),
            "tools[0].function.name: \"a b\" is not 1 to 64 letters, digits, _ and -",
        ),
        (
            function(json!({"name": ""})),
            "tools[0].function.name: \"\" is not 1 to 64 letters, digits, _ and -",
        ),
        (
            function(json!({"name": "f", "description": []})),
            "tools[0].function.description: expected text, found a list",
        ),
        (
            function(json!({"name": "f", "parameters": "x"})),
            "tools[0].function.parameters: expected an object, found text",
        ),
        (
            function(json!({"name": "f", "parameters": {"type": "array"}})),
            "tools[0].function.parameters: expected a JSON schema of type \"object\", found \"array\"",
        ),
        (
            json!([{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}]),
            "tools[1].function.name: \"f\" is there twice",
        ),
    ] {
        assert_eq!(Tools::new(&list).unwrap_err().to_string(), want);
    }
    let many: Value = (0..129)
        .map(|i| json!({"type": "function", "function": {"name": format!("f{i}")}}))
        .collect();
    assert_eq!(
        Tools::new(&many).unwrap_err().to_string(),
        "tools: 129 functions; at most 128 can be offered"
    );
}

#[test]
fn a_choice_is_one_of_four() {
    let tools = tools();
    let choose = |choice: Value| ToolChoice::new(&choice, &tools);
    assert_eq!(choose(Value::Null).unwrap(), ToolChoice::Auto);
    assert_eq!(choose("none".into()).unwrap(), ToolChoice::None);
    assert_eq!(choose("required".into()).unwrap(), ToolChoice::Required);
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    assert_eq!(
        choose(named("now")).unwrap(),
        ToolChoice::Function("now".into())
    );
    for (choice, want) in [
        ("all".into(), "tool_choice: \"all\"; supported: "),
        (
            named("then"),
            "tool_choice.function: \"then\" is not among the tools: get_weather, now",
        ),
        (
            json!({"type": "function"}),
            "tool_choice.function: expected an object, found nothing",
        ),
        (
            json!({"type": "allowed_tools"}),
            "tool_choice: {\"type\":\"allowed_tools\"}; supported: ",
        ),
        (json!(7), "tool_choice: 7; supported: "),
    ] {
        let error = choose(choice).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
}

/// Without what it says of white space, which it must say.
fn without_spacing(schema: Option<Value>) -> Option<Value> {
    let mut schema = schema?;
    let said = schema.as_object_mut()?.remove("x-guidance")?;
    assert_eq!(said["whitespace_flexible"], false);
    Some(schema)
}

#[test]
fn a_choice_has_a_schema() {
    let tools = Tools::new(&json!([
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "null"}}}}},
        {"type": "function", "function": {"name": "g"}},
    ]))
    .unwrap();
    assert_eq!(tools.schema(&ToolChoice::Auto, "arguments"), None);
    assert_eq!(tools.schema(&ToolChoice::None, "arguments"), None);
    let g = json!({
        "type": "object",
        "properties": {"name": {"const": "g"}, "parameters": {"type": "object", "properties": {}}},
        "required": ["name", "parameters"],
        "additionalProperties": false,
    });
    assert_eq!(
        without_spacing(tools.schema(&ToolChoice::Function("g".into()), "parameters")),
        Some(g)
    );
    let both = without_spacing(tools.schema(&ToolChoice::Required, "arguments")).unwrap();
    let reference = "/anyOf/0/properties/arguments/properties/a/$ref";
    let target = both.pointer(reference).unwrap().as_str().unwrap();
    assert_eq!(
        both.pointer(target.strip_prefix('#').unwrap()),
        Some(&json!({"type": "null"}))
    );
}

fn message(value: Value) -> Message {
    serde_json::from_value(value).unwrap()
}

fn conversation() -> Vec<Message> {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    vec![
        Message::new("user", "Weather?"),
        message(
            json!({"role": "assistant", "content": null, "tool_calls": [call("call_a", "get_weather", "{\"city\": \"Paris\"}"), call("call_b", "now", "")]}),
        ),
        message(json!({"role": "tool", "tool_call_id": "call_a", "content": "rain"})),
        message(json!({"role": "tool", "tool_call_id": "call_b", "content": "noon"})),
    ]
}

#[test]
fn a_template_without_functions_is_told_in_words() {
    let template = ChatTemplate::fallback().unwrap();
    let tools = tools();
    let request = Request::new(
        &template,
        &conversation(),
        Some(&tools),
        &Options::default(),
    )
    .unwrap();
    assert_eq!(request.format, Some(&GENERIC));
    let text = template
        .render(&request.messages, &request.options)
        .unwrap();
    let (system, rest) = text.split_once("<|im_end|>\n").unwrap();
    assert!(
        system.starts_with(
            "<|im_start|>system\nYou can call these functions:\n{\"name\":\"get_weather\""
        ),
        "{system}"
    );
    assert_eq!(
        rest,
        "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n[{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Paris\"}}, \
         {\"name\":\"now\",\"arguments\":{}}]<|im_end|>\n<|im_start|>user\nResult of get_weather: rain\n\nResult of now: noon<|im_end|>\n"
    );
    // A system message that is there stays first in it; without system messages, the user's has it.
    let mine = [
        Message::new("system", "Be brief."),
        Message::new("user", "Hi"),
    ];
    let request = Request::new(&template, &mine, Some(&tools), &Options::default()).unwrap();
    assert_eq!(request.messages.len(), 2);
    assert!(
        request.messages[0].0["content"]
            .as_str()
            .unwrap()
            .starts_with("Be brief.\n\nYou can call")
    );
    let without = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}";
    let template = ChatTemplate::new(without).unwrap();
    let request = Request::new(&template, &mine[1..], Some(&tools), &Options::default()).unwrap();
    assert!(
        request.messages[0].0["content"]
            .as_str()
            .unwrap()
            .ends_with("\n\nHi")
    );
}

#[test]
fn arguments_are_objects_and_text_where_a_template_wants_text() {
    let shows = "{% for t in tools %}{{ t.function.name }}{% endfor %}<tool_call>";
    let calls = "{% for m in messages %}{% for c in m.tool_calls %}";
    let end = "{% endfor %}{% endfor %}";
    let render = |body: &str| {
        let template = ChatTemplate::new(&format!("{shows}{calls}{body}{end}")).unwrap();
        let request = Request::new(
            &template,
            &conversation(),
            Some(&tools()),
            &Options::default(),
        )
        .unwrap();
        template
            .render(&request.messages, &request.options)
            .unwrap()
    };
    let head = "get_weathernow<tool_call>";
    assert_eq!(
        render("{{ c.function.arguments | tojson }}"),
        format!("{head}{{\"city\": \"Paris\"}}{{}}")
    );
    assert_eq!(
        render("{{ 'x' + c.function.arguments }}"),
        format!("{head}x{{\"city\":\"Paris\"}}x{{}}")
    );
}

#[test]
fn mistral_gets_ids_of_nine_characters() {
    let template = ChatTemplate::new("[TOOL_CALLS]{% for m in messages %}{% for c in m.tool_calls %}{{ c.id }} {% endfor %}{{ m.tool_call_id }} {% endfor %}").unwrap();
    let request = Request::new(&template, &conversation(), None, &Options::default()).unwrap();
    let text = template
        .render(&request.messages, &request.options)
        .unwrap();
    let ids: Vec<&str> = text
        .trim_start_matches("[TOOL_CALLS]")
        .split_whitespace()
        .collect();
    assert!(
        ids.len() == 4 && ids[..2] == ids[2..] && ids[0] != ids[1],
        "{ids:?}"
    );
    assert!(ids.iter().all(|id| id.len() == 9), "{ids:?}");
}

#[test]
fn a_template_of_unknown_form_is_refused() {
    let template = ChatTemplate::new("{{ tools | tojson }}{{ messages[0].content }}").unwrap();
    let error = Request::new(
        &template,
        &[Message::new("user", "x")],
        Some(&tools()),
        &Options::default(),
    )
    .unwrap_err();
    assert!(error.to_string().starts_with("tools: this model's chat template writes calls in an unknown form; supported: Qwen3-Coder, GLM, Hermes"), "{error}");
}

#[test]
fn wrong_calls_and_results_are_one_line_with_their_place() {
    let template = ChatTemplate::fallback().unwrap();
    let error = |messages: Value| {
        let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
        Request::new(&template, &messages, None, &Options::default())
            .unwrap_err()
            .to_string()
    };
    let calls = |calls: Value| json!([{"role": "assistant", "tool_calls": calls}]);
    for (messages, want) in [
        (
            json!([{"role": "tool", "content": "x"}]),
            "messages[0].tool_call_id: is missing",
        ),
        (
            json!([{"role": "tool", "tool_call_id": "y", "content": "x"}]),
            "messages[0]: tool_call_id \"y\" is of no call before it",
        ),
        (
            json!([{"role": "user", "tool_calls": []}]),
            "messages[0]: tool_calls of role \"user\"; only the assistant calls",
        ),
        (
            calls(json!({})),
            "messages[0].tool_calls: expected a list, found an object",
        ),
        (
            calls(json!([{}])),
            "messages[0].tool_calls[0].id: is missing",
        ),
        (
            calls(json!([{"id": "a"}])),
            "messages[0].tool_calls[0].function: expected an object, found nothing",
        ),
        (
            calls(json!([{"id": "a", "function": {"name": "f", "arguments": 3}}])),
            "messages[0].tool_calls[0].function.arguments: expected JSON as text, found a number",
        ),
    ] {
        assert_eq!(error(messages), want);
    }
}
