//! What a file is: its bytes say so, then its name, then whoever sent it.

use std::io::Cursor;

use llama_stack_core::Result;

use crate::failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Markdown,
    Html,
    Pdf,
    Docx,
    /// XLSX, XLSB, XLS or ODS.
    Sheet,
    Csv,
    Json,
    JsonLines,
    /// In this language.
    Code(&'static str),
}

/// How files begin that hold no text.
const BINARIES: [(&[u8], &str); 15] = [
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF file (WebP, WAV, AVI)"),
    (b"BM\x00", "a bitmap image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"ID3", "an MP3 file"),
    (b"OggS", "an Ogg file"),
    (b"{\\rtf", "an RTF file"),
];

/// A file may say what it is within its first bytes.
const HEAD: usize = 1_024;
/// Text has no NUL in its first bytes.
const SNIFFED: usize = 8 << 10;

impl Format {
    /// # Errors
    /// `InvalidArgument` for what cannot be read (`unsupported_media_type`), is encrypted (`encrypted_file`) or a damaged
    /// archive (`malformed_file`).
    pub(crate) fn of(filename: &str, media_type: &str, data: &[u8]) -> Result<Self> {
        let head = &data[..data.len().min(HEAD)];
        if head.windows(5).any(|window| window == b"%PDF-") {
            return Ok(Format::Pdf);
        }
        if data.starts_with(b"PK\x03\x04") || data.starts_with(b"PK\x05\x06") {
            return in_archive(data);
        }
        if data.starts_with(b"\xd0\xcf\x11\xe0") {
            return in_compound(data);
        }
        if let Some((_, what)) = BINARIES.iter().find(|(magic, _)| data.starts_with(magic)) {
            // Two letters begin many a text.
            if *what != "a program" || data[..data.len().min(SNIFFED)].contains(&0) {
                return Err(failure::unsupported(what));
            }
        }
        let marked = [b"\xff\xfe".as_slice(), b"\xfe\xff", b"\xef\xbb\xbf"].iter().any(|mark| data.starts_with(mark));
        if !marked && data[..data.len().min(SNIFFED)].contains(&0) {
            return Err(failure::unsupported("a binary file of an unknown kind"));
        }
        let beginning = head.trim_ascii_start().to_ascii_lowercase();
        if beginning.starts_with(b"<!doctype html") || beginning.starts_with(b"<html") {
            return Ok(Format::Html);
        }
        // What has to begin with a magic number and does not is a text, or damaged.
        let claimed = by_name(filename).or_else(|| by_media_type(media_type));
        match claimed {
            Some(Format::Pdf | Format::Docx | Format::Sheet) if std::str::from_utf8(head).is_err() => {
                Err(failure::malformed(claimed.map_or("", Format::name), "it does not begin as one"))
            }
            Some(Format::Pdf | Format::Docx | Format::Sheet) | None => Ok(Format::Text),
            Some(format) => Ok(format),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Markdown => "Markdown",
            Format::Html => "HTML",
            Format::Pdf => "PDF",
            Format::Docx => "DOCX",
            Format::Sheet => "spreadsheet",
            Format::Csv => "CSV",
            Format::Json => "JSON",
            Format::JsonLines => "JSON lines",
            Format::Code(language) => language,
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain",
            Format::Markdown => "text/markdown",
            Format::Html => "text/html",
            Format::Pdf => "application/pdf",
            Format::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Format::Sheet => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Format::Csv => "text/csv",
            Format::Json => "application/json",
            Format::JsonLines => "application/jsonl",
            Format::Code(_) => "text/x-source",
        }
    }

    /// Read in time and memory that grow with its length alone, by code of this crate.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Format::Text | Format::Code(_))
    }
}

fn by_name(filename: &str) -> Option<Format> {
    let (_, end) = filename.rsplit_once('.')?;
    Some(match end.to_ascii_lowercase().as_str() {
        "txt" | "text" | "log" | "rst" | "tex" | "srt" => Format::Text,
        "md" | "markdown" | "mdx" => Format::Markdown,
        "html" | "htm" | "xhtml" => Format::Html,
        "pdf" => Format::Pdf,
        "docx" | "docm" => Format::Docx,
        "xlsx" | "xlsm" | "xlsb" | "xls" | "ods" => Format::Sheet,
        "csv" | "tsv" => Format::Csv,
        "json" | "geojson" | "ipynb" => Format::Json,
        "jsonl" | "ndjson" => Format::JsonLines,
        "rs" => Format::Code("rust"),
        "py" | "pyi" => Format::Code("python"),
        "js" | "mjs" | "cjs" | "jsx" => Format::Code("javascript"),
        "ts" | "tsx" => Format::Code("typescript"),
        "go" => Format::Code("go"),
        "java" => Format::Code("java"),
        "kt" => Format::Code("kotlin"),
        "c" | "h" => Format::Code("c"),
        "cc" | "cpp" | "cxx" | "hpp" => Format::Code("cpp"),
        "cs" => Format::Code("csharp"),
        "rb" => Format::Code("ruby"),
        "php" => Format::Code("php"),
        "swift" => Format::Code("swift"),
        "scala" => Format::Code("scala"),
        "sh" | "bash" => Format::Code("shell"),
        "sql" => Format::Code("sql"),
        "r" => Format::Code("r"),
        "jl" => Format::Code("julia"),
        "lua" => Format::Code("lua"),
        "pl" => Format::Code("perl"),
        "ex" | "exs" => Format::Code("elixir"),
        "css" | "scss" => Format::Code("css"),
        "proto" => Format::Code("protobuf"),
        "toml" => Format::Code("toml"),
        "yaml" | "yml" => Format::Code("yaml"),
        "xml" => Format::Code("xml"),
        _ => return None,
    })
}

fn by_media_type(media_type: &str) -> Option<Format> {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/markdown" | "text/x-markdown" => Some(Format::Markdown),
        "text/html" | "application/xhtml+xml" => Some(Format::Html),
        "text/csv" | "text/tab-separated-values" => Some(Format::Csv),
        "application/json" => Some(Format::Json),
        "application/jsonl" | "application/x-ndjson" | "application/x-jsonlines" => Some(Format::JsonLines),
        "application/pdf" => Some(Format::Pdf),
        _ => None,
    }
}

/// A zip archive is what its members are.
fn in_archive(data: &[u8]) -> Result<Format> {
    let archive = zip::ZipArchive::new(Cursor::new(data)).map_err(|error| failure::malformed("zip archive", error))?;
    let has = |start: &str| archive.file_names().any(|name| name.starts_with(start));
    if has("word/document") {
        return Ok(Format::Docx);
    }
    if has("xl/workbook")
        || (has("content.xml") && data[..data.len().min(HEAD)].windows(24).any(|window| window == b"opendocument.spreadsheet"))
    {
        return Ok(Format::Sheet);
    }
    Err(failure::unsupported(if has("ppt/") { "a presentation" } else { "a zip archive" }))
}

/// An OLE compound file is what its streams are called, in UTF-16.
fn in_compound(data: &[u8]) -> Result<Format> {
    let has = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        data.windows(wide.len()).any(|window| window == wide)
    };
    if has("EncryptedPackage") {
        return Err(failure::encrypted());
    }
    if has("Workbook") || has("Book") {
        return Ok(Format::Sheet);
    }
    Err(failure::unsupported("a file of an old office program"))
}
