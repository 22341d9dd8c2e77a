//! The policies that a manifest names.

use std::path::Path;

use llama_stack_core::{Error, Manifest, Result, manifest::DefaultPolicies};

use crate::{CedarPolicy, Source};

impl CedarPolicy {
    /// Reads the files and checks everything; blocks while it does.
    ///
    /// # Errors
    /// As [`CedarPolicy::new`]; and `InvalidArgument` with the manifest's line for a file that cannot be read.
    pub fn from_manifest(manifest: &Manifest) -> Result<Self> {
        let (policy, lines) = (&manifest.policy, &manifest.lines);
        let mut sources: Vec<_> = policy.defaults().map(built_in).into_iter().collect();
        let folder = Path::new(lines.file()).parent().unwrap_or(Path::new(""));
        for (index, file) in policy.files.iter().enumerate() {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| lines.error(&format!("policy.files[{index}]"), &format!("{}: cannot be read: {error}", path.display())))?;
            sources.push(Source::new(path.display().to_string(), text));
        }
        if let Some(text) = &policy.text {
            sources.push(Source::new(format!("{}: policy.text", lines.place("policy.text")), text.clone()));
        }
        Self::new(&sources).map_err(|error| Error::invalid("policy", error.message()))
    }

    /// The Rule of Two: what holds where a manifest names nothing else.
    pub fn rule_of_two() -> Result<Self> {
        Self::new(&[built_in(DefaultPolicies::RuleOfTwo)])
    }
}

fn built_in(set: DefaultPolicies) -> Source {
    match set {
        DefaultPolicies::RuleOfTwo => Source::new("rule_of_two.cedar", include_str!("rule_of_two.cedar")),
        DefaultPolicies::AllowAll => Source::new("allow_all.cedar", include_str!("allow_all.cedar")),
    }
}
