use crate::{
    files::{pages, pdf},
    read, texts, told,
};

#[tokio::test]
async fn pages_lines_and_paragraphs_are_kept() {
    let first = "BT /F1 12 Tf 72 720 Td (The first line) Tj 0 -14 Td (and the second.) Tj 0 -40 Td (A new) Tj 40 0 Td (paragraph.) Tj ET";
    let second = "BT /F1 12 Tf 1 0 0 1 72 720 Tm [(Kerned w) 20 (ords) -300 (stand) -300 (apart)] TJ 14 TL (caf\\351) ' ET";
    let parsed = read("a.pdf", pages(&[first, "", second])).await.unwrap();
    assert_eq!(texts(&parsed), ["The first line\nand the second.", "A new paragraph.", "Kerned words stand apart\ncafé"]);
    assert_eq!(parsed.blocks.iter().map(|block| block.page).collect::<Vec<_>>(), [1, 1, 3]);
    assert_eq!(parsed.media_type, "application/pdf");
}

#[tokio::test]
async fn pages_without_text_say_so() {
    let error = read("scan.pdf", pages(&["0 0 m 10 10 l S"])).await.unwrap_err();
    assert!(error.message().contains("scanned"), "{error}");
}

#[tokio::test]
async fn an_encrypted_one_is_named() {
    let mut objects = vec!["<< /Type /Catalog /Pages 2 0 R >>".to_owned(), "<< /Type /Pages /Kids [] /Count 0 >>".to_owned()];
    objects.push(format!("<< /Filter /Standard /V 1 /R 2 /O <{}> /U <{}> /P -4 >>", "41".repeat(32), "42".repeat(32)));
    let file = String::from_utf8(pdf(&objects)).unwrap();
    let file = file.replace("/Root 1 0 R", "/Root 1 0 R /Encrypt 3 0 R /ID [<4142> <4142>]");
    assert_eq!(told(read("a.pdf", file.into_bytes()).await).1, "encrypted_file");
}
