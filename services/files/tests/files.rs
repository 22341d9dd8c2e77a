//! Files in a real database: their contents on a real disk, and in a bucket over a real socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use llama_stack_core::{Code, Context, Deps, Error, Files, Result, ids, manifest};
use llama_stack_files::{Copies, Derived, StoredFiles};
use llama_stack_proto::v1::{
    Batch, BatchStatus, Caller, DeleteFileRequest, File, FileHeader, GetFileRequest, ListFilesRequest, UploadFileRequest,
    upload_file_request::Message,
};
use llama_stack_store::{Durability, PartedUpload, Store};
use llama_stack_tests::s3::{self, Mood, Server};
use tempfile::TempDir;

/// Runs each test on either place of contents.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_a_disk { $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(None).await; })* }
        mod in_a_bucket {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Some(super::Server::start().await)).await; })*
        }
    };
}

on_both! {
    a_content_is_kept_once_per_tenant_and_goes_with_its_last_file,
    a_tenant_keeps_no_more_than_its_quota,
    what_is_refused_leaves_nothing_behind,
    racing_uploads_and_deletions_keep_what_was_acknowledged,
    a_start_removes_what_a_crash_left_and_what_has_expired,
    an_expired_file_stays_until_what_was_made_of_it_is_gone,
    an_expired_file_stays_until_the_batch_that_reads_it_has_ended,
    a_file_that_is_being_read_can_be_deleted,
    lists_go_on_where_they_stopped,
}

struct Site {
    files: Arc<StoredFiles>,
    store: Store,
    deps: Deps,
    folder: TempDir,
    config: manifest::Files,
    bucket: Option<Server>,
}

async fn site(bucket: Option<Server>) -> Site {
    site_with(bucket, manifest::Files { max_bytes: 4 << 20, ..manifest::Files::default() }).await
}

async fn site_with(bucket: Option<Server>, config: manifest::Files) -> Site {
    let folder = TempDir::new().unwrap();
    let store = Store::open("sqlite::memory:", Durability::Power).await.unwrap();
    let deps = Deps::new(folder.path());
    let s3 = config.s3.or_else(|| bucket.as_ref().map(Server::config));
    let config = manifest::Files { s3, ..config };
    let files = StoredFiles::open(&deps, store.clone(), config.clone()).await.unwrap();
    Site { files, store, deps, folder, config, bucket }
}

impl Site {
    async fn upload(&self, tenant: &str, content: &[u8]) -> Result<File> {
        upload(&self.files, tenant, header("a.txt"), content).await
    }

    async fn read(&self, tenant: &str, id: &str) -> Result<Vec<u8>> {
        let chunks = self.files.download_file(&Context::test(tenant), GetFileRequest { id: id.into() }).await?;
        let pieces: Vec<Vec<u8>> = chunks.map_ok(|chunk| chunk.data).try_collect().await?;
        Ok(pieces.concat())
    }

    async fn delete(&self, tenant: &str, id: &str) -> Result<()> {
        self.files.delete_file(&Context::test(tenant), DeleteFileRequest { id: id.into() }).await.map(drop)
    }

    /// Contents that are there, whole or half.
    fn contents(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        gather(&self.folder.path().join("files"), &mut found);
        found.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
        if let Some(bucket) = &self.bucket {
            found.extend(bucket.keys().into_iter().map(PathBuf::from));
            found.extend(bucket.held.lock().unwrap().uploads.keys().map(PathBuf::from));
        }
        found
    }
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { gather(&path, found) } else { found.push(path) }
    }
}

fn header(filename: &str) -> FileHeader {
    FileHeader { filename: filename.into(), purpose: "assistants".into(), ..FileHeader::default() }
}

async fn upload(files: &StoredFiles, tenant: &str, header: FileHeader, content: &[u8]) -> Result<File> {
    let pieces = content.chunks(700_000).map(|piece| Message::Data(piece.to_vec()));
    let messages = std::iter::once(Message::Header(header)).chain(pieces);
    let messages: Vec<Result<UploadFileRequest>> = messages.map(|message| Ok(UploadFileRequest { message: Some(message) })).collect();
    files.upload_file(&Context::test(tenant), Box::pin(stream::iter(messages))).await
}

fn told<T>(result: Result<T>) -> (Code, String) {
    match result {
        Ok(_) => panic!("it should have been refused"),
        Err(error) => (error.code(), error.reason().unwrap_or_default().to_owned()),
    }
}

