//! What `get` and `explain` ask alike: a path, a key column and the columns of the answer.

use alcedo_client::{Client, Lookup};
use clap::Args;

use crate::failure::Failure;

/// The flags of a lookup.
#[derive(Debug, Args)]
pub(crate) struct Question {
    /// File or prefix: mount/dir/file.parquet, mount/dir/, or the URL that the mount stands for
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Key column [default: the first one that the file declares it is sorted by]
    #[arg(short, long, value_name = "COLUMN")]
    pub(crate) key: Option<String>,
    /// Columns to print, in this order; * is all [default: all]
    #[arg(short, long, value_name = "COLUMN,...|*", value_delimiter = ',')]
    pub(crate) select: Vec<String>,
}

impl Question {
    /// The columns to ask for; none means all.
    ///
    /// # Errors
    /// `*` stands beside names.
    pub(crate) fn columns(&self) -> Result<&[String], Failure> {
        match self.select.as_slice() {
            [all] if all == "*" => Ok(&[]),
            columns if columns.iter().any(|column| column == "*") => {
                Err(Failure::usage("--select * means all columns, and takes no names beside it"))
            }
            columns => Ok(columns),
        }
    }

    /// The lookup, still without keys.
    ///
    /// # Errors
    /// See [`Question::columns`].
    pub(crate) fn lookup(&self, client: &Client) -> Result<Lookup, Failure> {
        let mut lookup = client.lookup(self.path.clone()).select(self.columns()?.iter().cloned());
        if let Some(column) = &self.key {
            lookup = lookup.key_column(column.clone());
        }
        Ok(lookup)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn question(select: &[&str]) -> Question {
        Question { path: "lake/".into(), key: None, select: select.iter().map(|column| (*column).into()).collect() }
    }

    #[test]
    fn a_star_stands_alone() {
        assert!(question(&[]).columns().unwrap().is_empty());
        assert!(question(&["*"]).columns().unwrap().is_empty());
        assert_eq!(question(&["a", "b"]).columns().unwrap(), ["a", "b"]);
        assert_eq!(question(&["a", "*"]).columns().unwrap_err().code(), 2);
    }
}
