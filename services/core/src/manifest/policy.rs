//! `policy:` which calls of tools may run, and which want a person's approval first.

use std::path::PathBuf;

use serde::Deserialize;

use super::Lines;
use crate::Result;

/// Where the policies are written. All that is named counts; where nothing is, the Rule of Two does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Files of Cedar policies. A relative path begins at the manifest's folder.
    pub files: Vec<PathBuf>,
    /// Cedar policies, written here.
    pub text: Option<String>,
    /// A set that comes with the stack, in addition to `files` and `text`.
    pub default: Option<DefaultPolicies>,
}

/// The policy sets that come with the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultPolicies {
    /// A call wants approval where untrusted text, private data and a change of the world would come together.
    RuleOfTwo,
    /// Every call runs.
    AllowAll,
}

impl Policy {
    /// The set of the stack's own that is in force, if any: the one named, or the Rule of Two where there is nothing else.
    pub fn defaults(&self) -> Option<DefaultPolicies> {
        let own = !self.files.is_empty() || self.text.is_some();
        self.default.or((!own).then_some(DefaultPolicies::RuleOfTwo))
    }

    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        for (index, file) in self.files.iter().enumerate() {
            let path = format!("policy.files[{index}]");
            if file.as_os_str().is_empty() {
                return Err(lines.error(&path, "is empty; must be the path of a file of Cedar policies"));
            }
            if self.files[..index].contains(file) {
                return Err(lines.error(&path, &format!("{} is named twice", file.display())));
            }
        }
        // Left empty it would read as "none of mine", and deny every call.
        if self.text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(lines.error("policy.text", "is empty; leave it out, or write at least one policy"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn policy(text: &str) -> Result<Policy> {
        Manifest::parse_with(&format!("version: 1\nname: t\n{text}"), "m.yaml", &|_| None).map(|manifest| manifest.policy)
    }

    fn message(text: &str) -> String {
        policy(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn the_rule_of_two_holds_where_nothing_else_is_named() {
        let defaults = |text: &str| policy(text).unwrap().defaults();
        assert_eq!(defaults(""), Some(DefaultPolicies::RuleOfTwo));
        assert_eq!(defaults("policy: { default: allow_all }\n"), Some(DefaultPolicies::AllowAll));
        assert_eq!(defaults("policy: { files: [a.cedar] }\n"), None);
        assert_eq!(defaults("policy: { text: \"permit(principal, action, resource);\" }\n"), None);
        assert_eq!(defaults("policy: { files: [a.cedar], default: rule_of_two }\n"), Some(DefaultPolicies::RuleOfTwo));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert!(message("policy:\n  file: a.cedar\n").starts_with("m.yaml:4: policy.file: unknown field `file`"));
        assert!(message("policy:\n  default: rule_of_three\n").starts_with("m.yaml:4: policy.default: unknown variant"));
        assert_eq!(message("policy:\n  files:\n    - a\n    - a\n"), "m.yaml:6: policy.files[1]: a is named twice");
        assert!(message("policy:\n  files: ['']\n").starts_with("m.yaml:4: policy.files[0]: is empty"));
        assert!(message("policy:\n  text: ' '\n").starts_with("m.yaml:4: policy.text: is empty"));
    }
}
