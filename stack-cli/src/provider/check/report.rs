//! What a provider keeps of its promises.

use serde::Serialize;

use crate::{
    args::Api,
    output::{Output, Tone},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Kept,
    Broken,
    /// It could not be asked for, or need not be kept.
    Skipped,
}

#[derive(Serialize)]
struct Promise {
    api: &'static str,
    promise: String,
    verdict: Verdict,
    /// What was answered, where it is not kept; why it was not asked for, where it is skipped.
    detail: String,
}

#[derive(Serialize)]
pub(super) struct Report {
    url: String,
    promises: Vec<Promise>,
    kept: usize,
    pub(super) broken: usize,
    skipped: usize,
    #[serde(skip)]
    api: &'static str,
}

impl Report {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.into(), promises: Vec::new(), kept: 0, broken: 0, skipped: 0, api: "" }
    }

    /// What follows is about this API.
    pub(super) fn begin(&mut self, api: Api) {
        self.api = api.name();
    }

    pub(super) fn kept(&mut self, promise: &str) {
        self.kept += 1;
        self.add(promise, Verdict::Kept, String::new());
    }

    pub(super) fn broken(&mut self, promise: &str, detail: impl Into<String>) {
        self.broken += 1;
        self.add(promise, Verdict::Broken, detail.into());
    }

    pub(super) fn skipped(&mut self, promise: &str, detail: impl Into<String>) {
        self.skipped += 1;
        self.add(promise, Verdict::Skipped, detail.into());
    }

    /// Kept where nothing is wrong.
    pub(super) fn judge(&mut self, promise: &str, wrong: Option<String>) {
        match wrong {
            None => self.kept(promise),
            Some(detail) => self.broken(promise, detail),
        }
    }

    fn add(&mut self, promise: &str, verdict: Verdict, detail: String) {
        self.promises.push(Promise { api: self.api, promise: promise.into(), verdict, detail });
    }

    pub(super) fn text(&self, output: &Output) -> String {
        let (mut text, mut api) = (String::new(), "");
        for promise in &self.promises {
            if promise.api != api {
                api = promise.api;
                text += &format!("{api} at {}\n", self.url);
            }
            let word = match promise.verdict {
                Verdict::Kept => output.paint(Tone::Good, "kept   "),
                Verdict::Broken => output.paint(Tone::Bad, "BROKEN "),
                Verdict::Skipped => output.paint(Tone::Faint, "skipped"),
            };
            text += &format!("  {word}  {}\n", promise.promise);
            if !promise.detail.is_empty() {
                text += &format!("           {}\n", promise.detail);
            }
        }
        text + &format!("{} kept, {} broken, {} skipped\n", self.kept, self.broken, self.skipped)
    }
}
