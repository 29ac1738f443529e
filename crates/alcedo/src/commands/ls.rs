//! `alcedo ls`: the files below a path, or the mounts.

use alcedo_client::{FileInfo, ListOptions, Listing, Mount};
use clap::Args;
use serde_json::{Value as Json, json};

use super::{Context, stat};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count, instant};
use crate::output::{API_VERSION, Format, json_document, printable};

/// What a column shows where nothing is known.
const UNKNOWN: &str = "-";

/// The flags of `ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Prefix: mount/, mount/dir/, or its URL; without one, the mounts
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// Also size, modification time, rows and version
    #[arg(short, long)]
    long: bool,
    /// All files below, not one level
    #[arg(short = 'R', long)]
    recursive: bool,
    /// At most N entries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
}

/// Prints the list.
///
/// # Errors
/// There is nothing below the path, or it could not be asked for.
pub(crate) async fn run(args: LsArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl, Format::Name];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let headers = !context.globals.no_headers;
    let client = context.client()?;
    let Some(path) = &args.path else {
        let mounts = client.cluster().await?.mounts;
        return context.terminal.print(print_mounts(&mounts, format, headers)).await;
    };
    let options = ListOptions { recursive: args.recursive, limit: args.max.unwrap_or(0) };
    let listing = client.list(path, options).await?;
    context.terminal.print(print_files(&listing, format, args.long, headers)).await?;
    if listing.entries.is_empty() {
        return Err(Failure::no_rows(format!("there is nothing below {path}")));
    }
    let total = listing.entries.iter().map(|file| file.size_bytes).sum();
    let more = if listing.truncated { " · there are more" } else { "" };
    if args.long || listing.truncated {
        let entries = listing.entries.len() as u64;
        let noun = if entries == 1 { "entry" } else { "entries" };
        context.terminal.summary(&format!("{} {noun} · {}{more}", count(entries), bytes(total)));
    }
    Ok(())
}

fn print_mounts(mounts: &[Mount], format: Format, headers: bool) -> Vec<u8> {
    let item = |mount: &Mount| json!({ "name": mount.name, "url": mount.url, "freshness": mount.freshness });
    match format {
        Format::Json => list("MountList", mounts.iter().map(item).collect(), None),
        Format::Jsonl => mounts.iter().flat_map(|mount| json_document(&item(mount))).collect(),
        Format::Name => mounts.iter().map(|mount| format!("{}\n", printable(&mount.name))).collect::<String>().into(),
        _ => {
            let lines: Vec<_> = mounts.iter().map(|m| [m.name.clone(), m.url.clone(), m.freshness.clone()]).collect();
            aligned(headers.then_some(["MOUNT", "URL", "FRESHNESS"]), &lines).into_bytes()
        }
    }
}

fn print_files(listing: &Listing, format: Format, long: bool, headers: bool) -> Vec<u8> {
    let files = &listing.entries;
    match format {
        Format::Json => {
            let items = files.iter().map(|file| Json::Object(stat::fields(file))).collect();
            list("FileList", items, Some(listing.truncated))
        }
        Format::Jsonl => files.iter().flat_map(|file| json_document(&Json::Object(stat::fields(file)))).collect(),
        Format::Table if long => {
            let lines: Vec<_> = files.iter().map(long_line).collect();
            aligned(headers.then_some(["SIZE", "MODIFIED", "ROWS", "VERSION", "URL"]), &lines).into_bytes()
        }
        _ => files.iter().map(|file| format!("{}\n", printable(&file.url))).collect::<String>().into(),
    }
}

fn long_line(file: &FileInfo) -> [String; 5] {
    if file.is_prefix {
        let unknown = || UNKNOWN.to_owned();
        return [unknown(), unknown(), unknown(), unknown(), file.url.clone()];
    }
    let rows = file.parquet.as_ref().map_or_else(|| UNKNOWN.to_owned(), |parquet| count(parquet.rows));
    [bytes(file.size_bytes), instant(file.modified_us), rows, file.version.clone(), file.url.clone()]
}

fn list(kind: &str, items: Vec<Json>, truncated: Option<bool>) -> Vec<u8> {
    let mut document = json!({ "apiVersion": API_VERSION, "kind": kind, "items": items });
    if let Some(truncated) = truncated {
        document["truncated"] = truncated.into();
    }
    json_document(&document)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::stat::tests::file;
    use super::*;

    fn listing() -> Listing {
        let prefix = FileInfo {
            url: "s3://lake/users/2026/".into(),
            size_bytes: 0,
            version: String::new(),
            modified_us: 0,
            is_prefix: true,
            parquet: None,
        };
        Listing { entries: vec![prefix, file()], truncated: true }
    }

    fn printed(format: Format, long: bool, headers: bool) -> String {
        String::from_utf8(print_files(&listing(), format, long, headers)).unwrap()
    }

    #[test]
    fn files_are_names_or_lines() {
        let names = "s3://lake/users/2026/\ns3://lake/users/a.parquet\n";
        assert_eq!(printed(Format::Table, false, true), names);
        assert_eq!(printed(Format::Name, true, true), names);
        let expected = "\
SIZE      MODIFIED              ROWS    VERSION  URL
-         -                     -       -        s3://lake/users/2026/
12.4 MiB  2026-01-31T10:20:30Z  62,500  \"e1\"     s3://lake/users/a.parquet
";
        assert_eq!(printed(Format::Table, true, true), expected);
        assert!(!printed(Format::Table, true, false).contains("URL"));
    }

    #[test]
    fn programs_get_a_versioned_list() {
        let json: Json = serde_json::from_str(&printed(Format::Json, false, true)).unwrap();
        assert_eq!((json["apiVersion"].as_str(), json["kind"].as_str()), (Some("alcedo/v1"), Some("FileList")));
        assert_eq!((json["items"].as_array().unwrap().len(), &json["truncated"]), (2, &Json::Bool(true)));
        assert_eq!(printed(Format::Jsonl, false, true).lines().count(), 2);
    }

    #[test]
    fn mounts_are_a_table_of_their_own() {
        let mounts = [Mount { name: "lake".into(), url: "s3://lake/users/".into(), freshness: "ttl".into() }];
        let printed = |format| String::from_utf8(print_mounts(&mounts, format, true)).unwrap();
        assert_eq!(printed(Format::Table), "MOUNT  URL               FRESHNESS\nlake   s3://lake/users/  ttl\n");
        assert_eq!(printed(Format::Name), "lake\n");
        assert_eq!(
            printed(Format::Json),
            concat!(
                r#"{"apiVersion":"alcedo/v1","kind":"MountList","#,
                r#""items":[{"name":"lake","url":"s3://lake/users/","freshness":"ttl"}]}"#,
                "\n"
            )
        );
        assert!(printed(Format::Jsonl).starts_with("{\"name\":\"lake\""));
    }
}
