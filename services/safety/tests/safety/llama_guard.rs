use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use llama_stack_core::{Code, Context, EventStream, Inference, Result, Safety};
use llama_stack_proto::v1::{
    CompleteEvent, CompleteRequest, ListModelsRequest, ListModelsResponse, ListShieldsRequest, Message, RunShieldResponse,
    complete_request::Prompt,
};
use llama_stack_tests::guard::{Answer, MODEL, ScriptedGuard, Upstream};
use serde_json::{Value, json};

use crate::{inference, judge, judged, provider, routed};

async fn guarded(guard: &Arc<ScriptedGuard>, config: Value) -> Arc<dyn Safety> {
    let mut config = config;
    config["model"] = MODEL.into();
    let shield = provider("inline::llama-guard", config, Some(routed(guard.clone()))).await.unwrap();
    guard.asked();
    shield
}

fn score(response: &RunShieldResponse, code: &str) -> f32 {
    response.scores.iter().find(|score| score.code == code).unwrap_or_else(|| panic!("no {code} in {response:?}")).score
}

fn reason(response: &RunShieldResponse) -> &str {
    response.violation.as_ref().map_or("", |violation| violation.reason.as_str())
}

#[tokio::test]
async fn the_prompt_is_the_published_one_up_to_the_answer() {
    let guard = Arc::new(ScriptedGuard::default());
    let shield = guarded(&guard, json!({ "family": "llama-guard-3-8b" })).await;
    let messages = vec![Message::user("hi"), Message::assistant("hello"), Message::user("a salad?")];
    assert!(judge(&shield, messages).await.unwrap().violation.is_none());
    let asked = guard.asked();
    assert_eq!(asked.len(), 1, "one forward pass");
    assert!(asked[0].starts_with(" <|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nTask: Check"), "{}", asked[0]);
    assert!(asked[0].contains("<BEGIN CONVERSATION>\n\nUser: hi\n\nAgent: hello\n\nUser: a salad?\n\n<END CONVERSATION>"));
    assert!(asked[0].ends_with("categories.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"), "the answer is what comes next");
    assert_eq!(guard.chats.load(Ordering::SeqCst), 0, "no chat template wraps it");
}

/// As the published templates render them, up to where the answer begins.
#[tokio::test]
async fn prompts_are_the_published_ones_of_each_family() {
    const PROMPTS: [(&str, &str, &str); 4] = [
        ("llama-guard-3-8b", include_str!("prompts/llama-guard-3-8b.user.txt"), include_str!("prompts/llama-guard-3-8b.agent.txt")),
        ("llama-guard-3-1b", include_str!("prompts/llama-guard-3-1b.user.txt"), include_str!("prompts/llama-guard-3-1b.agent.txt")),
        (
            "llama-guard-3-11b-vision",
            include_str!("prompts/llama-guard-3-11b-vision.user.txt"),
            include_str!("prompts/llama-guard-3-11b-vision.agent.txt"),
        ),
        ("llama-guard-4", include_str!("prompts/llama-guard-4.user.txt"), include_str!("prompts/llama-guard-4.agent.txt")),
    ];
    let (question, answer) = (Message::user(" How do I kill a Python process?\n"), Message::assistant("With kill and its id."));
    for (family, of_user, of_agent) in PROMPTS {
        let guard = Arc::new(ScriptedGuard::default());
        let shield = guarded(&guard, json!({ "family": family })).await;
        judge(&shield, vec![question.clone()]).await.unwrap();
        judge(&shield, vec![question.clone(), answer.clone()]).await.unwrap();
        // The empty line is what the model itself writes first.
        assert_eq!(guard.asked(), [format!("{of_user}\n\n"), format!("{of_agent}\n\n")], "{family}");
    }
}

#[tokio::test]
async fn codes_are_asked_for_only_where_a_text_is_unsafe() {
    let guard = Arc::new(ScriptedGuard::default());
    let shield = guarded(&guard, json!({})).await;
    let response = judged(&shield, "where to put the bomb").await;
    assert_eq!(guard.asked().len(), 2);
    let violation = response.violation.clone().unwrap();
    assert_eq!((violation.reason.as_str(), violation.categories), ("unsafe", vec!["S1".to_owned(), "S9".to_owned()]));
    assert!((score(&response, "unsafe") - 0.98).abs() < 1e-3);
    assert_eq!((score(&response, "S1"), score(&response, "S2")), (score(&response, "unsafe"), 0.0));
    let safe = judged(&shield, "where to put the sofa").await;
    assert_eq!(guard.asked().len(), 1);
    assert!((score(&safe, "unsafe") - 0.02).abs() < 1e-3 && score(&safe, "S1") == 0.0);
}

