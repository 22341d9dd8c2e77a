//! `llama-stack chat`: talks to a model of a running stack, over gRPC.

use std::io::IsTerminal;

use futures::StreamExt;
use llama_stack_core::{Code, Error, Inference, Result, fold::ChatFold, grpc::Remote};
use llama_stack_proto::v1::{
    ChatRequest, ListModelsRequest, Message, ModelKind, SamplingParams, chat_event::Event, inference_client::InferenceClient,
};
use serde_json::json;
use tonic::transport::Channel;

use crate::{args::ChatArgs, lines, named, output::Output, reach};

pub(crate) type Client = Remote<InferenceClient<Channel>>;

const STOPPED: &str = "stopped before it answered";

pub(crate) async fn run(args: ChatArgs, output: &Output) -> Result<()> {
    let server = args.server.server;
    let client = Client::new(reach::connect(&server)?);
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_chat_model(&client, &server).await?,
    };
    let mut chat = Chat {
        client,
        server,
        model,
        messages: args.system.iter().map(Message::system).collect(),
        sampling: SamplingParams { max_tokens: args.max_tokens, ..SamplingParams::default() },
        output: output.clone(),
    };
    if std::io::stdin().is_terminal() { chat.converse().await } else { chat.answer_pipe().await }
}

/// What answers where no model was named.
pub(crate) async fn first_chat_model(client: &Client, server: &str) -> Result<String> {
    let request = ListModelsRequest { kind: ModelKind::Chat.into(), ..ListModelsRequest::default() };
    let models = client.list_models(&crate::caller::caller(), request).await.map_err(|error| reach::explained(error, server))?;
    let first = models.models.into_iter().next();
    first.map(|model| model.id).ok_or_else(|| {
        Error::failed_precondition("this stack has no chat model; name a provider of one under providers.inference of its manifest")
    })
}

struct Chat {
    client: Client,
    server: String,
    model: String,
    messages: Vec<Message>,
    sampling: SamplingParams,
    output: Output,
}

impl Chat {
    /// One question from a pipe, one answer.
    async fn answer_pipe(&mut self) -> Result<()> {
        let question = named::standard_input()?;
        if question.trim().is_empty() {
            return Err(Error::invalid("stdin", "there is no question on standard input"));
        }
        match self.ask(question.trim_end().to_owned()).await? {
            true => Ok(()),
            false => Err(Error::new(Code::Cancelled, STOPPED)),
        }
    }

    async fn converse(&mut self) -> Result<()> {
        self.output.note(&format!("{} - an empty line or Ctrl-D ends, Ctrl-C stops an answer", self.model));
        let mut editor = lines::editor()?;
        while let Some((line, back)) = lines::next(editor).await? {
            editor = back;
            match self.ask(line).await {
                Ok(true) => {}
                Ok(false) => self.output.note(STOPPED),
                Err(error) => {
                    self.messages.pop();
                    self.output.note(&format!("error: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Streams the answer; Ctrl-C cuts it off and keeps what was said. False: nothing was, and the question is forgotten.
    async fn ask(&mut self, question: String) -> Result<bool> {
        self.messages.push(Message::user(question));
        let request = ChatRequest { sampling: Some(self.sampling.clone()), ..ChatRequest::new(&self.model, self.messages.clone()) };
        let mut working = Some(self.output.working(&format!("{} reads", self.model)));
        let cx = crate::caller::caller();
        // One for all of it: between two of them a Ctrl-C would be heard by nobody.
        let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
        let begun = tokio::select! {
            begun = self.client.stream_chat(&cx, request) => begun,
            _ = &mut stop => {
                self.messages.pop();
                return Ok(false);
            }
        };
        let mut events = begun.map_err(|error| reach::explained(error, &self.server))?;
        let (mut fold, mut stopped) = (ChatFold::default(), false);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = &mut stop => {
                    stopped = true;
                    None
                }
            };
            drop(working.take());
            let Some(event) = event.transpose().map_err(|error| reach::explained(error, &self.server))? else { break };
            if let (Some(Event::Text(text)), false) = (&event.event, self.output.is_json()) {
                self.output.write(text)?;
            }
            fold.push(event)?;
        }
        let response = fold.finish(&self.model);
        let message = response.choices.into_iter().next().and_then(|choice| choice.message).unwrap_or_default();
        if stopped && message.parts.is_empty() {
            self.messages.pop();
            return Ok(false);
        }
        let usage = response.usage.unwrap_or_default();
        if self.output.is_json() {
            let tokens = json!({ "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens });
            self.output.result(&json!({ "model": self.model, "text": message.joined_text(), "usage": tokens }), |_| String::new())?;
        } else {
            self.output.write("\n")?;
        }
        if !message.parts.is_empty() {
            self.messages.push(message);
        }
        Ok(true)
    }
}
