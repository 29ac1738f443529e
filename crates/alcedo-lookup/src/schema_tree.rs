//! A file's schema: the tree of its columns, read from thrift within bounds, with what lookups ask of it made ready.
//!
//! The tree is built here and not by the parquet crate, whose own way from thrift to a schema recurses per level,
//! reserves by the counts that a file claims, and gives up a whole file over one column that it does not know. It gets
//! the finished tree. Names are resolved by one look into a map, and what is converted to Arrow is the part of the tree
//! that a question asks for, so that a lookup in a file of thousands of columns costs what it reads.

mod element;

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;
use std::slice::Iter;
use std::sync::Arc;

use bytes::Bytes;
use parquet::file::metadata::{FileMetaData, ParquetMetaData};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor, Type, TypePtr};

use crate::error::{Error, Short};
use crate::limits::Limits;
use crate::schema::Unit;
use crate::schema_tree::element::Element;
use crate::thrift::{Reader, STRUCT};

/// What the parquet crate and the maps here take for a leaf and for a group besides their names, and for each name on
/// the way to a leaf (a text of its own each time).
const LEAF_BYTES: usize = 400;
const GROUP_BYTES: usize = 200;
const NAME_BYTES: usize = 40;

/// Names that are compared with one that was not found, and how long such names are at most: similarity costs the
/// product of both lengths.
const MAX_HINT_NAMES: usize = 4_096;
const MAX_HINT_BYTES: usize = 64;

/// A file's columns.
pub(crate) struct SchemaTree {
    metadata: Arc<ParquetMetaData>,
    /// The `list<SchemaElement>` as the file has it.
    thrift: Bytes,
    /// Per root column: its leaves.
    roots: Box<[Range<usize>]>,
    names: HashMap<Box<str>, Named>,
    /// Leaves that are not simply what their type says, ascending.
    odd: Box<[(usize, Odd)]>,
    weight: usize,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A root column, by its ordinal.
    Root(usize),
    /// A leaf inside structs, by its ordinal in the file.
    Leaf(usize),
}

/// What is odd about a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// It is an INTERVAL, which the parquet crate is told is 12 plain bytes.
    Interval,
    /// A plain integer that a writer calls a duration.
    Duration(Unit),
    NoType,
    UnknownType,
    BadLength,
    NoRepetition,
}

impl Odd {
    fn defect(self) -> Option<&'static str> {
        match self {
            Self::Interval | Self::Duration(_) => None,
            Self::NoType => Some("has no physical type"),
            Self::UnknownType => Some("has a physical type that is not known"),
            Self::BadLength => Some("is of fixed length without a length that can be read"),
            Self::NoRepetition => Some("is neither required nor optional nor repeated"),
        }
    }
}

