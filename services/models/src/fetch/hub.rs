//! The model hub: which URL an `hf://` is, and with which key.

use std::path::PathBuf;

use url::Url;

use llama_stack_core::{Error, Result, context::Secret};

/// Where `hf://` leads.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<Secret>,
}

impl Hub {
    /// `endpoint` is the URL below which repositories lie; `token` is sent to it as bearer, and to nobody it redirects to.
    pub fn new(endpoint: &str, token: Option<Secret>) -> Self {
        Self { endpoint: endpoint.to_owned(), token: token.filter(|token| !token.is_empty()) }
    }

    /// `HF_ENDPOINT`, or the public hub; `HF_TOKEN`, or what `HF_TOKEN_PATH` holds.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let token_file = || std::fs::read_to_string(PathBuf::from(set("HF_TOKEN_PATH")?)).ok();
        let token = set("HF_TOKEN").or_else(token_file).map(|token| Secret::new(token.trim()));
        Self::new(&set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()), token)
    }

    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    pub(super) fn url(&self, repo: &str, path: &str, revision: &str) -> Result<Url> {
        let wrong = || Error::failed_precondition(format!("HF_ENDPOINT is {:?}, which is not the URL of a hub", self.endpoint));
        let mut url = Url::parse(&self.endpoint).map_err(|error| wrong().with_source(error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong());
        }
        // A revision's slashes are part of its name, the path's are not.
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(repo.split('/'))
            .extend(["resolve", revision])
            .extend(path.split('/'));
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_file_has_one_url() {
        let url = |endpoint: &str, revision: &str| Hub::new(endpoint, None).url("o/r", "a/b c.gguf", revision).unwrap().to_string();
        assert_eq!(url("https://hub.example", "main"), "https://hub.example/o/r/resolve/main/a/b%20c.gguf");
        assert_eq!(url("https://mirror.example/hf/", "refs/pr/1"), "https://mirror.example/hf/o/r/resolve/refs%2Fpr%2F1/a/b%20c.gguf");
    }

    #[test]
    fn a_wrong_endpoint_is_named() {
        let error = Hub::new("hub.example", None).url("o/r", "f", "main").unwrap_err();
        assert!(error.message().contains("HF_ENDPOINT is \"hub.example\""));
    }

    #[test]
    fn the_token_does_not_show_itself() {
        assert!(!format!("{:?}", Hub::new("https://h", Some(Secret::new("hunter2")))).contains("hunter2"));
    }
}
