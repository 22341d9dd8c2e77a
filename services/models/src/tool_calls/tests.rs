use proptest::prelude::*;

use super::*;

fn tools(names: &[&str]) -> Vec<ToolDefinition> {
    names.iter().map(|name| ToolDefinition::new(*name, "", "")).collect()
}

fn call(name: &str, arguments: &str) -> Piece {
    Piece::Call { name: name.into(), arguments: arguments.into() }
}

fn text(text: &str) -> Piece {
    Piece::Text(text.into())
}

/// Pieces of `texts`, texts that follow each other joined.
fn parse_in<'a>(names: &[&str], texts: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
    let mut parser = ToolCallParser::new(&tools(names));
    let mut pieces: Vec<Piece> = texts.into_iter().flat_map(|text| parser.push(text)).collect();
    pieces.extend(parser.finish());
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(last)), Piece::Text(more)) => last.push_str(&more),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

fn parse(whole: &str) -> Vec<Piece> {
    parse_in(&["f", "g", "get_weather"], [whole])
}

#[test]
fn every_form_of_a_call_is_read() {
    let f = || vec![call("f", r#"{"a": 1}"#)];
    let forms = [
        r#"<|python_tag|>f.call(a=1)<|eom_id|>"#,
        r#"<|python_tag|>f(a=1)"#,
        r#"{"type": "function", "name": "f", "parameters": {"a": 1}}"#,
        r#"{"name": "f", "parameters": {"a": 1}}"#,
        r#"{"name": "f", "arguments": {"a": 1}}<|eot_id|>"#,
        r#"{"arguments": {"a": 1}, "name": "f"}"#,
        r#"{"name": "f", "arguments": "{\"a\": 1}"}"#,
        r#"<|python_tag|>{"name": "f", "parameters": {"a": 1}}<|eom_id|>"#,
        r#"<function=f>{"a": 1}</function>"#,
        r#"<function=f> {"a": 1}"#,
        r#"[f(a=1)]"#,
        r#"<|python_tag|>[f(a=1)]"#,
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>",
        r#"<tool_call>{"name": "f", "arguments": {"a": 1}}"#,
        r#"<tool_call>{'name': 'f', 'arguments': {'a': 1}}</tool_call>"#,
        r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]"#,
        r#"[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abc"}]</s>"#,
        r#"[{"name": "f", "arguments": {"a": 1}}]"#,
        "```json\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n```",
        "```\n[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]\n```\n",
    ];
    for form in forms {
        assert_eq!(parse(form), f(), "{form}");
    }
}

#[test]
fn all_of_several_calls_are_kept_in_order() {
    let both = vec![call("f", r#"{"a": 1}"#), call("g", "{}")];
    let forms = [
        r#"[f(a=1), g()]"#,
        r#"{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}"#,
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}\n{\"name\": \"g\", \"parameters\": {}}<|eom_id|>",
        r#"<|python_tag|>f.call(a=1); g.call()"#,
        r#"[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#,
        r#"<function=f>{"a": 1}</function><function=g></function>"#,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>",
        "```json\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n{\"name\": \"g\", \"arguments\": {}}\n```",
        r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#,
    ];
    for form in forms {
        assert_eq!(parse(form), both, "{form}");
    }
}

#[test]
fn apostrophes_and_quotes_in_arguments_survive() {
    assert_eq!(
        parse(r#"[f(a='it\'s', b="O'Brien \"x\"", c=[True, None])]"#),
        [call("f", r#"{"a": "it's", "b": "O'Brien \"x\"", "c": [true, null]}"#)]
    );
    assert_eq!(parse(r#"{"name": "f", "arguments": {"a": "it's </tool_call> ]}"}}"#), [call("f", r#"{"a": "it's </tool_call> ]}"}"#)]);
    assert_eq!(
        parse(r#"<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>"#),
        [call("f", r#"{"a": "</tool_call>"}"#)]
    );
}

#[test]
fn prose_around_calls_is_text() {
    assert_eq!(
        parse("I look it up: {\"name\": \"f\", \"arguments\": {}}\nthen tell {you}."),
        [text("I look it up: "), call("f", "{}"), text("\nthen tell {you}.")]
    );
    assert_eq!(parse("a [1] b < c `d` <tool_call>{\"name\":\"g\"}</tool_call>"), [text("a [1] b < c `d` "), call("g", "{}")]);
    assert_eq!(parse("{{\"name\": \"f\", \"arguments\": {}}"), [text("{"), call("f", "{}")]);
}

#[test]
fn an_undeclared_name_stays_text_byte_for_byte() {
    let texts = [
        r#"{"name": "nope", "arguments": {"a": 1}}"#,
        "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call> ",
        r#"<function=nope>{"a": 1}</function>"#,
        r#"<function=f"#,
        r#"[nope(a=1)]"#,
        r#"<|python_tag|>nope.call(a=1)<|eom_id|>"#,
        "<|python_tag|>print('hi')\n",
        r#"[TOOL_CALLS] [{"name": "nope", "arguments": {}}]"#,
        "```json\n{\"name\": \"nope\", \"arguments\": {}}\n```",
    ];
    for unchanged in texts {
        assert_eq!(parse(unchanged), [text(unchanged)], "{unchanged}");
    }
    assert_eq!(parse("[f(a=1), nope(b=2)]"), [call("f", r#"{"a": 1}"#), text("nope(b=2)")]);
}

#[test]
fn json_that_is_no_call_stays_text() {
    let texts = [
        r#"{"name": "f", "age": 3}"#,
        r#"{"name": "f"}"#,
        r#"{"tools": [{"name": "f", "arguments": {}}]}"#,
        r#"{"name": "f", "description": "d", "parameters": {"type": "object"}}"#,
        r#"{"name": "f", "arguments": 5}"#,
        r#"{"name": "f", "arguments": {"a": oops}}"#,
        r#"{"name": "f", "arguments": {"a": "cut"#,
        "```json\n{\"result\": {\"name\": \"f\", \"arguments\": {}}}\n```",
        "```python\nx[f(a=1)]\n```",
        "arr[f(a=1)]",
        "[f('positional')]",
        "[f(a=1",
    ];
    for unchanged in texts {
        assert_eq!(parse(unchanged), [text(unchanged)], "{unchanged}");
    }
}

#[test]
fn a_marked_call_with_broken_arguments_is_a_call_with_what_was_written() {
    assert_eq!(parse(r#"<tool_call>{"name": "f", "arguments": {"a": oops}}</tool_call>!"#), [call("f", r#"{"a": oops}"#), text("!")]);
    assert_eq!(parse(r#"<function=f>{"a": oops}</function>"#), [call("f", r#"{"a": oops}"#)]);
    assert_eq!(parse(r#"<function=f>city=Rome</function>"#), [call("f", "city=Rome")]);
    assert_eq!(parse(r#"<|python_tag|>f.call(a=oops oops)<|eom_id|>"#), [call("f", "a=oops oops")]);
    assert_eq!(parse(r#"<|python_tag|>{"name": "f", "parameters": {"a": "cut"#), [call("f", r#"{"a": "cut"#)]);
    assert_eq!(parse(r#"<tool_call>{"name": "f", "arguments": 5}</tool_call>"#), [call("f", "5")]);
}

#[test]
fn source_after_the_python_tag_goes_to_the_code_interpreter() {
    let pieces = parse_in(&[CODE_INTERPRETER], ["<|python_tag|>import math\nprint(math.pi)<|eom_id|>"]);
    assert_eq!(pieces, [call(CODE_INTERPRETER, r#"{"code":"import math\nprint(math.pi)"}"#)]);
}

#[test]
fn text_is_released_as_soon_as_it_cannot_be_a_call() {
    let mut parser = ToolCallParser::new(&tools(&["f"]));
    assert_eq!(parser.push("Hello, "), [text("Hello, ")]);
    assert_eq!(parser.push("<"), []);
    assert_eq!(parser.push("b> {"), [text("<b> ")]);
    assert_eq!(parser.push("\"x"), []);
    assert_eq!(parser.push("\""), [text("{\"x\"")]);
    assert_eq!(parser.push(": [{\"name\""), [text(": [{\"name\"")]);
    assert_eq!(parser.push("}] ["), [text("}] ")]);
    assert_eq!(parser.push("1"), [text("[1")]);
    assert_eq!(parser.push("{\"name\": \"no"), []);
    assert_eq!(parser.push("pe\""), [text("{\"name\": \"nope\"")]);
    assert_eq!(parser.finish(), []);
}

#[test]
fn a_call_comes_out_when_its_last_brace_does() {
    let mut parser = ToolCallParser::new(&tools(&["f"]));
    assert_eq!(parser.push(r#"{"name": "f", "arguments": {}"#), []);
    assert_eq!(parser.push("}"), [call("f", "{}")]);
    assert_eq!(parser.push("\n"), []);
    assert_eq!(parser.finish(), []);
}

/// Texts that are rich in what calls are made of.
fn call_like() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "<|python_tag|>",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<function=f>",
        "</function>",
        "<|eom_id|>",
        "```json\n",
        "```",
        "{\"name\": \"f\", \"arguments\": {\"a\": \"x\"}}",
        "{\"name\": \"f\", \"arguments\": ",
        "{\"name\": \"nope\"",
        "[f(a='1')",
        "[f(",
        "f.call(a=1)",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "'",
        "`",
        "<",
        ">",
        ":",
        ",",
        ";",
        "\n",
        " ",
        "f",
        "g",
        "\"name\"",
        "\\",
        "1",
        "é",
        "true",
        "</",
        "=",
    ]);
    prop::collection::vec(parts, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_cutting_gives_the_same_pieces(whole in call_like(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10)) {
        let ends: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
        let mut cuts: Vec<usize> = if ends.is_empty() { vec![] } else { cuts.iter().map(|cut| *cut.get(&ends)).collect() };
        cuts.push(whole.len());
        cuts.sort_unstable();
        let mut from = 0;
        let chunks: Vec<&str> = cuts.iter().map(|to| &whole[std::mem::replace(&mut from, *to)..*to]).collect();
        prop_assert_eq!(parse_in(&["f", "g"], chunks), parse_in(&["f", "g"], [whole.as_str()]));
        let letters: Vec<String> = whole.chars().map(String::from).collect();
        prop_assert_eq!(parse_in(&["f", "g"], letters.iter().map(String::as_str)), parse_in(&["f", "g"], [whole.as_str()]));
    }

    #[test]
    fn without_tools_and_without_declared_names_text_passes_unchanged(whole in call_like()) {
        let expected: Vec<Piece> = if whole.is_empty() { vec![] } else { vec![text(&whole)] };
        prop_assert_eq!(parse_in(&[], [whole.as_str()]), expected.clone());
        prop_assert_eq!(parse_in(&["undeclared_here"], [whole.as_str()]), expected);
    }

    #[test]
    fn no_text_whatever_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), whole in ".{0,80}") {
        parse_in(&["f", CODE_INTERPRETER], [String::from_utf8_lossy(&bytes).as_ref(), whole.as_str()]);
    }

    #[test]
    fn a_call_written_as_json_is_read_back(name in "[a-zA-Z0-9_-]{1,12}", key in ".{0,8}", value in ".{0,12}") {
        let arguments = serde_json::json!({ key: value }).to_string();
        let written = format!("{{\"name\": {}, \"arguments\": {arguments}}}", serde_json::Value::from(name.as_str()));
        prop_assert_eq!(parse_in(&[&name], [written.as_str()]), [call(&name, &arguments)]);
    }
}
