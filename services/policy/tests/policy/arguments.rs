use serde_json::{Value, json};

use crate::ask::{PERMIT, ask, policy};

/// Each policy with arguments and what it says of them.
fn table(text: &str, rows: &[(Value, &str)]) {
    let policy = policy(&format!("{PERMIT}{text}"));
    for (arguments, wanted) in rows {
        assert_eq!(ask().arguments(arguments.clone()).answer(&policy), *wanted, "{text} of {arguments}");
    }
}

#[test]
fn only_one_site_may_be_fetched() {
    let text = r#"@id("one-site") forbid (principal, action, resource == Tool::"web/http_fetch")
        unless { context.arguments.text.hasTag("url") && context.arguments.text.getTag("url") like "https://example.com/*" };"#;
    table(
        text,
        &[
            (json!({ "url": "https://example.com/a" }), "allow:rest"),
            (json!({ "url": "https://example.com.evil.net/a" }), "deny:one-site"),
            (json!({ "url": "https://evil.net/?https://example.com/" }), "deny:one-site"),
            (json!({ "url": "http://example.com/a" }), "deny:one-site"),
            (json!({ "url": ["https://example.com/a"] }), "deny:one-site"),
            (json!({ "url": { "": "https://example.com/a" } }), "deny:one-site"),
            (json!({ "url": null }), "deny:one-site"),
            (json!({}), "deny:one-site"),
        ],
    );
}

#[test]
fn an_amount_has_a_limit_without_a_person_and_one_with() {
    let text = r#"
        @id("pay.limit") forbid (principal, action, resource)
        unless { context.arguments.decimals.hasTag("amount") && context.arguments.decimals.getTag("amount").lessThanOrEqual(decimal("1000.0")) };
        @id("pay.ask") forbid (principal, action == Action::"call_unattended", resource)
        unless { context.arguments.decimals.hasTag("amount") && context.arguments.decimals.getTag("amount").lessThan(decimal("10.0")) };"#;
    table(
        text,
        &[
            (json!({ "amount": 9 }), "allow:rest"),
            (json!({ "amount": 9.99 }), "allow:rest"),
            (json!({ "amount": 10 }), "ask:pay.ask"),
            (json!({ "amount": 1000.0 }), "ask:pay.ask"),
            (json!({ "amount": 1000.01 }), "deny:pay.limit"),
            // Rounded it would pass.
            (json!({ "amount": 1_000.000_001 }), "deny:pay.limit"),
            (json!({ "amount": "9" }), "deny:pay.limit"),
            (json!({ "amount": 1e300 }), "deny:pay.limit"),
            (json!({ "amount": u64::MAX }), "deny:pay.limit"),
        ],
    );
}

#[test]
fn all_of_a_list_must_be_known() {
    let text = r#"@id("to") forbid (principal, action, resource)
        unless { context.arguments.lists.hasTag("mail.to") && ["ann@a.org", "bob@a.org"].containsAll(context.arguments.lists.getTag("mail.to")) };"#;
    table(
        text,
        &[
            (json!({ "mail": { "to": ["bob@a.org"] } }), "allow:rest"),
            (json!({ "mail": { "to": ["bob@a.org", "eve@b.org"] } }), "deny:to"),
            (json!({ "mail": { "to": ["bob@a.org", ["eve@b.org"]] } }), "deny:to"),
            (json!({ "mail": { "to": ["bob@a.org", "e".repeat(10_000)] } }), "deny:to"),
            // Two ways to write one path would be one too many.
            (json!({ "mail.to": ["bob@a.org"] }), "deny:to"),
        ],
    );
}

#[test]
fn what_is_too_deep_or_too_large_is_known_to_be_unread() {
    let text = r#"@id("unread") forbid (principal, action, resource) when { context.unreadable };
        @id("hidden") forbid (principal, action, resource) when { context.arguments.text.hasTag("a.a.a.a.a.a.a.a.a") };"#;
    let nested = |depth: usize| (0..depth).fold(json!("x"), |inner, _| json!({ "a": inner }));
    let many = |count: usize| Value::Object((0..count).map(|n| (format!("k{n}"), json!(n))).collect());
    table(
        text,
        &[
            (nested(8), "allow:rest"),
            (nested(9), "deny:unread"),
            (nested(500), "deny:unread"),
            (many(256), "allow:rest"),
            (many(257), "deny:unread"),
            (json!({ "text": "x".repeat(8 << 10) }), "allow:rest"),
            (json!({ "text": "x".repeat(50 << 20) }), "deny:unread"),
            (json!("no object"), "deny:unread"),
            (json!(null), "allow:rest"),
        ],
    );
}
