//! Tool definitions, and the choice among them.

use std::collections::HashSet;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ToolChoice, ToolDefinition, tool_choice::Mode};

use super::Schemas;

const MAX_TOOLS: usize = 128;
const MAX_NAME: usize = 64;

pub(super) fn check(tools: &[ToolDefinition], choice: Option<&ToolChoice>, schemas: &Schemas) -> Result<()> {
    if tools.len() > MAX_TOOLS {
        return Err(Error::invalid("tools", format!("tools has {} items; it must have at most {MAX_TOOLS}", tools.len())));
    }
    let mut names = HashSet::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        let field = |name: &str| format!("tools[{index}].{name}");
        if !named(&tool.name) {
            let message = format!("tools[{index}].name is {:?}; it must be 1 to {MAX_NAME} of a-z, A-Z, 0-9, _ and -", tool.name);
            return Err(Error::invalid(field("name"), message));
        }
        if !names.insert(tool.name.as_str()) {
            let message = format!("tools[{index}].name {:?} is taken by an earlier tool; names must be unique", tool.name);
            return Err(Error::invalid(field("name"), message));
        }
        if !tool.parameters.is_empty() {
            schemas.check(|| field("parameters"), &tool.parameters)?;
        }
    }
    match choice {
        Some(choice) => chosen(choice, tools),
        None => Ok(()),
    }
}

fn chosen(choice: &ToolChoice, tools: &[ToolDefinition]) -> Result<()> {
    match Mode::try_from(choice.mode) {
        Ok(Mode::Required) if tools.is_empty() => {
            Err(Error::invalid("tool_choice", "tool_choice is required, and the request has 0 tools; it must have at least 1"))
        }
        Ok(Mode::Named) if !tools.iter().any(|tool| tool.name == choice.name) => {
            let there: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            let there = if there.is_empty() { "none".into() } else { there.join(", ") };
            Err(Error::invalid(
                "tool_choice.name",
                format!("tool_choice names {:?}, which is not in tools; there is: {there}", choice.name),
            ))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Error::invalid("tool_choice.mode", format!("tool_choice.mode {} is not known", choice.mode))),
    }
}

fn named(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
