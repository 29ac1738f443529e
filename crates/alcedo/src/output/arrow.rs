//! Arrow answers as one IPC stream.
//!
//! Part of the output layer. Each file's answer is a whole stream of its own; a reader of stdout wants one. The batches
//! are read and written again, so that what came off the wire is checked before anything is printed.

use std::sync::Arc;

use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::SchemaRef;

use crate::failure::Failure;

/// Joins the streams of several files into one.
#[derive(Default)]
pub(crate) struct ArrowStream {
    open: Option<(SchemaRef, StreamWriter<Vec<u8>>)>,
}

impl std::fmt::Debug for ArrowStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrowStream").finish_non_exhaustive()
    }
}

impl ArrowStream {
    /// Adds one file's stream.
    ///
    /// # Errors
    /// It is not an Arrow stream, or its columns differ from those before it.
    pub(crate) fn add(&mut self, url: &str, stream: &[u8]) -> Result<(), Failure> {
        let damaged = |error| Failure::error(format!("the Arrow answer of {url} cannot be read: {error}"));
        let reader = StreamReader::try_new(stream, None).map_err(damaged)?;
        let schema = reader.schema();
        let (first, writer) = match &mut self.open {
            Some(open) => open,
            none => {
                let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(damaged)?;
                none.insert((Arc::clone(&schema), writer))
            }
        };
        if *first != schema {
            let error = format!("{url} has other columns than the files before it, and one Arrow stream cannot say so");
            return Err(Failure::error(error).hint("choose columns with --select, or print -o jsonl"));
        }
        for batch in reader {
            writer.write(&batch.map_err(damaged)?).map_err(damaged)?;
        }
        Ok(())
    }

    /// What can be written so far.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.open.as_mut().map(|(_, writer)| std::mem::take(writer.get_mut())).unwrap_or_default()
    }

    /// The rest of the stream; nothing when no file had rows.
    ///
    /// # Errors
    /// The stream cannot be ended.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Failure> {
        if let Some((_, writer)) = &mut self.open {
            writer.finish().map_err(|error| Failure::error(format!("the Arrow stream cannot be ended: {error}")))?;
        }
        Ok(self.take())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;

    fn stream(column: &str, values: ArrayRef) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter([(column, values)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn ids(values: Vec<i64>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    #[test]
    fn the_streams_of_several_files_become_one() {
        let mut joined = ArrowStream::default();
        joined.add("a", &stream("id", ids(vec![1, 2]))).unwrap();
        let mut out = joined.take();
        joined.add("b", &stream("id", ids(vec![3]))).unwrap();
        out.extend(joined.finish().unwrap());
        let batches: Vec<RecordBatch> =
            StreamReader::try_new(out.as_slice(), None).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(batches[1].column(0).as_ref(), ids(vec![3]).as_ref());
    }

    #[test]
    fn other_columns_and_damaged_streams_are_errors() {
        let mut joined = ArrowStream::default();
        joined.add("a", &stream("id", ids(vec![1]))).unwrap();
        let failure = joined.add("b", &stream("id", Arc::new(StringArray::from(vec!["x"])))).unwrap_err();
        assert!(failure.to_string().starts_with("error: b has other columns"), "{failure}");
        let whole = stream("id", ids(vec![1]));
        let failure = ArrowStream::default().add("c", &whole[..whole.len() / 2]).unwrap_err();
        assert!(failure.to_string().starts_with("error: the Arrow answer of c cannot be read"), "{failure}");
    }

    #[test]
    fn no_rows_are_no_stream() {
        assert!(ArrowStream::default().finish().unwrap().is_empty());
    }
}
