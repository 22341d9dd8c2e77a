//! What is promised of models.

use std::time::Duration;

use futures::StreamExt;
use llama_stack_core::{Code, Context, Error, Inference, Result, grpc::Remote, service::no_such_model};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, EmbedInput, EmbedRequest, GetModelRequest, ListModelsRequest, Model, ModelKind, SamplingParams,
    chat_event::Event, inference_client::InferenceClient,
};
use tonic::transport::Channel;

use super::{Peer, refused, report::Report, told, unclear};

type Client = Remote<InferenceClient<Channel>>;

const NOBODY: &str = "no-such-model-of-anyone";

/// Of the list, and of `named`, or of the first model of each kind.
///
/// # Errors
/// `NotFound` where there is no such model.
pub(super) async fn check(peer: &Peer, named: Option<&str>, report: &mut Report) -> Result<()> {
    let client = Client::new(peer.channel.clone());
    let promise = "ListModels lists its models, each with its kind";
    let models = match client.list_models(&peer.cx(), ListModelsRequest::default()).await {
        Ok(listed) if listed.models.is_empty() => {
            report.broken(promise, "the list is empty: there is nothing to ask for");
            return Ok(());
        }
        Ok(listed) => listed.models,
        Err(error) => {
            report.broken(promise, told(&error));
            return Ok(());
        }
    };
    let kindless = models.iter().find(|model| model.kind() == ModelKind::Unspecified);
    report.judge(promise, kindless.map(|model| format!("{:?} has no kind", model.id)));
    report.judge("every model has an id, and its own", unclear(models.iter().map(|model| model.id.as_str())));
    got(&client, peer, &models, report).await;
    let answer = client.get_model(&peer.cx(), GetModelRequest { id: NOBODY.into() }).await;
    refused(report, "GetModel of a model that is not there is NOT_FOUND", answer, &[Code::NotFound]);
    if let Some(id) = named {
        let found = models.iter().find(|model| model.id == id);
        let model = found.ok_or_else(|| no_such_model(id, models.iter().map(|model| model.id.as_str())))?;
        asked(&client, peer, model, report).await;
        return Ok(());
    }
    for (kind, promise, absent) in [
        (ModelKind::Chat, "StreamChat writes an answer", "it has no chat model"),
        (ModelKind::Embedding, "Embed makes a vector of each text", "it has no embedding model"),
    ] {
        match models.iter().find(|model| model.kind() == kind) {
            Some(model) => asked(&client, peer, model, report).await,
            None => report.skipped(promise, absent),
        }
    }
    Ok(())
}

/// What is promised of a model of its kind.
async fn asked(client: &Client, peer: &Peer, model: &Model, report: &mut Report) {
    match model.kind() {
        ModelKind::Chat => chats(client, peer, model, report).await,
        ModelKind::Embedding => embeds(client, peer, model, report).await,
        _ => report.skipped("it answers as a model of its kind", "only models that chat or embed are asked"),
    }
}

async fn got(client: &Client, peer: &Peer, models: &[Model], report: &mut Report) {
    let promise = "GetModel gives each model of the list";
    for model in models {
        match client.get_model(&peer.cx(), GetModelRequest { id: model.id.clone() }).await {
            Ok(got) if got.id == model.id && got.kind == model.kind => {}
            Ok(got) => return report.broken(promise, format!("{:?} gives {:?}", model.id, got.id)),
            Err(error) if error.code() == Code::Unimplemented => return report.skipped(promise, "it does not have that method"),
            Err(error) => return report.broken(promise, told(&error)),
        }
    }
    report.kept(promise);
}

fn request(model: &str, tokens: u32) -> ChatRequest {
    let sampling = SamplingParams { temperature: Some(0.0), max_tokens: Some(tokens), ..SamplingParams::default() };
    ChatRequest { sampling: Some(sampling), ..ChatRequest::user(model, "Count from one to one hundred.") }
}

/// Opening the stream, or its first event: either may bring the refusal.
async fn stream(client: &Client, cx: &Context, request: ChatRequest) -> Result<Vec<ChatEvent>> {
    let mut events = client.stream_chat(cx, request).await?;
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event?);
    }
    Ok(all)
}

async fn chats(client: &Client, peer: &Peer, model: &Model, report: &mut Report) {
    let answer = stream(client, &peer.cx(), request(NOBODY, 1)).await;
    refused(report, "a chat with a model that is not there is NOT_FOUND", answer, &[Code::NotFound]);
    let answer = stream(client, &peer.cx(), ChatRequest { messages: Vec::new(), ..request(&model.id, 1) }).await;
    refused(report, "a chat without messages is INVALID_ARGUMENT", answer, &[Code::InvalidArgument]);

    let promise = "StreamChat writes an answer: deltas, one finish, then one usage";
    match stream(client, &peer.cx(), request(&model.id, 8)).await {
        Ok(events) => report.judge(promise, disorder(&events)),
        Err(error) => return report.broken(promise, told(&error)),
    }

    let promise = "a stream that is dropped ends its generation: the next caller is answered";
    let dropped = async {
        let mut events = client.stream_chat(&peer.cx(), request(&model.id, 200)).await?;
        events.next().await.transpose()?;
        drop(events);
        stream(client, &peer.cx(), request(&model.id, 4)).await.map(drop)
    };
    report.judge(promise, dropped.await.err().map(|error: Error| told(&error)));

    let promise = "a deadline ends a generation";
    let cx = Context::default().with_timeout(Duration::from_millis(1));
    match stream(client, &cx, request(&model.id, 2_000)).await {
        Ok(_) => report.skipped(promise, "it answered within a millisecond"),
        // A stream that its server cuts off at the deadline is cancelled on the wire, in some languages.
        answer => refused(report, promise, answer, &[Code::DeadlineExceeded, Code::Cancelled]),
    }
    let after = stream(client, &peer.cx(), request(&model.id, 4)).await;
    report.judge("after a deadline the next caller is answered", after.err().map(|error| told(&error)));
}

