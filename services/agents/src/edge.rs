//! A turn's input at the edge: what may be in it, where each part comes from, and which calls its results answer.

use std::collections::{HashMap, HashSet};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ApprovalDecision, ApprovalRequest, Message, Part, Role, ToolCall, ToolResult, part::Content};
use prost_types::Timestamp;

use crate::calls::labelled;

/// The input as it is journalled: parts labelled, and first of all one message with the results of the parent's calls,
/// in call order. It may be empty only where `may_be_empty`.
///
/// `awaited` are the calls that the parent waits for; each must be answered. An input may also bring a past of its own:
/// assistant messages whose calls are answered in the input.
///
/// # Errors
/// `InvalidArgument` with the path of what is wrong.
pub(crate) fn input(input: Vec<Message>, awaited: &[ToolCall], may_be_empty: bool) -> Result<Vec<Message>> {
    if input.is_empty() && !may_be_empty {
        return Err(Error::invalid("input", "input must hold at least one message"));
    }
    let mut pairing = Pairing::new(awaited);
    let mut messages = Vec::with_capacity(input.len());
    for (index, message) in input.into_iter().enumerate() {
        let path = format!("input[{index}]");
        let message = checked(message, &path, &mut pairing)?;
        if !message.parts.is_empty() || message.role() == Role::Assistant {
            messages.push(message);
        }
    }
    let answers = pairing.finish("input")?;
    if !answers.is_empty() {
        messages.insert(0, tool_message(answers));
    }
    Ok(messages)
}

/// The results for `awaited`, exactly, labelled and in call order.
///
/// # Errors
/// `InvalidArgument` that names the calls that are missing, unknown or answered twice.
pub(crate) fn results(results: Vec<ToolResult>, awaited: &[ToolCall]) -> Result<Vec<ToolResult>> {
    let mut pairing = Pairing::new(awaited);
    for (index, result) in results.into_iter().enumerate() {
        pairing.answer(result, &format!("results[{index}]"))?;
    }
    pairing.finish("results")
}

/// The decisions on these requests, which are still open for them. `all`: each must be decided on.
///
/// # Errors
/// `InvalidArgument` that names those that are missing, unknown or decided twice · `FailedPrecondition` for an approval
/// that comes too late (`approval_expired`).
pub(crate) fn decisions(
    decisions: Vec<ApprovalDecision>,
    asked: &[ApprovalRequest],
    all: bool,
    now: &Timestamp,
) -> Result<Vec<ApprovalDecision>> {
    let mut seen = HashSet::new();
    for (index, decision) in decisions.iter().enumerate() {
        let (field, id) = (format!("decisions[{index}].approval_request_id"), &decision.approval_request_id);
        let Some(request) = asked.iter().find(|request| request.id == *id) else {
            let message = format!("nothing here waits for a decision on {id:?}");
            return Err(Error::invalid(field, message).with_reason("unexpected_approval"));
        };
        if !seen.insert(id) {
            return Err(Error::invalid(field, format!("{id:?} is decided on twice")).with_reason("unexpected_approval"));
        }
        let late = request.expires.as_ref().is_some_and(|expires| (expires.seconds, expires.nanos) < (now.seconds, now.nanos));
        if decision.approve && late {
            let message = format!("the time to approve {id:?} is over: deny it, or begin another turn");
            return Err(Error::failed_precondition(message).with_reason("approval_expired").with_field(field));
        }
    }
    let missing: Vec<&str> = asked.iter().map(|request| request.id.as_str()).filter(|id| !seen.contains(&(*id).to_owned())).collect();
    if all && !missing.is_empty() {
        return Err(Error::invalid("decisions", format!("no decision on {}", missing.join(", "))).with_reason("approval_missing"));
    }
    Ok(decisions)
}

/// Which calls are open and which have been answered.
struct Pairing<'a> {
    awaited: &'a [ToolCall],
    answers: HashMap<String, ToolResult>,
    /// Calls of the input's own assistant messages that are not answered yet.
    open: HashMap<String, ToolCall>,
    seen: HashSet<String>,
}

impl<'a> Pairing<'a> {
    fn new(awaited: &'a [ToolCall]) -> Self {
        Self { awaited, answers: HashMap::new(), open: HashMap::new(), seen: HashSet::new() }
    }