impl SchemaTree {
    /// Reads the schema that stands at the reader's place.
    ///
    /// # Errors
    /// Its counts contradict each other, or it passes a bound. A column that cannot be read is no error here.
    pub(crate) fn read(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, Error> {
        let start = reader.position();
        let mut built = Builder::default();
        built.read(reader, limits)?;
        // A copy, so that whoever keeps the schema does not keep a whole footer alive.
        let thrift = Bytes::copy_from_slice(reader.since(start));
        let root = Type::group_type_builder("schema").with_fields(built.roots).build()?;
        let descr = SchemaDescriptor::new(Arc::new(root));
        let mut roots = vec![0..0; descr.root_schema().get_fields().len()];
        for leaf in 0..descr.num_columns() {
            let root: &mut Range<usize> = &mut roots[descr.get_column_root_idx(leaf)];
            *root = if root.end == 0 { leaf..leaf + 1 } else { root.start..leaf + 1 };
        }
        let names = names(&descr);
        let weight = built.bytes + thrift.len() + names.capacity() * size_of::<(Box<str>, Named)>();
        let metadata = FileMetaData::new(1, 0, None, None, Arc::new(descr), None);
        Ok(Self {
            metadata: Arc::new(ParquetMetaData::new(metadata, Vec::new())),
            thrift,
            roots: roots.into(),
            names,
            odd: built.odd.into(),
            weight,
        })
    }

    /// Reads a schema on its own, as a file index or an answer of data pages carries it.
    ///
    /// # Errors
    /// As [`SchemaTree::read`]; bytes beyond its end.
    pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, "schema", limits);
        let schema = Self::read(&mut reader, limits)?;
        if reader.position() != bytes.len() {
            return Err(reader.error("it has bytes beyond its end"));
        }
        Ok(schema)
    }

    /// The parquet crate's form, without row groups.
    pub(crate) fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.metadata
    }

    /// The thrift bytes of the schema's `list<SchemaElement>`, as the file has them.
    pub(crate) fn thrift(&self) -> &Bytes {
        &self.thrift
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    fn descr(&self) -> &SchemaDescriptor {
        self.metadata.file_metadata().schema_descr()
    }

    /// Leaf columns.
    pub(crate) fn num_columns(&self) -> usize {
        self.descr().num_columns()
    }

    pub(crate) fn column(&self, leaf: usize) -> ColumnDescPtr {
        self.descr().column(leaf)
    }

    /// The dotted name of a leaf, short enough for a message.
    pub(crate) fn short_name(&self, leaf: usize) -> String {
        // A path may be megabytes long; a message shows its beginning.
        let mut name = String::new();
        for part in self.descr().columns()[leaf].path().parts() {
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&Short::name(part).to_string());
            if name.len() > Short::NAME_BYTES {
                break;
            }
        }
        Short::name(&name).to_string()
    }

    /// Names of root columns, in file order.
    pub(crate) fn root_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.descr().root_schema().get_fields().iter().map(|field| field.name())
    }

    /// The leaves of a root column.
    pub(crate) fn root_leaves(&self, root: usize) -> Range<usize> {
        self.roots[root].clone()
    }

    /// The root column that a leaf belongs to.
    pub(crate) fn root_of(&self, leaf: usize) -> usize {
        self.descr().get_column_root_idx(leaf)
    }

    /// A root column of exactly this name wins over a dotted path; of several with one name the first wins.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`].
    pub(crate) fn find(&self, name: &str) -> Result<Named, Error> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| Error::NoSuchColumn { name: Short::name(name).to_string(), hint: self.nearest(name) })
    }

    /// The most similar name, if one is similar enough to be meant.
    fn nearest(&self, name: &str) -> Option<String> {
        const SIMILAR: f64 = 0.7;
        if name.len() > MAX_HINT_BYTES {
            return None;
        }
        let lower = name.to_lowercase();
        let leaves = self.descr().columns().iter().filter(|leaf| leaf.path().parts().len() > 1);
        let leaves = leaves.map(|leaf| leaf.path().parts().iter().map(String::as_str).collect::<Vec<_>>());
        let names = self.root_names().map(|name| vec![name]).chain(leaves).take(MAX_HINT_NAMES);
        let names = names.filter(|parts| parts.iter().map(|part| part.len() + 1).sum::<usize>() <= MAX_HINT_BYTES);
        let scored = names.map(|parts| parts.join("."));
        let scored = scored.map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate));
        scored.filter(|(score, _)| *score >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
    }

    fn odd(&self, leaf: usize) -> Option<Odd> {
        self.odd.binary_search_by_key(&leaf, |(leaf, _)| *leaf).ok().map(|at| self.odd[at].1)
    }

    /// Whether a leaf's 12 bytes are an interval.
    pub(crate) fn is_interval(&self, leaf: usize) -> bool {
        self.odd(leaf) == Some(Odd::Interval)
    }

    /// The unit of a leaf that is a duration.
    pub(crate) fn duration(&self, leaf: usize) -> Option<Unit> {
        match self.odd(leaf) {
            Some(Odd::Duration(unit)) => Some(unit),
            _ => None,
        }
    }

    /// The same with these leaves as durations. The mark is in the schema's bytes, so that it goes wherever they go.
    ///
    /// # Errors
    /// None but those of reading what was read before.
    pub(crate) fn with_durations(self, leaves: &[(usize, Unit)], limits: &Limits) -> Result<Self, Error> {
        let mut reader = Reader::new(&self.thrift, "schema", limits);
        let count = reader.list_of(STRUCT)?;
        let mut marked = reader.since(0).to_vec();
        let mut leaf = 0;
        for i in 0..count {
            let start = reader.position();
            let is_leaf = Element::read(&mut reader)?.is_leaf() && i > 0;
            let mark = leaves.iter().find(|(marked, _)| is_leaf && *marked == leaf);
            match mark {
                Some((_, unit)) => marked.extend(Element::marked(reader.since(start), *unit)),
                None => marked.extend_from_slice(reader.since(start)),
            }
            leaf += usize::from(is_leaf);
        }
        Self::decode(&marked, limits)
    }

    /// Checks that a leaf's values can be read.
    ///
    /// # Errors
    /// The schema does not say what they are, or says something that is not known.
    pub(crate) fn check_readable(&self, leaf: usize) -> Result<(), Error> {
        let Some((odd, defect)) = self.odd(leaf).and_then(|odd| Some((odd, odd.defect()?))) else { return Ok(()) };
        let message = format!("column `{}` {defect}: other columns can be read", self.short_name(leaf));
        Err(if odd == Odd::UnknownType { Error::Unsupported(message) } else { Error::Corrupt(message) })
    }

    /// The tree with no other leaves than these, which ascend.
    ///
    /// # Errors
    /// Never for leaves of this schema.
    pub(crate) fn pruned(&self, leaves: &[usize]) -> Result<SchemaDescriptor, Error> {
        let fields = self.descr().root_schema().get_fields();
        let mut wanted = leaves.iter().peekable();
        let mut kept = Vec::new();
        while let Some(leaf) = wanted.peek() {
            let root = self.root_of(**leaf);
            let mut next = self.roots[root].start;
            kept.extend(prune(&fields[root], &mut next, &mut wanted)?);
        }
        let root = Type::group_type_builder("schema").with_fields(kept).build()?;
        Ok(SchemaDescriptor::new(Arc::new(root)))
    }
}

