//! The code in a text, and what it is written in.

use std::sync::LazyLock;

use regex::Regex;

use super::Language;
use crate::{
    normalise::Traced,
    rules::{Piece, json},
};

pub(super) struct Snippet {
    pub(super) language: Language,
    pub(super) code: Traced,
}

/// Of a text its fences, or the whole where it has none and looks like code; of a call's arguments each string that is code.
pub(super) fn snippets(piece: &Piece<'_>) -> Vec<Snippet> {
    if piece.json {
        return json::strings(piece.text).into_iter().flat_map(|string| of_argument(&string.key, string.text)).collect();
    }
    of_text(&Traced::of(piece.text))
}

fn of_text(text: &Traced) -> Vec<Snippet> {
    let fenced = fences(text);
    if !fenced.is_empty() {
        return fenced;
    }
    let guessed = guess(text.text());
    guessed.map(|language| Snippet { language, code: text.clone() }).into_iter().collect()
}

/// Tools name what they run: a `command` goes to a shell, a `query` is SQL where it begins so.
fn of_argument(key: &str, text: Traced) -> Vec<Snippet> {
    let key = key.to_ascii_lowercase();
    let named = |words: &[&str]| words.iter().any(|word| key.contains(word));
    let language = if named(&["command", "cmd", "shell", "bash", "script"]) {
        Some(guess(text.text()).unwrap_or(Language::Shell))
    } else if named(&["sql", "query", "statement"]) && SQL.as_ref().is_some_and(|sql| sql.is_match(text.text())) {
        Some(Language::Sql)
    } else if named(&["code", "source", "python", "program"]) && !text.text().contains("```") {
        Some(guess(text.text()).unwrap_or(Language::Python))
    } else {
        None
    };
    match language {
        Some(language) => vec![Snippet { language, code: text }],
        None => of_text(&text),
    }
}

static SQL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)^\s*(?:select|insert|update|delete|drop|truncate|alter|create|grant|exec|execute|copy|with|merge|call|replace)\b").ok()
});

/// Blocks between lines of three or more backticks or tildes. One that is not closed yet goes to the end, so that an answer
/// under way is judged too.
fn fences(text: &Traced) -> Vec<Snippet> {
    let (mut found, mut open, mut at) = (Vec::new(), None, 0);
    let whole = text.text();
    for line in whole.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let bare = line.trim().trim_start_matches(['>', ' ']);
        let mark: &str = ["```", "~~~"].into_iter().find(|mark| bare.starts_with(mark)).unwrap_or_default();
        match open {
            None if !mark.is_empty() => open = Some((mark, at, bare.trim_start_matches(['`', '~']))),
            Some((opened, from, tag)) if mark == opened => {
                found.extend(fence(text, from, start, tag));
                open = None;
            }
            _ => {}
        }
    }
    if let Some((_, from, tag)) = open {
        found.extend(fence(text, from.min(whole.len()), whole.len(), tag));
    }
    found
}

fn fence(text: &Traced, from: usize, to: usize, tag: &str) -> Option<Snippet> {
    let content = &text.text()[from..to];
    let language = match named(tag) {
        Tag::Known(language) => language,
        Tag::Other => return None,
        Tag::Missing => guess(content)?,
    };
    let mut code = Traced::with_capacity(content.len());
    code.push_from(text, from..to);
    Some(Snippet { language, code })
}

enum Tag {
    Known(Language),
    /// A language that there are no rules for.
    Other,
    Missing,
}

fn named(tag: &str) -> Tag {
    let word = tag.trim().trim_start_matches('{').trim_start_matches('.');
    let word = word.split(|c: char| !(c.is_alphanumeric() || "+#-_".contains(c))).next().unwrap_or_default().to_ascii_lowercase();
    Tag::Known(match word.as_str() {
        "" | "text" | "txt" | "plain" | "plaintext" | "code" => return Tag::Missing,
        "python" | "py" | "python3" | "ipython" => Language::Python,
        "javascript" | "js" | "jsx" | "ts" | "tsx" | "typescript" | "mjs" | "node" | "html" | "vue" | "svelte" => Language::Javascript,
        "sql" | "mysql" | "postgres" | "postgresql" | "psql" | "plsql" | "tsql" | "sqlite" => Language::Sql,
        "sh" | "bash" | "shell" | "zsh" | "console" | "shell-session" | "terminal" | "dockerfile" => Language::Shell,
        "rust" | "rs" => Language::Rust,
        "c" | "cpp" | "c++" | "h" | "hpp" | "cc" | "objc" => Language::C,
        "java" | "kotlin" | "kt" | "scala" | "groovy" => Language::Java,
        _ => return Tag::Other,
    })
}

