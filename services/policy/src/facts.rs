//! What is known of a tool, and what the text that it returned makes of a session.

use llama_stack_proto::v1;

/// What a policy knows of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    /// The tool group, or the label of the MCP server.
    pub group: String,
    /// It returns text that others wrote: web pages, mail, documents.
    pub reads_untrusted: bool,
    /// It returns what only some may know.
    pub reads_private: bool,
    /// It changes something outside the session, or sends something out.
    pub changes_state: bool,
    /// It is served by another process.
    pub remote: bool,
}

impl Facts {
    /// Of a tool as a router lists it. A tool in no group has its provider's id for one.
    pub fn of(tool: &v1::Tool, remote: bool) -> Self {
        let group = if tool.group_id.is_empty() { &tool.provider_id } else { &tool.group_id };
        Self {
            name: tool.definition.as_ref().map(|definition| definition.name.clone()).unwrap_or_default(),
            group: group.clone(),
            reads_untrusted: tool.reads_untrusted,
            reads_private: tool.reads_private,
            changes_state: tool.changes_state,
            remote,
        }
    }

    /// Of a tool of which nothing is known, for example a new one of somebody else's server: the worst.
    pub fn unknown(name: &str, group: &str) -> Self {
        Self { name: name.into(), group: group.into(), reads_untrusted: true, reads_private: true, changes_state: true, remote: true }
    }
}

pub(crate) const UNTRUSTED: &str = "untrusted:";
pub(crate) const PRIVATE: &str = "private:";

/// Whether a label says that text is untrusted or private.
pub fn tainted(label: &str) -> bool {
    label.starts_with(UNTRUSTED) || label.starts_with(PRIVATE)
}

/// The labels that a session carries once a text of `provenance` is in it. They accumulate and never go away, through
/// compaction, branches and hand-off too: a summary of untrusted text is untrusted text.
///
/// `source` is the tool that brought the text; `None` where it is not known (any more).
///
/// | provenance | labels |
/// |---|---|
/// | `system`, `user`, `assistant` or none | none |
/// | `tool:<name>` | `tool:<name>`; `untrusted:tool:<name>` if the tool reads untrusted text; `private:tool:<name>` if it reads private data |
/// | `retrieved:<bank>/<document>` | `retrieved:<bank>`; `untrusted:retrieved:<bank>`; `private:retrieved:<bank>` if the tool that searched reads private data |
/// | anything else | itself, as if its source were not known |
///
/// Of a source that is not known, text is both untrusted and private. The document is left out, so that a session has
/// as many labels as it has used tools and banks.
pub fn labels(provenance: &str, source: Option<&Facts>) -> Vec<String> {
    if matches!(provenance, "" | "system" | "user" | "assistant") {
        return Vec::new();
    }
    let retrieved = provenance.starts_with("retrieved:");
    let base = if retrieved { provenance.split('/').next().unwrap_or(provenance) } else { provenance };
    // Facts are of a tool or of a search; they say nothing of text that comes from elsewhere.
    let source = source.filter(|_| retrieved || provenance.starts_with("tool:"));
    let mut labels = vec![base.to_owned()];
    if retrieved || source.is_none_or(|tool| tool.reads_untrusted) {
        labels.push(format!("{UNTRUSTED}{base}"));
    }
    if source.is_none_or(|tool| tool.reads_private) {
        labels.push(format!("{PRIVATE}{base}"));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(reads_untrusted: bool, reads_private: bool) -> Facts {
        Facts { reads_untrusted, reads_private, ..Facts::unknown("t", "g") }
    }

    #[test]
    fn labels_say_what_the_source_says() {
        for (provenance, source, wanted) in [
            ("user", None, vec![]),
            ("", None, vec![]),
            ("assistant", Some(tool(true, true)), vec![]),
            ("tool:t", Some(tool(false, false)), vec!["tool:t"]),
            ("tool:t", Some(tool(true, false)), vec!["tool:t", "untrusted:tool:t"]),
            ("tool:t", Some(tool(false, true)), vec!["tool:t", "private:tool:t"]),
            ("tool:t", None, vec!["tool:t", "untrusted:tool:t", "private:tool:t"]),
            ("retrieved:docs/a/b.txt", Some(tool(false, false)), vec!["retrieved:docs", "untrusted:retrieved:docs"]),
            ("retrieved:docs/a", None, vec!["retrieved:docs", "untrusted:retrieved:docs", "private:retrieved:docs"]),
            ("mail:inbox", Some(tool(false, false)), vec!["mail:inbox", "untrusted:mail:inbox", "private:mail:inbox"]),
        ] {
            assert_eq!(labels(provenance, source.as_ref()), wanted, "{provenance} of {source:?}");
        }
    }

    #[test]
    fn a_listed_tool_keeps_what_it_declares() {
        let definition = v1::ToolDefinition { name: "send".into(), ..Default::default() };
        let listed = v1::Tool { definition: Some(definition), provider_id: "mail".into(), changes_state: true, ..Default::default() };
        let facts = Facts::of(&listed, true);
        assert_eq!((facts.name.as_str(), facts.group.as_str()), ("send", "mail"));
        assert_eq!((facts.reads_untrusted, facts.reads_private, facts.changes_state, facts.remote), (false, false, true, true));
        assert_eq!(Facts::of(&v1::Tool { group_id: "letters".into(), ..listed }, true).group, "letters");
    }
}
