//! `llama-stack version`: which program this is, and how it was built.

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
    build: Build,
}

/// What made the program.
#[derive(Serialize)]
struct Build {
    /// As compilers name it, for example `x86_64-unknown-linux-gnu`.
    triple: &'static str,
    /// `release`, or `dist` for what is given away; cargo calls both `release`.
    profile: &'static str,
    rustc: &'static str,
    opt_level: &'static str,
    debug_assertions: bool,
    /// Of the wire: the package of the contract.
    contract: &'static str,
    /// Of manifests.
    manifest: u32,
}

pub(crate) fn run(output: &Output) -> Result<()> {
    let build = Build {
        triple: env!("LLAMA_STACK_BUILD_TARGET"),
        profile: env!("LLAMA_STACK_BUILD_PROFILE"),
        rustc: env!("LLAMA_STACK_BUILD_RUSTC"),
        opt_level: env!("LLAMA_STACK_BUILD_OPT_LEVEL"),
        debug_assertions: cfg!(debug_assertions),
        contract: "llama_stack.v1",
        manifest: 1,
    };
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("LLAMA_STACK_COMMIT").unwrap_or("unknown"),
        features: registry::features(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        build,
    };
    output.result(&version, |version| {
        format!("llama-stack {} ({}, {}, with {})\n", version.version, version.commit, version.target, version.features.join(", "))
    })
}
