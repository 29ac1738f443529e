//! `alcedo who`: which worker a path belongs to, and whether the workers agree about it.

use alcedo_client::{Client, Error, Holdings, Kind, Placement, Reason};
use clap::Args;
use serde_json::{Value as Json, json};

use super::Context;
use super::members::{self, digest};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::percent;
use crate::output::{API_VERSION, Format, json_document, printable};

/// Owners that the ring names at most: the owner and its replicas.
const MAX_OWNERS: i64 = alcedo_cluster::MAX_REPLICAS as i64 + 1;

const HEADER: [&str; 7] = ["PATH", "HASH", "OWNER", "STANDBY", "CACHED", "EPOCH", "AGREES"];

/// The flags of `who`.
#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    /// Files or prefixes; they need not exist
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Workers to name per path: the owner, and those that stand in for it in this order
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=MAX_OWNERS))]
    replicas: u8,
}

/// One path's place on the ring.
#[derive(Debug)]
struct Found {
    placement: Placement,
    /// Bytes below the path, and how many of them the owner holds; unknown where the owner does not say.
    held: Option<(u64, u64)>,
}

/// How many members have the ring by which the paths were placed.
#[derive(Debug, Clone, Copy)]
struct Agreement {
    epoch: u64,
    agreeing: usize,
    members: usize,
}

/// Prints one line per path.
///
/// # Errors
/// No worker answered, or a path names no mount.
pub(crate) async fn run(args: WhoArgs, context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl, Format::Name];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let client = context.client()?;
    let epoch = client.cluster().await?.epoch;
    let answers = client.status().await?;
    let agreeing =
        answers.iter().filter(|(_, status)| status.as_ref().is_ok_and(|one| one.ring_epoch == epoch)).count();
    let agreement = Agreement { epoch, agreeing, members: answers.len() };
    let mut found = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        found.push(Found::new(&client, path, args.replicas.into()).await?);
    }
    let items = || found.iter().map(|one| one.item(agreement));
    let printed = match format {
        Format::Json => {
            let items: Json = items().collect();
            json_document(&json!({ "apiVersion": API_VERSION, "kind": "PlacementList", "items": items }))
        }
        Format::Jsonl => items().flat_map(|item| json_document(&item)).collect(),
        Format::Name => found.iter().map(|one| format!("{}\n", printable(one.owner()))).collect::<String>().into(),
        _ => {
            let lines: Vec<_> = found.iter().map(|one| one.line(agreement)).collect();
            aligned((!context.globals.no_headers).then_some(HEADER), &lines).into_bytes()
        }
    };
    context.terminal.print(printed).await?;
    for (member, status) in &answers {
        if let Err(error) = status {
            context.terminal.summary(&printable(&format!("! {}: down: {}", members::name(member), error.message)));
        }
    }
    Ok(())
}

impl Found {
    async fn new(client: &Client, path: &str, replicas: usize) -> Result<Self, Failure> {
        let mut placement = client.owners(path).await?;
        placement.owners.truncate(replicas);
        let held = match placement.owners.first() {
            Some(owner) => held(client.check_at(owner, path).await)?,
            None => None,
        };
        Ok(Self { placement, held })
    }

    fn owner(&self) -> &str {
        // Where no ring is known a worker stands alone, and any that is asked answers.
        self.placement.owners.first().map_or("any", members::name)
    }

    fn line(&self, agreement: Agreement) -> [String; 7] {
        let standby: Vec<&str> = self.placement.owners.iter().skip(1).map(members::name).collect();
        let standby = if standby.is_empty() { "-".to_owned() } else { standby.join(",") };
        let cached = match self.held {
            Some((size, cached)) if size > 0 => format!("{}%", percent(cached, size)),
            _ => "-".to_owned(),
        };
        let Agreement { epoch, agreeing, members } = agreement;
        let (url, hash) = (self.placement.url.clone(), digest(self.placement.hash));
        [url, hash, self.owner().to_owned(), standby, cached, digest(epoch), format!("{agreeing}/{members}")]
    }

