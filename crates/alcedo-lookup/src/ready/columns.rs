//! The columns of stored rows: the key first, then the others as the file has them.
//!
//! What is stored is named by ordinals of the file's schema and by a fingerprint over names and types, so that rows are
//! never read with columns that are not theirs.

use std::sync::Arc;

use parquet::basic::Type as Physical;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::file_index::FileIndex;
use crate::int96::Int96Columns;
use crate::key_column::KeyColumn;
use crate::projection::{Projection, key_leaf};
use crate::ready::fields::Extent;
use crate::ready::key_field::KeyField;
use crate::schema::{RowSchema, Type};
use crate::schema_tree::{Named, SchemaTree};

/// The columns of stored rows.
pub(crate) struct StoredColumns {
    pub(crate) key: KeyColumn,
    pub(crate) key_field: KeyField,
    /// The key first.
    pub(crate) named: Vec<Named>,
    pub(crate) schema: Arc<RowSchema>,
    /// How far the value of each column reaches.
    pub(crate) extents: Box<[Extent]>,
    /// Of the key, and of names and types of all columns.
    pub(crate) fingerprint: u64,
}

impl StoredColumns {
    /// The columns that are stored for a key column and a set of others; none: all root columns. The order of the set
    /// means nothing. Gives the projection that reads them, too.
    ///
    /// # Errors
    /// No such column; one that cannot be a key or cannot be stored.
    pub(crate) fn resolve(
        index: &FileIndex,
        key_column: Option<&str>,
        columns: Option<&[String]>,
    ) -> Result<(Self, Projection), Error> {
        let schema = index.schema();
        let key = index.key_column(key_column)?;
        let mut others: Vec<Named> = match columns {
            Some(names) => names.iter().map(|name| schema.find(name)).collect::<Result<_, _>>()?,
            None => (0..schema.root_names().len()).map(Named::Root).collect(),
        };
        others.sort_by_key(|named| in_file(schema, *named));
        others.dedup();
        let first = key_named(schema, key.leaf);
        let named = std::iter::once(first).chain(others.into_iter().filter(|named| *named != first)).collect();
        Self::of(index, key, named)
    }

    /// The columns that a head names; `named` starts with the key.
    ///
    /// # Errors
    /// The file has no such columns.
    pub(crate) fn of_head(index: &FileIndex, key: usize, named: Vec<Named>) -> Result<Self, Error> {
        let schema = index.schema();
        let known = |named: &Named| match named {
            Named::Root(root) => *root < schema.root_names().len(),
            Named::Leaf(leaf) => {
                *leaf < schema.num_columns() && {
                    let column = schema.column(*leaf);
                    column.max_rep_level() == 0 && column.path().parts().len() > 1
                }
            }
        };
        let fits = key < schema.num_columns() && named.iter().all(known);
        if !fits || named.first() != Some(&key_named(schema, key)) {
            return Err(Error::corrupt("lookup-ready rows of columns that the file has not"));
        }
        Ok(Self::of(index, key_leaf(schema, key)?, named)?.0)
    }

    fn of(index: &FileIndex, key: KeyColumn, named: Vec<Named>) -> Result<(Self, Projection), Error> {
        let schema = index.schema();
        let asked = named.iter().map(|named| (name_of(schema, *named), *named)).collect();
        let projection = Projection::of(schema, asked)?;
        if !Int96Columns::new(&projection, schema).is_empty() || key.descr.physical_type() == Physical::INT96 {
            return Err(Error::Unsupported(
                "lookup-ready rows of INT96 timestamps: the unit of each answer depends on its values".to_owned(),
            ));
        }
        let key_field = KeyField::new(&key)?;
        let row_schema = projection.schema.clone();
        let extents = row_schema.columns.iter().map(|column| Extent::of(&column.ty)).collect();
        let fingerprint = fingerprint(&key, &row_schema);
        let columns = Self { key, key_field, named, schema: row_schema, extents, fingerprint };
        Ok((columns, projection))
    }

    /// Bytes of a stored row's null bits.
    pub(crate) fn null_bytes(&self) -> usize {
        self.named.len().div_ceil(8)
    }

    /// Bytes of memory beside itself, about.
    pub(crate) fn weight(&self) -> usize {
        let column = |name: &str| name.len() + size_of::<(String, Type)>() + size_of::<Extent>() + size_of::<Named>();
        self.schema.columns.iter().map(|c| column(&c.name)).sum::<usize>() + self.key.name.len()
    }

    /// The range that values of the key column's type have where they are stored wider than that; values beyond it are
    /// cut to another value as they are read, while a search compares what is stored.
    pub(crate) fn narrow_range(&self) -> Option<std::ops::RangeInclusive<i128>> {
        Some(match self.key.ty {
            Type::Int8 => i8::MIN.into()..=i8::MAX.into(),
            Type::Int16 => i16::MIN.into()..=i16::MAX.into(),
            Type::UInt8 => 0..=u8::MAX.into(),
            Type::UInt16 => 0..=u16::MAX.into(),
            _ => return None,
        })
    }
}

/// The key's leaf as a column: a root column where it is one.
fn key_named(schema: &SchemaTree, leaf: usize) -> Named {
    if schema.column(leaf).path().parts().len() == 1 { Named::Root(schema.root_of(leaf)) } else { Named::Leaf(leaf) }
}

/// A column's place: a root column comes before its own leaves.
fn in_file(schema: &SchemaTree, named: Named) -> (usize, usize) {
    match named {
        Named::Root(root) => (root, 0),
        Named::Leaf(leaf) => (schema.root_of(leaf), leaf + 1),
    }
}

fn name_of(schema: &SchemaTree, named: Named) -> String {
    match named {
        Named::Root(root) => schema.root_names().nth(root).unwrap_or_default().to_owned(),
        Named::Leaf(leaf) => schema.column(leaf).path().parts().join("."),
    }
}

fn fingerprint(key: &KeyColumn, schema: &RowSchema) -> u64 {
    let mut text = format!("{}\n", key.leaf);
    for column in &schema.columns {
        text.push_str(&format!("{}:{}:{}\n", column.name.len(), column.name, column.ty));
    }
    xxh3_64(text.as_bytes())
}
