//! The head: a network of a few thousand weights, and what it was trained on.

use std::path::Path;

use llama_stack_core::{Error, Result};
use serde::Deserialize;

const BUILT_IN: &str = include_str!("head.json");

/// As `services/safety/training/train.py` writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// For people.
    #[serde(rename = "about")]
    _about: String,
    /// The embedding model that it was trained on.
    pub(super) model: String,
    pub(super) windows: Vec<Cut>,
    /// Scores at or above are violations.
    pub(super) threshold: f32,
    /// Texts with the scores that they have, to recognise the model by.
    pub(super) probes: Vec<Probe>,
    /// The last one has one output, and a sigmoid in place of the rectifier of the others.
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cut {
    /// Of the text, in a window.
    pub(super) tokens: usize,
    pub(super) step: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Probe {
    pub(super) text: String,
    pub(super) score: f32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    /// A row per output.
    weight: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

impl Head {
    pub(super) fn built_in() -> Result<Self> {
        Self::read(BUILT_IN)
    }

    /// # Errors
    /// `InvalidArgument` for a file that cannot be read or is no head.
    pub(super) async fn from_file(path: &Path) -> Result<Self> {
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|cause| Error::invalid("head", format!("{} cannot be read: {cause}", path.display())).with_source(cause))?;
        Self::read(&text)
    }

    fn read(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::invalid("head", format!("the head cannot be used: {why}"));
        let head: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if head.windows.is_empty() || head.windows.iter().any(|cut| cut.tokens == 0 || cut.step == 0 || cut.step > cut.tokens) {
            return Err(wrong("windows: at least one, each with tokens and a step of at most as many".into()));
        }
        let mut width = head.dimension();
        for (at, layer) in head.layers.iter().enumerate() {
            if layer.bias.is_empty() || layer.weight.len() != layer.bias.len() || layer.weight.iter().any(|row| row.len() != width) {
                return Err(wrong(format!("layers[{at}] takes {width} values, and has a row of weights for each bias")));
            }
            width = layer.bias.len();
        }
        if width != 1 || head.dimension() == 0 {
            return Err(wrong("layers: the last one has one output".into()));
        }
        Ok(head)
    }

    /// Values of a vector.
    pub(super) fn dimension(&self) -> usize {
        self.layers.first().and_then(|layer| layer.weight.first()).map_or(0, Vec::len)
    }

    /// 0 to 1.
    ///
    /// # Errors
    /// `Internal` for a vector of another dimension, or one that is not of numbers.
    pub(super) fn score(&self, vector: &[f32]) -> Result<f32> {
        if vector.len() != self.dimension() {
            return Err(Error::internal(format!("a vector has {} values, and the head takes {}", vector.len(), self.dimension())));
        }
        // The greater of nothing and 0 is 0: further on it would not show.
        if !vector.iter().all(|value| value.is_finite()) {
            return Err(Error::internal("a vector has values that are not numbers"));
        }
        let mut values = vector.to_vec();
        for (at, layer) in self.layers.iter().enumerate() {
            let last = at + 1 == self.layers.len();
            let output = |(row, bias): (&Vec<f32>, &f32)| {
                let sum = row.iter().zip(&values).map(|(weight, value)| weight * value).sum::<f32>() + bias;
                if last { sum } else { sum.max(0.0) }
            };
            values = layer.weight.iter().zip(&layer.bias).map(output).collect();
        }
        let logit = values.first().copied().unwrap_or(f32::NAN);
        let score = 1.0 / (1.0 + (-logit).exp());
        if score.is_nan() { Err(Error::internal("the head computed something that is not a number")) } else { Ok(score) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn head() -> Value {
        json!({
            "about": "", "model": "m", "windows": [{ "tokens": 4, "step": 2 }], "threshold": 0.5, "probes": [],
            "layers": [{ "weight": [[1.0, -1.0], [0.5, 2.0]], "bias": [0.0, -1.0] }, { "weight": [[1.0, -2.0]], "bias": [0.25] }],
        })
    }

    #[test]
    fn a_head_computes_its_layers() {
        let head = Head::read(&head().to_string()).unwrap();
        // relu: [2, 0] → 2.25
        assert!((head.score(&[1.0, -1.0]).unwrap() - 0.904_650_5).abs() < 1e-6);
        // relu: [0, 3.5] → -6.75
        assert!((head.score(&[1.0, 2.0]).unwrap() - 0.001_169_5).abs() < 1e-6);
        assert!(head.score(&[1.0]).is_err() && head.score(&[f32::NAN, 0.0]).is_err());
    }

    #[test]
    fn a_crooked_head_is_refused_with_the_reason() {
        let broken = |change: &dyn Fn(&mut Value)| {
            let mut value = head();
            change(&mut value);
            Head::read(&value.to_string()).unwrap_err().message().to_owned()
        };
        assert!(broken(&|head| head["layers"][1]["weight"] = json!([[1.0]])).contains("layers[1] takes 2 values"));
        assert!(broken(&|head| head["layers"] = json!([])).contains("one output"));
        assert!(broken(&|head| head["windows"][0]["step"] = json!(9)).contains("windows"));
        assert!(broken(&|head| head["thresold"] = json!(1)).contains("thresold"));
    }

    #[test]
    fn the_built_in_head_is_one() {
        let head = Head::built_in().unwrap();
        assert_eq!((head.dimension(), head.model.as_str()), (384, "all-minilm-l6-v2"));
        assert!(!head.probes.is_empty());
    }
}
