//! A released contract only grows: the current descriptors are compared with the committed ones.
//!
//! `UPDATE_BASELINE=1 cargo test -p llama-stack-proto --test breaking` writes the current ones, when a release is made
//! or a package that nobody uses yet is changed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{collections::BTreeMap, env, fs, path::Path};

use llama_stack_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

const PACKAGE: &str = "llama_stack.v1";
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/llama_stack.v1.bin");

#[test]
fn nothing_that_was_released_is_broken() {
    let current = contract(DESCRIPTORS);
    if env::var_os("UPDATE_BASELINE").is_some() {
        fs::create_dir_all(Path::new(BASELINE).parent().unwrap()).unwrap();
        fs::write(BASELINE, current.encode_to_vec()).unwrap();
    }
    let baseline = contract(&fs::read(BASELINE).unwrap());
    assert!(!Names::of(&baseline).services.is_empty(), "the baseline is empty");
    assert_eq!(breaks(&baseline, &current), Vec::<String>::new());
}

/// The package's own files, without comments: those may change.
fn contract(encoded: &[u8]) -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(encoded).unwrap();
    set.file.retain(|file| file.package() == PACKAGE);
    set.file.iter_mut().for_each(|file| file.source_code_info = None);
    set
}

/// Everything that has a name, by its full name.
#[derive(Default)]
struct Names<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
    services: BTreeMap<String, &'a ServiceDescriptorProto>,
}

impl<'a> Names<'a> {
    fn of(set: &'a FileDescriptorSet) -> Self {
        let mut names = Self::default();
        for file in &set.file {
            let package = file.package();
            file.message_type.iter().for_each(|message| names.add(package, message));
            names.enums.extend(file.enum_type.iter().map(|one| (format!("{package}.{}", one.name()), one)));
            names.services.extend(file.service.iter().map(|one| (format!("{package}.{}", one.name()), one)));
        }
        names
    }

    fn add(&mut self, scope: &str, message: &'a DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested));
        self.enums.extend(message.enum_type.iter().map(|one| (format!("{name}.{}", one.name()), one)));
        self.messages.insert(name, message);
    }
}

/// What a user of `old` loses with `new`, a sentence each.
fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let (old, new) = (Names::of(old), Names::of(new));
    let mut found = Vec::new();
    for (name, message) in &old.messages {
        match new.messages.get(name) {
            Some(now) => message_breaks(name, message, now, &mut found),
            None => found.push(format!("message {name} is gone")),
        }
    }
    for (name, one) in &old.enums {
        match new.enums.get(name) {
            Some(now) => enum_breaks(name, one, now, &mut found),
            None => found.push(format!("enum {name} is gone")),
        }
    }
    for (name, service) in &old.services {
        match new.services.get(name) {
            Some(now) => service_breaks(name, service, now, &mut found),
            None => found.push(format!("service {name} is gone")),
        }
    }
    found
}

fn message_breaks(name: &str, old: &DescriptorProto, new: &DescriptorProto, found: &mut Vec<String>) {
    for field in &old.field {
        let place = format!("field {name}.{} = {}", field.name(), field.number());
        let Some(now) = new.field.iter().find(|now| now.number() == field.number()) else {
            found.push(format!("{place} is gone or has another number"));
            continue;
        };
        if now.name() != field.name() {
            found.push(format!("{place} is called {} now", now.name()));
        }
        if (now.r#type, now.type_name()) != (field.r#type, field.type_name()) {
            found.push(format!("{place} has another type"));
        }
        if (now.label, now.proto3_optional()) != (field.label, field.proto3_optional()) {
            found.push(format!("{place} has another label"));
        }
        if oneof(new, now) != oneof(old, field) {
            found.push(format!("{place} moved into or out of a oneof"));
        }
    }
    // A number that was given up may still be on somebody's disk.
    let reserved = |number| new.reserved_range.iter().any(|range| (range.start()..range.end()).contains(&number));
    for number in old.reserved_range.iter().flat_map(|range| range.start()..range.end()) {
        if !reserved(number) {
            found.push(format!("number {number} of {name} is no longer reserved"));
        }
    }
    for word in old.reserved_name.iter().filter(|word| !new.reserved_name.contains(word)) {
        found.push(format!("name {word} of {name} is no longer reserved"));
    }
}

