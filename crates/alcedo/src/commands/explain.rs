//! `alcedo explain`: how a lookup would go, or where its time and bytes went.

use alcedo_client::{Answer, Client, FileInfo, Kind, ListOptions, Mount};
use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::question::Question;
use super::{Context, get, stat, trace};
use crate::failure::Failure;
use crate::output::quantity::{bytes, count, counted, elapsed};
use crate::output::tree::{Node, tree};
use crate::output::{API_VERSION, Format, json_document, printable};

/// Files that are counted below a prefix: enough to see what is there, and one listing of a few calls.
const COUNTED_FILES: u64 = 10_000;

/// The flags of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    question: Question,
    /// The key, as a text that the worker reads by the key column's type
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    lookup: String,
    /// Look the key up, and show every stage with its time, bytes and origin GETs
    #[arg(long)]
    analyze: bool,
}

/// Prints the explanation.
///
/// # Errors
/// There is no such path, or it could not be asked for. A key without rows is not an error here.
pub(crate) async fn run(args: ExplainArgs, context: &Context) -> Result<(), Failure> {
    let format = Format::among(context.globals.output, Format::Table, &[Format::Table, Format::Json])?;
    let client = context.client()?;
    if args.analyze {
        let answer = args.question.lookup(&client)?.key(args.lookup.as_str()).trace(true).await?;
        let printed = match format {
            Format::Json => json_document(&analysis_json(&args.question.path, &answer)),
            _ => analysis(&args.question.path, &answer).into_bytes(),
        };
        return context.terminal.print(printed).await;
    }
    args.question.columns()?;
    let plan = Plan::new(&client, &args.question.path).await?;
    let printed = match format {
        Format::Json => json_document(&plan.json()),
        _ => plan.text().into_bytes(),
    };
    context.terminal.print(printed).await?;
    context.terminal.summary("nothing was looked up; --analyze looks the key up and shows every stage");
    Ok(())
}

fn analysis(path: &str, answer: &Answer) -> String {
    let rows: u64 = answer.files.iter().map(|file| file.rows.len() as u64).sum();
    let asked = format!("{}/{} asked", count(answer.files_asked.into()), counted(answer.files_total.into(), "file"));
    let mut text = format!("{} → {} · {asked}", printable(path), counted(rows, "row"));
    let Some(found) = &answer.trace else {
        return text + "\nthe worker sent no trace\n";
    };
    let wire = answer.elapsed.saturating_sub(std::time::Duration::from_micros(found.total_us));
    text += &format!(" · {}\n{}", trace::totals(found), trace::text(found));
    text + &format!(
        "here {}, of which {} outside the worker {}, connecting included\n",
        elapsed(answer.elapsed),
        elapsed(wire),
        answer.worker
    )
}

fn analysis_json(path: &str, answer: &Answer) -> Json {
    let rows: usize = answer.files.iter().map(|file| file.rows.len()).sum();
    let files: Json = answer.files.iter().map(|file| json!({ "url": &*file.url, "version": &*file.version })).collect();
    json!({
        "apiVersion": API_VERSION,
        "kind": "Analysis",
        "path": path,
        "rows": rows,
        "files": files,
        "worker": &*answer.worker,
        "source": get::source(answer.source),
        "ring_epoch": format!("{:016x}", answer.ring_epoch),
        "files_total": answer.files_total,
        "files_asked": answer.files_asked,
        "origin_gets": answer.origin_gets,
        "origin_bytes": answer.origin_bytes,
        "elapsed_us": u64::try_from(answer.elapsed.as_micros()).unwrap_or(u64::MAX),
        "trace": answer.trace.as_ref().map(trace::json),
    })
}

/// What a lookup would meet, found by cheap calls.
#[derive(Debug)]
struct Plan {
    path: String,
    /// The URL by which the ring places it.
    url: String,
    mount: Option<Mount>,
    epoch: u64,
    members: usize,
    /// The owner, then the replicas, as (id, address).
    owners: Vec<(String, String)>,
    files: Vec<FileInfo>,
    more_files: bool,
}

impl Plan {
    async fn new(client: &Client, path: &str) -> Result<Self, Failure> {
        let view = client.cluster().await?;
        let (files, more_files) = files(client, path).await?;
        let placement = client.owners(path).await?;
        let (mount, url) = (mount_of(&view.mounts, path).cloned(), placement.url);
        let owners = placement.owners.into_iter().map(|member| (member.id, member.address)).collect();
        let members = view.members.len();
        Ok(Self { path: path.to_owned(), url, mount, epoch: view.epoch, members, owners, files, more_files })
    }

    fn text(&self) -> String {
        let leaf = |label: String| Node { label, ..Node::default() };
        let mount = match &self.mount {
            Some(mount) => format!("mount {} ({}), freshness {}", mount.name, mount.url, mount.freshness),
            None => "no mount has this name".to_owned(),
        };
        let mut ring = leaf(format!("ring epoch {:016x}, {}", self.epoch, counted(self.members as u64, "member")));
        ring.children = self
            .owners
            .iter()
            .enumerate()
            .map(|(i, (id, address))| leaf(format!("{} {id} {address}", if i == 0 { "owner" } else { "replica" })))
            .collect();
        if self.owners.is_empty() {
            ring.children.push(leaf("any worker answers: it stands alone".to_owned()));
        }
        let nodes = [leaf(mount), ring, leaf(self.files_text())];
        format!("{} → {}\n{}", printable(&self.path), printable(&self.url), tree(&nodes))
    }

