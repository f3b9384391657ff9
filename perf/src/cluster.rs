//! `perf cluster`: what replication costs, and how long a cluster stands still.
//!
//! Three coordinators and three brokers run on this machine, beside the load: figures are ratios to
//! what the same disk and loopback do in the same minute, or times that clients wait.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::error::PerfError;
use crate::report::Report;
use crate::units;
use nodes::Nodes;

mod failover;
mod many;
mod moves;
mod nodes;
mod replicas;
mod retry;
mod synced;
mod view;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Writes with acks=all against what the device and the loopback take.
    Synced,
    /// Processor time of followers against that of their leader.
    Replicas,
    /// How long a partition takes no writes while its leader is moved on purpose.
    Moves,
    /// How long nothing can be decided after the leading coordinator was killed.
    Failover,
    /// Many partitions: making them, restarts of one broker, memory, idling.
    Many,
}

/// Options of `perf cluster`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Binary of the nodes to start [default: ringbolt beside perf, built if cargo runs perf]
    #[arg(long, value_name = "FILE")]
    broker: Option<PathBuf>,
    /// Directory in which to make the data directory [default: one for temporary files]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leave the data directory, with what the nodes said in their logs
    #[arg(long)]
    keep: bool,
    /// A setting for every node (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// What to measure [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    what: Vec<What>,
    /// Messages of 1 KiB per second, each a request of its own
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Seconds of each slice of load
    #[arg(long, default_value = "2", value_parser = units::parse_seconds)]
    seconds: Duration,
    /// How often what is compared takes turns; how often something is moved or killed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Topics with many partitions
    #[arg(long, default_value_t = 10)]
    topics: usize,
    /// Partitions of each
    #[arg(long, default_value_t = 1_000)]
    partitions: usize,
}

impl Args {
    fn check(&self) -> Result<(), PerfError> {
        match self {
            _ if [self.rounds, self.topics, self.partitions].contains(&0) => {
                Err(PerfError::Usage("no number of things is 0".into()))
            }
            _ if self.rate <= 0.0 => Err(PerfError::Usage("--rate is above 0".into())),
            _ => Ok(()),
        }
    }

    fn wants(&self, what: What) -> bool {
        self.what.is_empty() || self.what.contains(&what)
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    args.check()?;
    let mut nodes = Nodes::start(args)?;
    let report = Report::begin(nodes.path());
    if args.wants(What::Synced) {
        synced::run(args, &nodes, &report)?;
    }
    if args.wants(What::Replicas) {
        replicas::run(args, &nodes, &report)?;
    }
    if args.wants(What::Moves) {
        moves::run(args, &mut nodes, &report)?;
    }
    if args.wants(What::Failover) {
        failover::run(args, &mut nodes, &report)?;
    }
    if args.wants(What::Many) {
        many::run(args, &mut nodes, &report)?;
    }
    report.end();
    Ok(())
}
