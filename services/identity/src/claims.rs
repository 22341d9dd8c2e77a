//! From the claims of a token to a principal.

use llama_stack_core::{Authenticated, Principal, Result, context::named, manifest::Claims};
use serde_json::Value;

use crate::authenticator::wrong;

/// # Errors
/// `Unauthenticated`: a claim that is needed and not there, or that cannot be a name. Says which.
pub(crate) fn authenticated(claims: &Claims, said: &Value, credential: &str) -> Result<Authenticated> {
    let refused = |claim: &str, what: &str| wrong("invalid_token", format!("the token's claim {claim:?} {what}"));
    let name = |claim: &str| {
        let value = find(said, claim).and_then(Value::as_str).ok_or_else(|| refused(claim, "is missing or no text"))?;
        named(claim, value).map_err(|_| refused(claim, "must be 1 to 128 of letters, digits and _ . @ : | + -"))
    };
    let tenant = match &claims.tenant {
        Some(claim) => name(claim)?,
        None => claims.default_tenant.clone(),
    };
    let roles: Vec<&str> = match find(said, &claims.roles) {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let role = |role: &str| match claims.role_names.get(role) {
        Some(here) => Some(here.clone()),
        // What cannot be a role's name is none.
        None if claims.role_names.is_empty() => named("role", role).ok(),
        None => None,
    };
    let attribute = |(name, claim): (&String, &String)| {
        let value = match find(said, claim)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(is) => is.to_string(),
            _ => return None,
        };
        Some((name.clone(), value))
    };
    Ok(Authenticated {
        principal: Principal { id: name(&claims.principal)?, tenant, roles: roles.into_iter().filter_map(role).collect() },
        attributes: claims.attributes.iter().filter_map(attribute).collect(),
        credential: credential.into(),
        ..Authenticated::default()
    })
}

/// A claim by its whole name, which may have dots in it, or by its path.
fn find<'a>(said: &'a Value, claim: &str) -> Option<&'a Value> {
    said.get(claim).or_else(|| claim.split('.').try_fold(said, |value, part| value.get(part)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_become_tenant_roles_and_attributes() {
        let claims = Claims {
            tenant: Some("org".into()),
            roles: "realm.roles".into(),
            role_names: [("Administrators".to_owned(), "admin".to_owned())].into(),
            attributes: [("team".to_owned(), "https://x.org/team".to_owned())].into(),
            ..Claims::default()
        };
        let said = json!({ "sub": "auth0|7", "org": "acme", "realm": { "roles": ["Administrators", "x"] }, "https://x.org/team": "blue" });
        let who = authenticated(&claims, &said, "jwt").unwrap();
        assert_eq!(who.principal, Principal { id: "auth0|7".into(), tenant: "acme".into(), roles: vec!["admin".into()] });
        assert_eq!(who.attributes["team"], "blue");
        // No tenant is not the default tenant.
        assert!(authenticated(&claims, &json!({ "sub": "a" }), "jwt").unwrap_err().message().contains("\"org\""));
        assert!(authenticated(&claims, &json!({ "sub": "a/../b", "org": "acme" }), "jwt").is_err());
    }
}
