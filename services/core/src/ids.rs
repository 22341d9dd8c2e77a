//! The one place where ids and times are made.

use prost_types::Timestamp;

/// `<prefix>_<32 hexadecimal digits>`; later ids sort after earlier ones (UUID version 7).
pub fn new(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

/// The wall clock.
pub fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// Whole seconds since the epoch, as the OpenAI API writes times.
pub fn unix_seconds(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds)
}