/// Signs of each language; what has most of them, and two at least, or one that nothing else has.
const SIGNS: [(Language, u32, &str); 20] = [
    (Language::Python, 2, r"^\s*(?:def \w+\(.*\).*:|from [\w.]+ import |class \w+(?:\(.*\))?:)"),
    (Language::Python, 2, r"^import (?:os|sys|re|json|subprocess|requests|pickle|random|hashlib|sqlite3|yaml|torch|flask|socket)\b"),
    (Language::Python, 1, r"^\s*(?:import \w+(?: as \w+)?|if .*:|for \w+ in .*:|with .* as \w+:|print\(.*\))\s*$"),
    (Language::Javascript, 2, r"\b(?:const|let|var) \w+ = |=> \{|\brequire\(|\bfunction \w*\(.*\) ?\{|^import .* from ['\x22]"),
    (Language::Javascript, 1, r"\bconsole\.log\(|\bdocument\.\w+|\bawait \w+|===|\bmodule\.exports\b"),
    (Language::Javascript, 2, r"(?i)<script\b|\bnew Promise\(|\bapp\.(?:get|post|use)\(['\x22]"),
    (
        Language::Sql,
        2,
        r"(?i)^\s*(?:select\b.*\bfrom\b|insert into\b|update \w+ set\b|delete from\b|create (?:table|index|view|database)\b|(?:drop|alter|truncate) (?:table|database) (?:if exists )?[\w.\x22]+(?: cascade)?\s*(?:;|$)|alter table\b|grant \w+.*\bto\b|exec(?:ute)?\s*\()",
    ),
    (Language::Shell, 3, r"^#!.*\b(?:ba|z|da|k)?sh\b"),
    (
        Language::Shell,
        2,
        r"^\s*(?:\$ |# |> )?(?:sudo|apt(?:-get)?|curl|wget|chmod|chown|rm -|mkdir|export \w+=|echo .*\||cat .*\||ssh|scp|tar|systemctl|docker|nc|dd if|mkfs|bash -|git clone|env \|)\b?",
    ),
    (Language::Shell, 1, r"\$\{?\w+\}?|\bfi$|\bdone$|&& |\|\| "),
    (Language::Rust, 2, r"\bfn \w+(?:<.*>)?\(.*\)(?: ->.*)? \{|\blet mut \w+|\bimpl(?:<.*>)? \w+|\buse (?:std|crate|tokio|serde)::"),
    (Language::Rust, 1, r"::new\(|\bunwrap\(\)|\bmatch \w+ \{|println!\(|&mut |\.await\b|Some\(|Ok\("),
    (Language::C, 3, r"^\s*#\s*include\s*[<\x22]"),
    (Language::C, 2, r"^\s*(?:int|void|char|static|unsigned|struct|size_t|const char)\b[\s*]+\w+\s*\("),
    (Language::C, 1, r"\b(?:char|int|size_t|unsigned) \*?\w+(?:\[\w*\])?\s*[;=]|\b(?:printf|malloc|free|sizeof|strcpy|scanf)\s*\(|->\w+"),
    (
        Language::Java,
        2,
        r"\bpublic (?:static |final |abstract )*(?:class|void|interface|String|int|boolean)\b|^import (?:java|javax|org|com)\.[\w.]+;",
    ),
    (Language::Java, 1, r"\bSystem\.out\.print|\bnew \w+(?:<.*>)?\(.*\);|\bString \w+ = |@Override\b|\bthrows \w+"),
    (Language::Java, 1, r"\bprivate (?:static |final )*\w+ \w+|\bcatch \(\w+ \w+\)"),
    (Language::Shell, 3, r"\|\s*(?:sudo )?(?:ba)?sh\b|/dev/tcp/|:\(\)\s*\{|\brm -[rf]{2}\b"),
    (Language::Python, 1, r"\bself\.\w+|\bNone\b|\bTrue\b|\bFalse\b|\belif\b|\bexcept\b.*:"),
];

static GUESSES: LazyLock<Vec<(Language, u32, Option<Regex>)>> =
    LazyLock::new(|| SIGNS.iter().map(|(language, weight, sign)| (*language, *weight, Regex::new(&format!("(?m){sign}")).ok())).collect());

/// At most this much is looked at, and each sign counts this often: a long text is in one language.
const LOOKED_AT: usize = 16 * 1024;
const OFTEN: usize = 4;

fn guess(text: &str) -> Option<Language> {
    let end = (0..=text.len().min(LOOKED_AT)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = &text[..end];
    let mut scores: Vec<(Language, u32)> = Vec::new();
    for (language, weight, sign) in GUESSES.iter() {
        let Some(sign) = sign else { continue };
        let count = u32::try_from(sign.find_iter(text).take(OFTEN).count()).unwrap_or(0);
        match scores.iter_mut().find(|(known, _)| known == language) {
            Some((_, score)) => *score += count * weight,
            None => scores.push((*language, count * weight)),
        }
    }
    let (language, score) = scores.into_iter().max_by_key(|(language, score)| (*score, std::cmp::Reverse(*language)))?;
    (score >= 2).then_some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_guessed_and_prose_is_none() {
        for (text, language) in [
            ("import os\n\ndef run(x):\n    os.system(x)\n", Language::Python),
            ("const a = require('fs');\na.readFile(x, () => {});", Language::Javascript),
            ("SELECT * FROM users WHERE id = 1", Language::Sql),
            ("#!/bin/bash\necho $1", Language::Shell),
            ("curl -s http://x | sh", Language::Shell),
            ("fn main() {\n    let mut x = 1;\n}", Language::Rust),
            ("#include <stdio.h>\nint main(void) { return 0; }", Language::C),
            ("public class A {\n  public static void main(String[] a) { System.out.println(1); }\n}", Language::Java),
        ] {
            assert_eq!(guess(text), Some(language), "{text}");
        }
        for text in ["Please select a seat from the plan, and update me.", "We import goods. It is evaluated (yearly).", "Hello!"] {
            assert_eq!(guess(text), None, "{text}");
        }
    }
}
