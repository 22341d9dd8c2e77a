//! Strings that must not leave, however a model was talked into writing them.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use llama_stack_core::{Error, Result};

use crate::normalise::Traced;

/// Fewer letters and digits would be found in harmless text.
const LEAST: usize = 6;

pub(super) struct Canaries {
    /// As they are and encoded, in any case.
    written: AhoCorasick,
    /// Their letters and digits alone, in lower case.
    split: AhoCorasick,
}

impl Canaries {
    /// # Errors
    /// `InvalidArgument` for one that is too short, by its place.
    pub(super) fn new(canaries: &[String]) -> Result<Self> {
        let mut written = Vec::new();
        for (index, canary) in canaries.iter().enumerate() {
            if canary.chars().filter(|c| c.is_alphanumeric()).count() < LEAST {
                let message = format!("a canary needs at least {LEAST} letters or digits: shorter ones are found in harmless text");
                return Err(Error::invalid(format!("config.canaries[{index}]"), message));
            }
            written.extend(writings(canary));
        }
        let split: Vec<String> = canaries.iter().map(|canary| compact(&Traced::of(canary)).text().to_owned()).collect();
        let build = |words: &[String]| {
            let built = AhoCorasickBuilder::new().ascii_case_insensitive(true).build(words);
            built.map_err(|error| Error::invalid("config.canaries", format!("these are too many or too long: {error}")))
        };
        Ok(Self { written: build(&written)?, split: build(&split)? })
    }

    /// The bytes of the text's source.
    pub(super) fn find(&self, text: &Traced) -> Vec<Range<usize>> {
        if self.split.patterns_len() == 0 {
            return Vec::new();
        }
        let mut found: Vec<Range<usize>> = self.written.find_iter(text.text()).map(|hit| text.source(hit.range())).collect();
        let compact = compact(text);
        found.extend(self.split.find_iter(compact.text()).map(|hit| compact.source(hit.range())));
        found
    }
}

/// The canary, and how base64 (at each of the three places in a group), hex and URLs write it.
fn writings(canary: &str) -> Vec<String> {
    let mut all = vec![canary.to_owned(), hex::encode(canary), canary.chars().rev().collect()];
    all.push(canary.bytes().map(|byte| format!("%{byte:02x}")).collect());
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(canary.as_bytes());
        let encoded = BASE64_STANDARD_NO_PAD.encode(&bytes);
        // Characters that hold bits of what stands around it differ from text to text.
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        let stable = encoded.get(first..last).unwrap_or_default().to_owned();
        all.push(stable.replace('+', "-").replace('/', "_"));
        all.push(stable);
    }
    all.retain(|writing| writing.len() >= LEAST);
    all
}

/// Letters and digits alone, in lower case.
fn compact(text: &Traced) -> Traced {
    let mut compact = Traced::with_capacity(text.text().len());
    for (_, c, source) in text.chars().filter(|(_, c, _)| c.is_alphanumeric()) {
        c.to_lowercase().for_each(|lower| compact.push(lower, source.clone()));
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_in_every_writing() {
        let canaries = Canaries::new(&["Blue-Heron-4471".to_owned()]).unwrap();
        let found = |text: &str| canaries.find(&Traced::of(text)).iter().map(|range| text[range.clone()].to_owned()).next();
        assert_eq!(found("it is blue-heron-4471.").as_deref(), Some("blue-heron-4471"));
        assert_eq!(found("b l u e, heron; 44 71!").as_deref(), Some("b l u e, heron; 44 71"));
        for before in ["", "x", "xy", "the code is "] {
            let encoded = base64::prelude::BASE64_STANDARD.encode(format!("{before}Blue-Heron-4471 of course"));
            assert!(found(&encoded).is_some(), "{before:?}");
        }
        assert!(found(&hex::encode("Blue-Heron-4471")).is_some());
        assert!(found("a heron is blue, 44 of 71").is_none());
    }

    #[test]
    fn a_short_one_is_refused_by_its_place() {
        let error = Canaries::new(&["long enough".to_owned(), "ab-1".to_owned()]).err().unwrap();
        assert_eq!(error.field(), Some("config.canaries[1]"));
    }
}
