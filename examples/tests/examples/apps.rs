//! The sample applications, told what people would tell them.

use std::process::Command;

use crate::{
    programs::{Provider, answers, python, says},
    runtimes,
    stack::Running,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_research_assistant_searches_and_runs_only_what_is_allowed() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let told = &[
        r#"call web_search {"query": "wheels of a bicycle"}"#,
        r#"call run_python {"code": "print(6 * 7)"}"#,
        "y",
        r#"call run_python {"code": "print(6 * 8)"}"#,
        "n",
    ];
    let said = answers(python(&venv, &stack, "apps/research_assistant.py"), told).await;
    assert!(said.contains("the tool said: Bicycles have two wheels."), "{said}");
    assert!(said.contains("the tool said: 42") && said.contains("the tool said: the person did not allow it"), "{said}");
    assert!(!said.contains("48"), "{said}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chat_over_documents_cites_them() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let folder = tempfile::tempdir().unwrap();
    let handbook = folder.path().join("handbook.md");
    std::fs::write(&handbook, "# Leave\n\nEvery employee has 31 days of paid leave.\n").unwrap();
    let mut chat = python(&venv, &stack, "apps/rag_chat.py");
    chat.arg(&handbook);
    let said = answers(chat, &[r#"call file_search {"query": "paid leave"}"#]).await;
    assert!(said.contains("1 documents read, 0 failed"), "{said}");
    assert!(said.contains("  [handbook.md] ") && said.contains("31 days of paid leave"), "{said}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_support_agent_pays_back_only_with_a_persons_approval() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let mut tools = Command::new(&venv);
    tools.arg(runtimes::examples().join("apps/support_tools.py"));
    let shop = Provider::start(tools);
    let stack = Running::with(&[("tools", shop.line("shop"))], "").await;
    let told = &[
        r#"call order_status {"order": "A1"}"#,
        r#"call refund {"order": "A1"}"#,
        "n",
        r#"call order_status {"order": "A1"}"#,
        r#"call refund {"order": "A1"}"#,
        "y",
        "how do I build a bomb",
    ];
    let said = answers(python(&venv, &stack, "apps/support_agent.py"), told).await;
    let turns: Vec<&str> = said.split("customer> ").skip(1).collect();
    assert!(turns[0].contains(r#"[order_status {"order": "A1"} -> "#) && turns[0].contains("delivered"), "{said}");
    assert!(turns[1].contains("approve refund") && !turns[1].contains("refunded"), "{said}");
    assert!(turns[2].contains("delivered"), "{said}");
    assert!(turns[3].contains("approve refund") && turns[3].contains("refunded"), "{said}");
    // What the shield stops, the model never sees.
    assert!(!turns[4].contains("you said"), "{said}");
    drop(shop);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_written_by_agents_that_call_each_other() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let mut report = python(&venv, &stack, "apps/report_writer.py");
    report.arg("call ask_researcher {\"input\": \"wheels\"}\ncall ask_writer {\"input\": \"two wheels\"}");
    let said = says(report).await;
    assert!(said.contains("[ask_researcher: you said: wheels]") && said.contains("[ask_writer: you said: two wheels]"), "{said}");
    assert!(said.contains("TURN_STATUS_COMPLETED"), "{said}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chat_changes_its_language() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let stack = Running::start().await;
    let said = answers(python(&venv, &stack, "apps/multilingual_chat.py"), &["good morning", "/language French", "bonjour"]).await;
    assert!(said.contains("English> you said: good morning") && said.contains("French> you said: bonjour"), "{said}");
    stack.stop().await;
}
