//! Prompts: texts with variables, by id and version.
//!
//! `{{ name }}` stands for a variable; a name is a letter or `_`, then letters, digits and `_`. Any other use of braces
//! is plain text. A value is put in as it is: what it holds is never read as a variable again.

use std::{collections::HashMap, ops::Range};

use async_trait::async_trait;
use llama_stack_core::{Context, Error, Prompts, Result, ids};
use llama_stack_proto::v1::{
    CreatePromptRequest, DeletePromptRequest, DeletePromptResponse, GetPromptRequest, ListPromptVersionsRequest, ListPromptsRequest,
    ListPromptsResponse, Prompt, SetDefaultPromptVersionRequest, UpdatePromptRequest,
};
use llama_stack_store::Store;

const MAX_CHARS: usize = 256_000;
const MAX_VARIABLES: usize = 128;

/// The prompts of every tenant, each its own, in a store.
pub struct PromptBook {
    store: Store,
}

impl PromptBook {
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

/// All ids are the tenant's own: those of another are `NotFound`, as if they did not exist.
#[async_trait]
impl Prompts for PromptBook {
    async fn create_prompt(&self, cx: &Context, request: CreatePromptRequest) -> Result<Prompt> {
        let variables = checked(&request.text, request.variables)?;
        let (id, created) = (ids::new("pmpt"), Some(ids::now()));
        let prompt = Prompt { id, version: 1, text: request.text, variables, is_default: true, created };
        cx.within(self.store.create_prompt(cx.tenant(), &prompt)).await?;
        Ok(prompt)
    }

    async fn get_prompt(&self, cx: &Context, request: GetPromptRequest) -> Result<Prompt> {
        cx.within(self.store.get_prompt(cx.tenant(), &request.id, request.version)).await
    }

    async fn list_prompts(&self, cx: &Context, request: ListPromptsRequest) -> Result<ListPromptsResponse> {
        let (prompts, next_page_token) = cx.within(self.store.list_prompts(cx.tenant(), request.page_size, &request.page_token)).await?;
        Ok(ListPromptsResponse { prompts, next_page_token })
    }

    async fn list_prompt_versions(&self, cx: &Context, request: ListPromptVersionsRequest) -> Result<ListPromptsResponse> {
        let list = self.store.list_prompt_versions(cx.tenant(), &request.id, request.page_size, &request.page_token);
        let (prompts, next_page_token) = cx.within(list).await?;
        Ok(ListPromptsResponse { prompts, next_page_token })
    }

    async fn update_prompt(&self, cx: &Context, request: UpdatePromptRequest) -> Result<Prompt> {
        let variables = checked(&request.text, request.variables)?;
        if request.version == 0 {
            return Err(Error::invalid("version", "version is required: the newest version that you have seen"));
        }
        let version = request.version.checked_add(1).ok_or_else(|| Error::invalid("version", "version is out of range"))?;
        let (is_default, created) = (request.set_default, Some(ids::now()));
        let prompt = Prompt { id: request.id, version, text: request.text, variables, is_default, created };
        cx.within(self.store.add_prompt_version(cx.tenant(), &prompt, request.set_default)).await?;
        Ok(prompt)
    }

    async fn set_default_prompt_version(&self, cx: &Context, request: SetDefaultPromptVersionRequest) -> Result<Prompt> {
        if request.version == 0 {
            return Err(Error::invalid("version", "version is required: which one is to be the default"));
        }
        cx.within(async {
            self.store.set_default_prompt_version(cx.tenant(), &request.id, request.version).await?;
            self.store.get_prompt(cx.tenant(), &request.id, request.version).await
        })
        .await
    }

