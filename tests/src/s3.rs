//! A server that speaks as S3 does, over a socket: as much of it as files need, by path, and strict about signatures.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use llama_stack_core::{context::Secret, manifest};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

pub const BUCKET: &str = "files";
/// Longer ago than any upload takes, and not so long ago; as lists and as headers have them.
pub const OLD: Date = Date("2001-01-01T00:00:00.000Z", "Mon, 01 Jan 2001 00:00:00 GMT");
pub const NEW: Date = Date("2100-01-01T00:00:00.000Z", "Fri, 01 Jan 2100 00:00:00 GMT");

#[derive(Clone, Copy)]
pub struct Date(&'static str, &'static str);

/// What the server does with requests that change or read something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// 403.
    Refuses,
    /// 500.
    Fails,
    /// Takes the request and says nothing until the mood changes.
    Hangs,
    /// The same from the second part of an upload on.
    HangsAtTheSecondPart,
}

#[derive(Default)]
pub struct Held {
    pub objects: BTreeMap<String, (Bytes, &'static str, &'static str)>,
    /// By id: the key, and the parts that are there.
    pub uploads: HashMap<String, (String, BTreeMap<u32, Bytes>)>,
    /// Lengths of bodies that were put, in their order.
    pub put: Vec<usize>,
}

pub struct Server {
    pub held: Arc<Mutex<Held>>,
    pub mood: watch::Sender<Mood>,
    /// Counts requests that were answered, or hang.
    pub seen: watch::Sender<u64>,
    pub address: std::net::SocketAddr,
}

#[derive(Clone)]
struct Shared {
    held: Arc<Mutex<Held>>,
    mood: watch::Receiver<Mood>,
    seen: watch::Sender<u64>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, mood, seen) = (Arc::<Mutex<Held>>::default(), watch::Sender::new(Mood::Well), watch::Sender::new(0));
        let shared = Shared { held: held.clone(), mood: mood.subscribe(), seen: seen.clone() };
        let app = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { held, mood, seen, address }
    }

    pub fn config(&self) -> manifest::S3 {
        manifest::S3 {
            bucket: BUCKET.into(),
            prefix: "stack/one".into(),
            region: None,
            endpoint: Some(format!("http://{}", self.address)),
            allow_http: true,
            access_key_id: Some("test-id".into()),
            secret_access_key: Some(Secret::new("test-secret")),
            timeout_seconds: 60,
        }
    }

    pub fn keys(&self) -> Vec<String> {
        self.held.lock().unwrap().objects.keys().cloned().collect()
    }

    pub fn put(&self, key: &str, written: Date) {
        self.held.lock().unwrap().objects.insert(key.into(), (Bytes::from_static(b"left"), written.0, written.1));
    }

    /// Returns once it is so.
    pub async fn until(&self, so: impl Fn(&Held) -> bool) {
        let mut seen = self.seen.subscribe();
        while !so(&self.held.lock().unwrap()) {
            seen.changed().await.unwrap();
        }
    }
}

async fn answer(
    State(mut shared): State<Shared>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_signed(&headers, &body) {
        return error(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
    }
    let mood = *shared.mood.borrow();
    match mood {
        Mood::Refuses => return error(StatusCode::FORBIDDEN, "AccessDenied"),
        Mood::Fails => return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Mood::HangsAtTheSecondPart if query.get("partNumber").is_none_or(|part| part != "2") => {}
        Mood::Hangs | Mood::HangsAtTheSecondPart => {
            shared.seen.send_modify(|seen| *seen += 1);
            let _ = shared.mood.wait_for(|now| *now != mood).await;
        }
        Mood::Well => {}
    }
    let (bucket, key) = uri.path().trim_start_matches('/').split_once('/').unwrap_or((uri.path().trim_start_matches('/'), ""));
    let response = if bucket == BUCKET {
        shared.held.lock().unwrap().answer(&method, key, &query, &headers, body)
    } else {
        error(StatusCode::NOT_FOUND, "NoSuchBucket")
    };
    shared.seen.send_modify(|seen| *seen += 1);
    response
}

/// Signature version 4 by the right key, over the hash of the body that came.
fn is_signed(headers: &HeaderMap, body: &Bytes) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signature = text("authorization");
    let signed = ["AWS4-HMAC-SHA256 Credential=test-id/", "/us-east-1/s3/aws4_request", "x-amz-content-sha256", "Signature="];
    signed.iter().all(|part| signature.contains(part)) && text("x-amz-content-sha256") == hex::encode(Sha256::digest(body))
}

