//! The two generations: their labels, and what is made of them.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Classification, ShieldStage};

const JAILBREAK: &str = "jailbreak";
const INJECTION: &str = "injection";
const MALICIOUS: &str = "malicious";

/// Which labels a model has, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// Prompt-Guard-86M.
    First { injection: usize, jailbreak: usize },
    /// Llama-Prompt-Guard-2-86M and -22M, and other detectors of two labels.
    Second { malicious: usize },
}

impl Generation {
    /// # Errors
    /// `InvalidArgument` for labels that are neither generation's, with both.
    pub(super) fn of(labels: &[String]) -> Result<Self> {
        let names: Vec<String> = labels.iter().map(|label| label.to_uppercase()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let at = |name: &str| names.iter().position(|there| *there == name);
        match names.as_slice() {
            // Unnamed: in the published order.
            ["LABEL_0", "LABEL_1", "LABEL_2"] => Ok(Self::First { injection: 1, jailbreak: 2 }),
            ["LABEL_0", "LABEL_1"] => Ok(Self::Second { malicious: 1 }),
            [_, _, _] => match (at("BENIGN"), at("INJECTION"), at("JAILBREAK")) {
                (Some(_), Some(injection), Some(jailbreak)) => Ok(Self::First { injection, jailbreak }),
                _ => Err(unknown(labels)),
            },
            ["BENIGN" | "SAFE" | "LEGIT", _] => Ok(Self::Second { malicious: 1 }),
            [_, "BENIGN" | "SAFE" | "LEGIT"] => Ok(Self::Second { malicious: 0 }),
            _ => Err(unknown(labels)),
        }
    }

    pub(super) fn categories(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::First { .. } => {
                &[(JAILBREAK, "Overriding the system's instructions"), (INJECTION, "Instructions in text of third parties")]
            }
            Self::Second { .. } => &[(MALICIOUS, "Overriding instructions, from a user or a third party")],
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::First { .. } => "Prompt Guard: jailbreaks, and instructions hidden in tools' results and retrieved text",
            Self::Second { .. } => "Prompt Guard 2: jailbreaks and prompt injection",
        }
    }

    /// v2's own tokenizer sees through letters that are spaced out.
    pub(super) fn wants_whitespace_undone(self) -> bool {
        matches!(self, Self::First { .. })
    }

    /// What is scored at a stage. v1 calls any instruction an injection, so that score means something in third parties' text
    /// alone: users are there to instruct.
    pub(super) fn scored(self, stage: ShieldStage) -> &'static [&'static str] {
        match (self, stage) {
            (Self::First { .. }, ShieldStage::ToolResult | ShieldStage::Retrieved) => &[JAILBREAK, INJECTION],
            (Self::First { .. }, _) => &[JAILBREAK],
            (Self::Second { .. }, _) => &[MALICIOUS],
        }
    }

    /// One window's scores.
    ///
    /// # Errors
    /// `Internal` for an answer without the labels that the model said it has.
    pub(super) fn scores(self, classification: &Classification, temperature: f32) -> Result<Vec<(&'static str, f32)>> {
        let known = match self {
            Self::First { .. } => 3,
            Self::Second { .. } => 2,
        };
        let scores = &classification.scores;
        if scores.len() != known || !scores.iter().all(|label| label.score.is_finite() && label.logit.is_finite()) {
            return Err(Error::internal(format!("a classification has {} labels, and this shield's model {known}", scores.len())));
        }
        Ok(match self {
            Self::First { injection, jailbreak } => {
                let shares = cooled(classification, temperature);
                vec![(JAILBREAK, shares[jailbreak]), (INJECTION, (shares[injection] + shares[jailbreak]).min(1.0))]
            }
            Self::Second { malicious } => vec![(MALICIOUS, cooled(classification, temperature)[malicious])],
        })
    }
}

