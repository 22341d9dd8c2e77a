//! `inline::patterns`: lists of keywords and regular expressions.
//!
//! ```text
//! rule ─┬─ keywords ── matched on every reading of the text, whatever disguises them
//!       └─ regex ───── matched on the text as it is; linear in it
//! ```

mod keywords;

use std::ops::Range;

use llama_stack_core::{Deps, Error, Result, Safety};
use llama_stack_proto::v1::{Shield, ShieldStage};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use self::keywords::Keywords;
use crate::{
    normalise::{self, Reading},
    rules::{self, EVERY_STAGE, Hit, Level, Piece, RuleShield, Rules, Stage, json},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    rules: Vec<Rule>,
    /// Where the shield is meant to run.
    #[serde(default = "every_stage")]
    stages: Vec<Stage>,
}

fn every_stage() -> Vec<Stage> {
    EVERY_STAGE.to_vec()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    /// The category. Default: `PATTERN`.
    #[serde(default = "pattern")]
    code: String,
    #[serde(default = "block")]
    level: Level,
    /// Where this rule counts. Default: wherever the shield runs.
    stages: Option<Vec<Stage>>,
    /// Words or phrases, found as whole words in any case, spacing and disguise.
    #[serde(default)]
    keywords: Vec<String>,
    /// Regular expressions without look-around and back-references.
    #[serde(default)]
    regex: Vec<String>,
    /// For `regex`; keywords are found in any case.
    #[serde(default)]
    case_sensitive: bool,
    /// What the end user is told. Default: that it may not be passed on.
    message: Option<String>,
    /// What stands in place of a match at level `redact`. Default: the code in brackets.
    mark: Option<String>,
}

fn pattern() -> String {
    "PATTERN".to_owned()
}

fn block() -> Level {
    Level::Block
}

/// What one compiled expression may take.
const REGEX_BYTES: usize = 2 << 20;

struct Patterns {
    rules: Vec<Compiled>,
    stages: Vec<Stage>,
}

struct Compiled {
    rule: Rule,
    keywords: Keywords,
    regexes: Vec<Regex>,
}

/// # Errors
/// `InvalidArgument` for a rule that finds nothing, a name that is there twice, or an expression that is wrong or too large;
/// each by the rule's place and name.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<std::sync::Arc<dyn Safety>> {
    rules::check_stages(&config.stages)?;
    if config.rules.is_empty() {
        return Err(Error::invalid("config.rules", "rules is empty: the shield would find nothing"));
    }
    let mut rules: Vec<Compiled> = Vec::new();
    for (index, rule) in config.rules.into_iter().enumerate() {
        if rules.iter().any(|other| other.rule.name == rule.name) {
            return Err(Error::invalid(format!("config.rules[{index}].name"), format!("there are two rules {:?}", rule.name)));
        }
        rules.push(compile(index, rule)?);
    }
    Ok(RuleShield::provider(Patterns { rules, stages: config.stages }, &deps))
}

fn compile(index: usize, rule: Rule) -> Result<Compiled> {
    let field = |rest: &str| format!("config.rules[{index}]{rest}");
    if rule.name.trim().is_empty() {
        return Err(Error::invalid(field(".name"), "name is empty"));
    }
    if rule.code.is_empty() || rule.code.len() > 64 {
        return Err(Error::invalid(field(".code"), format!("rule {:?}: a code has 1 to 64 characters", rule.name)));
    }
    if rule.keywords.is_empty() && rule.regex.is_empty() {
        return Err(Error::invalid(field(""), format!("rule {:?} has neither keywords nor regex: it would find nothing", rule.name)));
    }
    let mut regexes = Vec::new();
    for (at, source) in rule.regex.iter().enumerate() {
        let built = RegexBuilder::new(source).case_insensitive(!rule.case_sensitive).size_limit(REGEX_BYTES).build();
        let regex = built.map_err(|error| Error::invalid(field(&format!(".regex[{at}]")), format!("rule {:?}: {error}", rule.name)))?;
        if regex.is_match("") {
            let message = format!("rule {:?}: this expression matches the empty text, and so everywhere", rule.name);
            return Err(Error::invalid(field(&format!(".regex[{at}]")), message));
        }
        regexes.push(regex);
    }
    let keywords = Keywords::new(&rule.keywords)
        .map_err(|(at, message)| Error::invalid(field(&format!(".keywords[{at}]")), format!("rule {:?}: {message}", rule.name)))?;
    Ok(Compiled { rule, keywords, regexes })
}

impl Compiled {
    fn counts_at(&self, stage: ShieldStage) -> bool {
        let stages = self.rule.stages.as_ref();
        stage == ShieldStage::Unspecified || stages.is_none_or(|stages| stages.iter().any(|at| at.proto() == stage))
    }

    fn hit(&self, range: Range<usize>, how: &str) -> Hit {
        let rule = &self.rule;
        let disguise = if how == AS_IT_IS { String::new() } else { format!(", read with: {how}") };
        Hit {
            code: rule.code.clone(),
            range,
            detail: format!("rule {}{disguise}", rule.name),
            level: rule.level,
            mark: rule.mark.clone().unwrap_or_else(|| format!("[{}]", rule.code)),
        }
    }

    fn find(&self, piece: &Piece<'_>, readings: &[Reading], hits: &mut Vec<Hit>) {
        for regex in &self.regexes {
            // A match of nothing inside a text (`x*` behind a look at a word's edge) is no place to speak of.
            let found = regex.find_iter(piece.text).filter(|found| !found.is_empty());
            hits.extend(found.map(|found| self.hit(found.range(), AS_IT_IS)));
        }
        for reading in readings {
            for range in self.keywords.find(reading) {
                // The plainest reading tells it.
                if !hits.iter().any(|hit| hit.range == range && hit.code == self.rule.code) {
                    hits.push(self.hit(range, reading.how));
                }
            }
        }
    }
}

const AS_IT_IS: &str = "as it is";

impl Rules for Patterns {
    fn shield(&self) -> Shield {
        let mut categories: Vec<(String, String)> = Vec::new();
        for rule in &self.rules {
            match categories.iter_mut().find(|(code, _)| *code == rule.rule.code) {
                Some((_, names)) => names.push_str(&format!(", {}", rule.rule.name)),
                None => categories.push((rule.rule.code.clone(), rule.rule.name.clone())),
            }
        }
        rules::shield("inline::patterns", "keywords and regular expressions of the manifest", &self.stages, categories)
    }

    fn find(&self, pieces: &[Piece<'_>], stage: ShieldStage) -> Vec<Vec<Hit>> {
        let rules: Vec<&Compiled> = self.rules.iter().filter(|rule| rule.counts_at(stage)).collect();
        let find = |piece: &Piece<'_>| {
            let mut readings = if rules.iter().all(|rule| rule.keywords.is_empty()) { vec![] } else { normalise::readings(piece.text) };
            if piece.json && piece.text.contains('\\') {
                readings.extend(json::strings(piece.text).into_iter().map(|string| Reading { text: string.text, how: "json" }));
            }
            let mut hits = Vec::new();
            rules.iter().for_each(|rule| rule.find(piece, &readings, &mut hits));
            hits
        };
        pieces.iter().map(find).collect()
    }

    fn user_message(&self, codes: &[String]) -> String {
        let told = self.rules.iter().filter(|rule| codes.contains(&rule.rule.code)).find_map(|rule| rule.rule.message.clone());
        told.unwrap_or_else(|| "This contains something that may not be passed on here.".to_owned())
    }
}

#[cfg(test)]
mod tests;
