//! Rows of root columns as they lie in several arrays: of pages that are decoded already, and of what was just read.
//!
//! An answer is written row by row, so the rows need not be brought together first. Where they must be, because Arrow's
//! writers ask for it, that is done here.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use arrow_select::interleave::interleave;

use crate::arrow_stream::nullable;
use crate::error::Error;

/// The rows of one root column.
pub(crate) struct RootRows {
    arrays: Vec<ArrayRef>,
    /// Per row its array and its place there; none where one array has just the rows.
    places: Option<Vec<(u32, u32)>>,
}

impl RootRows {
    /// Rows that are all of an array.
    pub(crate) fn of(array: ArrayRef) -> Self {
        Self { arrays: vec![array], places: None }
    }

    /// Rows by array and place.
    pub(crate) fn placed(arrays: Vec<ArrayRef>, places: Vec<(u32, u32)>) -> Self {
        Self { arrays, places: Some(places) }
    }

    /// The array that holds a row, and the row's place there.
    #[inline]
    pub(crate) fn at(&self, row: usize) -> (&ArrayRef, usize) {
        match &self.places {
            None => (&self.arrays[0], row),
            Some(places) => {
                let (array, place) = places[row];
                (&self.arrays[array as usize], place as usize)
            }
        }
    }

    /// The rows as one array.
    fn array(&self) -> Result<ArrayRef, Error> {
        let Some(places) = &self.places else { return Ok(self.arrays[0].clone()) };
        // Below a struct that is null there are nulls that its fields' types do not allow for.
        let arrays = self.arrays.iter().map(nullable).collect::<Result<Vec<_>, _>>()?;
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> = places.iter().map(|(array, at)| (*array as usize, *at as usize)).collect();
        interleave(&arrays, &places).map_err(|error| Error::corrupt(error.to_string()))
    }
}

/// Some rows, one [`RootRows`] per root column that a projection reads.
pub(crate) struct RowBatch {
    pub(crate) columns: Vec<RootRows>,
    pub(crate) rows: usize,
}

impl RowBatch {
    /// The same as Arrow's readers and writers know it.
    ///
    /// # Errors
    /// Arrays that do not fit.
    pub(crate) fn record_batch(&self) -> Result<RecordBatch, Error> {
        let arrays = self.columns.iter().map(RootRows::array).collect::<Result<Vec<_>, Error>>()?;
        let field = |array: &ArrayRef| Field::new("", array.data_type().clone(), true);
        let schema = Schema::new(arrays.iter().map(field).collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
            .map_err(|error| Error::corrupt(error.to_string()))
    }
}
