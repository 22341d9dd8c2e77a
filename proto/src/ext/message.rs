use crate::v1::{Image, Message, Part, Role, ToolCall, ToolDefinition, ToolResult, part::Content};

impl Role {
    /// The provenance of a part that names none.
    pub fn provenance(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::Unspecified => "",
        }
    }
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self::new(role, vec![Part::text(text)])
    }

    pub fn new(role: Role, parts: Vec<Part>) -> Self {
        Self { role: role.into(), parts, ..Self::default() }
    }

    pub fn system(text: impl Into<String>) -> Self {
        Self::text(Role::System, text)
    }

    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text)
    }

    pub fn assistant(text: impl Into<String>) -> Self {
        Self::text(Role::Assistant, text)
    }

    /// Results of tool calls, in call order.
    pub fn tool(results: Vec<ToolResult>) -> Self {
        Self::new(Role::Tool, results.into_iter().map(Part::from).collect())
    }

    /// The text parts, joined.
    pub fn joined_text(&self) -> String {
        self.parts.iter().filter_map(Part::as_text).collect()
    }

    /// The calls that an assistant message makes, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match &part.content {
            Some(Content::ToolCall(call)) => Some(call),
            _ => None,
        })
    }

    /// The results that a tool message brings, in order.
    pub fn tool_results(&self) -> impl Iterator<Item = &ToolResult> {
        self.parts.iter().filter_map(|part| match &part.content {
            Some(Content::ToolResult(result)) => Some(result),
            _ => None,
        })
    }
}

impl Part {
    pub fn new(content: Content) -> Self {
        Self { content: Some(content), provenance: String::new(), ..Default::default() }
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Content::Text(text.into()))
    }

    pub fn image(image: Image) -> Self {
        Self::new(Content::Image(image))
    }

    #[must_use]
    pub fn with_provenance(mut self, provenance: impl Into<String>) -> Self {
        self.provenance = provenance.into();
        self
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.content {
            Some(Content::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl From<ToolCall> for Part {
    fn from(call: ToolCall) -> Self {
        Self::new(Content::ToolCall(call))
    }
}

impl From<ToolResult> for Part {
    fn from(result: ToolResult) -> Self {
        Self::new(Content::ToolResult(result))
    }
}

impl ToolCall {
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into(), arguments: arguments.into() }
    }
}

impl ToolResult {
    /// A result of one text, labelled `tool:<name>`.
    pub fn text(call: &ToolCall, text: impl Into<String>, is_error: bool) -> Self {
        let part = Part::text(text).with_provenance(format!("tool:{}", call.name));
        Self { call_id: call.id.clone(), name: call.name.clone(), parts: vec![part], is_error, ..Default::default() }
    }

    /// The text parts, joined.
    pub fn joined_text(&self) -> String {
        self.parts.iter().filter_map(Part::as_text).collect()
    }

    /// The pages that a web search found, each an address and its title. Such a page is a part of its own, which begins with
    /// the lines `[n] title` and the address.
    pub fn web_pages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().filter_map(Part::as_text).filter_map(web_page)
    }
}

fn web_page(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines();
    let (number, title) = lines.next()?.strip_prefix('[')?.split_once(']')?;
    let url = lines.next()?.trim();
    let is_page = number.parse::<u32>().is_ok() && (url.starts_with("https://") || url.starts_with("http://"));
    is_page.then(|| (url, title.trim()))
}

impl ToolDefinition {
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: impl Into<String>) -> Self {
        Self { name: name.into(), description: description.into(), parameters: parameters.into(), strict: false }
    }
}
