//! `alcedo man`: the manual pages, made from the same tree of commands as `--help`.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::Context;
use crate::cli::Cli;
use crate::failure::Failure;
use crate::terminal::blocking;

/// The flags of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory for all pages, one per command; without it the first page is printed
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the page of the command itself, or writes the pages of all commands.
///
/// # Errors
/// A page cannot be written.
pub(crate) async fn run(args: ManArgs, context: &Context) -> Result<(), Failure> {
    let Some(dir) = args.dir else {
        let mut page = Vec::new();
        Man::new(tree()).render(&mut page).map_err(Failure::output)?;
        return context.terminal.print(page).await;
    };
    let shown = dir.display().to_string();
    let written = blocking(move || {
        write(&dir).map_err(|error| Failure::error(format!("cannot write to {}: {}", dir.display(), error.kind())))
    });
    written.await?;
    context.terminal.summary(&format!("{shown} has the pages: man -l {shown}/alcedo.1"));
    Ok(())
}

/// The commands without `help`, which says the same in another place.
fn tree() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(tree(), dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Every command has a page, and the page has every flag of it, global ones too.
    fn check(command: &clap::Command, name: &str, dir: &Path) {
        let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        // Roff spells a hyphen that is not to be broken at with a backslash.
        let page = page.replace("\\-", "-");
        for flag in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let shown = flag.get_long().map(|long| format!("--{long}"));
            let shown = shown.unwrap_or_else(|| flag.get_value_names().unwrap()[0].to_string());
            assert!(page.contains(&shown), "{name}.1 does not have {shown}");
        }
        for below in command.get_subcommands() {
            check(below, &format!("{name}-{}", below.get_name()), dir);
        }
    }

    #[test]
    fn every_command_has_a_page_with_every_flag() {
        let dir = tempfile::tempdir().unwrap();
        let pages = dir.path().join("new/man1");
        write(&pages).unwrap();
        let mut tree = tree();
        tree.build();
        check(&tree, "alcedo", &pages);
        assert!(pages.join("alcedo-ring-show.1").is_file() && !pages.join("alcedo-help.1").exists());
    }
}
