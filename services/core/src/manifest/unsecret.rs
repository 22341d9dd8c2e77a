//! A manifest as it was written, before variables are expanded, without what should not be copied along with it.

use serde_json::{Map, Value};

/// Stands where a secret was.
pub const REMOVED: &str = "(removed)";

/// Parts of names whose strings are secrets.
const SECRET: [&str; 7] = ["key", "token", "secret", "password", "authorization", "credential", "passphrase"];
/// Ends of names that say where a secret is, or of what, and hold none.
const NAMING: [&str; 6] = ["_env", "_file", "_path", "_id", "_ids", "_url"];
/// Maps all of whose strings are treated as secrets.
const MAPS: [&str; 2] = ["headers", "env"];
/// What of a JSON Web Key anybody may know.
const PUBLIC: [&str; 11] = ["kty", "kid", "alg", "use", "crv", "n", "e", "x", "y", "x5t", "key_ops"];

/// The same value without its secrets. References to variables stay; their defaults go where the value is a secret.
pub fn without_secrets(value: &Value) -> Value {
    cleaned(value, false)
}

fn cleaned(value: &Value, secret: bool) -> Value {
    match value {
        Value::Object(map) => {
            let is_jwk = map.contains_key("kty");
            let entry = |(name, inner): (&String, &Value)| {
                // A section that is only named after secrets has fields of its own.
                let is_section = inner.is_object() && !MAPS.contains(&name.as_str());
                let is_known = is_jwk && PUBLIC.contains(&name.as_str());
                let hides = !is_section && !is_known && (secret || is_jwk || is_secret(name));
                (name.clone(), cleaned(inner, hides))
            };
            Value::Object(map.iter().map(entry).collect::<Map<_, _>>())
        }
        Value::Array(items) => {
            // Of a command line: what comes after an option that is named for a secret is one.
            let follows = |at: usize| at.checked_sub(1).and_then(|before| items[before].as_str()).is_some_and(is_secret_option);
            let item = |(at, item): (usize, &Value)| cleaned(item, secret && !item.is_object() || item.is_string() && follows(at));
            Value::Array(items.iter().enumerate().map(item).collect())
        }
        Value::String(text) if secret => Value::String(text_without(text)),
        Value::String(text) => Value::String(match text.split_once('=') {
            Some((option, value)) if is_secret_option(option) => format!("{option}={}", text_without(value)),
            _ => without_password(text),
        }),
        other => other.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    MAPS.contains(&name.as_str()) || SECRET.iter().any(|part| name.contains(part)) && !NAMING.iter().any(|end| name.ends_with(end))
}

/// `--api-key` and the like, in a command line.
fn is_secret_option(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|name| !name.contains(['=', ' ']) && is_secret(&name.replace('-', "_")))
}

/// `${env.NAME}`, where it is nothing else.
fn text_without(text: &str) -> String {
    let inner = text.strip_prefix("${env.").and_then(|rest| rest.strip_suffix('}')).filter(|inner| !inner.contains("${"));
    match inner {
        Some(inner) => format!("${{env.{}}}", inner.split(":=").next().unwrap_or_default()),
        None if text.is_empty() => String::new(),
        None => REMOVED.to_owned(),
    }
}

/// A URL without the password that may stand before its host, or the token that stands there alone in a URL of the web, and without
/// what its query has under names of secrets.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        None => authority.to_owned(),
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:{REMOVED}@{host}"),
            None if scheme.starts_with("http") => format!("{}@{host}", text_without(user)),
            None => authority.to_owned(),
        },
    };
    let Some((path, query)) = path.split_once('?') else { return format!("{scheme}://{authority}{path}") };
    let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if is_secret(name) => format!("{name}={}", text_without(value)),
        _ => pair.to_owned(),
    };
    let query = query.split('&').map(pair).collect::<Vec<_>>().join("&");
    format!("{scheme}://{authority}{path}?{query}{fragment}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_and_what_names_them_stays() {
        let written = json!({
            "store": { "url": "postgres://ann:canary1@db/x?sslmode=require" },
            "providers": { "inference": [
                { "id": "a", "config": { "api_key": "canary2", "max_tokens": 5, "model": "m" } },
                { "id": "b", "config": { "api_key": "${env.KEY:=canary3}", "headers": { "x-team": "canary4" } } },
                { "id": "c", "config": { "password": "${env.PASSWORD}", "key_file": "/etc/key" } },
            ] },
            "server": { "auth": { "api_keys": true, "jwt": [{ "keys": { "keys": [{ "kty": "oct", "kid": "one", "k": "canary5" }] } }] } },
        });
        let clean = without_secrets(&written);
        let text = clean.to_string();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(clean["store"]["url"], "postgres://ann:(removed)@db/x?sslmode=require");
        let config = |at: usize| clean["providers"]["inference"][at]["config"].clone();
        assert_eq!(config(0), json!({ "api_key": REMOVED, "max_tokens": 5, "model": "m" }));
        assert_eq!(config(1)["api_key"], "${env.KEY}");
        assert_eq!(config(2), json!({ "password": "${env.PASSWORD}", "key_file": "/etc/key" }));
        for (text, clean) in [
            ("postgres://db/x?user=ann&password=canary&sslmode=require", "postgres://db/x?user=ann&password=(removed)&sslmode=require"),
            ("postgres://ann@db/x", "postgres://ann@db/x"),
            ("https://canary@host/a?b=c#d", "https://(removed)@host/a?b=c#d"),
            ("https://host/sse?api_key=${env.KEY}&x=1", "https://host/sse?api_key=${env.KEY}&x=1"),
            ("https://host/sse?api_key=canary", "https://host/sse?api_key=(removed)"),
            ("a = b", "a = b"),
        ] {
            assert_eq!(without_secrets(&json!({ "url": text })), json!({ "url": clean }));
        }
        let arguments = json!({ "args": ["--api-key", "canary", "--token=canary", "--max", "5", "--token-file", "/etc/t"] });
        let clean_arguments = json!({ "args": ["--api-key", REMOVED, "--token=(removed)", "--max", "5", "--token-file", "/etc/t"] });
        assert_eq!(without_secrets(&arguments), clean_arguments);
        assert_eq!(clean["server"]["auth"]["jwt"][0]["keys"]["keys"][0]["kid"], "one");
    }
}
