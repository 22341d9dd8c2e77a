//! What a safetensors file says of itself, compared with its size.
//!
//! ```text
//! length of the header (8 bytes, little-endian) │ header (JSON: name → dtype, shape, data_offsets) │ tensor data
//! ```
//! Format: the README of huggingface/safetensors.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use serde::Deserialize;

use llama_stack_core::{Error, Result};

use crate::{disk, gguf::truncated};

/// As the reference implementation has it.
const LONGEST_HEADER: u64 = 100_000_000;

#[derive(Clone, Debug)]
pub struct Info {
    pub tensors: usize,
    /// Weights in this file.
    pub parameters: u64,
    /// Weights by type, for example `F32`.
    pub dtypes: BTreeMap<String, u64>,
    /// Tokens in the vocabulary: rows of the token table (`….embed_tokens.weight`), where it is in this file.
    pub vocab_size: Option<u64>,
    /// Bytes.
    pub file_size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, rename = "__metadata__")]
    _metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Tensor>,
}

/// Reads the header, and compares shapes with extents and extents with the size of the file. Blocks; some milliseconds.
///
/// # Errors
/// `InvalidArgument` (`model_file_invalid`) no safetensors, or one that contradicts itself · `DataLoss`
/// (`model_file_truncated`) "truncated: needs N bytes, has M" · `NotFound` and others for the file itself.
pub fn inspect(path: &Path) -> Result<Info> {
    let wrong = |cause| disk::error(path, cause);
    let file = File::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    if !meta.is_file() {
        return Err(wrong(std::io::ErrorKind::IsADirectory.into()));
    }
    let mut reader = BufReader::new(file);
    let mut length = [0; 8];
    if meta.len() < 8 {
        return Err(truncated(8, meta.len()));
    }
    reader.read_exact(&mut length).map_err(wrong)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(invalid(format!("is not a safetensors file: its header would be {length} bytes long")));
    }
    if 8 + length > meta.len() {
        return Err(truncated(8 + length, meta.len()));
    }
    let header: Header = serde_json::from_reader(reader.take(length))
        .map_err(|error| invalid("is not a safetensors file: its header is not what the format says").with_source(error))?;
    check(&header.tensors, 8 + length, meta.len())
}

fn check(tensors: &BTreeMap<String, Tensor>, data: u64, file_size: u64) -> Result<Info> {
    let mut info = Info { tensors: tensors.len(), parameters: 0, dtypes: BTreeMap::new(), vocab_size: None, file_size };
    let mut end = 0;
    for (name, tensor) in tensors {
        let odd = |what: &str| invalid(format!("tensor {name:?} {what}"));
        let weights = tensor.shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
        let weights = weights.ok_or_else(|| odd("has more weights than can be counted"))?;
        let (from, to) = tensor.data_offsets;
        // Types with less than a byte per weight and ones made later are not counted.
        let bytes = width(&tensor.dtype).map(|width| weights.checked_mul(width));
        if from > to || bytes.is_some_and(|bytes| bytes != Some(to - from)) {
            return Err(odd("has another size than its shape and type give"));
        }
        end = to.max(end);
        if name.ends_with("embed_tokens.weight") {
            info.vocab_size = info.vocab_size.max(tensor.shape.first().copied());
        }
        info.parameters = info.parameters.saturating_add(weights);
        let total = info.dtypes.entry(tensor.dtype.clone()).or_default();
        *total = total.saturating_add(weights);
    }
    let needs = data.saturating_add(end);
    match needs.cmp(&file_size) {
        std::cmp::Ordering::Greater => Err(truncated(needs, file_size)),
        std::cmp::Ordering::Less => Err(invalid(format!("has {} bytes after its tensors", file_size - needs))),
        std::cmp::Ordering::Equal => Ok(info),
    }
}

/// Bytes per weight.
pub(crate) fn width(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" | "C64" => 8,
        _ => return None,
    })
}

fn invalid(what: impl Into<String>) -> Error {
    Error::invalid("files", what).with_reason("model_file_invalid")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(header: &str, data: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&vec![0; data]).unwrap();
        file
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[],"data_offsets":[16,18]}}"#;

    #[test]
    fn a_whole_file_says_what_it_holds() {
        let info = inspect(file(GOOD, 18).path()).unwrap();
        assert_eq!((info.tensors, info.parameters, info.dtypes["F32"]), (2, 5, 4));
        assert_eq!(info.vocab_size, None);
        let table = r#"{"model.embed_tokens.weight":{"dtype":"F16","shape":[3,2],"data_offsets":[0,12]}}"#;
        assert_eq!(inspect(file(table, 12).path()).unwrap().vocab_size, Some(3));
    }

    #[test]
    fn a_file_that_ends_early_says_both_sizes() {
        let needs = 8 + GOOD.len() + 18;
        let error = inspect(file(GOOD, 10).path()).unwrap_err();
        assert_eq!(error.message(), format!("truncated: needs {needs} bytes, has {}", needs - 8));
        assert_eq!(error.code(), llama_stack_core::Code::DataLoss);
        assert!(inspect(file(GOOD, 20).path()).unwrap_err().message().contains("2 bytes after its tensors"));
    }

    #[test]
    fn what_is_no_safetensors_is_refused() {
        for (header, what) in [
            (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}"#, "another size than"),
            (r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#, "another size than"),
            (r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#, "more weights"),
            ("not json", "not what the format says"),
        ] {
            assert!(inspect(file(header, 16).path()).unwrap_err().message().contains(what), "{header}");
        }
        let mut html = tempfile::NamedTempFile::new().unwrap();
        html.write_all(b"<html>not found</html>").unwrap();
        assert!(inspect(html.path()).unwrap_err().message().contains("is not a safetensors file"));
    }
}
