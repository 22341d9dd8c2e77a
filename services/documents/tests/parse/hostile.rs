//! Files that mean harm get an answer, and whoever reads them goes on.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::ZlibEncoder};
use llama_stack_core::Code;
use llama_stack_documents::{Limits, Parse as _, Workers};

use crate::{
    files::{archive, docx, pages, pdf, stream, xlsx},
    read, texts, told, workers,
};

const LIMITS: (Code, &str) = (Code::ResourceExhausted, "parser_limits");

fn is(told: &(Code, String), expected: (Code, &str)) -> bool {
    (told.0, told.1.as_str()) == expected
}

fn malformed(told: &(Code, String)) -> bool {
    is(told, (Code::InvalidArgument, "malformed_file"))
}

#[tokio::test]
async fn bombs_of_zip_and_xml_are_bounded() {
    // 160 MB of spaces in 160 kB.
    let blanks = vec![b' '; 160 << 20];
    let bomb = archive(&[("word/document.xml", &blanks)]);
    assert!(bomb.len() < 1 << 20);
    assert!(is(&told(read("a.docx", bomb).await), LIMITS));
    let mut entities = String::from("<!DOCTYPE d [<!ENTITY a \"ha\">");
    for (one, before) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        entities.push_str(&format!("<!ENTITY {one} \"{}\">", format!("&{before};").repeat(10)));
    }
    let laughs =
        format!("<?xml version=\"1.0\"?>{entities}]><w:document><w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>");
    assert!(malformed(&told(read("a.docx", archive(&[("word/document.xml", laughs.as_bytes())])).await)));
    let cell =
        "<sheetData><row r=\"1\"><c r=\"A1\"><v>1</v></c></row><row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row></sheetData>";
    assert!(is(&told(read("a.xlsx", xlsx(cell)).await), LIMITS));
}