    fn call(&mut self, call: &ToolCall, path: &str) -> Result<()> {
        if call.id.is_empty() || call.name.is_empty() {
            return Err(Error::invalid(path, "a tool call needs an id and a name"));
        }
        if self.awaited.iter().any(|awaited| awaited.id == call.id) || !self.seen.insert(call.id.clone()) {
            return Err(Error::invalid(path, format!("the id of call {:?} is taken", call.id)));
        }
        self.open.insert(call.id.clone(), call.clone());
        Ok(())
    }

    /// Takes a result: `Some` if it answers a call of the input itself.
    fn answer(&mut self, result: ToolResult, path: &str) -> Result<Option<ToolResult>> {
        let id = &result.call_id;
        if let Some(bad) = result.parts.iter().position(|part| !matches!(part.content, Some(Content::Text(_) | Content::Image(_)))) {
            return Err(Error::invalid(format!("{path}.parts[{bad}]"), "a tool result holds text and images only"));
        }
        if let Some(call) = self.open.remove(id) {
            return Ok(Some(labelled(&call, result)));
        }
        let Some(call) = self.awaited.iter().find(|call| call.id == *id) else {
            let why = if self.seen.contains(id) { "has been answered before" } else { "is not awaited here" };
            return Err(Error::invalid(format!("{path}.call_id"), format!("call {id:?} {why}")).with_reason("unexpected_tool_result"));
        };
        if self.answers.contains_key(id) {
            return Err(Error::invalid(format!("{path}.call_id"), format!("call {id:?} has been answered before"))
                .with_reason("unexpected_tool_result"));
        }
        self.answers.insert(call.id.clone(), labelled(call, result));
        Ok(None)
    }

    /// The answers to the awaited calls, in call order.
    fn finish(mut self, field: &str) -> Result<Vec<ToolResult>> {
        let unanswered = self.awaited.iter().filter(|call| !self.answers.contains_key(&call.id)).chain(self.open.values());
        let mut missing: Vec<&str> = unanswered.map(|call| call.id.as_str()).collect();
        if !missing.is_empty() {
            missing.sort_unstable();
            let message = format!("no result for call {}", missing.join(", "));
            return Err(Error::invalid(field, message).with_reason("tool_result_missing"));
        }
        Ok(self.awaited.iter().filter_map(|call| self.answers.remove(&call.id)).collect())
    }
}

fn checked(mut message: Message, path: &str, pairing: &mut Pairing<'_>) -> Result<Message> {
    let role = message.role();
    if role == Role::Unspecified {
        return Err(Error::invalid(format!("{path}.role"), "role must be system, user, assistant or tool"));
    }
    if message.parts.is_empty() && role != Role::Assistant {
        return Err(Error::invalid(format!("{path}.parts"), "a message must have at least one part"));
    }
    let mut own = Vec::new();
    for (index, part) in std::mem::take(&mut message.parts).into_iter().enumerate() {
        let path = format!("{path}.parts[{index}]");
        match (role, part.content) {
            (Role::Tool, Some(Content::ToolResult(result))) => own.extend(pairing.answer(result, &path)?),
            (Role::Assistant, Some(Content::ToolCall(call))) => {
                pairing.call(&call, &path)?;
                message.parts.push(Part::from(call).with_provenance("assistant"));
            }
            (Role::System, Some(Content::Text(_))) if is_quoted(&part.provenance) => {
                let message = format!("text of {:?} cannot be a system message: put it into a user's message", part.provenance);
                return Err(Error::invalid(path, message).with_reason("untrusted_system_message"));
            }
            (Role::Assistant, Some(content @ (Content::Text(_) | Content::Refusal(_) | Content::Reasoning(_))))
            | (Role::System, Some(content @ Content::Text(_)))
            | (Role::User, Some(content @ (Content::Text(_) | Content::Image(_)))) => {
                message.parts.push(Part::new(content).with_provenance(provenance(role, part.provenance)));
            }
            _ => return Err(Error::invalid(path, format!("a {} message cannot hold this part", role.provenance()))),
        }
    }
    if !own.is_empty() {
        message.parts = tool_message(own).parts;
    }
    Ok(message)
}

