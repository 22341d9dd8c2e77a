//! The one place where ids and times are made.

use prost_types::Timestamp;

/// `<prefix>_<32 hexadecimal digits>`; later ids sort after earlier ones (UUID version 7).
pub fn new(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

/// Sorts at or before every id of [`new`] that is made in this millisecond since 1970 or later, and after all older ones.
pub fn first(prefix: &str, millis: u64) -> String {
    // A UUID of version 7 begins with 48 bits of time.
    format!("{prefix}_{:012x}", millis.min((1 << 48) - 1))
}

/// The wall clock.
pub fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// Whole seconds since the epoch, as the OpenAI API writes times.
pub fn unix_seconds(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_times_of_their_making() {
        let millis = |time: Timestamp| u64::try_from(time.seconds).unwrap() * 1_000 + u64::try_from(time.nanos).unwrap() / 1_000_000;
        let before = millis(now());
        let made = new("turn");
        let after = millis(now());
        assert!(first("turn", before) <= made && made < first("turn", after + 1), "{made}");
        assert!(first("turn", 9) < first("turn", 10) && first("turn", 10) < first("turn", u64::MAX));
    }
}
