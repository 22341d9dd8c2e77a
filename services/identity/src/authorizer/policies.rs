//! The policies of access that a manifest names, read again when their files change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use llama_stack_core::{Error, Manifest, Result, manifest::AccessPolicy};
use llama_stack_policy::{
    Source,
    access::{AccessPolicies, BUILT_IN},
};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What is in force now.
pub struct Policies {
    current: ArcSwap<AccessPolicies>,
    /// Beside the files: those of the stack and those of the manifest.
    fixed: Vec<Source>,
    files: Vec<PathBuf>,
}

impl Policies {
    /// Reads the files and checks everything; blocks while it does.
    ///
    /// # Errors
    /// `InvalidArgument`, with file and line: a file that cannot be read, or a policy that is wrong.
    pub fn from_manifest(manifest: &Manifest) -> Result<Self> {
        let default = AccessPolicy::default();
        let (named, lines) = (manifest.server.auth.as_ref().map_or(&default, |auth| &auth.policy), &manifest.lines);
        let mut fixed = Vec::new();
        if named.built_in {
            fixed.push(Source::new("built_in.cedar", BUILT_IN));
        }
        if let Some(text) = &named.text {
            let path = "server.auth.policy.text";
            fixed.push(Source::new(format!("{}: {path}", lines.place(path)), text.clone()));
        }
        let folder = Path::new(lines.file()).parent().unwrap_or(Path::new(""));
        let files: Vec<PathBuf> = named.files.iter().map(|file| folder.join(file)).collect();
        let texts = read(&files).map_err(|error| lines.error("server.auth.policy.files", error.message()))?;
        let current = ArcSwap::from_pointee(compiled(&fixed, &texts)?);
        Ok(Self { current, fixed, files })
    }

    pub fn current(&self) -> Arc<AccessPolicies> {
        self.current.load_full()
    }

    /// Looks for changes until `shutdown`. A change counts once two looks have found it: a file that is just being written is
    /// empty at first, or without its end, and its policies may be right all the same. Files that have become wrong change
    /// nothing: what was in force stays, and the log says why.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        if self.files.is_empty() {
            return;
        }
        let mut known: Option<Vec<Source>> = read(&self.files).ok();
        let mut seen: Option<Vec<Source>> = None;
        while tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_err() {
            let files = self.files.clone();
            let Ok(Ok(texts)) = tokio::task::spawn_blocking(move || read(&files)).await else { continue };
            let same = |other: &Vec<Source>| other.iter().map(|source| &source.text).eq(texts.iter().map(|source| &source.text));
            let (is_known, is_whole) = (known.as_ref().is_some_and(same), seen.as_ref().is_some_and(same));
            if is_known || !is_whole {
                seen = Some(texts);
                continue;
            }
            match compiled(&self.fixed, &texts) {
                Ok(policies) => {
                    self.current.store(Arc::new(policies));
                    tracing::info!("the policies of access were read again");
                }
                Err(error) => tracing::error!(error = ?error, "the policies of access are wrong now; those before stay in force"),
            }
            known = Some(texts);
        }
    }
}

fn compiled(fixed: &[Source], files: &[Source]) -> Result<AccessPolicies> {
    AccessPolicies::new(&[fixed, files].concat())
}

fn read(files: &[PathBuf]) -> Result<Vec<Source>> {
    let one = |path: &PathBuf| {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Error::invalid("policy", format!("{}: cannot be read: {error}", path.display())))?;
        Ok(Source::new(path.display().to_string(), text))
    };
    files.iter().map(one).collect()
}
