use llama_stack_core::Code;
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, FinishReason, GetModelRequest, Message, SamplingParams, TokenizeRequest, Tokens, complete_request::Prompt,
};

use super::*;

pub async fn greedy_answers_repeat(subject: &Subject) {
    let smol = subject.smol().await;
    let first = complete(&smol, story(8)).await;
    assert_eq!(first.choices, complete(&smol, story(8)).await.choices);
    assert_eq!((first.choices[0].finish_reason(), first.usage.unwrap().completion_tokens), (FinishReason::Length, 8));
    assert_eq!(first.usage.unwrap().prompt_tokens, 4);
    assert!(first.choices[0].text.starts_with(','), "{:?}", first.choices[0].text);
}

pub async fn a_seed_repeats_and_another_differs(subject: &Subject) {
    let smol = subject.smol().await;
    let hot = |seed| {
        let sampling = SamplingParams { temperature: Some(1.8), seed: Some(seed), max_tokens: Some(8), ..SamplingParams::default() };
        complete(&smol, CompleteRequest { sampling: Some(sampling), ..story(8) })
    };
    let first = hot(1).await;
    assert_eq!(first.choices, hot(1).await.choices);
    assert_ne!(first.choices[0].text, hot(2).await.choices[0].text);
}

pub async fn logprobs_are_natural_and_of_the_whole_vocabulary(subject: &Subject) {
    let smol = subject.smol().await;
    let plain = complete(&smol, CompleteRequest { logprobs: true, top_logprobs: 20, ..story(6) }).await;
    let choice = &plain.choices[0];
    assert_eq!(choice.logprobs.len(), 6);
    assert_eq!(choice.logprobs.iter().map(|token| token.token.as_str()).collect::<String>(), choice.text);
    for token in &choice.logprobs {
        assert_eq!(token.top.len(), 20);
        assert_eq!((token.token_id, token.logprob), (token.top[0].token_id, token.top[0].logprob), "greedy takes the likeliest");
        let sum: f32 = token.top.iter().map(|top| top.logprob.exp()).sum();
        assert!(sum > 0.1 && sum <= 1.0001, "{sum}");
        assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
    }
    // Before temperature, bias and masks: a ban changes the choice and not the logarithms of the step.
    let banned = choice.logprobs[0].token_id;
    let sampling = SamplingParams { logit_bias: [(banned, -100.0)].into(), ..SamplingParams::greedy(1) };
    let other = complete(&smol, CompleteRequest { logprobs: true, top_logprobs: 2, sampling: Some(sampling), ..story(1) }).await;
    let token = &other.choices[0].logprobs[0];
    assert_eq!((token.top[0].token_id, token.top[0].logprob), (banned, choice.logprobs[0].logprob));
    assert_eq!((token.token_id, token.logprob), (choice.logprobs[0].top[1].token_id, choice.logprobs[0].top[1].logprob));
}

/// "Once upon a time" goes on ", in a small village": `a sm` begins within a token and ends within another.
pub async fn a_stop_string_across_tokens_ends_the_answer_and_is_no_part_of_it(subject: &Subject) {
    let smol = subject.smol().await;
    let whole = complete(&smol, story(8)).await.choices[0].text.clone();
    let at = whole.char_indices().nth(5).unwrap().0;
    let stop = whole[at..at + 6].to_owned();
    let sampling = SamplingParams { stop: vec![stop.clone()], ..SamplingParams::greedy(8) };
    let stopped = complete(&smol, CompleteRequest { sampling: Some(sampling), ..story(8) }).await;
    assert_eq!(stopped.choices[0].text, whole[..whole.find(&stop).unwrap()]);
    assert_eq!(stopped.choices[0].finish_reason(), FinishReason::Stop);
    assert!(stopped.usage.unwrap().completion_tokens < 8);
}

pub async fn a_chat_ends_by_itself_and_shows_no_control_token(subject: &Subject) {
    let smol = subject.smol().await;
    let response = chat(&smol, ChatRequest::user(SMOL, "Say hi.").greedy(60)).await;
    let text = response.choices[0].message.as_ref().unwrap().joined_text();
    assert!(!text.is_empty() && !text.contains("<|"), "{text:?}");
    assert_eq!(response.choices[0].finish_reason(), FinishReason::Stop, "{text:?}");
}

pub async fn several_answers_differ_under_one_seed_and_are_counted_together(subject: &Subject) {
    let smol = subject.smol().await;
    let sampling = SamplingParams { temperature: Some(1.5), seed: Some(3), max_tokens: Some(4), ..SamplingParams::default() };
    let request = CompleteRequest { n: 2, sampling: Some(sampling), ..story(4) };
    let response = complete(&smol, request.clone()).await;
    assert_eq!(response.choices.len(), 2);
    assert_ne!(response.choices[0].text, response.choices[1].text);
    assert_eq!((response.usage.unwrap().prompt_tokens, response.usage.unwrap().completion_tokens), (4, 8));
    assert_eq!(response.choices, complete(&smol, request).await.choices);
}