impl Held {
    fn answer(&mut self, method: &Method, key: &str, query: &HashMap<String, String>, headers: &HeaderMap, body: Bytes) -> Response {
        let upload = query.get("uploadId").cloned();
        match (method.as_str(), upload) {
            ("GET", _) if key.is_empty() => self.list(query.get("prefix").map_or("", String::as_str)),
            ("GET" | "HEAD", _) => self.read(key, headers),
            ("POST", None) if query.contains_key("uploads") => {
                let id = format!("upload-{}", self.uploads.len() + self.put.len() + 1);
                self.uploads.insert(id.clone(), (key.to_owned(), BTreeMap::new()));
                xml(&format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
            }
            ("PUT", Some(id)) => {
                let part = query.get("partNumber").and_then(|part| part.parse().ok());
                let (Some((_, parts)), Some(part)) = (self.uploads.get_mut(&id), part) else {
                    return error(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                self.put.push(body.len());
                parts.insert(part, body.clone());
                [(header::ETAG, tag(&body))].into_response()
            }
            ("POST", Some(id)) => {
                let Some((key, parts)) = self.uploads.remove(&id) else { return error(StatusCode::NOT_FOUND, "NoSuchUpload") };
                let named = String::from_utf8_lossy(&body).matches("<PartNumber>").count();
                let small = parts.iter().any(|(part, data)| (*part as usize) < parts.len() && data.len() < 5 << 20);
                if named != parts.len() || small {
                    return error(StatusCode::BAD_REQUEST, if small { "EntityTooSmall" } else { "InvalidPart" });
                }
                let whole = Bytes::from(parts.into_values().collect::<Vec<_>>().concat());
                let tag = tag(&whole);
                self.objects.insert(key, (whole, NEW.0, NEW.1));
                xml(&format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"))
            }
            ("PUT", None) => {
                self.put.push(body.len());
                let tag = tag(&body);
                self.objects.insert(key.to_owned(), (body, NEW.0, NEW.1));
                [(header::ETAG, tag)].into_response()
            }
            ("DELETE", Some(id)) => match self.uploads.remove(&id) {
                Some(_) => StatusCode::NO_CONTENT.into_response(),
                None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            ("DELETE", None) => {
                self.objects.remove(key);
                StatusCode::NO_CONTENT.into_response()
            }
            _ => error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        }
    }

    fn list(&self, prefix: &str) -> Response {
        let mut found = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        for (key, (content, written, _)) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let (size, tag) = (content.len(), tag(content).replace('"', ""));
            let about = format!("<Key>{key}</Key><LastModified>{written}</LastModified><ETag>{tag}</ETag><Size>{size}</Size>");
            let _ = write!(found, "<Contents>{about}</Contents>");
        }
        found.push_str("</ListBucketResult>");
        xml(&found)
    }

    fn read(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some((content, _, written)) = self.objects.get(key) else { return error(StatusCode::NOT_FOUND, "NoSuchKey") };
        let about = [(header::ETAG, tag(content)), (header::LAST_MODIFIED, (*written).to_owned())];
        // A client that was cut off asks for the rest.
        let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        let from: Option<usize> = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        match from {
            None => (about, content.clone()).into_response(),
            Some(from) => {
                let all = content.len();
                let range = [(header::CONTENT_RANGE, format!("bytes {from}-{}/{all}", all - 1))];
                (StatusCode::PARTIAL_CONTENT, about, range, content.slice(from..)).into_response()
            }
        }
    }
}

fn tag(content: &[u8]) -> String {
    format!("\"{}\"", &hex::encode(Sha256::digest(content))[..32])
}

fn xml(body: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/xml")], body.to_owned()).into_response()
}

fn error(status: StatusCode, code: &str) -> Response {
    (status, xml(&format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))).into_response()
}
