use llama_stack_core::Result;
use serde::Serialize;

use crate::{output::Output, registry};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// Set by release builds.
    commit: &'static str,
    features: Vec<&'static str>,
    target: String,
}

pub(crate) fn run(output: &Output) -> Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("LLAMA_STACK_COMMIT").unwrap_or("unknown"),
        features: registry::features(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    };
    output.result(&version, |version| {
        format!("llama-stack {} ({}, {}, with {})\n", version.version, version.commit, version.target, version.features.join(", "))
    })
}
