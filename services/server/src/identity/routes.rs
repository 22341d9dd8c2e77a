//! What each HTTP route does, in the actions that policies know. A route that is not here cannot be registered ([`Route`]).

use llama_stack_core::same;
use llama_stack_policy::access::is_action;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody, known or not: it tells nothing that is anybody's.
    Public,
    /// Whom this action is permitted, as a guard knows it.
    Action(&'static str),
    /// Whom the services behind it permit these actions.
    Services(&'static [&'static str]),
}

use Access::{Action, Public, Services};

/// The matched path of a route → who may use it.
const ROUTES: &[(&str, Access)] = &[
    ("/livez", Public),
    ("/readyz", Public),
    ("/v1/health", Public),
    ("/openapi.json", Public),
    // The playground's pages: the same for everybody, and they ask the API as their reader.
    ("/", Public),
    ("/docs", Public),
    ("/console/{file}", Public),
    ("/metrics", Action("Http.metrics")),
    ("/mcp", Services(&["Tools.InvokeTool", "Agents.CreateTurn", "Memory.Query"])),
    ("/v1/whoami", Services(&["Identity.GetCaller"])),
    ("/v1/api-keys", Services(&["Identity.CreateApiKey", "Identity.ListApiKeys"])),
    ("/v1/api-keys/{id}", Services(&["Identity.GetApiKey", "Identity.RevokeApiKey"])),
    ("/v1/api-keys/{id}/rotate", Services(&["Identity.RotateApiKey"])),
    ("/v1/hand-over", Services(&["Identity.HandOver"])),
    ("/v1/chat/completions", Services(&["Inference.Chat", "Inference.StreamChat"])),
    ("/v1/completions", Services(&["Inference.Complete", "Inference.StreamComplete"])),
    ("/v1/embeddings", Services(&["Inference.Embed"])),
    ("/v1/rerank", Services(&["Inference.Rerank"])),
    ("/v1/models", Services(&["Inference.ListModels"])),
    ("/v1/models/{*model}", Services(&["Inference.GetModel"])),
    ("/v1/moderations", Services(&["Safety.RunShield"])),
    ("/v1/shields", Services(&["Safety.ListShields"])),
    ("/v1/shields/{*identifier}", Services(&["Safety.GetShield"])),
    ("/v1/safety/run-shield", Services(&["Safety.RunShield"])),
    ("/v1/tools", Services(&["Tools.ListTools"])),
    ("/v1/tools/{name}/invoke", Services(&["Tools.InvokeTool"])),
    ("/v1/toolgroups", Services(&["Tools.ListToolGroups", "Tools.RegisterToolGroup"])),
    ("/v1/toolgroups/{id}", Services(&["Tools.ListToolGroups", "Tools.UnregisterToolGroup"])),
    ("/v1/vector-io/insert", Services(&["Memory.InsertChunks"])),
    ("/v1/vector-io/query", Services(&["Memory.Query"])),
    ("/v1/vector_stores", Services(&["Memory.CreateBank", "Memory.ListBanks"])),
    ("/v1/vector_stores/{id}", Services(&["Memory.GetBank", "Memory.UpdateBank", "Memory.DeleteBank"])),
    ("/v1/vector_stores/{id}/search", Services(&["Memory.Query"])),
    ("/v1/vector_stores/{id}/files", Services(&["Memory.InsertDocuments", "Memory.ListDocuments"])),
    ("/v1/vector_stores/{id}/files/{file_id}", Services(&["Memory.GetDocument", "Memory.UpdateDocument", "Memory.DeleteDocuments"])),
    ("/v1/vector_stores/{id}/files/{file_id}/content", Services(&["Memory.ListChunks"])),
    ("/v1/vector_stores/{id}/file_batches", Services(&["Memory.InsertDocuments"])),
    ("/v1/vector_stores/{id}/file_batches/{batch_id}", Services(&["Memory.GetIngestion"])),
    ("/v1/vector_stores/{id}/file_batches/{batch_id}/cancel", Services(&["Memory.CancelIngestion"])),
    ("/v1/vector_stores/{id}/file_batches/{batch_id}/files", Services(&["Memory.ListDocuments"])),
    ("/v1/batches", Services(&["Batches.CreateBatch", "Batches.ListBatches"])),
    ("/v1/batches/{id}", Services(&["Batches.GetBatch"])),
    ("/v1/batches/{id}/cancel", Services(&["Batches.CancelBatch"])),
    ("/v1/backup", Services(&["Stack.Backup"])),
    ("/v1/erase", Services(&["Stack.Erase"])),
    ("/v1/requests", Services(&["Telemetry.ListRequests"])),
    ("/v1/audit", Services(&["Telemetry.ListAuditEvents"])),
    ("/v1/spans", Services(&["Telemetry.ListSpans"])),
    ("/v1/agents", Services(&["Agents.CreateAgent", "Agents.ListAgents"])),
    ("/v1/agents/{id}", Services(&["Agents.GetAgent", "Agents.UpdateAgent", "Agents.DeleteAgent"])),
    ("/v1/responses/{id}/trace", Services(&["Telemetry.GetTurnTrace"])),
    ("/v1/responses/{id}/steps", Services(&["Agents.GetTurn"])),
    ("/v1/conversations/{id}/turns", Services(&["Agents.ListTurns"])),
    ("/v1/files", Services(&["Files.UploadFile", "Files.ListFiles"])),
    ("/v1/files/{id}", Services(&["Files.GetFile", "Files.DeleteFile"])),
    ("/v1/files/{id}/content", Services(&["Files.DownloadFile"])),
    ("/v1/prompts", Services(&["Prompts.CreatePrompt", "Prompts.ListPrompts"])),
    ("/v1/prompts/{id}", Services(&["Prompts.GetPrompt", "Prompts.UpdatePrompt", "Prompts.DeletePrompt"])),
    ("/v1/prompts/{id}/versions", Services(&["Prompts.ListPromptVersions"])),
    ("/v1/prompts/{id}/set-default-version", Services(&["Prompts.SetDefaultPromptVersion"])),
    ("/v1/responses", Services(&["Agents.CreateTurn", "Agents.ListTurns"])),
    ("/v1/responses/compact", Services(&["Agents.Compact"])),
    ("/v1/responses/input_tokens", Services(&["Inference.Tokenize"])),
    ("/v1/responses/{id}", Services(&["Agents.GetTurn", "Agents.WatchTurn", "Agents.DeleteTurn"])),
    ("/v1/responses/{id}/cancel", Services(&["Agents.CancelTurn"])),
    ("/v1/responses/{id}/input_items", Services(&["Agents.GetTurn"])),
    ("/v1/conversations", Services(&["Agents.CreateSession", "Agents.ListSessions"])),
    ("/v1/conversations/{id}", Services(&["Agents.GetSession", "Agents.UpdateSession", "Agents.DeleteSession"])),
    ("/v1/conversations/{id}/items", Services(&["Agents.CreateTurn", "Agents.ListTurns"])),
    ("/v1/conversations/{id}/items/{item_id}", Services(&["Agents.ListTurns", "Agents.RedactTurn"])),
];

