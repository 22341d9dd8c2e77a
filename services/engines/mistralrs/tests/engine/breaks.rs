//! A reader that does not read, and what is left of the engine afterwards.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use llama_stack_core::{Code, Error, Inference};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams, complete_event::Event};
use serde_json::json;

use crate::support::{
    llama31::{TINY, case, folder},
    *,
};

/// More than an answer may be ahead of its reader.
const TOKENS: u32 = 3_000;

async fn tiny() -> Arc<dyn Inference> {
    build(json!({ "models": [{ "id": TINY, "path": folder().join("hf") }] })).await.unwrap()
}

/// An answer that does not end by itself: control tokens are banned.
fn endless() -> CompleteRequest {
    let ends = (501..512).map(|id| (id, -100.0)).collect();
    let sampling = SamplingParams { logit_bias: ends, ..SamplingParams::greedy(TOKENS) };
    CompleteRequest { sampling: Some(sampling), ..CompleteRequest::text(TINY, "The river rose") }
}

#[test]
fn an_answer_that_nobody_reads_is_broken_off_and_the_next_one_is_made() {
    on(async {
        let tiny = tiny().await;
        let mut unread = tiny.stream_complete(&cx(), endless()).await.unwrap();
        // Answered as soon as the engine has let go of the other.
        case("short").is_answered_alike(&tiny).await;
        let mut text = String::new();
        let error: Error = loop {
            match unread.next().await.expect("it ended as if it were whole") {
                Ok(event) => match event.event {
                    Some(Event::Text(more)) => text.push_str(&more),
                    other => panic!("it ended with {other:?}"),
                },
                Err(error) => break error,
            }
        };
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("slow_reader")), "{error:?}");
        assert!(!text.is_empty(), "what was made is still told");
        case("short").is_answered_alike(&tiny).await;
    });
}

/// As above, but read: nothing is broken off.
#[test]
fn an_answer_as_long_that_is_read_is_whole() {
    on(async {
        let tiny = tiny().await;
        let answer = tokio::time::timeout(Duration::from_secs(300), complete(&tiny, endless())).await.unwrap();
        assert_eq!(answer.usage.unwrap().completion_tokens, TOKENS);
    });
}
