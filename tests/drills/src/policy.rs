//! Deciding on a call of a tool: what it costs with 50 policies, for the calls that agents make and for the largest.

use std::{collections::BTreeSet, fmt::Write, hint::black_box, time::Instant};

use llama_stack_policy::{CedarPolicy, Decision, Facts, Policy, Principal, Question, Source, labels};
use serde_json::{Value, json};

use crate::{
    Verdict,
    figures::{Times, micros},
};

const POLICIES: usize = 50;

pub(crate) fn run(long: bool) -> Verdict {
    let policy = CedarPolicy::new(&[Source::new("drill.cedar", policies())]).unwrap();
    let principal = Principal { id: "ann".into(), tenant: "acme".into(), roles: vec!["dev".into(), "support".into()] };
    let tool =
        |name: &str, group: &str| Facts { name: name.into(), group: group.into(), reads_private: false, ..Facts::unknown(name, group) };
    let seen: BTreeSet<_> = (0..10).flat_map(|n| labels(&format!("tool:tool{n}"), Some(&tool(&format!("tool{n}"), "group")))).collect();
    // Name, tool, arguments, what is decided, and whether it is what agents do every day.
    let calls = [
        ("no arguments", tool("clock", "builtin"), json!({}), "allow", true),
        ("one argument", tool("tool7", "group7"), json!({ "url": "https://example7.com/a/page" }), "allow", true),
        ("forbidden", tool("tool7", "group7"), json!({ "url": "https://elsewhere.com/a/page" }), "deny", true),
        ("a letter", tool("send", "mail"), letter(2 << 10), "ask", true),
        ("a form, 30 arguments", tool("file", "forms"), form(30), "allow", true),
        ("8 KiB of text", tool("send", "mail"), letter(8 << 10), "ask", false),
        ("256 arguments, the most", tool("file", "forms"), form(256), "allow", false),
    ];
    let rounds = if long { 100_000 } else { 10_000 };
    let mut everyday = Vec::new();
    println!("{POLICIES} policies, {} labels seen\n{:<28} {:>10} {:>10}", seen.len(), "call", "p50 us", "p99 us");
    for (name, tool, arguments, wanted, common) in &calls {
        let question = Question { principal: &principal, agent_id: "agent", tool, arguments, seen: &seen };
        let decision = policy.decide(&question);
        assert!(decision.to_string().starts_with(wanted), "{name}: {decision:?}");
        let times = measured(&policy, &question, rounds, &decision);
        if *common {
            everyday.extend_from_slice(&times);
        }
        let times = Times::new(times);
        println!("{name:<28} {:>10.1} {:>10.1}", micros(times.p50()), micros(times.p99()));
    }
    let times = Times::new(everyday);
    let (p50, p99) = (micros(times.p50()), micros(times.p99()));
    Verdict { line: format!("policy: p50 {p50:.1} us, p99 {p99:.1} us"), holds: p99 <= 50.0 }
}

fn measured(policy: &dyn Policy, question: &Question<'_>, rounds: usize, wanted: &Decision) -> Vec<std::time::Duration> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds + rounds / 10 {
        let begun = Instant::now();
        let decision = black_box(policy.decide(black_box(question)));
        let took = begun.elapsed();
        assert_eq!(decision, *wanted);
        // The first tenth warms the caches.
        if round >= rounds / 10 {
            times.push(took);
        }
    }
    times
}

/// A letter with a text of `length` bytes.
fn letter(length: usize) -> Value {
    json!({ "to": ["ann@acme.org", "bob@acme.org"], "subject": "The report", "body": "x".repeat(length), "urgent": false })
}

fn form(count: usize) -> Value {
    Value::Object((0..count).map(|n| (format!("field{n}"), if n % 2 == 0 { json!(n) } else { json!(format!("value {n}")) })).collect())
}

/// Of every kind that a policy can be: about tools, arguments, people, agents and what the session has seen.
fn policies() -> String {
    let mut text = "@id(\"rest\") permit (principal, action, resource);\n\
        @id(\"letters\") forbid (principal, action == Action::\"call_unattended\", resource == Tool::\"mail/send\");\n"
        .to_owned();
    for n in 2..POLICIES {
        let (action, scope, condition) = match n % 8 {
            0 => ("", "", format!("resource.group == \"group{n}\" && !principal.roles.contains(\"admin\")")),
            1 => ("", "", format!("principal.tenant == \"tenant{n}\" && resource.changes_state && resource.remote")),
            2 => ("", "", format!("context.seen.contains(\"untrusted:tool:other{n}\") && resource.changes_state")),
            3 => (
                " == Action::\"call_unattended\"",
                "",
                format!("context.seen_untrusted && context.seen_private && resource.name != \"x{n}\""),
            ),
            4 => (
                "",
                "",
                format!(
                    "context.arguments.decimals.hasTag(\"amount{n}\") && context.arguments.decimals.getTag(\"amount{n}\").greaterThan(decimal(\"10.0\"))"
                ),
            ),
            5 => ("", "", format!("context.agent == Agent::\"agent{n}\" && context.unreadable")),
            6 => (
                "",
                "",
                format!(
                    "context.arguments.lists.hasTag(\"to\") && context.arguments.lists.getTag(\"to\").contains(\"eve{n}@elsewhere.org\")"
                ),
            ),
            _ => (
                "",
                "site",
                format!(
                    "!(context.arguments.text.hasTag(\"url\") && context.arguments.text.getTag(\"url\") like \"https://example{n}.com/*\")"
                ),
            ),
        };
        let resource = if scope == "site" { format!("resource == Tool::\"group{n}/tool{n}\"") } else { "resource".into() };
        writeln!(text, "@id(\"p{n}\") forbid (principal, action{action}, {resource}) when {{ {condition} }};").unwrap();
    }
    text
}
