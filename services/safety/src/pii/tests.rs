use std::sync::{Arc, OnceLock};

use llama_stack_core::{Code, Context};
use llama_stack_proto::v1::{Message, Role, RunShieldRequest, RunShieldResponse, ToolCall, violation};
use proptest::prelude::*;
use serde_json::json;

use super::*;

async fn shield(config: serde_json::Value) -> Result<Arc<dyn Safety>> {
    let mut deps = Deps::new("/nowhere");
    deps.provider_id = "pii".into();
    build(serde_json::from_value(config).unwrap(), deps).await
}

async fn judge(config: serde_json::Value, message: Message) -> RunShieldResponse {
    let request =
        RunShieldRequest { shield_id: "pii".into(), messages: vec![message], stage: ShieldStage::Output.into(), ..Default::default() };
    shield(config).await.unwrap().run_shield(&Context::test("a"), request).await.unwrap()
}

async fn redacted(text: &str) -> String {
    let response = judge(json!({}), Message::user(text)).await;
    response.redacted.map_or_else(|| text.to_owned(), |message| message.joined_text())
}

/// Made for this test, of the issuers' shapes: in two halves, so that no scanner of sources takes them for real ones.
fn token(first: &str, second: &str) -> String {
    format!("{first}{second}")
}

#[tokio::test]
async fn personal_data_is_replaced_by_what_it_was() {
    for (text, clean) in [
        ("write to anna.example@mail.example.org today", "write to [EMAIL] today"),
        ("anna (at) mail (dot) org", "[EMAIL]"),
        ("call +49 30 901820-14 or 030/901820", "call [PHONE] or [PHONE]"),
        ("(212) 555-0143, 07700 900123, 01 23 45 67 89", "[PHONE], [PHONE], [PHONE]"),
        ("card 4111 1111 1111 1111, exp 04/29", "card [CREDIT_CARD], exp 04/29"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [IBAN] please"),
        ("ssn 123-45-6789", "ssn [US_SSN]"),
        ("NI number QQ 12 34 56 C or AB123456C", "NI number QQ 12 34 56 C or [UK_NINO]"),
        ("IdNr 86 095 742 719", "IdNr [DE_TAX_ID]"),
        ("from 203.0.113.7 and 2001:db8::8a2e:370:7334", "from [IP_ADDRESS] and [IP_ADDRESS]"),
        ("mac 00:1A:2b:3C:4d:5E", "mac [MAC_ADDRESS]"),
        ("born on 14 March 1987 in Ulm", "born on [DATE_OF_BIRTH] in Ulm"),
        ("Passport No. C01X00T47", "Passport No. [PASSPORT]"),
        ("pay 1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "pay [CRYPTO_ADDRESS]"),
        ("pay bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "pay [CRYPTO_ADDRESS]"),
    ] {
        assert_eq!(redacted(text).await, clean);
    }
}

#[tokio::test]
async fn secrets_are_replaced_by_what_they_were() {
    let jwt = format!("{}.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", token("eyJhbGciOiJIUzI1NiIs", "InR5cCI6IkpXVCJ9"));
    for (text, clean) in [
        (token("key AKIA", "QYLPMN5HFIQR7XYA"), "key [AWS_KEY]"),
        (token("ghp_", "3xK9vQ2mZt7LrW8sYpB4nDfHc6JgA1eU0iOq"), "[GITHUB_TOKEN]"),
        (token("glpat-", "Zx8vB2nMq4LkT9wYr6Ps"), "[GITLAB_TOKEN]"),
        (token("xoxb-", "123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx"), "[SLACK_TOKEN]"),
        (token("sk_live_", "4eC39HqLyjWDarjtT1zdp7dc"), "[STRIPE_KEY]"),
        (token("AIza", "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"), "[GOOGLE_KEY]"),
        (jwt, "[JWT]"),
        ("postgres://app:s3cr3tPw9@db.internal/x".to_owned(), "postgres://[BASIC_AUTH]@db.internal/x"),
        ("password = \"h7Gk2!pQz\"; more".to_owned(), "password = \"[PASSWORD]\"; more"),
        (format!("-----BEGIN {} KEY-----\nMIIEow\nabc=\n-----END RSA {0} KEY-----\nend", "PRIVATE"), "[PRIVATE_KEY]\nend"),
    ] {
        assert_eq!(redacted(&text).await, clean);
    }
}

#[tokio::test]
async fn a_githubs_checksum_is_the_one_that_its_tokens_carry() {
    // Of low entropy, so that the checksum alone decides.
    let random = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (mut crc, mut check) = (crc32fast::hash(random.as_bytes()), Vec::new());
    for _ in 0..6 {
        check.insert(0, digits[(crc % 62) as usize]);
        crc /= 62;
    }
    let check = String::from_utf8(check).unwrap();
    assert_eq!(redacted(&format!("ghp_{random}{check}")).await, "[GITHUB_TOKEN]");
    assert_eq!(redacted(&format!("ghp_{random}aaaaaa")).await, format!("ghp_{random}aaaaaa"));
}

#[tokio::test]
async fn what_only_looks_like_it_passes() {
    for text in [
        "order 4111 1111 1111 1112 and 1234567890123456",
        "version 10.2.3.4, localhost 127.0.0.1, at 12:30:45",
        "std::io::Error and a::b::c, left-pad@1.3.0",
        "password: <your password here>, token = os.environ['TOKEN'], api_key: ${API_KEY}",
        "def login(user: str, password: str) -> Token: return self.tokens.get(user)",
        "The password is required. max_tokens: 4096",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b on 2024-01-12 10:00:00 +0100",
        "ISBN 978-3-16-148410-0, 000-12-3456, invoice 2024-000123",
        "3.14159265358979 and 1,000,000 and 2024-11-24T20:20:20Z",
    ] {
        assert_eq!(redacted(text).await, text);
    }
}

#[tokio::test]
async fn disguised_data_is_found_where_it_stands() {
    assert_eq!(redacted("mail an\u{200b}na@ma\u{200b}il.example").await, "mail [EMAIL]");
    assert_eq!(redacted("４１１１ １１１１ １１１１ １１１１ is it").await, "[CREDIT_CARD] is it");
    // base64 of a sentence with an address in it.
    assert_eq!(redacted("see c2VuZCBpdCB0byBhbm5hQG1haWwuZXhhbXBsZSBub3c= ok").await, "see [EMAIL] ok");
    let call = ToolCall::new("1", "send", r#"{"to":"anna\u0040mail.example","n":1}"#);
    let message = judge(json!({}), Message::new(Role::Assistant, vec![call.into()])).await.redacted.unwrap();
    assert_eq!(message.tool_calls().next().unwrap().arguments, r#"{"to":"[EMAIL]","n":1}"#);
}

#[tokio::test]
async fn findings_say_where_and_never_what() {
    let text = "ünï: password = h7Gk2!pQz, again h7Gk2!pQz";
    let response = judge(json!({}), Message::user(text)).await;
    let found: Vec<&str> = response.findings.iter().map(|found| &text[found.start as usize..found.end as usize]).collect();
    assert_eq!(found, ["h7Gk2!pQz", "h7Gk2!pQz"]);
    assert!(response.findings.iter().all(|found| !found.detail.contains("h7Gk2") && found.code == "PASSWORD"));
    assert!(response.violation.is_none() && response.judged_bytes == text.len() as u64);
    assert!(response.scores.iter().any(|score| score.code == "PASSWORD" && score.violated));
}

/// A beginning without an end is a key as far as it goes, and what lies in it is not looked at again and again.
#[tokio::test]
async fn many_beginnings_are_one_key() {
    let text = format!("-----BEGIN {} KEY-----\n", "PRIVATE").repeat(4000);
    let response = judge(json!({}), Message::user(text)).await;
    assert_eq!((response.findings.len(), response.redacted.unwrap().joined_text().as_str()), (1, "[PRIVATE_KEY]"));
}

#[tokio::test]
async fn a_kind_may_block_and_another_be_left_out() {
    let config = json!({"except": ["email"], "levels": {"credit-card": "block"}, "canaries": ["blue-heron-4471"]});
    let response = judge(config, Message::user("a@example.org pays with 4111111111111111 for Blue Heron 4471")).await;
    let violation = response.violation.unwrap();
    assert_eq!((violation.level(), &violation.categories[..]), (violation::Level::Error, &["CREDIT_CARD".to_owned()][..]));
    let codes: Vec<&str> = response.findings.iter().map(|found| found.code.as_str()).collect();
    assert_eq!(codes, ["CREDIT_CARD", "CANARY"]);
    let response = judge(json!({"allow": ["Info@Example.org"]}), Message::user("info@example.org")).await;
    assert!(response.findings.is_empty());
}

#[tokio::test]
async fn a_wrong_configuration_is_refused() {
    assert_eq!(shield(json!({"kinds": []})).await.err().unwrap().code(), Code::InvalidArgument);
    assert_eq!(shield(json!({"canaries": ["abc"]})).await.err().unwrap().field(), Some("config.canaries[0]"));
    assert!(serde_json::from_value::<Config>(json!({"kinds": ["emial"]})).is_err());
}

/// Built once: its expressions take longer than the texts of all cases.
fn found_in(text: &str) -> (Message, RunShieldResponse) {
    static SHIELD: OnceLock<Arc<dyn Safety>> = OnceLock::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let shield = SHIELD.get_or_init(|| runtime.block_on(shield(json!({"canaries": ["blue-heron-4471"]}))).unwrap());
    let message = Message::user(text);
    let request = RunShieldRequest {
        shield_id: "pii".into(),
        messages: vec![message.clone()],
        stage: ShieldStage::Output.into(),
        ..Default::default()
    };
    (message, runtime.block_on(shield.run_shield(&Context::test("a"), request)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn redaction_leaves_no_found_secret(
        around in proptest::collection::vec("[a-z .,\n\u{e9}\u{4e2d}\"'=:{}]{0,12}", 6),
        which in proptest::collection::vec(0..5_usize, 5),
    ) {
        let secrets = ["4111 1111 1111 1111", "DE89370400440532013000", "password=Zx8vB2nMq4", "b l u e heron 4471", "123-45-6789"];
        let text: String = around.iter().zip(which.iter().map(|at| secrets[*at]).chain([""])).map(|(around, secret)| format!("{around} {secret} ")).collect();
        let (_, response) = found_in(&text);
        prop_assert!(!response.findings.is_empty());
        let clean = response.redacted.unwrap().joined_text();
        for found in &response.findings {
            let value = &text[found.start as usize..found.end as usize];
            if found.code != "EMAIL" {
                prop_assert!(!clean.contains(value), "{value:?} is left in {clean:?}");
            }
        }
    }

    #[test]
    fn any_text_is_judged(text in "\\PC{0,300}") {
        let (message, response) = found_in(&text);
        for found in &response.findings {
            prop_assert!(text.get(found.start as usize..found.end as usize).is_some());
        }
        prop_assert_eq!(response.redacted.is_some(), !response.findings.is_empty());
        prop_assert_eq!(message.parts.len(), 1);
    }
}
