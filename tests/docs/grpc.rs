//! `docs/grpc.md`: every service, method and message, from the contract's descriptors and their comments.

use std::{collections::HashMap, fmt::Write as _};

use llama_stack_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::pages::is_fresh;

const PACKAGE: &str = "llama_stack.v1";
const HEAD: &str = "<!-- Made from the contract: UPDATE_DOCS=1 cargo test --release --workspace --test docs -->

# gRPC reference

Package `llama_stack.v1`, from the comments of `proto/llama_stack/v1`. Errors are gRPC statuses with `google.rpc` details: a
stable word in `ErrorInfo.reason`, the field in `BadRequest`. A running server says all of this by reflection.
";

/// Numbers of fields of the descriptors, as the paths of comments have them.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
/// Of a message's fields, an enum's values, a service's methods.
const MEMBERS: i32 = 2;
const NESTED_MESSAGES: i32 = 3;
const NESTED_ENUMS: i32 = 4;

/// The comments of a file, by the path of what they are about.
struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        Self(locations.filter_map(|location| Some((location.path.clone(), plain(location.leading_comments.as_deref()?)))).collect())
    }

    fn at(&self, path: &[i32]) -> String {
        self.0.get(path).cloned().unwrap_or_default()
    }
}

/// A comment as one paragraph.
fn plain(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reference() -> String {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut text = HEAD.to_owned();
    for file in set.file.iter().filter(|file| file.package() == PACKAGE) {
        let comments = Comments::of(file);
        let name = file.name().rsplit('/').next().unwrap_or_default();
        let _ = write!(text, "\n## {name}\n\n");
        // The sentence at a file's beginning is the package's comment.
        let about = comments.at(&[2]);
        if !about.is_empty() {
            let _ = write!(text, "{about}\n\n");
        }
        for (index, service) in (0..).zip(&file.service) {
            let _ = write!(text, "### service {}\n\n", service.name());
            paragraph(&mut text, &comments.at(&[SERVICES, index]));
            text.push_str("| method | takes | gives | |\n|---|---|---|---|\n");
            for (at, method) in (0..).zip(&service.method) {
                let stream = |is: bool| if is { "stream of " } else { "" };
                let (takes, gives) = (short(method.input_type()), short(method.output_type()));
                let (from, to) = (stream(method.client_streaming()), stream(method.server_streaming()));
                let doc = cell(&comments.at(&[SERVICES, index, MEMBERS, at]));
                let _ = writeln!(text, "| `{}` | {from}`{takes}` | {to}`{gives}` | {doc} |", method.name());
            }
            text.push('\n');
        }
        for (index, message) in (0..).zip(&file.message_type) {
            of_message(&mut text, &comments, message, message.name(), &[MESSAGES, index]);
        }
        for (index, one) in (0..).zip(&file.enum_type) {
            of_enum(&mut text, &comments, one, one.name(), &[ENUMS, index]);
        }
    }
    while text.ends_with("\n\n") {
        text.pop();
    }
    text
}

fn of_message(text: &mut String, comments: &Comments, message: &DescriptorProto, name: &str, path: &[i32]) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let _ = write!(text, "### {name}\n\n");
    paragraph(text, &comments.at(path));
    if message.field.is_empty() {
        text.push_str("No fields.\n\n");
    } else {
        text.push_str("| field | type | |\n|---|---|---|\n");
        for (at, field) in (0..).zip(&message.field) {
            let mut doc = cell(&comments.at(&below(path, MEMBERS, at)));
            if let Some(oneof) = field.oneof_index.filter(|_| !field.proto3_optional()) {
                let one_of = format!("One of `{}`.", message.oneof_decl[oneof as usize].name());
                doc = format!("{one_of} {doc}").trim().to_owned();
            }
            let _ = writeln!(text, "| `{}` = {} | {} | {doc} |", field.name(), field.number(), kind(message, field));
        }
        text.push('\n');
    }
    for (at, nested) in (0..).zip(&message.nested_type) {
        of_message(text, comments, nested, &format!("{name}.{}", nested.name()), &below(path, NESTED_MESSAGES, at));
    }
    for (at, nested) in (0..).zip(&message.enum_type) {
        of_enum(text, comments, nested, &format!("{name}.{}", nested.name()), &below(path, NESTED_ENUMS, at));
    }
}

fn of_enum(text: &mut String, comments: &Comments, one: &EnumDescriptorProto, name: &str, path: &[i32]) {
    let _ = write!(text, "### enum {name}\n\n");
    paragraph(text, &comments.at(path));
    text.push_str("| value | |\n|---|---|\n");
    for (at, value) in (0..).zip(&one.value) {
        let doc = cell(&comments.at(&below(path, MEMBERS, at)));
        let _ = writeln!(text, "| `{}` = {} | {doc} |", value.name(), value.number());
    }
    text.push('\n');
}

fn below(path: &[i32], kind: i32, index: i32) -> Vec<i32> {
    path.iter().copied().chain([kind, index]).collect()
}

fn paragraph(text: &mut String, words: &str) {
    if !words.is_empty() {
        let _ = write!(text, "{words}\n\n");
    }
}

/// Within a table, a bar would end the cell.
fn cell(words: &str) -> String {
    words.replace('|', "\\|")
}

/// A type's name without the package.
fn short(name: &str) -> &str {
    name.strip_prefix(".llama_stack.v1.").unwrap_or_else(|| name.trim_start_matches('.'))
}

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(|options| options.map_entry()) && field.type_name().ends_with(&format!(".{}", nested.name()))
    });
    if let Some(entry) = entry {
        return format!("map of `{}` to `{}`", scalar(&entry.field[0]), scalar(&entry.field[1]));
    }
    let before = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    };
    format!("{before}`{}`", scalar(field))
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

#[test]
fn the_reference_is_that_of_the_contract() {
    let text = reference();
    for part in ["### service Agents", "| `CreateTurn` |", "Brings what a turn in `TURN_STATUS_AWAITING_TOOLS` waits for"] {
        assert!(text.contains(part), "no {part}: are the descriptors without comments?");
    }
    is_fresh("docs/grpc.md", &text);
}
