//! `alcedo status`: the cluster on one screen, and what somebody should look at.

use alcedo_client::{ClusterView, Error, Member, WorkerStatus};
use serde_json::{Value as Json, json};

use super::Context;
use super::members::{self, Answers, State, digest};
use crate::failure::Failure;
use crate::output::quantity::{bytes, count, counted};
use crate::output::{API_VERSION, Format, json_document, printable};

/// Prints the summary. Workers that are down are warnings in it.
///
/// # Errors
/// No worker answered.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let format = Format::among(context.globals.output, Format::Table, &[Format::Table, Format::Json])?;
    let client = context.client()?;
    let view = client.cluster().await?;
    let answers = client.status().await?;
    let summary = Summary::new(&view, &answers);
    let printed = match format {
        Format::Json => json_document(&summary.json()),
        _ => summary.text().into_bytes(),
    };
    context.terminal.print(printed).await?;
    // One of them told its view of the cluster a moment ago, so this is a cluster that is ending.
    if summary.down == answers.len() { members::settle(&answers) } else { Ok(()) }
}

/// The cluster's numbers, added up.
#[derive(Debug, Default)]
struct Summary {
    epoch: u64,
    members: usize,
    /// Workers that answered with this epoch.
    agreed: usize,
    ready: usize,
    starting: usize,
    draining: usize,
    down: usize,
    on_disk: usize,
    totals: WorkerStatus,
    /// Who it is about, and what it is.
    warnings: Vec<(String, String)>,
}

impl Summary {
    fn new(view: &ClusterView, answers: &Answers<WorkerStatus>) -> Self {
        let mut summary = Self { epoch: view.epoch, members: answers.len(), ..Self::default() };
        for (member, status) in answers {
            summary.add(member, status);
        }
        summary
    }

    fn add(&mut self, member: &Member, status: &Result<WorkerStatus, Error>) {
        match State::of(status) {
            State::Ready => self.ready += 1,
            State::Starting => self.starting += 1,
            State::Draining => self.draining += 1,
            State::Down => self.down += 1,
        }
        let name = members::name(member).to_owned();
        let mut warn = |what: String| self.warnings.push((name.clone(), what));
        let status = match status {
            Ok(status) => status,
            Err(error) => return warn(format!("down: {}", error.message)),
        };
        if !member.id.is_empty() && status.worker_id != member.id {
            warn(format!("{} answers as worker {}: two members share an address", member.address, status.worker_id));
        }
        if status.ring_epoch == self.epoch {
            self.agreed += 1;
        } else {
            warn(format!("has another ring, epoch {}: see `alcedo workers`", digest(status.ring_epoch)));
        }
        match State::of(&Ok(status.clone())) {
            State::Draining => warn("is draining".to_owned()),
            State::Starting => warn("is not ready yet".to_owned()),
            State::Ready | State::Down => {}
        }
        if status.shed_total > 0 {
            warn(format!("turned {} away since it started: it had no room", counted(status.shed_total, "lookup")));
        }
        if status.panics_total > 0 {
            warn(format!("caught {} since it started: its log has more", counted(status.panics_total, "panic")));
        }
        self.on_disk += usize::from(status.on_disk);
        let sum = &mut self.totals;
        for (total, one) in [
            (&mut sum.lookups_total, status.lookups_total),
            (&mut sum.lookups_failed, status.lookups_failed),
            (&mut sum.lookups_in_flight, status.lookups_in_flight),
            (&mut sum.origin_gets, status.origin_gets),
            (&mut sum.origin_bytes, status.origin_bytes),
            (&mut sum.index_bytes, status.index_bytes),
            (&mut sum.index_capacity_bytes, status.index_capacity_bytes),
            (&mut sum.page_bytes, status.page_bytes),
            (&mut sum.page_capacity_bytes, status.page_capacity_bytes),
            (&mut sum.shed_total, status.shed_total),
            (&mut sum.panics_total, status.panics_total),
        ] {
            *total = total.saturating_add(one);
        }
    }

    fn text(&self) -> String {
        let answered = self.members - self.down;
        let place = match self.on_disk {
            0 => "in memory",
            disks if disks == answered => "on disk",
            _ => "on disk and in memory",
        };
        let starting = if self.starting > 0 { format!(", {} starting", self.starting) } else { String::new() };
        let sum = &self.totals;
        let mut text = format!(
            "ring epoch {} (agreed {}/{})   workers {} ready{starting}, {} draining, {} down\n",
            digest(self.epoch),
            self.agreed,
            self.members,
            self.ready,
            self.draining,
            self.down
        );
        text += &format!(
            "pages {} of {} {place}   indexes {} of {}\n",
            bytes(sum.page_bytes),
            bytes(sum.page_capacity_bytes),
            bytes(sum.index_bytes),
            bytes(sum.index_capacity_bytes)
        );
        text += &format!(
            "lookups {}, {} failed, {} in flight   origin {}, {}\n",
            count(sum.lookups_total),
            count(sum.lookups_failed),
            count(sum.lookups_in_flight),
            counted(sum.origin_gets, "GET"),
            bytes(sum.origin_bytes)
        );
        for (who, what) in &self.warnings {
            text += &format!("! {}: {}\n", printable(who), printable(what));
        }
        text
    }