    fn item(&self, agreement: Agreement) -> Json {
        json!({
            "url": self.placement.url,
            "hash": digest(self.placement.hash),
            "owners": self.placement.owners.iter().map(members::identity).collect::<Json>(),
            "size_bytes": self.held.map(|(size, _)| size),
            "cached_bytes": self.held.map(|(_, cached)| cached),
            "ring_epoch": digest(agreement.epoch),
            "members": agreement.members,
            "members_agreeing": agreement.agreeing,
        })
    }
}

/// Size and cached bytes of what an owner told. A path that does not exist has a place all the same, and an owner that
/// does not answer is still the owner; but a path that no mount has is a slip of the pen.
fn held(told: Result<Holdings, Error>) -> Result<Option<(u64, u64)>, Failure> {
    match told {
        Ok(holdings) => {
            let sum = |of: fn(&alcedo_client::Holding) -> u64| holdings.files.iter().map(of).sum::<u64>();
            Ok(Some((sum(|file| file.size_bytes), sum(|file| file.cached_bytes))))
        }
        Err(error) if error.kind() == Kind::Invalid || error.reason == Some(Reason::NoSuchMount) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alcedo_client::{Holding, Member};

    use super::super::members::tests::{down, error, member};
    use super::*;

    fn found(owners: &[&str], held: Option<(u64, u64)>) -> Found {
        let owners: Vec<Member> = owners.iter().map(|id| member(id)).collect();
        Found { placement: Placement { url: "s3://lake/a.parquet".into(), hash: 0x91c2, owners }, held }
    }

    const AGREEMENT: Agreement = Agreement { epoch: 0xabc, agreeing: 2, members: 3 };

    #[test]
    fn a_path_is_a_line() {
        let lines = [
            found(&["w-1", "w-0", "w-2"], Some((1_000, 976))).line(AGREEMENT),
            found(&["w-1"], None).line(AGREEMENT),
            found(&[], Some((0, 0))).line(AGREEMENT),
        ];
        let expected = "\
PATH                 HASH              OWNER  STANDBY  CACHED  EPOCH             AGREES
s3://lake/a.parquet  00000000000091c2  w-1    w-0,w-2  97.6%   0000000000000abc  2/3
s3://lake/a.parquet  00000000000091c2  w-1    -        -       0000000000000abc  2/3
s3://lake/a.parquet  00000000000091c2  any    -        -       0000000000000abc  2/3
";
        assert_eq!(aligned(Some(HEADER), &lines), expected);
    }

    #[test]
    fn programs_get_the_owners_in_their_order() {
        let item = found(&["w-1", "w-0"], Some((1_000, 976))).item(AGREEMENT);
        assert_eq!((item["owners"][0]["id"].as_str(), item["owners"][1]["id"].as_str()), (Some("w-1"), Some("w-0")));
        assert_eq!((item["hash"].as_str(), item["cached_bytes"].as_u64()), (Some("00000000000091c2"), Some(976)));
        assert_eq!((item["members"].as_u64(), item["members_agreeing"].as_u64()), (Some(3), Some(2)));
        assert!(found(&["w-1"], None).item(AGREEMENT)["cached_bytes"].is_null());
    }

    #[test]
    fn only_a_path_that_cannot_be_is_a_failure() {
        let file = |size_bytes, cached_bytes| Holding {
            url: "s3://lake/a".into(),
            size_bytes,
            version: "1".into(),
            cached_bytes,
            indexed: true,
        };
        let told = Holdings { files: vec![file(10, 4), file(20, 5)], truncated: false };
        assert_eq!(held(Ok(told)).unwrap(), Some((30, 9)));
        assert_eq!(held(Err(down())).unwrap(), None);
        assert_eq!(held(Err(error(Kind::NotFound, Some(Reason::NoSuchFile), "no such file"))).unwrap(), None);
        let failure = held(Err(error(Kind::NotFound, Some(Reason::NoSuchMount), "sea/a: no such mount"))).unwrap_err();
        assert_eq!(failure.code(), 3);
        assert_eq!(held(Err(error(Kind::Invalid, Some(Reason::BadPath), "../a"))).unwrap_err().code(), 1);
    }
}
