//! The handles that a lookup stream announces: files and schemas named once, then by number.
//!
//! Knows announce messages and what they define. It must not know who asked for what; a handle that an answer uses was
//! announced on the same stream before it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use alcedo_lookup::schema::{Column, RowSchema};
use alcedo_proto::v1 as pb;

use crate::question::Spread;

/// So many handles and a stream is retired: calls go on on a new one. A name and a version are about 200 bytes, so this
/// is 13 MB.
pub(crate) const RETIRE_HANDLES: usize = 65_536;
/// So many handles and the stream is ended as hostile: a worker may announce beyond the retirement only for calls under
/// way.
pub(crate) const MAX_HANDLES: usize = 4 * RETIRE_HANDLES;

/// One content version of one file.
#[derive(Debug, Clone)]
pub(crate) struct FileVersion {
    pub(crate) url: Arc<str>,
    pub(crate) version: Arc<str>,
}

/// What one entry of an answer speaks of.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) file: FileVersion,
    pub(crate) schema: Arc<RowSchema>,
}

type ByHandle<T> = HashMap<u32, T, BuildHasherDefault<Spread>>;

/// All handles of one stream, or of one unary answer.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    files: ByHandle<FileVersion>,
    /// A schema that cannot be read fails the answers that use it, not the stream: the worker may be newer than this
    /// client.
    schemas: ByHandle<Result<Arc<RowSchema>, String>>,
}

impl Handles {
    /// Takes definitions. The first one of a handle stays, as the contract says that it never changes.
    pub(crate) fn announce(&mut self, announce: pb::Announce) {
        for file in announce.files {
            let version = FileVersion { url: file.url.into(), version: file.version.into() };
            self.files.entry(file.handle).or_insert(version);
        }
        for schema in announce.schemas {
            let columns = schema.schema.unwrap_or_default().columns;
            self.schemas.entry(schema.handle).or_insert_with(|| row_schema(columns).map(Arc::new));
        }
    }

    /// How many handles are defined.
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.schemas.len()
    }

    /// What each entry of an answer speaks of, or which handle is wrong.
    pub(crate) fn resolve(&self, files: &[pb::FileRows]) -> Result<Vec<Named>, String> {
        files.iter().map(|rows| self.named(rows.file, rows.schema)).collect()
    }

    fn named(&self, file: u32, schema: u32) -> Result<Named, String> {
        let file = self.files.get(&file).ok_or_else(|| format!("file handle {file} was never announced"))?;
        let schema = self.schemas.get(&schema).ok_or_else(|| format!("schema handle {schema} was never announced"))?;
        Ok(Named { file: file.clone(), schema: Arc::clone(schema.as_ref().map_err(String::clone)?) })
    }
}

fn row_schema(columns: Vec<pb::Column>) -> Result<RowSchema, String> {
    if columns.is_empty() {
        return Err("a row schema has no column".to_owned());
    }
    let column = |column: pb::Column| match column.r#type.parse() {
        Ok(ty) => Ok(Column { name: column.name, ty }),
        Err(error) => Err(format!("the type of column `{}` cannot be read: {error}", column.name)),
    };
    Ok(RowSchema { columns: columns.into_iter().map(column).collect::<Result<_, _>>()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn schema(handle: u32, ty: &str) -> pb::SchemaHandle {
        let columns = vec![pb::Column { name: "c".to_owned(), r#type: ty.to_owned() }];
        pb::SchemaHandle { handle, schema: Some(pb::RowSchema { columns }) }
    }

    fn file(handle: u32, url: &str) -> pb::FileVersion {
        pb::FileVersion { handle, url: url.to_owned(), version: "v".to_owned(), size_bytes: 1 }
    }

    fn uses(file: u32, schema: u32) -> [pb::FileRows; 1] {
        [pb::FileRows { file, schema, ..Default::default() }]
    }

    #[test]
    fn a_type_of_the_future_fails_only_the_answers_that_use_it() {
        let mut handles = Handles::default();
        let schemas = vec![schema(1, "int64"), schema(2, "quaternion"), pb::SchemaHandle { handle: 3, schema: None }];
        handles.announce(pb::Announce { files: vec![file(7, "s3://a")], schemas });
        assert_eq!(&*handles.resolve(&uses(7, 1)).unwrap()[0].file.url, "s3://a");
        assert!(handles.resolve(&uses(7, 2)).unwrap_err().contains("column `c` cannot be read"));
        assert!(handles.resolve(&uses(7, 3)).unwrap_err().contains("no column"));
        assert_eq!(handles.resolve(&uses(7, 4)).unwrap_err(), "schema handle 4 was never announced");
        assert_eq!(handles.resolve(&uses(8, 1)).unwrap_err(), "file handle 8 was never announced");
    }

    #[test]
    fn a_handle_keeps_its_first_meaning() {
        let mut handles = Handles::default();
        handles.announce(pb::Announce { files: vec![file(7, "s3://a")], schemas: vec![schema(1, "int64")] });
        handles.announce(pb::Announce { files: vec![file(7, "s3://b")], schemas: vec![schema(1, "bool")] });
        let named = handles.resolve(&uses(7, 1)).unwrap();
        assert_eq!((&*named[0].file.url, named[0].schema.columns[0].ty.to_string()), ("s3://a", "int64".to_owned()));
        assert_eq!(handles.len(), 2);
    }
}
