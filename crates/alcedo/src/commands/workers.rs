//! `alcedo workers`: one line per member of the ring.

use alcedo_client::{Error, Member, WorkerStatus};
use serde_json::{Map, Value as Json, json};

use super::Context;
use super::members::{self, State, digest};
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{age, bytes, count};
use crate::output::{API_VERSION, Format, json_document, printable};

/// What a column shows where nothing is known.
const UNKNOWN: &str = "-";

const HEADER: [&str; 12] =
    ["ID", "ADDRESS", "STATE", "VERSION", "UPTIME", "EPOCH", "PAGES", "OF", "INDEX", "LOOKUPS", "FAILED", "IN_FLIGHT"];

/// Prints the workers, those that are down too.
///
/// # Errors
/// No worker answered, or some did not.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let formats = [Format::Table, Format::Json, Format::Jsonl, Format::Name];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let answers = context.client()?.status().await?;
    let items = || answers.iter().map(|(member, status)| item(member, status));
    let printed = match format {
        Format::Json => {
            let items: Json = items().collect();
            json_document(&json!({ "apiVersion": API_VERSION, "kind": "WorkerList", "items": items }))
        }
        Format::Jsonl => items().flat_map(|item| json_document(&item)).collect(),
        Format::Name => {
            answers.iter().map(|(one, _)| format!("{}\n", printable(members::name(one)))).collect::<String>().into()
        }
        _ => {
            let lines: Vec<_> = answers.iter().map(|(member, status)| line(member, status)).collect();
            aligned((!context.globals.no_headers).then_some(HEADER), &lines).into_bytes()
        }
    };
    context.terminal.print(printed).await?;
    members::settle(&answers)
}

fn line(member: &Member, status: &Result<WorkerStatus, Error>) -> [String; 12] {
    let [id, address] = [&member.id, &member.address].map(Clone::clone);
    let state = State::of(status).word().to_owned();
    let unknown = || UNKNOWN.to_owned();
    let Ok(status) = status else {
        let [a, b, c, d, e, f, g, h, i] = std::array::from_fn(|_| unknown());
        return [if id.is_empty() { unknown() } else { id }, address, state, a, b, c, d, e, f, g, h, i];
    };
    [
        id,
        address,
        state,
        status.version.clone(),
        age(status.uptime_ms / 1_000),
        digest(status.ring_epoch),
        bytes(status.page_bytes),
        bytes(status.page_capacity_bytes),
        bytes(status.index_bytes),
        count(status.lookups_total),
        count(status.lookups_failed),
        count(status.lookups_in_flight),
    ]
}

fn item(member: &Member, status: &Result<WorkerStatus, Error>) -> Json {
    let mut item = Map::new();
    item.insert("id".into(), member.id.clone().into());
    item.insert("address".into(), member.address.clone().into());
    item.insert("weight".into(), member.weight.into());
    item.insert("zone".into(), member.zone.clone().into());
    item.insert("state".into(), State::of(status).word().into());
    let fields = match status {
        Err(error) => json!({ "error": error.message }),
        Ok(status) => json!({
            "error": null,
            "worker_id": status.worker_id,
            "version": status.version,
            "uptime_us": status.uptime_ms.saturating_mul(1_000),
            "ring_epoch": digest(status.ring_epoch),
            "lookups_total": status.lookups_total,
            "lookups_failed": status.lookups_failed,
            "lookups_in_flight": status.lookups_in_flight,
            "shed_total": status.shed_total,
            "panics_total": status.panics_total,
            "origin_gets": status.origin_gets,
            "origin_bytes": status.origin_bytes,
            "index_bytes": status.index_bytes,
            "index_capacity_bytes": status.index_capacity_bytes,
            "page_bytes": status.page_bytes,
            "page_capacity_bytes": status.page_capacity_bytes,
            "pages_on_disk": status.on_disk,
        }),
    };
    if let Json::Object(fields) = fields {
        item.extend(fields);
    }
    Json::Object(item)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::members::tests::{down, member};
    use super::*;

    pub(crate) fn status(id: &str) -> WorkerStatus {
        WorkerStatus {
            worker_id: id.into(),
            version: "0.1.0".into(),
            uptime_ms: 182_500,
            ring_epoch: 0xabc,
            lookups_total: 18_200,
            lookups_failed: 3,
            origin_gets: 12,
            origin_bytes: 3 << 20,
            index_bytes: 4 << 10,
            index_capacity_bytes: 64 << 20,
            page_bytes: 1 << 20,
            page_capacity_bytes: 256 << 20,
            ready: true,
            ..WorkerStatus::default()
        }
    }

    #[test]
    fn a_worker_is_a_line_and_one_that_is_down_says_so() {
        let lines = [line(&member("w-0"), &Ok(status("w-0"))), line(&member("w-2"), &Err(down()))];
        let expected = "\
ID   ADDRESS           STATE  VERSION  UPTIME  EPOCH             PAGES    OF         INDEX    LOOKUPS  FAILED  IN_FLIGHT
w-0  w-0.example:7610  ready  0.1.0    3m2s    0000000000000abc  1.0 MiB  256.0 MiB  4.0 KiB  18,200   3       0
w-2  w-2.example:7610  down   -        -       -                 -        -          -        -        -       -
";
        assert_eq!(aligned(Some(HEADER), &lines), expected);
    }

    #[test]
    fn programs_get_integers_and_the_error() {
        let up = item(&member("w-0"), &Ok(status("w-0")));
        assert_eq!((up["state"].as_str(), up["uptime_us"].as_u64()), (Some("ready"), Some(182_500_000)));
        assert_eq!((up["ring_epoch"].as_str(), up["error"].is_null()), (Some("0000000000000abc"), true));
        let gone = item(&member("w-2"), &Err(down()));
        assert_eq!((gone["state"].as_str(), gone["id"].as_str()), (Some("down"), Some("w-2")));
        assert!(gone["error"].as_str().is_some_and(|error| error.contains("refused")) && gone["version"].is_null());
    }
}
