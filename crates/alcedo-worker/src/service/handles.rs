//! Layer 3: the handles of one stream, or of one unary answer.
//!
//! Knows which file versions and schemas were announced. It must not know answers. Each is announced once, before its
//! first use, so that an answer repeats neither a URL nor a schema.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use alcedo_cache::FileKey;
use alcedo_lookup::schema::RowSchema;
use alcedo_proto::v1;

use crate::prepared::FileTarget;
use crate::reader::FileVersion;

/// Handles of one stream: a few hundred bytes each, so a stream holds at most a few MiB. A stream that has used them up
/// ends at a message boundary and its client opens a new one.
const MAX_HANDLES: usize = 16_384;

/// What was announced so far, and what is to be announced next. Handles count from 1.
#[derive(Debug, Default)]
pub(super) struct Handles {
    files: HashMap<FileKey, u32>,
    /// By a digest of the column names; schemas themselves are compared.
    schemas: HashMap<u64, Vec<(Arc<RowSchema>, u32)>>,
    last_schema: u32,
    fresh: v1::Announce,
    /// The handles of a file and its schema by targets that were answered at once, and the last of them.
    targets: HashMap<u64, (u32, u32)>,
    last_target: (u64, (u32, u32)),
}

impl Handles {
    /// The handle of a file version.
    pub(super) fn file(&mut self, version: &FileVersion) -> u32 {
        if let Some(handle) = self.files.get(&version.key) {
            return *handle;
        }
        let handle = self.files.len() as u32 + 1;
        self.files.insert(version.key.clone(), handle);
        self.fresh.files.push(v1::FileVersion {
            handle,
            url: version.stat.url.to_string(),
            version: version.key.version().to_owned(),
            size_bytes: version.stat.size,
        });
        handle
    }

    /// The handle of a schema.
    pub(super) fn schema(&mut self, schema: &Arc<RowSchema>) -> u32 {
        let mut digest = DefaultHasher::new();
        schema.columns.iter().for_each(|column| column.name.hash(&mut digest));
        let alike = self.schemas.entry(digest.finish()).or_default();
        if let Some((_, handle)) = alike.iter().find(|(known, _)| Arc::ptr_eq(known, schema) || known == schema) {
            return *handle;
        }
        self.last_schema += 1;
        let handle = self.last_schema;
        alike.push((Arc::clone(schema), handle));
        let column = |column: &alcedo_lookup::schema::Column| v1::Column {
            name: column.name.clone(),
            r#type: column.ty.to_string(),
        };
        let schema = v1::RowSchema { columns: schema.columns.iter().map(column).collect() };
        self.fresh.schemas.push(v1::SchemaHandle { handle, schema: Some(schema) });
        handle
    }

    /// The handles of a file version and its schema, as one question sees them.
    pub(super) fn target(&mut self, target: &FileTarget) -> (u32, u32) {
        let (last, handles) = self.last_target;
        // Targets count from 1.
        if last == target.id {
            return handles;
        }
        let handles = match self.targets.get(&target.id) {
            Some(handles) => *handles,
            None => {
                let handles = (self.file(&target.version), self.schema(target.prepared.schema()));
                // Many targets may share few handles.
                if self.targets.len() >= MAX_HANDLES {
                    self.targets.clear();
                }
                self.targets.insert(target.id, handles);
                handles
            }
        };
        self.last_target = (target.id, handles);
        handles
    }

    /// What must be sent before the next answer.
    pub(super) fn announce(&mut self) -> Option<v1::Announce> {
        let is_new = !self.fresh.files.is_empty() || !self.fresh.schemas.is_empty();
        is_new.then(|| std::mem::take(&mut self.fresh))
    }

    /// No more answers should need new handles.
    pub(super) fn is_full(&self) -> bool {
        self.files.len() + self.last_schema as usize >= MAX_HANDLES
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use alcedo_lookup::schema::{Column, Type};
    use alcedo_origin::{ContentVersion, FileStat};

    fn version(number: usize) -> FileVersion {
        let url: Arc<str> = format!("s3://lake/{number}").into();
        FileVersion::new(FileStat { url, version: ContentVersion::new("e:1"), etag: None, size: 9, modified_us: 0 })
    }

    fn schema(ty: Type) -> Arc<RowSchema> {
        Arc::new(RowSchema { columns: vec![Column { name: "a".to_owned(), ty }] })
    }

    #[test]
    fn each_version_and_schema_is_announced_once() {
        let mut handles = Handles::default();
        assert_eq!((handles.file(&version(1)), handles.file(&version(2)), handles.file(&version(1))), (1, 2, 1));
        let (int, text) = (schema(Type::Int64), schema(Type::String));
        assert_eq!((handles.schema(&int), handles.schema(&text), handles.schema(&schema(Type::Int64))), (1, 2, 1));
        let announced = handles.announce().unwrap();
        assert_eq!((announced.files.len(), announced.schemas.len()), (2, 2));
        assert_eq!(announced.files[1].url, "s3://lake/2");
        assert_eq!(announced.schemas[1].schema.as_ref().unwrap().columns[0].r#type, "string");
        handles.file(&version(2));
        assert_eq!(handles.announce(), None);
    }

    #[test]
    fn a_table_says_when_it_is_full() {
        let mut handles = Handles::default();
        for number in 0..MAX_HANDLES - 1 {
            handles.file(&version(number));
        }
        assert!(!handles.is_full());
        handles.file(&version(MAX_HANDLES));
        assert!(handles.is_full());
    }
}
