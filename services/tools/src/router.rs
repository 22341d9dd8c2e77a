//! Tool name → provider, and the arguments checked on the way.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::join_all;
use llama_stack_core::{Code, Context, Error, Result, Tools};
use llama_stack_proto::v1::{
    self, InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolGroupsResponse, ListToolsRequest, ListToolsResponse,
    ToolGroup,
};

use crate::{arguments::Arguments, name, told};

/// A provider lists at most this many pages; one that never ends its list does not hold up the others.
const MAX_PAGES: usize = 100;

/// The tools of all providers as one service.
///
/// It asks the providers when it is asked for a list, and when a name is unknown. A provider that does not answer is
/// logged and left out of the list; calls to tools that it listed before still go to it, and fail with its error.
pub struct Router {
    providers: Vec<(String, Arc<dyn Tools>)>,
    table: RwLock<Arc<Table>>,
}

/// What the providers said last.
#[derive(Default)]
struct Table {
    routes: HashMap<String, Arc<Route>>,
    /// In the manifest's order; what a list shows.
    listed: Vec<v1::Tool>,
    /// Providers that did not answer.
    silent: Vec<String>,
    /// Names that more than one provider has: name, kept, refused.
    duplicates: Vec<(String, String, String)>,
    /// Tools that cannot be offered.
    crooked: Vec<Error>,
}

/// Where a tool's calls go.
struct Route {
    provider: usize,
    arguments: Arguments,
}

impl Router {
    /// Providers by id, in the manifest's order. Asks none of them yet; of two tools of one name the first is served.
    pub fn new(providers: Vec<(String, Arc<dyn Tools>)>) -> Self {
        Self { providers, table: RwLock::default() }
    }

    /// As [`Router::new`], and asks the providers at once.
    ///
    /// # Errors
    /// `AlreadyExists` for a tool that two providers have (names both) · `InvalidArgument` for a tool with a crooked name
    /// or schema. A provider that does not answer is logged: it may come up later.
    pub async fn build(providers: Vec<(String, Arc<dyn Tools>)>) -> Result<Self> {
        let router = Self::new(providers);
        let table = router.refresh(&Context::system()).await;
        if let Some((name, first, second)) = table.duplicates.first() {
            let message = format!("tool {name:?} comes from two providers, {first:?} and {second:?}: a name must be unique");
            return Err(Error::new(Code::AlreadyExists, message).with_reason("duplicate_tool"));
        }
        match table.crooked.first() {
            Some(error) => Err(Error::new(error.code(), error.message())),
            None => Ok(router),
        }
    }

    /// Asks all providers, at the same time.
    async fn refresh(&self, cx: &Context) -> Arc<Table> {
        let answers = join_all(self.providers.iter().map(|(_, provider)| every_tool(provider.as_ref(), cx))).await;
        let before = self.table();
        let mut table = Table::default();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(tools) => tools.into_iter().for_each(|tool| self.enter(&mut table, index, tool)),
                Err(error) => {
                    let provider = &self.providers[index].0;
                    tracing::warn!(%provider, error = error.message(), cause = ?std::error::Error::source(&error).map(ToString::to_string), "provider does not list its tools");
                    table.silent.push(provider.clone());
                }
            }
        }
        for (name, route) in &before.routes {
            if table.silent.contains(&self.providers[route.provider].0) {
                table.routes.entry(name.clone()).or_insert_with(|| route.clone());
            }
        }
        let table = Arc::new(table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }

    fn enter(&self, table: &mut Table, provider: usize, mut tool: v1::Tool) {
        let id = &self.providers[provider].0;
        let definition = tool.definition.clone().unwrap_or_default();
        if let Some(there) = table.routes.get(&definition.name) {
            let first = &self.providers[there.provider].0;
            tracing::warn!(tool = definition.name, served_by = %first, also_in = %id, "two providers have a tool of this name");
            table.duplicates.push((definition.name, first.clone(), id.clone()));
            return;
        }
        match Arguments::new(&definition) {
            Ok(arguments) => {
                id.clone_into(&mut tool.provider_id);
                if tool.group_id.is_empty() {
                    id.clone_into(&mut tool.group_id);
                }
                table.routes.insert(definition.name, Arc::new(Route { provider, arguments }));
                table.listed.push(tool);
            }
            Err(error) => {
                tracing::warn!(provider = %id, error = error.message(), "tool is left out");
                table.crooked.push(error.context(format!("provider {id:?}")));
            }
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The route of a tool; asks the providers once where the name is new.
    async fn route(&self, cx: &Context, name: &str) -> Result<Arc<Route>, InvokeToolResponse> {
        if let Some(route) = self.table().routes.get(name) {
            return Ok(route.clone());
        }
        let table = self.refresh(cx).await;
        table.routes.get(name).cloned().ok_or_else(|| table.unknown(name))
    }
}

impl Table {
    fn unknown(&self, asked: &str) -> InvokeToolResponse {
        let there: Vec<&str> = self.listed.iter().map(name).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        let silent = if self.silent.is_empty() { "" } else { " (some tools cannot be reached now)" };
        told(format!("no tool {asked:?}; there is: {there}{silent}"))
    }
}

#[async_trait::async_trait]
impl Tools for Router {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        let table = cx.within(async { Ok(self.refresh(cx).await) }).await?;
        crate::page(table.listed.clone(), &request)
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let route = match cx.within(async { Ok(self.route(cx, &request.name).await) }).await? {
            Ok(route) => route,
            Err(answer) => return Ok(answer),
        };
        if let Err(text) = route.arguments.check(&request.arguments) {
            return Ok(told(text));
        }
        let name = request.name.clone();
        match cx.within(self.providers[route.provider].1.invoke_tool(cx, request)).await {
            // It may have been taken away since it was listed.
            Err(error) if error.code() == Code::NotFound => {
                let table = self.refresh(cx).await;
                if table.routes.contains_key(&name) { Err(error) } else { Ok(table.unknown(&name)) }
            }
            answer => answer,
        }
    }

    /// A provider's tools are one group, named like the provider, unless the tools name their own.
    async fn list_tool_groups(&self, cx: &Context, request: ListToolGroupsRequest) -> Result<ListToolGroupsResponse> {
        let table = cx.within(async { Ok(self.refresh(cx).await) }).await?;
        let mut groups: Vec<ToolGroup> = Vec::new();
        for tool in &table.listed {
            let tool_name = name(tool).to_owned();
            match groups.iter_mut().find(|group| group.id == tool.group_id) {
                Some(group) => group.tool_names.push(tool_name),
                None => {
                    groups.push(ToolGroup { id: tool.group_id.clone(), provider_id: tool.provider_id.clone(), tool_names: vec![tool_name] })
                }
            }
        }
        let (groups, next_page_token) =
            llama_stack_core::page::slice(groups, |group| &group.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListToolGroupsResponse { groups, next_page_token })
    }
}

/// All pages of a provider's list.
async fn every_tool(provider: &dyn Tools, cx: &Context) -> Result<Vec<v1::Tool>> {
    let (mut tools, mut request) = (Vec::new(), ListToolsRequest::default());
    for _ in 0..MAX_PAGES {
        let page = provider.list_tools(cx, request.clone()).await?;
        tools.extend(page.tools);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(tools)
}

#[cfg(test)]
mod tests;
