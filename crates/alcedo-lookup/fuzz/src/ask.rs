//! Every question that can be asked of a file whose content nobody knows.
//!
//! Opens it, learns its columns' names, and looks keys up in all answer forms. It must not know what the right answers
//! are, but that the forms must agree: a contradiction between them is a panic.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form, decode_pages};
use alcedo_lookup::error::Error;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::key::Key;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::machine::drive_bytes;
use alcedo_lookup::open::Open;
use alcedo_lookup::schema::Type;
use alcedo_lookup::search::{Query, Search};
use bytes::Bytes;

/// How much of a file's end is read first.
const TAIL_BYTES: u64 = 64 << 10;

/// Columns that are asked for a key: the first ones.
const KEY_COLUMNS: usize = 4;

/// Texts that are keys of many types.
const TEXTS: &[&str] = &["0", "1", "2", "-1", "", "a", "true", "1970-01-01", "7.5", "hex:00", "k1"];

/// A question in words, and what came of it: the number of rows, or why there are none.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Column and form.
    pub question: String,
    /// Rows of the answer.
    pub outcome: Result<usize, Error>,
}

/// Opens a file.
///
/// # Errors
/// It cannot be opened.
pub fn open(file: &Bytes, limits: &Arc<Limits>) -> Result<Arc<FileIndex>, Error> {
    drive_bytes(Open::new(TAIL_BYTES, limits.clone()), file)
}

/// Looks keys up.
///
/// # Errors
/// The question does not fit the file, or the file is not what it should be.
pub fn lookup(
    index: &Arc<FileIndex>,
    file: &Bytes,
    limits: &Arc<Limits>,
    column: &str,
    keys: &[Key],
    form: Form,
) -> Result<FileAnswer, Error> {
    let key_column = Some(column.to_owned());
    let query = Query { key_column, keys: keys.to_vec(), columns: None, form, row_limit: None };
    drive_bytes(Search::new(index.clone(), Arc::new(query), limits.clone())?, file)
}

/// The names of root columns and of what is in structs, as far as they can be learned by asking.
pub fn column_names(index: &Arc<FileIndex>, file: &Bytes, limits: &Arc<Limits>) -> Vec<String> {
    let query = Query { key_column: None, keys: Vec::new(), columns: None, form: Form::CompactRows, row_limit: None };
    let named =
        match Search::new(index.clone(), Arc::new(query), limits.clone()).map(|search| drive_bytes(search, file)) {
            Ok(Ok(answer)) => return names_of(&answer),
            Err(Error::NoKeyColumn { columns }) => columns.split(", ").map(str::to_owned).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
    let schema = named.iter().take(KEY_COLUMNS).find_map(|name| {
        lookup(index, file, limits, name, &[], Form::CompactRows).ok().map(|answer| names_of(&answer))
    });
    schema.unwrap_or(named)
}

fn names_of(answer: &FileAnswer) -> Vec<String> {
    let mut names = Vec::new();
    for column in &answer.schema.columns {
        names.push(column.name.clone());
        if let Type::Struct(fields) = &column.ty {
            names.extend(fields.iter().map(|(field, _)| format!("{}.{field}", column.name)));
        }
    }
    names
}

/// Asks for null and for many keys in the first columns, in every form, and tells what came of each question. One
/// answer at a time is held.
///
/// # Panics
/// Two forms of an answer differ.
pub fn everything(file: &Bytes, limits: &Arc<Limits>, tell: &mut dyn FnMut(Asked)) {
    let index = match open(file, limits) {
        Ok(index) => index,
        Err(error) => return tell(Asked { question: "open".to_owned(), outcome: Err(error) }),
    };
    tell(Asked { question: "open".to_owned(), outcome: Ok(0) });
    let mut names = column_names(&index, file, limits);
    tell(Asked { question: "names".to_owned(), outcome: Ok(0) });
    // The last one too: it is where a count that is wrong shows.
    if let Some(last) = (names.len() > KEY_COLUMNS).then(|| names.pop()).flatten() {
        names.truncate(KEY_COLUMNS - 1);
        names.push(last);
    }
    for name in &names {
        for keys in [vec![Key::Null], readable_keys(&index, name)] {
            let told = Asking { index: &index, file, limits, name, keys: &keys, tell: &mut *tell }.in_all_forms();
            let mut told = told.into_iter().flatten();
            let first = told.next();
            assert!(told.all(|other| Some(other) == first), "the answers of `{name}` to {keys:?} differ");
        }
        let keys = [vec![Key::Null], readable_keys(&index, name)].concat();
        super::derived::both(&index, file, limits, (name, &keys), tell);
    }
}

/// One question.
struct Asking<'a> {
    index: &'a Arc<FileIndex>,
    file: &'a Bytes,
    limits: &'a Arc<Limits>,
    name: &'a str,
    keys: &'a [Key],
    tell: &'a mut dyn FnMut(Asked),
}

impl Asking<'_> {
    /// Digests of the rows, where there are any: from compact rows, and from data pages that were decoded.
    fn in_all_forms(mut self) -> [Option<u64>; 2] {
        let rows = self.ask(Form::CompactRows).map(|answer| match &answer.body {
            Body::Compact(bytes) => digest(&answer.row_number, bytes),
            other => panic!("another form than was asked for: {other:?}"),
        });
        self.ask(Form::ArrowIpc);
        let pages = self.ask(Form::Pages).and_then(|answer| {
            let Body::Pages(pages) = &answer.body else { panic!("another form than was asked for") };
            let decoded = decode_pages(pages, &answer.schema, &answer.row_number, self.limits);
            self.told("decoded pages", decoded.as_ref().map(|_| answer.row_number.len()));
            decoded.ok().map(|bytes| digest(&answer.row_number, &bytes))
        });
        [rows, pages]
    }

    fn ask(&mut self, form: Form) -> Option<FileAnswer> {
        let answer = lookup(self.index, self.file, self.limits, self.name, self.keys, form);
        self.told(&format!("{form:?}"), answer.as_ref().map(|answer| answer.row_number.len()));
        answer.ok()
    }

    fn told(&mut self, form: &str, outcome: Result<usize, &Error>) {
        let name: String = self.name.chars().take(20).collect();
        let question = format!("{} keys in `{}` as {form}", self.keys.len(), name.escape_default());
        (self.tell)(Asked { question, outcome: outcome.map_err(Clone::clone) });
    }
}

fn digest(row_number: &[u64], rows: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    row_number.hash(&mut hasher);
    rows.hash(&mut hasher);
    hasher.finish()
}

/// Of many texts those that read as the column's type.
fn readable_keys(index: &Arc<FileIndex>, name: &str) -> Vec<Key> {
    let keys = TEXTS.iter().map(|text| Key::from(*text));
    let reads = |key: &Key| {
        let (key_column, keys) = (Some(name.to_owned()), vec![key.clone()]);
        let query = Query { key_column, keys, columns: Some(Vec::new()), form: Form::CompactRows, row_limit: None };
        index.may_hold(&query).is_ok()
    };
    keys.filter(reads).collect()
}
