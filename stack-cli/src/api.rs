//! `llama-stack api`: the gRPC contract, read from its own descriptors.

use llama_stack_core::{Error, Result};
use llama_stack_proto::DESCRIPTORS;
use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use serde::Serialize;

use crate::{args::ApiVerb, output::Output};

const PACKAGE: &str = "llama_stack.v1.";

pub(crate) fn run(verb: ApiVerb, output: &Output) -> Result<()> {
    let pool = DescriptorPool::decode(DESCRIPTORS);
    let pool = pool.map_err(|error| Error::internal("the contract's descriptors cannot be read").with_source(error))?;
    match verb {
        ApiVerb::List => list(&pool, output),
        ApiVerb::Describe { name } => describe(&pool, &name, output),
    }
}

/// A service, a method, a message, an enum, a field or a value, with what the contract says of it.
#[derive(Default, Serialize)]
struct Described {
    /// `service`, `method`, `message`, `enum`, `field` or `value`.
    kind: &'static str,
    name: String,
    /// As it is declared.
    declaration: String,
    comment: String,
    members: Vec<Described>,
}

fn list(pool: &DescriptorPool, output: &Output) -> Result<()> {
    let services: Vec<Described> = pool.services().filter(|service| service.full_name().starts_with(PACKAGE)).map(service).collect();
    output.result(&services, |services| {
        let mut text = String::new();
        for service in services {
            text += &format!("{}\n", service.name);
            for method in &service.members {
                text += &format!("  {}\n", method.declaration);
            }
        }
        text + "\n`llama-stack api describe NAME` says more of a service, a method, a message or an enum\n"
    })
}

fn describe(pool: &DescriptorPool, name: &str, output: &Output) -> Result<()> {
    let found = find(pool, name.trim_start_matches('.')).ok_or_else(|| {
        let services = pool.services().map(|service| service.name().to_owned());
        let messages = pool.all_messages().map(|message| message.name().to_owned());
        let names: Vec<String> = services.chain(messages).chain(pool.all_enums().map(|one| one.name().to_owned())).collect();
        let near: Vec<&str> = near(name, &names);
        let hint =
            if near.is_empty() { "`llama-stack api list` shows the services".into() } else { format!("perhaps {}", near.join(", ")) };
        Error::not_found(format!("the contract has no {name:?}; {hint}"))
    })?;
    output.result(&found, |found| found.iter().map(|one| text(one, 0)).collect::<Vec<_>>().join("\n"))
}

/// What is meant, and where it is a method, what it takes and gives.
fn find(pool: &DescriptorPool, name: &str) -> Option<Vec<Described>> {
    let full = |name: &str| if name.starts_with(PACKAGE) { name.to_owned() } else { format!("{PACKAGE}{name}") };
    if let Some(found) = pool.get_service_by_name(&full(name)) {
        return Some(vec![service(found)]);
    }
    if let Some(found) = pool.get_message_by_name(&full(name)) {
        return Some(vec![message(&found)]);
    }
    if let Some(found) = pool.get_enum_by_name(&full(name)) {
        return Some(vec![enumeration(&found)]);
    }
    let (owner, member) = name.rsplit_once(['.', '/'])?;
    let owner = pool.get_service_by_name(&full(owner))?;
    let found = owner.methods().find(|method| method.name() == member)?;
    Some(vec![method(&found, true), message(&found.input()), message(&found.output())])
}

