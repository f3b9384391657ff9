//! Judges what real clients did and saw: the checker is [`net::history`], and here are its files.

use std::fs;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use net::history::{Anomaly, Fault, Gap, History};

use crate::error::{PerfError, system};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Histories of one run, in the form that net/src/history.rs describes; judged as one
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// An anomaly, by name, that is told but does not make the history wrong (may be repeated)
    #[arg(long, value_name = "NAME", value_parser = anomaly)]
    allow: Vec<Anomaly>,
    /// What was done to the cluster, a line each (TIME_NS KIND TOPIC/PARTITION …): shows how long
    /// those partitions went without an acknowledgement, by kind
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// The longest that a partition may go without one at a fault of this kind (may be repeated)
    #[arg(long, value_name = "KIND=SECONDS", value_parser = limit, requires = "faults")]
    limit: Vec<(String, f64)>,
}

fn limit(text: &str) -> Result<(String, f64), String> {
    let (kind, seconds) = text.split_once('=').ok_or("KIND=SECONDS")?;
    Ok((kind.to_owned(), seconds.parse().map_err(|_| "SECONDS is a number")?))
}

fn anomaly(name: &str) -> Result<Anomaly, String> {
    let found = Anomaly::ALL.iter().find(|anomaly| anomaly.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = Anomaly::ALL.iter().map(|anomaly| anomaly.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

/// Reads all files and tells what they show; an error if that must never be.
pub fn run(args: &Args) -> Result<(), PerfError> {
    let mut history = History::new();
    for path in &args.files {
        let name = path.display();
        let file = File::open(path).map_err(system(format!("opening {name}")))?;
        let read = history.read(BufReader::new(file));
        read.map_err(|error| PerfError::Wrong(format!("{name}: {error}")))?;
    }
    let gaps = match &args.faults {
        Some(path) => gaps(&history, path)?,
        None => Vec::new(),
    };
    let too_long = show_gaps(&gaps, &args.limit);
    let report = history.judge();
    println!("{report}");
    if let Some(kind) = too_long {
        return Err(PerfError::Wrong(format!("a partition was away for too long at: {kind}")));
    }
    match report.anomalies().find(|(anomaly, _)| !args.allow.contains(anomaly)) {
        None => Ok(()),
        Some((anomaly, _)) => Err(PerfError::Wrong(format!(
            "the history shows what must never be: {}",
            anomaly.name()
        ))),
    }
}

fn gaps(history: &History, path: &Path) -> Result<Vec<Gap>, PerfError> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(system(format!("reading {name}")))?;
    let faults: Result<Vec<_>, _> = text.lines().map(Fault::parse).collect();
    let faults = faults.map_err(|error| PerfError::Wrong(format!("{name}: {error}")))?;
    if !faults.is_sorted_by_key(|fault| fault.time_ns) {
        return Err(PerfError::Wrong(format!("{name}: the faults are not in order of time")));
    }
    Ok(history.gaps(&faults))
}

/// A line for each kind of fault; returns a kind whose longest gap is above its limit.
fn show_gaps(gaps: &[Gap], limits: &[(String, f64)]) -> Option<String> {
    let mut too_long = None;
    for same in gaps.chunk_by(|a, b| a.kind == b.kind) {
        let seconds = |at: usize| same[at].length_ns as f64 / 1e9;
        let longest = &same[same.len() - 1];
        let limit = limits.iter().find(|(kind, _)| *kind == longest.kind);
        let above = limit.is_some_and(|(_, limit)| seconds(same.len() - 1) > *limit);
        println!(
            "{} {:<22} {:>4} partitions   p50 {:>7.3} s   p99 {:>7.3} s   longest {:>7.3} s ({})",
            if above { "FAIL" } else { "    " },
            longest.kind,
            same.len(),
            seconds((same.len() - 1) / 2),
            seconds((same.len() * 99).div_ceil(100) - 1),
            seconds(same.len() - 1),
            longest.place,
        );
        if above {
            too_long = Some(longest.kind.clone());
        }
    }
    too_long
}