/// As the database and the indexes of banks are.
#[cfg(unix)]
#[test]
fn contents_are_for_the_eyes_of_who_runs_the_stack() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let folder = TempDir::new().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (new, open) = (folder.path().join("home/files"), folder.path().join("open"));
    Copies::open(new.clone()).unwrap();
    assert_eq!(mode(&new), 0o700);
    // Who opened a folder to others meant it.
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    Copies::open(open.clone()).unwrap();
    assert_eq!(mode(&open), 0o755);
}

async fn a_content_is_kept_once_per_tenant_and_goes_with_its_last_file(bucket: Option<Server>) {
    let site = site(bucket).await;
    let content: Vec<u8> = (0..2_500_000_u32).map(|at| (at % 241) as u8).collect();
    let one = site.upload("acme", &content).await.unwrap();
    assert_eq!((one.bytes, one.owner.as_str(), one.media_type.as_str()), (2_500_000, "tester", "application/octet-stream"));
    assert_eq!(one.sha256.len(), 64);
    let two = site.upload("acme", &content).await.unwrap();
    assert_eq!((two.sha256 == one.sha256, two.id == one.id, site.contents().len()), (true, false, 1));
    // Another tenant's is another's, so that nobody learns who has what.
    let other = site.upload("other", &content).await.unwrap();
    assert_eq!(site.contents().len(), 2);
    assert_eq!(told(site.read("other", &one.id).await), (Code::NotFound, "file_not_found".into()));

    site.delete("acme", &one.id).await.unwrap();
    assert_eq!(site.read("acme", &two.id).await.unwrap(), content);
    site.delete("acme", &two.id).await.unwrap();
    assert_eq!(told(site.read("acme", &two.id).await).0, Code::NotFound);
    assert_eq!((site.contents().len(), site.read("other", &other.id).await.unwrap().len()), (1, 2_500_000));
    assert_eq!(told(site.delete("acme", &one.id).await).0, Code::NotFound);
}

/// The quota is each tenant's own, also for uploads at once; and what is deleted makes room.
async fn a_tenant_keeps_no_more_than_its_quota(bucket: Option<Server>) {
    let site = site_with(bucket, manifest::Files { max_tenant_bytes: 1_000, ..manifest::Files::default() }).await;
    let kept = site.upload("acme", &[1; 600]).await.unwrap();
    let error = site.upload("acme", &[2; 401]).await.unwrap_err();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::ResourceExhausted, Some("storage_quota"), Some("file")));
    assert!(["401", "600", "1000"].iter().all(|number| error.message().contains(number)), "{error}");
    assert_eq!(site.contents().len(), 1);
    site.upload("other", &[2; 1_000]).await.unwrap();
    let contents: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 100]).collect();
    let at_once = futures::future::join_all(contents.iter().map(|content| site.upload("acme", content))).await;
    assert_eq!(at_once.iter().filter(|result| result.is_ok()).count(), 4);
    site.delete("acme", &kept.id).await.unwrap();
    site.upload("acme", &[3; 600]).await.unwrap();
}

async fn what_is_refused_leaves_nothing_behind(bucket: Option<Server>) {
    let site = site(bucket).await;
    let try_upload = async |header: FileHeader, content: &[u8]| told(upload(&site.files, "acme", header, content).await).1;
    assert_eq!(try_upload(header("a"), &vec![0; 5 << 20]).await, "file_too_large");
    assert_eq!(try_upload(header("a"), b"").await, "empty_file");
    for name in ["", "..", "a/..", "\u{7}"] {
        assert_eq!(try_upload(header(name), b"x").await, "invalid_filename", "{name:?}");
    }
    assert_eq!(try_upload(FileHeader { purpose: "fun".into(), ..header("a") }, b"x").await, "invalid_purpose");
    let broken = stream::iter([
        Ok(UploadFileRequest { message: Some(Message::Header(header("a"))) }),
        Ok(UploadFileRequest { message: Some(Message::Data("half".into())) }),
        Err(Error::new(Code::Cancelled, "gone")),
    ]);
    assert_eq!(told(site.files.upload_file(&Context::test("acme"), Box::pin(broken)).await).0, Code::Cancelled);
    assert!(site.contents().is_empty(), "{:?}", site.contents());
    assert!(site.files.list_files(&Context::test("acme"), ListFilesRequest::default()).await.unwrap().files.is_empty());
}

