//! What a Response says again of its request, and what means nothing to a turn: kept with the turn's configuration.

use std::collections::HashMap;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{AgentConfig, Turn};
use serde_json::Value;

use super::request::{CreateResponse, FILE_SEARCH_RESULTS, WEB_SEARCH_SOURCES};

const PREFIX: &str = "openai.";
/// Of what is kept, in characters.
const MAX_CHARS: usize = 512;

/// All optional.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Echo {
    pub(crate) user: Option<String>,
    pub(crate) safety_identifier: Option<String>,
    pub(crate) service_tier: Option<String>,
    pub(crate) prompt_cache_key: Option<String>,
    pub(crate) verbosity: Option<String>,
    pub(crate) reasoning_summary: Option<String>,
    /// The response was made in a conversation, rather than after another response.
    pub(crate) conversation: bool,
    pub(crate) web_search: Option<Value>,
    /// Of functions.
    pub(crate) namespaces: Vec<String>,
    /// Searches of files show what they found.
    pub(crate) file_search_results: bool,
    /// Searches of the web show the pages that they found.
    pub(crate) web_search_sources: bool,
}

const NAMESPACES: &str = "namespaces";
const RESULTS: &str = "file_search_results";
const SOURCES: &str = "web_search_sources";

/// What a query says of `include`, which may be there many times.
pub(crate) fn asked(query: &[(String, String)]) -> Vec<String> {
    query.iter().filter(|(name, _)| name == "include" || name == "include[]").map(|(_, value)| value.clone()).collect()
}

/// Lets a turn's searches show what they found, where a client asks for that when it reads.
pub(crate) fn include(turn: &mut Turn, asked: &[String]) {
    let Some(config) = &mut turn.config else { return };
    for (name, key) in [(FILE_SEARCH_RESULTS, RESULTS), (WEB_SEARCH_SOURCES, SOURCES)] {
        if asked.iter().any(|asked| asked == name) {
            config.metadata.insert(format!("{PREFIX}{key}"), "true".into());
        }
    }
}

impl Echo {
    pub(crate) fn of(request: &CreateResponse, web_search: Option<Value>, namespaces: Vec<String>) -> Self {
        let includes = |name: &str| request.include.iter().flatten().any(|asked| asked == name);
        Self {
            user: request.user.clone(),
            safety_identifier: request.safety_identifier.clone(),
            service_tier: request.service_tier.clone(),
            prompt_cache_key: request.prompt_cache_key.clone(),
            verbosity: request.text.as_ref().and_then(|text| text.verbosity.clone()),
            reasoning_summary: request.reasoning.as_ref().and_then(|reasoning| reasoning.summary.clone()),
            conversation: request.conversation.as_ref().is_some_and(|conversation| !conversation.is_null()),
            web_search,
            namespaces,
            file_search_results: includes(FILE_SEARCH_RESULTS),
            web_search_sources: includes(WEB_SEARCH_SOURCES),
        }
    }

    /// # Errors
    /// `InvalidArgument` for a text that is too long to be kept.
    pub(crate) fn keep(self) -> Result<HashMap<String, String>> {
        let mut kept = HashMap::new();
        let texts = [
            ("user", self.user),
            ("safety_identifier", self.safety_identifier),
            ("service_tier", self.service_tier),
            ("prompt_cache_key", self.prompt_cache_key),
            ("text.verbosity", self.verbosity),
            ("reasoning.summary", self.reasoning_summary),
            ("conversation", self.conversation.then(|| "true".to_owned())),
            (RESULTS, self.file_search_results.then(|| "true".to_owned())),
            (SOURCES, self.web_search_sources.then(|| "true".to_owned())),
            // There is no space in a name.
            (NAMESPACES, Some(self.namespaces.join(" ")).filter(|names| !names.is_empty())),
        ];
        for (name, text) in texts {
            let Some(text) = text else { continue };
            if text.chars().count() > MAX_CHARS {
                return Err(Error::invalid(name, format!("{name} has at most {MAX_CHARS} characters")));
            }
            kept.insert(format!("{PREFIX}{name}"), text);
        }
        if let Some(tool) = self.web_search {
            let text = tool.to_string();
            if text.chars().count() > MAX_CHARS {
                return Err(Error::invalid("tools", format!("a web_search tool has at most {MAX_CHARS} characters")));
            }
            kept.insert(format!("{PREFIX}web_search"), text);
        }
        Ok(kept)
    }

    /// What was kept; nothing where the turn was not asked for through this API.
    pub(crate) fn kept(config: &AgentConfig) -> Self {
        let text = |name: &str| config.metadata.get(&format!("{PREFIX}{name}")).cloned();
        Self {
            user: text("user"),
            safety_identifier: text("safety_identifier"),
            service_tier: text("service_tier"),
            prompt_cache_key: text("prompt_cache_key"),
            verbosity: text("text.verbosity"),
            reasoning_summary: text("reasoning.summary"),
            conversation: text("conversation").is_some(),
            file_search_results: text(RESULTS).is_some(),
            web_search_sources: text(SOURCES).is_some(),
            namespaces: text(NAMESPACES).iter().flat_map(|names| names.split(' ')).map(str::to_owned).collect(),
            web_search: text("web_search").and_then(|tool| serde_json::from_str(&tool).ok()),
        }
    }
}
