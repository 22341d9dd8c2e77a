use llama_stack_core::Code;
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, FinishReason, Message, ResponseFormat, SamplingParams, ToolChoice, ToolDefinition,
    response_format::{Format, JsonSchema},
    tool_choice::Mode,
};
use serde_json::Value;

use super::*;

fn format(format: Format) -> Option<ResponseFormat> {
    Some(ResponseFormat { format: Some(format) })
}

fn weather() -> ToolDefinition {
    let parameters =
        r#"{"type":"object","properties":{"city":{"type":"string","maxLength":12}},"required":["city"],"additionalProperties":false}"#;
    ToolDefinition::new("weather", "The weather.", parameters)
}

pub async fn an_answer_follows_its_schema_and_ends_there(subject: &Subject) {
    let smol = subject.smol().await;
    let schema = r#"{"type":"object","properties":{"age":{"type":"integer","minimum":1,"maximum":99},"tall":{"type":"boolean"}},
        "required":["age","tall"],"additionalProperties":false}"#;
    let schema = JsonSchema { schema: schema.into(), name: "person".into(), ..JsonSchema::default() };
    let request = ChatRequest { response_format: format(Format::JsonSchema(schema)), ..ChatRequest::user(SMOL, "A man.").greedy(40) };
    let response = chat(&smol, request).await;
    let text = response.choices[0].message.as_ref().unwrap().joined_text();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert!(value["age"].is_u64() && value["tall"].is_boolean(), "{text}");
    assert_eq!(response.choices[0].finish_reason(), FinishReason::Stop);
}

pub async fn an_answer_follows_its_expression_or_grammar(subject: &Subject) {
    let smol = subject.smol().await;
    let ask = |form: Format| complete(&smol, CompleteRequest { response_format: format(form), ..story(12) });
    let regex = ask(Format::Regex("[0-9]{3}-[a-c]{2}".into())).await;
    let text = &regex.choices[0].text;
    assert!(text.len() == 6 && text[..3].parse::<u32>().is_ok() && text.as_bytes()[3] == b'-', "{text:?}");
    assert_eq!(regex.choices[0].finish_reason(), FinishReason::Stop);
    let lark = ask(Format::Grammar("start: \"left\" | \"right\"".into())).await;
    assert!(["left", "right"].contains(&lark.choices[0].text.as_str()), "{:?}", lark.choices[0].text);
    let error = smol.complete(&cx(), CompleteRequest { response_format: format(Format::Regex("(".into())), ..story(4) }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
}

/// The constraint is drawn from as well: temperature does not lead out of it.
pub async fn sampling_stays_within_the_constraint(subject: &Subject) {
    let smol = subject.smol().await;
    for seed in 0..3 {
        let sampling = SamplingParams { temperature: Some(2.0), seed: Some(seed), max_tokens: Some(8), ..SamplingParams::default() };
        let request = CompleteRequest { sampling: Some(sampling), response_format: format(Format::Regex("[xyz]{4}".into())), ..story(8) };
        let text = complete(&smol, request).await.choices[0].text.clone();
        assert!(text.len() == 4 && text.bytes().all(|byte| b"xyz".contains(&byte)), "{text:?}");
    }
}

pub async fn a_forced_call_is_a_call_with_arguments_that_fit(subject: &Subject) {
    let qwen = subject.qwen().await;
    let choice = ToolChoice { mode: Mode::Named.into(), name: "weather".into(), ..ToolChoice::default() };
    let request = ChatRequest {
        tools: vec![weather()],
        tool_choice: Some(choice),
        ..ChatRequest::new(QWEN, vec![Message::system("Be short."), Message::user("Weather in Rome?")]).greedy(40)
    };
    let response = chat(&qwen, request).await;
    let choice = &response.choices[0];
    assert_eq!(choice.finish_reason(), FinishReason::ToolCalls, "{choice:?}");
    let calls: Vec<_> = choice.message.as_ref().unwrap().tool_calls().collect();
    assert_eq!((calls.len(), calls[0].name.as_str()), (1, "weather"), "{choice:?}");
    let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap();
    assert!(arguments["city"].as_str().unwrap().contains("Rome"), "{arguments}");
}

pub async fn tools_for_a_model_that_has_no_place_for_them_are_refused(subject: &Subject) {
    let smol = subject.smol().await;
    let request = ChatRequest { tools: vec![weather()], ..ChatRequest::user(SMOL, "Hi.").greedy(4) };
    let error = smol.chat(&cx(), request).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("tools")), "{error:?}");
}
