//! `llama-stack tool`: the tools of a running stack, over gRPC.

use llama_stack_core::{Code, Error, Result, Tools, grpc::Remote};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, Part, Tool, part::Content, tools_client::ToolsClient,
};
use serde::Serialize;
use serde_json::{Map, Value};
use tonic::transport::Channel;

use crate::{args::ToolVerb, output::Output, proto_json::to_json, reach, table::table};

type Client = Remote<ToolsClient<Channel>>;

pub(crate) async fn run(verb: ToolVerb, output: &Output) -> Result<()> {
    match verb {
        ToolVerb::List(server) => list(&server.server, output).await,
        ToolVerb::Call { tool, arguments, server } => call(&tool, &arguments, &server.server, output).await,
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    description: String,
    provider: String,
    group: String,
    parameters: Value,
    reads_untrusted: bool,
    reads_private: bool,
    changes_state: bool,
}

impl Row {
    fn new(tool: Tool) -> Self {
        let definition = tool.definition.unwrap_or_default();
        Self {
            parameters: serde_json::from_str(&definition.parameters).unwrap_or(Value::Null),
            name: definition.name,
            description: definition.description,
            provider: tool.provider_id,
            group: tool.group_id,
            reads_untrusted: tool.reads_untrusted,
            reads_private: tool.reads_private,
            changes_state: tool.changes_state,
        }
    }

    /// `city, days?`: what must be given, and what may.
    fn arguments(&self) -> String {
        let required: Vec<&str> = self.parameters["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let names = self.parameters["properties"].as_object().into_iter().flatten().map(|(name, _)| name);
        let shown: Vec<String> =
            names.map(|name| if required.contains(&name.as_str()) { name.clone() } else { format!("{name}?") }).collect();
        if shown.is_empty() { "-".into() } else { shown.join(", ") }
    }

    /// What a policy minds.
    fn may(&self) -> String {
        let all = [("untrusted", self.reads_untrusted), ("private", self.reads_private), ("changes", self.changes_state)];
        let words: Vec<&str> = all.iter().filter_map(|(word, is)| is.then_some(*word)).collect();
        if words.is_empty() { "-".into() } else { words.join(",") }
    }
}

/// All tools, page by page.
pub(crate) async fn all(client: &Client) -> Result<Vec<Tool>> {
    let (mut tools, mut request) = (Vec::new(), ListToolsRequest::default());
    loop {
        let page = client.list_tools(&crate::caller::caller(), request.clone()).await?;
        tools.extend(page.tools);
        if page.next_page_token.is_empty() {
            return Ok(tools);
        }
        request.page_token = page.next_page_token;
    }
}

async fn list(server: &str, output: &Output) -> Result<()> {
    let tools = all(&Client::new(reach::connect(server)?)).await.map_err(|error| reach::explained(error, server))?;
    let rows: Vec<Row> = tools.into_iter().map(Row::new).collect();
    output.result(&rows, |rows| {
        if rows.is_empty() {
            return "this stack has no tools; name some under providers.tools, see docs/tools.md\n".into();
        }
        let first = |text: &str| text.lines().next().unwrap_or_default().chars().take(60).collect::<String>();
        let line = |row: &Row| [row.name.clone(), row.provider.clone(), row.arguments(), row.may(), first(&row.description)];
        table(["TOOL", "PROVIDER", "ARGUMENTS", "MAY", "DESCRIPTION"], rows.iter().map(line))
    })
}

async fn call(tool: &str, arguments: &[String], server: &str, output: &Output) -> Result<()> {
    let arguments = object(arguments)?;
    let request = InvokeToolRequest { name: tool.into(), arguments: arguments.to_string(), call_id: String::new() };
    let working = output.working(&format!("{tool} is at work"));
    let client = Client::new(reach::connect(server)?);
    let answer = client.invoke_tool(&crate::caller::caller(), request).await;
    let answer = answer.map_err(|error| reach::explained(error, server))?;
    drop(working);
    // A model is told so in words, as of any failure; who types it has named what is not there.
    let is_named = |there: &Tool| there.definition.as_ref().is_some_and(|definition| definition.name == tool);
    if answer.is_error && all(&client).await.is_ok_and(|tools| !tools.iter().any(is_named)) {
        return Err(Error::not_found(text(&answer).trim_end()));
    }
    output.result(&to_json("InvokeToolResponse", &answer)?, |_| text(&answer))?;
    if answer.is_error {
        return Err(Error::new(Code::Aborted, format!("{tool} failed; its words are above, `llama-stack tool list` shows its arguments")));
    }
    Ok(())
}

fn text(answer: &InvokeToolResponse) -> String {
    answer.parts.iter().map(|part| format!("{}\n", shown(part).trim_end())).collect()
}

fn shown(part: &Part) -> String {
    match &part.content {
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Image(image)) => format!("[an image, {}]", image.media_type),
        _ => String::new(),
    }
}

/// One JSON object, or `NAME=VALUE` each.
fn object(arguments: &[String]) -> Result<Value> {
    let wrong = |text: &str| Error::invalid("arguments", format!("{text:?} is neither a JSON object nor NAME=VALUE, as in city=Oslo"));
    if let [whole] = arguments
        && whole.trim_start().starts_with('{')
    {
        let object: Value = serde_json::from_str(whole).map_err(|error| wrong(whole).with_source(error))?;
        return Ok(object);
    }
    let mut object = Map::new();
    for argument in arguments {
        let (name, value) = argument.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| wrong(argument))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_or_pairs() {
        let pairs = ["city=Oslo", "days=3", "note=a=b"].map(str::to_owned);
        assert_eq!(object(&pairs).unwrap().to_string(), r#"{"city":"Oslo","days":3,"note":"a=b"}"#);
        assert_eq!(object(&[r#"{"a":1}"#.to_owned()]).unwrap().to_string(), r#"{"a":1}"#);
        assert_eq!(object(&[]).unwrap().to_string(), "{}");
        assert_eq!(object(&["Oslo".to_owned()]).unwrap_err().code(), Code::InvalidArgument);
    }
}
