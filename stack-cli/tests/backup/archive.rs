//! `backup` and `restore`.

use std::path::Path;

use llama_stack_test_postgres::Server as Postgres;
use serde_json::Value;

use crate::{
    support::Server,
    world::{Client, Kept, World, Writers, call},
};

/// A backup that is made while others write, and what they had been told was kept before it began.
async fn taken(world: &World, server: &Server) -> (String, Vec<Kept>) {
    let client = Client::of(server);
    let writers = Writers::start(&client).await;
    let before = writers.kept();
    let to = world.home.path().join("kept.tar").display().to_string();
    let said = call(world.home.path(), &["backup", "--to", &to, "--server", &server.url, "--json"]).await;
    let during = writers.stop().await.len();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(during > before.len(), "nobody wrote while the backup was made");
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    assert!(summary["rows"].as_u64().unwrap() > 0 && summary["files"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["left_out"], serde_json::json!([]));
    (to, before)
}

/// Restores into another home, and looks for all of it there.
async fn restored(archive: &str, before: &[Kept], home: &Path, manifest: &Path) {
    let into = manifest.to_str().unwrap();
    let said = call(home, &["restore", archive, "--into", into, "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(summary["banks"], 2);
    let server = Server::start(home, into);
    let client = Client::of(&server);
    let mut lost = Vec::new();
    for one in before {
        if !one.is_there(&client).await {
            lost.push(one);
        }
    }
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), before.len());
    // It goes on from there.
    client.say("And then?").await;
    client.upload("A file of afterwards.").await;
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_backup_under_load_is_there_after_the_restore() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    let (archive, before) = taken(&world, &server).await;
    assert!(server.stop().success());
    let (home, manifest) = world.elsewhere("store: { durability: process }");
    restored(&archive, &before, home.path(), &manifest).await;

    let into = manifest.to_str().unwrap();
    let said = call(home.path(), &["restore", &archive, "--into", into]).await;
    assert!(said.code == 1 && said.err.contains("not empty") && said.err.contains("--replace"), "{}", said.err);
    let said = call(home.path(), &["restore", &archive, "--into", into, "--replace"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let server = Server::start(home.path(), into);
    let client = Client::of(&server);
    for one in before.iter().step_by(7) {
        assert!(one.is_there(&client).await, "{one:?} is lost when all is replaced");
    }
    let (_, responses) = client.send("GET", "/v1/files?limit=10000", "application/json", String::new()).await;
    assert!(!responses.contains("A file of afterwards."), "what was there before is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_postgres_goes_into_postgres_and_into_sqlite() {
    let Some(postgres) = Postgres::start_or_skip().unwrap() else { return };
    let store = || format!("store: {{ url: \"{}\" }}", postgres.database().unwrap());
    let world = World::new(&store()).await;
    let server = world.start();
    let (archive, before) = taken(&world, &server).await;
    assert!(server.stop().success());
    for store in [store(), "store: { durability: process }".to_owned()] {
        let (home, manifest) = world.elsewhere(&store);
        restored(&archive, &before, home.path(), &manifest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_stack_is_backed_up_offline_and_restored_by_the_archives_own_manifest() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    let client = Client::of(&server);
    let (said, file) = (client.say("The word is numbat.").await, client.upload("Numbats eat termites.").await);
    let bank = client.bank("edge").await.id;
    client.insert(&bank, "a", "A numbat is striped.").await;
    let (home, manifest) = (world.home.path(), world.manifest.to_str().unwrap());
    let archive = home.join("kept.tar").display().to_string();
    let refused = call(home, &["backup", "--to", &archive, "--offline", manifest]).await;
    assert!(refused.code == 1 && refused.err.contains("runs at"), "{}", refused.err);
    assert!(server.stop().success());
    let backup = call(home, &["backup", "--to", &archive, "--offline", manifest]).await;
    assert_eq!(backup.code, 0, "{}", backup.err);
    let again = call(home, &["backup", "--to", &archive, "--offline", manifest]).await;
    assert!(again.code == 1 && again.err.contains("is there already"), "{}", again.err);

    let elsewhere = tempfile::tempdir().unwrap();
    let restored = call(elsewhere.path(), &["restore", &archive]).await;
    assert_eq!(restored.code, 0, "{}", restored.err);
    let server = Server::start(elsewhere.path(), manifest);
    let client = Client::of(&server);
    assert_eq!(client.found(&bank, "striped").await, ["a"]);
    for one in [Kept::Response { id: said, text: "numbat".into() }, Kept::File { id: file, text: "Numbats eat termites.".into() }] {
        assert!(one.is_there(&client).await, "{one:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_archive_tells_nothing_and_is_restored_with_its_key_alone() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    let client = Client::of(&server);
    let text = "Numbats eat termites. ".repeat(10_000);
    let (said, file) = (client.say("The word is numbat.").await, client.upload(&text).await);
    let home = world.home.path();
    let path = |name: &str| home.join(name).display().to_string();
    let (archive, right, wrong, none) = (path("sealed"), path("right.key"), path("wrong.key"), path("none.key"));
    std::fs::write(&right, format!("{}\n", "0123456789abcdef".repeat(4))).unwrap();
    std::fs::write(&wrong, "f".repeat(64)).unwrap();
    std::fs::write(&none, "a word to pass").unwrap();
    let refused = call(home, &["backup", "--to", &archive, "--key-file", &none, "--server", &server.url]).await;
    assert!(refused.code != 0 && refused.err.contains("64 hexadecimal digits"), "{} {}", refused.code, refused.err);
    assert!(!refused.err.contains("a word to pass") && !Path::new(&archive).exists());
    let backup = call(home, &["backup", "--to", &archive, "--key-file", &right, "--server", &server.url, "--json"]).await;
    assert_eq!(backup.code, 0, "{}", backup.err);
    assert!(server.stop().success());
    let bytes = std::fs::read(&archive).unwrap();
    for word in ["numbat", "Numbats", "manifest.json", "backup.json"] {
        assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word} can be read in it");
    }

    let (elsewhere, manifest) = world.elsewhere("store: { durability: process }");
    let into = manifest.to_str().unwrap();
    for (more, reason) in [(Vec::new(), "--key-file"), (vec!["--key-file", wrong.as_str()], "another key")] {
        for what in [vec!["--verify"], vec!["--into", into]] {
            let arguments = [vec!["restore", archive.as_str()], what, more.clone()].concat();
            let refused = call(elsewhere.path(), &arguments).await;
            assert!(refused.code == 1 && refused.err.contains(reason), "{} {}", refused.code, refused.err);
        }
    }
    let damaged = path("damaged");
    std::fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    let refused = call(elsewhere.path(), &["restore", &damaged, "--into", into, "--key-file", &right]).await;
    assert!(refused.code == 1 && refused.err.contains("cut off or altered"), "{}", refused.err);
    assert!(!elsewhere.path().join("kept").exists(), "something of a damaged archive was written");
    let restored = call(elsewhere.path(), &["restore", &archive, "--into", into, "--key-file", &right]).await;
    assert_eq!(restored.code, 0, "{}", restored.err);
    let server = Server::start(elsewhere.path(), into);
    let client = Client::of(&server);
    for one in [Kept::Response { id: said, text: "numbat".into() }, Kept::File { id: file, text }] {
        assert!(one.is_there(&client).await, "{one:?}");
    }
    assert!(server.stop().success());
}

/// The header of each member, by its offset.
fn members(archive: &[u8]) -> Vec<(usize, usize, String)> {
    let (mut at, mut members) = (0, Vec::new());
    while archive[at] != 0 {
        let text = |from: usize, length: usize| {
            String::from_utf8_lossy(&archive[at + from..at + from + length]).trim_matches(['\0', ' ']).to_owned()
        };
        let bytes = usize::from_str_radix(&text(124, 12), 8).unwrap();
        members.push((at + 512, bytes, text(0, 100)));
        at += 512 + bytes.div_ceil(512) * 512;
    }
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_cut_off_or_altered_is_refused_with_the_members_name_and_nothing_is_written() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    let client = Client::of(&server);
    client.upload("A file of some words.").await;
    let bank = client.bank("words").await.id;
    client.insert(&bank, "a", "A document of some words.").await;
    let archive = world.home.path().join("kept.tar");
    let to = archive.display().to_string();
    let said = call(world.home.path(), &["backup", "--to", &to, "--server", &server.url]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let whole = std::fs::read(&archive).unwrap();
    let members = members(&whole);
    let kinds = ["manifest.json", "database/", "banks/", "files/", "backup.json"];
    assert!(kinds.iter().all(|kind| members.iter().any(|(.., name)| name.starts_with(kind))), "{members:?}");

    let damaged = world.home.path().join("damaged.tar");
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = async |bytes: &[u8], named: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let said = call(elsewhere.path(), &["restore", damaged.to_str().unwrap(), "--into", world.manifest.to_str().unwrap()]).await;
        assert!(said.code == 1 && said.err.contains(named), "{named}: {} {}", said.code, said.err);
        assert!(!elsewhere.path().join("kept").exists(), "something of a damaged archive was written");
    };
    for kind in kinds {
        let (at, bytes, name) = members.iter().find(|(_, bytes, name)| name.starts_with(kind) && *bytes > 0).unwrap();
        refused(&whole[..at + bytes / 2], name).await;
        let mut altered = whole.clone();
        altered[at + bytes / 2] ^= 1;
        refused(&altered, name).await;
    }
    // At the end of a member nothing is broken, and something is missing.
    let (at, ..) = members.iter().find(|(.., name)| name == "backup.json").unwrap();
    let last = &members[members.len() - 3].2;
    refused(&whole[..at - 512], last).await;
    for other in ["a text\n".repeat(100), String::new()] {
        refused(other.as_bytes(), "no archive that").await;
    }
    let said = call(elsewhere.path(), &["restore", "--verify", &to, "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
}
