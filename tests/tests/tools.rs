//! Calls of functions with real chat templates: conversations against renderings recorded with transformers, and the
//! calls in these read back.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use shardlight::chat::{ChatTemplate, Message, Options};
use shardlight_tools::{Part, Request, ToolCalls, Tools};

/// Templates whose calls are read, and the form that each has.
const KNOWN: &[(&str, &str)] = &[
    ("Apertus-8B-Instruct.jinja", "Apertus"),
    ("Bielik-11B-v3.0-Instruct.jinja", "Hermes"),
    ("Cohere2MoE.jinja", "Command-R"),
    (
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja",
        "Command-R",
    ),
    ("GLM-4.7-Flash.jinja", "GLM"),
    ("GigaChat3.1-10B-A1.8B.jinja", "GigaChat"),
    ("Kimi-K2-Instruct.jinja", "Kimi-K2"),
    ("MiMo-VL.jinja", "Hermes"),
    ("Mistral-Small-3.2-24B-Instruct-2506.jinja", "Mistral"),
    ("NVIDIA-Nemotron-Nano-v2.jinja", "Nemotron"),
    (
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja",
        "Hermes",
    ),
    ("Qwen-Qwen2.5-7B-Instruct.jinja", "Hermes"),
    ("Qwen3-Coder.jinja", "Qwen3-Coder"),
    ("Reka-Edge.jinja", "Hermes"),
    ("StepFun3.5-Flash.jinja", "Qwen3-Coder"),
    ("ibm-granite-granite-4.0.jinja", "Hermes"),
    ("inclusionai-ling-3.0-flash.jinja", "GLM"),
    ("meta-llama-Llama-3.2-3B-Instruct.jinja", "Llama 3"),
    ("mistralai-Mistral-Nemo-Instruct-2407.jinja", "Mistral"),
    ("poolside-Laguna-XS-2.1.jinja", "GLM"),
    ("unsloth-mistral-Devstral-Small-2507.jinja", "Mistral"),
];

/// These do not show functions to the model: they are told of in words.
const GENERIC: &[&str] = &[
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja",
    "google-gemma-2-2b-it.jinja",
    "llama-cpp-rwkv-world.jinja",
    "microsoft-Phi-3.5-mini-instruct.jinja",
];

struct Case {
    template: String,
    messages: Vec<Message>,
    tools: Tools,
    options: Options,
    output: Option<String>,
}

/// Recorded conversations of one kind, with arguments as OpenAI's API has them.
fn cases(kind: &str) -> Vec<Case> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/chat/golden.jsonl");
    let golden = std::fs::read_to_string(data).unwrap();
    let cases = golden
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases = cases.filter(|case| case["case"] == kind).map(|mut case| {
        for message in case["messages"].as_array_mut().unwrap() {
            for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
                let arguments = &mut call["function"]["arguments"];
                *arguments = arguments.to_string().into();
            }
            if message["tool_calls"].is_null() {
                message.as_object_mut().unwrap().shift_remove("tool_calls");
            } else {
                message["content"] = Value::Null;
            }
        }
        let mut extra = case["kwargs"].as_object().unwrap().clone();
        let mut text = |key: &str| match extra.shift_remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let options = Options {
            bos_token: text("bos_token"),
            eos_token: text("eos_token"),
            add_generation_prompt: extra.shift_remove("add_generation_prompt") == Some(true.into()),
            extra,
            now: Some(shardlight::chat::DateTime {
                year: 2026,
                month: 1,
                day: 15,
                hour: 12,
                minute: 0,
                second: 0,
            }),
            ..Options::default()
        };
        Case {
            template: case["template"].as_str().unwrap().to_owned(),
            messages: serde_json::from_value(case["messages"].clone()).unwrap(),
            tools: Tools::new(&case["tools"]).unwrap(),
            options,
            output: case["output"].as_str().map(str::to_owned),
        }
    });
    cases.collect()
}

