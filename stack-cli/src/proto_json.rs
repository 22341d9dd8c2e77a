//! Messages of the contract as JSON and back, by protobuf's own mapping with the names of the `.proto` files.

use std::{path::Path, sync::OnceLock};

use llama_stack_core::{Error, Result};
use llama_stack_proto::DESCRIPTORS;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::named;

/// `name` is the message's in its package, for example `Turn`.
pub(crate) fn to_json(name: &str, message: &impl Message) -> Result<Value> {
    let read = DynamicMessage::decode(descriptor(name)?, message.encode_to_vec().as_slice());
    let read = read.map_err(|error| Error::internal("a message does not fit its own description").with_source(error))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let json = read.serialize_with_options(serde_json::value::Serializer, &options);
    json.map_err(|error| Error::internal("a message cannot be written as JSON").with_source(error))
}

/// The JSON of a file; `-` is standard input.
///
/// # Errors
/// As [`named::unreadable`] · `InvalidArgument` it is no JSON
pub(crate) fn read(file: &Path) -> Result<Value> {
    let text = named::text(file)?;
    serde_json::from_str(&text).map_err(|error| Error::invalid("file", format!("{}: not JSON: {error}", file.display())))
}

/// # Errors
/// `InvalidArgument` that says where the JSON is none of the message. Fields that this build does not know are refused.
pub(crate) fn from_json<M: Message + Default>(name: &str, json: &Value) -> Result<M> {
    let wrong = |why: String| Error::invalid(name.to_lowercase(), format!("this is no {name}: {why}"));
    let read = DynamicMessage::deserialize_with_options(descriptor(name)?, json, &DeserializeOptions::new());
    let read = read.map_err(|error| wrong(error.to_string()))?;
    M::decode(read.encode_to_vec().as_slice()).map_err(|error| wrong(error.to_string()))
}

/// The name of what an RPC is asked with. `None`: the contract does not have it.
pub(crate) fn request_of(service: &str, rpc: &str) -> Option<String> {
    let service = pool()?.get_service_by_name(&format!("llama_stack.v1.{service}"))?;
    let method = service.methods().find(|method| method.name() == rpc);
    method.map(|method| method.input().name().to_owned())
}

fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).ok()).as_ref()
}

fn descriptor(name: &str) -> Result<MessageDescriptor> {
    let found = pool().and_then(|pool| pool.get_message_by_name(&format!("llama_stack.v1.{name}")));
    found.ok_or_else(|| Error::internal("the contract's descriptors cannot be read"))
}
