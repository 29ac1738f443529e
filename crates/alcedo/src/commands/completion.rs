//! `alcedo completion`: a script that teaches a shell the commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Context;
use crate::cli::Cli;
use crate::failure::Failure;

/// The flags of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell that reads the script
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// It cannot be written.
pub(crate) async fn run(args: CompletionArgs, context: &Context) -> Result<(), Failure> {
    context.terminal.print(script(args.shell)).await
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut tree = Cli::command();
    let name = tree.get_name().to_owned();
    clap_complete::generate(shell, &mut tree, name, &mut script);
    script
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(command: &clap::Command, found: &mut Vec<String>) {
        for below in command.get_subcommands() {
            found.push(below.get_name().to_owned());
            names(below, found);
        }
    }

    #[test]
    fn every_script_knows_every_command_and_flag() {
        let tree = Cli::command();
        let mut commands = Vec::new();
        names(&tree, &mut commands);
        assert!(commands.len() > 10, "{commands:?}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for name in commands.iter().map(String::as_str).chain(["keys-from", "endpoints", "members-only"]) {
                assert!(script.contains(name), "{shell} does not know {name}");
            }
        }
    }
}
