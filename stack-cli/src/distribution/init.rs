//! `distribution init`: writes a commented manifest from a few answers.

use std::{fmt::Write as _, io::IsTerminal};

use llama_stack_core::{Error, Manifest, Result};
use serde_json::json;

use super::{built_in_text, kept, wizard};
use crate::{
    args::{InitArgs, MemoryChoice, ModelsChoice, ShieldChoice, ToolChoice},
    output::Output,
};

/// Everything that a manifest is made from.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) name: String,
    pub(super) models: ModelsChoice,
    /// Of the server, for models that run elsewhere.
    pub(super) url: String,
    /// The environment variable that holds that server's key; empty: it wants none.
    pub(super) key_variable: String,
    pub(super) port: u16,
    pub(super) memory: MemoryChoice,
    pub(super) shields: Vec<ShieldChoice>,
    pub(super) tools: Vec<ToolChoice>,
}

/// What an answer is where none is given.
pub(super) fn default_url(models: ModelsChoice) -> &'static str {
    match models {
        ModelsChoice::Grpc => "http://127.0.0.1:8322",
        _ => "http://127.0.0.1:8000/v1",
    }
}

/// # Errors
/// `InvalidArgument` for what says something of a server where models run in this process.
pub(super) fn check_apart(models: ModelsChoice, url: Option<&str>, key_variable: Option<&str>) -> Result<()> {
    if url.is_some() && !matches!(models, ModelsChoice::Remote | ModelsChoice::Grpc) {
        return Err(Error::invalid("url", "--url names the server of --models remote or grpc; these models run in this process"));
    }
    if key_variable.is_some_and(|variable| !variable.is_empty()) && models != ModelsChoice::Remote {
        return Err(Error::invalid("key-variable", "--key-variable is for the key of a server of --models remote"));
    }
    Ok(())
}

/// Only MiniLM makes vectors in the process.
pub(super) fn has_embeddings(models: ModelsChoice) -> bool {
    models == ModelsChoice::Starter
}

pub(super) fn default_memory(models: ModelsChoice) -> MemoryChoice {
    if has_embeddings(models) { MemoryChoice::Sqlite } else { MemoryChoice::None }
}

pub(super) fn default_tools(memory: MemoryChoice) -> Vec<ToolChoice> {
    if memory == MemoryChoice::None { vec![ToolChoice::Builtin] } else { vec![ToolChoice::Builtin, ToolChoice::Memory] }
}

/// # Errors
/// `InvalidArgument` with what would be right.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good { Ok(()) } else { Err(Error::invalid("name", format!("{name:?} is no name; it must be 1 to 64 of a-z, 0-9 and -"))) }
}

/// # Errors
/// `InvalidArgument` with what would be right.
pub(super) fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace)) {
        return Ok(());
    }
    Err(Error::invalid("url", format!("{url:?} is no address; it must begin with http:// or https://, as in http://127.0.0.1:8000/v1")))
}

pub(super) async fn run(args: InitArgs, output: &Output) -> Result<()> {
    let (file, force) = (args.file.clone(), args.force);
    let to_stdout = file.as_os_str() == "-";
    if !to_stdout && file.exists() && !force {
        // Said before anything is asked.
        kept::write(&file, "", false)?;
    }
    let asks = !args.yes && !output.is_json() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let answers = if asks { wizard::ask(args).await? } else { given(args)? };
    let text = manifest(&answers)?;
    if to_stdout {
        return output.write(&text);
    }
    kept::write(&file, &text, force)?;
    let shown = file.display();
    output.result(&json!({ "file": file, "name": answers.name }), |_| {
        format!("{shown} is written\n  llama-stack distribution check {shown}\n  llama-stack run {shown}\n")
    })
}

/// Options, and defaults for the rest.
fn given(args: InitArgs) -> Result<Answers> {
    let models = args.models.unwrap_or(ModelsChoice::Starter);
    check_apart(models, args.url.as_deref(), args.key_variable.as_deref())?;
    let memory = args.memory.unwrap_or(default_memory(models));
    let answers = Answers {
        name: args.name.unwrap_or_else(|| "my-stack".into()),
        url: args.url.unwrap_or_else(|| default_url(models).into()),
        key_variable: args.key_variable.unwrap_or_default(),
        port: args.port.unwrap_or(8321),
        shields: args.shields.unwrap_or_default(),
        tools: args.tools.unwrap_or_else(|| default_tools(memory)),
        models,
        memory,
    };
    Ok(answers)
}

