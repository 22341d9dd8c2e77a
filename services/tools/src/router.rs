//! Tool name → provider, and the arguments checked on the way. Behind the manifest's providers stand the groups that the
//! caller's tenant registered: a name that both have is the manifest's.

use std::sync::Arc;

use llama_stack_core::{
    Code, Context, Error, Result, Tools,
    directory::{Directory, Listing, Route, Table},
};
use llama_stack_proto::v1::{
    self, InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolGroupsResponse, ListToolsRequest, ListToolsResponse,
    RegisterToolGroupRequest, ToolGroup, UnregisterToolGroupRequest, UnregisterToolGroupResponse,
};
use prost::Message as _;

use crate::{
    MAX_ANSWER_BYTES,
    arguments::Arguments,
    groups::{Groups, Tenant},
    name, told,
};

/// The tools of all providers as one service: see [`Directory`].
pub struct Router {
    fixed: Directory<ToolList>,
    groups: Option<Groups>,
}

pub(crate) struct ToolList;

#[async_trait::async_trait]
impl Listing for ToolList {
    const KIND: &'static str = "tool";
    type Service = dyn Tools;
    type Item = v1::Tool;
    type Prepared = Arguments;

    async fn page(service: &dyn Tools, cx: &Context, page_token: String) -> Result<(Vec<v1::Tool>, String)> {
        let page = service.list_tools(cx, ListToolsRequest { page_token, ..ListToolsRequest::default() }).await?;
        Ok((page.tools, page.next_page_token))
    }

    fn name(tool: &v1::Tool) -> &str {
        name(tool)
    }

    fn prepare(tool: &v1::Tool) -> Result<Arguments> {
        Arguments::new(&tool.definition.clone().unwrap_or_default())
    }

    fn label(tool: &mut v1::Tool, provider: &str) {
        provider.clone_into(&mut tool.provider_id);
        if tool.group_id.is_empty() {
            provider.clone_into(&mut tool.group_id);
        }
    }
}

impl Router {
    /// Providers by id, in the manifest's order. Asks none of them yet; of two tools of one name the first is served.
    pub fn new(providers: Vec<(String, Arc<dyn Tools>)>) -> Self {
        Self { fixed: Directory::new(providers), groups: None }
    }

    /// As [`Router::new`], and asks the providers at once: see [`Directory::build`].
    ///
    /// # Errors
    /// On `providers[<index>]`: `AlreadyExists` for a tool that an earlier provider has too (names both) ·
    /// `InvalidArgument` for a tool with a crooked name or schema.
    pub async fn build(providers: Vec<(String, Arc<dyn Tools>)>) -> Result<Self> {
        Ok(Self { fixed: Directory::build(providers).await?, groups: None })
    }

    /// Lets callers register tool groups.
    #[must_use]
    pub fn with_groups(mut self, groups: Groups) -> Self {
        self.groups = Some(groups);
        self
    }

    fn groups(&self) -> Result<&Groups> {
        self.groups.as_ref().ok_or_else(|| Error::unimplemented("registering tool groups"))
    }

    async fn tenant(&self, cx: &Context) -> Option<Arc<Tenant>> {
        match &self.groups {
            Some(groups) => groups.tenant(cx).await,
            None => None,
        }
    }

    /// Everything that the caller may use, asked for anew.
    async fn refresh(&self, cx: &Context) -> Result<Seen> {
        let tenant = self.tenant(cx).await;
        let of_tenant = async {
            match &tenant {
                Some(tenant) => tenant.directory.refresh(cx).await.map(Some),
                None => Ok(None),
            }
        };
        let (fixed, own) = futures::join!(self.fixed.refresh(cx), of_tenant);
        let (fixed, own) = (fixed?, own?);
        let mut tools = fixed.listed.clone();
        for tool in own.iter().flat_map(|table| &table.listed) {
            if fixed.contains(name(tool)) {
                let (group, tool) = (&tool.group_id, name(tool));
                tracing::warn!(tenant = cx.tenant(), group, tool, "a registered group has a tool of the stack's name; it is not served");
            } else {
                tools.push(tool.clone());
            }
        }
        Ok(Seen { tools, fixed, own })
    }

    /// Where a call goes. What is known is not asked for again.
    async fn route(&self, cx: &Context, name: &str) -> Result<Option<Arc<Route<ToolList>>>> {
        if self.fixed.table().contains(name) {
            return self.fixed.route(cx, name).await;
        }
        let tenant = self.tenant(cx).await;
        if let Some(tenant) = tenant.as_ref().filter(|tenant| tenant.directory.table().contains(name)) {
            return tenant.directory.route(cx, name).await;
        }
        match (self.fixed.route(cx, name).await?, &tenant) {
            (None, Some(tenant)) => tenant.directory.route(cx, name).await,
            (route, _) => Ok(route),
        }
    }
}