#[tokio::test]
async fn the_threshold_decides_and_not_the_likelier_word() {
    let guard = Arc::new(ScriptedGuard::default());
    let strict = guarded(&guard, json!({ "threshold": 0.25 })).await;
    let response = judged(&strict, "perhaps").await;
    assert_eq!((reason(&response), response.violation.clone().unwrap().categories), ("unsafe", vec!["S2".to_owned()]));
    let lenient = guarded(&guard, json!({ "threshold": 0.99 })).await;
    assert_eq!(reason(&judged(&lenient, "the bomb").await), "");
}

#[tokio::test]
async fn excluded_categories_are_neither_asked_for_nor_held_against_a_text() {
    let guard = Arc::new(ScriptedGuard::default());
    let shield = guarded(&guard, json!({ "excluded_categories": ["S6"] })).await;
    assert_eq!(reason(&judged(&shield, "which stocks to buy").await), "");
    assert!(guard.asked().iter().all(|prompt| !prompt.contains("S6:")));
    let shields = shield.list_shields(&Context::test("a"), ListShieldsRequest::default()).await.unwrap().shields;
    assert!(shields[0].categories.iter().all(|category| category.code != "S6"));
}

#[tokio::test]
async fn odd_answers_fail_closed_and_say_why() {
    let guard = Arc::new(ScriptedGuard::default());
    let shield = guarded(&guard, json!({})).await;
    let unsure = |text: &str| Answer { share: 0.1, ..Answer::new(0.01, text) };
    for (answer, expected, unscored) in [
        (Answer::new(0.9, "unsafe\nS99"), "unknown_category", false),
        (Answer::new(0.9, "unsafe\nviolence"), "uncategorised", false),
        (Answer::new(0.9, "UNSAFE\nS1, S2"), "unsafe", false),
        (unsure("Sure, here is how"), "unparseable_verdict", false),
        (unsure(""), "empty_verdict", false),
        (Answer::words("unsafe\nS2"), "unsafe", true),
        (Answer::words("Safe."), "", true),
        (Answer::words("I cannot help"), "unparseable_verdict", false),
        (Answer::words(""), "empty_verdict", false),
    ] {
        guard.says(answer.clone());
        let response = judged(&shield, "anything").await;
        assert_eq!((reason(&response), response.unscored), (expected, unscored), "{answer:?}");
    }
}

#[tokio::test]
async fn a_model_that_is_no_guard_is_refused() {
    let refuse = async |words, config: Value| {
        let guard = Arc::new(ScriptedGuard { chatters: Some(words), ..ScriptedGuard::default() });
        let mut config = config;
        config["model"] = MODEL.into();
        provider("inline::llama-guard", config, Some(routed(guard))).await
    };
    for ask in ["completion", "chat"] {
        let error = refuse("Sure! Here is a recipe.", json!({ "ask": ask })).await.err().unwrap();
        assert_eq!((error.code(), error.reason(), error.field()), (Code::FailedPrecondition, Some("not_a_guard"), Some("config.model")));
        assert!(error.message().contains("soup") && error.message().contains("skip_self_test"), "{error}");
    }
    assert!(refuse("Sure!", json!({ "skip_self_test": true })).await.is_ok());
}

/// Whatever it is asked, it is asked of a greeting.
struct Yes(Arc<ScriptedGuard>);

#[async_trait]
impl Inference for Yes {
    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        self.0.list_models(cx, request).await
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        self.0.stream_complete(cx, CompleteRequest { prompt: Some(Prompt::Text("hello".into())), ..request }).await
    }
}

/// The worst of them.
#[tokio::test]
async fn a_model_that_calls_everything_safe_is_refused() {
    let guard = Arc::new(ScriptedGuard::default());
    let error = provider("inline::llama-guard", json!({ "model": MODEL }), Some(routed(Arc::new(Yes(guard))))).await.err().unwrap();
    assert!(error.message().contains("bombing") && error.message().contains("that it is safe"), "{error}");
}

