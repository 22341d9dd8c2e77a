//! Files on a real disk and a real database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{TryStreamExt as _, stream};
use llama_stack_core::{Code, Context, Deps, Error, Files, Result, ids, manifest};
use llama_stack_files::{Copies, DiskFiles};
use llama_stack_proto::v1::{
    DeleteFileRequest, File, FileHeader, GetFileRequest, ListFilesRequest, UploadFileRequest, upload_file_request::Message,
};
use llama_stack_store::{Durability, Store};
use tempfile::TempDir;

struct Disk {
    files: Arc<DiskFiles>,
    store: Store,
    deps: Deps,
    folder: TempDir,
}

async fn disk() -> Disk {
    disk_with(manifest::Files { max_bytes: 4 << 20, ..manifest::Files::default() }).await
}

async fn disk_with(config: manifest::Files) -> Disk {
    let folder = TempDir::new().unwrap();
    let store = Store::open("sqlite::memory:", Durability::Power).await.unwrap();
    let deps = Deps::new(folder.path());
    let files = DiskFiles::open(&deps, store.clone(), config).unwrap();
    Disk { files, store, deps, folder }
}

impl Disk {
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

    /// Contents that lie on the disk, whole or half.
    fn contents(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        gather(&self.folder.path().join("files"), &mut found);
        found.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
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

async fn upload(files: &DiskFiles, tenant: &str, header: FileHeader, content: &[u8]) -> Result<File> {
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

#[tokio::test]
async fn a_content_is_kept_once_per_tenant_and_goes_with_its_last_file() {
    let disk = disk().await;
    let content: Vec<u8> = (0..2_500_000_u32).map(|at| (at % 241) as u8).collect();
    let one = disk.upload("acme", &content).await.unwrap();
    assert_eq!((one.bytes, one.owner.as_str(), one.media_type.as_str()), (2_500_000, "tester", "application/octet-stream"));
    assert_eq!(one.sha256.len(), 64);
    let two = disk.upload("acme", &content).await.unwrap();
    assert_eq!((two.sha256 == one.sha256, two.id == one.id, disk.contents().len()), (true, false, 1));
    // Another tenant's is another's, so that nobody learns who has what.
    let other = disk.upload("other", &content).await.unwrap();
    assert_eq!(disk.contents().len(), 2);
    assert_eq!(told(disk.read("other", &one.id).await), (Code::NotFound, "file_not_found".into()));

    disk.delete("acme", &one.id).await.unwrap();
    assert_eq!(disk.read("acme", &two.id).await.unwrap(), content);
    disk.delete("acme", &two.id).await.unwrap();
    assert_eq!(told(disk.read("acme", &two.id).await).0, Code::NotFound);
    assert_eq!((disk.contents().len(), disk.read("other", &other.id).await.unwrap().len()), (1, 2_500_000));
    assert_eq!(told(disk.delete("acme", &one.id).await).0, Code::NotFound);
}

/// The quota is each tenant's own, also for uploads at once; and what is deleted makes room.
#[tokio::test]
async fn a_tenant_keeps_no_more_than_its_quota() {
    let disk = disk_with(manifest::Files { max_tenant_bytes: 1_000, ..manifest::Files::default() }).await;
    let kept = disk.upload("acme", &[1; 600]).await.unwrap();
    let error = disk.upload("acme", &[2; 401]).await.unwrap_err();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::ResourceExhausted, Some("storage_quota"), Some("file")));
    assert!(["401", "600", "1000"].iter().all(|number| error.message().contains(number)), "{error}");
    assert_eq!(disk.contents().len(), 1);
    disk.upload("other", &[2; 1_000]).await.unwrap();
    let contents: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 100]).collect();
    let at_once = futures::future::join_all(contents.iter().map(|content| disk.upload("acme", content))).await;
    assert_eq!(at_once.iter().filter(|result| result.is_ok()).count(), 4);
    disk.delete("acme", &kept.id).await.unwrap();
    disk.upload("acme", &[3; 600]).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let disk = disk().await;
    let try_upload = async |header: FileHeader, content: &[u8]| told(upload(&disk.files, "acme", header, content).await).1;
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
    assert_eq!(told(disk.files.upload_file(&Context::test("acme"), Box::pin(broken)).await).0, Code::Cancelled);
    assert!(disk.contents().is_empty(), "{:?}", disk.contents());
    assert!(disk.files.list_files(&Context::test("acme"), ListFilesRequest::default()).await.unwrap().files.is_empty());
}