/// Names that share a good part with what was asked for.
fn near<'a>(name: &str, names: &'a [String]) -> Vec<&'a str> {
    let wanted = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    let mut scored: Vec<(f32, &str)> = names
        .iter()
        .map(|there| (similar::TextDiff::from_chars(wanted.as_str(), there.to_lowercase().as_str()).ratio(), there.as_str()))
        .filter(|(score, _)| *score > 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// The comment that leads a declaration.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let found = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = found.map(|location| location.leading_comments().to_owned()).unwrap_or_default();
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn service(service: ServiceDescriptor) -> Described {
    Described {
        kind: "service",
        name: service.full_name().to_owned(),
        declaration: format!("service {}", service.name()),
        comment: comment(&service.parent_file(), service.path()),
        members: service.methods().map(|one| method(&one, false)).collect(),
    }
}

fn method(method: &MethodDescriptor, whole: bool) -> Described {
    let stream = |is: bool| if is { "stream " } else { "" };
    let (input, output) = (method.input(), method.output());
    let name = if whole { method.full_name() } else { method.name() };
    Described {
        kind: "method",
        name: name.to_owned(),
        declaration: format!(
            "rpc {}({}{}) returns ({}{})",
            method.name(),
            stream(method.is_client_streaming()),
            input.name(),
            stream(method.is_server_streaming()),
            output.name()
        ),
        comment: comment(&method.parent_file(), method.path()),
        members: Vec::new(),
    }
}

fn message(message: &MessageDescriptor) -> Described {
    let nested = message.child_messages().filter(|child| !child.is_map_entry()).map(|child| self::message(&child));
    let enums = message.child_enums().map(|child| enumeration(&child));
    let fields = message.fields().map(|one| field(&one));
    Described {
        kind: "message",
        name: message.full_name().to_owned(),
        declaration: format!("message {}", message.name()),
        comment: comment(&message.parent_file(), message.path()),
        members: fields.chain(enums).chain(nested).collect(),
    }
}

fn enumeration(one: &EnumDescriptor) -> Described {
    let file = one.parent_file();
    let value = |value: prost_reflect::EnumValueDescriptor| Described {
        kind: "value",
        name: value.name().to_owned(),
        declaration: format!("{} = {}", value.name(), value.number()),
        comment: comment(&file, value.path()),
        members: Vec::new(),
    };
    Described {
        kind: "enum",
        name: one.full_name().to_owned(),
        declaration: format!("enum {}", one.name()),
        comment: comment(&file, one.path()),
        members: one.values().map(value).collect(),
    }
}

fn field(field: &FieldDescriptor) -> Described {
    let kind = match (field.is_map(), field.kind()) {
        (true, Kind::Message(entry)) => {
            format!("map<{}, {}>", kind(&entry.map_entry_key_field().kind()), kind(&entry.map_entry_value_field().kind()))
        }
        (_, of) => kind(&of),
    };
    let label = match (field.is_map(), field.cardinality(), field.containing_oneof()) {
        (false, Cardinality::Repeated, _) => "repeated ".to_owned(),
        (_, _, Some(oneof)) if oneof.fields().len() > 1 => format!("oneof {}: ", oneof.name()),
        (_, _, Some(_)) => "optional ".to_owned(),
        _ => String::new(),
    };
    Described {
        kind: "field",
        name: field.name().to_owned(),
        declaration: format!("{label}{kind} {} = {}", field.name(), field.number()),
        comment: comment(&field.parent_message().parent_file(), field.path()),
        members: Vec::new(),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().trim_start_matches(PACKAGE).to_owned(),
        Kind::Enum(one) => one.full_name().trim_start_matches(PACKAGE).to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// As a `.proto` file has it.
fn text(one: &Described, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut text: String = one.comment.lines().map(|line| format!("{indent}// {line}").trim_end().to_owned() + "\n").collect();
    let block = matches!(one.kind, "service" | "message" | "enum");
    match (block, one.members.is_empty()) {
        (false, _) => text += &format!("{indent}{};\n", one.declaration),
        (true, true) => text += &format!("{indent}{} {{}}\n", one.declaration),
        (true, false) => {
            text += &format!("{indent}{} {{\n", one.declaration);
            text += &one.members.iter().map(|member| self::text(member, depth + 1)).collect::<String>();
            text += &format!("{indent}}}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(DESCRIPTORS).unwrap()
    }

    #[test]
    fn a_method_is_described_with_its_comments_and_what_it_takes() {
        let found = find(&pool(), "Tools.InvokeTool").unwrap();
        let text: String = found.iter().map(|one| text(one, 0)).collect();
        assert!(text.contains("// Runs a tool."), "{text}");
        assert!(text.contains("rpc InvokeTool(InvokeToolRequest) returns (InvokeToolResponse);"), "{text}");
        assert!(text.contains("  // A JSON object.\n  string arguments = 2;"), "{text}");
        assert!(text.contains("repeated Part parts = 1;"), "{text}");
    }

    #[test]
    fn every_service_and_message_can_be_described() {
        let pool = pool();
        for message in pool.all_messages().filter(|message| message.full_name().starts_with(PACKAGE) && !message.is_map_entry()) {
            assert!(find(&pool, message.full_name()).is_some(), "{}", message.full_name());
        }
        let names = ["Inference", "ToolChoice.Mode", "SamplingParams"];
        assert!(names.iter().all(|name| find(&pool, name).is_some()));
        let sampling = text(&find(&pool, "SamplingParams").unwrap()[0], 0);
        assert!(
            sampling.contains("map<uint32, float> logit_bias = 11;") && sampling.contains("optional float temperature = 1;"),
            "{sampling}"
        );
        assert!(text(&find(&pool, "Part").unwrap()[0], 0).contains("oneof content: string text = 1;"));
    }

    #[test]
    fn a_slip_of_the_pen_is_met_with_what_there_is() {
        assert_eq!(near("SamplingParam", &["SamplingParams".into(), "Turn".into()]), ["SamplingParams"]);
    }
}
