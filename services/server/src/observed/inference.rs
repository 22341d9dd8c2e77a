use std::time::Instant;

use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Code, Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse,
    ResponseFormat, SamplingParams, TokenizeRequest, TokenizeResponse, response_format::Format,
};

use super::{
    Observed, content,
    generation::{Generation, Telling},
    noted,
};
use crate::telemetry::PROVIDER;

/// The operation that makes vectors, in the conventions' word.
const EMBEDDINGS: &str = "embeddings";

impl Observed<dyn Inference> {
    /// `name` is the operation's in the conventions: `chat`, `text_completion`.
    fn generation(&self, cx: &Context, name: &'static str, model: &str, asked: &Asked<'_>) -> (Generation, Context) {
        let attributes = if self.telemetry.is_some() { asked.attributes(model) } else { Vec::new() };
        let (span, below) = self.span(cx, name, model, SpanKind::Client, attributes);
        let captures = self.captures() && name == "chat";
        let mut generation = Generation::new(name, model, self.metrics.clone(), self.telemetry.clone(), span, captures);
        generation.meter = self.limits.clone().map(|limits| (limits, cx.clone()));
        (generation, below)
    }

    fn chatting(&self, cx: &Context, request: &ChatRequest, streamed: bool) -> (Generation, Context) {
        let asked = Asked { sampling: request.sampling.as_ref(), n: request.n, format: request.response_format.as_ref(), streamed };
        let (mut generation, below) = self.generation(cx, "chat", &request.model, &asked);
        if let (true, Some(span)) = (self.captures(), &mut generation.span) {
            span.set("gen_ai.input.messages", content::messages(&request.messages));
        }
        (generation, below)
    }

    fn completing(&self, cx: &Context, request: &CompleteRequest, streamed: bool) -> (Generation, Context) {
        let asked = Asked { sampling: request.sampling.as_ref(), n: request.n, format: request.response_format.as_ref(), streamed };
        self.generation(cx, "text_completion", &request.model, &asked)
    }
}

/// What is told of a request. Stop strings are not: they are the caller's words.
struct Asked<'a> {
    sampling: Option<&'a SamplingParams>,
    n: u32,
    format: Option<&'a ResponseFormat>,
    streamed: bool,
}

impl Asked<'_> {
    fn attributes(&self, model: &str) -> Vec<KeyValue> {
        let mut attributes = of_model(model);
        attributes.extend((self.n > 1).then(|| KeyValue::new("gen_ai.request.choice.count", i64::from(self.n))));
        attributes.extend(self.streamed.then(|| KeyValue::new("gen_ai.request.stream", true)));
        attributes.extend(self.format.and_then(|format| format.format.as_ref()).map(|format| {
            let is_json = matches!(format, Format::JsonObject(_) | Format::JsonSchema(_));
            KeyValue::new("gen_ai.output.type", if is_json { "json" } else { "text" })
        }));
        let Some(sampling) = self.sampling else { return attributes };
        let reals = [
            ("gen_ai.request.temperature", sampling.temperature.map(f64::from)),
            ("gen_ai.request.top_p", sampling.top_p.map(f64::from)),
            ("gen_ai.request.top_k", sampling.top_k.map(f64::from)),
            ("gen_ai.request.frequency_penalty", sampling.frequency_penalty.map(f64::from)),
            ("gen_ai.request.presence_penalty", sampling.presence_penalty.map(f64::from)),
        ];
        attributes.extend(reals.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))));
        let integers = [
            ("gen_ai.request.max_tokens", sampling.max_tokens.map(i64::from)),
            ("gen_ai.request.seed", sampling.seed.and_then(|seed| i64::try_from(seed).ok())),
        ];
        attributes.extend(integers.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))));
        attributes
    }
}

fn of_model(model: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("gen_ai.provider.name", PROVIDER), KeyValue::new("gen_ai.request.model", model.to_owned())]
}

#[async_trait::async_trait]
impl Inference for Observed<dyn Inference> {
    async fn chat(&self, cx: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let (mut generation, below) = self.chatting(cx, &request, false);
        let response = generation.noted(self.inner.chat(&below, request).await)?;
        response.usage.iter().for_each(|usage| generation.used(usage));
        response.choices.iter().for_each(|choice| generation.finished(choice.finish_reason()));
        if let (Some(_), Some(span)) = (generation.answer.take(), &mut generation.span) {
            span.set("gen_ai.output.messages", content::answers(&response.choices));
        }
        Ok(response)
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let (mut generation, below) = self.chatting(cx, &request, true);
        let events = generation.noted(self.inner.stream_chat(&below, request).await)?;
        Ok(Box::pin(Telling { events, generation }))
    }

    async fn complete(&self, cx: &Context, request: CompleteRequest) -> Result<CompleteResponse> {
        let (mut generation, below) = self.completing(cx, &request, false);
        let response = generation.noted(self.inner.complete(&below, request).await)?;
        response.usage.iter().for_each(|usage| generation.used(usage));
        response.choices.iter().for_each(|choice| generation.finished(choice.finish_reason()));
        Ok(response)
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let (mut generation, below) = self.completing(cx, &request, true);
        let events = generation.noted(self.inner.stream_complete(&below, request).await)?;
        Ok(Box::pin(Telling { events, generation }))
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let mut attributes = if self.telemetry.is_some() { of_model(&request.model) } else { Vec::new() };
        if request.dimensions > 0 {
            attributes.push(KeyValue::new("gen_ai.embeddings.dimension.count", i64::from(request.dimensions)));
        }
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
                span.set("gen_ai.response.model", model.clone());
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
