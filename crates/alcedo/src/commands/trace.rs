//! A lookup's trace as a tree for people and as JSON for programs.

use alcedo_client::{Stage, Trace};
use serde_json::{Value as Json, json};

use crate::output::printable;
use crate::output::quantity::{bytes, counted, millis};
use crate::output::tree::{self, Node};

/// The tree: stages of the whole request, and below each file its own, in the order in which they began.
pub(crate) fn text(trace: &Trace) -> String {
    let mut nodes: Vec<Node> = Vec::new();
    let mut files: Vec<(&str, usize)> = Vec::new();
    for stage in &trace.stages {
        if stage.file.is_empty() {
            nodes.push(node(stage));
            continue;
        }
        let at = files.iter().find(|(file, _)| *file == stage.file).map(|(_, at)| *at);
        let at = at.unwrap_or_else(|| {
            files.push((&stage.file, nodes.len()));
            nodes.push(Node { label: stage.file.clone(), ..Node::default() });
            nodes.len() - 1
        });
        nodes[at].children.push(node(stage));
    }
    let mut text = tree::tree(&nodes);
    for note in &trace.notes {
        text += &format!("· {}\n", printable(note));
    }
    text
}

/// Time, bytes and GETs of all stages together, for a heading.
pub(crate) fn totals(trace: &Trace) -> String {
    let read = trace.stages.iter().map(|stage| stage.bytes).sum();
    let gets: u64 = trace.stages.iter().map(|stage| u64::from(stage.origin_gets)).sum();
    format!("total {} · {} read · {}", millis(trace.total_us), bytes(read), counted(gets, "origin GET"))
}

/// The trace as a JSON object.
pub(crate) fn json(trace: &Trace) -> Json {
    let stage = |stage: &Stage| {
        json!({
            "name": stage.name,
            "file": stage.file,
            "start_us": stage.start_us,
            "duration_us": stage.duration_us,
            "bytes": stage.bytes,
            "origin_gets": stage.origin_gets,
            "origin_bytes": stage.origin_bytes,
        })
    };
    json!({
        "total_us": trace.total_us,
        "stages": trace.stages.iter().map(stage).collect::<Json>(),
        "notes": trace.notes,
    })
}

fn node(stage: &Stage) -> Node {
    let read = if stage.bytes == 0 { String::new() } else { bytes(stage.bytes) };
    let gets = match stage.origin_gets {
        0 => String::new(),
        gets => format!("{} ({})", counted(gets.into(), "origin GET"), bytes(stage.origin_bytes)),
    };
    Node { label: stage.name.clone(), cells: [millis(stage.duration_us), read, gets], children: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, file: &str, start_us: u64, duration_us: u64, bytes: u64, origin_gets: u32) -> Stage {
        let origin_bytes = if origin_gets > 0 { bytes } else { 0 };
        Stage { name: name.into(), file: file.into(), start_us, duration_us, bytes, origin_gets, origin_bytes }
    }

    fn trace() -> Trace {
        Trace {
            stages: vec![
                stage("list", "", 0, 4, 0, 0),
                stage("open", "s3://lake/a.parquet", 4, 30_100, 65_536, 1),
                stage("open", "s3://lake/b.parquet", 5, 90, 65_536, 0),
                stage("key pages", "s3://lake/a.parquet", 30_104, 21, 412, 0),
                stage("encode", "", 30_125, 3, 0, 0),
            ],
            total_us: 30_130,
            notes: vec!["1 of 2 files pruned\u{1b}".into()],
        }
    }

    #[test]
    fn stages_hang_below_their_files() {
        let expected = "\
├─ list                 0.004 ms
├─ s3://lake/a.parquet
│  ├─ open              30.100 ms  64.0 KiB  1 origin GET (64.0 KiB)
│  └─ key pages         0.021 ms   412 B
├─ s3://lake/b.parquet
│  └─ open              0.090 ms   64.0 KiB
└─ encode               0.003 ms
· 1 of 2 files pruned\\u{1b}
";
        assert_eq!(text(&trace()), expected);
        assert_eq!(totals(&trace()), "total 30.130 ms · 128.4 KiB read · 1 origin GET");
    }

    #[test]
    fn programs_get_integers() {
        let json = json(&trace());
        assert_eq!(json["total_us"], 30_130);
        assert_eq!(json["stages"][1]["duration_us"], 30_100);
        assert_eq!(json["stages"][1]["origin_bytes"], 65_536);
    }
}
