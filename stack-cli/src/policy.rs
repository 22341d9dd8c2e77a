//! `llama-stack policy`: whether policies are right, and what those of access say.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use llama_stack_core::{Error, Principal, Result, context::DEFAULT_TENANT};
use llama_stack_server::{
    CedarPolicy, Policies,
    access::{Access, actions},
};
use serde::Serialize;

use crate::{distribution::Source, named, output::Output};

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
    /// What it is done to: agent, session, turn, bank, model and so on
    #[arg(long, default_value = "")]
    kind: String,
    #[arg(long, default_value = "")]
    id: String,
    /// Whose it is
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
    let unknown =
        || Error::invalid("action", format!("no action {:?}; it must be like Agents.DeleteAgent, an RPC of the contract", args.action));
    let action = actions().find(|action| action.name() == args.action).ok_or_else(unknown)?;
    let attributes: BTreeMap<String, String> = args.attributes.iter().map(|text| named::pair("attribute", text)).collect::<Result<_>>()?;
    let principal = Principal { id: args.principal, tenant: args.tenant, roles: args.roles };
    let (kind, id, owner) = (args.kind.as_str(), args.id.as_str(), args.owner.as_deref());
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
