//! Tables: a row is a block that names its columns, so that it can be understood alone.

use std::io::Cursor;

use calamine::{Data, Reader as _, open_workbook_auto_from_rs};
use llama_stack_core::Result;

use super::written::{At, Written};
use crate::{Kind, failure};

pub(super) fn read_csv(text: &str, written: &mut Written) -> Result<()> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter(text)).flexible(true).has_headers(false).from_reader(text.as_bytes());
    let (mut record, mut columns) = (csv::StringRecord::new(), None);
    loop {
        let line = reader.position().line();
        if !reader.read_record(&mut record).map_err(|error| failure::malformed("CSV", error))? {
            return Ok(());
        }
        let line = record.position().map_or(line, |position| position.line());
        let next = reader.position().line();
        let number = |line: u64| u32::try_from(line).unwrap_or(u32::MAX);
        let lines = (number(line), number(next.saturating_sub(1).max(line)));
        let cells: Vec<String> = record.iter().map(|cell| cell.trim().to_owned()).collect();
        row(&mut columns, cells, lines, written)?;
    }
}

/// Of the usual ones, the one that the first line has most of.
fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default().as_bytes();
    let count = |mark: &u8| first.iter().filter(|byte| *byte == mark).count();
    // Of several that are equally frequent, the last: the comma.
    [b'|', b';', b'\t', b','].into_iter().max_by_key(count).unwrap_or(b',')
}

pub(super) fn read(data: &[u8], written: &mut Written) -> Result<()> {
    let mut book = open_workbook_auto_from_rs(Cursor::new(data)).map_err(unreadable)?;
    for name in book.sheet_names() {
        let range = book.worksheet_range(&name).map_err(unreadable)?;
        written.below(&[&name]);
        let first = range.start().map_or(0, |(row, _)| row);
        let mut columns = None;
        for (number, cells) in (first.saturating_add(1)..).zip(range.rows()) {
            row(&mut columns, cells.iter().map(cell).collect(), (number, number), written)?;
        }
    }
    Ok(())
}

fn unreadable(error: calamine::Error) -> llama_stack_core::Error {
    let why = error.to_string();
    if why.to_ascii_lowercase().contains("password") { failure::encrypted() } else { failure::malformed("spreadsheet", why) }
}

fn cell(cell: &Data) -> String {
    match cell {
        Data::DateTime(time) if time.is_datetime() => {
            let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
            let date = format!("{year:04}-{month:02}-{day:02}");
            if (hour, minute, second) == (0, 0, 0) { date } else { format!("{date} {hour:02}:{minute:02}:{second:02}") }
        }
        other => other.to_string().trim().to_owned(),
    }
}

/// The first row with text in it names the columns, if none of its cells is a number.
fn row(columns: &mut Option<Vec<String>>, cells: Vec<String>, lines: (u32, u32), written: &mut Written) -> Result<()> {
    if cells.iter().all(String::is_empty) {
        return Ok(());
    }
    let at = At { page: 0, lines };
    let Some(names) = columns else {
        let named = cells.iter().all(|cell| cell.parse::<f64>().is_err());
        written.push(Kind::Table, &cells.join(" | "), at)?;
        *columns = Some(if named { cells } else { Vec::new() });
        return Ok(());
    };
    let named = |(at, cell): (usize, &String)| match names.get(at).filter(|name| !name.is_empty()) {
        Some(name) => format!("{name}: {cell}"),
        None => cell.clone(),
    };
    let filled = cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
    written.push(Kind::Table, &filled.map(named).collect::<Vec<_>>().join(" | "), at)
}
