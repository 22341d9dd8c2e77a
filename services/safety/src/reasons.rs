//! `Violation.reason`: the stable words for why a text does not pass.

/// The shield found it unsafe.
pub const UNSAFE: &str = "unsafe";
/// Unsafe, by a category that the shield does not have.
pub const UNKNOWN_CATEGORY: &str = "unknown_category";
/// Unsafe, and the shield did not say by which category.
pub const UNCATEGORISED: &str = "uncategorised";
/// The shield's model answered with something that is no verdict.
pub const UNPARSEABLE_VERDICT: &str = "unparseable_verdict";
/// The shield's model answered with nothing.
pub const EMPTY_VERDICT: &str = "empty_verdict";
/// Nothing was judged: the shield failed.
pub const SHIELD_FAILED: &str = "shield_failed";

/// The text was stopped because there was no verdict on it, rather than for what it says.
pub fn is_failure(reason: &str) -> bool {
    matches!(reason, UNPARSEABLE_VERDICT | EMPTY_VERDICT | SHIELD_FAILED)
}
