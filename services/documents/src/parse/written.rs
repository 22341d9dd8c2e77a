//! What a reader writes down: blocks under their headings, up to a bound.

use llama_stack_core::Result;

use crate::{Block, Kind, failure};

/// Even many small blocks take memory.
const MAX_BLOCKS: usize = 1_000_000;
/// A heading that is longer is no name for what stands below it.
const MAX_HEADING: usize = 120;

pub(super) struct Written {
    title: String,
    blocks: Vec<Block>,
    /// Level and text of the headings above.
    headings: Vec<(u8, String)>,
    most: usize,
    left: usize,
}

/// Where a block stands: a page, or lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) page: u32,
    pub(super) lines: (u32, u32),
}

impl Written {
    pub(super) fn new(most: usize) -> Self {
        Self { title: String::new(), blocks: Vec::new(), headings: Vec::new(), most, left: most }
    }

    /// The first title is the document's.
    pub(super) fn title(&mut self, title: &str) {
        if self.title.is_empty() {
            title.trim().clone_into(&mut self.title);
        }
    }

    /// # Errors
    /// `ResourceExhausted` where the document has more text than it may.
    pub(super) fn push(&mut self, kind: Kind, text: &str, at: At) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        self.left = self.left.checked_sub(text.len()).filter(|_| self.blocks.len() < MAX_BLOCKS).ok_or_else(|| self.full())?;
        let heading = self.headings.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" > ");
        let (line_start, line_end) = at.lines;
        self.blocks.push(Block { text: text.to_owned(), page: at.page, line_start, line_end, heading, kind });
        Ok(())
    }

    /// A heading as it is written (`text`) and as it is called (`name`); what follows stands below it. Level 1 is the
    /// outermost.
    pub(super) fn heading(&mut self, level: u8, text: &str, name: &str, at: At) -> Result<()> {
        self.headings.retain(|(above, _)| *above < level);
        self.push(Kind::Heading, text, at)?;
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if level == 1 {
            self.title(&name);
        }
        self.headings.push((level, name[..name.floor_char_boundary(MAX_HEADING)].to_owned()));
        Ok(())
    }

    /// What follows stands below this alone.
    pub(super) fn below(&mut self, names: &[&str]) {
        self.headings = names.iter().map(|name| (1, name[..name.floor_char_boundary(MAX_HEADING)].to_owned())).collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn finish(self) -> (String, Vec<Block>) {
        (self.title, self.blocks)
    }

    fn full(&self) -> llama_stack_core::Error {
        failure::limits(format!("its text has more than {} bytes or a million parts", self.most))
    }
}
