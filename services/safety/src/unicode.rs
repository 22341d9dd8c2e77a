//! `inline::unicode`: what text hides from people's eyes, and letters that are not what they look like.
//!
//! ```text
//! text ─┬─ hidden: tags, joiners, bidi controls, selectors, private use     with what they spell, in the report
//!       └─ confusable: words of several scripts, styled letters
//! ```

mod confusable;
mod hidden;

use std::{collections::BTreeMap, ops::Range};

use llama_stack_core::{Deps, Result, Safety};
use llama_stack_proto::v1::{Shield, ShieldStage};
use serde::Deserialize;

use crate::rules::{self, EVERY_STAGE, Hit, Level, Piece, RuleShield, Rules, Stage, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Characters that nobody sees. `redact` takes them out.
    #[serde(default = "redact")]
    hidden: Level,
    /// Letters that look like others. `redact` writes the letters that they look like.
    #[serde(default = "warn")]
    confusable: Level,
    /// For single kinds, in place of the two above.
    #[serde(default)]
    levels: BTreeMap<Kind, Level>,
    /// What is not looked for.
    #[serde(default)]
    except: Vec<Kind>,
    #[serde(default = "every_stage")]
    stages: Vec<Stage>,
}

fn redact() -> Level {
    Level::Redact
}

fn warn() -> Level {
    Level::Warn
}

fn every_stage() -> Vec<Stage> {
    EVERY_STAGE.to_vec()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Tags,
    ZeroWidth,
    Bidi,
    Selectors,
    Control,
    PrivateUse,
    MixedScript,
    Styled,
}

const ALL: [Kind; 8] =
    [Kind::Tags, Kind::ZeroWidth, Kind::Bidi, Kind::Selectors, Kind::Control, Kind::PrivateUse, Kind::MixedScript, Kind::Styled];

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Self::Tags => "HIDDEN_TAGS",
            Self::ZeroWidth => "ZERO_WIDTH",
            Self::Bidi => "BIDI_CONTROL",
            Self::Selectors => "HIDDEN_SELECTORS",
            Self::Control => "CONTROL",
            Self::PrivateUse => "PRIVATE_USE",
            Self::MixedScript => "MIXED_SCRIPT",
            Self::Styled => "STYLED_LETTERS",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tags => "tag characters, which are ASCII that nobody sees",
            Self::ZeroWidth => "characters without width where no writing needs them",
            Self::Bidi => "controls that change the order in which text is shown",
            Self::Selectors => "variation selectors that select nothing",
            Self::Control => "control characters of terminals",
            Self::PrivateUse => "characters of private use, which mean what each program wants",
            Self::MixedScript => "letters of another script that look like Latin ones",
            Self::Styled => "words in mathematical, circled or wide letters",
        }
    }
}

/// A run of characters of one kind, and what to write in its place.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    kind: Kind,
    range: Range<usize>,
    /// What hidden characters spell, for the report.
    spells: Option<String>,
    instead: String,
}

struct Unicode {
    levels: BTreeMap<Kind, Level>,
    stages: Vec<Stage>,
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<std::sync::Arc<dyn Safety>> {
    rules::check_stages(&config.stages)?;
    let level = |kind: &Kind| {
        let group = if matches!(kind, Kind::MixedScript | Kind::Styled | Kind::PrivateUse) { config.confusable } else { config.hidden };
        config.levels.get(kind).copied().unwrap_or(group)
    };
    let kinds = ALL.iter().filter(|kind| !config.except.contains(kind));
    let levels = kinds.map(|kind| (*kind, level(kind))).collect();
    Ok(RuleShield::provider(Unicode { levels, stages: config.stages }, &deps))
}

impl Unicode {
    fn find_in(&self, piece: &Piece<'_>) -> Vec<Hit> {
        let mut hits: Vec<Hit> = all(piece.text).into_iter().filter_map(|found| self.hit(found)).collect();
        if piece.json && piece.text.contains("\\u") {
            for string in json::strings(piece.text) {
                let found = all(string.text.text()).into_iter();
                let found = found.map(|found| Found { range: string.text.source(found.range.clone()), ..found });
                hits.extend(found.filter_map(|found| self.hit(found)));
            }
        }
        hits
    }

    fn hit(&self, found: Found) -> Option<Hit> {
        let level = *self.levels.get(&found.kind)?;
        let spells = found.spells.map(|spells| format!("; they spell {spells:?}")).unwrap_or_default();
        Some(Hit {
            code: found.kind.code().to_owned(),
            range: found.range,
            detail: format!("{}{spells}", found.kind.name()),
            level,
            mark: found.instead,
        })
    }
}

fn all(text: &str) -> Vec<Found> {
    if text.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        return Vec::new();
    }
    let mut found = hidden::find(text);
    found.extend(confusable::find(text));
    found
}

impl Rules for Unicode {
    fn shield(&self) -> Shield {
        let categories = self.levels.keys().map(|kind| (kind.code().to_owned(), kind.name().to_owned())).collect();
        rules::shield("inline::unicode", "hidden and confusable characters", &self.stages, categories)
    }

    fn find(&self, pieces: &[Piece<'_>], _stage: ShieldStage) -> Vec<Vec<Hit>> {
        pieces.iter().map(|piece| self.find_in(piece)).collect()
    }

    fn user_message(&self, _codes: &[String]) -> String {
        "This contains hidden or disguised characters, and is not passed on.".to_owned()
    }
}

#[cfg(test)]
mod tests;