/// Of uploads and deletions of one content at the same time, no file that is there loses its content.
async fn racing_uploads_and_deletions_keep_what_was_acknowledged(bucket: Option<Server>) {
    let site = site(bucket).await;
    let work = (0..8).map(|n| {
        let site = &site;
        async move {
            let mut kept = Vec::new();
            for at in 0..6 {
                let file = site.upload("acme", b"the same").await.unwrap();
                if (n + at) % 3 == 0 { kept.push(file.id) } else { site.delete("acme", &file.id).await.unwrap() }
            }
            kept
        }
    });
    let kept: Vec<String> = futures::future::join_all(work).await.concat();
    for id in &kept {
        assert_eq!(site.read("acme", id).await.unwrap(), b"the same");
    }
    for id in &kept {
        site.delete("acme", id).await.unwrap();
    }
    assert!(site.contents().is_empty());
}

async fn a_start_removes_what_a_crash_left_and_what_has_expired(bucket: Option<Server>) {
    let site = site(bucket).await;
    let stays = site.upload("acme", b"stays").await.unwrap();
    let folder = site.folder.path().join("files");
    let leave = |name: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"left").unwrap();
    };
    let leave_content = |name: &str| match &site.bucket {
        None => leave(&format!("{}/{name}", &name[..2])),
        Some(bucket) => bucket.put(&format!("stack/one/{}/{name}", &name[..2]), s3::OLD),
    };
    // A draft whose writer died, a content whose row was never written, and a file whose time is over.
    let (orphan, over) = (format!("ab{}", "0".repeat(62)), format!("cd{}", "0".repeat(62)));
    leave("drafts/draft_1");
    leave_content(&orphan);
    leave_content(&over);
    if let Some(bucket) = &site.bucket {
        // Its row may be on the way. And what lies beside the prefix is somebody else's.
        bucket.put(&format!("stack/one/ef/ef{}", "0".repeat(62)), s3::NEW);
        bucket.put("stack/other", s3::OLD);
    }
    let stay = if site.bucket.is_some() { 3 } else { 1 };
    let expired = File { id: ids::new("file"), expires: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }), ..stays.clone() };
    site.store.insert_file("acme", &expired, &over).await.unwrap();
    let read = Arc::new(Readers::default());

    let again = StoredFiles::open(&site.deps, site.store.clone(), site.config.clone()).await.unwrap();
    again.expire(read.clone(), site.deps.shutdown.clone());
    let clean = async {
        while site.contents().len() > stay {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), clean).await.unwrap();
    assert_eq!(*read.forgot.lock().unwrap(), [("acme".to_owned(), expired.id)]);
    assert_eq!(site.read("acme", &stays.id).await.unwrap(), b"stays");
    let listed = again.list_files(&Context::test("acme"), ListFilesRequest::default()).await.unwrap();
    assert_eq!(listed.files, [stays]);
}

/// Who has read files, and lets go of none of the one that is `held`.
#[derive(Default)]
struct Readers {
    held: String,
    forgot: Mutex<Vec<(String, String)>>,
}

#[async_trait::async_trait]
impl Derived for Readers {
    async fn forget(&self, tenant: &str, file_id: &str) -> Result<()> {
        if file_id == self.held {
            return Err(Error::unavailable("not now"));
        }
        self.forgot.lock().unwrap().push((tenant.into(), file_id.into()));
        Ok(())
    }
}

