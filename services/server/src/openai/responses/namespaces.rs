//! Functions in namespaces. To a model a function has one name, which begins with its namespace; the namespaces that a request had
//! are kept with its turn, and tell the two apart again.

use serde_json::Value;

/// Of what names of functions may hold.
const BETWEEN: &str = "__";

/// The name that the model is told.
pub(crate) fn joined(namespace: &str, name: &str) -> String {
    format!("{namespace}{BETWEEN}{name}")
}

/// As [`joined`], of a function that a client names beside its namespace, or without one.
pub(crate) fn told(function: &Value, name: String) -> String {
    match function.get("namespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => joined(namespace, &name),
        None => name,
    }
}

/// The namespace, where it is one of these, and the function's name in it.
pub(crate) fn parted(namespaces: &[String], name: &str) -> (Option<String>, String) {
    let within = |namespace: &String| {
        let rest = name.strip_prefix(namespace.as_str())?.strip_prefix(BETWEEN).filter(|rest| !rest.is_empty())?;
        Some((namespace.clone(), rest.to_owned()))
    };
    // Of two that fit, one of which begins with the other, the longer.
    match namespaces.iter().filter_map(within).max_by_key(|(namespace, _)| namespace.len()) {
        Some((namespace, rest)) => (Some(namespace), rest),
        None => (None, name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_that_is_none_is_passed_over() {
        assert_eq!(told(&json!({ "namespace": "pets" }), "look".into()), "pets__look");
        for without in [json!({}), json!({ "namespace": null }), json!({ "namespace": "" })] {
            assert_eq!(told(&without, "look".into()), "look");
        }
    }

    #[test]
    fn a_name_is_parted_where_it_was_joined() {
        let namespaces = ["a".to_owned(), "a__b".to_owned()];
        let parted = |name: &str| parted(&namespaces, name);
        assert_eq!(parted(&joined("a", "look")), (Some("a".into()), "look".into()));
        assert_eq!(parted(&joined("a__b", "look")), (Some("a__b".into()), "look".into()));
        for name in ["look", "a", "a__", "b__look", "ab__look"] {
            assert_eq!(parted(name), (None, name.to_owned()));
        }
    }
}
