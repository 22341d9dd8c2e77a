use std::time::Instant;

use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Code, Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse,
    SamplingParams, TokenizeRequest, TokenizeResponse,
};

use super::{
    Observed, content,
    generation::{Generation, Telling},
    noted,
};

/// The operation that makes vectors, in the conventions' word.
const EMBEDDINGS: &str = "embeddings";

impl Observed<dyn Inference> {
    /// `name` is the operation's in the conventions: `chat`, `text_completion`, `embeddings`.
    fn generation(&self, cx: &Context, name: &'static str, model: &str, sampling: Option<&SamplingParams>) -> (Generation, Context) {
        let attributes = if self.telemetry.is_some() { attributes(model, sampling) } else { Vec::new() };
        let (span, below) = self.span(cx, name, model, SpanKind::Client, attributes);
        let captures = self.captures() && name == "chat";
        let mut generation = Generation::new(name, model, self.metrics.clone(), self.telemetry.clone(), span, captures);
        generation.meter = self.limits.clone().map(|limits| (limits, cx.clone()));
        (generation, below)
    }

    fn chatting(&self, cx: &Context, request: &ChatRequest) -> (Generation, Context) {
        let (mut generation, below) = self.generation(cx, "chat", &request.model, request.sampling.as_ref());
        if let (true, Some(span)) = (self.captures(), &mut generation.span) {
            span.set("gen_ai.input.messages", content::messages(&request.messages));
        }
        (generation, below)
    }
}

fn attributes(model: &str, sampling: Option<&SamplingParams>) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("gen_ai.request.model", model.to_owned())];
    let Some(sampling) = sampling else { return attributes };
    let reals = [
        ("gen_ai.request.temperature", sampling.temperature),
        ("gen_ai.request.top_p", sampling.top_p),
        ("gen_ai.request.frequency_penalty", sampling.frequency_penalty),
        ("gen_ai.request.presence_penalty", sampling.presence_penalty),
    ];
    attributes.extend(reals.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, f64::from(value?)))));
    attributes.extend(sampling.max_tokens.map(|tokens| KeyValue::new("gen_ai.request.max_tokens", i64::from(tokens))));
    attributes
}

#[async_trait::async_trait]
impl Inference for Observed<dyn Inference> {
    async fn chat(&self, cx: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let (mut generation, below) = self.chatting(cx, &request);
        let response = generation.noted(self.inner.chat(&below, request).await)?;
        response.usage.iter().for_each(|usage| generation.used(usage));
        response.choices.iter().for_each(|choice| generation.finished(choice.finish_reason()));
        if let (Some(_), Some(span)) = (generation.answer.take(), &mut generation.span) {
            let said: Vec<_> = response.choices.iter().filter_map(|choice| choice.message.clone()).collect();
            span.set("gen_ai.output.messages", content::messages(&said));
        }
        Ok(response)
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let (mut generation, below) = self.chatting(cx, &request);
        let events = generation.noted(self.inner.stream_chat(&below, request).await)?;
        Ok(Box::pin(Telling { events, generation }))
    }

    async fn complete(&self, cx: &Context, request: CompleteRequest) -> Result<CompleteResponse> {
        let (mut generation, below) = self.generation(cx, "text_completion", &request.model, request.sampling.as_ref());
        let response = generation.noted(self.inner.complete(&below, request).await)?;
        response.usage.iter().for_each(|usage| generation.used(usage));
        response.choices.iter().for_each(|choice| generation.finished(choice.finish_reason()));
        Ok(response)
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let (mut generation, below) = self.generation(cx, "text_completion", &request.model, request.sampling.as_ref());
        let events = generation.noted(self.inner.stream_complete(&below, request).await)?;
        Ok(Box::pin(Telling { events, generation }))
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let attributes = if self.telemetry.is_some() { attributes(&request.model, None) } else { Vec::new() };
        let (mut span, below) = self.span(cx, EMBEDDINGS, &request.model, SpanKind::Client, attributes);
        let (model, begun) = (request.model.clone(), Instant::now());
        let response = noted(&mut span, self.inner.embed(&below, request).await);
        let told = match &response {
            Err(error) if matches!(error.code(), Code::NotFound | Code::InvalidArgument) => None,
            Err(error) => Some(Some(error.reason().unwrap_or(error.code().name()))),
            Ok(_) => Some(None),
        };
        if let Some(error) = told {
            self.metrics.generated(&model, EMBEDDINGS, begun.elapsed());
            if let Some(telemetry) = &self.telemetry {
                telemetry.instruments.took(EMBEDDINGS, &model, begun.elapsed(), error);
            }
        }
        let response = response?;
        if let Some(usage) = &response.usage {
            self.metrics.tokens(&model, usage);
            if let Some(telemetry) = &self.telemetry {
                telemetry.instruments.tokens(EMBEDDINGS, &model, usage);
            }
            if let Some(limits) = &self.limits {
                limits.used(cx, &model, usage);
            }
            if let Some(span) = &mut span {
                span.set("gen_ai.usage.input_tokens", i64::from(usage.prompt_tokens));
            }
        }
        Ok(response)
    }

    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        self.inner.list_models(cx, request).await
    }

    async fn get_model(&self, cx: &Context, request: GetModelRequest) -> Result<Model> {
        self.inner.get_model(cx, request).await
    }

    async fn rerank(&self, cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        self.inner.rerank(cx, request).await
    }

    async fn classify(&self, cx: &Context, request: ClassifyRequest) -> Result<ClassifyResponse> {
        self.inner.classify(cx, request).await
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        self.inner.tokenize(cx, request).await
    }
}
