//! The files of each scaffold, as they are in `stack-cli/templates` and `proto`.

use crate::args::{Api, Language};

/// A file to write.
pub(super) struct File {
    /// Below the scaffold's folder.
    pub(super) path: &'static str,
    pub(super) text: String,
}

/// A file that is the same for every API.
macro_rules! template {
    ($target:literal, $source:literal) => {
        File { path: $target, text: include_str!(concat!("../../../templates/", $source)).to_owned() }
    };
}

/// A file that each API has its own of, with the API's name between `$before` and `$after`.
macro_rules! own {
    ($api:expr, $target:literal, $before:literal, $after:literal) => {
        File {
            path: $target,
            text: match $api {
                Api::Inference => include_str!(concat!("../../../templates/", $before, "inference", $after)),
                Api::Safety => include_str!(concat!("../../../templates/", $before, "safety", $after)),
                Api::Memory => include_str!(concat!("../../../templates/", $before, "memory", $after)),
                Api::Tools => include_str!(concat!("../../../templates/", $before, "tools", $after)),
            }
            .to_owned(),
        }
    };
}

macro_rules! contract {
    ($name:literal) => {
        File {
            path: concat!("proto/llama_stack/v1/", $name, ".proto"),
            text: include_str!(concat!("../../../../proto/llama_stack/v1/", $name, ".proto")).to_owned(),
        }
    };
}

/// The program, its test, what builds it, and its copy of the contract.
pub(super) fn files(api: Api, language: Language) -> Vec<File> {
    let mut files = match language {
        Language::Python => vec![
            template!("requirements.txt", "python/requirements.txt"),
            template!("stubs.py", "python/stubs.py"),
            own!(api, "provider.py", "python/", ".py"),
            own!(api, "test_provider.py", "python/test_", ".py"),
        ],
        Language::Rust => vec![
            template!("Cargo.toml", "rust/Cargo.toml.txt"),
            template!("build.rs", "rust/build.rs.txt"),
            template!("src/main.rs", "rust/main.rs.txt"),
            own!(api, "src/provider.rs", "rust/", ".rs"),
        ],
        Language::Typescript => vec![
            template!("package.json", "typescript/package.json"),
            template!("tsconfig.json", "typescript/tsconfig.json"),
            template!("contract.ts", "typescript/contract.ts"),
            own!(api, "provider.ts", "typescript/", ".ts"),
            own!(api, "provider.test.ts", "typescript/", ".test.ts"),
        ],
        Language::Go => vec![
            template!("go.mod", "go/go.mod.txt"),
            template!("generate.go", "go/generate.go.txt"),
            template!("main.go", "go/main.go.txt"),
            own!(api, "provider.go", "go/", ".go.txt"),
            own!(api, "provider_test.go", "go/", "_test.go.txt"),
        ],
    };
    files.push(contract!("common"));
    files.push(match api {
        Api::Inference => contract!("inference"),
        Api::Safety => contract!("safety"),
        Api::Memory => contract!("memory"),
        Api::Tools => contract!("tools"),
    });
    files
}
