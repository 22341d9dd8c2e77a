//! The published guards: which tokens frame their prompt, and which categories they know.
//!
//! Sources: the chat templates and model cards of `meta-llama/Llama-Guard-3-8B`, `-3-1B` and `-3-11B-Vision`. Of Llama Guard 4:
//! its page at llama.com (the tokens), its model card in PurpleLlama (S1 to S14), the names that vLLM's tests on TPUs give its
//! template, and prompts that others publish. Its template file itself was not to be had; a test holds ours against what
//! these say.

use llama_stack_core::{Error, Result};
use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Family {
    #[serde(rename = "llama-guard-3-8b")]
    Guard3B8,
    #[serde(rename = "llama-guard-3-1b")]
    Guard3B1,
    /// By its text path.
    #[serde(rename = "llama-guard-3-11b-vision")]
    Guard3B11Vision,
    #[serde(rename = "llama-guard-4")]
    Guard4,
}

/// What stands around the text of a prompt.
pub(super) struct Frame {
    /// Before the begin token: the 8B's template writes a space there.
    pub(super) lead: &'static str,
    /// From the user's header to the text.
    pub(super) open: &'static str,
    /// From the text to the assistant's answer. Nothing follows the last header: these models write the empty line
    /// themselves.
    pub(super) close: &'static str,
}

pub(super) const BEGIN: &str = "<|begin_of_text|>";

/// Code and short name, as prompts have them.
const CATEGORIES: [(&str, &str); 14] = [
    ("S1", "Violent Crimes"),
    ("S2", "Non-Violent Crimes"),
    ("S3", "Sex Crimes"),
    ("S4", "Child Exploitation"),
    ("S5", "Defamation"),
    ("S6", "Specialized Advice"),
    ("S7", "Privacy"),
    ("S8", "Intellectual Property"),
    ("S9", "Indiscriminate Weapons"),
    ("S10", "Hate"),
    ("S11", "Self-Harm"),
    ("S12", "Sexual Content"),
    ("S13", "Elections"),
    ("S14", "Code Interpreter Abuse"),
];

impl Family {
    /// By a model's id, for example `meta-llama/Llama-Guard-3-8B` or `llama-guard3:1b`.
    ///
    /// # Errors
    /// `InvalidArgument`, on `config.family`, where the id tells nothing.
    pub(super) fn of(model: &str) -> Result<Self> {
        let name: String = model.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let has = |part: &str| name.contains(part);
        match () {
            () if has("llamaguard4") => Ok(Self::Guard4),
            () if has("llamaguard3") && (has("11b") || has("vision")) => Ok(Self::Guard3B11Vision),
            () if has("llamaguard3") && has("1b") => Ok(Self::Guard3B1),
            () if has("llamaguard3") => Ok(Self::Guard3B8),
            () => {
                let what = format!(
                    "missing field: the id {model:?} does not say which guard it is; there is: llama-guard-3-8b, llama-guard-3-1b, \
                     llama-guard-3-11b-vision, llama-guard-4"
                );
                Err(Error::invalid("config.family", what))
            }
        }
    }

    pub(super) fn frame(self) -> Frame {
        let open = "<|start_header_id|>user<|end_header_id|>\n\n";
        let close = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>";
        match self {
            Self::Guard3B8 => Frame { lead: " ", open, close },
            Self::Guard3B1 | Self::Guard3B11Vision => {
                Frame { lead: "", open, close: " <|eot_id|><|start_header_id|>assistant<|end_header_id|>" }
            }
            Self::Guard4 => {
                Frame { lead: "", open: "<|header_start|>user<|header_end|>\n\n", close: "<|eot|><|header_start|>assistant<|header_end|>" }
            }
        }
    }

    /// In the prompt's order.
    pub(super) fn categories(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Guard3B8 | Self::Guard4 => &CATEGORIES,
            Self::Guard3B1 | Self::Guard3B11Vision => &CATEGORIES[..13],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_family() {
        for (id, family) in [
            ("meta-llama/Llama-Guard-3-8B", Family::Guard3B8),
            ("llama-guard3", Family::Guard3B8),
            ("llama-guard3:1b", Family::Guard3B1),
            ("Llama-Guard-3-11B-Vision", Family::Guard3B11Vision),
            ("vllm/meta-llama/Llama-Guard-4-12B", Family::Guard4),
        ] {
            assert_eq!(Family::of(id).unwrap(), family, "{id}");
        }
        for id in ["guard", "llama-guard-2-8b", "llama-3-8b"] {
            assert_eq!(Family::of(id).unwrap_err().field(), Some("config.family"), "{id}");
        }
    }
}
