//! One run as a table and as JSON.
//!
//! Knows rows and where runs are kept. It must not know what is measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

/// One measured thing.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured, with its placement.
    pub name: String,
    /// Unit of `alcedo` and `peer`.
    pub unit: &'static str,
    /// Alcedo's median.
    pub alcedo: f64,
    /// The peer's or the floor's median; none where the row stands alone.
    pub peer: Option<f64>,
    /// Alcedo over peer.
    pub ratio: Option<f64>,
    /// What the design asks for, in words.
    pub target: String,
    /// Whether it is met; none where there is no target.
    pub met: Option<bool>,
}

impl Row {
    /// A figure that stands alone and has no target.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &'static str, alcedo: f64) -> Self {
        Self { name: name.into(), unit, alcedo, peer: None, ratio: None, target: String::new(), met: None }
    }

    /// Beside a peer's or a floor's figure.
    #[must_use]
    pub fn beside(self, peer: f64) -> Self {
        Self { peer: Some(peer), ratio: Some(self.alcedo / peer), ..self }
    }

    /// It is to be at most so many times the other figure, which `peer` names.
    #[must_use]
    pub fn at_most_times(self, most: f64, peer: &str) -> Self {
        let met = self.ratio.map(|ratio| ratio <= most);
        self.judged(format!("at most {most} times {peer}"), met)
    }

    /// Of processor microseconds per key: one core is to do at least so many keys a second.
    #[must_use]
    pub fn per_core(self, least: f64) -> Self {
        let met = Some(1e6 / self.alcedo >= least);
        self.judged(format!("at least {} K/s per core", least / 1e3), met)
    }

    /// It is to be at most this, in the row's unit.
    #[must_use]
    pub fn at_most(self, most: f64) -> Self {
        let (target, met) = (format!("at most {most} {}", self.unit), Some(self.alcedo <= most));
        self.judged(target, met)
    }

    /// It is to be at least this, in the row's unit.
    #[must_use]
    pub fn at_least(self, least: f64) -> Self {
        let (target, met) = (format!("at least {least} {}", self.unit), Some(self.alcedo >= least));
        self.judged(target, met)
    }

    /// With a target in words, and whether it is met.
    #[must_use]
    pub fn judged(self, target: String, met: Option<bool>) -> Self {
        Self { target, met, ..self }
    }
}

/// The middle one of some figures, the higher of two; no figure where there is none.
#[must_use]
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Everything that one run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Processor, memory, kernel.
    pub hardware: String,
    /// What was measured, by git's name for it.
    pub commit: String,
    /// What came of it.
    pub rows: Vec<Row>,
}

/// Where runs are kept.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("runs")
}

impl Run {
    /// Writes the run under its date (`2026-11-22`), over an earlier one of that day, and as the latest one, of which
    /// there is a table in Markdown too. Returns all paths.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, directory: &Path, date: &str) -> anyhow::Result<[PathBuf; 3]> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::create_dir_all(directory)?;
        let names = [format!("{date}.json"), "latest.json".to_owned(), "latest.md".to_owned()];
        let paths = names.map(|name| directory.join(name));
        for (path, text) in paths.iter().zip([&text, &text, &self.markdown()]) {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(paths)
    }

    /// The run as a table for documents, which is copied into them and never typed.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("{}, commit {}, {}\n\n", self.hardware, self.commit, self.verdict());
        text += "| | Alcedo | beside | ratio | unit | target |\n|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
            let verdict = match row.met {
                Some(true) => ", met",
                Some(false) => ", **not met**",
                None => "",
            };
            let (peer, ratio) = (or_dash(row.peer), or_dash(row.ratio));
            let (alcedo, unit, target) = (figure(row.alcedo), row.unit, &row.target);
            text += &format!("| {} | {alcedo} | {peer} | {ratio} | {unit} | {target}{verdict} |\n", row.name);
        }
        text
    }

    /// How many targets there are, and how many are met.
    fn verdict(&self) -> String {
        let met = self.rows.iter().filter(|row| row.met == Some(true)).count();
        let all = self.rows.iter().filter(|row| row.met.is_some()).count();
        format!("{met} of {all} targets met")
    }

    /// The run as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let widest = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut text = format!("{}\ncommit {}, {}\n\n", self.hardware, self.commit, self.verdict());
        text += &format!("{:<widest$}  {:>10} {:>10} {:>7}  {:<15} target\n", "", "alcedo", "peer", "ratio", "unit");
        for row in &self.rows {
            let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
            let met = match row.met {
                Some(true) => "met: ",
                Some(false) => "NOT MET: ",
                None => "",
            };
            let line = format!(
                "{:<widest$}  {:>10} {:>10} {:>7}  {:<15} {met}{}",
                row.name,
                figure(row.alcedo),
                or_dash(row.peer),
                or_dash(row.ratio),
                row.unit,
                row.target
            );
            text = text + line.trim_end() + "\n";
        }
        text
    }
}

