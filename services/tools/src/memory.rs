//! `inline::memory`: what a model looks up in banks, and what it keeps of the person it works for.
//!
//! ```text
//! knowledge_search ── Memory::query over the banks of the call, else the manifest's
//! remember, recall, forget ── a bank of the caller's own, made at the first use
//! ```
//!
//! A call reaches what its caller may reach: whose bank it is decides `Memory`, by the context.

mod personal;
mod search;

use std::sync::Arc;

use llama_stack_core::{Code, Context, Deps, Error, Memory, Result, Tools};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, OnInterrupt, Tool, ToolDefinition,
};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

use crate::told;
use personal::Personal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Banks that `knowledge_search` searches where a call names none.
    banks: Vec<String>,
    /// Passages of an answer, 1 to 50. Default 5.
    top_k: u32,
    /// Tokens of an answer. Default 2,000; 0: no bound.
    max_tokens: u32,
    /// Which of the tools there are. Default: all.
    tools: Option<Vec<String>>,
    remember: Remember,
}

impl Default for Config {
    fn default() -> Self {
        Self { banks: Vec::new(), top_k: 5, max_tokens: 2_000, tools: None, remember: Remember::default() }
    }
}

/// How people's own banks are made.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Remember {
    /// The memory provider. Default: the manifest's first.
    provider_id: String,
    /// Default: the provider's.
    embedding_model: String,
    /// Search memories by their words alone: for stacks without an embedding model.
    keyword: bool,
    /// Days until a memory is deleted, where the call says nothing. Default 0: never.
    keep_days: u32,
}

const NAMES: [&str; 4] = ["knowledge_search", "remember", "recall", "forget"];

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    let memory = deps.memory.clone().ok_or_else(|| Error::failed_precondition("this provider needs memory, and the stack has none"))?;
    if !(1..=50).contains(&config.top_k) {
        return Err(Error::invalid("config.top_k", format!("top_k must be 1 to 50, not {}", config.top_k)));
    }
    if let Some((at, name)) = config.tools.iter().flatten().enumerate().find(|(_, name)| !NAMES.contains(&name.as_str())) {
        return Err(Error::invalid(format!("config.tools[{at}]"), format!("no tool {name:?}; there is: {}", NAMES.join(", "))));
    }
    let personal = Personal::new(memory.clone(), config.remember.clone());
    Ok(Arc::new(MemoryTools { memory, personal, config }))
}

struct MemoryTools {
    memory: Arc<dyn Memory>,
    personal: Personal,
    config: Config,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnowledgeSearch {
    /// What to look for: a question, or the words that the answer would have.
    query: String,
    /// The ids of the banks to search. Leave out to search the usual ones.
    #[serde(default)]
    banks: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RememberThis {
    /// What to remember, as a sentence that is understood without this conversation.
    text: String,
    /// After how many days to forget it. Leave out to keep it.
    #[serde(default)]
    days: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recall {
    /// What to recall.
    query: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forget {
    /// The id of the memory, as recall gave it.
    id: String,
}

fn definition<A: JsonSchema>(name: &str, description: &str) -> ToolDefinition {
    let mut schema = schemars::schema_for!(A);
    schema.remove("$schema");
    schema.remove("title");
    ToolDefinition::new(name, description, schema.as_value().to_string())
}

fn tools() -> Vec<Tool> {
    // All of them can be called again: searches change nothing, a memory's id is made of its text.
    let tool = |definition, changes_state, reads| Tool {
        definition: Some(definition),
        on_interrupt: OnInterrupt::Retry.into(),
        changes_state,
        reads_untrusted: reads,
        reads_private: reads,
        ..Tool::default()
    };
    let search = "Searches the documents that this assistant knows and returns the passages that fit best, with their sources.";
    let remember = "Keeps something about the user for later conversations: a preference, a fact, a decision. Not for secrets.";
    let recall = "Looks up what was remembered about the user in earlier conversations.";
    vec![
        tool(definition::<KnowledgeSearch>(NAMES[0], search), false, true),
        tool(definition::<RememberThis>(NAMES[1], remember), true, false),
        tool(definition::<Recall>(NAMES[2], recall), false, true),
        tool(definition::<Forget>(NAMES[3], "Deletes one memory for good."), true, false),
    ]
}

#[async_trait::async_trait]
impl Tools for MemoryTools {
    async fn list_tools(&self, _cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        let wanted = |tool: &Tool| self.config.tools.as_ref().is_none_or(|names| names.iter().any(|name| name == crate::name(tool)));
        crate::page(tools().into_iter().filter(wanted).collect(), &request)
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let there: Vec<&str> =
            NAMES.into_iter().filter(|name| self.config.tools.as_ref().is_none_or(|names| names.iter().any(|n| n == name))).collect();
        if !there.contains(&request.name.as_str()) {
            return Err(Error::not_found(format!("no tool {:?}; there is: {}", request.name, there.join(", "))));
        }
        match cx.within(self.call(cx, &request)).await {
            // What the model can do better: name another bank, ask otherwise.
            Err(error) if is_told(&error) => Ok(told(&request.name, error.message())),
            answer => answer,
        }
    }
}

impl MemoryTools {
    async fn call(&self, cx: &Context, request: &InvokeToolRequest) -> Result<InvokeToolResponse> {
        match request.name.as_str() {
            "knowledge_search" => {
                let KnowledgeSearch { query, banks } = arguments(request)?;
                let banks = if banks.is_empty() { self.config.banks.clone() } else { banks };
                if banks.is_empty() {
                    return Err(Error::invalid("banks", "name the banks to search: there are no usual ones"));
                }
                search::search(&*self.memory, cx, &request.name, query, banks, &self.config).await
            }
            "remember" => self.personal.remember(cx, arguments(request)?).await,
            "recall" => self.personal.recall(cx, arguments(request)?, &self.config).await,
            _ => self.personal.forget(cx, arguments(request)?).await,
        }
    }
}

fn arguments<A: DeserializeOwned>(request: &InvokeToolRequest) -> Result<A> {
    let text = if request.arguments.trim().is_empty() { "{}" } else { &request.arguments };
    serde_json::from_str(text)
        .map_err(|error| Error::invalid("arguments", format!("the arguments of {} cannot be read: {error}", request.name)))
}

fn is_told(error: &Error) -> bool {
    matches!(error.code(), Code::NotFound | Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition | Code::TooLarge)
}
