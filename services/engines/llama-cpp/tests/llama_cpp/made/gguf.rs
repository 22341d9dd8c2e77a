//! Writes GGUF, version 3, tensors in 32-bit floats. Format: `docs/gguf.md` of ggml.

use std::path::Path;

const ALIGNMENT: usize = 32;

#[derive(Default)]
pub struct Writer {
    entries: u64,
    metadata: Vec<u8>,
    tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Writer {
    pub fn new(architecture: &str) -> Self {
        Self::default().text("general.architecture", architecture)
    }

    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries += 1;
        string(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self
    }

    pub fn text(self, key: &str, text: &str) -> Self {
        let mut value = Vec::new();
        string(&mut value, text);
        self.entry(key, 8, &value)
    }

    pub fn number(self, key: &str, number: u32) -> Self {
        self.entry(key, 4, &number.to_le_bytes())
    }

    pub fn float(self, key: &str, number: f32) -> Self {
        self.entry(key, 6, &number.to_le_bytes())
    }

    pub fn truth(self, key: &str, truth: bool) -> Self {
        self.entry(key, 7, &[u8::from(truth)])
    }

    pub fn texts(self, key: &str, texts: &[String]) -> Self {
        let mut value = 8_u32.to_le_bytes().to_vec();
        value.extend((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| string(&mut value, text));
        self.entry(key, 9, &value)
    }

    pub fn numbers(self, key: &str, numbers: &[i32]) -> Self {
        let mut value = 5_u32.to_le_bytes().to_vec();
        value.extend((numbers.len() as u64).to_le_bytes());
        numbers.iter().for_each(|number| value.extend(number.to_le_bytes()));
        self.entry(key, 9, &value)
    }

    /// `shape` as mathematics writes it: rows first. GGUF has it the other way round.
    pub fn tensor(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        self.tensors.push((name.into(), shape.iter().rev().map(|size| *size as u64).collect(), values));
    }

    pub fn write(self, path: &Path) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(self.metadata);
        let mut offset = 0_usize;
        for (name, shape, values) in &self.tensors {
            string(&mut bytes, name);
            bytes.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend((offset as u64).to_le_bytes());
            offset += (values.len() * 4).next_multiple_of(ALIGNMENT);
        }
        for (_, _, values) in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        std::fs::write(path, bytes).unwrap();
    }
}
