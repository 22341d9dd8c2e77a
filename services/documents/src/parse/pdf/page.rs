//! The text of a page, from the instructions that paint it.
//!
//! Source: PDF 32000-1:2008, 9.4 "Text objects". Instructions come in the order in which a page was made, which is nearly
//! always the order in which it is read; where the pen moves tells where lines, paragraphs and words end.

use std::collections::BTreeMap;

use lopdf::{Document, Encoding, Object, ObjectId, Result, content::Content};

/// Of a font's size: a step down that is larger ends a paragraph, a smaller one a line.
const PARAGRAPH: f32 = 1.8;
const LINE: f32 = 0.4;
/// A gap of this many thousandths of the font's size is a space.
const SPACE: f32 = 180.0;
/// Instructions of one page.
const MAX_OPERATIONS: usize = 5_000_000;

pub(super) fn text(document: &Document, page: ObjectId, most: usize) -> Result<String> {
    let fonts = document.get_page_fonts(page)?;
    let encodings: BTreeMap<Vec<u8>, Encoding<'_>> = fonts
        .into_iter()
        // A font that cannot be read costs its own text alone.
        .filter_map(|(name, font)| Some((name, font.get_font_encoding_with_limit(document, most).ok()?)))
        .collect();
    let content = Content::decode(&document.get_page_content_with_limit(page, most)?)?;
    let mut pen = Pen {
        encodings: &encodings,
        out: String::new(),
        font: None,
        size: 1.0,
        leading: 0.0,
        at: Place::default(),
        line: Place::default(),
        last: None,
    };
    for operation in content.operations.iter().take(MAX_OPERATIONS) {
        pen.take(&operation.operator, &operation.operands);
        if pen.out.len() > most {
            break;
        }
    }
    Ok(pen.out)
}

/// A matrix of the text, as far as it says where a line begins and how large it is.
#[derive(Clone, Copy)]
struct Place {
    x: f32,
    y: f32,
    scale: f32,
}

impl Default for Place {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, scale: 1.0 }
    }
}

struct Pen<'d> {
    encodings: &'d BTreeMap<Vec<u8>, Encoding<'d>>,
    out: String,
    font: Option<&'d Encoding<'d>>,
    size: f32,
    leading: f32,
    at: Place,
    line: Place,
    /// Where text was last shown, how large, and how many letters.
    last: Option<(Place, f32, usize)>,
}

impl Pen<'_> {
    fn take(&mut self, operator: &str, operands: &[Object]) {
        let number = |at: usize| operands.get(at).and_then(|operand| operand.as_float().ok()).unwrap_or(0.0);
        match operator {
            "BT" => (self.at, self.line) = (Place::default(), Place::default()),
            "Tf" => {
                let name = operands.first().and_then(|name| name.as_name().ok());
                self.font = name.and_then(|name| self.encodings.get(name));
                self.size = number(1);
            }
            "TL" => self.leading = number(0),
            "Td" => self.step(number(0), number(1)),
            "TD" => {
                self.leading = -number(1);
                self.step(number(0), number(1));
            }
            "T*" => self.step(0.0, -self.leading),
            "Tm" => {
                let scale = number(3).abs().max(number(0).abs());
                self.line = Place { x: number(4), y: number(5), scale: if scale > 0.0 { scale } else { 1.0 } };
                self.at = self.line;
            }
            "Tj" | "TJ" => self.show(operands),
            "'" => {
                self.step(0.0, -self.leading);
                self.show(operands);
            }
            "\"" => {
                self.step(0.0, -self.leading);
                self.show(operands.get(2..).unwrap_or_default());
            }
            _ => {}
        }
    }

    fn step(&mut self, x: f32, y: f32) {
        self.line.x += x * self.line.scale;
        self.line.y += y * self.line.scale;
        self.at = self.line;
    }

    fn show(&mut self, operands: &[Object]) {
        let height = (self.size * self.at.scale).abs().max(1.0);
        if let Some((before, before_height, shown)) = self.last {
            let down = (before.y - self.at.y).abs();
            let line = before_height.max(height);
            if down > line * PARAGRAPH {
                self.out.push_str("\n\n");
            } else if down > line * LINE {
                self.out.push('\n');
            } else if (self.at.x - before.x).abs() > if shown == 1 { line } else { f32::EPSILON } {
                // Letters that are placed one by one bring their own spaces.
                self.space();
            }
        }
        let start = self.out.len();
        for operand in operands {
            self.string(operand);
        }
        self.last = Some((self.at, height, self.out[start..].chars().count()));
    }

    fn string(&mut self, operand: &Object) {
        match operand {
            Object::String(bytes, _) => {
                let decoded = self.font.and_then(|font| Document::decode_text(font, bytes).ok());
                self.out.extend(decoded.unwrap_or_default().chars().filter(|c| !c.is_control() || *c == '\n'));
            }
            Object::Array(parts) => {
                for part in parts {
                    match part {
                        Object::String(..) => self.string(part),
                        _ if part.as_float().is_ok_and(|gap| gap < -SPACE) => self.space(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn space(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with(char::is_whitespace) {
            self.out.push(' ');
        }
    }
}
