//! What is on this disk: files in place, damage, names, folders of links.

use super::*;
use crate::ModelSpec;

fn write(f: &Fixture, name: &str, content: &[u8]) -> PathBuf {
    let path = f.dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn at(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[tokio::test]
async fn a_local_file_is_used_where_it_is() {
    let (content, f) = (bytes(50_000), fixture());
    let path = write(&f, "x.gguf", &content);
    let wanted = file(&[&at(&path)], Some(&hash(&content)));
    assert_eq!(f.ensure(&wanted).await.unwrap(), path);
    let listed = f.store.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].in_place, listed[0].path.as_path(), listed[0].size), (1, true, path.as_path(), 50_000));
    f.store.remove("model.gguf").await.unwrap();
    assert!(path.exists(), "what the store does not own it does not delete");
}

#[tokio::test]
async fn a_local_file_that_changed_is_compared_again() {
    let (content, f) = (bytes(50_000), fixture());
    let path = write(&f, "x.gguf", &content);
    let wanted = file(&[&at(&path)], Some(&hash(&content)));
    f.ensure(&wanted).await.unwrap();
    std::fs::write(&path, bytes(50_001)).unwrap();
    let error = f.ensure(&wanted).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DataLoss, Some("hash_mismatch")));
    assert!(error.message().contains(&hash(&bytes(50_001))), "{error}");
}

#[tokio::test]
async fn a_missing_local_file_or_a_folder_is_named() {
    let f = fixture();
    let error = f.ensure(&file(&["file:///no/such/model.gguf"], None)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("/no/such/model.gguf: there is no such file"), "{error}");
    let folder = f.ensure(&file(&[&at(f.dir.path())], None)).await.unwrap_err();
    assert_eq!(folder.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn damage_is_found_and_the_next_use_repairs_it() {
    let (content, f) = (bytes(50_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    let path = f.ensure(&wanted).await.unwrap();
    assert!(f.store.verify("model.gguf", &silent()).await.unwrap().last_verified.is_some());
    let mut damaged = content.clone();
    damaged[9] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = f.store.verify("model.gguf", &silent()).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().contains(&hash(&content)) && error.message().contains(&hash(&damaged)), "{error}");
    assert_eq!(f.store.list().await.unwrap()[0].last_verified, None);
    assert_eq!(std::fs::read(f.ensure(&wanted).await.unwrap()).unwrap(), content);
}

#[tokio::test]
async fn bytes_stay_as_long_as_a_name_has_them() {
    let (content, f) = (bytes(50_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    let path = f.store.ensure_all("a", std::slice::from_ref(&wanted), &silent()).await.unwrap().remove(0);
    f.store.ensure_all("b", &[wanted], &silent()).await.unwrap();
    assert_eq!(server.log().len(), 1, "the second name needs no download");
    f.store.remove("a/model.gguf").await.unwrap();
    assert!(path.exists());
    f.store.remove("b/model.gguf").await.unwrap();
    assert!(!path.exists());
    let unknown = f.store.remove("b/model.gguf").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn another_hash_under_the_same_name_replaces_the_bytes() {
    let (old, new, f) = (bytes(50_000), bytes(60_000), fixture());
    let server = Server::start(&[("/old", page(&old)), ("/new", page(&new))]).await;
    let before = f.ensure(&file(&[&server.at("/old")], Some(&hash(&old)))).await.unwrap();
    let after = f.ensure(&file(&[&server.at("/new")], Some(&hash(&new)))).await.unwrap();
    assert_eq!(std::fs::read(after).unwrap(), new);
    assert!(!before.exists());
}

/// Writes go to the device that is always full.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_ends_the_download_with_its_name() {
    let (content, f) = (bytes(300_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![0, 0], ..page(&content) })]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    f.ensure(&wanted).await.unwrap_err();
    let partial = f.partial(&content);
    std::fs::remove_file(&partial).unwrap();
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let error = f.ensure(&wanted).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("disk_full")), "{error}");
}

#[tokio::test]
async fn a_model_is_a_folder_of_properly_named_files() {
    let f = fixture();
    let (config, pooling) = (b"{}".to_vec(), b"{\"a\":1}".to_vec());
    let server = Server::start(&[("/c", page(&config)), ("/p", page(&pooling))]).await;
    let spec = |json: serde_json::Value| serde_json::from_value::<ModelSpec>(json).unwrap();
    let wanted = spec(serde_json::json!({ "id": "mini/lm", "chat_template": "{{ x }}", "files": [
        { "name": "config.json", "from": server.at("/c") }, { "name": "1_Pooling/config.json", "from": server.at("/p") } ] }));
    let resolved = wanted.resolve(&f.store, &silent()).await.unwrap();
    assert_eq!(std::fs::read(resolved.dir.join("config.json")).unwrap(), config);
    assert_eq!(std::fs::read(resolved.file("1_Pooling/config.json").unwrap()).unwrap(), pooling);
    assert_eq!(resolved.chat_template.as_deref(), Some("{{ x }}"));
    assert!(resolved.file("tokenizer.json").unwrap_err().message().contains("it has: 1_Pooling/config.json, config.json"));
    assert_eq!(wanted.resolve(&f.store, &silent()).await.unwrap().dir, resolved.dir);
    // The folder is as good as the files.
    let local = spec(serde_json::json!({ "id": "m", "path": resolved.dir }));
    assert_eq!(local.resolve(&f.store, &silent()).await.unwrap().files, resolved.files);
    f.store.remove("mini/lm/config.json").await.unwrap();
    assert!(!resolved.dir.exists(), "a folder that lacks a file is no model");
}

#[tokio::test]
async fn bad_model_files_never_reach_an_engine() {
    let (f, good) = (fixture(), tempfile::tempdir().unwrap());
    std::fs::write(good.path().join("config.json"), "{}").unwrap();
    let html = write(&f, "page.gguf", b"<html>");
    let cut = write(&f, "cut.safetensors", &[9, 0, 0, 0, 0, 0, 0, 0, b'{']);
    for (json, message) in [
        (serde_json::json!({ "path": html }), "page.gguf: is not a GGUF file: it does not begin with `GGUF`"),
        (serde_json::json!({ "path": cut }), "cut.safetensors: truncated: needs 17 bytes, has 9"),
        (serde_json::json!({}), "needs `files` or a `path`"),
        (serde_json::json!({ "path": "/no/such" }), "/no/such: there is no such file"),
        (serde_json::json!({ "path": "/", "files": [{ "name": "x", "from": "https://h/x" }] }), "`files` or `path`, not both"),
        (serde_json::json!({ "path": good.path(), "chat_template": "file:///no/such" }), "chat_template: /no/such: there is no such file"),
        (serde_json::json!({ "path": good.path(), "chat_template": " " }), "chat_template: is empty"),
    ] {
        let mut json = json;
        json["id"] = "m".into();
        let spec: ModelSpec = serde_json::from_value(json).unwrap();
        assert_eq!(spec.resolve(&f.store, &silent()).await.unwrap_err().message(), format!("model \"m\": {message}"));
    }
}
