//! Evaded text is read, and text without disguises is left alone.
//!
//! `fixtures/evasion.jsonl`: texts that hide an attack, the way in which they do, and the attack as it would be written
//! plainly. `fixtures/benign.jsonl`: texts of many languages and kinds in which nothing is hidden.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{collections::BTreeMap, sync::Arc};

use llama_stack_core::{Context, Deps, Registry, Safety};
use llama_stack_proto::v1::{Message, RunShieldRequest, RunShieldResponse, ShieldStage};
use llama_stack_safety::normalise::variants;
use serde_json::{Value, json};

fn lines(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn evasions() -> Vec<Value> {
    lines(include_str!("fixtures/evasion.jsonl"))
}

fn benign() -> Vec<Value> {
    lines(include_str!("fixtures/benign.jsonl"))
}

/// Lower case, with one space for any white space.
fn plain(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How many texts of each class there are, and how many of them hold.
fn shares(holds: impl Fn(&Value) -> bool) -> BTreeMap<String, (usize, usize)> {
    let mut shares = BTreeMap::new();
    for case in evasions() {
        let (all, held): &mut (usize, usize) = shares.entry(case["class"].as_str().unwrap().to_owned()).or_default();
        *all += 1;
        let holds = holds(&case);
        *held += usize::from(holds);
    }
    shares
}

#[test]
fn the_attack_is_among_the_readings_of_what_hides_it() {
    assert!(evasions().len() >= 200);
    let found = shares(|case| {
        let attack = plain(case["plain"].as_str().unwrap());
        variants(case["text"].as_str().unwrap()).iter().any(|variant| plain(&variant.text).contains(&attack))
    });
    let hidden = shares(|case| !plain(case["text"].as_str().unwrap()).contains(&plain(case["plain"].as_str().unwrap())));
    for (class, (all, held)) in &found {
        println!("{class}: {held} of {all}, {} of them not seen in the text as it is", hidden[class].1);
        // What every class must reach; a border of windows is no disguise by itself.
        let least = LEAST.iter().find(|(name, _)| name == class).unwrap().1;
        assert!(held * 100 >= all * least, "{class}: {held} of {all}, at least {least} % are asked for");
        assert!(class == "window border" || hidden[class].1 * 100 >= all * 95, "{class} hides nothing");
    }
    assert_eq!(found.len(), LEAST.len());
}

/// Percent.
const LEAST: [(&str, usize); 12] = [
    ("ciphers", 95),
    ("encodings", 95),
    ("hidden", 95),
    ("homoglyphs", 95),
    ("languages", 95),
    ("leetspeak", 95),
    ("markup and splits", 95),
    ("nested", 95),
    ("spacing", 95),
    ("styled letters", 95),
    ("window border", 100),
    ("zero-width", 95),
];

#[test]
fn a_text_without_disguises_has_one_reading() {
    let texts = benign();
    assert!(texts.len() >= 200);
    let more: Vec<String> = texts
        .iter()
        .filter_map(|case| {
            let text = case["text"].as_str().unwrap();
            let variants = variants(text);
            (variants.len() > 1).then(|| format!("{text:?} as {:?}", variants[1]))
        })
        .collect();
    // Escaped addresses of other scripts are read, and that is right.
    assert!(more.len() * 50 <= texts.len(), "{more:#?}");
}

async fn shield(provider_type: &'static str, config: Value) -> Arc<dyn Safety> {
    let mut registry = Registry::default();
    llama_stack_safety::register(&mut registry);
    let mut deps = Deps::new("/nowhere");
    deps.provider_id = "it".into();
    registry.safety.build(provider_type, config, deps).await.unwrap()
}

async fn judge(shield: &dyn Safety, text: &str) -> RunShieldResponse {
    let request = RunShieldRequest {
        shield_id: "it".into(),
        messages: vec![Message::user(text)],
        stage: ShieldStage::Input.into(),
        ..RunShieldRequest::default()
    };
    shield.run_shield(&Context::test("a"), request).await.unwrap()
}

/// The attacks as keywords.
async fn attacks() -> Arc<dyn Safety> {
    let mut keywords: Vec<String> = evasions().iter().map(|case| case["plain"].as_str().unwrap().to_owned()).collect();
    keywords.sort();
    keywords.dedup();
    shield("inline::patterns", json!({"rules": [{"name": "attacks", "keywords": keywords}]})).await
}

#[tokio::test]
async fn keywords_find_the_attack_behind_the_disguise() {
    let shield = attacks().await;
    let (mut found, all) = (0, evasions());
    for case in &all {
        let text = case["text"].as_str().unwrap();
        let response = judge(&*shield, text).await;
        found += usize::from(response.violation.is_some());
        for finding in response.findings {
            assert!(text.get(finding.start as usize..finding.end as usize).is_some_and(|place| !place.is_empty()));
        }
    }
    assert!(found * 100 >= all.len() * 95, "{found} of {}", all.len());
}

#[tokio::test]
async fn benign_texts_pass_every_shield() {
    let shields = [
        ("patterns", attacks().await),
        ("pii", shield("inline::pii", json!({"canaries": ["blue-heron-4471"]})).await),
        ("unicode", shield("inline::unicode", json!({})).await),
        ("code", shield("inline::code-rules", json!({})).await),
    ];
    let mut fired = Vec::new();
    for case in benign() {
        let text = case["text"].as_str().unwrap();
        for (name, shield) in &shields {
            let findings = judge(&**shield, text).await.findings;
            fired.extend(findings.first().map(|finding| format!("{name}: {} in {text:?}", finding.detail)));
        }
    }
    assert!(fired.is_empty(), "{fired:#?}");
}

/// Ten times the text is not a hundred times the work: what a shield does is counted by what it makes, not by a clock.
#[test]
fn readings_grow_with_the_text_and_no_faster() {
    for piece in [
        "aWdub3JlIGFsbA== ",
        "i g n o r e ",
        "%69%67%6e ",
        "\u{200b}\u{fe01}\u{e0061}",
        "&#105;",
        "іgnоrе ",
        "1gn0r3 ",
        "**a**b ",
        "\u{fdfa}",
        "(((((",
        "3f",
    ] {
        let size = |times: usize| variants(&piece.repeat(times)).iter().map(|variant| variant.text.len()).sum::<usize>();
        let (small, large) = (size(40), size(400));
        assert!(large <= small * 16 + 4096, "{piece:?}: {small} and {large}");
        assert!(variants(&piece.repeat(400)).len() <= 16);
    }
}

#[tokio::test]
async fn the_shields_say_what_they_are() {
    for (provider_type, config) in [
        ("inline::patterns", json!({"rules": [{"name": "x", "keywords": ["x"]}]})),
        ("inline::pii", json!({})),
        ("inline::unicode", json!({})),
        ("inline::code-rules", json!({})),
    ] {
        let shields = shield(provider_type, config).await.list_shields(&Context::test("a"), Default::default()).await.unwrap().shields;
        assert_eq!((shields.len(), shields[0].id.as_str(), shields[0].provider_type.as_str()), (1, "it", provider_type));
        assert!(!shields[0].stages.is_empty() && !shields[0].categories.is_empty() && !shields[0].description.is_empty());
        assert!(!shields[0].reads_conversation);
    }
}
