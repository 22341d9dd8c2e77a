//! The tensors of a GGUF file: how many weights of which type, and where the last of them ends.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
};

use llama_stack_core::Result;

use super::{invalid, reader::Reader};

#[derive(Default)]
pub(super) struct Tensors {
    types: BTreeMap<&'static str, u64>,
    pub(super) parameters: u64,
    pub(super) bytes: u64,
    pub(super) scaled_positions: bool,
    /// The size that the file needs. Bytes.
    pub(super) end: u64,
}

impl Tensors {
    /// The type that most weights have.
    pub(super) fn most(&self) -> &'static str {
        self.types.iter().max_by_key(|(_, weights)| **weights).map_or("none", |(name, _)| name)
    }
}

/// ggml's types: number, name, weights per block, bytes per block (`ggml.h` and `ggml-common.h`).
const TYPES: [(u32, &str, u64, u64); 32] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

/// `general.file_type` (llama.cpp's `llama_ftype`), for the kinds that are in use.
pub(super) fn file_type(number: Option<u32>) -> Option<&'static str> {
    Some(match number? {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        32 => "BF16",
        _ => return None,
    })
}

/// Reads `count` descriptions; tensor data begins after them, at the next multiple of `alignment`.
pub(super) fn read<R: Read + Seek>(reader: &mut Reader<R>, count: u64, alignment: u64) -> Result<Tensors> {
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(invalid(format!("its alignment is {alignment}, which is not a power of two")));
    }
    let mut tensors = Tensors::default();
    // From where the data begins.
    let mut extent = 0;
    for _ in 0..count {
        let name = reader.string("the name of a tensor", 1024)?;
        let odd = |what: &str| invalid(format!("tensor {name:?} {what}"));
        let dimensions = reader.u32()?;
        if dimensions > 4 {
            return Err(odd(&format!("has {dimensions} dimensions; 4 are the most")));
        }
        let (mut weights, mut row) = (1_u64, 1);
        for dimension in 0..dimensions {
            let size = reader.u64()?;
            row = if dimension == 0 { size } else { row };
            weights = weights.checked_mul(size).ok_or_else(|| odd("has more weights than can be counted"))?;
        }
        let (kind, offset) = (reader.u32()?, reader.u64()?);
        let Some((_, type_name, block, bytes)) = TYPES.iter().find(|known| known.0 == kind) else {
            return Err(odd(&format!("is of unknown type {kind}: the file is damaged, or newer than this build")));
        };
        if row % block != 0 || offset % alignment != 0 {
            return Err(odd("is not aligned as its type demands"));
        }
        let too_large = || odd("is larger than can be counted");
        let size = (weights / block).checked_mul(*bytes).ok_or_else(too_large)?;
        extent = size.checked_add(offset).ok_or_else(too_large)?.max(extent);
        tensors.scaled_positions |= name == "rope_freqs.weight";
        tensors.bytes = tensors.bytes.saturating_add(size);
        let total = tensors.types.entry(type_name).or_default();
        *total = total.saturating_add(weights);
        tensors.parameters = tensors.parameters.saturating_add(weights);
    }
    // Positions are below the longest header: no overflow.
    tensors.end = reader.position().next_multiple_of(alignment).saturating_add(extent);
    if count == 0 {
        tensors.end = reader.position();
    }
    Ok(tensors)
}
