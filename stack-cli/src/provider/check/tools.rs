//! What is promised of tools.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use llama_stack_core::{Code, Error, Result, Tools, grpc::Remote};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, ListToolsRequest, Tool, part::Content, tools_client::ToolsClient};
use llama_stack_server::check_definition;
use serde_json::Value;
use tonic::transport::Channel;

use super::{Peer, report::Report, told};

type Client = Remote<ToolsClient<Channel>>;

/// More pages than any provider has: a list that goes on past this never ends.
const PAGES: usize = 1_000;

pub(super) async fn check(peer: &Peer, report: &mut Report) {
    let client = Client::new(peer.channel.clone());
    let Some(tools) = lists(&client, peer, report).await else { return };
    definitions(&tools, report);
    unknown(&client, peer, report).await;
    wrong_arguments(&client, peer, &tools, report).await;
    abandoned(&client, peer, &tools, report).await;
    concurrent(&client, peer, &tools, report).await;
}

async fn all(client: &Client, peer: &Peer, page_size: u32) -> Result<Vec<Tool>> {
    let (mut tools, mut request) = (Vec::new(), ListToolsRequest { page_size, ..ListToolsRequest::default() });
    for _ in 0..PAGES {
        let page = client.list_tools(&peer.cx(), request.clone()).await?;
        tools.extend(page.tools);
        if page.next_page_token.is_empty() {
            return Ok(tools);
        }
        request.page_token = page.next_page_token;
    }
    Err(Error::internal(format!("the list goes on after {PAGES} pages")))
}

async fn lists(client: &Client, peer: &Peer, report: &mut Report) -> Option<Vec<Tool>> {
    let promise = "ListTools lists its tools";
    let tools = match all(client, peer, 0).await {
        Ok(tools) if tools.is_empty() => {
            report.broken(promise, "the list is empty: agents cannot call anything");
            return None;
        }
        Ok(tools) => tools,
        Err(error) => {
            report.broken(promise, told(&error));
            return None;
        }
    };
    report.kept(promise);
    // A provider may give all at once, whatever was asked for; but it must not give a tool twice, or none.
    let promise = "pages of the list are together the list";
    match all(client, peer, 1).await {
        Ok(paged) => report.judge(promise, (paged != tools).then(|| format!("{} tools by pages, {} at once", paged.len(), tools.len()))),
        Err(error) => report.broken(promise, told(&error)),
    }
    Some(tools)
}

fn definitions(tools: &[Tool], report: &mut Report) {
    let name = |tool: &Tool| tool.definition.as_ref().map(|definition| definition.name.clone()).unwrap_or_default();
    let refused = |tool: &Tool, field: &str| {
        let told = check_definition(&tool.definition.clone().unwrap_or_default()).err().filter(|error| error.field() == Some(field));
        told.map(|error| error.message().to_owned())
    };
    let mut seen = HashSet::new();
    let twice = tools.iter().map(name).find(|name| !seen.insert(name.clone())).map(|name| format!("{name:?} is listed twice"));
    let wrong = tools.iter().find_map(|tool| refused(tool, "name")).or(twice);
    report.judge("every tool has a name that models can call, and its own", wrong);
    let bad = |tool: &Tool| {
        let parameters = tool.definition.as_ref().map_or("", |definition| definition.parameters.as_str());
        let untyped = || {
            let schema = serde_json::from_str::<Value>(parameters).unwrap_or_default();
            (!parameters.is_empty() && schema["type"] != "object").then(|| format!("{:?}: its type is not \"object\"", name(tool)))
        };
        refused(tool, "parameters").or_else(untyped)
    };
    report.judge("every tool says its arguments as a JSON Schema of an object", tools.iter().find_map(bad));
    let mute = tools.iter().find(|tool| tool.definition.as_ref().is_none_or(|definition| definition.description.trim().is_empty()));
    let wrong = mute.map(|tool| format!("{:?} has no description: a model does not know when to call it", name(tool)));
    report.judge("every tool says what it is for", wrong);
}

async fn invoke(client: &Client, peer: &Peer, name: &str, arguments: &str) -> Result<InvokeToolResponse> {
    let request = InvokeToolRequest { name: name.into(), arguments: arguments.into(), call_id: "call_check".into() };
    client.invoke_tool(&peer.cx(), request).await
}

