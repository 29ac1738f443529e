//! What a writer that thinks in Arrow types says beside the Parquet schema: which integers are durations.
//!
//! Parquet has no type for durations, so such writers store plain integers and keep their own schema as Base64 of an
//! Arrow IPC message in the key-value metadata, under `ARROW:schema`
//! (<https://arrow.apache.org/docs/cpp/parquet.html>, "Serialization details"). Of that only durations are taken, which
//! nothing else tells; everything else is what the Parquet schema says. It is a hint: what is not understood is left.

use arrow_ipc::{TimeUnit, Type as ArrowType, root_as_message};
use base64::Engine;
use parquet::basic::{ConvertedType, Type as Physical};

use crate::schema::Unit;
use crate::schema_tree::SchemaTree;

/// The key of the metadata.
pub(crate) const KEY: &[u8] = b"ARROW:schema";
/// Bytes of Base64 that are looked at: some 10,000 columns.
const MAX_BYTES: usize = 4 << 20;

/// Root columns that are durations, by leaf, ascending.
pub(crate) fn durations(encoded: &[u8], schema: &SchemaTree) -> Vec<(usize, Unit)> {
    if encoded.len() > MAX_BYTES {
        return Vec::new();
    }
    let Ok(message) = base64::engine::general_purpose::STANDARD.decode(encoded) else { return Vec::new() };
    // A message begins with a continuation marker and its length, which old writers left out.
    let message = match message.strip_prefix(&[u8::MAX; 4]) {
        Some(rest) => rest.get(4..).unwrap_or_default(),
        None => &message,
    };
    let fields = root_as_message(message).ok().and_then(|message| message.header_as_schema()?.fields());
    let Some(fields) = fields.filter(|fields| fields.len() == schema.root_names().len()) else { return Vec::new() };
    let mut found = Vec::new();
    for (root, (field, name)) in fields.iter().zip(schema.root_names()).enumerate() {
        if field.name() != Some(name) || field.type_type() != ArrowType::Duration || field.dictionary().is_some() {
            continue;
        }
        let unit = match field.type_as_duration().map(|duration| duration.unit()) {
            Some(TimeUnit::SECOND) => Unit::Second,
            Some(TimeUnit::MILLISECOND) => Unit::Millisecond,
            Some(TimeUnit::MICROSECOND) => Unit::Microsecond,
            Some(TimeUnit::NANOSECOND) => Unit::Nanosecond,
            _ => continue,
        };
        let leaves = schema.root_leaves(root);
        if leaves.len() == 1 && is_plain_integer(schema, leaves.start) {
            found.push((leaves.start, unit));
        }
    }
    found
}

fn is_plain_integer(schema: &SchemaTree, leaf: usize) -> bool {
    let column = schema.column(leaf);
    column.physical_type() == Physical::INT64
        && column.logical_type_ref().is_none()
        && column.converted_type() == ConvertedType::NONE
        && column.max_rep_level() == 0
}
