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
use crate::file_index::ALLOCATION_BYTES;
use crate::limits::Limits;
use crate::schema::Unit;
use crate::schema_tree::element::Element;
use crate::thrift::{Reader, STRUCT};

/// What the parquet crate and the maps here take for a leaf and for a group besides their names, and for each name on
/// the way to a leaf (a text of its own each time).
const LEAF_BYTES: usize = 400;
const GROUP_BYTES: usize = 200;
const NAME_BYTES: usize = 40;
/// Pieces of memory of a leaf outside of groups: its type, its descriptor, its path, and its name in each of them and
/// in the map.
const LEAF_PIECES: usize = 6;

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
        let weight = built.bytes
            + thrift.len()
            + names.capacity() * size_of::<(Box<str>, Named)>()
            + descr.num_columns() * LEAF_PIECES * ALLOCATION_BYTES;
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::projection::Projection;

    /// Physical types and repetitions as thrift numbers them.
    const INT32: i32 = 1;
    const BYTE_ARRAY: i32 = 6;
    const FIXED: i32 = 7;
    const REQUIRED: i32 = 0;
    const OPTIONAL: i32 = 1;
    const REPEATED: i32 = 2;

    fn uvarint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn int(value: i32) -> Vec<u8> {
        uvarint(u64::from((value << 1 ^ value >> 31) as u32))
    }

    /// A schema element to be written.
    #[derive(Clone, Default)]
    struct Written {
        /// Fields 1 to 8 but the name, which is the fourth.
        ints: [Option<i32>; 8],
        name: Vec<u8>,
        /// The struct `LogicalType`, without its field's head.
        logical: Option<Vec<u8>>,
    }

    impl Written {
        fn leaf(name: &str, physical: i32, repetition: i32) -> Self {
            let mut written = Self { name: name.into(), ..Self::default() };
            (written.ints[0], written.ints[2]) = (Some(physical), Some(repetition));
            written
        }

        fn group(name: &str, repetition: i32, children: i32) -> Self {
            let mut written = Self { name: name.into(), ..Self::default() };
            (written.ints[2], written.ints[4]) = (Some(repetition), Some(children));
            written
        }

        fn length(mut self, length: i32) -> Self {
            self.ints[1] = Some(length);
            self
        }

        fn converted(mut self, converted: i32) -> Self {
            self.ints[5] = Some(converted);
            self
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            let mut last = 0;
            let mut head = |bytes: &mut Vec<u8>, id: u8, ty: u8| {
                bytes.push((id - last) << 4 | ty);
                last = id;
            };
            for (i, value) in self.ints.iter().enumerate() {
                if i == 3 {
                    head(&mut bytes, 4, 8);
                    bytes.extend(uvarint(self.name.len() as u64));
                    bytes.extend(&self.name);
                }
                if let Some(value) = value {
                    head(&mut bytes, i as u8 + 1, 5);
                    bytes.extend(int(*value));
                }
            }
            if let Some(logical) = &self.logical {
                head(&mut bytes, 10, 12);
                bytes.extend(logical);
            }
            bytes.push(0);
            bytes
        }
    }

    fn list(elements: &[Written]) -> Vec<u8> {
        let mut bytes = vec![0xfc];
        bytes.extend(uvarint(elements.len() as u64));
        bytes.extend(elements.iter().flat_map(Written::bytes));
        bytes
    }

    /// The bytes of a schema whose root has so many children, and the elements below it.
    fn schema_bytes(children: usize, elements: &[Written]) -> Vec<u8> {
        list(&[&[Written::group("root", REQUIRED, children as i32)], elements].concat())
    }

    fn read(children: usize, elements: &[Written]) -> Result<SchemaTree, Error> {
        SchemaTree::decode(&schema_bytes(children, elements), &Limits::default())
    }

    fn types(schema: &SchemaTree) -> Result<Vec<String>, Error> {
        let projection = Projection::resolve(schema, None)?;
        Ok(projection.schema.columns.iter().map(|column| format!("{}: {}", column.name, column.ty)).collect())
    }

    fn one(names: &str) -> [String; 1] {
        [names.to_owned()]
    }

    /// All members of the union `LogicalType` and some that are not known yet, right and wrong ones.
    fn logicals() -> Vec<Option<Vec<u8>>> {
        let member = |id: u8, inner: &[u8]| {
            let head = if id < 16 { vec![id << 4 | 12] } else { [vec![12], int(id.into())].concat() };
            Some([&head, inner, &[0, 0]].concat())
        };
        let mut logicals: Vec<_> = (1..20).map(|id| member(id, &[])).collect();
        logicals.push(None);
        logicals.push(Some(vec![0]));
        for (scale, precision) in [
            (2, 9),
            (0, 0),
            (-1, 5),
            (6, 5),
            (2, 10),
            (2, 18),
            (2, 19),
            (2, 38),
            (2, 39),
            (0, 76),
            (0, 77),
            (0, i32::MAX),
        ] {
            logicals.push(member(5, &[&[0x15][..], &int(scale), &[0x15], &int(precision)].concat()));
        }
        for (utc, unit) in [(1, 1), (2, 2), (1, 3), (2, 4), (1, 0)] {
            for id in [7, 8] {
                let unit: &[u8] = if unit == 0 { &[0x1c, 0] } else { &[0x1c, unit << 4 | 12, 0, 0] };
                logicals.push(member(id, &[&[0x10 | utc], unit].concat()));
            }
        }
        for width in [0, 8, 16, 24, 32, 64, 128, 255] {
            logicals.push(member(10, &[0x13, width, 0x11]));
            logicals.push(member(10, &[0x13, width, 0x12]));
        }
        logicals
    }

    #[test]
    fn whatever_annotates_a_leaf_it_is_read_or_refused_alone() {
        let plain = Written::leaf("plain", INT32, REQUIRED);
        let (mut readable, mut refused) = (0, 0);
        for physical in
            [None, Some(-1), Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7), Some(8)]
        {
            for length in [None, Some(-1), Some(0), Some(1), Some(2), Some(12), Some(16), Some(33), Some(1 << 20 | 1)] {
                if length.is_some() && physical != Some(FIXED) {
                    continue;
                }
                for converted in std::iter::once(None).chain((-1..24).map(Some)) {
                    for logical in logicals() {
                        let mut odd = Written::leaf("odd", INT32, OPTIONAL);
                        odd.ints = [physical, length, Some(OPTIONAL), None, None, converted, Some(2), Some(9)];
                        odd.logical = logical;
                        let schema = read(2, &[odd, plain.clone()]).unwrap();
                        assert_eq!(schema.num_columns(), 2);
                        let others = Projection::resolve(&schema, Some(&one("plain"))).unwrap();
                        assert_eq!(others.leaves, [1]);
                        match schema.check_readable(0) {
                            Ok(()) => assert_eq!(types(&schema).unwrap().len(), 2),
                            Err(error) => {
                                assert_eq!(types(&schema).unwrap_err(), error);
                                assert!(error.to_string().contains("column `odd`"), "{error}");
                                refused += 1;
                                continue;
                            }
                        }
                        readable += 1;
                    }
                }
            }
        }
        assert!(readable > 10_000 && refused > 1_000, "{readable} {refused}");
    }

    #[test]
    fn annotations_that_do_not_fit_leave_the_plain_type() {
        let decimal = |physical: i32, scale: i32, precision: i32| {
            let mut leaf = Written::leaf("c", physical, REQUIRED).converted(5);
            (leaf.ints[6], leaf.ints[7]) = (Some(scale), Some(precision));
            leaf
        };
        let geometry = Some(vec![12, 34, 0, 0]);
        let cases = [
            (Written::leaf("c", INT32, REQUIRED).converted(0), "c: int32"),
            (Written::leaf("c", INT32, REQUIRED).converted(17), "c: int32"),
            (Written::leaf("c", INT32, REQUIRED).converted(13), "c: uint32"),
            (Written::leaf("c", INT32, REQUIRED).converted(99), "c: int32"),
            (decimal(INT32, 2, 9), "c: decimal(9,2)"),
            (decimal(INT32, 2, 10), "c: int32"),
            (decimal(INT32, 10, 9), "c: int32"),
            (decimal(FIXED, 2, 9).length(4), "c: decimal(9,2)"),
            (decimal(FIXED, 2, 10).length(4), "c: fixed[4]"),
            (decimal(FIXED, 2, 10).length(33), "c: fixed[33]"),
            (decimal(BYTE_ARRAY, 2, 77), "c: binary"),
            (Written::leaf("c", FIXED, REQUIRED).length(12).converted(21), "c: interval"),
            (Written::leaf("c", FIXED, REQUIRED).length(11).converted(21), "c: fixed[11]"),
            (Written { logical: geometry, ..Written::leaf("c", BYTE_ARRAY, REQUIRED) }, "c: binary"),
            // An unknown unit of a timestamp beside a converted type that is known.
            (
                Written {
                    logical: Some(vec![0x8c, 0x11, 0x1c, 0x4c, 0, 0, 0, 0]),
                    ..Written::leaf("c", 2, REQUIRED).converted(10)
                },
                "c: timestamp[us,UTC]",
            ),
        ];
        for (leaf, ty) in cases {
            assert_eq!(types(&read(1, &[leaf]).unwrap()).unwrap(), [ty]);
        }
    }

    #[test]
    fn a_column_without_a_type_is_refused_by_name_and_only_when_it_is_asked_for() {
        let mut no_repetition = Written::group("g", REQUIRED, 1);
        no_repetition.ints[2] = None;
        let mut no_type = Written::leaf("n", INT32, REQUIRED);
        no_type.ints[0] = None;
        let elements = [
            no_type,
            Written::leaf("u", 8, REQUIRED),
            Written::leaf("f", FIXED, REQUIRED).length(-12),
            no_repetition,
            Written::leaf("i", INT32, REQUIRED),
            Written::leaf("plain", INT32, REQUIRED),
        ];
        let schema = read(5, &elements).unwrap();
        let error = |name: &str| Projection::resolve(&schema, Some(&one(name))).map(|_| ()).unwrap_err();
        assert!(matches!(error("n"), Error::Corrupt(text) if text.contains("`n` has no physical type")));
        assert!(matches!(error("u"), Error::Unsupported(text) if text.contains("`u`")));
        assert!(matches!(error("f"), Error::Corrupt(text) if text.contains("`f`")));
        assert!(matches!(error("g"), Error::Corrupt(text) if text.contains("`g.i`")));
        assert!(crate::projection::key_column(&schema, "g.i").is_err());
        assert_eq!(Projection::resolve(&schema, Some(&one("plain"))).unwrap().leaves, [4]);
        assert!(types(&schema).is_err());
    }

    /// Groups of every annotation and shape up to two levels, in front of a plain column.
    #[test]
    fn whatever_annotates_a_group_it_is_read_or_refused_alone() {
        let repetitions = [REQUIRED, OPTIONAL, REPEATED, 3];
        let plain = Written::leaf("plain", INT32, REQUIRED);
        let mut inner: Vec<(usize, Vec<Written>)> = Vec::new();
        for repetition in repetitions {
            inner.push((1, vec![Written::leaf("a", INT32, repetition)]));
            for children in 0..4 {
                for child in [OPTIONAL, REPEATED] {
                    let mut group = vec![Written::group("array", repetition, children)];
                    group.extend((0..children).map(|_| Written::leaf("b", INT32, child)));
                    inner.push((1, group.clone()));
                    group.push(Written::leaf("a", INT32, child));
                    inner.push((2, group));
                }
            }
        }
        let mut read_all = 0;
        for annotation in [None, Some(1), Some(2), Some(3), Some(5)] {
            for nested in [None, Some(1), Some(2), Some(3)] {
                for repetition in repetitions {
                    for (children, inner) in &inner {
                        let mut group = Written::group("g", repetition, *children as i32);
                        group.ints[5] = annotation;
                        let mut elements = [&[group], inner.as_slice(), std::slice::from_ref(&plain)].concat();
                        elements[1].ints[5] = nested;
                        let schema = read(2, &elements).unwrap();
                        let others = Projection::resolve(&schema, Some(&one("plain"))).unwrap();
                        assert_eq!(others.leaves, [schema.num_columns() - 1]);
                        if (0..schema.num_columns()).all(|leaf| schema.check_readable(leaf).is_ok()) {
                            types(&schema).unwrap();
                            read_all += 1;
                        }
                    }
                }
            }
        }
        assert!(read_all > 1_000, "{read_all}");
    }

    #[test]
    fn lists_and_maps_of_all_spellings_keep_their_types() {
        let list = |elements: &[Written]| types(&read(1, elements).unwrap()).unwrap().join("; ");
        let int = |name: &str, repetition: i32| Written::leaf(name, INT32, repetition);
        let group = Written::group;
        let standard = [group("l", OPTIONAL, 1).converted(3), group("list", REPEATED, 1), int("element", OPTIONAL)];
        assert_eq!(list(&standard), "l: list<int32>");
        assert_eq!(list(&[group("l", OPTIONAL, 1).converted(3), int("array", REPEATED)]), "l: list<int32>");
        let pairs = [group("l", OPTIONAL, 1).converted(3), group("array", REPEATED, 1), int("a", OPTIONAL)];
        assert_eq!(list(&pairs), "l: list<struct<a:int32>>");
        // Two levels of the old spelling: the inner list is the repeated field itself.
        let nested =
            [group("l", OPTIONAL, 1).converted(3), group("array", REPEATED, 1).converted(3), int("array", REPEATED)];
        assert_eq!(list(&nested), "l: list<list<int32>>");
        for map in [1, 2] {
            let entries = group("map", REPEATED, 2).converted(2);
            let map = [group("m", OPTIONAL, 1).converted(map), entries, int("key", REQUIRED), int("value", OPTIONAL)];
            assert_eq!(list(&map), "m: map<int32,int32>");
        }
        // A list that is not one is the struct that it looks like.
        assert_eq!(list(&[group("l", OPTIONAL, 1).converted(3), int("a", OPTIONAL)]), "l: struct<a:int32>");
        assert_eq!(list(&[group("m", OPTIONAL, 1).converted(1), int("a", REPEATED)]), "m: struct<a:list<int32>>");
    }

    #[test]
    fn names_are_found_whatever_they_are() {
        let int = |name: &str| Written::leaf(name, INT32, OPTIONAL);
        let mut broken = int("");
        broken.name = vec![b'n', 0xff];
        let elements = [
            int("twice"),
            int("s.a"),
            Written::group("s", OPTIONAL, 3),
            int("a"),
            int("b"),
            int("b"),
            Written::group("nothing", OPTIONAL, 0),
            int("twice"),
            broken,
            Written::group("l", OPTIONAL, 1).converted(3),
            Written::group("list", REPEATED, 1),
            int("element"),
        ];
        let schema = read(7, &elements).unwrap();
        assert_eq!(schema.num_columns(), 8);
        let leaves = |name: &str| Projection::resolve(&schema, Some(&one(name))).map(|read| read.leaves);
        assert_eq!(leaves("twice").unwrap(), [0], "the first of two");
        assert_eq!(leaves("s.a").unwrap(), [1], "a root column wins over a dotted path");
        assert_eq!(leaves("s").unwrap(), [2, 3, 4]);
        assert_eq!(leaves("s.b").unwrap(), [3], "the first of two");
        assert_eq!(leaves("n\u{fffd}").unwrap(), [6]);
        assert!(matches!(leaves("l.list.element"), Err(Error::NoSuchColumn { .. })));
        assert!(matches!(leaves("nothing"), Err(Error::NoSuchColumn { .. })));
        assert!(matches!(leaves("twic"), Err(Error::NoSuchColumn { hint: Some(hint), .. }) if hint == "twice"));
        let all = Projection::resolve(&schema, None).unwrap();
        let names: Vec<&str> = all.schema.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["twice", "s.a", "s", "twice", "n\u{fffd}", "l"]);
    }

    #[test]
    fn leaves_of_one_struct_are_reached_beside_each_other() {
        let int = |name: &str| Written::leaf(name, INT32, OPTIONAL);
        let text = Written::leaf("y", BYTE_ARRAY, OPTIONAL).converted(0);
        let group = |name: &str, children| Written::group(name, OPTIONAL, children);
        // Two inner structs of one name, so that only the place tells which is meant.
        let elements = [group("s", 3), group("a", 1), int("x"), int("b"), group("a", 2), int("z"), text];
        let schema = read(1, &elements).unwrap();
        let names = ["s.a.y", "s.a.x", "s.b"].map(str::to_owned);
        let read = Projection::resolve(&schema, Some(&names)).unwrap();
        assert_eq!(read.leaves, [0, 1, 3]);
        assert_eq!(read.paths, [vec![0, 2, 0], vec![0, 0, 0], vec![0, 1]]);
        let types: Vec<String> = read.schema.columns.iter().map(|column| column.ty.to_string()).collect();
        assert_eq!(types, ["string", "int32", "int32"]);
    }

    #[test]
    fn only_the_asked_columns_are_converted() {
        let elements: Vec<Written> = (0..2_000).map(|i| Written::leaf(&format!("c{i}"), INT32, OPTIONAL)).collect();
        let schema = read(2_000, &elements).unwrap();
        let read = Projection::resolve(&schema, Some(&["c1999", "c7"].map(str::to_owned))).unwrap();
        assert_eq!(read.leaves, [7, 1_999]);
        assert_eq!(schema.pruned(&read.leaves).unwrap().num_columns(), 2);
        assert_eq!(read.paths, [vec![1], vec![0]]);
    }

    #[test]
    fn schemas_beyond_the_bounds_are_refused() {
        let limits = Limits::default();
        let deep = |levels: usize| {
            let mut elements = vec![Written::group("g", OPTIONAL, 1); levels - 1];
            elements.push(Written::leaf("c", INT32, OPTIONAL));
            read(1, &elements)
        };
        // On the smallest stack that a thread here has.
        let deepest = move || (deep(limits.schema_depth).is_ok(), deep(limits.schema_depth + 1).map(|_| ()));
        let deepest = std::thread::Builder::new().stack_size(2 << 20).spawn(deepest).unwrap().join().unwrap();
        assert!(deepest.0);
        assert!(matches!(deepest.1, Err(Error::Limit(text)) if text.contains("levels deep")));
        assert!(matches!(deep(20_000), Err(Error::Limit(_))));
        let wide = |leaves: usize| read(leaves, &vec![Written::leaf("c", INT32, OPTIONAL); leaves]);
        assert!(wide(49_999).is_ok());
        assert!(matches!(wide(50_000), Err(Error::Limit(text)) if text.contains("schema elements")));
        // A footer of two megabytes whose leaves would repeat one megabyte of names ten thousand times.
        let mut elements = vec![Written::group(&"n".repeat(1 << 20), OPTIONAL, 10_000)];
        elements.extend(vec![Written::leaf("c", INT32, OPTIONAL); 10_000]);
        assert!(matches!(read(1, &elements), Err(Error::Limit(text)) if text.contains("bytes in memory")));
    }

    #[test]
    fn schemas_that_contradict_themselves_are_refused() {
        let int = || Written::leaf("c", INT32, OPTIONAL);
        for (children, elements) in [
            (1, vec![]),
            (1, vec![int(), int()]),
            (2, vec![int()]),
            (1, vec![Written::group("g", OPTIONAL, 2), int()]),
            (1, vec![Written::group("g", OPTIONAL, i32::MAX), int()]),
            (1, vec![Written::group("g", OPTIONAL, -1), int()]),
        ] {
            assert!(matches!(read(children, &elements), Err(Error::Corrupt(_))), "{children} of {}", elements.len());
        }
        assert!(SchemaTree::decode(&list(&[]), &Limits::default()).is_err());
        let longer = [schema_bytes(1, &[int()]), vec![0]].concat();
        assert!(SchemaTree::decode(&longer, &Limits::default()).is_err());
    }

    #[test]
    fn names_of_megabytes_do_not_make_errors_of_megabytes() {
        let mut leaf = Written::leaf(&"n".repeat(1 << 20), INT32, OPTIONAL);
        leaf.ints[0] = None;
        let schema = read(1, &[leaf]).unwrap();
        let errors = [
            types(&schema).unwrap_err(),
            schema.find(&"n".repeat((1 << 20) - 1)).unwrap_err(),
            crate::projection::key_leaf(&schema, 0).map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().len() < 300, "{} bytes", error.to_string().len());
        }
    }
}
