//! Arrow arrays of any nesting, with other leaves in the same shape.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};

use crate::error::Error;

/// What takes the place of a leaf; leaves come in their order in the schema.
type NewLeaf<'a> = &'a mut dyn FnMut(&ArrayRef) -> Result<ArrayRef, Error>;

/// The array with every leaf replaced by another of the same length.
///
/// # Errors
/// Those of `leaf`; leaves that do not fit.
pub(crate) fn with_leaves(array: &ArrayRef, leaf: NewLeaf<'_>) -> Result<ArrayRef, Error> {
    Ok(match array.data_type() {
        DataType::List(field) => Arc::new(list(array.as_list::<i32>(), field, leaf)?),
        DataType::LargeList(field) => Arc::new(list(array.as_list::<i64>(), field, leaf)?),
        DataType::FixedSizeList(field, length) => {
            let list = array.as_fixed_size_list();
            let items = with_leaves(list.values(), leaf)?;
            let field = retyped(field, items.data_type(), true);
            Arc::new(FixedSizeListArray::try_new(field, *length, items, list.nulls().cloned()).map_err(broken)?)
        }
        DataType::Struct(_) => Arc::new(fields(array.as_struct(), false, leaf)?),
        DataType::Map(field, sorted) => {
            let map = array.as_map();
            let entries = fields(map.entries(), true, leaf)?;
            let field = retyped(field, entries.data_type(), false);
            let map = MapArray::try_new(field, map.offsets().clone(), entries, map.nulls().cloned(), *sorted);
            Arc::new(map.map_err(broken)?)
        }
        _ => leaf(array)?,
    })
}

fn list<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
    field: &FieldRef,
    leaf: NewLeaf<'_>,
) -> Result<GenericListArray<O>, Error> {
    let items = with_leaves(list.values(), leaf)?;
    let field = retyped(field, items.data_type(), true);
    GenericListArray::try_new(field, list.offsets().clone(), items, list.nulls().cloned()).map_err(broken)
}

fn fields(array: &StructArray, is_entry: bool, leaf: NewLeaf<'_>) -> Result<StructArray, Error> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (column, field) in array.columns().iter().zip(array.fields()) {
        let column = with_leaves(column, leaf)?;
        // The key of a map's entry is the only field that never is null.
        let may_be_null = !(is_entry && fields.is_empty());
        fields.push(retyped(field, column.data_type(), may_be_null));
        columns.push(column);
    }
    StructArray::try_new(fields.into(), columns, array.nulls().cloned()).map_err(broken)
}

/// Below a struct that is null a field has nulls, whatever it promises.
fn retyped(field: &FieldRef, ty: &DataType, may_be_null: bool) -> FieldRef {
    if field.data_type() == ty && (field.is_nullable() || !may_be_null) {
        return field.clone();
    }
    Arc::new(Field::new(field.name(), ty.clone(), field.is_nullable() || may_be_null))
}

fn broken(error: ArrowError) -> Error {
    Error::corrupt(error.to_string())
}
