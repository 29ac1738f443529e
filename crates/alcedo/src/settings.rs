//! Where the workers are and how long to wait: the client's settings from flags, environment and files.
//!
//! Precedence, key by key: flag, `ALCEDO_*`, the file of `--config`, `./alcedo.toml`,
//! `$XDG_CONFIG_HOME/alcedo/config.toml`, `/etc/alcedo/alcedo.toml`, default. clap merges flag and environment; this
//! module reads the files. A key that it does not know is an error with its line: a typing error must not silently mean
//! the default.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::failure::Failure;

/// Where a worker listens unless told otherwise.
pub(crate) const DEFAULT_ENDPOINT: &str = "127.0.0.1:7610";
/// How long a call may take unless told otherwise: a cold lookup of a large file over a slow link.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a call may be given: beyond it a deadline is a typing error.
const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// A settings file is a few lines; what is larger is something else.
const MAX_FILE_BYTES: u64 = 64 << 10;

const SYSTEM_FILE: &str = "/etc/alcedo/alcedo.toml";
const LOCAL_FILE: &str = "alcedo.toml";
const TABLE: &str = "client";
const KEYS: [&str; 2] = ["endpoints", "timeout"];

/// The client's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `host:port` of workers; one that answers is enough.
    pub(crate) endpoints: Vec<String>,
    /// For each call.
    pub(crate) timeout: Duration,
}

/// Settings that some place has or has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) endpoints: Option<Vec<String>>,
    pub(crate) timeout: Option<Duration>,
}

impl Settings {
    /// Merges what flags and environment say with the files.
    ///
    /// # Errors
    /// A file cannot be read or is wrong.
    pub(crate) fn load(given: Partial, config: Option<&Path>) -> Result<Self, Failure> {
        let xdg = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let home = std::env::var_os("HOME").filter(|dir| !dir.is_empty());
        let user = xdg.or_else(|| Some(Path::new(&home?).join(".config"))).map(|dir| dir.join("alcedo/config.toml"));
        let mut found = [Some(PathBuf::from(LOCAL_FILE)), user, Some(PathBuf::from(SYSTEM_FILE))];
        Self::merge(given, config, found.iter_mut().filter_map(Option::take))
    }

    fn merge(given: Partial, config: Option<&Path>, found: impl Iterator<Item = PathBuf>) -> Result<Self, Failure> {
        let mut merged = given;
        if let Some(path) = config {
            merged =
                merged.or(read(path)?.ok_or_else(|| Failure::error(format!("{} does not exist", path.display())))?);
        }
        for path in found {
            merged = merged.or(read(&path)?.unwrap_or_default());
        }
        Ok(Self {
            endpoints: merged.endpoints.unwrap_or_else(|| vec![DEFAULT_ENDPOINT.to_owned()]),
            timeout: merged.timeout.unwrap_or(DEFAULT_TIMEOUT),
        })
    }
}

impl Partial {
    fn or(self, other: Self) -> Self {
        Self { endpoints: self.endpoints.or(other.endpoints), timeout: self.timeout.or(other.timeout) }
    }
}

/// A duration with its unit that a call may take.
///
/// # Errors
/// Says what is wrong with the text.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a duration such as 5s or 250ms"))?;
    if duration.is_zero() || duration > MAX_TIMEOUT {
        return Err(format!("`{text}` is not between 1ns and {}", humantime::format_duration(MAX_TIMEOUT)));
    }
    Ok(duration)
}

/// The settings in a file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Partial>, Failure> {
    let cannot = |error: io::Error| Failure::error(format!("cannot read {}: {}", path.display(), error.kind()));
    match std::fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE_BYTES => {
            return Err(Failure::error(format!("{} has more than {MAX_FILE_BYTES} bytes", path.display())));
        }
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(cannot(error)),
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    parse(&text).map(Some).map_err(|(at, message)| Failure::error(format!("{}:{at}: {message}", path.display())))
}