/// What is out of order, if anything is.
fn disorder(events: &[ChatEvent]) -> Option<String> {
    let is = |event: &ChatEvent, finish: bool| match &event.event {
        Some(Event::Finish(_)) => finish,
        Some(Event::Usage(_)) => !finish,
        _ => false,
    };
    let place = |finish: bool| events.iter().enumerate().filter(|(_, event)| is(event, finish)).map(|(at, _)| at).collect::<Vec<_>>();
    match (place(true).as_slice(), place(false).as_slice()) {
        ([_], []) => Some("there is no usage after the finish".into()),
        ([finish], [usage]) if usage < finish => Some("the usage comes before the finish".into()),
        ([finish], [usage]) if *usage != finish + 1 || *usage != events.len() - 1 => {
            Some("something follows the finish, or the usage".into())
        }
        ([0], _) => Some("nothing was said before the finish".into()),
        ([_], [_]) => {
            events.iter().any(|event| matches!(&event.event, Some(Event::Text(text)) if text.is_empty())).then(|| "a text is empty".into())
        }
        (finishes, usages) => Some(format!("{} finishes and {} usages, where one each is due", finishes.len(), usages.len())),
    }
}

async fn embeds(client: &Client, peer: &Peer, model: &Model, report: &mut Report) {
    let request = |inputs: Vec<EmbedInput>| EmbedRequest { model: model.id.clone(), inputs, ..EmbedRequest::default() };
    let promise = "Embed makes a vector of each text, all of one dimension";
    let texts = vec![EmbedInput::text("a cat"), EmbedInput::text("a dog"), EmbedInput::text("a very long sentence about nothing")];
    match client.embed(&peer.cx(), request(texts)).await {
        Err(error) => report.broken(promise, told(&error)),
        Ok(answer) => {
            let sizes: Vec<usize> = answer.embeddings.iter().map(|one| one.values.len()).collect();
            let expected =
                if model.embedding_dimension > 0 { model.embedding_dimension as usize } else { sizes.first().copied().unwrap_or_default() };
            let odd = answer.embeddings.iter().flat_map(|one| &one.values).find(|value| !value.is_finite());
            let wrong = if sizes.len() != 3 || expected == 0 || sizes.iter().any(|size| *size != expected) {
                Some(format!("the vectors of three texts have {sizes:?} numbers, {expected} are due"))
            } else {
                odd.map(|value| format!("there is {value} in a vector, which is no number"))
            };
            report.judge(promise, wrong);
        }
    }
    let answer = client.embed(&peer.cx(), request(Vec::new())).await;
    refused(report, "Embed of nothing is INVALID_ARGUMENT", answer, &[Code::InvalidArgument]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llama_stack_core::grpc::channel;
    use llama_stack_proto::v1::{EmbedResponse, Embedding, FinishReason, ListModelsResponse, Usage};
    use llama_stack_tests::served;

    use super::*;

    /// Two models, of which the second one's vectors are none.
    struct Two;

    #[async_trait::async_trait]
    impl Inference for Two {
        async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
            let model = |id: &str| Model { id: id.into(), kind: ModelKind::Embedding.into(), ..Model::default() };
            Ok(ListModelsResponse { models: vec![model("good"), model("bad")], ..ListModelsResponse::default() })
        }

        async fn embed(&self, _: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
            if request.inputs.is_empty() {
                return Err(Error::invalid("inputs", "inputs is empty"));
            }
            let value = if request.model == "good" { 1.0 } else { f32::NAN };
            let embeddings = vec![Embedding { values: vec![value] }; request.inputs.len()];
            Ok(EmbedResponse { embeddings, ..EmbedResponse::default() })
        }
    }

    #[tokio::test]
    async fn a_model_that_is_named_is_asked_in_place_of_the_first() {
        let server = served::inference(Arc::new(Two)).await;
        let limit = Duration::from_secs(60);
        let peer = Peer { channel: channel(&server.url, limit).unwrap(), limit };
        for (named, broken) in [(None, 0), (Some("good"), 0), (Some("bad"), 1)] {
            let mut report = Report::new(&server.url);
            check(&peer, named, &mut report).await.unwrap();
            assert_eq!(report.broken, broken, "{named:?}");
        }
        let error = check(&peer, Some("third"), &mut Report::new(&server.url)).await.unwrap_err();
        assert!(error.code() == Code::NotFound && error.message().contains("good, bad"), "{error}");
    }

    #[test]
    fn an_order_that_is_wrong_is_told() {
        let (text, finish, usage) =
            (ChatEvent::text(0, "one"), ChatEvent::finish(0, FinishReason::Stop), ChatEvent::usage(Usage::default()));
        assert_eq!(disorder(&[text.clone(), finish.clone(), usage.clone()]), None);
        for wrong in [
            vec![text.clone(), usage.clone(), finish.clone()],
            vec![text.clone(), finish.clone()],
            vec![finish.clone(), usage.clone()],
            vec![finish.clone(), text.clone(), usage.clone()],
            vec![text.clone(), finish.clone(), usage.clone(), text.clone()],
            vec![text],
        ] {
            assert!(disorder(&wrong).is_some(), "{wrong:?}");
        }
    }
}