/// What a caller may use.
struct Seen {
    tools: Vec<v1::Tool>,
    fixed: Arc<Table<ToolList>>,
    own: Option<Arc<Table<ToolList>>>,
}

impl Seen {
    fn contains(&self, name: &str) -> bool {
        self.fixed.contains(name) || self.own.as_ref().is_some_and(|own| own.contains(name))
    }

    fn unknown(&self, asked: &str) -> InvokeToolResponse {
        let all_answered = self.fixed.silent.is_empty() && self.own.as_ref().is_none_or(|own| own.silent.is_empty());
        let silent = if all_answered { "" } else { " (some tools cannot be reached now)" };
        let names: Vec<&str> = self.tools.iter().map(name).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        told(asked, format!("no tool {asked:?}; there is: {names}{silent}"))
    }
}

#[async_trait::async_trait]
impl Tools for Router {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        crate::page(self.refresh(cx).await?.tools, &request)
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let Some(route) = self.route(cx, &request.name).await? else { return Ok(self.refresh(cx).await?.unknown(&request.name)) };
        if let Err(text) = route.prepared.check(&request.arguments) {
            return Ok(told(&request.name, text));
        }
        let name = request.name.clone();
        match cx.within(route.service.invoke_tool(cx, request)).await {
            // It may have been taken away since it was listed.
            Err(error) if error.code() == Code::NotFound => {
                let seen = self.refresh(cx).await?;
                if seen.contains(&name) { Err(error) } else { Ok(seen.unknown(&name)) }
            }
            // Whatever kind of provider it is; the model may ask for less.
            Ok(answer) if answer.encoded_len() > MAX_ANSWER_BYTES => {
                let most = MAX_ANSWER_BYTES >> 20;
                Ok(told(&name, format!("{name} did its work, but its answer is larger than {most} MiB and was left out")))
            }
            answer => answer,
        }
    }

    /// A provider's tools are one group, named like the provider, unless the tools name their own. A registered group is
    /// there even while it has no tools.
    async fn list_tool_groups(&self, cx: &Context, request: ListToolGroupsRequest) -> Result<ListToolGroupsResponse> {
        let seen = self.refresh(cx).await?;
        let mut groups: Vec<ToolGroup> = Vec::new();
        for tool in &seen.tools {
            let tool_name = name(tool).to_owned();
            match groups.iter_mut().find(|group| group.id == tool.group_id) {
                Some(group) => group.tool_names.push(tool_name),
                None => {
                    groups.push(ToolGroup { id: tool.group_id.clone(), provider_id: tool.provider_id.clone(), tool_names: vec![tool_name] })
                }
            }
        }
        if let Some(tenant) = self.tenant(cx).await {
            for id in tenant.ids() {
                if groups.iter().all(|group| group.id != id) {
                    groups.push(ToolGroup { id: id.to_owned(), provider_id: id.to_owned(), tool_names: Vec::new() });
                }
            }
        }
        let (groups, next_page_token) =
            llama_stack_core::page::slice(groups, |group| &group.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListToolGroupsResponse { groups, next_page_token })
    }

    async fn register_tool_group(&self, cx: &Context, request: RegisterToolGroupRequest) -> Result<ToolGroup> {
        let groups = self.groups()?;
        let seen = self.refresh(cx).await?;
        let of_stack = self.fixed.providers().chain(seen.fixed.listed.iter().map(|tool| tool.group_id.as_str()));
        if of_stack.into_iter().any(|id| id == request.id) {
            let message = format!("{:?} is a tool group of the stack's manifest; choose another id", request.id);
            return Err(Error::new(Code::AlreadyExists, message).with_field("id"));
        }
        groups.register(cx, request, &seen.tools).await
    }

    async fn unregister_tool_group(&self, cx: &Context, request: UnregisterToolGroupRequest) -> Result<UnregisterToolGroupResponse> {
        let groups = self.groups()?;
        if self.fixed.providers().any(|id| id == request.id) {
            let message = format!("{:?} is a tool group of the stack's manifest; only a registered one can be unregistered", request.id);
            return Err(Error::failed_precondition(message).with_field("id"));
        }
        groups.unregister(cx, &request.id).await?;
        Ok(UnregisterToolGroupResponse {})
    }
}

#[cfg(test)]
mod tests;