/// # Errors
/// `InvalidArgument` for answers that do not go together, with those that do.
pub(super) fn manifest(answers: &Answers) -> Result<String> {
    check_name(&answers.name)?;
    check(answers)?;
    let mut text = String::new();
    let add = |text: &mut String, line: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    add(&mut text, "# A manifest of llama-stack. Look at it whole with `llama-stack distribution check`, start it with `llama-stack run`.");
    add(&mut text, "# ${env.NAME} takes an environment variable, ${env.NAME:=default} with a default.");
    add(&mut text, &format!("version: 1\nname: {:?} # also the folder of its state, below LLAMA_STACK_HOME", answers.name));
    add(&mut text, &format!("description: {:?}\n", description(answers)));
    add(&mut text, "server:");
    add(
        &mut text,
        "  # Only this machine can call: callers are believed who they say they are. 0.0.0.0 wants `auth`, see docs/identity.md.",
    );
    add(&mut text, &format!("  listen: \"127.0.0.1:{}\"\n", answers.port));
    add(&mut text, "# State is SQLite in the distribution's folder. For Postgres:");
    add(&mut text, "# store: { url: \"postgres://user:${env.PGPASSWORD}@host/database\" }\n");
    add(&mut text, "providers:");
    add(&mut text, &inference(answers));
    add(&mut text, &safety(answers));
    add(&mut text, &memory(answers));
    add(&mut text, &tools(answers));
    text.push_str(AFTER);
    add(&mut text, &every_turn(answers));
    // What is written here must be right whatever was answered; variables count as set.
    Manifest::parse_with(&text, "the new manifest", &|_| Some("set".into()))?;
    Ok(text)
}

fn check(answers: &Answers) -> Result<()> {
    if matches!(answers.models, ModelsChoice::Remote | ModelsChoice::Grpc) {
        check_url(&answers.url)?;
    }
    let variable = &answers.key_variable;
    if !variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Error::invalid(
            "key-variable",
            format!("{variable:?} is not the name of an environment variable, as OPENAI_API_KEY is"),
        ));
    }
    if answers.shields.len() > 1 && answers.shields.contains(&ShieldChoice::None) {
        return Err(Error::invalid("shields", "`none` stands alone; take it out, or the others"));
    }
    if answers.tools.len() > 1 && answers.tools.contains(&ToolChoice::None) {
        return Err(Error::invalid("tools", "`none` stands alone; take it out, or the others"));
    }
    if answers.shields.contains(&ShieldChoice::Injection) && answers.models == ModelsChoice::Tiny {
        return Err(Error::invalid("shields", "`injection` needs an embedding model, and tiny has none; take --models starter"));
    }
    if answers.tools.contains(&ToolChoice::Memory) && answers.memory == MemoryChoice::None {
        return Err(Error::invalid("tools", "`memory` searches banks, and there are none; take --memory sqlite as well"));
    }
    Ok(())
}

fn description(answers: &Answers) -> String {
    match answers.models {
        ModelsChoice::Starter => "Qwen2.5-Coder-0.5B and MiniLM in this process".into(),
        ModelsChoice::Tiny => "SmolLM2-135M in this process".into(),
        ModelsChoice::Remote => format!("Models of {}", answers.url),
        ModelsChoice::Grpc => format!("Models of the stack at {}", answers.url),
    }
}

/// The provider of a built-in distribution, as it is written there: the models' sources and hashes are kept in one place.
fn local(name: &str) -> String {
    let lines = built_in_text(name).lines().skip_while(|line| line.trim() != "inference:").skip(1);
    lines.take_while(|line| line.starts_with("    ")).map(|line| format!("{line}\n")).collect()
}

