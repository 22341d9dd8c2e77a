use llguidance::{Matcher, ParserFactory, toktrie::ApproximateTokEnv};

use llama_stack_core::Code;
use llama_stack_proto::v1::{
    ToolChoice,
    response_format::{JsonObject, JsonSchema},
};

use super::*;

const SCHEMA_TEXT: &str =
    r##"{"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"], "$defs": {"A": {"type": "integer"}}}"##;

fn schema(text: &str, strict: bool) -> ResponseFormat {
    let schema = JsonSchema { name: "s".into(), schema: text.into(), strict, ..JsonSchema::default() };
    ResponseFormat { format: Some(Format::JsonSchema(schema)) }
}

fn regex(text: &str) -> ResponseFormat {
    ResponseFormat { format: Some(Format::Regex(text.into())) }
}

fn request(tools: Vec<ToolDefinition>, mode: Mode, name: &str) -> ChatRequest {
    let tool_choice = Some(ToolChoice { mode: mode.into(), name: name.into(), ..ToolChoice::default() });
    ChatRequest { tools, tool_choice, ..ChatRequest::user("m", "hi") }
}

fn two_tools() -> Vec<ToolDefinition> {
    vec![ToolDefinition::new("f", "", SCHEMA_TEXT), ToolDefinition::new("g", "", "")]
}

fn refused(format: &ResponseFormat) -> (Code, String, String) {
    let error = for_format(format).unwrap_err();
    (error.code(), error.field().unwrap_or_default().to_owned(), error.message().to_owned())
}

#[test]
fn formats_become_constraints() {
    assert_eq!(for_format(&ResponseFormat::default()).unwrap(), None);
    let object = ResponseFormat { format: Some(Format::JsonObject(JsonObject {})) };
    let Some(Constraint::JsonSchema(object)) = for_format(&object).unwrap() else { panic!("no schema") };
    assert_eq!(object["type"], "object");
    let Some(Constraint::JsonSchema(schema)) = for_format(&schema(SCHEMA_TEXT, true)).unwrap() else { panic!("no schema") };
    assert_eq!(schema["properties"]["a"]["$ref"], "#/$defs/A");
    assert_eq!(for_format(&regex("(yes|no)[0-9]{2}")).unwrap(), Some(Constraint::Regex("(yes|no)[0-9]{2}".into())));
    let lark = ResponseFormat { format: Some(Format::Grammar("start: \"a\" | \"b\"".into())) };
    assert_eq!(for_format(&lark).unwrap(), Some(Constraint::Lark("start: \"a\" | \"b\"".into())));
}

#[test]
fn what_cannot_be_enforced_is_refused_with_its_field() {
    for bad in ["{", r#"{"type": "objekt"}"#, r##"{"$ref": "#/$defs/none"}"##, r#"{"$ref": "http://127.0.0.1:1/s.json"}"#] {
        let (code, field, message) = refused(&schema(bad, false));
        assert_eq!((code, field.as_str()), (Code::InvalidArgument, SCHEMA), "{bad}: {message}");
    }
    let unenforced = r#"{"type": "array", "uniqueItems": true}"#;
    assert_eq!(refused(&schema(unenforced, true)).1, SCHEMA);
    assert!(for_format(&schema(unenforced, false)).unwrap().is_some());
    for bad in ["(", "a(?=b)", "(a)\\1"] {
        assert_eq!(refused(&regex(bad)).1, "response_format.regex", "{bad}");
    }
    let lark = ResponseFormat { format: Some(Format::Grammar("start: nowhere".into())) };
    assert_eq!(refused(&lark).1, "response_format.grammar");
}

/// Whether `text`, byte by byte, is an answer that the constraint allows and that could end there.
fn allows(constraint: &Constraint, text: &str) -> bool {
    let factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
    let mut matcher = Matcher::new(factory.create_parser(compile::grammar(constraint)));
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    matcher.try_consume_tokens(&tokens).unwrap() == tokens.len() && matcher.is_accepting().unwrap()
}

#[test]
fn a_forced_call_is_exactly_what_the_parser_reads() {
    let (f, g) = (r#"{"name": "f", "arguments": {"a": 12}}"#, r#"{"name": "g", "arguments": {}}"#);
    let named = for_chat(&request(two_tools(), Mode::Named, "f")).unwrap().unwrap();
    assert!(allows(&named, f));
    for other in [
        g,
        "hello",
        r#"{"name": "f", "arguments": {"a": "x"}}"#,
        r#"{"name": "f", "arguments": {}}"#,
        r#"{"name": "f", "arguments": {"a": 1}}}"#,
    ] {
        assert!(!allows(&named, other), "{other}");
    }
    let required = for_chat(&request(two_tools(), Mode::Required, "")).unwrap().unwrap();
    assert!(allows(&required, f) && allows(&required, g) && !allows(&required, "hello"));

    let mut parser = tool_calls::ToolCallParser::new(&two_tools());
    let call = tool_calls::Piece::Call { name: "f".into(), arguments: r#"{"a": 12}"#.into() };
    assert_eq!((parser.push(f), parser.finish()), (vec![call], vec![]));
}

#[test]
fn formats_allow_what_they_say() {
    let object = for_format(&ResponseFormat { format: Some(Format::JsonObject(JsonObject {})) }).unwrap().unwrap();
    assert!(allows(&object, r#"{"a": [1, null]}"#) && !allows(&object, "[1]") && !allows(&object, "hi"));
    let strict = for_format(&schema(SCHEMA_TEXT, true)).unwrap().unwrap();
    assert!(allows(&strict, r#"{"a": 1}"#) && !allows(&strict, r#"{"b": 1}"#));
    let yes = for_format(&regex("(yes|no)[0-9]{2}")).unwrap().unwrap();
    assert!(allows(&yes, "no42") && !allows(&yes, "no4"));
}

#[test]
fn without_a_forced_call_there_is_no_constraint() {
    assert_eq!(for_chat(&request(two_tools(), Mode::Auto, "")).unwrap(), None);
    assert_eq!(for_chat(&request(two_tools(), Mode::None, "")).unwrap(), None);
}

#[test]
fn a_choice_without_its_tool_is_refused() {
    assert_eq!(for_chat(&request(vec![], Mode::Required, "")).unwrap_err().field(), Some("tool_choice"));
    assert_eq!(for_chat(&request(two_tools(), Mode::Named, "h")).unwrap_err().field(), Some("tool_choice.name"));
}

#[test]
fn parameters_of_every_tool_are_checked() {
    for bad in ["{", "[]", r#"{"type": "string"}"#, r#"{"type": "object", "properties": {"a": {"type": "nope"}}}"#] {
        let tools = vec![ToolDefinition::new("f", "", ""), ToolDefinition::new("g", "", bad)];
        let error = for_chat(&request(tools, Mode::Auto, "")).unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("tools[1].parameters")), "{bad}");
    }
}

#[test]
fn a_json_answer_and_a_free_choice_of_calls_are_alternatives() {
    let mut both = request(two_tools(), Mode::Auto, "");
    both.response_format = Some(schema(SCHEMA_TEXT, true));
    let either = for_chat(&both).unwrap().unwrap();
    assert!(allows(&either, r#"{"a": 1}"#) && allows(&either, r#"{"name": "g", "arguments": {}}"#) && !allows(&either, "hello"));
    both.tool_choice = Some(ToolChoice { mode: Mode::None.into(), ..ToolChoice::default() });
    assert!(matches!(for_chat(&both).unwrap(), Some(Constraint::JsonSchema(_))));
}
