//! Requests for every RPC of the contract, as gRPC-Web carries them.

use llama_stack_proto::DESCRIPTORS;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom as _};

use super::{Known, Sent};

/// A method, and the message that it takes.
pub(super) struct Rpc {
    /// `Service/Method`.
    name: String,
    takes: MessageDescriptor,
}

/// Every RPC of the contract.
pub(super) fn rpcs() -> Vec<Rpc> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "llama_stack.v1");
    let of = |service: prost_reflect::ServiceDescriptor| {
        let name = service.full_name().to_owned();
        service.methods().map(move |method| Rpc { name: format!("{name}/{}", method.name()), takes: method.input() }).collect::<Vec<_>>()
    };
    services.flat_map(of).collect()
}

/// A request that the RPC may take; with `mutate`, one with something wrong in its values, its bytes or its frame.
pub(super) fn request(rpc: &Rpc, known: &Known, chance: &mut StdRng, mutate: bool) -> Sent {
    let mut message = sample(&rpc.takes, known, chance, 0, mutate).encode_to_vec();
    if mutate && chance.random_bool(0.4) {
        (0..chance.random_range(1..6)).for_each(|_| flip(&mut message, chance));
    }
    let mut kind = "application/grpc-web+proto";
    let (mut compressed, mut length) = (0_u8, message.len() as u32);
    if mutate && chance.random_bool(0.05) {
        match chance.random_range(0..5) {
            0 => compressed = 1,
            1 => compressed = chance.random(),
            2 => length = chance.random(),
            3 => length = length.saturating_sub(1),
            _ => {
                let others = ["application/grpc-web-text", "application/grpc", "application/grpc-web+json", "application/grpc+x"];
                kind = others.choose(chance).copied().unwrap_or(kind);
            }
        }
    }
    let mut body = vec![compressed];
    body.extend(length.to_be_bytes());
    body.extend(message);
    if mutate && chance.random_bool(0.02) {
        body.truncate(chance.random_range(0..=body.len()));
    }
    if mutate && chance.random_bool(0.02) {
        // Another message where there should be one.
        body.extend(body.clone());
    }
    Sent { name: rpc.name.clone(), method: "POST".into(), path: format!("/{}", rpc.name), kind: Some(kind.into()), body, is_grpc: true }
}

fn sample(of: &MessageDescriptor, known: &Known, chance: &mut StdRng, depth: usize, odd: bool) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    // One of a oneof, and of the other fields about half.
    for oneof in of.oneofs() {
        let fields: Vec<FieldDescriptor> = oneof.fields().collect();
        if let Some(field) = fields.choose(chance).filter(|_| depth < 8) {
            message.set_field(field, one(field, known, chance, depth, odd));
        }
    }
    for field in of.fields().filter(|field| field.containing_oneof().is_none()) {
        let wanted = field.name() == "model" || field.name().ends_with("id") || chance.random_bool(0.4);
        if !wanted || depth >= 8 {
            continue;
        }
        let count = if odd && chance.random_bool(0.02) { 300 } else { chance.random_range(0..3) };
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { continue };
            let value = entry.map_entry_value_field();
            let key = |n: i32| match entry.map_entry_key_field().kind() {
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(n),
                Kind::Uint32 | Kind::Fixed32 => MapKey::U32(n as u32),
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(n.into()),
                Kind::Uint64 | Kind::Fixed64 => MapKey::U64(n as u64),
                Kind::Bool => MapKey::Bool(n % 2 == 1),
                _ => MapKey::String(format!("key{n}")),
            };
            let entries = (0..count.min(3)).map(|n| (key(n), one(&value, known, chance, depth, odd))).collect();
            message.set_field(&field, Value::Map(entries));
        } else if field.is_list() {
            // Deep and wide at once grows beyond all measure.
            let count = if depth > 3 { count.min(1) } else { count };
            let items = (0..count).map(|_| one(&field, known, chance, depth, odd)).collect();
            message.set_field(&field, Value::List(items));
        } else {
            message.set_field(&field, one(&field, known, chance, depth, odd));
        }
    }
    message
}

fn one(field: &FieldDescriptor, known: &Known, chance: &mut StdRng, depth: usize, odd: bool) -> Value {
    let odd_number = odd && chance.random_bool(0.2);
    let numbers = [0_i64, -1, 1 << 31, u32::MAX.into(), i64::MAX, i64::MIN];
    let number = if odd_number { numbers.choose(chance).copied().unwrap_or(0) } else { chance.random_range(0..20) };
    let floats = [f64::NAN, f64::INFINITY, -1.0, 1e308, -0.0];
    let float = if odd_number { floats.choose(chance).copied().unwrap_or(0.0) } else { chance.random_range(0.0..1.0) };
    match field.kind() {
        Kind::Double => Value::F64(float),
        Kind::Float => Value::F32(float as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number as u64),
        Kind::Bool => Value::Bool(chance.random_bool(0.5)),
        Kind::String if odd && chance.random_bool(0.1) => Value::String(
            ["", "\0", "../..", "\u{202E}🦀\u{FFFF}", "{\"type\":", "[", "http://127.0.0.1:1/"]
                .choose(chance)
                .copied()
                .unwrap_or("")
                .repeat(if chance.random_bool(0.1) { 5_000 } else { 1 }),
        ),
        Kind::String => Value::String(known.word(field.name(), chance)),
        Kind::Bytes => Value::Bytes((0..chance.random_range(0..40)).map(|_| chance.random::<u8>()).collect::<Vec<u8>>().into()),
        Kind::Enum(kind) => {
            let values: Vec<i32> = kind.values().map(|value| value.number()).collect();
            Value::EnumNumber(if odd_number { number as i32 } else { values.choose(chance).copied().unwrap_or(0) })
        }
        Kind::Message(kind) => Value::Message(sample(&kind, known, chance, depth + 1, odd)),
    }
}

fn flip(bytes: &mut Vec<u8>, chance: &mut StdRng) {
    let at = chance.random_range(0..=bytes.len());
    match chance.random_range(0..5) {
        0 => bytes.truncate(at),
        // A group without an end, or a length beyond what there is.
        1 => drop(bytes.splice(at..at, [0x0b])),
        2 => drop(bytes.splice(at..at, [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        3 => {
            let piece = bytes[at..].to_vec();
            bytes.extend(piece);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << chance.random_range(0..8);
            }
        }
    }
}