/// The settings in a file's text, or the line and what is wrong there.
fn parse(text: &str) -> Result<Partial, (usize, String)> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let document = DeTable::parse(text)
        .map_err(|error| (line(error.span().map_or(0, |span| span.start)), error.message().replace('\n', ", ")))?;
    let mut settings = Partial::default();
    for (table, keys) in document.get_ref() {
        let at = line(table.span().start);
        if table.get_ref() != TABLE {
            return Err((at, unknown(table.get_ref(), &[TABLE])));
        }
        let DeValue::Table(keys) = keys.get_ref() else {
            return Err((at, format!("`{TABLE}` is a table: write [{TABLE}]")));
        };
        for (key, value) in keys {
            let at = line(key.span().start);
            match key.get_ref().as_ref() {
                "endpoints" => settings.endpoints = Some(texts(value.get_ref()).map_err(|message| (at, message))?),
                "timeout" => {
                    let DeValue::String(text) = value.get_ref() else {
                        return Err((at, "`timeout` is a text such as \"5s\"".to_owned()));
                    };
                    settings.timeout = Some(timeout(text).map_err(|message| (at, format!("`timeout`: {message}")))?);
                }
                other => return Err((at, unknown(other, &KEYS))),
            }
        }
    }
    Ok(settings)
}

fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = || "`endpoints` is a list such as [\"127.0.0.1:7610\"]".to_owned();
    let DeValue::Array(items) = value else { return Err(wrong()) };
    let item = |item: &toml::Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned).ok_or_else(wrong);
    let texts: Vec<String> = items.iter().map(item).collect::<Result<_, _>>()?;
    if texts.is_empty() { Err(wrong()) } else { Ok(texts) }
}

fn unknown(key: &str, known: &[&str]) -> String {
    /// How alike two names must be for one to be suggested for the other (Jaro-Winkler, 1 is equal).
    const ALIKE: f64 = 0.75;
    let scored = known.iter().map(|known| (strsim::jaro_winkler(key, known), known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, alike)) if score >= ALIKE => format!("unknown key `{key}`: did you mean `{alike}`?"),
        _ => format!("unknown key `{key}`: known here are {}", known.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn each_key_comes_from_the_first_place_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = file(&dir, "c.toml", "[client]\ntimeout = \"3s\"\n");
        let local = file(&dir, "l.toml", "[client]\nendpoints = [\"l:1\", \"l:2\"]\ntimeout = \"2s\"\n");
        let system = file(&dir, "s.toml", "[client]\nendpoints = [\"s:1\"]\n");
        let absent = dir.path().join("absent.toml");
        let found = || [local.clone(), absent.clone(), system.clone()].into_iter();

        let settings = Settings::merge(Partial::default(), Some(&config), found()).unwrap();
        assert_eq!(settings.endpoints, ["l:1", "l:2"]);
        assert_eq!(settings.timeout, Duration::from_secs(3));

        let given = Partial { endpoints: Some(vec!["f:1".into()]), timeout: Some(Duration::from_secs(9)) };
        let settings = Settings::merge(given, Some(&config), found()).unwrap();
        assert_eq!((settings.endpoints[0].as_str(), settings.timeout.as_secs()), ("f:1", 9));

        let defaults = Settings::merge(Partial::default(), None, std::iter::empty()).unwrap();
        assert_eq!((defaults.endpoints[0].as_str(), defaults.timeout), (DEFAULT_ENDPOINT, DEFAULT_TIMEOUT));

        let failure = Settings::merge(Partial::default(), Some(&absent), found()).unwrap_err();
        assert_eq!(failure.to_string(), format!("error: {} does not exist\n", absent.display()));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_line() {
        let cases = [
            ("[client]\n\nendpoint = []\n", "3: unknown key `endpoint`: did you mean `endpoints`?"),
            ("[clients]\n", "1: unknown key `clients`: did you mean `client`?"),
            ("[client]\nzzz = 1\n", "2: unknown key `zzz`: known here are endpoints, timeout"),
            ("client = 1\n", "1: `client` is a table: write [client]"),
            ("[client]\nendpoints = \"a:1\"\n", "2: `endpoints` is a list such as [\"127.0.0.1:7610\"]"),
            ("[client]\ntimeout = 5\n", "2: `timeout` is a text such as \"5s\""),
            ("[client]\ntimeout = \"5\"\n", "2: `timeout`: `5` is not a duration such as 5s or 250ms"),
            ("[client]\ntimeout = \"0s\"\n", "2: `timeout`: `0s` is not between 1ns and 1h"),
        ];
        for (text, wanted) in cases {
            let (line, message) = parse(text).unwrap_err();
            assert_eq!(format!("{line}: {message}"), wanted);
        }
        assert_eq!(parse("a =\n").unwrap_err().0, 1);
    }
}
