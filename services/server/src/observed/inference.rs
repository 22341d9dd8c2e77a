use std::time::Instant;

use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Code, Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, Part, RerankRequest, RerankResponse,
    ResponseFormat, SamplingParams, TokenizeRequest, TokenizeResponse, Usage, complete_request::Prompt, part::Content,
    response_format::Format,
};

use super::{
    Observed, content,
    generation::{BYTES_PER_TOKEN, Generation, Meter, Telling},
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
        generation.meter = self.limits.clone().map(|limits| Meter::new(limits, cx.clone(), asked.given));
        (generation, below)
    }

    fn chatting(&self, cx: &Context, request: &ChatRequest, streamed: bool) -> (Generation, Context) {
        let asked = Asked {
            sampling: request.sampling.as_ref(),
            n: request.n,
            format: request.response_format.as_ref(),
            streamed,
            given: bytes_of_chat(request),
        };
        let (mut generation, below) = self.generation(cx, "chat", &request.model, &asked);
        if let (true, Some(span)) = (self.captures(), &mut generation.span) {
            span.set("gen_ai.input.messages", content::messages(&request.messages));
        }
        (generation, below)
    }

    fn completing(&self, cx: &Context, request: &CompleteRequest, streamed: bool) -> (Generation, Context) {
        let given = match &request.prompt {
            Some(Prompt::Text(text)) => text.len(),
            Some(Prompt::Tokens(tokens)) => tokens.ids.len() * BYTES_PER_TOKEN,
            None => 0,
        };
        let asked = Asked { sampling: request.sampling.as_ref(), n: request.n, format: request.response_format.as_ref(), streamed, given };
        self.generation(cx, "text_completion", &request.model, &asked)
    }

    /// What a model read that writes nothing.
    fn read(&self, cx: &Context, model: &str, usage: &Usage) {
        self.metrics.tokens(model, usage);
        if let Some(limits) = &self.limits {
            limits.used(cx, model, usage);
        }
    }
}

/// Of the text that a model is given to read.
fn bytes_of_chat(request: &ChatRequest) -> usize {
    let said: usize = request.messages.iter().flat_map(|message| &message.parts).map(bytes_of_part).sum();
    let tools = request.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.parameters.len());
    said + tools.sum::<usize>()
}

fn bytes_of_part(part: &Part) -> usize {
    match &part.content {
        Some(Content::Text(text) | Content::Refusal(text) | Content::Reasoning(text)) => text.len(),
        Some(Content::ToolCall(call)) => call.name.len() + call.arguments.len(),
        Some(Content::ToolResult(result)) => result.parts.iter().map(bytes_of_part).sum(),
        Some(Content::Image(_)) | None => 0,
    }
}

/// What is told of a request. Stop strings are not: they are the caller's words.
struct Asked<'a> {
    sampling: Option<&'a SamplingParams>,
    n: u32,
    format: Option<&'a ResponseFormat>,
    streamed: bool,
    /// Bytes of text to read.
    given: usize,
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
            self.read(cx, &model, usage);
            if let Some(telemetry) = &self.telemetry {
                telemetry.instruments.tokens(EMBEDDINGS, &model, usage);
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
        let model = request.model.clone();
        let response = self.inner.rerank(cx, request).await?;
        response.usage.iter().for_each(|usage| self.read(cx, &model, usage));
        Ok(response)
    }

    async fn classify(&self, cx: &Context, request: ClassifyRequest) -> Result<ClassifyResponse> {
        let model = request.model.clone();
        let response = self.inner.classify(cx, request).await?;
        response.usage.iter().for_each(|usage| self.read(cx, &model, usage));
        Ok(response)
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        self.inner.tokenize(cx, request).await
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use futures::{StreamExt, stream};
    use llama_stack_core::manifest;
    use llama_stack_store::{Durability, Store};

    use super::*;
    use crate::{limits::Limits, metrics::Metrics};

    /// Writes without an end, and says what it read.
    struct Endless;

    #[async_trait::async_trait]
    impl Inference for Endless {
        async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
            Ok(ListModelsResponse::default())
        }

        async fn stream_chat(&self, _: &Context, _: ChatRequest) -> Result<EventStream<ChatEvent>> {
            Ok(Box::pin(stream::repeat_with(|| Ok(ChatEvent::text(0, "four more ")))))
        }

        async fn rerank(&self, _: &Context, _: RerankRequest) -> Result<RerankResponse> {
            Ok(RerankResponse { usage: Some(Usage { prompt_tokens: 30, ..Usage::default() }), ..RerankResponse::default() })
        }

        async fn classify(&self, _: &Context, _: ClassifyRequest) -> Result<ClassifyResponse> {
            Ok(ClassifyResponse { usage: Some(Usage { prompt_tokens: 500, ..Usage::default() }), ..ClassifyResponse::default() })
        }
    }

    /// Else whoever breaks each answer off before its end has all of them for nothing.
    #[tokio::test]
    async fn what_was_read_and_shown_is_charged_also_where_no_end_says_how_much_it_was() {
        let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
        let quota = manifest::Quota { tokens_per_day: Some(1_000), ..manifest::Quota::default() };
        let config = manifest::Limits { each_principal: quota, ..manifest::Limits::default() };
        let limits = Limits::new(config, BTreeMap::new(), store.clone());
        let inner: Arc<dyn Inference> = Arc::new(Endless);
        let observed = Observed::new(inner, None, Metrics::new()).metered(limits.clone());
        let cx = Context::test("acme");
        let used = async || {
            limits.flush().await.unwrap();
            let today = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400).unwrap();
            store.daily_usage("acme", &cx.principal().id, today).await.unwrap().tokens
        };
        let mut events = observed.stream_chat(&cx, ChatRequest::user("m", "twelve bytes")).await.unwrap();
        for _ in 0..4 {
            events.next().await.unwrap().unwrap();
        }
        drop(events);
        assert_eq!(used().await, 3 + 10);
        drop(observed.stream_chat(&cx, ChatRequest::user("m", "twelve bytes")).await.unwrap());
        assert_eq!(used().await, 13, "nothing was shown of it");
        observed.rerank(&cx, RerankRequest::default()).await.unwrap();
        observed.classify(&cx, ClassifyRequest::default()).await.unwrap();
        assert_eq!(used().await, 13 + 30 + 500);
    }
}
