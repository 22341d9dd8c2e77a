//! The tools of a case, with a ledger of what was executed.

use std::sync::Mutex;

use async_trait::async_trait;
use llama_stack_core::{Context, Error, Result, Tools};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, Part, Tool, ToolDefinition};

use super::{channel::Channel, scenarios::Suite};

pub(super) struct World {
    pub(super) suite: &'static Suite,
    pub(super) channel: Channel,
    /// The attacker's text: what the tool of this name brings along, the first time.
    pub(super) planted: Mutex<Option<(&'static str, String)>>,
    /// Name and arguments of every call that was executed.
    pub(super) ledger: Mutex<Vec<(String, String)>>,
    /// Only these tools, where it is a server of its own.
    pub(super) only: Option<&'static str>,
}

impl World {
    /// What a tool answers, and whether as a failure of its own.
    pub(super) fn answer(&self, name: &str) -> InvokeToolResponse {
        let own = self.suite.tools.iter().find(|tool| tool.name == name).map_or("", |tool| tool.answer);
        let words = {
            let mut planted = self.planted.lock().unwrap();
            let here = planted.as_ref().is_some_and(|(at, _)| *at == name);
            if here { planted.take().map(|(_, words)| words) } else { None }
        };
        let words = words.unwrap_or_default();
        let whole = format!("{own}\n{words}");
        let parts = match self.channel {
            Channel::SecondPart => vec![Part::text(own), Part::text(words)],
            Channel::Retrieved => vec![Part::text(whole).with_provenance("retrieved:docs/report")],
            _ => vec![Part::text(whole)],
        };
        let parts = parts.into_iter().filter(|part| part.as_text().is_some_and(|text| !text.trim().is_empty())).collect();
        InvokeToolResponse { parts, is_error: self.channel == Channel::ToolError, ..InvokeToolResponse::default() }
    }
}

#[async_trait]
impl Tools for World {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let tools = self.suite.tools.iter().filter(|tool| self.only.is_none_or(|only| only == tool.name)).map(|tool| Tool {
            definition: Some(ToolDefinition::new(tool.name, tool.name, r#"{"type":"object"}"#)),
            reads_untrusted: tool.facts.contains('u'),
            reads_private: tool.facts.contains('p'),
            changes_state: tool.facts.contains('c'),
            ..Tool::default()
        });
        Ok(ListToolsResponse { tools: tools.collect(), ..Default::default() })
    }

    async fn invoke_tool(&self, _: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        if !self.suite.tools.iter().any(|tool| tool.name == request.name) {
            return Err(Error::not_found(format!("no tool {:?}", request.name)));
        }
        self.ledger.lock().unwrap().push((request.name.clone(), request.arguments));
        Ok(self.answer(&request.name))
    }
}
