//! HTML: as the Markdown that it reads as.

use llama_stack_core::Result;

use super::{markdown, written::Written};
use crate::{failure, html};

pub(super) fn read(page: &str, most: usize, written: &mut Written) -> Result<()> {
    let page = html::markdown(page, None, most);
    if !page.complete {
        return Err(failure::limits("the page is too long or takes too long to read"));
    }
    written.title(&page.title);
    // The lines of the page are not those of this text.
    markdown::read(&page.text, false, written)
}
