//! Tool name → provider, and the arguments checked on the way.

use std::sync::Arc;

use llama_stack_core::{
    Code, Context, Result, Tools,
    directory::{Directory, Listing, Table},
};
use llama_stack_proto::v1::{
    self, InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolGroupsResponse, ListToolsRequest, ListToolsResponse,
    ToolGroup,
};

use crate::{arguments::Arguments, name, told};

/// The tools of all providers as one service: see [`Directory`].
pub struct Router(Directory<ToolList>);

struct ToolList;

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
        Self(Directory::new(providers))
    }

    /// As [`Router::new`], and asks the providers at once: see [`Directory::build`].
    ///
    /// # Errors
    /// On `providers[<index>]`: `AlreadyExists` for a tool that an earlier provider has too (names both) ·
    /// `InvalidArgument` for a tool with a crooked name or schema.
    pub async fn build(providers: Vec<(String, Arc<dyn Tools>)>) -> Result<Self> {
        Ok(Self(Directory::build(providers).await?))
    }
}

fn unknown(table: &Table<ToolList>, asked: &str) -> InvokeToolResponse {
    let silent = if table.silent.is_empty() { "" } else { " (some tools cannot be reached now)" };
    told(asked, format!("no tool {asked:?}; there is: {}{silent}", table.names()))
}

#[async_trait::async_trait]
impl Tools for Router {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        crate::page(self.0.refresh(cx).await?.listed.clone(), &request)
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let Some(route) = self.0.route(cx, &request.name).await? else { return Ok(unknown(&self.0.table(), &request.name)) };
        if let Err(text) = route.prepared.check(&request.arguments) {
            return Ok(told(&request.name, text));
        }
        let name = request.name.clone();
        match cx.within(route.service.invoke_tool(cx, request)).await {
            // It may have been taken away since it was listed.
            Err(error) if error.code() == Code::NotFound => {
                let table = self.0.refresh(cx).await?;
                if table.contains(&name) { Err(error) } else { Ok(unknown(&table, &name)) }
            }
            answer => answer,
        }
    }

    /// A provider's tools are one group, named like the provider, unless the tools name their own.
    async fn list_tool_groups(&self, cx: &Context, request: ListToolGroupsRequest) -> Result<ListToolGroupsResponse> {
        let table = self.0.refresh(cx).await?;
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

#[cfg(test)]
mod tests;
