//! A file of one column, sound until something about it is changed.

use crate::fuzzed::craft::{ChunkClaims, Element, File, PageClaims, footer, row_group};

/// One column in one row group.
pub(crate) struct Column {
    /// The leaf, and the groups around it; the root is put before them.
    pub(crate) schema: Vec<Element>,
    /// Pages with their headers.
    pub(crate) pages: Vec<u8>,
    /// Of these, the dictionary page's bytes.
    pub(crate) dictionary: usize,
    pub(crate) values: i64,
    pub(crate) rows: i64,
    pub(crate) codec: i64,
    /// With a second column `k` of ones: what is in a list is found by another column's key.
    pub(crate) keyed: bool,
}

impl Column {
    /// A leaf `v` and one page with its header.
    pub(crate) fn new(leaf: Element, page: Vec<u8>, rows: i64) -> Self {
        Self { schema: vec![leaf], pages: page, dictionary: 0, values: rows, rows, codec: 0, keyed: false }
    }

    /// Integers in plain encoding.
    pub(crate) fn int64(values: &[i64]) -> Self {
        let body: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let rows = values.len() as i64;
        Self::new(Element::leaf("v", 2), PageClaims::v1(body.len(), rows, 0).page(&body), rows)
    }

    /// The file, when the chunk's claims have been changed.
    pub(crate) fn file_with(&self, change: impl FnOnce(&mut ChunkClaims, &mut File)) -> Vec<u8> {
        let mut file = File::default();
        let (at, bytes) = file.put(&self.pages);
        let leaf = self.schema.iter().find(|element| element.physical.is_some()).unwrap();
        let mut chunk = ChunkClaims::new("v", leaf.physical.unwrap(), self.values, at, bytes);
        chunk.path = self.schema.iter().map(|element| element.name.clone()).collect();
        chunk.codec = self.codec;
        if self.dictionary > 0 {
            (chunk.dictionary, chunk.data) = (Some(at), at + self.dictionary as i64);
        }
        change(&mut chunk, &mut file);
        let mut schema = vec![Element::group("root", 1)];
        schema.extend(self.schema.iter().cloned());
        let mut chunks = vec![chunk];
        if self.keyed {
            schema[0].children = Some(2);
            schema.push(Element::leaf("k", 1));
            let keys = 1_i32.to_le_bytes().repeat(self.rows as usize);
            let (at, bytes) = file.put(&PageClaims::v1(keys.len(), self.rows, 0).page(&keys));
            chunks.push(ChunkClaims::new("k", 1, self.rows, at, bytes));
        }
        file.end(&footer(&schema, [row_group(&chunks, self.rows)], self.rows).end())
    }

    /// The file.
    pub(crate) fn file(&self) -> Vec<u8> {
        self.file_with(|_, _| {})
    }
}
