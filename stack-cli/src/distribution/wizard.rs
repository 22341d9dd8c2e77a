//! The questions of `distribution init`, on a terminal. What was given as an option is not asked.

use inquire::{Confirm, InquireError, MultiSelect, Select, Text, validator::Validation};
use llama_stack_core::{Code, Error, Result};

use super::init::{Answers, check_apart, check_name, check_url, default_memory, default_tools, default_url, has_embeddings, manifest};
use crate::args::{InitArgs, MemoryChoice, ModelsChoice, ShieldChoice, ToolChoice};

/// A choice with the words that it is shown by.
struct Item<T>(T, &'static str);

impl<T> std::fmt::Display for Item<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.1)
    }
}

/// # Errors
/// `Cancelled` where Escape or Ctrl-C ended it: nothing has been written.
pub(super) async fn ask(args: InitArgs) -> Result<Answers> {
    // Questions block their thread.
    let asked = tokio::task::spawn_blocking(move || questions(args)).await;
    asked.map_err(|error| Error::internal("the terminal cannot be read").with_source(error))?
}

fn stopped(error: InquireError) -> Error {
    match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => Error::new(Code::Cancelled, "stopped; nothing was written"),
        error => Error::internal("the terminal cannot be read; give the answers as options, with --yes").with_source(error),
    }
}

fn valid(checked: Result<()>) -> std::result::Result<Validation, inquire::CustomUserError> {
    Ok(checked.map_or_else(|error| Validation::Invalid(error.message().into()), |()| Validation::Valid))
}

fn questions(args: InitArgs) -> Result<Answers> {
    let name = match args.name {
        Some(name) => name,
        None => Text::new("Name of the distribution:")
            .with_default("my-stack")
            .with_validator(|name: &str| valid(check_name(name)))
            .prompt()
            .map_err(stopped)?,
    };
    let models = match args.models {
        Some(models) => models,
        None => one(
            "Where do models run?",
            vec![
                Item(ModelsChoice::Starter, "In this process: Qwen2.5-Coder-0.5B and MiniLM (580 MB)"),
                Item(ModelsChoice::Tiny, "In this process: SmolLM2-135M, for trying (98 MB)"),
                Item(ModelsChoice::Remote, "On an OpenAI-compatible server: vLLM, Ollama, llama.cpp, OpenAI …"),
                Item(ModelsChoice::Grpc, "On another stack"),
            ],
        )?,
    };
    check_apart(models, args.url.as_deref(), args.key_variable.as_deref())?;
    let elsewhere = matches!(models, ModelsChoice::Remote | ModelsChoice::Grpc);
    let url = match args.url {
        Some(url) => url,
        None if elsewhere => Text::new("Its address:")
            .with_default(default_url(models))
            .with_validator(|url: &str| valid(check_url(url)))
            .prompt()
            .map_err(stopped)?,
        None => String::new(),
    };
    let key_variable = match args.key_variable {
        Some(variable) => variable,
        None if models == ModelsChoice::Remote => Text::new("Environment variable with its key:")
            .with_help_message("empty: it wants none; the key itself is never written to the manifest")
            .prompt()
            .map_err(stopped)?,
        None => String::new(),
    };
    let port = match args.port {
        Some(port) => port,
        None => port()?,
    };
    let memory = match args.memory {
        Some(memory) => memory,
        None => {
            let wanted = Confirm::new("Banks of documents, with search?").with_default(default_memory(models) == MemoryChoice::Sqlite);
            if wanted.prompt().map_err(stopped)? { MemoryChoice::Sqlite } else { MemoryChoice::None }
        }
    };
    let shields = match args.shields {
        Some(shields) => shields,
        None => {
            let mut items = vec![
                Item(ShieldChoice::Pii, "Personal data, taken out"),
                Item(ShieldChoice::Code, "Dangerous code"),
                Item(ShieldChoice::Unicode, "Hidden characters"),
            ];
            if has_embeddings(models) {
                items.push(Item(ShieldChoice::Injection, "Attempts to override instructions"));
            }
            several("Shields:", items, &[])?
        }
    };
    let tools = match args.tools {
        Some(tools) => tools,
        None => {
            let mut items =
                vec![Item(ToolChoice::Builtin, "Calculator and clock"), Item(ToolChoice::Fetch, "Pages of the public internet")];
            if memory != MemoryChoice::None {
                items.push(Item(ToolChoice::Memory, "Search in banks, remember and recall"));
            }
            several("Tools for agents:", items, &default_tools(memory))?
        }
    };
    let answers = Answers { name, models, url, key_variable, port, memory, shields, tools };
    // What does not go together is said before the file is asked for.
    manifest(&answers)?;
    Ok(answers)
}

fn port() -> Result<u16> {
    let number = |text: &str| {
        let wrong = || Error::invalid("port", "a port is a number from 1 to 65535; 0 takes a free one");
        text.trim().parse::<u16>().map_err(|_| wrong())
    };
    let text =
        Text::new("Port, on this machine alone:").with_default("8321").with_validator(move |text: &str| valid(number(text).map(drop)));
    number(&text.prompt().map_err(stopped)?)
}

fn one<T: Copy>(question: &str, items: Vec<Item<T>>) -> Result<T> {
    Select::new(question, items).prompt().map(|item| item.0).map_err(stopped)
}

fn several<T: Copy + PartialEq>(question: &str, items: Vec<Item<T>>, chosen: &[T]) -> Result<Vec<T>> {
    let at: Vec<usize> = items.iter().enumerate().filter(|(_, item)| chosen.contains(&item.0)).map(|(at, _)| at).collect();
    let asked = MultiSelect::new(question, items).with_default(&at).prompt().map_err(stopped)?;
    Ok(asked.into_iter().map(|item| item.0).collect())
}