/// Of uploads and deletions of one content at the same time, no file that is there loses its content.
#[tokio::test(flavor = "multi_thread")]
async fn racing_uploads_and_deletions_keep_what_was_acknowledged() {
    let disk = disk().await;
    let work = (0..8).map(|n| {
        let disk = &disk;
        async move {
            let mut kept = Vec::new();
            for at in 0..6 {
                let file = disk.upload("acme", b"the same").await.unwrap();
                if (n + at) % 3 == 0 { kept.push(file.id) } else { disk.delete("acme", &file.id).await.unwrap() }
            }
            kept
        }
    });
    let kept: Vec<String> = futures::future::join_all(work).await.concat();
    for id in &kept {
        assert_eq!(disk.read("acme", id).await.unwrap(), b"the same");
    }
    for id in &kept {
        disk.delete("acme", id).await.unwrap();
    }
    assert!(disk.contents().is_empty());
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left_and_what_has_expired() {
    let disk = disk().await;
    let stays = disk.upload("acme", b"stays").await.unwrap();
    let folder = disk.folder.path().join("files");
    let leave = |name: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"left").unwrap();
    };
    // A draft whose writer died, a content whose row was never written, and a file whose time is over.
    let (orphan, over) = (format!("ab{}", "0".repeat(62)), format!("cd{}", "0".repeat(62)));
    leave("drafts/draft_1");
    leave(&format!("ab/{orphan}"));
    leave(&format!("cd/{over}"));
    let expired = File { id: ids::new("file"), expires: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }), ..stays.clone() };
    disk.store.insert_file("acme", &expired, &over).await.unwrap();

    let again = DiskFiles::open(&disk.deps, disk.store.clone(), manifest::Files::default()).unwrap();
    let clean = async {
        while disk.contents().len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), clean).await.unwrap();
    assert_eq!(disk.read("acme", &stays.id).await.unwrap(), b"stays");
    let listed = again.list_files(&Context::test("acme"), ListFilesRequest::default()).await.unwrap();
    assert_eq!(listed.files, [stays]);
}

#[tokio::test]
async fn a_file_that_is_being_read_can_be_deleted() {
    let disk = disk().await;
    let content = vec![7_u8; 3 << 20];
    let file = disk.upload("acme", &content).await.unwrap();
    let mut chunks = disk.files.download_file(&Context::test("acme"), GetFileRequest { id: file.id.clone() }).await.unwrap();
    let first = chunks.try_next().await.unwrap().unwrap();
    disk.delete("acme", &file.id).await.unwrap();
    let rest: Vec<usize> = chunks.map_ok(|chunk| chunk.data.len()).try_collect().await.unwrap();
    assert_eq!(first.data.len() + rest.iter().sum::<usize>(), content.len());
}

#[tokio::test]
async fn lists_go_on_where_they_stopped() {
    let disk = disk().await;
    let mut made = Vec::new();
    for n in 0..5_u8 {
        made.push(disk.upload("acme", &[n]).await.unwrap());
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListFilesRequest { page_size: 2, page_token: token, newest_first: true, ..ListFilesRequest::default() };
        let page = disk.files.list_files(&Context::test("acme"), request).await.unwrap();
        seen.extend(page.files);
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    made.reverse();
    assert_eq!(seen, made);
    let crooked = ListFilesRequest { page_token: "../x".into(), ..ListFilesRequest::default() };
    assert_eq!(told(disk.files.list_files(&Context::test("acme"), crooked).await).1, "bad_page_token");
}

#[tokio::test]
async fn a_content_that_is_deleted_while_somebody_copies_stays_until_they_have_ended() {
    let disk = disk().await;
    let contents = Copies::open(disk.folder.path().join("files")).unwrap();
    let there = |disk: &Disk| disk.contents().into_iter().filter(|path| path.parent().unwrap().file_name().unwrap().len() == 2).count();
    let (gone, kept, back) = (disk.upload("acme", b"gone").await, disk.upload("acme", b"kept").await, disk.upload("acme", b"back").await);
    let (one, two) = (contents.pin().unwrap(), contents.pin().unwrap());
    for file in [gone, back] {
        let file = file.unwrap();
        disk.delete("acme", &file.id).await.unwrap();
        assert_eq!(told(disk.read("acme", &file.id).await).0, Code::NotFound, "who deleted it does not see it any more");
    }
    assert_eq!(there(&disk), 3);
    let again = disk.upload("acme", b"back").await.unwrap();
    contents.release(one, &disk.store, &disk.deps.tasks).await.unwrap();
    assert_eq!(there(&disk), 3, "another still copies");
    contents.release(two, &disk.store, &disk.deps.tasks).await.unwrap();
    assert_eq!(there(&disk), 2);
    assert_eq!(disk.read("acme", &kept.unwrap().id).await.unwrap(), b"kept");
    assert_eq!(disk.read("acme", &again.id).await.unwrap(), b"back", "what is used again stays");
}

#[tokio::test]
async fn a_content_that_is_put_back_is_read_as_it_was_and_its_name_leads_nowhere_else() {
    let disk = disk().await;
    let contents = Copies::open(disk.folder.path().join("files")).unwrap();
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
