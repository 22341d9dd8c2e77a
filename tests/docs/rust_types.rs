//! The types of the manifest, read from their source: names, fields, comments, and what serde is told.
//!
//! The source is formatted by rustfmt, so that a line is an attribute, a comment, a field or a variant.

use std::collections::BTreeMap;

use crate::pages::repository;

#[derive(Clone, Debug, Default)]
pub struct Type {
    pub name: String,
    pub doc: String,
    /// What `#[serde(…)]` says, joined.
    pub serde: String,
    pub is_enum: bool,
    /// Fields, or variants.
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, Default)]
pub struct Member {
    /// As the manifest has it.
    pub name: String,
    pub doc: String,
    pub serde: String,
    /// A field's type, or what a variant holds: empty where it holds nothing.
    pub holds: String,
}

pub struct Types(pub BTreeMap<String, Type>);

impl Types {
    pub fn of_the_manifest() -> Self {
        let source = repository().join("services/core/src");
        let mut files = vec![source.join("manifest.rs")];
        files.extend(std::fs::read_dir(source.join("manifest")).unwrap().map(|entry| entry.unwrap().path()));
        let mut types = BTreeMap::new();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            types.extend(read(&text).into_iter().map(|one| (one.name.clone(), one)));
        }
        Self(types)
    }

    pub fn get(&self, name: &str) -> Option<&Type> {
        self.0.get(name)
    }

    /// The names of a type's fields, or variants.
    pub fn fields(&self, name: &str) -> Vec<String> {
        self.0[name].members.iter().map(|member| member.name.clone()).collect()
    }
}

impl Type {
    /// Whether a field may be left out.
    pub fn optional(&self, member: &Member) -> bool {
        let container = self.serde.split(", ").any(|word| word == "default");
        container || member.serde.contains("default") || member.holds.starts_with("Option<")
    }
}

fn read(source: &str) -> Vec<Type> {
    let (mut types, mut open) = (Vec::new(), None::<Type>);
    let (mut doc, mut serde) = (String::new(), Vec::new());
    for line in source.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            doc = format!("{doc} {}", words.trim()).trim().to_owned();
            continue;
        }
        if let Some(said) = text.strip_prefix("#[serde(").and_then(|rest| rest.strip_suffix(")]")) {
            serde.push(said.to_owned());
            continue;
        }
        if text.starts_with("#[") || text.starts_with("//") {
            continue;
        }
        let (doc_here, serde_here) = (std::mem::take(&mut doc), std::mem::take(&mut serde).join(", "));
        match &mut open {
            Some(one) if line == "}" => types.extend(Some(std::mem::take(one)).filter(|_| open.take().is_some())),
            Some(one) => one.members.extend(member(one, text, doc_here, serde_here)),
            None => open = head(line, doc_here, serde_here),
        }
    }
    // What serde does not read is of no concern to a manifest.
    types.retain(|one| !one.members.is_empty());
    types
}

fn head(line: &str, doc: String, serde: String) -> Option<Type> {
    let rest = line.strip_prefix("pub ")?.strip_suffix(" {")?;
    let (kind, name) = rest.split_once(' ')?;
    let is_enum = kind == "enum";
    (is_enum || kind == "struct").then(|| Type { name: name.into(), doc, serde, is_enum, members: Vec::new() })
}

fn member(one: &Type, text: &str, doc: String, serde: String) -> Option<Member> {
    let text = text.strip_suffix(',')?;
    if serde.split(", ").any(|word| word == "skip") {
        return None;
    }
    let (name, holds) = if one.is_enum {
        let (name, holds) = text.split_once('(').unwrap_or((text, ""));
        (name, holds.trim_end_matches(')'))
    } else {
        text.strip_prefix("pub ").unwrap_or(text).split_once(": ")?
    };
    let renamed = serde.split(", ").find_map(|word| word.strip_prefix("rename = \"")?.strip_suffix('"').map(str::to_owned));
    let name = renamed.unwrap_or_else(|| if one.is_enum { variant(name, &one.serde) } else { name.to_owned() });
    Some(Member { name, doc, serde, holds: holds.to_owned() })
}

fn variant(name: &str, serde: &str) -> String {
    if serde.contains("\"lowercase\"") {
        return name.to_lowercase();
    }
    let separator = if serde.contains("\"kebab-case\"") { '-' } else { '_' };
    if !serde.contains("\"snake_case\"") && separator == '_' {
        return name.to_owned();
    }
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push(separator);
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[test]
fn types_are_read_as_serde_reads_them() {
    let source = "/// What it is.\n#[derive(Deserialize)]\n#[serde(deny_unknown_fields)]\npub struct A {\n    /// First.\n    /// Of two.\n    \
                  #[serde(rename = \"type\")]\n    pub kind: String,\n    #[serde(default)]\n    pub many: Vec<B>,\n    #[serde(skip)]\n    pub no: u8,\n}\n\n\
                  #[serde(rename_all = \"snake_case\")]\npub enum B {\n    OneTwo,\n    Of(Vec<String>),\n}\n";
    let types = read(source);
    let [a, b] = types.as_slice() else { panic!("{types:?}") };
    assert_eq!((a.doc.as_str(), a.members.len(), a.members[0].name.as_str()), ("What it is.", 2, "type"));
    assert_eq!((a.members[0].doc.as_str(), a.optional(&a.members[0]), a.optional(&a.members[1])), ("First. Of two.", false, true));
    assert_eq!((b.members[0].name.as_str(), b.members[1].holds.as_str()), ("one_two", "Vec<String>"));
}
