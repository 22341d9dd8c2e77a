//! Files: uploaded content, each content once per tenant, each file its owner's.
//!
//! ```text
//! UploadFile ─ hash and write (blobs::Draft) ─┐                ┌─ disk ── a folder of this machine, under its lock
//! DeleteFile ─────────────────────────────────┼─ Contents ─────┤
//! sweep ─ what has expired, what a crash left ┘                └─ s3 ──── a bucket; the store's transactions decide
//! GetFile, ListFiles, DownloadFile ─ rows of the store, bytes of the contents
//! ```

mod blobs;
mod contents;
mod copies;
mod disk;
mod s3;
mod service;
mod sweep;

pub use copies::{Copies, Pin};
pub use service::StoredFiles;
pub use sweep::Derived;
