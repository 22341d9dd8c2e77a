use llama_stack_proto::v1::{
    ChatRequest, EmbedInput, Image, Message, Part, RerankRequest, Role, SamplingParams, ToolCall, ToolChoice, ToolDefinition, ToolResult,
    image::Source, part::Content, tool_choice::Mode,
};

use llama_stack_proto::v1::response_format::JsonSchema;

use super::*;

fn good() -> ChatRequest {
    let call = ToolCall::new("c1", "look", "{}");
    let messages = vec![
        Message::system("be brief"),
        Message::user("hi"),
        Message::new(Role::Assistant, vec![call.clone().into()]),
        Message::tool(vec![ToolResult::text(&call, "seen", false)]),
        Message::assistant("it is there"),
        Message::user("and now?"),
    ];
    let tools = vec![ToolDefinition::new("look", "looks", r#"{"type":"object"}"#), ToolDefinition::new("wait", "waits", "")];
    ChatRequest { tools, sampling: Some(SamplingParams::greedy(8)), ..ChatRequest::new("m", messages) }
}

/// The field and the message for a good request that was changed.
fn refused(change: impl FnOnce(&mut ChatRequest)) -> (String, String) {
    let mut request = good();
    change(&mut request);
    let error = Validator::default().chat(&request).expect_err("the request was accepted");
    assert_eq!(error.code(), llama_stack_core::Code::InvalidArgument);
    (error.field().unwrap().to_owned(), error.message().to_owned())
}

fn sampled(change: impl FnOnce(&mut SamplingParams)) -> (String, String) {
    refused(|request| change(request.sampling.as_mut().unwrap()))
}

fn is(refused: (String, String), field: &str, words: &str) {
    assert_eq!(refused.0, field, "{}", refused.1);
    assert!(refused.1.contains(words), "{:?} does not say {words:?}", refused.1);
}

#[test]
fn a_good_request_passes_twice() {
    let validator = Validator::default();
    validator.chat(&good()).unwrap();
    validator.chat(&good()).unwrap();
}

#[test]
fn messages_and_parts_must_be_there() {
    is(refused(|r| r.model.clear()), "model", "empty");
    is(refused(|r| r.messages.clear()), "messages", "at least 1");
    is(refused(|r| r.messages[1].parts.clear()), "messages[1].parts", "0 parts");
    is(refused(|r| r.messages[1].parts[0].content = None), "messages[1].parts[0]", "is empty");
    is(refused(|r| r.messages[0].role = 0), "messages[0].role", "must be system, user, assistant or tool");
    is(refused(|r| r.messages[0].role = 77), "messages[0].role", "77");
    let mut silent = good();
    silent.messages[4].parts.clear();
    Validator::default().chat(&silent).expect("an assistant may have said nothing");
}

#[test]
fn parts_stand_where_their_role_allows() {
    let call = || Part::from(ToolCall::new("c", "look", "{}"));
    is(refused(|r| r.messages[1].parts.push(call())), "messages[1].parts[1]", "is a tool call in a message of role user");
    is(refused(|r| r.messages[3].parts.push(Part::text("x"))), "messages[3].parts[1]", "role tool");
    is(refused(|r| r.messages[1].parts[0] = Part::new(Content::Refusal("no".into()))), "messages[1].parts[0]", "refusals belong");
    let image = |source, media_type: &str| Part::image(Image { source, media_type: media_type.into() });
    is(refused(|r| r.messages[1].parts[0] = image(None, "")), "messages[1].parts[0].image", "neither url nor data");
    is(refused(|r| r.messages[1].parts[0] = image(Some(Source::Data(vec![1])), "")), "messages[1].parts[0].image.media_type", "image/png");
    is(
        refused(|r| r.messages[1].parts[0] = image(Some(Source::Url("file:///x".into())), "")),
        "messages[1].parts[0].image.url",
        "neither http",
    );
}

#[test]
fn calls_and_results_pair_up() {
    is(refused(|r| drop(r.messages.remove(2))), "messages[2].parts[0].tool_result.call_id", "\"c1\"");
    is(refused(|r| drop(r.messages.remove(3))), "messages[2]", "no result before messages[3]");
    is(refused(|r| r.messages.truncate(3)), "messages[2]", "no result before the end");
    let again = |r: &mut ChatRequest| {
        let result = r.messages[3].parts[0].clone();
        r.messages[3].parts.push(result);
    };
    is(refused(again), "messages[3].parts[1].tool_result.call_id", "leaves open");
}

#[test]
fn tools_are_named_once_and_have_schemas() {
    is(refused(|r| r.tools[1].name = "look".into()), "tools[1].name", "taken by an earlier tool");
    is(refused(|r| r.tools[0].name = "a b".into()), "tools[0].name", "\"a b\"");
    is(refused(|r| r.tools[0].name = "x".repeat(65)), "tools[0].name", "1 to 64");
    is(refused(|r| r.tools[0].parameters = "{".into()), "tools[0].parameters", "not valid JSON");
    is(refused(|r| r.tools[0].parameters = "[]".into()), "tools[0].parameters", "not a JSON object");
    is(refused(|r| r.tools[0].parameters = r#"{"type":"strin"}"#.into()), "tools[0].parameters", "not a valid JSON Schema at /type");
    is(refused(|r| r.tools = vec![ToolDefinition::default(); 129]), "tools", "129");
}

#[test]
fn a_choice_is_among_the_tools() {
    let choice = |mode: Mode, name: &str| Some(ToolChoice { mode: mode.into(), name: name.into(), ..ToolChoice::default() });
    is(refused(|r| r.tool_choice = choice(Mode::Named, "hop")), "tool_choice.name", "there is: look, wait");
    let without = |r: &mut ChatRequest| {
        r.tools.clear();
        r.tool_choice = choice(Mode::Required, "");
    };
    is(refused(without), "tool_choice", "0 tools");
}

#[test]
fn sampling_stays_in_its_ranges() {
    for bad in [-0.1, 2.1, f32::NAN, f32::INFINITY] {
        is(sampled(|s| s.temperature = Some(bad)), "sampling.temperature", "must be 0 to 2");
        is(sampled(|s| s.top_p = Some(bad)), "sampling.top_p", "at most 1");
        is(sampled(|s| s.min_p = Some(bad)), "sampling.min_p", "0 to 1");
    }
    is(sampled(|s| s.top_p = Some(0.0)), "sampling.top_p", "top_p is 0");
    for bad in [-2.5, 2.5, f32::NAN] {
        is(sampled(|s| s.frequency_penalty = Some(bad)), "sampling.frequency_penalty", "-2 to 2");
        is(sampled(|s| s.presence_penalty = Some(bad)), "sampling.presence_penalty", "-2 to 2");
    }
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        is(sampled(|s| s.repetition_penalty = Some(bad)), "sampling.repetition_penalty", "greater than 0");
    }
    is(sampled(|s| s.max_tokens = Some(0)), "sampling.max_tokens", "at least 1");
    let completion = |echo| CompleteRequest { sampling: Some(SamplingParams::greedy(0)), echo, ..CompleteRequest::text("m", "x") };
    assert_eq!(Validator::default().complete(&completion(false)).unwrap_err().field(), Some("sampling.max_tokens"));
    Validator::default().complete(&completion(true)).unwrap();
    is(sampled(|s| s.top_k = Some(0)), "sampling.top_k", "at least 1");
    is(sampled(|s| s.stop = vec!["x".into(); 17]), "sampling.stop", "17");
    is(sampled(|s| s.stop = vec!["x".into(), String::new()]), "sampling.stop[1]", "empty");
    for bad in [-100.5, 101.0, f32::NAN] {
        is(sampled(|s| s.logit_bias = [(5, bad)].into()), "sampling.logit_bias[5]", "-100 to 100");
    }
}

#[test]
fn the_ends_of_the_ranges_are_in_them() {
    for (temperature, top_p, penalty, bias) in [(0.0, 1.0, 2.0, 100.0), (2.0, 0.000_1, -2.0, -100.0)] {
        let mut request = good();
        request.sampling = Some(SamplingParams {
            temperature: Some(temperature),
            top_p: Some(top_p),
            presence_penalty: Some(penalty),
            max_tokens: Some(1),
            stop: vec!["x".into(); 16],
            logit_bias: [(1, bias)].into(),
            ..SamplingParams::default()
        });
        (request.n, request.logprobs, request.top_logprobs) = (16, true, 20);
        Validator::default().chat(&request).unwrap();
    }
}

#[test]
fn counts_and_formats_are_checked() {
    is(refused(|r| r.n = 17), "n", "n is 17");
    is(refused(|r| (r.logprobs, r.top_logprobs) = (true, 21)), "top_logprobs", "21");
    is(refused(|r| r.top_logprobs = 3), "top_logprobs", "without logprobs");
    is(refused(|r| r.reasoning_effort = "much".into()), "reasoning_effort", "\"much\"");
    let format = |format| Some(ResponseFormat { format });
    let schema = |schema: &str| Some(Format::JsonSchema(JsonSchema { schema: schema.into(), ..Default::default() }));
    let field = "response_format.json_schema.schema";
    is(refused(|r| r.response_format = format(schema(r#"{"type":7}"#))), field, "not a valid JSON Schema");
    is(refused(|r| r.response_format = format(schema(""))), field, "is empty");
    is(refused(|r| r.response_format = format(None)), "response_format", "is empty");
    is(refused(|r| r.response_format = format(Some(Format::Regex(String::new())))), "response_format.regex", "empty");
}

#[test]
fn inputs_are_1_to_2048() {
    let embed_of = |inputs| embed(&EmbedRequest { model: "m".into(), inputs, ..EmbedRequest::default() });
    embed_of(vec![EmbedInput::text("x"); 2_048]).unwrap();
    assert!(embed_of(vec![EmbedInput::text("x"); 2_049]).unwrap_err().message().contains("2049 items; it must have 1 to 2048"));
    assert_eq!(embed_of(Vec::new()).unwrap_err().field(), Some("inputs"));
    assert_eq!(embed_of(vec![EmbedInput::text("x"), EmbedInput::text("")]).unwrap_err().field(), Some("inputs[1]"));
    let ranked = |query: &str, documents| rerank(&RerankRequest { model: "m".into(), query: query.into(), documents, top_n: 0 });
    ranked("q", vec!["d".into()]).unwrap();
    assert_eq!(ranked("q", Vec::new()).unwrap_err().field(), Some("documents"));
    assert_eq!(ranked("", vec!["d".into()]).unwrap_err().field(), Some("query"));
    assert_eq!(classify(&ClassifyRequest { model: "m".into(), ..Default::default() }).unwrap_err().field(), Some("inputs"));
}