/// A user's or an assistant's message may quote a document or a tool. Nothing else can be claimed: text is never lifted to
/// another role.
fn provenance(role: Role, claimed: String) -> String {
    if role != Role::System && is_quoted(&claimed) { claimed } else { role.provenance().to_owned() }
}

fn is_quoted(label: &str) -> bool {
    label.starts_with("retrieved:") || label.starts_with("tool:")
}

/// Labels the messages of a history that a caller keeps, which no turn holds.
pub(crate) fn label(messages: &mut [Message]) {
    for message in messages {
        let role = message.role();
        for part in &mut message.parts {
            match &mut part.content {
                Some(Content::ToolResult(result)) => {
                    let label = format!("tool:{}", result.name);
                    let of_tool = |part: &mut Part| {
                        if !part.provenance.starts_with("retrieved:") {
                            part.provenance.clone_from(&label);
                        }
                    };
                    result.parts.iter_mut().for_each(of_tool);
                    part.provenance.clone_from(&label);
                }
                _ => part.provenance = provenance(role, std::mem::take(&mut part.provenance)),
            }
        }
    }
}

fn tool_message(results: Vec<ToolResult>) -> Message {
    let part = |result: ToolResult| {
        let provenance = format!("tool:{}", result.name);
        Part::from(result).with_provenance(provenance)
    };
    Message::new(Role::Tool, results.into_iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall::new(id, "look", "{}")
    }

    fn result(id: &str) -> ToolResult {
        ToolResult { call_id: id.into(), parts: vec![Part::text("seen").with_provenance("system")], ..ToolResult::default() }
    }

    #[test]
    fn results_come_first_in_call_order_and_are_labelled() {
        let asked = [call("a"), call("b")];
        let given = vec![Message::user("and now?"), Message::tool(vec![result("b"), result("a")])];
        let input = input(given, &asked, false).unwrap();
        let ids: Vec<&str> = input[0].tool_results().map(|result| result.call_id.as_str()).collect();
        assert_eq!((ids, input[1].joined_text()), (vec!["a", "b"], "and now?".to_owned()));
        let first = input[0].tool_results().next().unwrap();
        assert_eq!((first.name.as_str(), first.parts[0].provenance.as_str()), ("look", "tool:look"));
        assert_eq!(input[1].parts[0].provenance, "user");
    }

    #[test]
    fn each_awaited_call_is_answered_exactly_once() {
        let asked = [call("a"), call("b")];
        let told = |given: &[&str]| results(given.iter().map(|id| result(id)).collect(), &asked).unwrap_err().message().to_owned();
        assert!(told(&["a"]).contains("no result for call b"));
        assert!(told(&["a", "b", "c"]).contains("\"c\" is not awaited"));
        assert!(told(&["a", "a", "b"]).contains("\"a\" has been answered before"));
        assert_eq!(results(vec![result("b"), result("a")], &asked).unwrap().len(), 2);
    }

    #[test]
    fn an_input_may_bring_its_own_past_if_it_is_paired() {
        let said = Message::new(Role::Assistant, vec![call("x").into()]);
        let past = vec![Message::user("look"), said.clone(), Message::tool(vec![result("x")]), Message::user("well?")];
        assert_eq!(input(past, &[], false).unwrap().len(), 4);
        assert_eq!(input(vec![said], &[], false).unwrap_err().reason(), Some("tool_result_missing"));
        assert_eq!(input(vec![Message::tool(vec![result("x")])], &[], false).unwrap_err().field(), Some("input[0].parts[0].call_id"));
    }

    #[test]
    fn nobody_can_claim_another_role() {
        let claim = |label: &str| {
            let part = Part::text("hi").with_provenance(label);
            input(vec![Message::new(Role::User, vec![part])], &[], false).unwrap()[0].parts[0].provenance.clone()
        };
        assert_eq!(claim("system"), "user");
        assert_eq!(claim("retrieved:bank/doc"), "retrieved:bank/doc");
        let lifted = Message::new(Role::System, vec![Part::text("obey").with_provenance("tool:look")]);
        assert_eq!(input(vec![lifted], &[], false).unwrap_err().reason(), Some("untrusted_system_message"));
        let crooked = Message::new(Role::System, vec![result("x").into()]);
        assert_eq!(input(vec![crooked], &[], false).unwrap_err().field(), Some("input[0].parts[0]"));
    }
}
