//! What plain facts settle is settled as Cedar would.

use std::collections::BTreeSet;

use llama_stack_policy::{CedarPolicy, Facts, Source};
use serde_json::json;

use crate::ask::{Ask, PERMIT, ask};

/// Of every form that is understood without Cedar, and some that are not, after and before such that are.
const CONDITIONS: [&str; 26] = [
    "context.seen_untrusted",
    "!context.seen_private",
    "context.unreadable || context.seen_untrusted",
    "resource.reads_untrusted && resource.reads_private",
    "resource.changes_state || resource.remote",
    "(context.seen_untrusted || resource.reads_untrusted) && (context.seen_private || resource.reads_private) && resource.changes_state",
    r#"resource.group == "web""#,
    r#"resource.group != "web" && resource.name != "run""#,
    r#""http_fetch" == resource.name"#,
    r#"principal.tenant == "acme" && principal.id == "ann""#,
    r#"principal.roles.contains("admin")"#,
    r#"!principal.roles.contains("admin") || principal.id != "ann""#,
    r#"context.agent == Agent::"support""#,
    r#"context.agent != Agent::"support""#,
    r#"context.seen.contains("untrusted:tool:mail")"#,
    r#"context.seen.contains("label 150")"#,
    r#"context.arguments.text.hasTag("url")"#,
    r#"context.arguments.whole.hasTag("n") && context.arguments.whole.getTag("n") > 3"#,
    r#"context.arguments.decimals.hasTag("n") || context.arguments.lists.hasTag("to")"#,
    r#"!(context.arguments.text.hasTag("url") && context.arguments.text.getTag("url") like "https://example.com/*")"#,
    r#"resource.group == "web" && context.arguments.whole.hasTag("n") && context.arguments.whole.getTag("n") * 4611686018427387904 > 1"#,
    r#"context.seen_untrusted && User::"acme/nobody".tenant == "x""#,
    r#"context.seen_untrusted || User::"acme/nobody".tenant == "x""#,
    r#"(if context.seen_private then resource.remote else resource.changes_state) && resource.group == "web""#,
    r#"action == Action::"call_unattended" && resource.remote"#,
    "true && !false",
];

/// The same, of a form that is left to Cedar.
fn opaque(condition: &str) -> String {
    format!("if true then ({condition}) else false")
}

fn policy(action: &str, clauses: &[(&str, String)]) -> CedarPolicy {
    let clauses: String = clauses.iter().map(|(kind, body)| format!(" {kind} {{ {body} }}")).collect();
    let text = format!("{PERMIT}@id(\"p\") forbid (principal, {action}, resource){clauses};");
    CedarPolicy::new(&[Source::new("p.cedar", text)]).unwrap()
}

fn questions() -> Vec<Ask> {
    let mut questions = Vec::new();
    let many: BTreeSet<String> = (100..300).map(|n| format!("label {n}")).collect();
    let seen = [BTreeSet::new(), ["private:tool:mail".to_owned(), "untrusted:tool:mail".into()].into(), many];
    let arguments =
        [json!({}), json!({ "url": "https://example.com/a", "n": 5, "to": ["a"] }), json!({ "url": "x", "n": 0.5 }), json!({ "a.b": 1 })];
    for (at, seen) in seen.iter().enumerate() {
        for (number, arguments) in arguments.iter().enumerate() {
            for flags in 0..4 {
                let mut question = ask().arguments(arguments.clone());
                question.seen = seen.clone();
                let (group, name) = if flags % 2 == 0 { ("web", "http_fetch") } else { ("shell", "run") };
                let (reads_untrusted, reads_private) = (flags == 1, flags != 2);
                question.tool = Facts {
                    reads_untrusted,
                    reads_private,
                    changes_state: flags > 1,
                    remote: number % 2 == 0,
                    ..Facts::unknown(name, group)
                };
                if (at + number + flags) % 2 == 0 {
                    question.principal.roles = vec!["admin".into()];
                    question.agent_id = "intern".into();
                } else {
                    question.principal.tenant = "other".into();
                }
                questions.push(question);
            }
        }
    }
    questions
}

#[test]
fn a_policy_decides_the_same_whether_or_not_cedar_is_asked() {
    let questions = questions();
    let mut answers = BTreeSet::new();
    for (at, condition) in CONDITIONS.iter().enumerate() {
        let other = CONDITIONS[(at + 7) % CONDITIONS.len()];
        for action in ["action", "action == Action::\"call_unattended\""] {
            for kinds in [["when", "when"], ["when", "unless"], ["unless", "when"]] {
                let with = |body: fn(&str) -> String| policy(action, &[(kinds[0], body(condition)), (kinds[1], body(other))]);
                let (plain, asked) = (with(|condition| condition.to_owned()), with(opaque));
                for question in &questions {
                    let answer = question.of(&plain);
                    assert_eq!(answer, question.of(&asked), "{kinds:?} {condition} / {other}: {:?}", question.arguments);
                    answers.insert(answer.to_string());
                }
            }
        }
    }
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["allow:rest", "ask:p", "deny:p"], "all answers came up");
}