/// The oneof that a field is written in; `optional` fields have one of their own, which says nothing.
fn oneof<'a>(message: &'a DescriptorProto, field: &FieldDescriptorProto) -> Option<&'a str> {
    let index = field.oneof_index.filter(|_| !field.proto3_optional())?;
    Some(message.oneof_decl[usize::try_from(index).unwrap()].name())
}

fn enum_breaks(name: &str, old: &EnumDescriptorProto, new: &EnumDescriptorProto, found: &mut Vec<String>) {
    for value in &old.value {
        match new.value.iter().find(|now| now.number() == value.number()) {
            Some(now) if now.name() == value.name() => {}
            Some(now) => found.push(format!("enum value {name}.{} = {} is called {} now", value.name(), value.number(), now.name())),
            None => found.push(format!("enum value {name}.{} = {} is gone or has another number", value.name(), value.number())),
        }
    }
}

fn service_breaks(name: &str, old: &ServiceDescriptorProto, new: &ServiceDescriptorProto, found: &mut Vec<String>) {
    for method in &old.method {
        let place = format!("method {name}.{}", method.name());
        let Some(now) = new.method.iter().find(|now| now.name() == method.name()) else {
            found.push(format!("{place} is gone"));
            continue;
        };
        if (now.input_type(), now.output_type()) != (method.input_type(), method.output_type()) {
            found.push(format!("{place} takes or returns another message"));
        }
        if (now.client_streaming(), now.server_streaming()) != (method.client_streaming(), method.server_streaming()) {
            found.push(format!("{place} streams differently"));
        }
    }
}

mod each_break_is_caught {
    use super::*;
    use prost_types::{
        descriptor_proto::ReservedRange,
        field_descriptor_proto::{Label, Type},
    };

    /// Changes a copy of the current contract, and gives the one break that is found.
    fn only_break(change: impl FnOnce(&mut FileDescriptorSet)) -> String {
        let old = contract(DESCRIPTORS);
        only_break_between(&old, change)
    }

    fn only_break_between(old: &FileDescriptorSet, change: impl FnOnce(&mut FileDescriptorSet)) -> String {
        let mut new = old.clone();
        change(&mut new);
        let found = breaks(old, &new);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
        set.file.iter_mut().flat_map(|file| &mut file.message_type).find(|message| message.name() == name).unwrap()
    }

