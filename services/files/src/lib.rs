//! Files: uploaded content on this machine's disk, each content once per tenant, each file its owner's.
//!
//! ```text
//! UploadFile ─ hash and write (blobs::Draft) ─ sync ─┐ under the folder's lock:
//! DeleteFile ─ delete the row ───────────────────────┤ the content is there ⇔ a row names it
//! sweep ─ what has expired, what a crash left ───────┘
//! GetFile, ListFiles, DownloadFile ─ rows of the store, bytes of the disk
//! ```

mod blobs;
mod copies;
mod disk;
mod sweep;

pub use copies::{Copies, Pin};
pub use disk::DiskFiles;
