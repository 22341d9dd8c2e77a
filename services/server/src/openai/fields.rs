//! `param` of an error: what a client calls the field that the contract calls otherwise.

use llama_stack_core::Error;

/// `limit`: what the request calls its bound on the answer.
pub(super) fn of_chat(error: Error, limit: &str) -> Error {
    renamed(error, |field| match field {
        "sampling.max_tokens" => limit.to_owned(),
        "tool_choice.name" => "tool_choice.function.name".to_owned(),
        _ => sampling(field).or_else(|| tool(field)).or_else(|| part(field)).unwrap_or_else(|| field.to_owned()),
    })
}

pub(super) fn of_completion(error: Error) -> Error {
    renamed(error, |field| match field {
        "messages" | "prompt.tokens" => "prompt".to_owned(),
        "top_logprobs" => "logprobs".to_owned(),
        _ => sampling(field).unwrap_or_else(|| field.to_owned()),
    })
}

/// `one`: the request has one input, which is in no list. Messages begin with the field, where it is one of several.
pub(super) fn of_embedding(error: Error, one: bool) -> Error {
    let name = |told: &str| {
        let rest = told.strip_prefix("inputs")?;
        let (index, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((index, rest)) => (Some(index), rest),
            None => (None, rest),
        };
        let rest = [".text", ".tokens"].iter().find_map(|kind| rest.strip_prefix(kind)).unwrap_or(rest);
        Some(match index.filter(|_| !one) {
            Some(index) => format!("input[{index}]{rest}"),
            None => format!("input{rest}"),
        })
    };
    let message = name(error.message());
    let error = match error.field().and_then(name) {
        Some(field) => error.with_field(field),
        None => error,
    };
    match message {
        Some(message) => error.with_message(message),
        None => error,
    }
}

fn renamed(error: Error, name: impl FnOnce(&str) -> String) -> Error {
    match error.field().map(name) {
        Some(field) => error.with_field(field),
        None => error,
    }
}

fn sampling(field: &str) -> Option<String> {
    field.strip_prefix("sampling.").map(str::to_owned)
}

fn tool(field: &str) -> Option<String> {
    let (index, rest) = field.strip_prefix("tools[")?.split_once("].")?;
    // An upstream's own name for it.
    if rest.starts_with("function.") {
        return None;
    }
    Some(format!("tools[{index}].function.{rest}"))
}

/// A message's parts are its content here, which may be one text, and fields beside it.
fn part(field: &str) -> Option<String> {
    let (message, part) = field.split_once("].parts")?;
    let (_, within) = part.split_once("].").unwrap_or_default();
    let name = match within.split('.').next() {
        Some("tool_call") => "tool_calls",
        Some("tool_result") if within == "tool_result.call_id" => "tool_call_id",
        _ => "content",
    };
    Some(format!("{message}].{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rename: impl FnOnce(Error) -> Error, field: &str) -> String {
        rename(Error::invalid(field, "wrong")).field().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_field_has_the_name_that_the_client_gave_it() {
        for (contracts, ours) in [
            ("sampling.temperature", "temperature"),
            ("sampling.stop[0]", "stop[0]"),
            ("sampling.max_tokens", "max_completion_tokens"),
            ("tools[1].name", "tools[1].function.name"),
            ("tools[0].function.parameters", "tools[0].function.parameters"),
            ("tool_choice.name", "tool_choice.function.name"),
            ("tool_choice", "tool_choice"),
            ("messages", "messages"),
            ("messages[2].parts", "messages[2].content"),
            ("messages[2].parts[1].image.url", "messages[2].content"),
            ("messages[2].parts[0].tool_result.call_id", "messages[2].tool_call_id"),
            ("messages[2].parts[0].tool_call.arguments", "messages[2].tool_calls"),
            ("model", "model"),
        ] {
            assert_eq!(told(|error| of_chat(error, "max_completion_tokens"), contracts), ours);
        }
        for (contracts, ours) in [("sampling.top_p", "top_p"), ("messages", "prompt"), ("top_logprobs", "logprobs"), ("n", "n")] {
            assert_eq!(told(of_completion, contracts), ours);
        }
        for (contracts, one, ours) in
            [("inputs[3].tokens", false, "input[3]"), ("inputs", false, "input"), ("inputs[0]", true, "input"), ("model", true, "model")]
        {
            assert_eq!(told(|error| of_embedding(error, one), contracts), ours);
        }
        let message = |message: &str, one: bool| of_embedding(Error::invalid("inputs[1]", message), one).message().to_owned();
        assert_eq!(message("inputs[1].tokens: there are no tokens", false), "input[1]: there are no tokens");
        assert_eq!(message("inputs[1] is an empty text", true), "input is an empty text");
        assert_eq!(message("the inputs are many", false), "the inputs are many");
    }
}