/// Three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn run() -> Run {
        let row = |name: &str, peer: Option<f64>, met: Option<bool>| Row {
            name: name.to_owned(),
            unit: "us",
            alcedo: 31.25,
            peer,
            ratio: peer.map(|peer| 31.25 / peer),
            target: if met.is_none() { String::new() } else { "at most 1.5 times the peer".to_owned() },
            met,
        };
        let rows = vec![row("a", Some(25.0), Some(true)), row("b", Some(5.0), Some(false)), row("longer", None, None)];
        Run { hardware: "2 cores".to_owned(), commit: "abc".to_owned(), rows }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// Faults of a written run: another shape, or a verdict that its figures do not bear.
    fn faults(run: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        if keys(run) != ["hardware", "commit", "rows"] || !run["hardware"].is_string() || !run["commit"].is_string() {
            faults.push(format!("a run with {:?}", keys(run)));
        }
        for row in run["rows"].as_array().unwrap() {
            let name = row["name"].as_str().unwrap_or("a row without a name");
            if keys(row) != ["name", "unit", "alcedo", "peer", "ratio", "target", "met"] {
                faults.push(format!("{name}: {:?}", keys(row)));
            }
            let number_or_null = |key: &str| row[key].is_number() || row[key].is_null();
            let forms = row["unit"].is_string() && row["alcedo"].is_number() && row["target"].is_string();
            if !forms || !number_or_null("peer") || !number_or_null("ratio") {
                faults.push(format!("{name}: a value of another form"));
            }
            if !(row["met"].is_null() || row["met"].is_boolean() && row["target"] != "") {
                faults.push(format!("{name}: a verdict without a target"));
            }
            let ratio = row["peer"].as_f64().map(|peer| row["alcedo"].as_f64().unwrap() / peer);
            let differs = match (ratio, row["ratio"].as_f64()) {
                (Some(ratio), Some(written)) => (ratio - written).abs() > 1e-6 * ratio.abs(),
                (ratio, written) => ratio.is_some() != written.is_some(),
            };
            if differs {
                faults.push(format!("{name}: the ratio is not that of the figures"));
            }
        }
        faults
    }

    #[test]
    fn the_latest_run_has_the_documented_shape() {
        let path = directory().join("latest.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let run: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(faults(&run), Vec::<String>::new());
        assert!(run["rows"].as_array().unwrap().len() >= 10, "the peers were not measured");
    }

    #[test]
    fn what_is_written_has_the_shape_and_the_faults_are_seen() {
        let home = tempfile::tempdir().unwrap();
        let [dated, latest, markdown] = run().write(home.path(), "2026-01-31").unwrap();
        assert_eq!(fs::read_to_string(markdown).unwrap(), run().markdown());
        assert!(dated.ends_with("2026-01-31.json"));
        let written: Value = serde_json::from_str(&fs::read_to_string(&latest).unwrap()).unwrap();
        assert_eq!(fs::read(dated).unwrap(), fs::read(latest).unwrap());
        assert_eq!(faults(&written), Vec::<String>::new());
        let plants = [
            ("/rows/0/ratio", Value::from(1.0)),
            ("/rows/0/ratio", Value::Null),
            ("/rows/1/met", Value::from("nearly")),
            ("/rows/2/met", Value::from(true)),
            ("/rows/2/peer", Value::from("fast")),
            ("/hardware", Value::Null),
        ];
        for (place, value) in plants {
            let mut planted = written.clone();
            *planted.pointer_mut(place).unwrap() = value;
            assert_eq!(faults(&planted).len(), 1, "{place}");
        }
        let mut planted = written;
        planted["rows"][0].as_object_mut().unwrap().insert("note".to_owned(), Value::Null);
        assert_eq!(faults(&planted).len(), 1);
    }

    #[test]
    fn the_table_says_what_is_not_met() {
        let table = run().table();
        let lines: Vec<&str> = table.lines().skip(4).collect();
        assert_eq!(lines[0], "a             31.2       25.0    1.25  us              met: at most 1.5 times the peer");
        assert!(lines[1].ends_with("NOT MET: at most 1.5 times the peer"), "{table}");
        assert_eq!(lines[2], "longer        31.2          -       -  us");
    }

    #[test]
    fn documents_get_the_same_table() {
        let text = run().markdown();
        assert!(text.starts_with("2 cores, commit abc, 1 of 2 targets met\n\n| | Alcedo |"), "{text}");
        assert!(text.contains("| a | 31.2 | 25.0 | 1.25 | us | at most 1.5 times the peer, met |\n"), "{text}");
        assert!(text.contains("| b | 31.2 | 5.00 | 6.25 | us | at most 1.5 times the peer, **not met** |"), "{text}");
        assert!(text.ends_with("| longer | 31.2 | - | - | us |  |\n"), "{text}");
    }

    #[test]
    fn figures_keep_three_digits_that_count() {
        assert_eq!([123_456.7, 31.25, 1.5, 0.0123].map(figure), ["123457", "31.2", "1.50", "0.012"]);
    }
}
