//! Fail points: places at which a test may end the process, as loss of power would.
//!
//! A promise about crashes is worth what its worst instant is worth, and random kills rarely meet that instant. So the
//! instants have names here, and a test chooses one by the environment: `LLAMA_STACK_FAIL_POINT=name:count` aborts the
//! process when it comes to `name` for the `count`-th time. No destructor runs and nothing is flushed. Without the
//! variable a point is one read of a value that never changes.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

/// The environment variable that chooses a point.
pub const VARIABLE: &str = "LLAMA_STACK_FAIL_POINT";

/// Every point, in the order in which a turn comes to them.
pub const NAMES: [&str; 14] = [
    "input.before",
    "input.journalled",
    "steps.before",
    "steps.journalled",
    "inference.before",
    "inference.answered",
    "tool.before",
    "tool.answered",
    "resume.journalled",
    "end.before",
    "end.journalled",
    "store.before_commit",
    "store.committed",
    "recover.turn",
];

/// What the environment asks for. It is read once: a process does not change its mind.
static CHOSEN: LazyLock<Option<Chosen>> = LazyLock::new(|| {
    let asked = std::env::var(VARIABLE).ok()?;
    let chosen = Chosen::parse(&asked);
    if chosen.is_none() {
        tracing::error!(asked, "no such fail point: it must be name:count, with one of the known names and a count from 1");
    }
    chosen
});

struct Chosen {
    name: String,
    left: AtomicU32,
}

impl Chosen {
    fn parse(asked: &str) -> Option<Self> {
        let (name, count) = asked.split_once(':')?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        NAMES.contains(&name).then(|| Self { name: name.to_owned(), left: AtomicU32::new(count) })
    }

    /// True at the count-th time of its name, and never again.
    fn is_met(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// The process is at this point. Returns, unless the environment says that it ends here.
pub fn hit(name: &'static str) {
    if CHOSEN.as_ref().is_some_and(|chosen| chosen.is_met(name)) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_met_at_its_count_and_no_other_is() {
        let chosen = Chosen::parse("tool.answered:3").unwrap();
        let met: Vec<bool> = (0..5).map(|_| chosen.is_met("tool.before") || chosen.is_met("tool.answered")).collect();
        assert_eq!(met, [false, false, true, false, false]);
    }

    #[test]
    fn what_names_no_point_chooses_none() {
        for asked in ["", "tool.answered", "tool.answered:0", "tool.answered:x", "nowhere:1"] {
            assert!(Chosen::parse(asked).is_none(), "{asked}");
        }
    }
}
