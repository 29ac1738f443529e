//! The three standard streams: what they are connected to, and writing to them.
//!
//! Blocking reads and writes happen on a thread of their own, so that Ctrl-C ends a command that waits for a pager or
//! for somebody who types.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

use crate::failure::Failure;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What the streams are, and how much is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) stdout_is_terminal: bool,
    /// Somebody can be asked on stderr and answer on stdin.
    pub(crate) is_interactive: bool,
    /// Colour on stderr.
    pub(crate) color: bool,
    /// No summary lines.
    pub(crate) quiet: bool,
}

impl Terminal {
    pub(crate) fn new(color: Color, quiet: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let color = use_color(color, io::stderr().is_terminal(), set("NO_COLOR"), set("CLICOLOR_FORCE"));
        let is_interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self { stdout_is_terminal: io::stdout().is_terminal(), is_interactive, color, quiet }
    }

    /// Writes to stdout.
    ///
    /// # Errors
    /// See [`Failure::output`].
    pub(crate) async fn print(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Failure> {
        let bytes = bytes.into();
        blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(Failure::output)
        })
        .await
    }

    /// Says one line about the work on stderr; `-q` leaves it out.
    pub(crate) fn summary(&self, line: &str) {
        if !self.quiet {
            self.say(&format!("{line}\n"));
        }
    }

    /// Says something on stderr. There is nowhere to report that this failed.
    pub(crate) fn say(&self, text: &str) {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Runs something that blocks on a thread of its own.
///
/// # Errors
/// Its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::error(format!("a thread of the command failed: {error}"))))
}

/// <https://no-color.org> and <https://bixense.com/clicolors>: the flag wins, then NO_COLOR, then CLICOLOR_FORCE.
fn use_color(flag: Color, terminal: bool, no_color: bool, force: bool) -> bool {
    match flag {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => !no_color && (force || terminal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_flag_then_the_environment_then_the_terminal() {
        assert!(use_color(Color::Always, false, true, false));
        assert!(!use_color(Color::Never, true, false, true));
        assert!(use_color(Color::Auto, true, false, false));
        assert!(!use_color(Color::Auto, true, true, true));
        assert!(use_color(Color::Auto, false, false, true));
        assert!(!use_color(Color::Auto, false, false, false));
    }
}