/// Softmax of the logits over the temperature.
fn cooled(classification: &Classification, temperature: f32) -> Vec<f32> {
    // As it came: not every provider tells its logits.
    if temperature == 1.0 {
        return classification.scores.iter().map(|label| label.score).collect();
    }
    // Where they are not told, the scores' logarithms are the logits but for a constant, which a softmax does not see.
    let untold = classification.scores.iter().all(|label| label.logit == 0.0);
    let logit = |score: f32, told: f32| if untold { score.max(f32::MIN_POSITIVE).ln() } else { told };
    let logits = || classification.scores.iter().map(|label| logit(label.score, label.logit) / temperature);
    let highest = logits().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits().map(|logit| (logit - highest).exp()).sum();
    logits().map(|logit| (logit - highest).exp() / sum).collect()
}

fn unknown(labels: &[String]) -> Error {
    let message = format!(
        "its labels are {}; Prompt Guard's are BENIGN, INJECTION, JAILBREAK (v1) or BENIGN and one other (v2): this model is no Prompt Guard",
        labels.join(", ")
    );
    Error::invalid("config.model", message).with_reason("wrong_model_kind")
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::LabelScore;

    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn classified(logits: &[f32]) -> Classification {
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let score = |logit: &f32| LabelScore { label: String::new(), score: logit.exp() / sum, logit: *logit };
        Classification { scores: logits.iter().map(score).collect() }
    }

    #[test]
    fn generations_are_told_apart_by_their_labels() {
        let of = |names: &[&str]| Generation::of(&labels(names));
        assert_eq!(of(&["BENIGN", "INJECTION", "JAILBREAK"]).unwrap(), Generation::First { injection: 1, jailbreak: 2 });
        assert_eq!(of(&["jailbreak", "benign", "injection"]).unwrap(), Generation::First { injection: 2, jailbreak: 0 });
        assert_eq!(of(&["BENIGN", "MALICIOUS"]).unwrap(), Generation::Second { malicious: 1 });
        assert_eq!(of(&["LABEL_0", "LABEL_1"]).unwrap(), Generation::Second { malicious: 1 });
        assert_eq!(of(&["INJECTION", "SAFE"]).unwrap(), Generation::Second { malicious: 0 });
        for wrong in [&["POSITIVE", "NEGATIVE"][..], &["A", "B", "C"], &["BENIGN"], &[]] {
            assert!(of(wrong).unwrap_err().message().contains("no Prompt Guard"));
        }
    }

    #[test]
    fn scores_are_those_of_the_model_cards() {
        let first = Generation::First { injection: 1, jailbreak: 2 };
        let scores = first.scores(&classified(&[0.0, 1.0, 2.0]), 1.0).unwrap();
        assert!((scores[0].1 - 0.6652).abs() < 1e-4 && (scores[1].1 - 0.9100).abs() < 1e-4, "{scores:?}");
        // softmax([0, .5, 1])
        let cooled = first.scores(&classified(&[0.0, 1.0, 2.0]), 2.0).unwrap();
        assert!((cooled[0].1 - 0.5065).abs() < 1e-4 && (cooled[1].1 - 0.8137).abs() < 1e-4, "{cooled:?}");
        assert!(first.scores(&classified(&[0.0, 1.0]), 1.0).is_err());
    }

    #[test]
    fn a_temperature_needs_no_logits() {
        let mut told = classified(&[0.0, 8.0]);
        let second = Generation::Second { malicious: 1 };
        let with = second.scores(&told, 2.0).unwrap()[0].1;
        told.scores.iter_mut().for_each(|label| label.logit = 0.0);
        let without = second.scores(&told, 2.0).unwrap()[0].1;
        assert!(with > 0.95 && (with - without).abs() < 1e-3, "{with} and {without}");
    }

    #[test]
    fn an_instruction_counts_in_the_text_of_third_parties_alone() {
        let first = Generation::First { injection: 1, jailbreak: 2 };
        assert_eq!(first.scored(ShieldStage::Input), ["jailbreak"]);
        assert_eq!(first.scored(ShieldStage::Retrieved), ["jailbreak", "injection"]);
        assert_eq!(first.scored(ShieldStage::ToolResult), ["jailbreak", "injection"]);
    }
}
