//! Where models, state and logs live.

use std::path::PathBuf;

use llama_stack_core::{Error, Result};

/// The folder that was named, else `~/.llama-stack`.
pub(crate) fn home(named: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(home) = named.filter(|home| !home.as_os_str().is_empty()) {
        return Ok(home);
    }
    let user = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let user =
        user.ok_or_else(|| Error::failed_precondition("there is no home directory: name a folder with --home or LLAMA_STACK_HOME"))?;
    Ok(user.join(".llama-stack"))
}
