//! `llama-stack policy`: whether policies are right, and what those of access say.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use llama_stack_core::{
    Error, Principal, Result,
    context::{self, DEFAULT_TENANT},
};
use llama_stack_server::{
    CedarPolicy, Policies,
    access::{ACTIONS, Access, Action, Class, actions},
    kinds,
};
use serde::Serialize;

use crate::{distribution::Source, named, output::Output, proto_json};

#[derive(Subcommand)]
pub(crate) enum PolicyVerb {
    /// Read the policies of access and of tools that a manifest names, and say what is wrong
    Check { distribution: String },
    /// Say whether somebody may do something, and by which policies
    Explain(ExplainArgs),
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    distribution: String,
    /// For example Agents.DeleteAgent
    #[arg(long)]
    action: String,
    #[arg(long, default_value = "anonymous")]
    principal: String,
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// May be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// NAME=VALUE; may be given several times
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<String>,
    /// What it is done to: agent, session, turn, bank, model and so on. Without it, a new one, or all of them
    #[arg(long, default_value = "")]
    kind: String,
    #[arg(long, default_value = "")]
    id: String,
    /// Whose it is; without it, nobody's
    #[arg(long)]
    owner: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    good: bool,
    actions: usize,
}

#[derive(Serialize)]
struct Explained {
    /// Whether anything is asked: without `server.auth` nothing is.
    in_force: bool,
    allowed: bool,
    policies: Vec<String>,
    failures: Vec<String>,
}

pub(crate) fn run(verb: PolicyVerb, output: &Output) -> Result<()> {
    match verb {
        PolicyVerb::Check { distribution } => {
            let manifest = Source::find(&distribution)?.manifest()?;
            Policies::from_manifest(&manifest)?;
            CedarPolicy::from_manifest(&manifest)?;
            let checked = Checked { good: true, actions: actions().count() };
            output.result(&checked, |checked| format!("the policies are good; there are {} actions\n", checked.actions))
        }
        PolicyVerb::Explain(args) => explain(args, output),
    }
}

fn explain(args: ExplainArgs, output: &Output) -> Result<()> {
    let manifest = Source::find(&args.distribution)?.manifest()?;
    let policies = Policies::from_manifest(&manifest)?.current();
    let action = named_action(&args.action)?;
    let (principal, tenant) = (context::named("principal", &args.principal)?, context::named("tenant", &args.tenant)?);
    let attributes: BTreeMap<String, String> = args.attributes.iter().map(|text| named::pair("attribute", text)).collect::<Result<_>>()?;
    let principal = Principal { id: principal, tenant, roles: args.roles };
    let (kind, id) = (args.kind.as_str(), args.id.as_str());
    let owner = thing(&action, kind, id, args.owner.as_deref(), &principal)?;
    let verdict = policies.decide(&Access { principal: &principal, attributes: &attributes, action: &action, kind, id, owner });
    let in_force = manifest.server.auth.is_some();
    if !in_force {
        output.note("this manifest has no `server.auth`: whoever reaches the stack may do everything. With one it would be:");
    }
    let explained = Explained { in_force, allowed: verdict.allowed, policies: verdict.policies, failures: verdict.failures };
    output.result(&explained, |explained| {
        let word = if explained.allowed { "allowed" } else { "denied" };
        let why = match (explained.failures.first(), explained.policies.is_empty()) {
            (Some(failure), _) => format!("a policy could not be evaluated: {failure}"),
            (None, true) => "no policy permits it".to_owned(),
            (None, false) => format!("by {}", explained.policies.join(", ")),
        };
        format!("{word}: {why}\n")
    })
}

/// # Errors
/// `InvalidArgument` with what may have been meant.
fn named_action(name: &str) -> Result<Action> {
    if let Some(action) = actions().find(|action| action.name() == name) {
        return Ok(action);
    }
    let (service, rpc) = name.split_once('.').unwrap_or(("", name));
    // The right word of another service, or a slip of the pen.
    let same = actions().find(|action| action.rpc.eq_ignore_ascii_case(rpc));
    let near = || actions().map(|action| (strsim::damerau_levenshtein(&action.name(), name), action)).min_by_key(|(far, _)| *far);
    let meant = same.or_else(|| near().filter(|(far, action)| *far <= action.name().len() / 4).map(|(_, action)| action));
    let right = match (meant, ACTIONS.iter().find(|(known, _)| *known == service)) {
        (Some(meant), _) => format!("did you mean {}?", meant.name()),
        (None, Some((service, rpcs))) => {
            format!("{service} has {}", rpcs.iter().map(|(rpc, _)| *rpc).collect::<Vec<_>>().join(", "))
        }
        (None, None) => {
            let services = ACTIONS.iter().map(|(service, _)| *service).collect::<Vec<_>>().join(", ");
            format!("it must be like Agents.DeleteAgent, an RPC of one of {services}")
        }
    };
    Err(Error::invalid("action", format!("no action {name:?}: {right}")))
}

/// Whose the thing is, as the policies of a stack are told it.
///
/// # Errors
/// `InvalidArgument` no stack would ask its policies about such a thing.
fn thing<'a>(action: &Action, kind: &str, id: &str, owner: Option<&'a str>, caller: &'a Principal) -> Result<Option<&'a str>> {
    let name = action.name();
    let known = proto_json::request_of(action.service, action.rpc).map(|request| kinds(&request)).unwrap_or_default();
    if kind.is_empty() && (!id.is_empty() || owner.is_some()) {
        let message = format!("an id and an owner are those of a thing: say of which kind it is{}", listed(": ", known));
        return Err(Error::invalid("kind", message));
    }
    if !kind.is_empty() && !known.contains(&kind) {
        let message = match known {
            [] => format!("{name} is done to nothing that policies know, so not to a {kind:?}: leave the kind out"),
            _ => format!("{name} is not done to a {kind:?}{}", listed(", but to: ", known)),
        };
        return Err(Error::invalid("kind", message));
    }
    match (action.class, owner) {
        // A new one will be the caller's.
        (Class::Own | Class::Private, _) => Ok(if kind.is_empty() { Some(caller.id.as_str()) } else { owner }),
        (_, None) => Ok(None),
        (_, Some(_)) => {
            let message = format!("whose it is makes no difference to {name}, and no policy is told it: leave the owner out");
            Err(Error::invalid("owner", message))
        }
    }
}

fn listed(before: &str, kinds: &[&str]) -> String {
    if kinds.is_empty() { String::new() } else { format!("{before}{}", kinds.join(" or ")) }
}
