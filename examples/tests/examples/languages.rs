//! Clients, in every language and with every framework.

use std::process::Command;

use llama_stack_tests::scripted;

use crate::{
    programs::{python, says, typescript},
    runtimes,
    stack::Running,
};

const LOOK_UP: &str = r#"call price_of {"article": "bolt"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn python_clients_are_answered() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let example = |name: &str| python(&venv, &stack, &format!("python/{name}.py"));

    assert_eq!(says(example("chat")).await, "you said: Name the capital of France in one short sentence.\n");
    let mut turn = example("agent_turn");
    turn.arg(r#"call calculator {"expression": "6 * 7"}"#);
    let turn = says(turn).await;
    assert!(turn.contains("[calculator {\"expression\": \"6 * 7\"} -> 42]") && turn.contains("TURN_STATUS_COMPLETED"), "{turn}");

    let mut cited = example("file_search");
    cited.arg(r#"call file_search {"query": "days of paid leave"}"#);
    let cited = says(cited).await;
    assert!(cited.contains("searched for ['days of paid leave'] and found ['handbook.txt'"), "{cited}");
    assert!(cited.contains("  [handbook.txt] Every employee of Fjord Cycles has 31 days"), "{cited}");

    let memory = says(example("memory_search")).await;
    assert_eq!(memory, "banks: The garage opens at nine.\n");
    stack.stop().await;
}

/// A stack's banks take their vectors from any OpenAI-compatible server, which here is another stack.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_searched_with_the_models_of_another_server() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let far = Running::start().await;
    let near = Running::of(&format!(
        "version: 1\nname: near\nproviders:\n  inference:\n    - {{ id: far, type: remote::openai, config: {{ url: \"{}/v1\" }} }}\n  \
         memory:\n    - {{ id: banks, type: inline::sqlite, config: {{ embedding_model: worded }} }}\n",
        far.url
    ))
    .await;
    let mut cited = python(&venv, &near, "python/file_search.py");
    cited.arg(r#"call file_search {"query": "days of paid leave"}"#);
    let cited = says(cited).await;
    assert!(cited.contains("  [handbook.txt] Every employee of Fjord Cycles has 31 days"), "{cited}");
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frameworks_run_on_a_stack() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let example = |name: &str| python(&venv, &stack, &format!("python/{name}.py"));

    let mut langchain = example("langchain_agent");
    langchain.arg(LOOK_UP);
    let langchain = says(langchain).await;
    assert!(langchain.contains("[price_of {'article': 'bolt'}]") && langchain.contains("ai: the tool said: 3.75"), "{langchain}");

    let llama_index = says(example("llama_index_rag")).await;
    assert!(llama_index.contains("from: The garage of Fjord Cycles opens at nine."), "{llama_index}");

    let mut agents = example("openai_agents");
    agents.arg(LOOK_UP);
    assert_eq!(says(agents).await, "clerk: 3.75\n");
    let mut agents = example("openai_agents");
    agents.arg("call transfer_to_refunds {}");
    let handed = says(agents).await;
    assert!(handed.starts_with("refunds: "), "{handed}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notebook_runs_from_top_to_bottom() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let runner = "import sys, nbformat, nbclient\nbook = nbformat.read(sys.argv[1], 4)\n\
                  nbclient.NotebookClient(book, timeout=600, startup_timeout=300).execute()\n\
                  for cell in book.cells:\n    for output in cell.get('outputs', []):\n        print(output.get('text') or output['data']['text/plain'])";
    let mut notebook = python(&venv, &stack, "notebooks/tour.ipynb");
    let arguments: Vec<_> = notebook.get_args().map(std::ffi::OsStr::to_owned).collect();
    let environment: Vec<_> = notebook.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    notebook = Command::new(&venv);
    notebook.args(["-c", runner]).args(arguments).envs(environment).env("QUESTION", LOOK_UP);
    let said = says(notebook).await;
    for part in [scripted::MODEL, "you said: Name the capital", "you said: What is my name?", "the tool said: 3.75"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_clients_are_answered() {
    let Ok(modules) = tokio::task::spawn_blocking(runtimes::typescript).await.unwrap() else { return };
    let stack = Running::start().await;
    // Node finds packages beside the program: the programs are put beside theirs.
    let folder = modules.parent().unwrap().to_owned();
    for name in ["chat.ts", "agent.ts", "custom_tool.ts", "tsconfig.json"] {
        std::fs::copy(runtimes::examples().join("typescript").join(name), folder.join(name)).unwrap();
    }
    let mut types = Command::new("node");
    types.arg(modules.join("typescript/bin/tsc")).args(["--noEmit", "--project"]).arg(folder);
    assert_eq!(says(types).await, "");
    let chat = says(typescript(&modules, &stack, "chat.ts")).await;
    assert_eq!(chat, "you said: Name the capital of France in one short sentence.\n");
    let mut agent = typescript(&modules, &stack, "agent.ts");
    agent.arg(LOOK_UP);
    assert_eq!(says(agent).await, "[price_of {\"article\": \"bolt\"} -> 3.75]\nthe tool said: 3.75\n");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_is_answered() {
    let stack = Running::start().await;
    let mut turn = Command::new(env!("CARGO_BIN_EXE_agent_turn"));
    turn.env("LLAMA_STACK_SERVER", &stack.url).env("MODEL", scripted::MODEL).arg(r#"call calculator {"expression": "6 * 7"}"#);
    let said = says(turn).await;
    assert!(said.contains("[calculator {\"expression\": \"6 * 7\"} -> 42]") && said.contains("the tool said: 42"), "{said}");
    stack.stop().await;
}
