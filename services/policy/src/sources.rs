//! From the text of policies to a set that is known to fit the schema. All that can be wrong is found here, at start.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use cedar_policy::{Policy, PolicyId, PolicySet, ValidationError, ValidationMode, Validator};
use llama_stack_core::{Error, Result};
use miette::Diagnostic;

/// Policies as somebody wrote them.
#[derive(Clone, Debug)]
pub struct Source {
    /// For errors: the path of a file, or where in the manifest the text stands.
    pub name: String,
    pub text: String,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    fn place(&self, offset: usize) -> String {
        let line = self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        format!("{}:{line}", self.name)
    }

    /// Where `diagnostic` points to, or else where its policy begins.
    fn place_of(&self, diagnostic: &dyn Diagnostic, policy: Option<&Policy>) -> String {
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        self.place(label.map_or_else(|| policy.map_or(0, begin), |label| label.offset()))
    }
}

/// A parsed policy with its id.
pub(crate) struct Checked {
    pub(crate) policy: Policy,
    /// `@reason("…")`: for the model, where this policy refuses its call.
    pub(crate) reason: Option<String>,
}

/// # Errors
/// `InvalidArgument`: `file:line: policy "id": what is wrong`.
pub(crate) fn read(sources: &[Source], validator: &Validator) -> Result<Vec<Checked>> {
    let (mut checked, mut places) = (Vec::new(), BTreeMap::new());
    for source in sources {
        let set = parse(source)?;
        for policy in set.policies() {
            let (id, place) = (policy.id().to_string(), source.place(begin(policy)));
            if let Some(earlier) = places.insert(id.clone(), place.clone()) {
                return Err(wrong(&place, &format!("policy {id:?}: {earlier} has this id already")));
            }
        }
        validate(source, &set, validator)?;
        checked.extend(set.policies().map(|policy| Checked {
            policy: policy.clone(),
            reason: policy.annotation("reason").filter(|reason| !reason.is_empty()).map(Into::into),
        }));
    }
    if checked.is_empty() {
        return Err(Error::invalid("policy", "there is no policy, so every call would be denied; write at least one `permit`"));
    }
    Ok(checked)
}

/// Each policy under the id of its `@id`.
fn parse(source: &Source) -> Result<PolicySet> {
    let parsed = PolicySet::from_str(&source.text).map_err(|errors| match errors.iter().next() {
        Some(first) => wrong(&source.place_of(first, None), &format!("{first}{}", more(errors.iter().count()))),
        None => wrong(&source.name, &errors.to_string()),
    })?;
    if let Some(template) = parsed.templates().next() {
        let id = template.annotation("id").unwrap_or_default();
        return Err(wrong(&source.name, &format!("policy {id:?}: is a template, and nothing fills it; name who and what instead of `?`")));
    }
    if parsed.is_empty() {
        return Err(wrong(&source.name, "holds no policy"));
    }
    let mut policies: Vec<_> = parsed.policies().collect();
    policies.sort_by_key(|policy| begin(policy));
    let mut named: BTreeMap<&str, &Policy> = BTreeMap::new();
    let mut set = PolicySet::new();
    for policy in policies {
        let place = source.place(begin(policy));
        let id = policy.annotation("id").ok_or_else(|| wrong(&place, "a policy without an id; write @id(\"…\") before it"))?;
        // Ids are joined by commas in journals.
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte)) {
            return Err(wrong(&place, &format!("policy {id:?}: an id must be 1 to 64 of letters, digits and _ - . : /")));
        }
        if let Some(earlier) = named.insert(id, policy) {
            let earlier = source.place(begin(earlier));
            return Err(wrong(&place, &format!("policy {id:?}: {earlier} has this id already")));
        }
        set.add(policy.new_id(PolicyId::new(id))).map_err(|error| wrong(&place, &error.to_string()))?;
    }
    Ok(set)
}

fn validate(source: &Source, set: &PolicySet, validator: &Validator) -> Result<()> {
    let found = validator.validate(set, ValidationMode::Strict);
    for warning in found.validation_warnings() {
        let place = source.place_of(warning, set.policy(warning.policy_id()));
        tracing::warn!(place, policy = %warning.policy_id(), warning = %warning, "a policy looks wrong");
    }
    let errors: Vec<_> = found.validation_errors().collect();
    // Cedar finds them in no order; whoever mends them reads from the top.
    let line = |place: &str| place.rsplit(':').next().and_then(|line| line.parse::<usize>().ok());
    let place = |error: &ValidationError| source.place_of(error, set.policy(error.policy_id()));
    let first = errors.iter().copied().min_by_key(|error| (line(&place(error)), error.to_string()));
    let Some(first) = first else { return Ok(()) };
    // Each is found once per action that its policy is about.
    let places: BTreeSet<_> = errors.iter().map(|error| place(error)).collect();
    let more = more(places.len());
    let help = first.help().map(|help| format!("; {help}")).unwrap_or_default();
    let id = first.policy_id();
    let message = first.to_string();
    // Cedar begins such a message with the policy's id, which stands here anyhow.
    let message = message.strip_prefix(&format!("for policy `{id}`, ")).unwrap_or(&message);
    Err(wrong(&place(first), &format!("policy \"{id}\": {message}{help}{more}")))
}

/// What follows the first of `count` errors.
fn more(count: usize) -> String {
    if count < 2 { String::new() } else { format!(" (and {} more)", count - 1) }
}

/// Where a policy begins in its source, in bytes.
fn begin(policy: &Policy) -> usize {
    policy.as_ref().loc().map_or(0, |loc| loc.start())
}

fn wrong(place: &str, what: &str) -> Error {
    Error::invalid("policy", format!("{place}: {what}"))
}