    fn json(&self) -> Json {
        let warning = |(who, what): &(String, String)| json!({ "worker": who, "message": what });
        json!({
            "apiVersion": API_VERSION,
            "kind": "ClusterStatus",
            "ring_epoch": digest(self.epoch),
            "members": self.members,
            "members_agreeing": self.agreed,
            "workers": {
                "ready": self.ready,
                "starting": self.starting,
                "draining": self.draining,
                "down": self.down,
            },
            "workers_on_disk": self.on_disk,
            "page_bytes": self.totals.page_bytes,
            "page_capacity_bytes": self.totals.page_capacity_bytes,
            "index_bytes": self.totals.index_bytes,
            "index_capacity_bytes": self.totals.index_capacity_bytes,
            "lookups_total": self.totals.lookups_total,
            "lookups_failed": self.totals.lookups_failed,
            "lookups_in_flight": self.totals.lookups_in_flight,
            "shed_total": self.totals.shed_total,
            "panics_total": self.totals.panics_total,
            "origin_gets": self.totals.origin_gets,
            "origin_bytes": self.totals.origin_bytes,
            "warnings": self.warnings.iter().map(warning).collect::<Json>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::{down, member};
    use super::super::workers::tests::status;
    use super::*;

    fn summary(answers: &Answers<WorkerStatus>) -> Summary {
        Summary::new(&ClusterView { epoch: 0xabc, ..ClusterView::default() }, answers)
    }

    #[test]
    fn a_cluster_that_is_well_has_three_lines() {
        let expected = "\
ring epoch 0000000000000abc (agreed 2/2)   workers 2 ready, 0 draining, 0 down
pages 2.0 MiB of 512.0 MiB in memory   indexes 8.0 KiB of 128.0 MiB
lookups 36,400, 6 failed, 0 in flight   origin 24 GETs, 6.0 MiB
";
        let well = [(member("w-0"), Ok(status("w-0"))), (member("w-1"), Ok(status("w-1")))];
        assert_eq!(summary(&well).text(), expected);
    }

    #[test]
    fn what_somebody_should_look_at_is_a_line_of_its_own() {
        let odd = |change: fn(&mut WorkerStatus)| {
            let mut one = status("w-1");
            change(&mut one);
            [(member("w-0"), Ok(status("w-0"))), (member("w-1"), Ok(one))]
        };
        let cases: [(&Answers<WorkerStatus>, &str); 7] = [
            (
                &[(member("w-0"), Ok(status("w-0"))), (member("w-2"), Err(down()))],
                "! w-2: down: no answer from w-2.example:7610: connection refused\n",
            ),
            (&odd(|one| one.ring_epoch = 7), "! w-1: has another ring, epoch 0000000000000007: see `alcedo workers`\n"),
            (&odd(|one| one.draining = true), "! w-1: is draining\n"),
            (&odd(|one| one.ready = false), "! w-1: is not ready yet\n"),
            (&odd(|one| one.shed_total = 1), "! w-1: turned 1 lookup away since it started: it had no room\n"),
            (&odd(|one| one.panics_total = 2), "! w-1: caught 2 panics since it started: its log has more\n"),
            (
                &odd(|one| one.worker_id = "w-9".into()),
                "! w-1: w-1.example:7610 answers as worker w-9: two members share an address\n",
            ),
        ];
        for (answers, wanted) in cases {
            let text = summary(answers).text();
            assert_eq!(text.lines().filter(|line| line.starts_with('!')).count(), 1, "{text}");
            assert!(text.ends_with(wanted), "{text}");
        }
        let text = summary(&odd(|one| (one.ring_epoch, one.on_disk) = (7, true))).text();
        assert!(text.contains("(agreed 1/2)") && text.contains(" on disk and in memory "), "{text}");
    }

    #[test]
    fn programs_get_one_document() {
        let json = summary(&[(member("w-0"), Ok(status("w-0"))), (member("w-2"), Err(down()))]).json();
        assert_eq!(
            (json["kind"].as_str(), json["ring_epoch"].as_str()),
            (Some("ClusterStatus"), Some("0000000000000abc"))
        );
        assert_eq!(
            (&json["members"], &json["members_agreeing"], &json["workers"]["down"]),
            (&2.into(), &1.into(), &1.into())
        );
        assert_eq!((&json["lookups_total"], &json["page_bytes"]), (&18_200.into(), &(1 << 20).into()));
        assert_eq!(json["warnings"][0]["worker"], "w-2");
    }
}
