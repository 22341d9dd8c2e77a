//! `inline::pii`: personal data, secrets and canary strings, taken out of a text or a reason to stop it.
//!
//! ```text
//! text ─┬─ personal: mail, phones, cards, numbers of persons, addresses     each checked as its issuer checks it
//!       ├─ secrets: tokens of services, keys, passwords in assignments
//!       └─ canaries: strings of the manifest, also split and encoded
//! ```

mod canary;
mod checks;
mod kind;
mod personal;
mod secrets;

use std::{collections::BTreeMap, ops::Range};

use aho_corasick::AhoCorasick;
use llama_stack_core::{Deps, Error, Result, Safety};
use llama_stack_proto::v1::{Shield, ShieldStage};
use regex::{Captures, Regex, RegexBuilder};
use serde::Deserialize;

use self::{canary::Canaries, kind::Kind};
use crate::{
    normalise::{self, Reading},
    rules::{self, EVERY_STAGE, Hit, Level, Piece, RuleShield, Rules, Stage, json},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is looked for. Default: all kinds.
    kinds: Option<Vec<Kind>>,
    /// What is not looked for, of those.
    #[serde(default)]
    except: Vec<Kind>,
    /// What becomes of a text in which something was found.
    #[serde(default = "redact")]
    level: Level,
    /// The same for single kinds, in place of `level`.
    #[serde(default)]
    levels: BTreeMap<Kind, Level>,
    /// Strings that must not leave: found as they are, split, and in base64, hex or URL encoding. At least 6 letters or digits.
    #[serde(default)]
    canaries: Vec<String>,
    /// Values that may be told, for example a published address. Upper and lower case are one.
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default = "every_stage")]
    stages: Vec<Stage>,
}

fn redact() -> Level {
    Level::Redact
}

fn every_stage() -> Vec<Stage> {
    EVERY_STAGE.to_vec()
}

/// How a kind looks, and what must hold for it beyond that.
pub(crate) struct Detector {
    kind: Kind,
    pattern: Regex,
    /// The part of a match that is the thing, or nothing where a checksum or the surroundings say that it is none.
    check: Check,
}

/// The text, and the match in it.
type Check = fn(&str, &Captures<'_>) -> Option<Range<usize>>;

impl Detector {
    fn new(kind: Kind, pattern: &str, check: Check) -> Result<Self> {
        let built = RegexBuilder::new(pattern).size_limit(4 << 20).build();
        let pattern = built.map_err(|error| Error::internal(format!("the pattern of {}", kind.code())).with_source(error))?;
        Ok(Self { kind, pattern, check })
    }

    /// What lies inside the last thing found is not looked at again, so that the work stays in proportion to the text.
    fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut done = 0;
        self.pattern.captures_iter(text).filter_map(move |hit| {
            let start = hit.get(0).map_or(0, |found| found.start());
            let found = if start < done { None } else { (self.check)(text, &hit) }?;
            done = found.end;
            Some(found)
        })
    }
}

struct Pii {
    detectors: Vec<Detector>,
    canaries: Canaries,
    levels: BTreeMap<Kind, Level>,
    allow: Vec<String>,
    stages: Vec<Stage>,
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<std::sync::Arc<dyn Safety>> {
    rules::check_stages(&config.stages)?;
    let wanted = |kind: &Kind| config.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind)) && !config.except.contains(kind);
    let kinds: Vec<Kind> = kind::ALL.into_iter().filter(wanted).collect();
    if kinds.is_empty() {
        return Err(Error::invalid("config.kinds", "kinds, without those of except, is empty: the shield would find nothing"));
    }
    let levels = kinds.iter().map(|kind| (*kind, config.levels.get(kind).copied().unwrap_or(config.level))).collect();
    let detectors = personal::detectors()?.into_iter().chain(secrets::detectors()?).filter(|found| kinds.contains(&found.kind)).collect();
    let canaries = Canaries::new(if kinds.contains(&Kind::Canary) { &config.canaries } else { &[] })?;
    let allow = config.allow.iter().map(|value| value.to_lowercase()).collect();
    Ok(RuleShield::provider(Pii { detectors, canaries, levels, allow, stages: config.stages }, &deps))
}

impl Pii {
    /// What one text holds, in all its readings.
    fn find_in(&self, piece: &Piece<'_>) -> Vec<(Kind, Range<usize>)> {
        let mut found = Vec::new();
        for reading in readings(piece) {
            self.read(&reading, &mut found);
        }
        found.retain(|(_, range)| {
            let value = piece.text.get(range.clone()).unwrap_or_default().to_lowercase();
            !range.is_empty() && !self.allow.contains(&value)
        });
        found
    }

    fn read(&self, reading: &Reading, found: &mut Vec<(Kind, Range<usize>)>) {
        let text = reading.text.text();
        for detector in &self.detectors {
            for range in detector.find(text) {
                found.push((detector.kind, reading.text.source(range)));
            }
        }
        for range in self.canaries.find(&reading.text) {
            found.push((Kind::Canary, range));
        }
    }

