//! The files of each scaffold, as they are in `stack-cli/templates` and `proto`.

use crate::args::{Api, Language};

/// A file to write.
pub(super) struct File {
    /// Below the scaffold's folder.
    pub(super) path: &'static str,
    pub(super) text: String,
}

macro_rules! template {
    ($target:literal, $source:literal) => {
        File { path: $target, text: include_str!(concat!("../../../templates/", $source)).to_owned() }
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

/// `None` where there is no scaffold of that API in that language.
pub(super) fn files(api: Api, language: Language) -> Option<Vec<File>> {
    let mut files = match (language, api) {
        (Language::Python, api) => python(api),
        (Language::Rust, Api::Tools) => vec![
            template!("Cargo.toml", "rust/Cargo.toml.txt"),
            template!("build.rs", "rust/build.rs.txt"),
            template!("src/main.rs", "rust/main.rs.txt"),
            template!("src/provider.rs", "rust/provider.rs"),
        ],
        (Language::Typescript, Api::Tools) => vec![
            template!("package.json", "typescript/package.json"),
            template!("tsconfig.json", "typescript/tsconfig.json"),
            template!("provider.ts", "typescript/provider.ts"),
            template!("provider.test.ts", "typescript/provider.test.ts"),
        ],
        (Language::Go, Api::Tools) => vec![
            template!("go.mod", "go/go.mod.txt"),
            template!("generate.go", "go/generate.go.txt"),
            template!("main.go", "go/main.go.txt"),
            template!("provider.go", "go/provider.go.txt"),
            template!("provider_test.go", "go/provider_test.go.txt"),
        ],
        _ => return None,
    };
    files.push(contract!("common"));
    files.push(match api {
        Api::Inference => contract!("inference"),
        Api::Safety => contract!("safety"),
        Api::Memory => contract!("memory"),
        Api::Tools => contract!("tools"),
    });
    Some(files)
}

fn python(api: Api) -> Vec<File> {
    let mut files = vec![template!("requirements.txt", "python/requirements.txt"), template!("stubs.py", "python/stubs.py")];
    files.extend(match api {
        Api::Tools => [template!("provider.py", "python/tools.py"), template!("test_provider.py", "python/test_tools.py")],
        Api::Inference => [template!("provider.py", "python/inference.py"), template!("test_provider.py", "python/test_inference.py")],
        Api::Safety => [template!("provider.py", "python/safety.py"), template!("test_provider.py", "python/test_safety.py")],
        Api::Memory => [template!("provider.py", "python/memory.py"), template!("test_provider.py", "python/test_memory.py")],
    });
    files
}
