//! MCP's tools as ours.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use llama_stack_core::Error;
use llama_stack_proto::v1::{self, OnInterrupt, ToolDefinition};
use rmcp::model::Tool;
use sha2::{Digest, Sha256};

/// Longest name of a tool.
const MAX_NAME: usize = 64;
/// Digits of a hash that tell two names apart which would be one.
const DIGITS: usize = 8;

/// How a server's tools are called here.
pub(super) struct Naming {
    /// The provider's id, which is the group's.
    pub(super) provider: String,
    pub(super) prefix: String,
    pub(super) allowed: Option<Vec<String>>,
}

/// A server's tools.
pub(super) struct Listed {
    pub(super) tools: Vec<v1::Tool>,
    /// By the name that a tool has here, the server's.
    originals: HashMap<String, String>,
}

impl Listed {
    /// Names that fit stay as they are; of others, two that would become one are told apart by a hash.
    pub(super) fn new(naming: &Naming, tools: Vec<Tool>) -> Self {
        let mut seen = HashSet::new();
        let mut listed: Vec<(String, Tool)> = Vec::new();
        for tool in tools {
            let name = format!("{}{}", naming.prefix, tool.name);
            if tool.name.is_empty() || !seen.insert(tool.name.to_string()) {
                tracing::warn!(provider = naming.provider, name, "a tool without a name of its own is left out");
                continue;
            }
            listed.push((name, tool));
        }
        let mut taken: HashSet<String> = listed.iter().map(|(name, _)| name.clone()).filter(|name| fit_name(name) == *name).collect();
        let (mut tools, mut originals) = (Vec::new(), HashMap::new());
        for (full, tool) in listed {
            let mut name = fit_name(&full);
            if name != full && !taken.insert(name.clone()) {
                name = hashed(&name, &full);
                taken.insert(name.clone());
            }
            let is_allowed = |allowed: &Vec<String>| allowed.iter().any(|wanted| *wanted == name || *wanted == tool.name);
            if naming.allowed.as_ref().is_none_or(is_allowed) {
                originals.insert(name.clone(), tool.name.to_string());
                tools.push(converted(name, &naming.provider, &tool));
            }
        }
        Self { tools, originals }
    }

    pub(super) fn original(&self, name: &str) -> Option<&str> {
        self.originals.get(name).map(String::as_str)
    }

    /// `NotFound`, with what there is.
    pub(super) fn unknown(&self, name: &str) -> Error {
        let there: Vec<&str> = self.tools.iter().map(crate::name).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        Error::not_found(format!("no tool {name:?}; there is: {there}"))
    }
}

/// The name with what a tool's name may not hold replaced: 1 to 64 of `[a-zA-Z0-9_-]`. A name that fits stays as it is.
pub fn fit_name(name: &str) -> String {
    let fitting = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let fitted: String = name.chars().map(fitting).take(MAX_NAME).collect();
    if fitted.is_empty() { "_".to_owned() } else { fitted }
}

fn hashed(name: &str, full: &str) -> String {
    let hash = hex::encode(Sha256::digest(full.as_bytes()));
    let kept: String = name.chars().take(MAX_NAME - DIGITS - 1).collect();
    format!("{kept}_{}", &hash[..DIGITS])
}

/// The annotations are hints of the server about itself: where one is missing, the cautious meaning holds, which is also
/// what MCP says. A policy that must not rely on the server's word does not read them.
fn converted(name: String, provider: &str, tool: &Tool) -> v1::Tool {
    let hints = tool.annotations.clone().unwrap_or_default();
    let reads_only = hints.read_only_hint == Some(true);
    let may_repeat = reads_only || hints.idempotent_hint == Some(true);
    let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
    v1::Tool {
        definition: Some(ToolDefinition::new(name, description, schema(&tool.input_schema))),
        group_id: provider.to_owned(),
        on_interrupt: if may_repeat { OnInterrupt::Retry } else { OnInterrupt::Fail }.into(),
        reads_untrusted: hints.open_world_hint != Some(false),
        changes_state: !reads_only,
        ..v1::Tool::default()
    }
}

fn schema(schema: &Arc<rmcp::model::JsonObject>) -> String {
    serde_json::to_string(&**schema).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rmcp::model::{JsonObject, ToolAnnotations};

    use super::*;

    fn listed(prefix: &str, allowed: Option<&[&str]>, names: &[&str]) -> Listed {
        let allowed = allowed.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let naming = Naming { provider: "p".into(), prefix: prefix.into(), allowed };
        Listed::new(&naming, names.iter().map(|name| Tool::new((*name).to_owned(), "", JsonObject::new())).collect())
    }

    fn names(listed: &Listed) -> Vec<&str> {
        listed.tools.iter().map(crate::name).collect()
    }

    #[test]
    fn names_are_made_to_fit_and_stay_apart() {
        let long = "x".repeat(80);
        let listed = listed("", None, &["a.b", "a_b", "a/b", "wetter_für", &long, ""]);
        let names = names(&listed);
        assert_eq!((names[1], names[3], names[4]), ("a_b", "wetter_f_r", &long[..64]));
        assert_eq!(names.len(), 5);
        assert!(names[0].starts_with("a_b_") && names[2].starts_with("a_b_") && names[0] != names[2], "{names:?}");
        assert!(names.iter().all(|name| name.len() <= 64));
        assert_eq!(listed.original(names[2]), Some("a/b"));
    }

    #[test]
    fn a_name_does_not_depend_on_the_order_of_the_list() {
        let (one, other) = (listed("", None, &["a_b", "a.b"]), listed("", None, &["a.b", "a_b"]));
        assert_eq!(names(&one)[1], names(&other)[0]);
    }

    #[test]
    fn a_tool_is_allowed_by_either_of_its_names() {
        let listed = listed("gh-", Some(&["a.b", "gh-c"]), &["a.b", "c", "d"]);
        assert_eq!(names(&listed), ["gh-a_b", "gh-c"]);
        assert_eq!(listed.original("gh-c"), Some("c"));
        assert!(listed.unknown("gh-d").message().contains("gh-a_b, gh-c"));
    }

    #[test]
    fn what_a_server_does_not_say_of_a_tool_is_taken_for_the_worst() {
        let tool = |hints: Option<ToolAnnotations>| {
            let mut tool = Tool::new("t", "", JsonObject::new());
            tool.annotations = hints;
            let tool = converted("t".into(), "p", &tool);
            (tool.changes_state, tool.reads_untrusted, tool.on_interrupt())
        };
        assert_eq!(tool(None), (true, true, OnInterrupt::Fail));
        assert_eq!(tool(Some(ToolAnnotations::new().idempotent(true))), (true, true, OnInterrupt::Retry));
        assert_eq!(tool(Some(ToolAnnotations::new().read_only(true).open_world(false))), (false, false, OnInterrupt::Retry));
    }
}
