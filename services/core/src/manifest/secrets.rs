use std::path::PathBuf;

use serde::Deserialize;

use super::Lines;
use crate::{Error, Result, context::Secret};

/// What the stack seals with that it keeps of others' secrets, such as the tokens of registered tool groups. A key is 32 random
/// bytes as 64 hexadecimal digits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// A file whose first line is the key. Default: the variable `LLAMA_STACK_SECRET_KEY`; where that is not set either, no secret is
    /// kept.
    pub key_file: Option<PathBuf>,
    /// Files of earlier keys, which still open what was sealed with them; at the start all of it is sealed anew.
    pub old_key_files: Vec<PathBuf>,
}

/// Where the key is, if no file is named.
const VARIABLE: &str = "LLAMA_STACK_SECRET_KEY";
/// Earlier keys, with commas between them.
const OLD_VARIABLE: &str = "LLAMA_STACK_OLD_SECRET_KEYS";

impl Secrets {
    /// The key to seal with, and then those that still open. Empty: there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that cannot be read, with the manifest's line.
    pub fn keys(&self, lines: &Lines) -> Result<Vec<Secret>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let file = |path: &PathBuf, field: &str| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| lines.error(field, &format!("{} cannot be read: {error}", path.display())))?;
            Ok::<_, Error>(Secret::new(text.lines().next().unwrap_or_default().trim()))
        };
        let mut keys = match &self.key_file {
            Some(path) => vec![file(path, "secrets.key_file")?],
            None => variable(VARIABLE).map(Secret::new).into_iter().collect(),
        };
        if keys.is_empty() && !self.old_key_files.is_empty() {
            return Err(lines.error("secrets.old_key_files", "are named, and no key_file: there is no key to seal with"));
        }
        for (at, path) in self.old_key_files.iter().enumerate() {
            keys.push(file(path, &format!("secrets.old_key_files[{at}]"))?);
        }
        let old = variable(OLD_VARIABLE).unwrap_or_default();
        if keys.is_empty() && !old.is_empty() {
            let message = format!("{OLD_VARIABLE} is set, and {VARIABLE} is not: there is no key to seal with");
            return Err(lines.error("secrets", &message));
        }
        keys.extend(old.split(',').map(str::trim).filter(|key| !key.is_empty()).map(Secret::new));
        Ok(keys)
    }
}
