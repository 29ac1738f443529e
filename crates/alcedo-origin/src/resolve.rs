//! The mount table, and from a request's path to a place in it. Knows names and URLs of mounts; must not know stores,
//! credentials or endpoints: a request can name nothing but what the configuration mounted.

use crate::error::Error;
use crate::limits::OriginLimits;
use crate::mount::{Mount, MountConfig};
use crate::place::{MAX_PATH_BYTES, Place, parse_key};
use crate::secret::scrub;
use object_store::path::Path;
use std::fmt;
use std::sync::Arc;

/// How alike an unknown mount's name must be to a known one to be suggested (Jaro-Winkler, 1 = equal).
const ALIKE: f64 = 0.75;

/// Most mounts that an error message names.
const MAX_SHOWN_MOUNTS: usize = 8;

/// All mounts of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Mounts {
    mounts: Arc<[Arc<Mount>]>,
}

impl fmt::Debug for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.mounts.iter()).finish()
    }
}

impl Mounts {
    /// Opens every configured mount. `limits` hold for each mount whose own configuration gives none. Nothing is asked
    /// of any remote origin; a `file://` directory must exist.
    ///
    /// # Errors
    /// [`Error::Config`] names the mount and what to change.
    pub fn open(configs: &[MountConfig], limits: OriginLimits) -> Result<Self, Error> {
        let mounts = configs.iter().map(|config| Mount::open(config, &limits)).collect::<Result<_, _>>()?;
        Self::from_mounts(mounts)
    }

    /// A table of mounts that were opened one by one.
    ///
    /// # Errors
    /// [`Error::Config`] if two mounts share a name, or if the URL of one equals or lies under that of another: a file
    /// must have one canonical URL, one set of credentials and one freshness.
    pub fn from_mounts(mounts: Vec<Mount>) -> Result<Self, Error> {
        let mut mounts: Vec<Arc<Mount>> = mounts.into_iter().map(Arc::new).collect();
        mounts.sort_by(|a, b| a.name().cmp(b.name()));
        for (at, mount) in mounts.iter().enumerate() {
            for other in &mounts[..at] {
                if mount.name() == other.name() {
                    return Err(Error::config(mount.name(), "the name is used twice: every mount needs its own"));
                }
                if below(mount.url(), other.url()).is_some() || below(other.url(), mount.url()).is_some() {
                    let why = format!("{} overlaps {} of mount {}", mount.url(), other.url(), other.name());
                    return Err(Error::config(mount.name(), why));
                }
            }
        }
        Ok(Self { mounts: mounts.into() })
    }