// An action that policies do not know ends the build here.
const _: () = {
    let mut at = 0;
    while at < ROUTES.len() {
        if let Services(actions) = ROUTES[at].1 {
            let mut of = 0;
            while of < actions.len() {
                assert!(is_action(actions[of]), "{}", actions[of]);
                of += 1;
            }
        }
        at += 1;
    }
};

/// A path whose access is said above.
#[derive(Clone, Copy)]
pub(crate) struct Route(&'static str);

impl Route {
    /// Asked for where the program is compiled, by [`route!`].
    pub(crate) const fn new(path: &'static str) -> Self {
        let mut at = 0;
        while at < ROUTES.len() {
            if same(ROUTES[at].0.as_bytes(), path.as_bytes()) {
                return Self(path);
            }
            at += 1;
        }
        assert!(at < ROUTES.len(), "this route has no access in identity/routes.rs");
        Self(path)
    }

    pub(crate) fn path(self) -> &'static str {
        self.0
    }
}

/// A [`Route`]; one whose access nobody has said does not compile.
macro_rules! route {
    ($path:literal) => {
        const { $crate::identity::Route::new($path) }
    };
}

pub(crate) use route;

/// None: nobody has said.
pub(crate) fn access(path: &str) -> Option<Access> {
    ROUTES.iter().find(|(route, _)| *route == path).map(|(_, access)| *access)
}

#[cfg(test)]
mod tests {
    use llama_stack_policy::access::actions;

    use super::*;

    /// As guards are asked. What services are asked is checked where this is compiled, and so is that each route is here.
    #[test]
    fn every_action_of_a_routes_own_is_one_that_guards_know() {
        let keys: Vec<String> = actions().map(|action| action.key()).collect();
        for (route, access) in ROUTES {
            if let Action(key) = access {
                assert!(keys.contains(&(*key).to_owned()), "{route}: {key}");
            }
        }
    }
}
