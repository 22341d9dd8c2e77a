//! What a guard's answer means. Read leniently; what is not understood is not safe.

use llama_stack_proto::v1::TokenLogprob;

use super::policy::{self, Policy};
use crate::reasons;

/// What the model said, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Safe,
    /// With what follows the word: the codes, if there are any.
    Unsafe(String),
    Nothing,
    /// Neither.
    Other,
}

/// The two answers' probabilities, as far as they were told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Odds {
    safe: f64,
    unsafe_: f64,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// Of an unsafe text, where there was a verdict.
    pub(super) score: f32,
    /// The score is only the word that the model wrote.
    pub(super) unscored: bool,
    /// Why the text does not pass.
    pub(super) reason: Option<&'static str>,
    /// Violated ones, known or not, in the model's order.
    pub(super) codes: Vec<String>,
}

impl Said {
    /// `Safe`, `safe.`, `UNSAFE\nS2`, `unsafe S1, S2`, … A `safe` with an `unsafe` or a code after it is neither.
    pub(super) fn read(text: &str) -> Self {
        let text = text.trim_matches(|c: char| c.is_whitespace() || "'\"`*".contains(c));
        let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (word, rest) = (text[..end].to_ascii_lowercase(), &text[end..]);
        match word.as_str() {
            "unsafe" => Self::Unsafe(rest.to_owned()),
            "safe" if !rest.to_ascii_lowercase().contains("unsafe") && coded(rest).next().is_none() => Self::Safe,
            _ if text.is_empty() => Self::Nothing,
            _ => Self::Other,
        }
    }
}

impl Odds {
    /// Of the first token that is not blank; none where its alternatives are not told, or all tokens are blank.
    pub(super) fn read(tokens: &[TokenLogprob]) -> Option<Self> {
        let first = tokens.iter().find(|token| !bare(&token.token).is_empty())?;
        let mut odds = Self::default();
        // Without alternatives the token's own probability may be told: that is one side alone.
        let told: Vec<(&str, f32)> = first.top.iter().map(|top| (top.token.as_str(), top.logprob)).collect();
        if told.is_empty() {
            return None;
        }
        let chosen = told.iter().all(|(token, _)| *token != first.token).then_some((first.token.as_str(), first.logprob));
        for (token, logprob) in told.into_iter().chain(chosen) {
            let probability = f64::from(logprob.min(0.0)).exp();
            match which(token) {
                Some(true) => odds.unsafe_ += probability,
                Some(false) => odds.safe += probability,
                None => {}
            }
        }
        Some(odds)
    }

    /// The share of both answers together: a guard gives one of them.
    pub(super) fn share(self) -> f64 {
        self.safe + self.unsafe_
    }

    /// Of `unsafe` against `safe`.
    pub(super) fn score(self) -> f32 {
        if self.share() > 0.0 { (self.unsafe_ / self.share()) as f32 } else { 1.0 }
    }

    /// A model that puts less than half on either word did not give a verdict.
    pub(super) fn is_verdict(self) -> bool {
        self.share() >= 0.5
    }
}

/// The words of a text that are codes, or look like some.
fn coded(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| policy::is_code(word))
}

fn bare(token: &str) -> String {
    // Byte-level tokenizers write a space as `Ġ` and a line's end as `Ċ`, SentencePiece as `▁`.
    token.trim_matches(|c: char| c.is_whitespace() || "ĠĊ▁".contains(c)).to_ascii_lowercase()
}

/// Whether a first token begins `unsafe` or `safe`.
fn which(token: &str) -> Option<bool> {
    let token = bare(token);
    let begins = |word: &str| !token.is_empty() && (word.starts_with(&token) || token.starts_with(word));
    if begins("unsafe") { Some(true) } else { begins("safe").then_some(false) }
}

impl Verdict {
    pub(super) fn safe(score: f32, unscored: bool) -> Self {
        Self { score, unscored, reason: None, codes: Vec::new() }
    }

    /// No verdict: the text does not pass.
    pub(super) fn none(reason: &'static str) -> Self {
        Self { score: 1.0, unscored: true, reason: Some(reason), codes: Vec::new() }
    }