fn inference(answers: &Answers) -> String {
    let url = json!(answers.url);
    let entry = match answers.models {
        ModelsChoice::Starter => local("starter"),
        ModelsChoice::Tiny => local("tiny"),
        ModelsChoice::Remote => {
            let key = match answers.key_variable.as_str() {
                "" => "        # api_key: \"${env.OPENAI_API_KEY:=}\"\n".to_owned(),
                variable => format!("        api_key: \"${{env.{variable}:=}}\"\n"),
            };
            format!(
                "    - id: upstream\n      type: remote::openai # vLLM, Ollama, llama.cpp, OpenAI and others, see docs/models.md\n      config:\n        \
                 url: {url} # up to and with /v1\n{key}"
            )
        }
        ModelsChoice::Grpc => format!("    - id: upstream\n      type: remote::grpc # another stack\n      config: {{ url: {url} }}\n"),
    };
    format!("  inference:\n{entry}")
}

fn safety(answers: &Answers) -> String {
    let mut text = String::new();
    let chosen = |choice| answers.shields.contains(&choice);
    let entries = [
        (
            ShieldChoice::Injection,
            "{ id: injection, type: inline::embedding-classifier } # takes many honest texts for attacks, see docs/safety-classifiers.md",
        ),
        (ShieldChoice::Pii, "{ id: pii, type: inline::pii } # takes personal data out, see docs/safety-rules.md"),
        (ShieldChoice::Code, "{ id: code, type: inline::code-rules } # stops dangerous code in answers"),
        (ShieldChoice::Unicode, "{ id: unicode, type: inline::unicode } # hidden and confusable characters"),
    ];
    for (_, entry) in entries.into_iter().filter(|(choice, _)| chosen(*choice)) {
        text += &format!("    - {entry}\n");
    }
    if text.is_empty() {
        return "  # Shields judge texts, see docs/safety.md:\n  # safety:\n  #   - { id: pii, type: inline::pii }\n".into();
    }
    format!("  safety: # on no agent by default: name them under safety.defaults below, or in an agent\n{text}")
}

fn memory(answers: &Answers) -> String {
    match answers.memory {
        MemoryChoice::None => {
            "  # Banks of documents, with search, see docs/memory.md:\n  # memory:\n  #   - { id: banks, type: inline::sqlite }\n".into()
        }
        MemoryChoice::Sqlite => {
            let vectors = if has_embeddings(answers.models) {
                "Vectors come from the embedding model above."
            } else {
                "Search by meaning needs an embedding model; search by words does not."
            };
            format!(
                "  memory:\n    # Documents and search in one file beside the database, see docs/memory.md. {vectors}\n    - {{ id: banks, type: inline::sqlite }}\n"
            )
        }
    }
}

fn tools(answers: &Answers) -> String {
    let chosen = |choice| answers.tools.contains(&choice);
    let mut text = String::new();
    if chosen(ToolChoice::Builtin) {
        text += "    - { id: builtin, type: inline::builtin } # calculator, clock\n";
    }
    if chosen(ToolChoice::Memory) {
        text += "    - { id: memory, type: inline::memory } # knowledge_search, remember, recall, forget\n";
    }
    if chosen(ToolChoice::Fetch) {
        text += "    - { id: fetch, type: inline::http-fetch } # the public internet; private networks are kept out, see docs/tools.md\n";
    }
    let own = "    # Your own, in any language: `llama-stack provider new tools weather`\n    # - { id: weather, type: remote::grpc, config: { url: \"http://127.0.0.1:9000\" } }\n";
    if text.is_empty() { format!("  # tools:\n{own}") } else { format!("  tools:\n{text}{own}") }
}

/// Code is judged in answers; the other shields judge what comes in as well.
fn every_turn(answers: &Answers) -> String {
    let named = [(ShieldChoice::Injection, "injection"), (ShieldChoice::Pii, "pii"), (ShieldChoice::Unicode, "unicode")];
    let mut input: Vec<&str> = named.iter().filter(|(choice, _)| answers.shields.contains(choice)).map(|(_, id)| *id).collect();
    let mut output: Vec<&str> = input.iter().copied().filter(|id| *id != "injection").collect();
    if answers.shields.contains(&ShieldChoice::Code) {
        output.push("code");
    }
    if input.is_empty() && output.is_empty() {
        (input, output) = (vec!["pii"], vec!["pii"]);
    }
    let lists = [("input", input), ("output", output)].into_iter().filter(|(_, ids)| !ids.is_empty());
    let lists: Vec<String> = lists.map(|(stage, ids)| format!("{stage}: [{}]", ids.join(", "))).collect();
    format!("\n# Shields of every turn, see docs/safety.md:\n# safety: {{ defaults: {{ {} }} }}", lists.join(", "))
}

