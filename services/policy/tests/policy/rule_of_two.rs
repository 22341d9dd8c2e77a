use std::path::Path;

use llama_stack_core::Manifest;
use llama_stack_policy::{CedarPolicy, Decision, Facts, labels};

use crate::ask::ask;

/// Whether each of A (untrusted), B (private) and C (change) is true, and what then holds.
const TABLE: [(bool, bool, bool, &str); 8] = [
    (false, false, false, "allow:rule-of-two.rest"),
    (false, false, true, "allow:rule-of-two.rest"),
    (false, true, false, "allow:rule-of-two.rest"),
    (false, true, true, "allow:rule-of-two.rest"),
    (true, false, false, "allow:rule-of-two.rest"),
    (true, false, true, "allow:rule-of-two.rest"),
    (true, true, false, "allow:rule-of-two.rest"),
    (true, true, true, "ask:rule-of-two"),
];

#[test]
fn two_of_three_run_and_all_three_ask() {
    let policy = CedarPolicy::rule_of_two().unwrap();
    for (untrusted, private, change, wanted) in TABLE {
        // A and B may come from what was read before or from the tool itself: all four ways are the same rule.
        for (seen_untrusted, seen_private) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut ask = ask();
            let earlier = Facts {
                reads_untrusted: untrusted && seen_untrusted,
                reads_private: private && seen_private,
                ..Facts::unknown("earlier", "g")
            };
            ask.seen = labels("tool:earlier", Some(&earlier)).into_iter().collect();
            ask.tool = Facts {
                reads_untrusted: untrusted && !seen_untrusted,
                reads_private: private && !seen_private,
                changes_state: change,
                ..ask.tool
            };
            assert_eq!(ask.answer(&policy), wanted, "{:?} after {:?}", ask.tool, ask.seen);
        }
    }
}

#[test]
fn it_holds_where_the_manifest_names_no_policy() {
    let policy = |text: &str| {
        let manifest = Manifest::parse_with(&format!("version: 1\nname: t\n{text}"), "m.yaml", &|_| None).unwrap();
        CedarPolicy::from_manifest(&manifest).unwrap()
    };
    let mut ask = ask();
    ask.tool = Facts::unknown("send", "mail");
    assert_eq!(ask.answer(&policy("")), "ask:rule-of-two");
    assert_eq!(ask.answer(&policy("policy: { default: allow_all }\n")), "allow:allow-all");
    let own = "policy: { default: rule_of_two, text: '@id(\"no-mail\") forbid (principal, action, resource) when { resource.group == \"mail\" };' }\n";
    assert_eq!(ask.answer(&policy(own)), "deny:no-mail");
    ask.tool.group = "post".into();
    assert_eq!(ask.answer(&policy(own)), "ask:rule-of-two");
}

#[test]
fn the_files_of_a_manifest_lie_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.cedar"), "@id(\"mine\") permit (principal, action, resource);").unwrap();
    let path = folder.path().join("m.yaml");
    let read = |file: &str| {
        std::fs::write(&path, format!("version: 1\nname: t\npolicy:\n  files:\n    - {file}\n")).unwrap();
        CedarPolicy::from_manifest(&Manifest::read(Path::new(&path)).unwrap())
    };
    assert_eq!(ask().of(&read("mine.cedar").unwrap()), Decision::Allow { policies: vec!["mine".into()] });
    let missing = read("other.cedar").err().unwrap();
    assert!(missing.message().contains("m.yaml:5: policy.files[0]: "), "{}", missing.message());
    assert!(missing.message().contains("other.cedar: cannot be read"), "{}", missing.message());
}
