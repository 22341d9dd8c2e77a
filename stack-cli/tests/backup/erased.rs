//! `erase`: all that is somebody's is gone from the disk, and nobody else's.

use std::{fs, path::Path};

use serde_json::Value;

use crate::world::{Client, INDEXES, World, call};

/// Files of the folder, and of those below it, that have this word in them.
fn holding(folder: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, word));
        // A log may go while it is looked at.
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// One of everything.
async fn live(client: &Client, word: &str) {
    client.say(&format!("The word is {word}.")).await;
    client.upload(&format!("This file says {word}.")).await;
    for provider in INDEXES {
        let bank = client.bank(provider).await.id;
        client.insert(&bank, "a", &format!("This document says {word}.")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_had_is_in_no_file_and_what_others_had_stays() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    let (ann, bob) = (Client::called(&server, "ann"), Client::called(&server, "bob"));
    live(&ann, "zanzibarquokka").await;
    live(&bob, "meerkatnumbat").await;
    let state = world.home.path().join("kept");
    assert!(holding(&state, "zanzibarquokka").len() >= 4, "the scan does not see what is there");

    let said = call(world.home.path(), &["erase", "--tenant", "acme", "--principal", "ann", "--server", &server.url, "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let erased: Value = serde_json::from_str(&said.out).unwrap();
    for (what, count) in [("sessions", 1), ("turns", 1), ("files", 1), ("banks", 2), ("documents", 2)] {
        assert_eq!(erased["deleted"][what], count, "{what}: {erased}");
    }
    assert_eq!(holding(&state, "zanzibarquokka"), Vec::<String>::new());
    assert!(holding(&state, "meerkatnumbat").len() >= 4, "more was deleted than was Ann's");
    let said = call(world.home.path(), &["erase", "--tenant", "acme", "--server", &server.url]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(holding(&state, "meerkatnumbat"), Vec::<String>::new());
    assert!(server.stop().success());
    for word in ["zanzibarquokka", "meerkatnumbat"] {
        assert_eq!(holding(&state, word), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_be_erased_has_to_be_named() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    let said = call(world.home.path(), &["erase", "--tenant", "", "--server", &server.url]).await;
    assert!(said.code == 2 && said.err.contains("tenant must be named"), "{} {}", said.code, said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_with_a_provider_that_is_not_there_is_not_forgotten() {
    let world = World::new("store: { durability: process }").await;
    let server = world.start();
    live(&Client::called(&server, "ann"), "zanzibarquokka").await;
    assert!(server.stop().success());
    let text = fs::read_to_string(&world.manifest).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.contains("id: edge")).collect();
    assert!(without.len() < text.lines().count());
    fs::write(&world.manifest, without.join("\n")).unwrap();
    let server = world.start();
    let said = call(world.home.path(), &["erase", "--tenant", "acme", "--principal", "ann", "--server", &server.url]).await;
    assert!(said.code != 0 && said.err.contains("\"edge\""), "{} {}", said.code, said.err);
    let bobs = call(world.home.path(), &["erase", "--tenant", "acme", "--principal", "bob", "--server", &server.url]).await;
    assert_eq!(bobs.code, 0, "{}", bobs.err);
    assert!(server.stop().success());
}
