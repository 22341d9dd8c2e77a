//! Conditions that can be decided without Cedar: those that ask for plain facts, such as `context.seen_untrusted`.
//!
//! Most policies do not apply to most calls, and their first words say so. To learn that from Cedar, the call's entities must
//! be made first, and every policy evaluated. What is decided here is decided as Cedar would: from left
//! to right, and no further than to the first operand that settles it. What is not understood here is left to Cedar, and
//! with it all that comes after, because it could fail and a policy that fails denies the call.

use std::collections::BTreeSet;

use cedar_policy::Policy;
use serde_json::Value;

use crate::{
    Question,
    arguments::Arguments,
    facts::{PRIVATE, UNTRUSTED},
    request::{LABELS, any},
};

/// A condition, as far as it is understood.
#[derive(Debug, PartialEq)]
pub(crate) enum Shortcut {
    Always,
    Fact(Fact),
    Not(Box<Shortcut>),
    And(Box<Shortcut>, Box<Shortcut>),
    Or(Box<Shortcut>, Box<Shortcut>),
    /// Only Cedar knows.
    Unknown,
}

/// What a question says of itself. None of these can fail: the schema promises that they are there.
#[derive(Debug, PartialEq)]
pub(crate) enum Fact {
    SeenUntrusted,
    SeenPrivate,
    Unreadable,
    Flag(Flag),
    /// A string of the principal or the tool is this one.
    Is(Text, String),
    Agent(String),
    Role(String),
    Seen(String),
    /// An argument is in a table.
    Has(Table, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flag {
    ReadsUntrusted,
    ReadsPrivate,
    ChangesState,
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Text {
    User,
    Tenant,
    Group,
    Tool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Table {
    Text,
    Whole,
    Decimals,
    Lists,
}

/// A question, and what was read of its arguments.
pub(crate) struct Known<'a> {
    pub(crate) question: &'a Question<'a>,
    pub(crate) arguments: &'a Arguments<'a>,
    pub(crate) unreadable: bool,
    pub(crate) seen_untrusted: bool,
    pub(crate) seen_private: bool,
}

impl<'a> Known<'a> {
    pub(crate) fn of(question: &'a Question<'a>, arguments: &'a Arguments<'a>) -> Self {
        Self {
            question,
            arguments,
            unreadable: arguments.unreadable || question.seen.len() > LABELS,
            seen_untrusted: any(question.seen, UNTRUSTED),
            seen_private: any(question.seen, PRIVATE),
        }
    }
}

impl Shortcut {
    /// Of all conditions of a policy.
    pub(crate) fn of(policy: &Policy) -> Self {
        let Ok(json) = policy.to_json() else { return Self::Unknown };
        let Some(conditions) = json["conditions"].as_array() else { return Self::Unknown };
        conditions.iter().fold(Self::Always, |before, condition| {
            let body = Self::read(&condition["body"]);
            let this = match condition["kind"].as_str() {
                Some("when") => body,
                Some("unless") => Self::Not(Box::new(body)),
                _ => Self::Unknown,
            };
            if before == Self::Always { this } else { Self::And(Box::new(before), Box::new(this)) }
        })
    }

    /// Of an expression in Cedar's JSON form. Source: "JSON policy format" of Cedar's reference.
    fn read(expression: &Value) -> Self {
        let Some((operator, operands)) = expression.as_object().and_then(|map| map.iter().next()) else { return Self::Unknown };
        let (left, right) = (&operands["left"], &operands["right"]);
        let both = || (Box::new(Self::read(left)), Box::new(Self::read(right)));
        match operator.as_str() {
            "Value" if operands == &Value::Bool(true) => Self::Always,
            "Value" if operands == &Value::Bool(false) => Self::Not(Box::new(Self::Always)),
            "!" => Self::Not(Box::new(Self::read(&operands["arg"]))),
            "&&" => {
                let (left, right) = both();
                Self::And(left, right)
            }
            "||" => {
                let (left, right) = both();
                Self::Or(left, right)
            }
            "." => Self::fact(flag(expression)),
            "==" => Self::fact(equal(left, right).or_else(|| equal(right, left))),
            "!=" => Self::Not(Box::new(Self::fact(equal(left, right).or_else(|| equal(right, left))))),
            "contains" => Self::fact(contains(left, right)),
            "hasTag" => Self::fact(table(left).zip(text(right)).map(|(table, path)| Fact::Has(table, path))),
            _ => Self::Unknown,
        }
    }

    fn fact(fact: Option<Fact>) -> Self {
        fact.map_or(Self::Unknown, Self::Fact)
    }

    /// `None`: ask Cedar.
    pub(crate) fn holds(&self, known: &Known<'_>) -> Option<bool> {
        match self {
            Self::Always => Some(true),
            Self::Fact(fact) => Some(fact.holds(known)),
            Self::Not(inner) => inner.holds(known).map(|holds| !holds),
            Self::And(left, right) => {
                if left.holds(known)? {
                    right.holds(known)
                } else {
                    Some(false)
                }
            }
            Self::Or(left, right) => {
                if left.holds(known)? {
                    Some(true)
                } else {
                    right.holds(known)
                }
            }
            Self::Unknown => None,
        }
    }
}

impl Fact {
    fn holds(&self, known: &Known<'_>) -> bool {
        let (who, tool, seen) = (known.question.principal, known.question.tool, known.question.seen);
        match self {
            Self::SeenUntrusted => known.seen_untrusted,
            Self::SeenPrivate => known.seen_private,
            Self::Unreadable => known.unreadable,
            Self::Flag(Flag::ReadsUntrusted) => tool.reads_untrusted,
            Self::Flag(Flag::ReadsPrivate) => tool.reads_private,
            Self::Flag(Flag::ChangesState) => tool.changes_state,
            Self::Flag(Flag::Remote) => tool.remote,
            Self::Is(Text::User, text) => who.id == *text,
            Self::Is(Text::Tenant, text) => who.tenant == *text,
            Self::Is(Text::Group, text) => tool.group == *text,
            Self::Is(Text::Tool, text) => tool.name == *text,
            Self::Agent(id) => known.question.agent_id == id,
            Self::Role(role) => who.roles.contains(role),
            Self::Seen(label) => seen_within(seen, label),
            Self::Has(table, path) => {
                let tags = match table {
                    Table::Text => &known.arguments.text,
                    Table::Whole => &known.arguments.whole,
                    Table::Decimals => &known.arguments.decimals,
                    Table::Lists => &known.arguments.lists,
                };
                tags.iter().any(|(known, _)| known == path)
            }
        }
    }
}

/// Among the labels that policies see.
fn seen_within(seen: &BTreeSet<String>, label: &str) -> bool {
    if seen.len() <= LABELS { seen.contains(label) } else { seen.iter().take(LABELS).any(|seen| seen == label) }
}

/// A truth value of the context or the tool.
fn flag(expression: &Value) -> Option<Fact> {
    Some(match attribute(expression)? {
        ("context", "seen_untrusted") => Fact::SeenUntrusted,
        ("context", "seen_private") => Fact::SeenPrivate,
        ("context", "unreadable") => Fact::Unreadable,
        ("resource", "reads_untrusted") => Fact::Flag(Flag::ReadsUntrusted),
        ("resource", "reads_private") => Fact::Flag(Flag::ReadsPrivate),
        ("resource", "changes_state") => Fact::Flag(Flag::ChangesState),
        ("resource", "remote") => Fact::Flag(Flag::Remote),
        _ => return None,
    })
}

fn equal(left: &Value, right: &Value) -> Option<Fact> {
    let which = match attribute(left)? {
        ("context", "agent") => {
            let agent = &right["Value"]["__entity"];
            return (agent["type"] == "Agent").then(|| agent["id"].as_str().map(|id| Fact::Agent(id.to_owned())))?;
        }
        ("principal", "id") => Text::User,
        ("principal", "tenant") => Text::Tenant,
        ("resource", "group") => Text::Group,
        ("resource", "name") => Text::Tool,
        _ => return None,
    };
    text(right).map(|text| Fact::Is(which, text))
}

fn contains(left: &Value, right: &Value) -> Option<Fact> {
    match attribute(left)? {
        ("principal", "roles") => text(right).map(Fact::Role),
        ("context", "seen") => text(right).map(Fact::Seen),
        _ => None,
    }
}

/// `context.arguments.<table>`.
fn table(expression: &Value) -> Option<Table> {
    let arguments = &expression["."]["left"];
    (attribute(arguments)? == ("context", "arguments")).then_some(())?;
    Some(match expression["."]["attr"].as_str()? {
        "text" => Table::Text,
        "whole" => Table::Whole,
        "decimals" => Table::Decimals,
        "lists" => Table::Lists,
        _ => return None,
    })
}

/// The variable and the attribute of `variable.attribute`.
fn attribute(expression: &Value) -> Option<(&str, &str)> {
    let access = expression.get(".")?;
    Some((access["left"]["Var"].as_str()?, access["attr"].as_str()?))
}

/// A string that is written out.
fn text(expression: &Value) -> Option<String> {
    expression["Value"].as_str().map(ToOwned::to_owned)
}
