//! Schemas that several file indexes hold: a lake has thousands of files of one schema, which is in memory once.
//!
//! Two schemas are the same when their thrift bytes are: the tree is made of nothing else. What is shared is bounded in
//! bytes for the whole process and counted once, by [`bytes`]; beyond that bound, an index has and weighs a schema of
//! its own. Nothing is kept that no index holds, but for its place in the table until that is needed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::schema_tree::SchemaTree;

/// Bytes that shared schemas take together: some 3,000 of ten columns, or a few with tens of thousands.
const MAX_BYTES: usize = 8 << 20;

static SHARED: LazyLock<Mutex<Table>> = LazyLock::new(|| Mutex::new(Table::of(MAX_BYTES)));

/// Schemas by their thrift bytes.
struct Table {
    schemas: HashMap<Bytes, (Weak<SchemaTree>, usize)>,
    bytes: usize,
    max_bytes: usize,
}

/// The schema that all who have the same hold, and the bytes that this holder has of its own for it.
pub(crate) fn share(schema: SchemaTree) -> (Arc<SchemaTree>, usize) {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).share(schema)
}

/// Bytes that all shared schemas take, at most [`MAX_BYTES`].
pub(crate) fn bytes() -> usize {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.forget_the_dropped();
    shared.bytes
}

impl Table {
    fn of(max_bytes: usize) -> Self {
        Self { schemas: HashMap::new(), bytes: 0, max_bytes }
    }

    fn share(&mut self, schema: SchemaTree) -> (Arc<SchemaTree>, usize) {
        if let Some(shared) = self.schemas.get(schema.thrift()).and_then(|(shared, _)| shared.upgrade()) {
            return (shared, 0);
        }
        let weight = schema.weight();
        let (name, schema) = (schema.thrift().clone(), Arc::new(schema));
        if self.bytes + weight > self.max_bytes {
            self.forget_the_dropped();
            if self.bytes + weight > self.max_bytes {
                return (schema, weight);
            }
        }
        self.bytes += weight;
        // One that was dropped has bytes of its own as its name, which go with it.
        if let Some((_, dropped)) = self.schemas.remove(&name) {
            self.bytes -= dropped;
        }
        self.schemas.insert(name, (Arc::downgrade(&schema), weight));
        (schema, 0)
    }

    fn forget_the_dropped(&mut self) {
        self.schemas.retain(|_, (schema, weight)| {
            let is_held = schema.strong_count() > 0;
            self.bytes -= if is_held { 0 } else { *weight };
            is_held
        });
        self.schemas.shrink_to(self.schemas.len() * 2);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    /// A schema of one INT32 column of this name.
    fn schema(name: u8) -> SchemaTree {
        // A list of two structs: the root with one child, and a required leaf.
        let thrift = [0x2c, 0x48, 0, 0x15, 2, 0, 0x15, 2, 0x25, 0, 0x18, 1, name, 0];
        SchemaTree::decode(&thrift, &Limits::default()).unwrap()
    }

    #[test]
    fn the_same_schema_is_there_once_and_only_as_long_as_it_is_held() {
        let mut table = Table::of(1 << 20);
        let (one, own) = table.share(schema(b'a'));
        let (same, _) = table.share(schema(b'a'));
        let (other, _) = table.share(schema(b'b'));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert_eq!((own, table.bytes), (0, one.weight() + other.weight()));
        drop((one, same));
        let (again, _) = table.share(schema(b'a'));
        assert_eq!((table.bytes, table.schemas.len()), (again.weight() + other.weight(), 2));
        drop(again);
        table.forget_the_dropped();
        assert_eq!((table.bytes, table.schemas.len()), (other.weight(), 1));
    }

    #[test]
    fn beyond_the_bound_a_schema_is_its_holders_own_until_there_is_room() {
        let mut table = Table::of(schema(b'a').weight() * 2);
        let held: Vec<_> = (b'a'..=b'c').map(|name| table.share(schema(name))).collect();
        assert_eq!(held.iter().map(|(_, own)| *own > 0).collect::<Vec<_>>(), [false, false, true]);
        assert!(table.bytes <= table.max_bytes);
        let (again, own) = table.share(schema(b'c'));
        assert!(own > 0 && !Arc::ptr_eq(&again, &held[2].0));
        drop(held);
        assert_eq!(table.share(schema(b'd')).1, 0);
        assert!(table.bytes <= table.max_bytes);
    }
}