    fn field<'a>(set: &'a mut FileDescriptorSet, of: &str, name: &str) -> &'a mut FieldDescriptorProto {
        message(set, of).field.iter_mut().find(|field| field.name() == name).unwrap()
    }

    fn turn_status(set: &mut FileDescriptorSet) -> &mut EnumDescriptorProto {
        set.file.iter_mut().flat_map(|file| &mut file.enum_type).find(|one| one.name() == "TurnStatus").unwrap()
    }

    fn agents(set: &mut FileDescriptorSet) -> &mut ServiceDescriptorProto {
        set.file.iter_mut().flat_map(|file| &mut file.service).find(|service| service.name() == "Agents").unwrap()
    }

    #[test]
    fn growth_is_no_break() {
        let old = contract(DESCRIPTORS);
        let mut new = old.clone();
        let added = FieldDescriptorProto { name: Some("added".into()), number: Some(900), ..FieldDescriptorProto::default() };
        message(&mut new, "Agent").field.push(added);
        let method = agents(&mut new).method[0].clone();
        agents(&mut new).method.push(prost_types::MethodDescriptorProto { name: Some("Added".into()), ..method });
        assert_eq!(breaks(&old, &new), Vec::<String>::new());
        // Seen from the other side, both are gone.
        assert_eq!(breaks(&new, &old).len(), 2);
    }

    #[test]
    fn of_a_field() {
        let gone = only_break(|set| message(set, "Agent").field.retain(|field| field.name() != "config"));
        assert_eq!(gone, "field llama_stack.v1.Agent.config = 2 is gone or has another number");
        let renumbered = only_break(|set| field(set, "Agent", "config").number = Some(77));
        assert_eq!(renumbered, gone);
        let renamed = only_break(|set| field(set, "Agent", "config").name = Some("settings".into()));
        assert_eq!(renamed, "field llama_stack.v1.Agent.config = 2 is called settings now");
        let retyped = only_break(|set| field(set, "Agent", "id").set_type(Type::Bytes));
        assert_eq!(retyped, "field llama_stack.v1.Agent.id = 1 has another type");
        let other_message = only_break(|set| field(set, "Agent", "config").type_name = Some(".llama_stack.v1.Session".into()));
        assert_eq!(other_message, "field llama_stack.v1.Agent.config = 2 has another type");
        let repeated = only_break(|set| field(set, "Agent", "id").set_label(Label::Repeated));
        assert_eq!(repeated, "field llama_stack.v1.Agent.id = 1 has another label");
        let freed = only_break(|set| field(set, "Step", "tool").oneof_index = None);
        assert_eq!(freed, "field llama_stack.v1.Step.tool = 6 moved into or out of a oneof");
    }

    #[test]
    fn of_a_message() {
        let gone = only_break(|set| set.file.iter_mut().for_each(|file| file.message_type.retain(|message| message.name() != "Limits")));
        assert_eq!(gone, "message llama_stack.v1.Limits is gone");
        // The entries of a map are a nested message.
        let nested = only_break(|set| message(set, "Session").nested_type.clear());
        assert_eq!(nested, "message llama_stack.v1.Session.MetadataEntry is gone");
    }

    #[test]
    fn of_a_reservation() {
        let mut old = contract(DESCRIPTORS);
        message(&mut old, "Agent").reserved_range.push(ReservedRange { start: Some(50), end: Some(51) });
        message(&mut old, "Agent").reserved_name.push("dropped".into());
        let number = only_break_between(&old, |set| message(set, "Agent").reserved_range.clear());
        assert_eq!(number, "number 50 of llama_stack.v1.Agent is no longer reserved");
        let name = only_break_between(&old, |set| message(set, "Agent").reserved_name.clear());
        assert_eq!(name, "name dropped of llama_stack.v1.Agent is no longer reserved");
    }

    #[test]
    fn of_an_enum() {
        let gone = only_break(|set| turn_status(set).value.retain(|value| value.number() != 6));
        assert_eq!(gone, "enum value llama_stack.v1.TurnStatus.TURN_STATUS_CANCELLED = 6 is gone or has another number");
        let renamed = only_break(|set| turn_status(set).value[6].name = Some("TURN_STATUS_STOPPED".into()));
        assert!(renamed.ends_with("is called TURN_STATUS_STOPPED now"), "{renamed}");
        let whole = only_break(|set| set.file.iter_mut().for_each(|file| file.enum_type.retain(|one| one.name() != "TurnStatus")));
        assert_eq!(whole, "enum llama_stack.v1.TurnStatus is gone");
    }

    #[test]
    fn of_a_service() {
        let whole = only_break(|set| set.file.iter_mut().for_each(|file| file.service.retain(|service| service.name() != "Agents")));
        assert_eq!(whole, "service llama_stack.v1.Agents is gone");
        let gone = only_break(|set| agents(set).method.retain(|method| method.name() != "GetTurn"));
        assert_eq!(gone, "method llama_stack.v1.Agents.GetTurn is gone");
        let method = |set: &mut FileDescriptorSet, change: fn(&mut prost_types::MethodDescriptorProto)| {
            change(agents(set).method.iter_mut().find(|method| method.name() == "CreateTurn").unwrap());
        };
        let unary = only_break(|set| method(set, |method| method.server_streaming = Some(false)));
        assert_eq!(unary, "method llama_stack.v1.Agents.CreateTurn streams differently");
        let streaming = only_break(|set| method(set, |method| method.client_streaming = Some(true)));
        assert_eq!(streaming, unary);
        let input = only_break(|set| method(set, |method| method.input_type = Some(".llama_stack.v1.Agent".into())));
        assert_eq!(input, "method llama_stack.v1.Agents.CreateTurn takes or returns another message");
    }
}
