//! `llama-stack provider new`: the beginnings of a provider of one's own, which run as they are.
//!
//! A folder of few files: the program, its copy of the contract, a test, the packages that it wants, and a manifest that names it.

mod templates;

use std::path::{Path, PathBuf};

use llama_stack_core::{Code, Error, Result};
use serde_json::json;

use crate::{
    args::{Api, Language, NewArgs},
    output::Output,
};
use templates::File;

/// Where a new provider listens.
const ADDRESS: &str = "127.0.0.1:9000";

pub(crate) fn run(args: NewArgs, output: &Output) -> Result<()> {
    let name = args.name;
    if !(1..=48).contains(&name.len())
        || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
    {
        let sentence = format!("{name:?} is no name; it must be 1 to 48 of a-z, 0-9 and -, a letter first, as in weather");
        return Err(Error::invalid("name", sentence));
    }
    let (api, language) = (args.api, args.language);
    let folder = args.folder.unwrap_or_else(|| PathBuf::from(&name));
    if folder.exists() {
        let sentence = format!("{} is there already; name another folder with --folder", folder.display());
        return Err(Error::new(Code::AlreadyExists, sentence));
    }
    let tool = name.replace('-', "_");
    let (own, service) = (api.name(), api.service());
    let marks = [("__NAME__", name.as_str()), ("__TOOL__", &tool), ("__ADDRESS__", ADDRESS), ("__API__", own), ("__SERVICE__", service)];
    let filled = |text: &str| marks.iter().fold(text.to_owned(), |text, (mark, with)| text.replace(mark, with));
    let own = [File { path: "manifest.yaml", text: manifest(api) }, File { path: "README.md", text: readme(api, language) }];
    let mut written = Vec::new();
    for file in templates::files(api, language).into_iter().chain(own) {
        write(&folder.join(file.path), &filled(&file.text))?;
        written.push(file.path);
    }
    let shown = folder.display();
    output.result(&json!({ "folder": folder, "files": written }), |_| {
        format!(
            "{shown} is written; begin with {shown}/README.md\n  manifest:  {}\n  check:     llama-stack provider check http://{ADDRESS}\n",
            filled(line(api)).trim()
        )
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, text));
    made.map_err(|error| Error::failed_precondition(format!("{} cannot be written: {error}", path.display())).with_source(error))
}

/// The provider in a manifest.
fn line(_api: Api) -> &'static str {
    "- { id: __NAME__, type: remote::grpc, config: { url: \"http://__ADDRESS__\" } }"
}

fn manifest(api: Api) -> String {
    let name = api.name();
    format!(
        "# A stack that uses the provider. Start both, then: llama-stack run manifest.yaml\nversion: 1\nname: __NAME__-stack\n\nserver:\n  \
         listen: \"127.0.0.1:8321\"\n\nproviders:\n  {name}:\n    {}\n",
        line(api)
    )
}

fn readme(api: Api, language: Language) -> String {
    let (install, start, test) = match language {
        Language::Python => ("pip install -r requirements.txt", "python provider.py", "python -m unittest"),
        Language::Rust => ("", "cargo run", "cargo test"),
        Language::Typescript => ("npm install", "npm start", "npm test"),
        Language::Go => ("go generate ./... && go mod tidy", "go run .", "go test ./..."),
    };
    let install = if install.is_empty() { String::new() } else { format!("{install}\n") };
    let wanted = match language {
        Language::Go => "It wants protoc and its plugins protoc-gen-go and protoc-gen-go-grpc; generate.go says where they come from.\n\n",
        Language::Python | Language::Rust | Language::Typescript => "",
    };
    format!(
        "# __NAME__\n\nA provider of {} for llama-stack. It is a gRPC server of `llama_stack.v1.{}`; `proto/` is its copy of the contract.\n\n\
         {wanted}```\n{install}{start} __ADDRESS__\n```\n\nIn another terminal:\n\n```\nllama-stack provider check http://__ADDRESS__   # what \
         the contract promises, and whether it is kept\nllama-stack run manifest.yaml                      # a stack that uses \
         it\n{test}\n```\n\nIn a manifest of your own it is one line, under `providers.{}`:\n\n```yaml\n{}\n```\n",
        api.name(),
        api.service(),
        api.name(),
        line(api)
    )
}
