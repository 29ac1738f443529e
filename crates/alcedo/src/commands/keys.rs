//! Where keys come from: the command line, a file, or stdin.
//!
//! A key is a text; the worker reads it by the type of the key column. Files are read batch by batch, so that their
//! length does not matter.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::failure::Failure;
use crate::terminal::blocking;

/// Keys that are looked up together: some messages' worth, so that workers answer one message while the next is on its
/// way.
pub(crate) const KEYS_PER_BATCH: usize = 8 * alcedo_client::MAX_KEYS_PER_MESSAGE;

/// A longer line is not a key: requests have at most 1 MiB.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// A key as it was given; `None` is null.
pub(crate) type Text = Option<String>;

/// The keys that are still to be asked.
pub(crate) struct Keys {
    given: Vec<Text>,
    lines: Option<Lines>,
}

struct Lines {
    name: String,
    reader: Box<dyn BufRead + Send>,
    number: u64,
}

impl Keys {
    /// Keys of the command line, then those of a file (`-` is stdin), then the null key.
    ///
    /// # Errors
    /// There is no key, or the file cannot be opened.
    pub(crate) fn new(given: Vec<String>, file: Option<&Path>, null: bool) -> Result<Self, Failure> {
        if given.is_empty() && file.is_none() && !null {
            return Err(Failure::usage("no key was given").hint(
                "write keys after the path, one per line in a file for --keys-from, or --null for rows without one",
            ));
        }
        let mut given: Vec<Text> = given.into_iter().map(Some).collect();
        given.extend(null.then_some(None));
        Ok(Self { given, lines: file.map(Lines::open).transpose()? })
    }

    /// The next keys; none when all have been asked.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn batch(&mut self) -> Result<Vec<Text>, Failure> {
        if !self.given.is_empty() {
            let rest = self.given.split_off(self.given.len().min(KEYS_PER_BATCH));
            return Ok(std::mem::replace(&mut self.given, rest));
        }
        let Some(mut lines) = self.lines.take() else { return Ok(Vec::new()) };
        let (lines, batch) = blocking(move || {
            let batch = lines.batch()?;
            Ok((lines, batch))
        })
        .await?;
        if batch.len() == KEYS_PER_BATCH {
            self.lines = Some(lines);
        }
        Ok(batch)
    }
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::new("stdin", BufReader::new(io::stdin())));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::error(format!("cannot open {name}: {}", error.kind())))?;
        Ok(Self::new(&name, BufReader::new(file)))
    }

    fn new(name: &str, reader: impl BufRead + Send + 'static) -> Self {
        Self { name: name.to_owned(), reader: Box::new(reader), number: 0 }
    }

    fn batch(&mut self) -> Result<Vec<Text>, Failure> {
        let mut batch = Vec::new();
        while batch.len() < KEYS_PER_BATCH {
            let Some(line) = self.line()? else { break };
            batch.push(Some(line));
        }
        Ok(batch)
    }

    /// The next line without its end; an empty line is an empty key.
    fn line(&mut self) -> Result<Option<String>, Failure> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
        self.number += 1;
        let at = |what: String| Failure::error(format!("{}:{}: {what}", self.name, self.number));
        match read.map_err(|error| at(format!("cannot be read: {}", error.kind())))? {
            0 => return Ok(None),
            length if length as u64 > MAX_LINE_BYTES => {
                return Err(at(format!("a key has at most {MAX_LINE_BYTES} bytes")));
            }
            _ => {}
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        String::from_utf8(line).map(Some).map_err(|_| at("is not UTF-8".to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Lines {
        Lines::new("keys.txt", bytes)
    }

    #[test]
    fn each_line_is_a_key() {
        let keys = lines(b"1\n\n two \r\nlast").batch().unwrap();
        assert_eq!(keys, [Some("1".into()), Some("".into()), Some(" two ".into()), Some("last".into())]);
        assert!(lines(b"").batch().unwrap().is_empty());
    }

    #[test]
    fn what_is_not_a_key_is_named_with_its_line() {
        let failure = lines(b"1\n\xff\n").batch().unwrap_err();
        assert_eq!(failure.to_string(), "error: keys.txt:2: is not UTF-8\n");
        let endless = Lines::new("stdin", BufReader::new(io::repeat(b'7'))).batch().unwrap_err();
        assert_eq!(endless.to_string(), "error: stdin:1: a key has at most 1048576 bytes\n");
    }

    #[tokio::test]
    async fn batches_end_when_the_keys_do() {
        let many: Vec<u8> = "7\n".repeat(KEYS_PER_BATCH + 1).into_bytes();
        let mut keys = Keys { given: vec![None], lines: Some(Lines::new("f", io::Cursor::new(many))) };
        assert_eq!(keys.batch().await.unwrap(), [None]);
        assert_eq!(keys.batch().await.unwrap().len(), KEYS_PER_BATCH);
        assert_eq!(keys.batch().await.unwrap().len(), 1);
        assert!(keys.batch().await.unwrap().is_empty());
    }

    #[test]
    fn a_question_without_keys_is_a_usage_error() {
        let failure = Keys::new(Vec::new(), None, false).err().unwrap();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with("error: no key was given\nhint: "));
    }
}
