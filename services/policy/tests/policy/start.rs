use llama_stack_core::Manifest;
use llama_stack_policy::{CedarPolicy, Source};

use crate::ask::PERMIT;

fn message(texts: &[&str]) -> String {
    let sources: Vec<_> = texts.iter().enumerate().map(|(n, text)| Source::new(format!("{n}.cedar"), *text)).collect();
    CedarPolicy::new(&sources).err().expect("was accepted").message().to_owned()
}

/// After a permit on line 1, `text` begins on line 2.
fn wrong(text: &str) -> String {
    message(&[&format!("{PERMIT}{text}")])
}

#[test]
fn what_is_not_cedar_is_named_with_file_and_line() {
    let said = wrong("\n@id(\"a\") permit (principal, action, resource) when { true ;");
    assert!(said.starts_with("0.cedar:3: "), "{said}");
    let said = message(&[PERMIT, "\n\nforbid"]);
    assert!(said.starts_with("1.cedar:3: "), "{said}");
}

#[test]
fn what_does_not_fit_the_schema_is_named_with_its_policy() {
    for (condition, said) in [
        ("principal.rolls.contains(\"admin\")", "`rolls`"),
        ("resource.remote == \"yes\"", "type"),
        ("context.arguments.text.getTag(\"url\") == \"x\"", "tag"),
        ("context.arguments.url == \"x\"", "`arguments.url`"),
        ("context.seen", "type"),
        ("User::\"acme/ann\" == Person::\"ann\"", "Person"),
    ] {
        let message = wrong(&format!("@id(\"a\")\nforbid (principal, action, resource)\nwhen {{ {condition} }};"));
        assert!(message.starts_with("0.cedar:4: policy \"a\": "), "{message}");
        assert!(message.contains(said), "{message}");
    }
    let two = "@id(\"a\") forbid (principal, action, resource) when {\nprincipal.x ||\nprincipal.y };";
    assert!(wrong(two).starts_with("0.cedar:3: ") && wrong(two).ends_with("(and 1 more)"), "{}", wrong(two));
    let message = wrong("@id(\"a\")\nforbid (principal, action == Action::\"cal\", resource);");
    assert!(message.starts_with("0.cedar:3: policy \"a\": ") && message.contains("cal"), "{message}");
}

#[test]
fn every_policy_has_an_id_of_its_own() {
    assert_eq!(wrong("\nforbid (principal, action, resource);"), "0.cedar:3: a policy without an id; write @id(\"…\") before it");
    assert_eq!(wrong("@id(\"rest\") forbid (principal, action, resource);"), "0.cedar:2: policy \"rest\": 0.cedar:1 has this id already");
    assert_eq!(message(&[PERMIT, &format!("\n{PERMIT}")]), "1.cedar:2: policy \"rest\": 0.cedar:1 has this id already");
    for id in ["", "a,b", "a b", &"x".repeat(65)] {
        let message = wrong(&format!("@id(\"{id}\") forbid (principal, action, resource);"));
        assert!(message.contains("an id must be 1 to 64"), "{message}");
    }
}

#[test]
fn nothing_and_templates_are_refused() {
    assert!(message(&[]).contains("there is no policy"));
    assert_eq!(message(&[PERMIT, "// later\n"]), "1.cedar: holds no policy");
    assert!(wrong("@id(\"t\") permit (principal == ?principal, action, resource);").contains("policy \"t\": is a template"));
}

#[test]
fn text_in_the_manifest_is_named_by_its_place_there() {
    let text = "version: 1\nname: t\npolicy:\n  text: |\n    @id(\"a\")\n    permit (principal, action, resource) when { principal.nme == \"x\" };\n";
    let manifest = Manifest::parse_with(text, "m.yaml", &|_| None).unwrap();
    let message = CedarPolicy::from_manifest(&manifest).err().unwrap().message().to_owned();
    assert!(message.starts_with("m.yaml:4: policy.text:2: policy \"a\": "), "{message}");
}

#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let page = include_str!("../../../../docs/policy.md");
    let examples: Vec<_> = page.split("```cedar\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() > 1);
    for example in examples {
        CedarPolicy::new(&[Source::new("policy.md", example)]).unwrap();
    }
    let manifest = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let manifest = Manifest::parse_with(&format!("version: 1\nname: t\n{manifest}"), "m.yaml", &|_| None).unwrap();
    assert_eq!(manifest.policy.files.len(), 1);
    let message = CedarPolicy::from_manifest(&manifest).err().unwrap().message().to_owned();
    assert!(message.starts_with("m.yaml:4: policy.files[0]: policies/mail.cedar: cannot be read"), "{message}");
}
