//! SQLite's file: made where it is missing, refused with a clear word where it is no good.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod fixture;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use fixture::{TENANT, begin, begin_in, open, session, step};
use llama_stack_core::{Code, Error};
use llama_stack_proto::v1::TurnStatus::InProgress;
use llama_stack_store::{Durability, Store};

async fn refusal(url: &str) -> Error {
    let error = Store::open(url, Durability::Power).await.err().unwrap();
    // A caller never reads the database's own words.
    assert!(!error.to_string().contains("code:"), "{error}");
    error
}

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

#[tokio::test]
async fn a_file_is_made_with_its_folders_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/state.db");
    let store = open(&url(&path)).await;
    begin(&store, TENANT).await;
    for file in ["state.db", "state.db-wal"] {
        let mode = fs::metadata(path.with_file_name(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    store.close().await;
    assert!(!path.with_file_name("state.db-wal").exists(), "the log was not folded into the file");
}

#[tokio::test]
async fn a_crooked_url_names_its_field() {
    for crooked in ["mysql://x", "state.db", "sqlite:", "sqlite://", "sqlite:///tmp/x?mode=ro", "postgres://host:port/x"] {
        let error = refusal(crooked).await;
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("store.url")), "{crooked}");
    }
    let secret = refusal("postgres://ann:hunter2@host:port/x").await;
    assert!(!format!("{secret:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_is_no_file_or_no_database_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&url(folder.path())).await;
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains(folder.path().to_str().unwrap()), "{error}");

    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a database, but long enough to have a header ".repeat(40)).unwrap();
    let error = refusal(&url(&text)).await;
    assert_eq!((error.code(), error.reason()), (Code::DataLoss, Some("store_damaged")));
    assert!(error.message().contains("notes.txt"), "{error}");

    let error = refusal(&url(&text.join("state.db"))).await;
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("store_unusable")));
}

#[tokio::test]
async fn a_damaged_file_is_data_loss_not_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&url(&path)).await;
    let turn = begin(&store, TENANT).await;
    store.close().await;
    let sound = fs::read(&path).unwrap().len();
    let store = open(&url(&path)).await;
    for number in 2..=100 {
        store.append(TENANT, &turn, 1, &[step(&turn, number, &"x".repeat(1_000))], InProgress).await.unwrap();
    }
    store.close().await;
    // All pages that the steps came into; those before hold the schema.
    let mut bytes = fs::read(&path).unwrap();
    bytes[sound..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let store = open(&url(&path)).await;
    let error = store.journal(TENANT, &turn, 0).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "the database is damaged"));
}

#[tokio::test]
async fn a_newer_programs_file_is_left_alone() {
    let fixture = fixture::sqlite().await.unwrap();
    let insert =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, x'00', 0)";
    fixture.raw(insert).await;
    fixture.store.close().await;
    let error = refusal(&fixture.url).await;
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("store_too_new")));
}

/// Two stores on one file are what two processes are, as far as SQLite's locks go; `processes.rs` has the real ones.
#[tokio::test(flavor = "multi_thread")]
async fn another_writers_lock_is_waited_for() {
    let fixture = fixture::sqlite().await.unwrap();
    let session = session("");
    fixture.store.put_session(TENANT, &session).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&fixture.url).await.unwrap();
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let waiting = tokio::spawn({
        let (store, session) = (fixture.store.clone(), session.clone());
        async move { begin_in(&store, &session.id).await }
    });
    // Longer than SQLite's own wait, so that it is the store's patience that is shown.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert!(!waiting.is_finished());
    // Readers don't wait for writers.
    assert_eq!(fixture.store.get_session(TENANT, &session.id).await.unwrap(), session);
    lock.rollback().await.unwrap();
    let turn = waiting.await.unwrap();
    assert_eq!(fixture.store.journal(TENANT, &turn, 0).await.unwrap().len(), 1);
}