    /// Unsafe, by the codes in `listed`. What is violated by excluded categories alone passes.
    pub(super) fn unsafe_by(listed: &str, policy: &Policy, score: f32, unscored: bool) -> Self {
        let mut codes: Vec<String> = Vec::new();
        let (mut known, mut excluded, mut unknown) = (false, false, false);
        for code in coded(listed) {
            let code = match policy.find(code) {
                Some(category) if category.excluded => {
                    excluded = true;
                    continue;
                }
                Some(category) => {
                    known = true;
                    category.code.clone()
                }
                None => {
                    unknown = true;
                    code.to_ascii_uppercase()
                }
            };
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        let reason = match (known, unknown, excluded) {
            (true, ..) => Some(reasons::UNSAFE),
            (false, true, _) => Some(reasons::UNKNOWN_CATEGORY),
            (false, false, true) => None,
            (false, false, false) => Some(reasons::UNCATEGORISED),
        };
        Self { score, unscored, reason, codes }
    }

    /// By the words alone: the server told no probabilities.
    pub(super) fn by_words(text: &str, policy: &Policy) -> Self {
        match Said::read(text) {
            Said::Safe => Self::safe(0.0, true),
            Said::Unsafe(listed) => Self::unsafe_by(&listed, policy, 1.0, true),
            Said::Nothing => Self::none(reasons::EMPTY_VERDICT),
            Said::Other => Self::none(reasons::UNPARSEABLE_VERDICT),
        }
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::token_logprob::TopLogprob;

    use super::{super::family::Family, *};

    fn policy() -> Policy {
        Policy::configured(Family::Guard3B8, &[], &["S6".into()]).unwrap()
    }

    #[test]
    fn every_answer_has_its_outcome() {
        let table: [(&str, Option<&str>, &[&str]); 22] = [
            ("safe", None, &[]),
            ("\n\nsafe", None, &[]),
            ("Safe", None, &[]),
            ("safe.", None, &[]),
            ("**safe**", None, &[]),
            ("unsafe\nS2", Some("unsafe"), &["S2"]),
            ("UNSAFE\nS2", Some("unsafe"), &["S2"]),
            ("unsafe\ns1", Some("unsafe"), &["S1"]),
            ("unsafe\nS1, S2", Some("unsafe"), &["S1", "S2"]),
            ("unsafe S1,S2,S1", Some("unsafe"), &["S1", "S2"]),
            ("unsafe\nS1: Violent Crimes.", Some("unsafe"), &["S1"]),
            ("unsafe\nS6", None, &[]),
            ("unsafe\nS6, S9", Some("unsafe"), &["S9"]),
            ("unsafe\nS99", Some("unknown_category"), &["S99"]),
            ("unsafe\nS6,S99", Some("unknown_category"), &["S99"]),
            ("unsafe", Some("uncategorised"), &[]),
            ("unsafe\nviolence", Some("uncategorised"), &[]),
            ("", Some("empty_verdict"), &[]),
            (" \n", Some("empty_verdict"), &[]),
            ("I'm sorry, I can't", Some("unparseable_verdict"), &[]),
            ("safe? no: unsafe", Some("unparseable_verdict"), &[]),
            ("safe\nS1", Some("unparseable_verdict"), &[]),
        ];
        for (text, reason, codes) in table {
            let verdict = Verdict::by_words(text, &policy());
            assert_eq!(
                (verdict.reason, verdict.codes.as_slice()),
                (reason, codes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>().as_slice()),
                "{text:?}"
            );
            assert!(verdict.unscored);
        }
        assert_eq!(Verdict::by_words("safely", &policy()).reason, Some("unparseable_verdict"));
    }

    fn token(token: &str, top: &[(&str, f32)]) -> TokenLogprob {
        let top = top.iter().map(|(token, p)| TopLogprob { token: (*token).into(), logprob: p.ln(), ..TopLogprob::default() });
        TokenLogprob { token: token.into(), logprob: -0.1, top: top.collect(), ..TokenLogprob::default() }
    }

    #[test]
    fn the_score_is_unsafe_against_safe_at_the_first_word() {
        let blank = token("\n\n", &[("\n\n", 0.99), ("unsafe", 0.01)]);
        let word = token("safe", &[("safe", 0.6), ("unsafe", 0.2), ("Unsafe", 0.1), ("maybe", 0.1)]);
        let odds = Odds::read(&[blank, word]).unwrap();
        assert!((odds.score() - 1.0 / 3.0).abs() < 1e-3, "{odds:?}");
        assert!(odds.is_verdict());
        assert!(!Odds::read(&[token("Sure", &[("Sure", 0.9), ("safe", 0.1)])]).unwrap().is_verdict());
        assert_eq!(Odds::read(&[token("safe", &[])]), None, "alternatives are needed");
        assert_eq!(Odds::read(&[]), None);
        assert_eq!(which("Ġun"), Some(true));
        assert_eq!(which("sa"), Some(false));
        assert_eq!((which("yes"), which("\n")), (None, None));
    }
}