async fn an_expired_file_stays_until_what_was_made_of_it_is_gone(bucket: Option<Server>) {
    let site = site(bucket).await;
    let over = |seconds| File {
        id: ids::new("file"),
        purpose: "assistants".into(),
        expires: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..File::default()
    };
    let (first, last) = (over(1), over(2));
    for file in [&first, &last] {
        site.store.insert_file("acme", file, &format!("cd{}", "0".repeat(62))).await.unwrap();
    }
    site.files.expire(Arc::new(Readers { held: first.id.clone(), ..Readers::default() }), site.deps.shutdown.clone());
    let left = async || site.store.expired_files(None, 10).await.unwrap().into_iter().map(|file| file.id).collect::<Vec<_>>();
    let gone = async {
        while left().await.contains(&last.id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    assert_eq!(left().await, [first.id]);
}

async fn an_expired_file_stays_until_the_batch_that_reads_it_has_ended(bucket: Option<Server>) {
    let site = site(bucket).await;
    let over = |seconds| File { id: ids::new("file"), expires: Some(prost_types::Timestamp { seconds, nanos: 0 }), ..File::default() };
    let (input, last) = (over(1), over(2));
    for file in [&input, &last] {
        site.store.insert_file("acme", file, &format!("cd{}", "0".repeat(62))).await.unwrap();
    }
    let status = BatchStatus::InProgress.into();
    let batch = Batch { id: ids::new("batch"), input_file_id: input.id.clone(), status, ..Batch::default() };
    site.store.insert_batch(&batch, &Caller { principal: "ann".into(), tenant: "acme".into(), ..Caller::default() }).await.unwrap();
    let left = async || site.store.expired_files(None, 10).await.unwrap().into_iter().map(|file| file.id).collect::<Vec<_>>();
    // Whoever begins to look again looks at once.
    let sweep = async |gone: &str| {
        site.files.expire(Arc::new(Readers::default()), site.deps.shutdown.clone());
        let gone = async {
            while left().await.iter().any(|id| id == gone) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    };
    sweep(&last.id).await;
    assert_eq!(left().await, std::slice::from_ref(&input.id));
    assert_eq!(site.store.forget_batches("acme", None).await.unwrap(), 1);
    sweep(&input.id).await;
}

async fn a_file_that_is_being_read_can_be_deleted(bucket: Option<Server>) {
    let site = site(bucket).await;
    let content = vec![7_u8; 3 << 20];
    let file = site.upload("acme", &content).await.unwrap();
    let mut chunks = site.files.download_file(&Context::test("acme"), GetFileRequest { id: file.id.clone() }).await.unwrap();
    let first = chunks.try_next().await.unwrap().unwrap();
    site.delete("acme", &file.id).await.unwrap();
    let rest: Vec<usize> = chunks.map_ok(|chunk| chunk.data.len()).try_collect().await.unwrap();
    assert_eq!(first.data.len() + rest.iter().sum::<usize>(), content.len());
}

async fn lists_go_on_where_they_stopped(bucket: Option<Server>) {
    let site = site(bucket).await;
    let mut made = Vec::new();
    for n in 0..5_u8 {
        made.push(site.upload("acme", &[n]).await.unwrap());
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListFilesRequest { page_size: 2, page_token: token, newest_first: true, ..ListFilesRequest::default() };
        let page = site.files.list_files(&Context::test("acme"), request).await.unwrap();
        seen.extend(page.files);
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    made.reverse();
    assert_eq!(seen, made);
    let crooked = ListFilesRequest { page_token: "../x".into(), ..ListFilesRequest::default() };
    assert_eq!(told(site.files.list_files(&Context::test("acme"), crooked).await).1, "bad_page_token");
}

#[tokio::test]
async fn a_large_content_goes_to_a_bucket_in_parts_and_comes_back_whole() {
    let site = site_with(Some(Server::start().await), manifest::Files::default()).await;
    let content: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
    let file = site.upload("acme", &content).await.unwrap();
    assert_eq!(site.bucket.as_ref().unwrap().held.lock().unwrap().put, [8 << 20, 8 << 20, 20_000_000 - (16 << 20)]);
    assert!(site.read("acme", &file.id).await.unwrap() == content);
    // An equal one is not sent again.
    let again = site.upload("acme", &content).await.unwrap();
    assert_eq!(site.bucket.as_ref().unwrap().held.lock().unwrap().put.len(), 3);
    site.delete("acme", &file.id).await.unwrap();
    assert_eq!(site.read("acme", &again.id).await.unwrap().len(), content.len());
    site.delete("acme", &again.id).await.unwrap();
    assert!(site.contents().is_empty(), "{:?}", site.contents());
}

/// Each way in which a bucket can be of no use has its own answer, leaves nothing, and passes.
#[tokio::test]
async fn a_bucket_that_fails_is_told_of_and_leaves_no_file() {
    let server = Server::start().await;
    let s3 = manifest::S3 { timeout_seconds: 3, ..server.config() };
    let site = site_with(Some(server), manifest::Files { s3: Some(s3), ..manifest::Files::default() }).await;
    let bucket = site.bucket.as_ref().unwrap();
    let kept = site.upload("acme", b"kept").await.unwrap();
    for (mood, code, reason) in [
        (Mood::Refuses, Code::Unavailable, "storage_refused"),
        (Mood::Fails, Code::Unavailable, "storage_failed"),
        (Mood::Hangs, Code::DeadlineExceeded, "storage_timeout"),
    ] {
        bucket.mood.send_replace(mood);
        let (uploaded, read) = tokio::join!(site.upload("acme", b"another"), site.read("acme", &kept.id));
        assert_eq!((told(uploaded), told(read)), ((code, reason.into()), (code, reason.into())));
    }
    bucket.mood.send_replace(Mood::Well);
    let listed = site.files.list_files(&Context::test("acme"), ListFilesRequest::default()).await.unwrap();
    assert_eq!(listed.files, std::slice::from_ref(&kept));
    assert_eq!(site.read("acme", &kept.id).await.unwrap(), b"kept");
    bucket.held.lock().unwrap().objects.clear();
    assert_eq!(told(site.read("acme", &kept.id).await), (Code::DataLoss, "content_missing".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_leaves_no_parts_in_the_bucket() {
    let site = site_with(Some(Server::start().await), manifest::Files::default()).await;
    let bucket = site.bucket.as_ref().unwrap();
    bucket.mood.send_replace(Mood::HangsAtTheSecondPart);
    let content = vec![1; 20 << 20];
    let under_way = async {
        bucket.until(|held| held.put.len() == 1).await;
        let known: Vec<String> = noted(&site).await.into_iter().map(|upload| upload.upload_id).collect();
        assert_eq!(known, bucket.held.lock().unwrap().uploads.keys().cloned().collect::<Vec<_>>(), "a crash would leave it");
    };
    tokio::select! {
        _ = site.upload("acme", &content) => panic!("it hangs"),
        () = under_way => {}
    }
    bucket.until(|held| held.uploads.is_empty()).await;
    nothing_noted(&site).await;
    bucket.mood.send_replace(Mood::Well);
    let file = site.upload("acme", &content).await.unwrap();
    assert_eq!(site.read("acme", &file.id).await.unwrap().len(), content.len());
    nothing_noted(&site).await;
}

/// Uploads in parts that the store knows of.
async fn noted(site: &Site) -> Vec<PartedUpload> {
    let mut soon = ids::now();
    soon.seconds += 60;
    site.store.untouched_uploads(&soon).await.unwrap()
}

async fn nothing_noted(site: &Site) {
    let none = async {
        while !noted(site).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), none).await.unwrap();
}

/// Those that nobody goes on with; also one that the bucket has forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_a_crash_left_in_the_bucket_are_given_up() {
    let site = site_with(Some(Server::start().await), manifest::Files::default()).await;
    let bucket = site.bucket.as_ref().unwrap();
    let long_ago = prost_types::Timestamp { seconds: 1, nanos: 0 };
    for (digits, there, touched) in [("ab", true, long_ago), ("cd", true, ids::now()), ("ef", false, long_ago)] {
        let (blob, upload_id) = (format!("{}.file-1", digits.repeat(32)), format!("upload-{digits}"));
        // First, as uploads begin: the site looks for what is noted already.
        if there {
            let parts = BTreeMap::from([(1, vec![0_u8; 8 << 20].into())]);
            bucket.held.lock().unwrap().uploads.insert(upload_id.clone(), (format!("stack/one/{digits}/{blob}"), parts));
        }
        site.store.note_upload(&PartedUpload { blob, upload_id }, &touched).await.unwrap();
    }
    let _again = StoredFiles::open(&site.deps, site.store.clone(), site.config.clone()).await.unwrap();
    let given_up = bucket.until(|held| held.uploads.len() == 1);
    tokio::time::timeout(Duration::from_secs(60), given_up).await.expect("still in the bucket");
    let left = async {
        while noted(&site).await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), left).await.unwrap();
    assert_eq!(noted(&site).await[0].upload_id, "upload-cd");
    assert!(bucket.held.lock().unwrap().uploads.contains_key("upload-cd"), "somebody still sends it");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_told_of_at_the_start() {
    let (server, folder) = (Server::start().await, TempDir::new().unwrap());
    let store = Store::open("sqlite::memory:", Durability::Power).await.unwrap();
    let open = async |s3: manifest::S3| {
        let config = manifest::Files { s3: Some(s3), ..manifest::Files::default() };
        told(StoredFiles::open(&Deps::new(folder.path()), store.clone(), config).await.map(drop))
    };
    let refused = (Code::FailedPrecondition, "storage_config".to_owned());
    assert_eq!(open(manifest::S3 { bucket: "other".into(), ..server.config() }).await, refused);
    assert_eq!(open(manifest::S3 { access_key_id: Some("another".into()), ..server.config() }).await, refused);
}

/// Two servers with one database and one bucket, and no lock between them.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_share_a_bucket_lose_no_content_to_each_other() {
    let (server, folder) = (Server::start().await, TempDir::new().unwrap());
    let url = format!("sqlite://{}/state.db", folder.path().display());
    let config = manifest::Files { s3: Some(server.config()), ..manifest::Files::default() };
    let mut servers = Vec::new();
    for name in ["a", "b"] {
        let store = Store::open(&url, Durability::Process).await.unwrap();
        servers.push(StoredFiles::open(&Deps::new(folder.path().join(name)), store, config.clone()).await.unwrap());
    }
    let cx = Context::test("acme");
    let work = (0..6).map(|n| {
        let (files, cx) = (&servers[n % 2], &cx);
        async move {
            let mut kept = Vec::new();
            for at in 0..5 {
                let file = upload(files, "acme", header("a.txt"), b"the same").await.unwrap();
                if (n + at) % 4 == 0 {
                    kept.push(file.id);
                } else {
                    files.delete_file(cx, DeleteFileRequest { id: file.id }).await.unwrap();
                }
            }
            kept
        }
    });
    let kept: Vec<String> = futures::future::join_all(work).await.concat();
    for (id, files) in kept.iter().zip(servers.iter().cycle()) {
        let mut content = files.download_file(&cx, GetFileRequest { id: id.clone() }).await.unwrap();
        assert_eq!(content.next().await.unwrap().unwrap().data, b"the same");
        files.delete_file(&cx, DeleteFileRequest { id: id.clone() }).await.unwrap();
    }
    assert!(server.keys().is_empty(), "{:?}", server.keys());
}

#[tokio::test]
async fn a_content_that_is_deleted_while_somebody_copies_stays_until_they_have_ended() {
    let site = site(None).await;
    let contents = Copies::open(site.folder.path().join("files")).unwrap();
    let there = |site: &Site| site.contents().into_iter().filter(|path| path.parent().unwrap().file_name().unwrap().len() == 2).count();
    let (gone, kept, back) = (site.upload("acme", b"gone").await, site.upload("acme", b"kept").await, site.upload("acme", b"back").await);
    let (one, two) = (contents.pin().unwrap(), contents.pin().unwrap());
    for file in [gone, back] {
        let file = file.unwrap();
        site.delete("acme", &file.id).await.unwrap();
        assert_eq!(told(site.read("acme", &file.id).await).0, Code::NotFound, "who deleted it does not see it any more");
    }
    assert_eq!(there(&site), 3);
    let again = site.upload("acme", b"back").await.unwrap();
    contents.release(one, &site.store, &site.deps.tasks).await.unwrap();
    assert_eq!(there(&site), 3, "another still copies");
    contents.release(two, &site.store, &site.deps.tasks).await.unwrap();
    assert_eq!(there(&site), 2);
    assert_eq!(site.read("acme", &kept.unwrap().id).await.unwrap(), b"kept");
    assert_eq!(site.read("acme", &again.id).await.unwrap(), b"back", "what is used again stays");
}

#[tokio::test]
async fn a_content_that_is_put_back_is_read_as_it_was_and_its_name_leads_nowhere_else() {
    let site = site(None).await;
    let contents = Copies::open(site.folder.path().join("files")).unwrap();
    let blob = "ab".repeat(32);
    contents.put(&blob, &mut &b"words"[..]).unwrap();
    let (mut file, bytes) = contents.read(&blob).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!((bytes, text.as_str()), (5, "words"));
    for crooked in ["", "../../x", &"AB".repeat(32), &format!("/{}", "a".repeat(63))] {
        assert_eq!(told(contents.put(crooked, &mut &b"words"[..])).0, Code::InvalidArgument, "{crooked}");
    }
    assert_eq!(told(contents.read(&"cd".repeat(32))), (Code::DataLoss, "content_missing".into()));
}
