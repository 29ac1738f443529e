//! `alcedo get --requests`: one lookup a line in, one answer a line out, for programs.
//!
//! The machine form of docs/FORMATS.md. It knows lines and their order: each is answered, and its answer is on its way,
//! before the next one is read, because whoever writes the lines may wait for it. A line that cannot be answered costs
//! that line; only a file that cannot be read, or a reader of the answers that went away, ends the command.

mod meaning;
mod reply;
mod request;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use alcedo_client::{Client, MAX_REQUEST_BYTES};
use serde_json::Value as Json;

use self::reply::Refusal;
use self::request::Request;
use super::Context;
use crate::failure::Failure;
use crate::output::json_document;
use crate::output::quantity::counted;
use crate::terminal::blocking;

/// A longer line is answered with an error and skipped. A worker takes requests of 1 MiB, and JSON writes a byte of a
/// string with at most six.
const MAX_LINE_BYTES: usize = 8 * MAX_REQUEST_BYTES;

/// Answers the lines of a file; `-` is stdin.
///
/// # Errors
/// The file cannot be read, or the answers cannot be written.
pub(crate) async fn run(file: &Path, context: &Context) -> Result<(), Failure> {
    if context.globals.output.is_some() || context.globals.no_headers {
        return Err(Failure::usage("--requests has a form of its own")
            .hint("leave out --output and --no-headers: an answer is one JSON object a line"));
    }
    let mut lines = Lines::open(file)?;
    let client = context.client()?;
    let mut answered = 0;
    loop {
        let read = blocking(move || {
            let line = lines.line()?;
            Ok((lines, line))
        });
        let line = match read.await {
            Ok((rest, line)) => {
                lines = rest;
                line
            }
            Err(failure) if answered > 0 => {
                return Err(failure.after_some(&format!("after {} were answered", counted(answered, "line"))));
            }
            Err(failure) => return Err(failure),
        };
        let Some(line) = line else { return Ok(()) };
        let reply = answer(&client, line).await.unwrap_or_else(|refusal| refusal.json());
        context.terminal.print(json_document(&reply)).await?;
        answered += 1;
    }
}

async fn answer(client: &Client, line: Line) -> Result<Json, Refusal> {
    let request = match line {
        Line::Whole(line) => Request::parse(&line),
        Line::TooLong => Err(format!("a line has at most {MAX_LINE_BYTES} bytes")),
    };
    let request = request.map_err(|problem| Refusal::new(reply::BAD_REQUEST, problem))?;
    let answer = meaning::look_up(client, request).await?;
    Ok(reply::rows(&answer))
}

/// The lines of a file, one at a time.
struct Lines {
    name: String,
    reader: Box<dyn BufRead + Send>,
}

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    /// It is longer than [`MAX_LINE_BYTES`], and was skipped.
    TooLong,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self { name: "stdin".to_owned(), reader: Box::new(BufReader::new(io::stdin())) });
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::error(format!("cannot open {name}: {}", error.kind())))?;
        Ok(Self { name, reader: Box::new(BufReader::new(file)) })
    }

    fn line(&mut self) -> Result<Option<Line>, Failure> {
        read_line(&mut self.reader)
            .map_err(|error| Failure::error(format!("{} cannot be read: {}", self.name, error.kind())))
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read > MAX_LINE_BYTES {
        reader.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Whole(line)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut reader = bytes;
        std::iter::from_fn(|| read_line(&mut reader).unwrap()).collect()
    }

    fn whole(line: &[u8]) -> Line {
        Line::Whole(line.to_vec())
    }

    #[test]
    fn each_line_is_one_and_an_empty_one_too() {
        assert_eq!(lines(b"{}\n\n \r\nlast"), [whole(b"{}"), whole(b""), whole(b" \r"), whole(b"last")]);
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let longest = vec![b'x'; MAX_LINE_BYTES];
        let mut text = longest.clone();
        text.extend(b"\n{}\nx");
        text.extend(&longest);
        text.extend(b"yyy\n{}\n");
        assert_eq!(lines(&text), [Line::Whole(longest.clone()), whole(b"{}"), Line::TooLong, whole(b"{}")]);
        let mut endless = longest;
        endless.push(b'x');
        assert_eq!(lines(&endless), [Line::TooLong]);
    }
}