async fn unknown(client: &Client, peer: &Peer, report: &mut Report) {
    let promise = "a tool that is not there is told: an answer with is_error, or NOT_FOUND";
    match invoke(client, peer, "no_such_tool_of_anyone", "{}").await {
        Ok(answer) if answer.is_error => report.kept(promise),
        Ok(_) => report.broken(promise, "answered as if there were one"),
        Err(error) if matches!(error.code(), Code::NotFound | Code::InvalidArgument) => report.kept(promise),
        Err(error) => report.broken(promise, told(&error)),
    }
}

/// Arguments that no tool can take: nothing runs that should not.
async fn wrong_arguments(client: &Client, peer: &Peer, tools: &[Tool], report: &mut Report) {
    let promise = "arguments that are no JSON object are told: an answer with is_error, or INVALID_ARGUMENT";
    let (mut wrong, mut silent) = (None, None);
    for tool in tools {
        let definition = tool.definition.clone().unwrap_or_default();
        let schema: Value = serde_json::from_str(&definition.parameters).unwrap_or_default();
        // A tool without arguments may pass over what it is given.
        let required = schema["required"].as_array().is_some_and(|required| !required.is_empty());
        for arguments in ["{", "[]", "{}"].into_iter().filter(|_| required) {
            match invoke(client, peer, &definition.name, arguments).await {
                Ok(answer) if answer.is_error => {
                    let words = answer.parts.iter().any(|part| matches!(&part.content, Some(Content::Text(text)) if !text.is_empty()));
                    if !words {
                        silent = Some(format!("{} says nothing about {arguments}", definition.name));
                    }
                }
                Ok(_) => wrong = Some(format!("{} takes {arguments}, though its schema requires arguments", definition.name)),
                Err(error) if error.code() == Code::InvalidArgument => {}
                Err(error) => wrong = Some(format!("{} answers {arguments} with {}", definition.name, told(&error))),
            }
        }
    }
    report.judge(promise, wrong);
    report.judge("an answer with is_error says what is wrong, so that a model can do better", silent);
}

/// A caller that goes away must not take the provider with it.
async fn abandoned(client: &Client, peer: &Peer, tools: &[Tool], report: &mut Report) {
    let name = tools.first().and_then(|tool| tool.definition.clone()).unwrap_or_default().name;
    for _ in 0..8 {
        // Dropped under way: the call is cancelled on the wire.
        let _ = tokio::time::timeout(Duration::from_micros(500), invoke(client, peer, &name, "{")).await;
    }
    let after = all(client, peer, 0).await;
    report.judge("calls that are cancelled leave it able to answer", after.err().map(|error| told(&error)));
}

async fn concurrent(client: &Client, peer: &Peer, tools: &[Tool], report: &mut Report) {
    let answers = join_all((0..16).map(|_| all(client, peer, 0))).await;
    let wrong = answers.into_iter().find_map(|answer| match answer {
        Ok(answer) if answer == tools => None,
        Ok(answer) => Some(format!("one of 16 lists has {} tools, not {}, or others", answer.len(), tools.len())),
        Err(error) => Some(told(&error)),
    });
    report.judge("sixteen callers at once get the same answer", wrong);
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::ToolDefinition;

    use super::*;

    /// Which promises these tools break, as (name, parameters).
    fn broken(tools: &[(&str, &str)]) -> usize {
        let tool = |(name, schema): &(&str, &str)| {
            let definition = Some(ToolDefinition::new(*name, "what it is for", *schema));
            Tool { definition, ..Tool::default() }
        };
        let mut report = Report::new("http://far");
        definitions(&tools.iter().map(tool).collect::<Vec<_>>(), &mut report);
        report.broken
    }

    /// What a stack would not start with.
    #[test]
    fn a_definition_that_no_stack_takes_is_told() {
        assert_eq!(broken(&[("a", ""), ("b", r#"{"type":"object"}"#)]), 0);
        let inner = r#"{"type":"object","properties":{"x":{"type":"nonsense"}}}"#;
        for wrong in [("a b", ""), ("a", "{"), ("a", r#"{"type":"array"}"#), ("a", "{}"), ("a", inner)] {
            assert_eq!(broken(&[wrong]), 1, "{wrong:?}");
        }
        assert_eq!(broken(&[("a", ""), ("a", "")]), 1);
    }
}