    fn hit(&self, kind: Kind, range: Range<usize>) -> Hit {
        let level = self.levels.get(&kind).copied().unwrap_or(Level::Redact);
        Hit { code: kind.code().to_owned(), range, detail: kind.name().to_owned(), level, mark: format!("[{}]", kind.code()) }
    }
}

/// The readings of a text; of arguments, those of their strings too, since JSON writes characters in its own way.
fn readings(piece: &Piece<'_>) -> Vec<Reading> {
    let mut readings = normalise::readings(piece.text);
    // Set apart letters and leetspeak are for words: numbers would be made up by them.
    readings.retain(|reading| !matches!(reading.how, normalise::JOINED | "leetspeak" | "caesar" | "atbash"));
    if piece.json {
        let strings = json::strings(piece.text).into_iter().filter(|string| piece.text.contains('\\') && !string.text.text().is_empty());
        readings.extend(strings.map(|string| Reading { text: string.text, how: "json" }));
    }
    readings
}

impl Rules for Pii {
    fn shield(&self) -> Shield {
        let categories = self.levels.keys().map(|kind| (kind.code().to_owned(), kind.name().to_owned())).collect();
        rules::shield("inline::pii", "personal data, secrets and canary strings", &self.stages, categories)
    }

    fn find(&self, pieces: &[Piece<'_>], _stage: ShieldStage) -> Vec<Vec<Hit>> {
        let found: Vec<Vec<(Kind, Range<usize>)>> = pieces.iter().map(|piece| self.find_in(piece)).collect();
        let mut hits: Vec<Vec<Hit>> =
            found.iter().map(|found| found.iter().map(|(kind, range)| self.hit(*kind, range.clone())).collect()).collect();
        self.again(pieces, &found, &mut hits);
        hits.iter_mut().for_each(apart);
        hits
    }

    fn user_message(&self, codes: &[String]) -> String {
        format!("This contains personal data or secrets that may not be passed on: {}.", codes.join(", "))
    }
}

impl Pii {
    /// A secret that was recognised in one place is one wherever it stands: a password behind the name that gave it away.
    fn again(&self, pieces: &[Piece<'_>], found: &[Vec<(Kind, Range<usize>)>], hits: &mut [Vec<Hit>]) {
        let mut secrets: Vec<(&str, Kind)> = Vec::new();
        for (piece, found) in pieces.iter().zip(found) {
            for (kind, range) in found {
                if let Some(value) = piece.text.get(range.clone())
                    && kind.is_secret()
                    && (6..=AGAIN).contains(&value.len())
                    && !secrets.iter().any(|(known, _)| *known == value)
                {
                    secrets.push((value, *kind));
                }
            }
        }
        let Ok(all) = AhoCorasick::new(secrets.iter().map(|(value, _)| value)) else { return };
        for (piece, hits) in pieces.iter().zip(hits) {
            for place in all.find_overlapping_iter(piece.text) {
                let (_, kind) = secrets[place.pattern().as_usize()];
                hits.push(self.hit(kind, place.range()));
            }
        }
    }
}

/// Longer secrets (keys in blocks) are known by themselves in every place.
const AGAIN: usize = 512;

/// Of findings inside each other the widest, and of the same place the first kind.
fn apart(hits: &mut Vec<Hit>) {
    hits.sort_by_key(|hit| (hit.range.start, usize::MAX - hit.range.end));
    let mut kept: Vec<Hit> = Vec::new();
    for hit in hits.drain(..) {
        // Whatever blocks stays told, also where a wider thing is only taken out.
        match kept.last() {
            Some(last) if hit.range.end <= last.range.end && hit.level <= last.level => {}
            _ => kept.push(hit),
        }
    }
    *hits = kept;
}

/// The whole match.
fn whole(_text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    hit.get(0).map(|found| found.range())
}

/// The first group.
fn group(_text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    hit.get(1).map(|found| found.range())
}

/// Neither a letter, a digit nor one of `signs` stands right before or behind: the match is no part of something longer. A
/// sign that nothing follows ends a sentence.
fn alone(text: &str, range: &Range<usize>, signs: &str) -> bool {
    let goes_on = |mut next: std::iter::Peekable<&mut dyn Iterator<Item = char>>| match next.next() {
        Some(c) if c.is_alphanumeric() => true,
        Some(c) if signs.contains(c) => next.peek().is_some_and(|c| c.is_alphanumeric()),
        _ => false,
    };
    let (mut before, mut behind) = (text[..range.start].chars().rev(), text[range.end..].chars());
    let before: &mut dyn Iterator<Item = char> = &mut before;
    let behind: &mut dyn Iterator<Item = char> = &mut behind;
    !goes_on(before.peekable()) && !goes_on(behind.peekable())
}

/// The text before a match, at most `bytes` of it, in lower case.
fn before(text: &str, at: usize, bytes: usize) -> String {
    let from = (at.saturating_sub(bytes)..=at).find(|from| text.is_char_boundary(*from)).unwrap_or(at);
    text[from..at].to_lowercase()
}

#[cfg(test)]
mod tests;
