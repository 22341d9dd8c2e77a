//! The MCP servers of a turn: connected when they are first needed, for as long as the turn runs here.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use llama_stack_core::{Code, Context, Error, Result, Tools};
use llama_stack_proto::v1::{ErrorInfo, McpServer, OnInterrupt, Tool, ToolListStep};

use crate::toolbox::{self, Toolbox};

/// Stands in the journal where a secret was: that there was one is known, and not which.
const NOT_KEPT: &str = "(not kept)";

/// Reaches an MCP server.
#[async_trait::async_trait]
pub trait Connect: Send + Sync + 'static {
    /// The server's tools as a service. Contacts nobody yet, or fails.
    ///
    /// # Errors
    /// `InvalidArgument` for an address that is none · `PermissionDenied` for one that tools must not reach.
    async fn connect(&self, cx: &Context, server: &McpServer) -> Result<Arc<dyn Tools>>;
}

/// Servers of turns that wait for someone, with their secrets, until they are resumed in this process. A turn that is not
/// found here any more goes on as after a restart.
#[derive(Default)]
pub(crate) struct Resting(Mutex<VecDeque<(String, Vec<McpServer>)>>);

/// Turns whose servers are remembered; the one that came to rest first gives way.
const MAX_RESTING: usize = 4_096;

impl Resting {
    pub(crate) fn put(&self, turn_id: &str, given: Vec<McpServer>) {
        if given.is_empty() {
            return;
        }
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() == MAX_RESTING {
            turns.pop_front();
        }
        turns.push_back((turn_id.to_owned(), given));
    }

    pub(crate) fn take(&self, turn_id: &str) -> Vec<McpServer> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = turns.iter().position(|(id, _)| id == turn_id);
        place.and_then(|place| turns.remove(place)).map(|(_, given)| given).unwrap_or_default()
    }
}

/// What a turn knows of its servers that its journal does not.
#[derive(Default)]
pub(crate) struct Servers {
    /// Servers as they were given, with their secrets, by label.
    given: HashMap<String, McpServer>,
    open: Mutex<HashMap<String, Arc<dyn Tools>>>,
}

impl Servers {
    pub(crate) fn new(given: Vec<McpServer>) -> Self {
        Self { given: given.into_iter().map(|server| (server.label.clone(), server)).collect(), open: Mutex::default() }
    }

    /// As they were given.
    pub(crate) fn given(&self) -> Vec<McpServer> {
        self.given.values().cloned().collect()
    }

    /// # Errors
    /// Those of [`Connect::connect`] · `FailedPrecondition` where this stack reaches no servers, or a secret is lost.
    pub(crate) async fn open(
        &self,
        connect: Option<&dyn Connect>,
        tools: Option<&Arc<dyn Tools>>,
        cx: &Context,
        server: &McpServer,
    ) -> Result<Arc<dyn Tools>> {
        if !server.connector_id.is_empty() {
            return tools.cloned().ok_or_else(|| Error::failed_precondition("this stack has no tools"));
        }
        let open =
            |open: &Mutex<HashMap<String, Arc<dyn Tools>>>| open.lock().unwrap_or_else(PoisonError::into_inner).get(&server.label).cloned();
        if let Some(open) = open(&self.open) {
            return Ok(open);
        }
        let given = self.given.get(&server.label).filter(|given| given.url == server.url);
        let secret_lost = given.is_none() && (server.authorization == NOT_KEPT || server.headers.values().any(|value| value == NOT_KEPT));
        if secret_lost {
            let message = format!("the authorization of server {:?} is not kept over a restart: begin another turn with it", server.label);
            return Err(Error::failed_precondition(message).with_reason("authorization_not_kept"));
        }
        let connect = connect.ok_or_else(|| Error::failed_precondition("this stack reaches no MCP servers"))?;
        let opened = connect.connect(cx, given.unwrap_or(server)).await?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(server.label.clone(), opened.clone());
        Ok(opened)
    }
}

/// Takes the secrets out of what is journalled.
pub(crate) fn without_secrets(server: &mut McpServer) {
    if !server.authorization.is_empty() {
        server.authorization = NOT_KEPT.into();
    }
    server.headers.values_mut().for_each(|value| *value = NOT_KEPT.into());
}

/// What a server lists, as the journal keeps it; a failure is told there too, and the turn goes on without its tools.
pub(crate) async fn list(server: McpServer, opened: Result<Arc<dyn Tools>>, cx: Context, toolbox: Arc<Toolbox>) -> ToolListStep {
    let label = server.label.clone();
    let listed = match opened {
        Ok(tools) => toolbox::list(Some(tools.as_ref()), &cx, &server.connector_id).await,
        Err(error) => Err(error),
    };
    let listed = listed.and_then(|tools| {
        let allowed = |tool: &Tool| server.allowed_tools.is_empty() || server.allowed_tools.iter().any(|name| name == name_of(tool));
        let missing = server.allowed_tools.iter().find(|name| !tools.iter().any(|tool| name_of(tool) == name.as_str()));
        if let Some(missing) = missing {
            let message = format!("server {label:?} has no tool {missing:?}, which allowed_tools names");
            return Err(Error::new(Code::NotFound, message).with_reason("tool_not_found"));
        }
        let tools: Vec<Tool> = tools.into_iter().filter(allowed).collect();
        let definitions: Vec<_> = tools.iter().filter_map(|tool| tool.definition.clone()).collect();
        toolbox.check_names(&label, &definitions)?;
        Ok(tools)
    });
    match listed {
        Ok(tools) => {
            let names =
                |which: &dyn Fn(&Tool) -> bool| tools.iter().filter(|tool| which(tool)).map(|tool| name_of(tool).to_owned()).collect();
            ToolListStep {
                server_label: label,
                retry: names(&|tool| tool.on_interrupt() == OnInterrupt::Retry),
                read_only: names(&|tool| !tool.changes_state),
                tools: tools.into_iter().filter_map(|tool| tool.definition).collect(),
                error: None,
            }
        }
        Err(error) => {
            tracing::warn!(server = label, error = ?error, "the tools of an MCP server cannot be listed");
            let error: ErrorInfo = error.to_info();
            ToolListStep { server_label: label, error: Some(error), ..ToolListStep::default() }
        }
    }
}

fn name_of(tool: &Tool) -> &str {
    tool.definition.as_ref().map_or("", |definition| definition.name.as_str())
}
