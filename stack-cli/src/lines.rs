//! What somebody types at a terminal, line by line.

use llama_stack_core::{Error, Result};
use rustyline::{DefaultEditor, error::ReadlineError};

pub(crate) fn editor() -> Result<DefaultEditor> {
    DefaultEditor::new().map_err(unreadable)
}

/// The next line, with the editor for the one after it; none at an empty line, Ctrl-D or Ctrl-C.
pub(crate) async fn next(mut editor: DefaultEditor) -> Result<Option<(String, DefaultEditor)>> {
    let (line, mut editor) = tokio::task::spawn_blocking(move || (editor.readline("> "), editor))
        .await
        .map_err(|error| Error::internal("the terminal cannot be read").with_source(error))?;
    match line {
        Ok(line) if line.trim().is_empty() => Ok(None),
        Ok(line) => {
            // Where there is no history to write to, the line is simply not remembered.
            let _ = editor.add_history_entry(&line);
            Ok(Some((line, editor)))
        }
        Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: ReadlineError) -> Error {
    Error::internal("the terminal cannot be read").with_source(error)
}