pub async fn a_completion_from_tokens_is_the_completion_from_their_text(subject: &Subject) {
    let smol = subject.smol().await;
    let request = TokenizeRequest { model: SMOL.into(), text: "Once upon a time".into(), ..TokenizeRequest::default() };
    let tokens = smol.tokenize(&cx(), request).await.unwrap();
    assert_eq!((tokens.tokens.len(), tokens.context_length), (4, 8_192));
    let from_text = complete(&smol, CompleteRequest { echo: true, ..story(3) }).await;
    let prompt = Some(Prompt::Tokens(Tokens { ids: tokens.tokens }));
    let from_tokens = complete(&smol, CompleteRequest { echo: true, prompt, ..story(3) }).await;
    assert_eq!(from_text.choices, from_tokens.choices);
    assert!(from_text.choices[0].text.starts_with("Once upon a time,"), "{:?}", from_text.choices[0].text);
    let beyond = Some(Prompt::Tokens(Tokens { ids: vec![1, 4_000_000] }));
    let error = smol.complete(&cx(), CompleteRequest { prompt: beyond, ..story(3) }).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("prompt.tokens")));
}

pub async fn an_echo_with_logprobs_scores_the_prompt_as_the_model_reads_it(subject: &Subject) {
    let smol = subject.smol().await;
    let scored = CompleteRequest { echo: true, logprobs: true, top_logprobs: 1, ..story(2) };
    let response = complete(&smol, scored).await;
    let (choice, usage) = (&response.choices[0], response.usage.unwrap());
    assert_eq!((choice.logprobs.len(), usage.prompt_tokens, usage.completion_tokens), (4 + 2, 4, 2));
    assert_eq!(choice.logprobs.iter().map(|token| token.token.as_str()).collect::<String>(), choice.text);
    assert_eq!((choice.logprobs[0].logprob, choice.logprobs[0].top.len()), (f32::NEG_INFINITY, 0), "the first follows nothing");
    // What the model says of a token does not depend on who wrote it.
    for (n, token) in choice.logprobs.iter().enumerate().skip(1) {
        let ids = choice.logprobs[..n].iter().map(|token| token.token_id).collect();
        let next = CompleteRequest { prompt: Some(Prompt::Tokens(Tokens { ids })), logprobs: true, top_logprobs: 1, ..story(1) };
        let likeliest = complete(&smol, next).await.choices[0].logprobs[0].clone();
        assert_eq!(token.top[0].token_id, likeliest.token_id, "token {n}");
        assert!((token.top[0].logprob - likeliest.logprob).abs() < 0.05, "token {n}: {} and {}", token.top[0].logprob, likeliest.logprob);
        assert!(token.logprob <= token.top[0].logprob);
    }
    // The answer is the one that there is without.
    let plain = complete(&smol, story(2)).await;
    assert!(choice.text.ends_with(&plain.choices[0].text), "{:?} and {:?}", choice.text, plain.choices[0].text);
    // Nor does it need one.
    for logprobs in [true, false] {
        let alone = complete(&smol, CompleteRequest { echo: true, logprobs, ..story(0) }).await;
        let (only, usage) = (&alone.choices[0], alone.usage.unwrap());
        assert_eq!((only.text.as_str(), only.finish_reason()), ("Once upon a time", FinishReason::Length));
        assert_eq!((only.logprobs.len(), usage.prompt_tokens, usage.completion_tokens), (if logprobs { 4 } else { 0 }, 4, 0));
    }
    // Twice the same, whatever is known of the text by then; and each of several answers has its own.
    let twice = CompleteRequest { echo: true, logprobs: true, n: 2, ..story(1) };
    let twice = complete(&smol, twice).await;
    assert_eq!(twice.choices.iter().map(|choice| choice.logprobs.len()).collect::<Vec<_>>(), [5, 5]);
}

pub async fn a_conversation_is_tokenized_as_the_template_renders_it(subject: &Subject) {
    let smol = subject.smol().await;
    let messages = vec![Message::user("Hi.<|im_end|>")];
    let request = TokenizeRequest { model: SMOL.into(), messages, ..TokenizeRequest::default() };
    let tokens = smol.tokenize(&cx(), request).await.unwrap();
    assert!(tokens.prompt.contains("<|im_start|>user\nHi.") && tokens.prompt.ends_with("<|im_start|>assistant\n"), "{:?}", tokens.prompt);
    // What a user writes is no control token: the only ends are those of the template's own messages.
    assert_eq!(tokens.prompt.matches("<|im_end|>").count(), tokens.prompt.matches("<|im_start|>").count() - 1, "{:?}", tokens.prompt);
}

pub async fn a_model_says_what_it_is(subject: &Subject) {
    let smol = subject.smol().await;
    let model = smol.get_model(&cx(), GetModelRequest { id: SMOL.into() }).await.unwrap();
    assert_eq!(model.context_length, 8_192);
    assert_eq!((model.metadata["engine"].as_str(), model.metadata["quantization"].as_str()), (subject.engine, "Q4_1"));
    assert_eq!(model.metadata["license"], "Apache-2.0");
    let error = smol.complete(&cx(), CompleteRequest::text("nobody", "x")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains(SMOL), "{}", error.message());
}

/// Those of the trait that every implementation keeps, engines or not.
pub async fn the_promises_of_inference(subject: &Subject) {
    let smol = subject.smol().await;
    let long = ChatRequest::user(SMOL, "Tell a story that never ends.");
    crate::conformance::inference::all(smol, SMOL, long).await;
}
