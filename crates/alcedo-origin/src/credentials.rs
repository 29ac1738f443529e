//! Credential files. Knows the `key = value` lines of the AWS tools' own format, which the other clouds' files here
//! share; must not know what the keys are good for. No message ever repeats a line of the file.

use crate::secret::Secret;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Largest credentials file, in bytes. A real one has a few hundred.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The only section that is read; lines before any section count as part of it.
const SECTION: &str = "default";

/// The settings of a credentials file: names in lower case, values secret.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    values: HashMap<String, Secret>,
}

impl Credentials {
    /// Reads a file. A file that others may read is accepted with a warning: it may be a mounted secret, whose mode the
    /// operator does not choose.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let file = File::open(path).map_err(|e| format!("credentials_file {shown}: {e}"))?;
        let metadata = file.metadata().map_err(|e| format!("credentials_file {shown}: {e}"))?;
        if !metadata.is_file() {
            return Err(format!("credentials_file {shown}: not a regular file"));
        }
        if metadata.permissions().mode() & 0o007 != 0 {
            tracing::warn!(file = %shown, "every user of this machine may use this credentials file: chmod 600 it");
        }
        let mut text = String::new();
        let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
        match read {
            Ok(n) if n as u64 > MAX_FILE_BYTES => {
                Err(format!("credentials_file {shown}: above {MAX_FILE_BYTES} bytes"))
            }
            Ok(_) => Self::parse(&text).map_err(|why| format!("credentials_file {shown}: {why}")),
            Err(e) => Err(format!("credentials_file {shown}: {e}")),
        }
    }

    /// Parses the lines.
    fn parse(text: &str) -> Result<Self, String> {
        let mut values = HashMap::new();
        let mut is_ours = true;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                is_ours = section.trim() == SECTION;
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(format!("line {} is neither \"key = value\", a comment nor a [section]", at + 1));
            };
            if is_ours {
                values.insert(key.trim().to_ascii_lowercase(), Secret::new(value.trim()));
            }
        }
        Ok(Self { values })
    }

    /// The value of the first of several names for one setting.
    pub(crate) fn get(&self, names: &[&str]) -> Option<&Secret> {
        names.iter().find_map(|name| self.values.get(*name))
    }

    /// Like [`Credentials::get`], for a setting that the mount cannot do without.
    pub(crate) fn need(&self, names: &[&str]) -> Result<&Secret, String> {
        self.get(names).ok_or_else(|| format!("credentials_file has no \"{}\"", names.join("\" or \"")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_default_section_are_read() {
        let text =
            "# c\n[other]\naws_access_key_id = wrong\n[default]\nAWS_ACCESS_KEY_ID = AK\naws_secret_access_key=a=b\n";
        let read = Credentials::parse(text).unwrap();
        assert_eq!(read.need(&["aws_access_key_id"]).unwrap().reveal(), "AK");
        assert_eq!(read.need(&["aws_secret_access_key"]).unwrap().reveal(), "a=b");
        assert!(read.get(&["aws_session_token"]).is_none());
        assert!(read.need(&["x", "y"]).unwrap_err().contains("\"x\" or \"y\""));
    }

    #[test]
    fn neither_errors_nor_debug_show_what_a_file_holds() {
        let wrong = Credentials::parse("a = b\nCANARY\n").unwrap_err();
        assert!(wrong.contains("line 2") && !wrong.contains("CANARY"));
        assert!(!format!("{:?}", Credentials::parse("k = CANARY").unwrap()).contains("CANARY"));
    }

    #[test]
    fn a_file_above_the_bound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        std::fs::write(&path, "#".repeat(MAX_FILE_BYTES as usize + 1)).unwrap();
        assert!(Credentials::read(&path).unwrap_err().contains("above"));
        assert!(Credentials::read(dir.path()).unwrap_err().contains("not a regular file"));
        assert!(Credentials::read(&dir.path().join("none")).is_err());
    }
}
