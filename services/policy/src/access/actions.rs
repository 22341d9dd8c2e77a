//! What can be done here: every RPC of the contract, and what it takes to be allowed it.

use llama_stack_core::same;
use llama_stack_proto::RPCS;

/// What the built-in policies ask for. A Cedar action of this name holds all of its actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Everybody of the tenant. What is of a person, as a bank or a file, its service looks after.
    Use,
    /// Everybody sees the thing; its owner and admins change it.
    Own,
    /// Only its owner and admins know of the thing.
    Private,
    /// Admins.
    Admin,
    /// Operators: who runs the stack, and answers for all of its tenants.
    Operate,
}

impl Class {
    pub const ALL: [Self; 5] = [Self::Use, Self::Own, Self::Private, Self::Admin, Self::Operate];

    /// The name of the Cedar action.
    pub fn name(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Own => "own",
            Self::Private => "private",
            Self::Admin => "admin",
            Self::Operate => "operate",
        }
    }
}

use Class::{Admin, Operate, Own, Private, Use};

/// Service, its RPCs, and their classes. This and the contract name the same RPCs, or nothing is built.
pub const ACTIONS: &[(&str, &[(&str, Class)])] = &[
    (
        "Inference",
        &[
            ("ListModels", Use),
            ("GetModel", Use),
            ("Chat", Use),
            ("StreamChat", Use),
            ("Complete", Use),
            ("StreamComplete", Use),
            ("Embed", Use),
            ("Rerank", Use),
            ("Classify", Use),
            ("Tokenize", Use),
        ],
    ),
    ("Safety", &[("ListShields", Use), ("GetShield", Use), ("RunShield", Use)]),
    (
        "Memory",
        &[
            ("CreateBank", Use),
            ("GetBank", Use),
            ("UpdateBank", Use),
            ("ListBanks", Use),
            ("DeleteBank", Use),
            ("InsertDocuments", Use),
            ("InsertChunks", Use),
            ("GetDocument", Use),
            ("ListDocuments", Use),
            ("DeleteDocuments", Use),
            ("Query", Use),
            ("UpdateDocument", Use),
            ("ListChunks", Use),
            ("GetIngestion", Use),
            ("CancelIngestion", Use),
            ("WatchIngestion", Use),
        ],
    ),
    ("Files", &[("UploadFile", Use), ("GetFile", Use), ("ListFiles", Use), ("DownloadFile", Use), ("DeleteFile", Use)]),
    (
        "Tools",
        &[("ListTools", Use), ("InvokeTool", Use), ("ListToolGroups", Use), ("RegisterToolGroup", Admin), ("UnregisterToolGroup", Admin)],
    ),
    (
        "Agents",
        &[
            ("CreateAgent", Use),
            ("GetAgent", Use),
            ("ListAgents", Use),
            ("UpdateAgent", Own),
            ("DeleteAgent", Own),
            ("CreateSession", Use),
            ("GetSession", Private),
            ("ListSessions", Use),
            ("UpdateSession", Private),
            ("DeleteSession", Private),
            ("CreateTurn", Private),
            ("GetTurn", Private),
            ("ListTurns", Private),
            ("CancelTurn", Private),
            ("ResumeTurn", Private),
            ("WatchTurn", Private),
            ("DeleteTurn", Private),
            ("RedactTurn", Private),
            ("Compact", Private),
        ],
    ),
    (
        "Prompts",
        &[
            ("CreatePrompt", Use),
            ("GetPrompt", Use),
            ("ListPrompts", Use),
            ("ListPromptVersions", Use),
            ("UpdatePrompt", Own),
            ("SetDefaultPromptVersion", Own),
            ("DeletePrompt", Own),
        ],
    ),
    (
        "Stack",
        &[
            ("GetInfo", Use),
            ("ListProviders", Use),
            ("RegisterProvider", Admin),
            ("UnregisterProvider", Admin),
            ("Backup", Operate),
            ("Erase", Admin),
        ],
    ),
    (
        "Identity",
        &[
            ("GetCaller", Use),
            ("CreateApiKey", Admin),
            ("GetApiKey", Admin),
            ("ListApiKeys", Admin),
            ("RotateApiKey", Admin),
            ("RevokeApiKey", Admin),
            ("HandOver", Admin),
        ],
    ),
    ("Batches", &[("CreateBatch", Use), ("GetBatch", Use), ("ListBatches", Use), ("CancelBatch", Use)]),
    ("Telemetry", &[("GetTurnTrace", Private), ("ListRequests", Use), ("ListAuditEvents", Admin), ("ListSpans", Private)]),
    // Not of the contract: what HTTP alone has.
    (HTTP, &[("Metrics", Admin)]),
];

const HTTP: &str = "Http";

// Where an RPC of the contract has no class, the build ends here with its name.
const _: () = {
    let mut at = 0;
    while at < RPCS.len() {
        assert!(is_action(RPCS[at]), "{}", RPCS[at]);
        at += 1;
    }
    let (mut classes, mut at) = (0, 0);
    while at < ACTIONS.len() {
        let (service, rpcs) = ACTIONS[at];
        if !same(service.as_bytes(), HTTP.as_bytes()) {
            classes += rpcs.len();
        }
        at += 1;
    }
    assert!(classes == RPCS.len(), "ACTIONS names an RPC that the contract does not have, or one of them twice");
};

/// Whether policies know an action of this name: `Agents.CreateTurn`. For tables that are checked where they are compiled.
pub const fn is_action(name: &str) -> bool {
    let mut service = 0;
    while service < ACTIONS.len() {
        let (of, rpcs) = ACTIONS[service];
        if let Some((head, [b'.', rpc @ ..])) = name.as_bytes().split_at_checked(of.len())
            && same(head, of.as_bytes())
        {
            let mut at = 0;
            while at < rpcs.len() {
                if same(rpc, rpcs[at].0.as_bytes()) {
                    return true;
                }
                at += 1;
            }
        }
        service += 1;
    }
    false
}

/// One thing that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    pub service: &'static str,
    pub rpc: &'static str,
    pub class: Class,
}

impl Action {
    /// As policies write it: `Agents.CreateTurn`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.service, self.rpc)
    }

    /// As a guard is asked: `Agents.create_turn`.
    pub fn key(&self) -> String {
        let mut key = format!("{}.", self.service);
        for (index, letter) in self.rpc.chars().enumerate() {
            if letter.is_ascii_uppercase() && index > 0 {
                key.push('_');
            }
            key.push(letter.to_ascii_lowercase());
        }
        key
    }
}

/// Every action.
pub fn actions() -> impl Iterator<Item = Action> {
    ACTIONS.iter().flat_map(|(service, rpcs)| rpcs.iter().map(|(rpc, class)| Action { service, rpc, class: *class }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_the_name_of_its_method() {
        let keys: Vec<String> = actions().map(|action| action.key()).collect();
        assert!(keys.contains(&"Agents.create_turn".to_owned()) && keys.contains(&"Prompts.set_default_prompt_version".to_owned()));
    }
}