#[tokio::test]
async fn deep_nesting_overruns_no_stack() {
    let deep = |open: &str, close: &str| format!("{}x{}", open.repeat(50_000), close.repeat(50_000));
    assert_eq!(texts(&read("a.docx", docx(&deep("<w:p><w:r><w:t>", "</w:t></w:r></w:p>"))).await.unwrap()), ["x"]);
    let patient = workers(Limits { time: Duration::from_secs(5), ..Limits::default() });
    for (name, text) in [
        ("a.html", format!("<html>{}", deep("<div><ul><li>", ""))),
        ("a.md", deep("> ", "")),
        ("b.md", deep("[", "](a)")),
        ("a.json", format!("{}1{}", "[".repeat(2_000_000), "]".repeat(2_000_000))),
    ] {
        match patient.parse(name, "", text.into_bytes().into()).await {
            Ok(parsed) => assert!(!parsed.blocks.is_empty(), "{name}"),
            Err(error) => assert!(matches!(error.reason(), Some("parser_limits" | "malformed_file")), "{name}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_hundred_megabytes_of_json_on_one_line_are_refused() {
    let mut text = String::with_capacity(101 << 20);
    text.push('[');
    while text.len() < 100 << 20 {
        text.push_str("\"some words that mean nothing, again and again\",");
    }
    text.push_str("1]");
    assert!(is(&told(read("a.json", text.into_bytes()).await), LIMITS));
    let error = workers(Limits { input: 1_000, ..Limits::default() }).parse("a.txt", "", vec![b'x'; 1_001].into()).await;
    assert!(is(&told(error), (Code::TooLarge, "file_too_large")));
}

#[tokio::test]
async fn pdfs_that_lead_in_circles_come_to_an_end() {
    let catalogue = || "<< /Type /Catalog /Pages 2 0 R >>".to_owned();
    let own_child = pdf(&[catalogue(), "<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>".into()]);
    let two = pdf(&[
        catalogue(),
        "<< /Type /Pages /Kids [3 0 R] /Count 9 >>".into(),
        "<< /Type /Pages /Kids [2 0 R 3 0 R] /Parent 2 0 R /Count 9 >>".into(),
    ]);
    let contents = pdf(&[
        catalogue(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".into(),
        "<< /Type /Page /Parent 3 0 R /Contents 4 0 R /Resources 3 0 R >>".into(),
        "[4 0 R 4 0 R]".into(),
    ]);
    let stream_of_itself = pdf(&["1 0 R".into(), "<< /Type /ObjStm /N 1 /First 4 /Length 2 0 R >>\nstream\n2 0 (a)\nendstream".into()]);
    for file in [own_child, two, contents, stream_of_itself] {
        let (code, reason) = told(read("a.pdf", file).await);
        assert!(matches!(code, Code::InvalidArgument | Code::ResourceExhausted), "{code:?} {reason}");
    }
    // A page that unpacks to 160 MB.
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    let piece = vec![b' '; 1 << 20];
    for _ in 0..160 {
        packer.write_all(&piece).unwrap();
    }
    let packed = packer.finish().unwrap();
    let page = "<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>".to_owned();
    let head = pdf(&[catalogue(), "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".into(), page, stream("MARK")]);
    let (before, after) = {
        let text = String::from_utf8(head).unwrap();
        let at = text.find("<< /Length 4 >>").unwrap();
        let end = text.find("endstream").unwrap();
        (text[..at].to_owned(), text[end..].to_owned())
    };
    let mut bomb = before.into_bytes();
    bomb.extend_from_slice(format!("<< /Length {} /Filter /FlateDecode >>\nstream\n", packed.len()).as_bytes());
    bomb.extend_from_slice(&packed);
    bomb.extend_from_slice(b"\n");
    bomb.extend_from_slice(after.as_bytes());
    assert!(is(&told(read("bomb.pdf", bomb).await), LIMITS));
}

#[tokio::test]
async fn cut_off_files_are_malformed_wherever_they_are_cut() {
    let files = [
        ("a.docx", docx("<w:p><w:r><w:t>words</w:t></w:r></w:p>")),
        ("a.xlsx", xlsx("<sheetData><row r=\"1\"><c r=\"A1\"><v>1</v></c></row></sheetData>")),
    ];
    for (name, whole) in files {
        for part in [4, 10, 50, 90] {
            let cut = whole[..whole.len() * part / 100].to_vec();
            assert!(malformed(&told(read(name, cut).await)), "{name} at {part} %");
        }
    }
    let whole = pages(&["BT /F1 12 Tf (words) Tj ET"]);
    for part in [10, 40, 60, 90] {
        // Its objects can be found without its table, as far as they are there.
        match read("a.pdf", whole[..whole.len() * part / 100].to_vec()).await {
            Ok(parsed) => assert!(part > 50 && texts(&parsed) == ["words"], "a.pdf at {part} %"),
            Err(error) => assert_eq!(error.reason(), Some("malformed_file"), "a.pdf at {part} %"),
        }
    }
}

/// The process is asked for what takes it longer than it has, and dies; the next file is read as if nothing had been.
#[tokio::test]
async fn a_process_that_is_stopped_costs_its_own_file_alone() {
    let workers = workers(Limits::default());
    // More columns than there is memory for.
    let wide = "a,".repeat(20 << 20) + "\n" + &"b,".repeat(20 << 20);
    let small = workers.clone();
    let (stopped, read) =
        tokio::join!(workers.parse("a.csv", "", wide.into_bytes().into()), small.parse("b.md", "", b"# Still here".to_vec().into()));
    assert!(is(&told(stopped), LIMITS));
    assert_eq!(texts(&read.unwrap()), ["# Still here"]);
    assert_eq!(texts(&workers.parse("b.md", "", b"# And again".to_vec().into()).await.unwrap()), ["# And again"]);
}

#[tokio::test]
async fn a_process_that_takes_too_long_is_killed() {
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    let error = Workers::new("/bin/sleep", &["600"], limits).parse("a.md", "", b"# A".to_vec().into()).await;
    assert!(is(&told(error), LIMITS));
}

#[tokio::test]
async fn too_little_memory_is_an_answer() {
    let workers = workers(Limits { memory: 96 << 20, ..Limits::default() });
    let text = format!("[{}1]", "\"words and words\",".repeat(2 << 20));
    assert!(is(&told(workers.parse("a.json", "", text.into_bytes().into()).await), LIMITS));
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_not_the_files_fault() {
    for program in ["/bin/true", "/nowhere/at-all"] {
        let error = Workers::new(program, &[], Limits::default()).parse("a.md", "", b"# A".to_vec().into()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Internal, Some("parser_failed")));
    }
}
