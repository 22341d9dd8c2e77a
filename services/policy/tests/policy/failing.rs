use llama_stack_policy::Decision;
use serde_json::json;

use crate::ask::{PERMIT, ask, policy};

fn refusal(decision: Decision) -> (Vec<String>, String) {
    match decision {
        Decision::Deny { policies, reason } => (policies, reason),
        other => panic!("{other:?}"),
    }
}

/// Cedar itself passes over a policy that fails, so that a `forbid` which overflows forbids nothing.
#[test]
fn a_policy_that_fails_denies_the_call() {
    for action in ["action", "action == Action::\"call\"", "action == Action::\"call_unattended\""] {
        let policy = policy(&format!(
            r#"{PERMIT}@id("overflow") forbid (principal, {action}, resource)
            when {{ context.arguments.whole.hasTag("n") && context.arguments.whole.getTag("n") * 2 > 10 }};"#
        ));
        assert_eq!(ask().arguments(json!({ "n": 1 })).answer(&policy), "allow:rest");
        let (policies, reason) = refusal(ask().arguments(json!({ "n": i64::MAX })).of(&policy));
        assert_eq!(policies, ["overflow"]);
        assert!(reason.contains("overflow"), "{reason}");
    }
}

#[test]
fn somebody_who_is_not_there_fails_the_policy_that_asks_for_them() {
    let policy =
        policy(&format!("{PERMIT}@id(\"bob\") forbid (principal, action, resource) when {{ User::\"acme/bob\".tenant == \"x\" }};"));
    assert_eq!(refusal(ask().of(&policy)).0, ["bob"]);
}

#[test]
fn a_refusal_gives_the_reason_of_its_policy() {
    let policy = policy(
        r#"
        @id("why") @reason("payments are made by people") forbid (principal, action, resource) when { resource.name == "pay" };
        @id("plain") forbid (principal, action, resource) when { resource.name == "run" };
        @id("fetch") permit (principal, action, resource) when { ["pay", "run", "fetch"].contains(resource.name) };
        "#,
    );
    for (name, ids, reason) in [
        ("pay", &["why"][..], "payments are made by people"),
        ("run", &["plain"], "forbidden by policy plain"),
        ("other", &[], "no policy permits this call"),
    ] {
        let mut ask = ask();
        ask.tool.name = name.into();
        let (policies, said) = refusal(ask.of(&policy));
        assert_eq!((policies, said.as_str()), (ids.iter().map(|id| (*id).to_owned()).collect(), reason));
    }
}