#[tokio::test]
async fn a_model_that_is_not_there_yet_is_not_taken_for_no_guard() {
    let guard = Arc::new(ScriptedGuard::default());
    guard.down.store(true, Ordering::SeqCst);
    let shield = provider("inline::llama-guard", json!({ "model": MODEL }), Some(guard.clone())).await.unwrap();
    let error = judge(&shield, vec![Message::user("hi")]).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "nothing passes meanwhile: {error:?}");
    guard.down.store(false, Ordering::SeqCst);
    assert_eq!(reason(&judged(&shield, "the bomb").await), "unsafe");
    assert_eq!(guard.asked().len(), 5, "it was tried out first: two texts, of which one has codes");
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_its_field() {
    let refused = async |config: Value| {
        let guard = routed(Arc::new(ScriptedGuard::default()));
        let error = provider("inline::llama-guard", config, Some(guard)).await.err().unwrap();
        (error.code(), error.field().unwrap_or_default().to_owned())
    };
    let invalid = |field: &str| (Code::InvalidArgument, field.to_owned());
    assert_eq!(refused(json!({})).await, invalid("config.model"));
    assert_eq!(refused(json!({ "model": "mystery" })).await, invalid("config.family"));
    assert_eq!(refused(json!({ "model": MODEL, "family": "llama-guard-2" })).await, invalid("config.family"));
    assert_eq!(refused(json!({ "model": MODEL, "threshold": 0 })).await, invalid("config.threshold"));
    assert_eq!(refused(json!({ "model": MODEL, "excluded_categories": ["S14"] })).await, invalid("config.excluded_categories[0]"));
    let custom = json!({ "model": MODEL, "ask": "chat", "categories": [{ "code": "S15", "name": "Secrets" }] });
    assert_eq!(refused(custom).await, invalid("config.categories"));
    assert_eq!(refused(json!({ "model": "llama-guard-3-8b" })).await, (Code::NotFound, "config.model".to_owned()));
    let error = provider("inline::llama-guard", json!({ "model": MODEL }), None).await.err().unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition, "a stack without inference");
}

#[tokio::test]
async fn a_chat_gets_the_conversation_and_no_prompt() {
    let guard = Arc::new(ScriptedGuard::default());
    let shield = guarded(&guard, json!({ "ask": "chat" })).await;
    let response = judged(&shield, "the bomb").await;
    assert_eq!((reason(&response), response.violation.clone().unwrap().categories.len()), ("unsafe", 2));
    assert!((score(&response, "S9") - 0.98).abs() < 1e-3);
    assert!(guard.asked().is_empty(), "nothing is completed");
}

/// vLLM, llama.cpp's server and others: no tokens to be had, and a begin token that the server puts there itself.
#[tokio::test]
async fn a_server_of_completions_is_given_the_text_without_its_begin_token() {
    let upstream = Upstream::start(20).await;
    let models = inference("remote::openai", json!({ "url": upstream.url })).await;
    let shield = provider("inline::llama-guard", json!({ "model": MODEL }), Some(models)).await.unwrap();
    upstream.seen();
    let response = judged(&shield, "the bomb").await;
    assert_eq!((reason(&response), response.unscored), ("unsafe", false));
    assert!((score(&response, "S1") - 0.98).abs() < 1e-3);
    let seen = upstream.seen();
    assert!(seen[0]["prompt"].as_str().unwrap().starts_with("<|start_header_id|>user<|end_header_id|>\n\nTask:"), "{}", seen[0]);
    assert_eq!((&seen[0]["max_tokens"], &seen[0]["temperature"], &seen[0]["logprobs"]), (&json!(1), &json!(0.0), &json!(20)));
    assert!(seen[1]["prompt"].as_str().unwrap().ends_with("\n\nunsafe\n"));
}

#[tokio::test]
async fn a_server_that_tells_fewer_probabilities_is_asked_for_fewer_or_none() {
    for (told, unscored) in [(5, false), (0, true)] {
        let upstream = Upstream::start(told).await;
        let models = inference("remote::openai", json!({ "url": upstream.url })).await;
        let shield = provider("inline::llama-guard", json!({ "model": MODEL }), Some(models)).await.unwrap();
        let response = judged(&shield, "the bomb").await;
        assert_eq!((reason(&response), response.unscored), ("unsafe", unscored), "{told}");
        assert_eq!(judged(&shield, "the sofa").await.unscored, unscored);
    }
}
