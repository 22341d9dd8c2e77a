use std::time::Duration;

use futures::{StreamExt, future::Either};
use llama_stack_core::{Code, fold};
use llama_stack_proto::v1::{ChatRequest, CompleteRequest, FinishReason, SamplingParams, complete_event::Event};

use super::*;

pub async fn a_dropped_stream_frees_the_engine(subject: &Subject) {
    let smol = subject.single(4).await;
    let mut long = smol.stream_complete(&cx(), story(4_000)).await.unwrap();
    assert!(matches!(long.next().await.unwrap().unwrap().event, Some(Event::Text(_))));
    drop(long);
    let ended = tokio::time::timeout(Duration::from_secs(60), complete(&smol, story(2))).await;
    assert!(ended.is_ok(), "the slot was not freed");
}

pub async fn a_full_queue_refuses_and_says_when_to_come_back(subject: &Subject) {
    let smol = subject.single(1).await;
    let mut running = smol.stream_complete(&cx(), story(4_000)).await.unwrap();
    running.next().await.unwrap().unwrap();
    // There is room for one of these to wait; whichever comes second is refused at once.
    let ask = || {
        let smol = smol.clone();
        tokio::spawn(async move { smol.complete(&cx(), story(2)).await })
    };
    let (refused, waiting) = match futures::future::select(ask(), ask()).await {
        Either::Left((first, other)) | Either::Right((first, other)) => (first.unwrap().unwrap_err(), other),
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.retry_after().is_some(), "{refused:?}");
    drop(running);
    assert_eq!(waiting.await.unwrap().unwrap().usage.unwrap().completion_tokens, 2);
}

/// Nobody reads, and others are served all the same.
pub async fn a_reader_that_sleeps_does_not_hold_the_engine(subject: &Subject) {
    let smol = subject.smol().await;
    let sleeping = smol.stream_complete(&cx(), story(12)).await.unwrap();
    complete(&smol, story(1)).await;
    let answer = fold::complete(SMOL.into(), sleeping).await.unwrap();
    assert_eq!(answer.usage.unwrap().completion_tokens, 12);
}

pub async fn a_deadline_ends_an_answer(subject: &Subject) {
    let smol = subject.smol().await;
    complete(&smol, story(1)).await;
    let error = smol.complete(&cx().with_timeout(Duration::from_millis(400)), story(4_000)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
}

pub async fn a_context_that_is_exceeded_names_both_numbers(subject: &Subject) {
    let smol = subject.smol().await;
    let error = smol.complete(&cx(), story(8_189)).await.unwrap_err();
    assert_eq!(error.reason(), Some("context_length_exceeded"));
    assert!(error.message().contains("8192") && error.message().contains("8193"), "{}", error.message());
    let long = CompleteRequest { sampling: None, ..CompleteRequest::text(SMOL, "word ".repeat(9_000)) };
    let error = smol.complete(&cx(), long).await.unwrap_err();
    assert_eq!(error.reason(), Some("context_length_exceeded"), "{error:?}");
}

/// A small model may go on for ever. Where a request names no number, the context is the bound.
pub async fn an_answer_without_a_bound_ends_where_the_context_does(subject: &Subject) {
    let mut spec = smol_spec();
    spec["context_length"] = json!(128);
    let smol = subject.build(json!({ "models": [spec] })).await.unwrap();
    // Its control tokens, with which it would end.
    let ends = (0..17).map(|id| (id, -100.0)).collect();
    let sampling = Some(SamplingParams { logit_bias: ends, temperature: Some(0.0), ..SamplingParams::default() });
    let answer = smol.chat(&cx(), ChatRequest { sampling, ..ChatRequest::user(SMOL, "Tell me a story.") }).await.unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!((answer.choices[0].finish_reason(), usage.prompt_tokens + usage.completion_tokens), (FinishReason::Length, 128));
}

pub async fn a_prompt_without_tokens_is_refused(subject: &Subject) {
    let smol = subject.smol().await;
    let empty = CompleteRequest { sampling: Some(SamplingParams::greedy(2)), ..CompleteRequest::text(SMOL, "") };
    assert_eq!(smol.complete(&cx(), empty).await.unwrap_err().code(), Code::InvalidArgument);
}
