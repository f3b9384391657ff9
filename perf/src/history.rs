//! Judges what real clients did and saw: the checker is [`net::history`], and here are its files.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use net::history::{Anomaly, History};

use crate::error::{PerfError, system};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Histories of one run, in the form that net/src/history.rs describes; judged as one
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// An anomaly, by name, that is told but does not make the history wrong (may be repeated)
    #[arg(long, value_name = "NAME", value_parser = anomaly)]
    allow: Vec<Anomaly>,
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
    let report = history.judge();
    println!("{report}");
    match report.anomalies().find(|(anomaly, _)| !args.allow.contains(anomaly)) {
        None => Ok(()),
        Some((anomaly, _)) => Err(PerfError::Wrong(format!(
            "the history shows what must never be: {}",
            anomaly.name()
        ))),
    }
}
