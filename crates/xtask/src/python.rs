//! The Python of the tests and of the measurements: a virtual environment of each in the target directory, with exactly
//! its pinned packages.
//!
//! Knows venv and pip, which must be there. It must not know what is done with one. It is made again only when its pins
//! change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{Failure, Workspace, run};

/// One environment.
pub(crate) struct Environment {
    /// Its pins, from the workspace root.
    requirements: &'static str,
    /// Its directory below the target directory.
    home: &'static str,
}

/// What the tests have.
pub(crate) const TESTS: Environment =
    Environment { requirements: "crates/alcedo-testkit/tests/py/requirements.txt", home: "py" };

/// The peers that Alcedo is measured beside.
pub(crate) const BENCHES: Environment = Environment { requirements: "benches/py/requirements.txt", home: "py-bench" };

/// Makes an environment ready and returns its interpreter's path.
pub(crate) fn prepare(workspace: &Workspace, environment: &Environment) -> Result<PathBuf, Failure> {
    let Environment { requirements: name, home } = environment;
    let requirements = workspace.root.join(name);
    let pins = fs::read_to_string(&requirements).map_err(|e| Failure::Said(format!("cannot read {name}: {e}")))?;
    let home = workspace.target.join(home);
    let python = home.join("bin/python");
    if is_ready(&home, &pins) {
        return Ok(python);
    }
    let count = pins.lines().filter(|line| line.contains("==")).count();
    println!("xtask: installing {count} pinned Python packages into {}, about a minute, once", home.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(pip).arg(&requirements))?;
    // Last, so that an interrupted installation is made again.
    let stamp = stamp(&home);
    fs::write(&stamp, pins).map_err(|e| Failure::Said(format!("cannot write {}: {e}", stamp.display())))?;
    Ok(python)
}

/// True if the interpreter is there and was made from these pins.
fn is_ready(home: &Path, pins: &str) -> bool {
    home.join("bin/python").exists() && fs::read_to_string(stamp(home)).is_ok_and(|made_from| made_from == pins)
}

/// The file that holds the pins which the environment was made from.
fn stamp(home: &Path) -> PathBuf {
    home.join("made-from-requirements.txt")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_kept_only_for_the_same_pins() {
        let home = std::env::temp_dir().join(format!("alcedo-xtask-{}", std::process::id()));
        fs::create_dir_all(home.join("bin")).unwrap();
        assert!(!is_ready(&home, "moto==1\n"));
        fs::write(home.join("bin/python"), "").unwrap();
        assert!(!is_ready(&home, "moto==1\n"), "interrupted before the stamp");
        fs::write(stamp(&home), "moto==1\n").unwrap();
        assert!(is_ready(&home, "moto==1\n"));
        assert!(!is_ready(&home, "moto==2\n"));
        fs::remove_file(home.join("bin/python")).unwrap();
        assert!(!is_ready(&home, "moto==1\n"), "the interpreter is gone");
        fs::remove_dir_all(&home).unwrap();
    }
}
