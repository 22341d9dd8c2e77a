//! What every `Inference` promises, whatever runs behind it.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all};
use llama_stack_core::{Code, Context, Error, Inference, fold};
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, GetModelRequest, ListModelsRequest, ModelKind, chat_event::Event};
use tokio::time::timeout;

/// Far longer than any answer here takes: it only tells "late" from "never".
const NEVER: Duration = Duration::from_secs(120);

/// Runs every promise of a chat model. `long` is a request that generates for seconds.
pub async fn all(inference: Arc<dyn Inference>, model: &str, long: ChatRequest) {
    lists_its_model(inference.clone(), model).await;
    unknown_model_says_what_there_is(inference.clone(), model).await;
    stream_has_one_finish_and_then_usage(inference.clone(), model).await;
    stream_folds_into_the_whole_answer(inference.clone(), model).await;
    max_tokens_ends_with_length(inference.clone(), model).await;
    several_choices_are_told_apart(inference.clone(), model).await;
    past_deadline_is_told(inference.clone(), long.clone()).await;
    dropped_stream_frees_its_slot(inference.clone(), model, long).await;
    concurrent_answers_do_not_mix(inference, model).await;
}

fn question(model: &str) -> ChatRequest {
    ChatRequest::user(model, "Say hello.").greedy(8)
}

async fn events(inference: &Arc<dyn Inference>, request: ChatRequest) -> Vec<ChatEvent> {
    let stream = inference.stream_chat(&Context::test("tenant-a"), request).await.unwrap();
    stream.map(|event| event.unwrap()).collect().await
}

/// `ListModels` and `GetModel` agree.
pub async fn lists_its_model(inference: Arc<dyn Inference>, model: &str) {
    let cx = Context::test("tenant-a");
    let listed = inference.list_models(&cx, ListModelsRequest::default()).await.unwrap().models;
    let listed = listed.into_iter().find(|one| one.id == model).expect("the model is not listed");
    let got = inference.get_model(&cx, GetModelRequest { id: model.into() }).await.unwrap();
    assert_eq!((listed.kind(), listed.context_length), (got.kind(), got.context_length));
    assert_eq!(got.kind(), ModelKind::Chat);
}

/// `NotFound`, and the sentence names the models that there are.
pub async fn unknown_model_says_what_there_is(inference: Arc<dyn Inference>, model: &str) {
    let error = inference.chat(&Context::test("tenant-a"), question("no-such-model")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("model_not_found")));
    assert!(error.message().contains(model), "{error}");
}

/// Deltas, one finish, one usage, in that order; no empty text.
pub async fn stream_has_one_finish_and_then_usage(inference: Arc<dyn Inference>, model: &str) {
    let events = events(&inference, question(model)).await;
    let place = |wanted: fn(&Event) -> bool| {
        let places: Vec<usize> = (0..events.len()).filter(|&n| events[n].event.as_ref().is_some_and(wanted)).collect();
        assert_eq!(places.len(), 1, "{events:?}");
        places[0]
    };
    assert_eq!(place(|event| matches!(event, Event::Finish(_))), events.len() - 2);
    assert_eq!(place(|event| matches!(event, Event::Usage(_))), events.len() - 1);
    assert!(!events.iter().any(|event| matches!(&event.event, Some(Event::Text(text)) if text.is_empty())));
}

/// `Chat` is `StreamChat`, folded: greedy answers agree.
pub async fn stream_folds_into_the_whole_answer(inference: Arc<dyn Inference>, model: &str) {
    let cx = Context::test("tenant-a");
    let streamed = inference.stream_chat(&cx, question(model)).await.unwrap();
    let streamed = fold::chat(model.into(), streamed).await.unwrap();
    let whole = inference.chat(&cx, question(model)).await.unwrap();
    assert_eq!(streamed.choices, whole.choices);
    assert_eq!(streamed.usage, whole.usage);
}

/// `max_tokens` is met exactly, and said.
pub async fn max_tokens_ends_with_length(inference: Arc<dyn Inference>, model: &str) {
    let request = ChatRequest::user(model, "count 50").greedy(3);
    let response = inference.chat(&Context::test("tenant-a"), request).await.unwrap();
    assert_eq!(response.choices[0].finish_reason(), FinishReason::Length);
    assert_eq!(response.usage.unwrap().completion_tokens, 3);
}

/// `n` answers, each with its own finish; usage counts them all.
pub async fn several_choices_are_told_apart(inference: Arc<dyn Inference>, model: &str) {
    let request = ChatRequest { n: 2, ..ChatRequest::user(model, "count 50").greedy(3) };
    let response = inference.chat(&Context::test("tenant-a"), request).await.unwrap();
    assert_eq!(response.choices.len(), 2);
    assert_eq!(response.choices[0].message, response.choices[1].message);
    assert_eq!(response.usage.unwrap().completion_tokens, 6);
}

/// A deadline ends a generation with `DeadlineExceeded`, not with silence.
pub async fn past_deadline_is_told(inference: Arc<dyn Inference>, long: ChatRequest) {
    let cx = Context::test("tenant-a").with_timeout(Duration::from_millis(300));
    let ended = timeout(NEVER, async {
        let mut stream = inference.stream_chat(&cx, long).await?;
        while let Some(event) = stream.next().await {
            event?;
        }
        Ok::<(), Error>(())
    });
    let error = ended.await.expect("the deadline was not kept").unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
}

/// The slot of a dropped stream serves the next request.
pub async fn dropped_stream_frees_its_slot(inference: Arc<dyn Inference>, model: &str, long: ChatRequest) {
    let cx = Context::test("tenant-a");
    let mut first = inference.stream_chat(&cx, long).await.unwrap();
    first.next().await.unwrap().unwrap();
    drop(first);
    let second = timeout(NEVER, inference.chat(&cx, question(model))).await;
    second.expect("the slot was not freed").unwrap();
}

/// Answers to prompts that run at the same time are what they are alone.
pub async fn concurrent_answers_do_not_mix(inference: Arc<dyn Inference>, model: &str) {
    let cx = Context::test("tenant-a");
    let prompts: Vec<String> = ["red", "seven", "cat", "north"].iter().map(|word| format!("Repeat: {word}")).collect();
    let ask = |prompt: &String| {
        let (inference, cx, request) = (inference.clone(), cx.clone(), ChatRequest::user(model, prompt).greedy(6));
        async move { inference.chat(&cx, request).await.unwrap().choices }
    };
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(ask(prompt).await);
    }
    let together = join_all(prompts.iter().map(ask)).await;
    assert_eq!(alone, together);
}
