//! `alcedo ring show`: the members of the ring, and how evenly they share the files.

use alcedo_client::{Member, RingView};
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::Context;
use super::members::digest;
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::counted;
use crate::output::{API_VERSION, Format, json_document, printable};

/// What to do with the ring.
#[derive(Debug, Subcommand)]
pub(crate) enum RingCommand {
    /// Show the members and their shares of the files
    ///
    /// Prints aligned columns, or -o table|json|jsonl|name.
    Show(RingShowArgs),
}

/// The flags of `ring show`.
#[derive(Debug, Args)]
pub(crate) struct RingShowArgs {
    /// Only the members, as a worker's `members` and a members file spell them
    #[arg(long)]
    members_only: bool,
}

const HEADER: [&str; 7] = ["ID", "ADDRESS", "WEIGHT", "ZONE", "SHARE", "IDEAL", "SHARE/IDEAL"];

/// A member's part of the hash space, and what it would be if hashing were perfect.
struct Part<'a> {
    member: &'a Member,
    share: f64,
    ideal: f64,
}

/// Prints the ring.
///
/// # Errors
/// No worker told its view of the cluster.
pub(crate) async fn run(command: RingCommand, context: &Context) -> Result<(), Failure> {
    let RingCommand::Show(args) = command;
    let formats = [Format::Table, Format::Json, Format::Jsonl, Format::Name];
    let format = Format::among(context.globals.output, Format::Table, &formats)?;
    let ring = context.client()?.ring().await?;
    let parts = parts(&ring);
    let items = || parts.iter().map(|part| item(part, args.members_only));
    let printed = match format {
        Format::Json => json_document(&document(&ring, items().collect(), args.members_only)),
        Format::Jsonl => items().flat_map(|item| json_document(&item)).collect(),
        Format::Name => parts.iter().map(|part| format!("{}\n", printable(&part.member.id))).collect::<String>().into(),
        _ if args.members_only => {
            parts.iter().map(|part| format!("{}\n", spelled(part.member))).collect::<String>().into()
        }
        _ => {
            let lines: Vec<_> = parts.iter().map(line).collect();
            aligned((!context.globals.no_headers).then_some(HEADER), &lines).into_bytes()
        }
    };
    context.terminal.print(printed).await?;
    if !args.members_only {
        let members = counted(parts.len() as u64, "member");
        context.terminal.summary(&format!(
            "ring epoch {} · {members} · {} virtual nodes per weight · {}",
            digest(ring.epoch),
            ring.vnodes_per_weight,
            ring.hash_name
        ));
    }
    Ok(())
}

fn parts(ring: &RingView) -> Vec<Part<'_>> {
    let weights: f64 = ring.members.iter().map(|(member, _)| f64::from(member.weight)).sum();
    let ideal = |member: &Member| f64::from(member.weight) / weights;
    ring.members.iter().map(|(member, share)| Part { member, share: *share, ideal: ideal(member) }).collect()
}

fn line(part: &Part<'_>) -> [String; 7] {
    let Part { member, share, ideal } = part;
    let zone = if member.zone.is_empty() { "-".to_owned() } else { member.zone.clone() };
    [
        member.id.clone(),
        member.address.clone(),
        member.weight.to_string(),
        zone,
        format!("{:.2}%", 100.0 * share),
        format!("{:.2}%", 100.0 * ideal),
        format!("{:.3}", share / ideal),
    ]
}

fn item(part: &Part<'_>, members_only: bool) -> Json {
    let Part { member, share, ideal } = part;
    let Member { id, address, weight, zone } = member;
    let mut item = json!({ "id": id, "address": address, "weight": weight, "zone": zone });
    if !members_only {
        item["share"] = (*share).into();
        item["ideal_share"] = (*ideal).into();
    }
    item
}

fn document(ring: &RingView, items: Json, members_only: bool) -> Json {
    if members_only {
        return json!({ "apiVersion": API_VERSION, "kind": "MemberList", "items": items });
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "Ring",
        "ring_epoch": digest(ring.epoch),
        "hash": ring.hash_name,
        "vnodes_per_weight": ring.vnodes_per_weight,
        "items": items,
    })
}

/// A member in the words of configurations: `id=host:port[,weight[,zone]]`.
fn spelled(member: &Member) -> String {
    let Member { id, address, weight, zone } = member;
    match alcedo_cluster::Member::new(id, address, *weight, zone) {
        Ok(member) => member.to_string(),
        // The ring was made of it, so it is one.
        Err(_) => printable(&format!("{id}={address},{weight},{zone}")).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> RingView {
        let member = |id: &str, weight, zone: &str| Member {
            id: id.into(),
            address: format!("{id}.example:7610"),
            weight,
            zone: zone.into(),
        };
        RingView {
            epoch: 0xabc,
            vnodes_per_weight: 512,
            hash_name: "xxh3-64".into(),
            members: vec![(member("w-0", 1, ""), 0.26), (member("w-1", 3, "z"), 0.74)],
        }
    }

    #[test]
    fn shares_stand_beside_what_they_should_be() {
        let ring = ring();
        let lines: Vec<_> = parts(&ring).iter().map(line).collect();
        let expected = "\
ID   ADDRESS           WEIGHT  ZONE  SHARE   IDEAL   SHARE/IDEAL
w-0  w-0.example:7610  1       -     26.00%  25.00%  1.040
w-1  w-1.example:7610  3       z     74.00%  75.00%  0.987
";
        assert_eq!(aligned(Some(HEADER), &lines), expected);
    }

    #[test]
    fn members_are_spelled_as_configurations_spell_them() {
        let ring = ring();
        let spelled: Vec<_> = ring.members.iter().map(|(member, _)| spelled(member)).collect();
        assert_eq!(spelled, ["w-0=w-0.example:7610", "w-1=w-1.example:7610,3,z"]);
    }

    #[test]
    fn programs_get_shares_unless_they_want_members_only() {
        let ring = ring();
        let all = document(&ring, parts(&ring).iter().map(|part| item(part, false)).collect(), false);
        assert_eq!((all["kind"].as_str(), all["vnodes_per_weight"].as_u64()), (Some("Ring"), Some(512)));
        assert_eq!(
            (all["items"][1]["share"].as_f64(), all["items"][1]["ideal_share"].as_f64()),
            (Some(0.74), Some(0.75))
        );
        let members = document(&ring, parts(&ring).iter().map(|part| item(part, true)).collect(), true);
        assert_eq!((members["kind"].as_str(), members["items"][0]["share"].is_null()), (Some("MemberList"), true));
    }
}
