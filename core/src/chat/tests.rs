use super::*;

fn render(source: &str, content: &str) -> Result<String> {
    ChatTemplate::new(source)?.render(&[Message::new("user", content)], &Options::default())
}

#[test]
fn the_fallback_is_chatml_and_says_so() {
    let template = ChatTemplate::fallback().unwrap();
    let options = Options {
        add_generation_prompt: true,
        ..Options::default()
    };
    assert!(template.is_fallback() && !ChatTemplate::new("x").unwrap().is_fallback());
    assert_eq!(
        template
            .render(&[Message::new("user", "hi")], &options)
            .unwrap(),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn what_a_template_raises_is_the_error() {
    let error = render("{{ raise_exception('roles must alternate') }}", "x").unwrap_err();
    assert_eq!(error.to_string(), "chat template: roles must alternate");
}

#[test]
fn template_injection_is_inert() {
    let attack = "{{ 7 * 7 }}{% for x in range(9) %}{{ x }}{% endfor %}";
    assert_eq!(render("{{ messages[0].content }}", attack).unwrap(), attack);
    for source in [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__.os }}",
    ] {
        let out = render(source, "x");
        assert!(
            out.as_ref().map_or(true, String::is_empty),
            "{source}: {out:?}"
        );
    }
}

#[test]
fn no_messages_is_an_error() {
    assert!(
        ChatTemplate::new("x")
            .unwrap()
            .render(&[], &Options::default())
            .is_err()
    );
}

#[test]
fn hostile_templates_are_errors_not_overflows() {
    let deep = |open: &str, close: &str, n: usize| {
        format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n))
    };
    let sources = [
        ("long", "x".repeat(70_000)),
        ("brackets", deep("(", ")", 20_000)),
        ("lists", deep("[", "]", 20_000)),
        ("not", format!("{{{{ {} x }}}}", "not ".repeat(10_000))),
        ("minus", deep("-", "", 20_000)),
        ("sum", format!("{{{{ 1{} }}}}", "+1".repeat(30_000))),
        ("dots", format!("{{{{ a{} }}}}", ".b".repeat(30_000))),
        ("filters", format!("{{{{ a{} }}}}", "|trim".repeat(10_000))),
        ("ternary", format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(5_000))),
        ("blocks", "{% if 1 %}".repeat(6_000)),
        ("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(5_000))),
        ("unclosed", "{{ ".repeat(20_000)),
        ("syntax", "{% endfor %}".to_owned()),
        ("endless", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".to_owned()),
        ("recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned()),
        ("loop recursion", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned()),
        ("output", format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "y".repeat(9_999))),
        ("doubling", "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}".to_owned()),
        ("repeat", "{{ 'x' * 9999999999 }}".to_owned()),
        ("width", "{{ '%999999999d' | format(1) }}{{ '{:999999999}'.format(1) }}".to_owned()),
        ("self include", "{% include 'chat' %}".to_owned()),
        ("self extends", "{% extends 'chat' %}".to_owned()),
    ];
    for (what, source) in sources {
        assert!(render(&source, "x").is_err(), "{what}");
    }
}

#[test]
fn a_namespace_that_holds_itself_is_an_error() {
    for set in ["ns", "[ns]", "{'a': ns}"] {
        let source = format!("{{% set ns = namespace() %}}{{% set ns.x = {set} %}}{{{{ ns }}}}");
        assert!(render(&source, "x").is_err(), "{set}");
    }
}

#[test]
fn deeply_nested_values_do_not_overflow_the_stack() {
    let nest = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    for tail in [
        "",
        "{{ ns.x }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x == ns.x }}",
    ] {
        // Any answer will do; a stack overflow would end the process.
        drop(render(&format!("{nest}{tail}"), "x"));
    }
}