    async fn delete_prompt(&self, cx: &Context, request: DeletePromptRequest) -> Result<DeletePromptResponse> {
        cx.within(self.store.delete_prompt(cx.tenant(), &request.id)).await?;
        Ok(DeletePromptResponse {})
    }
}

/// The prompt's text with its variables filled in.
///
/// # Errors
/// `InvalidArgument` that names the variables without a value (`prompt_variable_missing`), or the values that no variable
/// of this prompt takes (`prompt_variable_unknown`).
pub fn render(prompt: &Prompt, values: &HashMap<String, String>) -> Result<String> {
    let missing: Vec<&str> = prompt.variables.iter().filter(|name| !values.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let message = format!("prompt {:?} needs a value for {}", prompt.id, missing.join(", "));
        return Err(Error::invalid("variables", message).with_reason("prompt_variable_missing"));
    }
    let mut unknown: Vec<&str> = values.keys().filter(|name| !prompt.variables.contains(name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        let there = if prompt.variables.is_empty() { "none".to_owned() } else { prompt.variables.join(", ") };
        let message = format!("prompt {:?} has no variable {}; it has: {there}", prompt.id, unknown.join(", "));
        return Err(Error::invalid("variables", message).with_reason("prompt_variable_unknown"));
    }
    let mut text = String::with_capacity(prompt.text.len());
    let mut at = 0;
    for (place, name) in places(&prompt.text) {
        text.push_str(prompt.text.get(at..place.start).unwrap_or_default());
        text.push_str(values.get(name).map(String::as_str).unwrap_or_default());
        at = place.end;
    }
    text.push_str(prompt.text.get(at..).unwrap_or_default());
    Ok(text)
}

/// The variables of a text, in the order in which they come first.
///
/// # Errors
/// `InvalidArgument` for a text that is empty or too long, or where `declared` are other variables.
fn checked(text: &str, declared: Vec<String>) -> Result<Vec<String>> {
    if text.trim().is_empty() {
        return Err(Error::invalid("text", "text must not be empty"));
    }
    if text.chars().count() > MAX_CHARS {
        return Err(Error::invalid("text", format!("text has at most {MAX_CHARS} characters")));
    }
    let mut found: Vec<String> = Vec::new();
    for (_, name) in places(text) {
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    if found.len() > MAX_VARIABLES {
        return Err(Error::invalid("text", format!("a prompt has at most {MAX_VARIABLES} variables, not {}", found.len())));
    }
    if declared.is_empty() {
        return Ok(found);
    }
    if let Some(name) = declared.iter().find(|name| !found.contains(name)) {
        return Err(Error::invalid("variables", format!("variable {name:?} is not in the text, where it is written {{{{ {name} }}}}")));
    }
    match found.iter().find(|name| !declared.contains(name)) {
        Some(name) => Err(Error::invalid("variables", format!("variable {name:?} of the text is not among variables"))),
        None => Ok(found),
    }
}

/// Where variables stand, with their names.
fn places(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text.get(at..)?.find("{{")?;
            let inner = text.get(start + 2..)?;
            let name = inner.trim_start_matches([' ', '\t']);
            let length = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
            let (name, rest) = name.split_at(length);
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            match rest.trim_start_matches([' ', '\t']).strip_prefix("}}") {
                Some(rest) if is_name => {
                    at = text.len() - rest.len();
                    return Some((start..at, name));
                }
                // One brace further, so that the last two of three may begin a variable.
                _ => at = start + 1,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> Prompt {
        Prompt { id: "pmpt_1".into(), text: text.into(), variables: checked(text, Vec::new()).unwrap(), ..Prompt::default() }
    }

    fn values(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_are_found_in_order_and_the_rest_is_text() {
        assert_eq!(prompt("{{b}} {{ a }} {{b}} {{\ta}}").variables, ["b", "a"]);
        for plain in ["{ a }", "{{ a", "{{ 1a }}", "{{ a b }}", "{{}}", "{{ a }", "{% a %}", "{{ a.b }}"] {
            assert!(prompt(plain).variables.is_empty(), "{plain}");
        }
        assert_eq!(render(&prompt("{{{a}}}"), &values(&[("a", "x")])).unwrap(), "{x}");
    }

    #[test]
    fn a_value_is_never_read_as_a_template() {
        let filled = render(&prompt("{{ a }}-{{ b }}"), &values(&[("a", "{{ b }}"), ("b", "{{ a }} ü")])).unwrap();
        assert_eq!(filled, "{{ b }}-{{ a }} ü");
    }

    #[test]
    fn values_must_be_those_that_the_prompt_takes() {
        let told = |pairs: &[(&str, &str)]| render(&prompt("{{ a }} {{ b }}"), &values(pairs)).unwrap_err();
        assert!(told(&[("b", "")]).message().contains("needs a value for a"));
        assert_eq!(told(&[("a", ""), ("b", ""), ("c", "")]).reason(), Some("prompt_variable_unknown"));
    }

    #[test]
    fn declared_variables_are_those_of_the_text() {
        let declare = |names: &[&str]| checked("{{ a }} {{ b }}", names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(declare(&["b", "a"]).unwrap(), ["a", "b"]);
        assert_eq!(declare(&["a"]).unwrap_err().field(), Some("variables"));
        assert_eq!(declare(&["a", "b", "c"]).unwrap_err().field(), Some("variables"));
        assert_eq!(checked(" ", Vec::new()).unwrap_err().field(), Some("text"));
    }
}