    /// All mounts, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Mount>> {
        self.mounts.iter()
    }

    /// The mount of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Mount>> {
        self.mounts.iter().find(|mount| mount.name() == name)
    }

    /// The place that a path names: `mount/dir/file`, or a full URL under a mount's URL. Both spellings of a file give
    /// the same place. The rule for paths is at the top of this crate's `place` module: literal, never percent-decoded.
    ///
    /// # Errors
    /// [`Error::BadPath`] if the path breaks the rule, [`Error::NoSuchMount`] if it names no mount.
    pub fn resolve(&self, path: &str) -> Result<Place, Error> {
        if path.is_empty() {
            return Err(Error::bad_path("(empty)", "a path names a mount and a file: mount/dir/file"));
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(Error::bad_path(path, format!("longer than {MAX_PATH_BYTES} bytes")));
        }
        let (mount, rest) = if path.contains("://") { self.by_url(path)? } else { self.by_name(path)? };
        let (key, ends_with_slash) = match rest {
            "" => (Path::ROOT, false),
            "/" => (Path::ROOT, true),
            rest => parse_key(path, &rest[1..])?,
        };
        Ok(Place { mount: Arc::clone(mount), url: mount.url_of(&key), key, ends_with_slash })
    }

    /// Splits `mount/dir/file`; what remains is empty or starts with a slash.
    fn by_name<'p>(&self, path: &'p str) -> Result<(&Arc<Mount>, &'p str), Error> {
        let at = path.find('/').unwrap_or(path.len());
        let (name, rest) = path.split_at(at);
        // The rest is checked first, so that a hostile path is called that, whether or not its mount exists.
        match rest {
            "" | "/" => {}
            rest => drop(parse_key(path, &rest[1..])?),
        }
        match self.get(name) {
            Some(mount) => Ok((mount, rest)),
            None if is_mount_name(name) => Err(self.no_such_mount(path, name)),
            None => Err(Error::bad_path(path, "it starts with neither a mount's name nor a URL")),
        }
    }

    /// Splits a URL at the end of its mount's URL; what remains is empty or starts with a slash.
    fn by_url<'p>(&self, path: &'p str) -> Result<(&Arc<Mount>, &'p str), Error> {
        let (scheme, rest) = path.split_once("://").unwrap_or((path, ""));
        // RFC 3986 section 3.1.
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme {
            return Err(Error::bad_path(path, "it starts with neither a mount's name nor a URL"));
        }
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            return Err(Error::bad_path(
                path,
                "a URL must not carry user information: credentials belong to the mount",
            ));
        }
        let local = rest.strip_prefix('/').filter(|_| scheme == "file").unwrap_or(rest);
        drop(parse_key(path, local)?);
        self.mounts
            .iter()
            .filter_map(|mount| Some((mount, below(path, mount.url())?)))
            // The longest URL wins, should mounts ever be allowed to nest.
            .max_by_key(|(mount, _)| mount.url().len())
            .ok_or_else(|| self.no_such_mount(path, path))
    }

    /// The error for a path outside every mount, with the nearest name where there is one.
    fn no_such_mount(&self, path: &str, wanted: &str) -> Error {
        let alike = |mount: &Arc<Mount>| {
            let full = if wanted.contains("://") { mount.url() } else { mount.name() };
            (strsim::jaro_winkler(full, wanted), mount.name().to_owned())
        };
        let nearest = self.mounts.iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match nearest {
            Some((score, name)) if score >= ALIKE => format!(" (did you mean \"{name}\"?)"),
            _ => String::new(),
        };
        let mut known: Vec<String> =
            self.mounts.iter().take(MAX_SHOWN_MOUNTS).map(|m| format!("{} ({})", m.name(), m.url())).collect();
        match self.mounts.len() {
            0 => known.push("none is configured".to_owned()),
            n if n > MAX_SHOWN_MOUNTS => known.push(format!("and {} more", n - MAX_SHOWN_MOUNTS)),
            _ => {}
        }
        Error::NoSuchMount { path: scrub(path), hint, known: known.join(", ") }
    }
}

/// What follows `base` in `url`, if `url` is `base` or lies under it: empty, or a text that starts with a slash.
fn below<'u>(url: &'u str, base: &str) -> Option<&'u str> {
    url.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a text may be the name of a mount: `[a-z0-9][a-z0-9_-]{0,62}`.