fn template(name: &str) -> ChatTemplate {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/chat/templates")
        .join(name);
    ChatTemplate::new(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn conversations_with_calls_are_rendered_as_transformers_does() {
    let forms: BTreeMap<&str, &str> = KNOWN.iter().copied().collect();
    let (mut same, mut refused, mut told) = (0, 0, 0);
    for case in ["tools", "tool_round", "tool_done"]
        .into_iter()
        .flat_map(cases)
    {
        let name = case.template.as_str();
        let template = template(name);
        let request =
            match Request::new(&template, &case.messages, Some(&case.tools), &case.options) {
                Ok(request) => request,
                Err(e) => {
                    assert!(
                        !forms.contains_key(name) && !GENERIC.contains(&name),
                        "{name}: {e}"
                    );
                    refused += 1;
                    continue;
                }
            };
        let form = request.format.unwrap().name;
        let text = template.render(&request.messages, &request.options);
        if GENERIC.contains(&name) {
            assert_eq!(form, "generic", "{name}");
            assert!(
                text.unwrap_or_else(|e| panic!("{name}: {e}"))
                    .contains("\"get_weather\""),
                "{name}"
            );
            told += 1;
            continue;
        }
        assert_eq!(Some(&form), forms.get(name), "{name}");
        if let Some(want) = case.output {
            assert_eq!(
                text.unwrap_or_else(|e| panic!("{name}: {e}")),
                want,
                "{name}"
            );
            same += 1;
        }
    }
    println!("{same} renderings as recorded, {told} in words, {refused} refused");
    assert_eq!((same, told, refused), (61, 12, 30));
}

#[test]
fn several_calls_and_their_results_are_shown_by_every_template() {
    let call = |id: &str, city: &str| {
        let arguments = serde_json::json!({ "city": city }).to_string();
        serde_json::json!({"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}})
    };
    let result = |id: &str, text: &str| serde_json::json!({"role": "tool", "tool_call_id": id, "content": text});
    let messages: Vec<Message> = serde_json::from_value(serde_json::json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call("call_1", "Lyon"), call("call_2", "Oslo")]},
        result("call_1", "rain"),
        result("call_2", "snow"),
    ]))
    .unwrap();
    for case in cases("tools") {
        let name = case.template.as_str();
        if !KNOWN.iter().any(|known| known.0 == name) && !GENERIC.contains(&name) {
            continue;
        }
        if name == "Kimi-K2-Instruct.jinja" {
            // It appends to a list where there are several messages, which transformers' sandbox refuses, too.
            continue;
        }
        let template = template(name);
        let request = Request::new(&template, &messages, Some(&case.tools), &case.options).unwrap();
        let text = template.render(&request.messages, &request.options);
        let text = text.unwrap_or_else(|e| panic!("{name}: {e}"));
        for part in ["Lyon", "Oslo", "rain", "snow"] {
            assert!(text.contains(part), "{name}: no {part} in {text}");
        }
    }
}

#[test]
fn recorded_calls_are_read_back() {
    let mut read = Vec::new();
    let prompts = cases("tools");
    for case in cases("tool_round") {
        let (Some((_, form)), Some(output)) = (
            KNOWN.iter().find(|known| known.0 == case.template),
            &case.output,
        ) else {
            continue;
        };
        let prompt = prompts
            .iter()
            .find(|prompt| prompt.template == case.template)
            .unwrap();
        // The answer to the same prompt begins where the two differ, or at a mark that both begin with.
        let prompt = prompt.output.as_ref().unwrap();
        let pairs = prompt.chars().zip(output.chars());
        let same: usize = pairs
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        let mark = output[..same]
            .rfind('<')
            .filter(|at| !output[*at..same].contains('>'));
        let answer = &output[mark.unwrap_or(same)..];
        let template = template(&case.template);
        let request = Request::new(
            &template,
            &case.messages[..1],
            Some(&case.tools),
            &case.options,
        )
        .unwrap();
        let mut calls = ToolCalls::new(request.format.unwrap(), &case.tools, &[]);
        let mut parts = calls.push(answer);
        parts.extend(calls.finish());
        let call = parts.iter().find_map(|part| match part {
            Part::Call(call) => Some(call),
            Part::Text(_) => None,
        });
        let call =
            call.unwrap_or_else(|| panic!("{} ({form}): no call in {answer:?}", case.template));
        assert_eq!(
            (call.name.as_str(), call.arguments.as_str()),
            ("get_weather", r#"{"city":"Pará é 🦙","unit":"c"}"#),
            "{}",
            case.template
        );
        read.push(*form);
    }
    read.sort_unstable();
    read.dedup();
    println!("read back: {}", read.join(", "));
    assert!(read.len() >= 9, "{read:?}");
}
