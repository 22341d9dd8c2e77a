//! What can be wrong with a file, each in one way.

use llama_stack_core::{Code, Error};

pub(crate) fn unsupported(what: &str) -> Error {
    let message = format!(
        "{what} cannot be read; what can be: text, Markdown, HTML, PDF, DOCX, XLSX, XLS, ODS, CSV, JSON, JSON lines and source code"
    );
    Error::invalid("file", message).with_reason("unsupported_media_type")
}

pub(crate) fn empty() -> Error {
    Error::invalid("file", "the file is empty").with_reason("empty_file")
}

/// `kind` is what the file says that it is. The cause is for the log.
pub(crate) fn malformed(kind: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid("file", format!("the file is damaged, or no {kind}: {why}")).with_reason("malformed_file")
}

pub(crate) fn encrypted() -> Error {
    let message = "the file is encrypted: upload it without its password";
    Error::invalid("file", message).with_reason("encrypted_file")
}

pub(crate) fn too_large(bytes: u64, most: u64) -> Error {
    let message = format!("the file has {bytes} bytes, and at most {most} are read");
    Error::new(Code::TooLarge, message).with_field("file").with_reason("file_too_large")
}

pub(crate) fn limits(what: impl std::fmt::Display) -> Error {
    let message = format!("reading the file takes more than it may: {what}");
    Error::new(Code::ResourceExhausted, message).with_field("file").with_reason("parser_limits")
}