pub(crate) fn is_mount_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 63
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || b == b'_' || b == b'-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::fake::Fake;
    use crate::mount::Freshness;

    fn mount(name: &str, url: &str) -> Mount {
        Mount::with_store(name, url, Arc::new(Fake::default()), Freshness::default(), OriginLimits::default()).unwrap()
    }

    fn mounts() -> Mounts {
        let local = mount("local", "file:///srv/lake");
        Mounts::from_mounts(vec![mount("lake", "s3://bucket/data"), mount("logs", "gs://logs"), local]).unwrap()
    }

    #[test]
    fn both_spellings_name_one_place() {
        let mounts = mounts();
        for (name, url) in [
            ("lake/users/a.parquet", "s3://bucket/data/users/a.parquet"),
            ("lake/users/a.parquet/", "s3://bucket/data/users/a.parquet/"),
            ("lake", "s3://bucket/data"),
            ("lake/", "s3://bucket/data/"),
            ("logs/x", "gs://logs/x"),
            ("local/day=1/a b.parquet", "file:///srv/lake/day=1/a b.parquet"),
            ("lake/a%20b", "s3://bucket/data/a%20b"),
            ("lake/100%", "s3://bucket/data/100%"),
            ("lake/ünï/…/.hidden", "s3://bucket/data/ünï/…/.hidden"),
            ("lake/...", "s3://bucket/data/..."),
            ("lake/a:b@c", "s3://bucket/data/a:b@c"),
        ] {
            let (by_name, by_url) = (mounts.resolve(name).unwrap(), mounts.resolve(url).unwrap());
            assert_eq!((&by_name.url, &by_name.key), (&by_url.url, &by_url.key));
            assert_eq!(by_name.ends_with_slash, name.ends_with('/'));
            assert_eq!(by_url.ends_with_slash, name.ends_with('/'));
            assert_eq!(&*by_name.url, url.trim_end_matches('/'));
            assert!(Arc::ptr_eq(&by_name.mount, &by_url.mount));
            // A canonical URL names itself, and so does a place that was made from its key.
            assert_eq!(mounts.resolve(&by_name.url).unwrap().url, by_name.url);
            assert_eq!(by_name.mount.place_of(&by_name.key).url, by_name.url);
        }
    }

    #[test]
    fn children_obey_the_same_rule() {
        let place = mounts().resolve("lake/users/").unwrap();
        let child = place.child("x/y.parquet").unwrap();
        assert_eq!((&*child.url, child.key.as_ref()), ("s3://bucket/data/users/x/y.parquet", "users/x/y.parquet"));
        for wrong in ["", "/", "../x", "/x", "x//y", "%2e%2e/x", "s3://bucket/x"] {
            assert_eq!(place.child(wrong).unwrap_err().kind(), ErrorKind::BadPath, "{wrong:?}");
        }
    }

    /// What no segment of a path may be or hide.
    const HOSTILE_SEGMENTS: &[&str] = &[
        ".",
        "..",
        "./x",
        "../x",
        "x/.",
        "x/..",
        "x/../y",
        "x/./y",
        "/x",
        "//x",
        "x//y",
        "x//",
        "//",
        "x/\u{0}",
        "x\u{0}.parquet",
        "x\ny",
        "x\ry",
        "x\ty",
        "x\u{7f}y",
        "x\u{1b}[2J",
        "x\u{85}y",
        "x\\y",
        "..\\x",
        "x\\..\\y",
        "%2e",
        "%2E",
        "%2e%2e",
        "%2e.",
        ".%2e",
        "%2E%2E/x",
        "x/%2e%2e/y",
        "%2f",
        "x%2fy",
        "x%2Fy",
        "..%2fx",
        "%2e%2e%2fx",
        "%5c",
        "x%5Cy",
        "..%5cx",
        "%00",
        "x%00.parquet",
        "%0a",
        "%0d%0aHost:x",
        "%7f",
        "%1b",
        "%252e%252e",
        "%252e%252e%252fx",
        "%25252e%25252e",
        "%252f",
        "%255c",
        "%2500",
        "%c0%ae%c0%ae",
        "%c0%af",
        "%e0%80%af",
        "%ff",
        "%fe%ff",
        "x?versionId=1",
        "?x",
        "x#y",
        "#",
        "x%3fy",
        "x%23y",
        "%c2%85",
    ];

    /// Whole paths that are refused.
    const HOSTILE_PATHS: &[&str] = &[
        "",
        "/",
        "/lake/x",
        "://x",
        "lake\\x",
        "LAKE/x",
        "lake /x",
        " lake/x",
        "lake?x/y",
        "..",
        "../lake/x",
        "..://x",
        "s3://",
        "s3:///",
        "s3:///data/x",
        "s3://user@bucket/data/x",
        "s3://user:pw@bucket/data/x",
        "s3://bucket@evil/data/x",
        "s3://bucket/data?x",
        "s3://bucket?x/data/x",
        "s3://bucket/data#x",
        "s3://bucket/data/../other/x",
        "s3://bucket//data/x",
        "s3://bucket\\data/x",
        "file:///srv/lake/../etc/passwd",
        "file:////srv/lake/x",
        "lake/s3://bucket/data/x",
        "s 3://bucket/data/x",
    ];

    #[test]
    fn hostile_paths_are_refused() {
        assert!(HOSTILE_SEGMENTS.len() >= 60);
        let mounts = mounts();
        for segment in HOSTILE_SEGMENTS {
            for base in ["lake/", "s3://bucket/data/", "file:///srv/lake/", "nowhere/", "s3://elsewhere/"] {
                let path = format!("{base}{segment}");
                let error = mounts.resolve(&path).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BadPath, "{path:?}: {error}");
                assert!(!format!("{error}").chars().any(char::is_control), "{path:?} is shown raw");
            }
        }
        let longest = format!("lake/{}", "x".repeat(MAX_PATH_BYTES - 5));
        assert!(mounts.resolve(&longest).is_ok());
        assert_eq!(mounts.resolve(&format!("{longest}x")).unwrap_err().kind(), ErrorKind::BadPath);
        for path in HOSTILE_PATHS {
            assert_eq!(mounts.resolve(path).unwrap_err().kind(), ErrorKind::BadPath, "{path:?}");
        }
    }

    #[test]
    fn urls_outside_every_mount_are_not_found_in_one() {
        let mounts = mounts();
        for path in [
            "s3://bucket/database/x",
            "s3://bucket/dat",
            "s3://bucket",
            "s3://bucket2/data/x",
            "S3://bucket/data/x",
            "s3://Bucket/data/x",
            "https://bucket/data/x",
            "gs://bucket/data/x",
            "gs://logs.evil/x",
            "gs://logsx",
            "file:///srv/lakes/x",
            "file:///etc/passwd",
            "file://srv/lake/x",
            "http://169.254.169.254/latest/meta-data",
            "lak/x",
            "lake2/x",
            "nowhere",
        ] {
            assert_eq!(mounts.resolve(path).unwrap_err().kind(), ErrorKind::NoSuchMount, "{path:?}");
        }
    }

    #[test]
    fn an_unknown_mount_is_answered_with_the_known_ones() {
        let error = mounts().resolve("lakke/x").unwrap_err().to_string();
        assert_eq!(
            error,
            "lakke/x: no such mount (did you mean \"lake\"?); known mounts: lake (s3://bucket/data), local \
             (file:///srv/lake), logs (gs://logs)"
        );
        assert!(!mounts().resolve("zzz/x").unwrap_err().to_string().contains("did you mean"));
        assert!(Mounts::default().resolve("x/y").unwrap_err().to_string().contains("none is configured"));
    }

    #[test]
    fn mounts_neither_share_names_nor_overlap() {
        for (a, b) in [
            (("m", "s3://a"), ("m", "s3://b")),
            (("m", "s3://a"), ("n", "s3://a")),
            (("m", "s3://a"), ("n", "s3://a/")),
            (("m", "s3://a"), ("n", "s3://a/b")),
            (("n", "s3://a/b/c"), ("m", "s3://a/b")),
        ] {
            let error = Mounts::from_mounts(vec![mount(a.0, a.1), mount(b.0, b.1)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        let apart = [("m", "s3://a/b"), ("n", "s3://a/bc"), ("o", "gs://a/b"), ("p", "s3://a/c")];
        let apart = apart.map(|(name, url)| mount(name, url)).into_iter().collect();
        assert_eq!(Mounts::from_mounts(apart).unwrap().iter().len(), 4);
    }
}