fn names(descr: &SchemaDescriptor) -> HashMap<Box<str>, Named> {
    let fields = descr.root_schema().get_fields();
    let mut names = HashMap::with_capacity(fields.len());
    for (root, field) in fields.iter().enumerate() {
        names.entry(field.name().into()).or_insert(Named::Root(root));
    }
    for (leaf, column) in descr.columns().iter().enumerate() {
        let parts = column.path().parts();
        // A leaf inside a list or map is no single value.
        if parts.len() > 1 && column.max_rep_level() == 0 {
            names.entry(parts.join(".").into()).or_insert(Named::Leaf(leaf));
        }
    }
    names
}

/// The part of `ty` that holds wanted leaves; `next` is the ordinal of its first leaf, and then of the leaf after it.
fn prune(ty: &TypePtr, next: &mut usize, wanted: &mut Peekable<Iter<'_, usize>>) -> Result<Option<TypePtr>, Error> {
    if !ty.is_group() {
        let leaf = *next;
        *next += 1;
        return Ok(wanted.next_if(|wanted| **wanted == leaf).map(|_| ty.clone()));
    }
    let mut kept = Vec::new();
    for field in ty.get_fields() {
        kept.extend(prune(field, next, wanted)?);
    }
    let whole = kept.len() == ty.get_fields().len() && kept.iter().zip(ty.get_fields()).all(|(a, b)| Arc::ptr_eq(a, b));
    if whole || kept.is_empty() {
        return Ok((!kept.is_empty()).then(|| ty.clone()));
    }
    // Only structs are ever read in part.
    let info = ty.get_basic_info();
    let group = Type::group_type_builder(ty.name()).with_repetition(info.repetition()).with_fields(kept);
    Ok(Some(Arc::new(group.build()?)))
}

/// A tree in the making.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    roots: Vec<TypePtr>,
    leaves: usize,
    odd: Vec<(usize, Odd)>,
    bytes: usize,
}

/// A group whose children are still to come.
struct Open {
    element: Element,
    left: usize,
    fields: Vec<TypePtr>,
    /// Bytes of the names from the root down to this one.
    path_bytes: usize,
    defect: Option<Odd>,
}

impl Builder {
    fn read(&mut self, reader: &mut Reader<'_>, limits: &Limits) -> Result<(), Error> {
        let count = reader.list_of(STRUCT)?;
        if count > limits.schema_elements {
            return Err(Error::Limit(format!("{count} schema elements, at most {} are read", limits.schema_elements)));
        }
        for i in 0..count {
            let element = Element::read(reader)?;
            if i > 0 && self.open.is_empty() {
                return Err(reader.error("the schema has elements beyond its root's children"));
            }
            if element.children.is_some_and(|children| children > count - i - 1) {
                return Err(reader.error("a schema element claims more children than there are elements"));
            }
            self.add(element)?;
            if self.bytes > limits.schema_bytes {
                return Err(Error::Limit(format!("a schema of more than {} bytes in memory", limits.schema_bytes)));
            }
            if self.open.len() > limits.schema_depth {
                return Err(Error::Limit(format!("a schema more than {} levels deep", limits.schema_depth)));
            }
            self.close()?;
        }
        if !self.open.is_empty() || count == 0 {
            return Err(reader.error("the schema ends before its groups do"));
        }
        Ok(())
    }

    fn add(&mut self, element: Element) -> Result<(), Error> {
        let Some(parent) = self.open.last_mut() else {
            // The root's own name and repetition mean nothing.
            let left = element.children.unwrap_or(0);
            self.open.push(Open { element, left, fields: Vec::new(), path_bytes: 0, defect: None });
            return Ok(());
        };
        parent.left -= 1;
        let path_bytes = parent.path_bytes + NAME_BYTES + element.name.len();
        let defect = parent.defect;
        match element.children {
            Some(left) if left > 0 => {
                self.bytes += GROUP_BYTES + element.name.len();
                let defect = defect.or(element.defect());
                self.open.push(Open { element, left, fields: Vec::new(), path_bytes, defect });
            }
            _ if element.is_empty_group() => {}
            _ => {
                // Once for the parquet crate, once for the map of names.
                self.bytes += LEAF_BYTES + 2 * path_bytes;
                let (ty, odd) = element.leaf()?;
                if let Some(odd) = defect.or(odd) {
                    self.odd.push((self.leaves, odd));
                }
                self.leaves += 1;
                parent.fields.push(ty);
            }
        }
        Ok(())
    }

    /// Closes the groups that have all their children.
    fn close(&mut self) -> Result<(), Error> {
        while let Some(group) = self.open.pop_if(|group| group.left == 0) {
            let Some(parent) = self.open.last_mut() else {
                self.roots = group.fields;
                return Ok(());
            };
            // A group of nothing but empty groups is one too.
            if !group.fields.is_empty() {
                parent.fields.push(group.element.group(group.fields)?);
            }
        }
        Ok(())
    }
}