/// What a manifest may say besides.
const AFTER: &str = "\
# Agents that are there from the start, see docs/agents.md:
# agents:
#   declared:
#     helper: { model: MODEL, instructions: \"You answer briefly.\", tools: [calculator] }
";

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(models: ModelsChoice) -> Answers {
        let memory = default_memory(models);
        Answers {
            name: "t".into(),
            models,
            url: default_url(models).into(),
            key_variable: String::new(),
            port: 8321,
            memory,
            shields: Vec::new(),
            tools: default_tools(memory),
        }
    }

    #[test]
    fn every_choice_makes_a_manifest_that_can_be_read() {
        use {MemoryChoice as M, ModelsChoice as W, ShieldChoice as S, ToolChoice as T};
        for models in [W::Starter, W::Tiny, W::Remote, W::Grpc] {
            for memory in [M::Sqlite, M::None] {
                for shields in [vec![], vec![S::None], vec![S::Pii, S::Code, S::Unicode]] {
                    for tools in [vec![], vec![T::None], vec![T::Builtin, T::Fetch]] {
                        let made = Answers { memory, shields: shields.clone(), tools, ..answers(models) };
                        let text = manifest(&made).unwrap_or_else(|error| panic!("{made:?}: {error}"));
                        let read = Manifest::parse(&text, "m").unwrap();
                        assert_eq!(read.providers.inference.len(), 1, "{text}");
                        // What it proposes is right where its shields are there.
                        let proposed = text.lines().last().unwrap().trim_start_matches("# ");
                        let whole = Manifest::parse(&format!("{text}{proposed}\n"), "m").unwrap();
                        let ids: Vec<&str> = whole.providers.safety.iter().map(|one| one.id.as_str()).collect();
                        assert!(ids.is_empty() || whole.safety.defaults.output.iter().all(|id| ids.contains(&id.as_str())), "{text}");
                        assert_eq!(read.providers.memory.len(), usize::from(memory == M::Sqlite), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_that_yaml_would_take_for_a_number_stays_a_name() {
        for name in ["1", "true", "null"] {
            assert_eq!(
                Manifest::parse(&manifest(&Answers { name: name.into(), ..answers(ModelsChoice::Tiny) }).unwrap(), "m").unwrap().name,
                name
            );
        }
    }

    #[test]
    fn answers_that_do_not_go_together_are_told_with_those_that_do() {
        let said = |made: Answers| manifest(&made).unwrap_err().message().to_owned();
        let tiny = answers(ModelsChoice::Tiny);
        assert!(said(Answers { shields: vec![ShieldChoice::Injection], ..tiny.clone() }).contains("--models starter"));
        assert!(said(Answers { tools: vec![ToolChoice::Memory], ..tiny.clone() }).contains("--memory sqlite"));
        assert!(said(Answers { shields: vec![ShieldChoice::None, ShieldChoice::Pii], ..tiny.clone() }).contains("stands alone"));
        assert!(said(Answers { tools: vec![ToolChoice::Builtin, ToolChoice::None], ..tiny.clone() }).contains("stands alone"));
        assert!(said(Answers { name: "My Stack".into(), ..tiny }).contains("a-z, 0-9"));
        assert!(said(Answers { url: "localhost:8000".into(), ..answers(ModelsChoice::Remote) }).contains("http://"));
        let quoted = Answers { url: "http://x/\"v1".into(), ..answers(ModelsChoice::Remote) };
        assert!(manifest(&quoted).is_ok(), "what is odd is quoted");
    }

    #[test]
    fn what_says_something_of_a_server_is_refused_where_there_is_none() {
        use ModelsChoice as W;
        for (models, url, key, wrong) in [
            (W::Starter, Some("http://x/v1"), None, Some("url")),
            (W::Tiny, None, Some("KEY"), Some("key-variable")),
            (W::Grpc, Some("http://x"), Some("KEY"), Some("key-variable")),
            (W::Grpc, Some("http://x"), None, None),
            (W::Remote, Some("http://x/v1"), Some("KEY"), None),
            (W::Starter, None, Some(""), None),
        ] {
            let refused = check_apart(models, url, key).err();
            assert_eq!(refused.as_ref().and_then(|error| error.field()), wrong, "{models:?}");
        }
    }
}
