//! What a running stack says of a model, and what the model reads.

use llama_stack_core::{Code, Error, Inference, Result, grpc::Remote};
use llama_stack_proto::v1::{
    GetModelRequest, ListModelsRequest, Message, Model, Part, Role, TokenizeRequest, ToolCall, ToolDefinition, ToolResult,
    inference_client::InferenceClient, part::Content,
};
use serde::Serialize;
use serde_json::json;
use tonic::transport::Channel;

use super::{open, size, specs};
use crate::{args::HomeArgs, distribution, output::Output, proto_json::to_json, reach, table::table};

type Client = Remote<InferenceClient<Channel>>;

fn client(server: &str) -> Result<Client> {
    Ok(Client::new(reach::connect(server)?))
}

/// All models, page by page.
pub(crate) async fn all(client: &Client) -> Result<Vec<Model>> {
    let (mut models, mut request) = (Vec::new(), ListModelsRequest::default());
    loop {
        let page = client.list_models(&crate::caller::caller(), request.clone()).await?;
        models.extend(page.models);
        if page.next_page_token.is_empty() {
            return Ok(models);
        }
        request.page_token = page.next_page_token;
    }
}

/// In a word.
pub(crate) fn kind(model: &Model) -> String {
    model.kind().as_str_name().trim_start_matches("MODEL_KIND_").to_lowercase()
}

/// A model of a running stack.
#[derive(Serialize)]
struct Listed {
    id: String,
    kind: String,
    provider: String,
    context_length: u32,
    labels: Vec<String>,
}

pub(super) async fn list(server: &str, output: &Output) -> Result<()> {
    let models = all(&client(server)?).await.map_err(|error| reach::explained(error, server))?;
    let row = |model: Model| Listed {
        kind: kind(&model),
        id: model.id,
        provider: model.provider_id,
        context_length: model.context_length,
        labels: model.labels,
    };
    let rows: Vec<Listed> = models.into_iter().map(row).collect();
    output.result(&rows, |rows| {
        if rows.is_empty() {
            return "this stack has no models; name some under providers.inference, see docs/models.md\n".into();
        }
        let context = |row: &Listed| if row.context_length > 0 { row.context_length.to_string() } else { "-".into() };
        let line = |row: &Listed| [row.id.clone(), row.kind.clone(), row.provider.clone(), context(row), row.labels.join(",")];
        table(["MODEL", "KIND", "PROVIDER", "CONTEXT", "LABELS"], rows.iter().map(line))
    })
}

pub(super) async fn show(id: &str, server: &str, home: HomeArgs, output: &Output) -> Result<()> {
    match client(server)?.get_model(&crate::caller::caller(), GetModelRequest { id: id.to_owned() }).await {
        Ok(model) => output.result(&to_json("Model", &model)?, |_| text(&model)),
        Err(error) if reach::is_nobody(&error) => match local(id, home).await? {
            Some(files) => {
                output.note(&format!("no stack answers at {server}: this is what the built-in distributions and the model store say"));
                output.result(&files, Local::text)
            }
            None => Err(reach::explained(error, server)),
        },
        Err(error) => Err(error),
    }
}

fn text(model: &Model) -> String {
    let mut rows = vec![("id", model.id.clone()), ("kind", kind(model)), ("provider", model.provider_id.clone())];
    if model.provider_model_id != model.id && !model.provider_model_id.is_empty() {
        rows.push(("there called", model.provider_model_id.clone()));
    }
    if model.context_length > 0 {
        rows.push(("context", format!("{} tokens", model.context_length)));
    }
    if model.embedding_dimension > 0 {
        rows.push(("dimension", model.embedding_dimension.to_string()));
    }
    if !model.labels.is_empty() {
        rows.push(("labels", model.labels.join(", ")));
    }
    let mut metadata: Vec<(&str, String)> = model.metadata.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    metadata.sort();
    rows.extend(metadata);
    let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or_default();
    rows.iter().map(|(key, value)| format!("{key:<width$}  {value}\n")).collect()
}

/// A model of the built-in distributions, and which of its files are here.
#[derive(Serialize)]
struct Local {
    id: String,
    context_length: Option<u32>,
    /// As SPDX writes it.
    license: Option<String>,
    files: Vec<LocalFile>,
}

#[derive(Serialize)]
struct LocalFile {
    name: String,
    size: Option<u64>,
    sha256: Option<String>,
    from: Vec<String>,
    here: bool,
}

impl Local {
    fn text(&self) -> String {
        let license = self.license.as_ref().map(|license| format!("  {license}")).unwrap_or_default();
        let mut text = format!("{}{license}\n", self.id);
        for file in &self.files {
            let here = if file.here { "here" } else { "not fetched" };
            let bytes = file.size.map(size).unwrap_or_default();
            text += &format!("  {:<28} {bytes:>10}  {here}\n", file.name);
            text += &file.from.iter().map(|from| format!("    {from}\n")).collect::<String>();
        }
        text
    }
}

async fn local(id: &str, home: HomeArgs) -> Result<Option<Local>> {
    let stored: Vec<String> = open(home)?.list().await?.into_iter().map(|file| file.name).collect();
    for manifest in distribution::built_in() {
        let Some(spec) = specs(&manifest)?.into_iter().find(|spec| spec.id == id) else { continue };
        let files = spec.files.iter().map(|file| LocalFile {
            name: file.name.to_string(),
            size: file.size,
            sha256: file.sha256.as_ref().map(|hash| hash.as_str().to_owned()),
            from: file.from.iter().map(ToString::to_string).collect(),
            here: stored.contains(&format!("{id}/{}", file.name)),
        });
        let files = files.collect();
        return Ok(Some(Local { id: spec.id.clone(), context_length: spec.context_length, license: spec.license.clone(), files }));
    }
    Ok(None)
}

/// A conversation to be rendered.
pub(super) struct Question {
    pub(super) model: String,
    pub(super) text: String,
    pub(super) system: Option<String>,
    pub(super) tools: bool,
}

pub(super) async fn prompt_format(question: Question, server: &str, output: &Output) -> Result<()> {
    let mut messages: Vec<Message> = question.system.iter().map(Message::system).collect();
    messages.push(Message::user(&question.text));
    let mut tools = Vec::new();
    if question.tools {
        let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
        tools.push(ToolDefinition::new("weather", "The weather in a city, now", schema.to_string()));
        let call = ToolCall::new("call_1", "weather", r#"{"city":"Oslo"}"#);
        let result = ToolResult::text(&call, "21 degrees and sunny", false);
        messages.push(Message::new(Role::Assistant, vec![Part::new(Content::ToolCall(call))]));
        messages.push(Message::tool(vec![result]));
    }
    let request = TokenizeRequest { model: question.model.clone(), messages, tools, ..TokenizeRequest::default() };
    let response = {
        let _working = output.working(&format!("waiting for {}", question.model));
        client(server)?.tokenize(&crate::caller::caller(), request).await
    };
    let response = response.map_err(|error| match error.code() {
        Code::Unimplemented => Error::new(
            Code::Unimplemented,
            format!("{} runs on a server that does not tell its template; only models in the stack's own process do", question.model),
        ),
        _ => reach::explained(error, server),
    })?;
    let shown = json!({
        "model": question.model, "prompt": response.prompt, "tokens": response.tokens.len(), "context_length": response.context_length,
    });
    output.result(&shown, |_| {
        format!("{}\n\n({} tokens of {})\n", response.prompt.trim_end_matches('\n'), response.tokens.len(), response.context_length)
    })
}
