//! Rows of uploaded files, on every kind of database.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT};
use llama_stack_core::{Code, ids};
use llama_stack_proto::v1::File;
use llama_stack_store::{ExpiredFile, FileList};

on!(sqlite, memory, postgres: [
    a_file_is_its_owners_and_its_tenants,
    files_are_listed_in_pages_either_way,
    an_expired_file_is_gone_before_it_is_swept,
    a_content_is_used_as_long_as_a_file_has_it,
    a_content_that_is_given_up_is_never_one_that_is_shared,
    uploads_at_once_keep_a_tenant_s_quota,
]);

fn file(owner: &str, purpose: &str) -> File {
    File { id: ids::new("file"), owner: owner.into(), purpose: purpose.into(), created: Some(ids::now()), ..File::default() }
}

async fn a_file_is_its_owners_and_its_tenants(Fixture { store, .. }: &Fixture) {
    let mine = file("ann", "assistants");
    store.insert_file(TENANT, &mine, "aa").await.unwrap();
    for owner in ["ann", ""] {
        assert_eq!(store.get_file(TENANT, &mine.id, owner).await.unwrap(), (mine.clone(), "aa".to_owned()));
    }
    for (tenant, owner) in [(TENANT, "bob"), ("other", "ann"), ("other", "")] {
        let error = store.get_file(tenant, &mine.id, owner).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("file_not_found")));
        assert!(store.list_files(tenant, FileList { owner, limit: 10, ..FileList::default() }).await.unwrap().is_empty());
    }
    assert_eq!(store.delete_file("other", &mine.id).await.unwrap_err().code(), Code::NotFound);
    store.delete_file(TENANT, &mine.id).await.unwrap();
    assert_eq!(store.get_file(TENANT, &mine.id, "").await.unwrap_err().code(), Code::NotFound);
}

async fn files_are_listed_in_pages_either_way(Fixture { store, .. }: &Fixture) {
    let mut made = Vec::new();
    for n in 0..5 {
        let one = file("ann", if n % 2 == 0 { "batch" } else { "assistants" });
        store.insert_file(TENANT, &one, "aa").await.unwrap();
        made.push(one);
    }
    let list = FileList { owner: "ann", limit: 3, ..FileList::default() };
    assert_eq!(store.list_files(TENANT, list).await.unwrap(), made[..3]);
    assert_eq!(store.list_files(TENANT, FileList { after: &made[2].id, ..list }).await.unwrap(), made[3..]);
    let newest = FileList { newest_first: true, ..list };
    let reversed: Vec<File> = made.iter().rev().cloned().collect();
    assert_eq!(store.list_files(TENANT, newest).await.unwrap(), reversed[..3]);
    assert_eq!(store.list_files(TENANT, FileList { after: &reversed[2].id, ..newest }).await.unwrap(), reversed[3..]);
    let batches: Vec<File> = made.iter().step_by(2).cloned().collect();
    assert_eq!(store.list_files(TENANT, FileList { purpose: "batch", ..list }).await.unwrap(), batches);
}

async fn an_expired_file_is_gone_before_it_is_swept(Fixture { store, .. }: &Fixture) {
    let now = ids::now();
    let at = |seconds: i64| Some(prost_types::Timestamp { seconds: now.seconds + seconds, nanos: 0 });
    let over = [-10, -20, -20].map(|seconds| File { expires: at(seconds), ..file("ann", "batch") });
    let stays = File { expires: at(3_600), ..file("ann", "batch") };
    for one in over.iter().chain([&stays]) {
        store.insert_file(TENANT, one, "aa").await.unwrap();
    }
    assert_eq!(store.get_file(TENANT, &over[0].id, "ann").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.list_files(TENANT, FileList { limit: 10, ..FileList::default() }).await.unwrap(), [stays]);
    // The oldest first, one after the other.
    let (mut after, mut seen): (Option<ExpiredFile>, Vec<String>) = (None, Vec::new());
    loop {
        let next = store.expired_files(after.as_ref(), 1).await.unwrap();
        let Some(next) = next.into_iter().next() else { break };
        assert_eq!((next.tenant.as_str(), next.blob.as_str()), (TENANT, "aa"));
        seen.push(next.id.clone());
        after = Some(next);
    }
    assert_eq!(seen, [&over[1], &over[2], &over[0]].map(|file| file.id.clone()));
}

async fn a_content_is_used_as_long_as_a_file_has_it(Fixture { store, .. }: &Fixture) {
    let (one, two) = (file("ann", "batch"), file("bob", "batch"));
    store.insert_file(TENANT, &one, "ab12").await.unwrap();
    store.insert_file(TENANT, &two, "ab12").await.unwrap();
    assert_eq!(store.file_blobs("ab", "ac").await.unwrap(), ["ab12"]);
    assert!(store.file_blobs("ac", "ad").await.unwrap().is_empty());
    store.delete_file(TENANT, &one.id).await.unwrap();
    assert!(store.is_blob_used("ab12").await.unwrap());
    store.delete_file(TENANT, &two.id).await.unwrap();
    assert!(!store.is_blob_used("ab12").await.unwrap());
}

/// Files come and go at the same time, each from a connection of its own: whoever finds a content to share keeps it, and each
/// content is given up once, when nobody has it.
async fn a_content_that_is_given_up_is_never_one_that_is_shared(Fixture { store, .. }: &Fixture) {
    let tasks = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut made, mut removed) = (Vec::new(), Vec::new());
            for _ in 0..10 {
                let one = file("ann", "batch");
                let mut blob = format!("c0ffee.{}", one.id);
                if store.share_file(TENANT, &one, "c0ffee", 0).await.unwrap() {
                    blob = store.get_file(TENANT, &one.id, "").await.unwrap().1;
                } else {
                    made.push(blob.clone());
                    store.keep_file(TENANT, &one, &blob, 0).await.unwrap();
                }
                if n > 0 && store.release_file(TENANT, &one.id, &blob).await.unwrap() {
                    removed.push(blob);
                }
            }
            (made, removed)
        })
    });
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    for ended in futures::future::join_all(tasks).await {
        let (one, other) = ended.unwrap();
        made.extend(one);
        removed.extend(other);
    }
    let used = store.file_blobs("c0ffee", "c0ffef").await.unwrap();
    let left: Vec<&String> = made.iter().filter(|blob| !removed.contains(blob)).collect();
    assert!(used.iter().all(|blob| left.contains(&blob)), "given up though a file has it: {used:?}, left {left:?}");
    assert_eq!(left.len(), used.len(), "nobody has it, and it was not given up");
    assert_eq!(store.release_file(TENANT, "file_none", "x").await.unwrap_err().code(), Code::NotFound);
}

async fn uploads_at_once_keep_a_tenant_s_quota(Fixture { store, .. }: &Fixture) {
    let tasks = (0..10).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let one = File { bytes: 100, ..file("ann", "batch") };
            store.keep_file(TENANT, &one, &format!("{n}"), 350).await.is_ok()
        })
    });
    let kept = futures::future::join_all(tasks).await.into_iter().filter(|kept| *kept.as_ref().unwrap()).count();
    assert_eq!(kept, 3);
    let over = store.check_file_quota(TENANT, 51, 350).await.unwrap_err();
    assert_eq!((over.code(), over.reason()), (Code::ResourceExhausted, Some("storage_quota")));
    store.check_file_quota(TENANT, 50, 350).await.unwrap();
}
