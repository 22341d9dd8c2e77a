use crate::{
    files::{docx, xlsx},
    read, texts,
};

#[tokio::test]
async fn a_document_of_word_has_headings_and_tables() {
    let paragraph =
        |style: &str, text: &str| format!("<w:p><w:pPr><w:pStyle w:val=\"{style}\"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>");
    let row = |cells: [&str; 2]| {
        let cells: String = cells.iter().map(|cell| format!("<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>")).collect();
        format!("<w:tr>{cells}</w:tr>")
    };
    let body = [
        paragraph("Heading1", "Report"),
        paragraph("berschrift2", "Sales &amp; costs"),
        paragraph("Normal", "They <w:tab/>grew</w:t></w:r><w:r><w:t xml:space=\"preserve\"> &#8364;5.").replace("<w:tab/>", ""),
        format!("<w:tbl>{}{}</w:tbl>", row(["Name", "Age"]), row(["Ann", "7"])),
        "<w:p><w:r><w:delText>gone</w:delText></w:r></w:p>".to_owned(),
    ];
    let parsed = read("a.docx", docx(&body.concat())).await.unwrap();
    assert_eq!(texts(&parsed), ["# Report", "## Sales & costs", "They grew €5.", "Name | Age", "Ann | 7"]);
    assert_eq!(parsed.title, "Report");
    assert!(parsed.blocks[2..].iter().all(|block| block.heading == "Report > Sales & costs"));
}

#[tokio::test]
async fn a_sheets_rows_name_their_columns() {
    let text = |text: &str, place: &str| format!("<c r=\"{place}\" t=\"inlineStr\"><is><t>{text}</t></is></c>");
    let rows = format!(
        "<sheetData><row r=\"2\">{}{}</row><row r=\"3\">{}<c r=\"B3\"><v>7</v></c></row></sheetData>",
        text("Name", "A2"),
        text("Age", "B2"),
        text("Ann", "A3")
    );
    let parsed = read("a.xlsx", xlsx(&rows)).await.unwrap();
    assert_eq!(texts(&parsed), ["Name | Age", "Name: Ann | Age: 7"]);
    let row = &parsed.blocks[1];
    assert_eq!((row.heading.as_str(), row.line_start), ("People", 3));
}