    fn files_text(&self) -> String {
        let size = bytes(self.files.iter().map(|file| file.size_bytes).sum());
        match self.files.as_slice() {
            [file] if !self.more_files => match &file.parquet {
                Some(parquet) => format!(
                    "1 file, {size}, {} in {}, {} page index",
                    counted(parquet.rows, "row"),
                    counted(parquet.row_groups.into(), "row group"),
                    if parquet.has_page_index { "with" } else { "without" },
                ),
                None => format!("1 file, {size}, not opened yet: the first lookup reads its footer"),
            },
            files => {
                let opened = files.iter().filter(|file| file.parquet.is_some()).count() as u64;
                let more = if self.more_files { " and more" } else { "" };
                format!("{}{more}, {size}, {} opened", counted(files.len() as u64, "file"), count(opened))
            }
        }
    }

    fn json(&self) -> Json {
        let owners: Json = self.owners.iter().map(|(id, address)| json!({ "id": id, "address": address })).collect();
        let mut document = Map::new();
        document.insert("apiVersion".into(), API_VERSION.into());
        document.insert("kind".into(), "Plan".into());
        document.insert("path".into(), self.path.clone().into());
        document.insert("url".into(), self.url.clone().into());
        document.insert("mount".into(), self.mount.as_ref().map(|mount| mount.name.clone()).into());
        document.insert("freshness".into(), self.mount.as_ref().map(|mount| mount.freshness.clone()).into());
        document.insert("ring_epoch".into(), format!("{:016x}", self.epoch).into());
        document.insert("ring_members".into(), self.members.into());
        document.insert("owners".into(), owners);
        document.insert("files_total".into(), self.files.len().into());
        document.insert("files_truncated".into(), self.more_files.into());
        document.insert("size_bytes".into(), self.files.iter().map(|file| file.size_bytes).sum::<u64>().into());
        if let ([file], false) = (self.files.as_slice(), self.more_files) {
            document.insert("file".into(), Json::Object(stat::fields(file)));
        }
        Json::Object(document)
    }
}

/// The path's file, or the files below it.
async fn files(client: &Client, path: &str) -> Result<(Vec<FileInfo>, bool), Failure> {
    if !path.ends_with('/') {
        match client.stat(path).await {
            Ok(file) => return Ok((vec![file], false)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let listing = client.list(path, ListOptions { recursive: true, limit: COUNTED_FILES }).await?;
    if listing.entries.is_empty() {
        return Err(Failure::no_rows(format!("there is nothing at or below {path}")));
    }
    Ok((listing.entries, listing.truncated))
}

/// The mount that a path names.
fn mount_of<'m>(mounts: &'m [Mount], path: &str) -> Option<&'m Mount> {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_url = path.contains("://");
    mounts.iter().find(|mount| below(if is_url { mount.url.trim_end_matches('/') } else { &mount.name }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::stat::tests::file;
    use super::*;

    fn mount() -> Mount {
        Mount { name: "lake".into(), url: "s3://bucket/users".into(), freshness: "ttl".into() }
    }

    fn plan(files: Vec<FileInfo>) -> Plan {
        Plan {
            path: "lake/".into(),
            url: "s3://bucket/users/".into(),
            mount: Some(mount()),
            epoch: 0xabc,
            members: 2,
            owners: vec![("w-1".into(), "10.0.0.1:7610".into()), ("w-0".into(), "10.0.0.2:7610".into())],
            files,
            more_files: false,
        }
    }

    #[test]
    fn a_plan_names_mount_owner_and_files() {
        let expected = "\
lake/ → s3://bucket/users/
├─ mount lake (s3://bucket/users), freshness ttl
├─ ring epoch 0000000000000abc, 2 members
│  ├─ owner w-1 10.0.0.1:7610
│  └─ replica w-0 10.0.0.2:7610
└─ 1 file, 12.4 MiB, 62,500 rows in 2 row groups, with page index
";
        assert_eq!(plan(vec![file()]).text(), expected);
        let unopened = FileInfo { parquet: None, ..file() };
        assert!(plan(vec![file(), unopened]).text().ends_with("└─ 2 files, 24.8 MiB, 1 opened\n"));
        let json = plan(vec![file()]).json();
        assert_eq!((json["kind"].as_str(), json["owners"][0]["id"].as_str()), (Some("Plan"), Some("w-1")));
        assert_eq!(json["file"]["size_bytes"], 13_002_339);
    }

    #[test]
    fn the_mount_of_a_path_is_its_name_or_its_url() {
        let mounts = [mount()];
        for (path, known) in [
            ("lake/a.parquet", true),
            ("lake", true),
            ("lakes/a.parquet", false),
            ("s3://bucket/users/a.parquet", true),
            ("s3://bucket/users", true),
            ("s3://bucket/users2/a.parquet", false),
            ("sea/a", false),
        ] {
            assert_eq!(mount_of(&mounts, path).is_some(), known, "{path}");
        }
    }
}
