//! `perf groups`: what consumer groups cost and how long they stand still.
//!
//! Members are simulated: they speak the protocols on blocking connections and do nothing between,
//! so that what is measured is the broker's part of a rebalance. [`member`] is one of the classic
//! protocol, [`consumer`] are those of KIP-848.

use std::fs;
use std::time::Duration;

use clap::ValueEnum;

use crate::broker::{BrokerArgs, DataDir, Target};
use crate::error::{PerfError, system};
use crate::report::Report;
use crate::units;

mod churn;
mod commits;
mod compaction;
mod consumer;
mod crowd;
mod member;
mod rebalance;
mod share;
mod steady;

/// What a broker that is started here is told: the time that a new group waits for more members is
/// the user's choice, not the broker's work.
const SETTINGS: &str =
    "group.initial.rebalance.delay.ms=0\ngroup.consumer.assignment.interval.ms=0\n";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Offsets committed at the maximum and at a rate.
    Commits,
    /// How long a group stands still while its members come to terms.
    Rebalance,
    /// What members that come and go all the time cost another group.
    Churn,
    /// How fast a log is compacted.
    Compaction,
}

/// Options of `perf groups`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// What to measure [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    what: Vec<What>,
    /// Connections that commit
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Groups for which they do; each is kept, and synced, with others in one of 50 partitions
    #[arg(long, default_value_t = 8)]
    groups: usize,
    /// Requests in flight on each connection at the maximum (the broker does one after the other)
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Commits per second of the scheduled run
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Seconds of each run of commits
    #[arg(long, default_value = "2", value_parser = units::parse_seconds)]
    seconds: Duration,
    /// Members of the group that rebalances
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// Partitions of the topic that groups share out
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// How often the group rebalances
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Members of the group in which they come and go
    #[arg(long, default_value_t = 1_000)]
    crowd: usize,
    /// Members that come or go per second
    #[arg(long, default_value_t = 10.0)]
    churn: f64,
    /// Turns with churn, each after one without
    #[arg(long, default_value_t = 2)]
    turns: usize,
}

impl Args {
    fn check(&self) -> Result<(), PerfError> {
        let counts = [self.connections, self.groups, self.in_flight, self.rounds];
        let counts = counts.into_iter().chain([self.members, self.turns]);
        match self {
            _ if counts.min() == Some(0) || self.partitions < 1 => {
                Err(PerfError::Usage("no number of things is 0".into()))
            }
            _ if self.groups > self.connections => {
                Err(PerfError::Usage("--groups is at most --connections".into()))
            }
            _ if self.crowd < 2 => Err(PerfError::Usage("--crowd is at least 2".into())),
            _ if !(self.rate > 0.0 && self.churn > 0.0) => {
                Err(PerfError::Usage("--rate and --churn are above 0".into()))
            }
            _ => Ok(()),
        }
    }

    fn wants(&self, what: What) -> bool {
        self.what.is_empty() || self.what.contains(&what)
    }

    /// The broker to measure; one of our own runs on one core, unless it is told otherwise.
    fn target(&self) -> Result<Target, PerfError> {
        let mut broker = self.broker.clone();
        broker.own.shards.get_or_insert(1);
        if broker.own.config.is_some() {
            return Target::open(&broker);
        }
        let dir = DataDir::new(broker.own.data.as_deref())?;
        let file = dir.path().join("server.properties");
        fs::write(&file, SETTINGS).map_err(system("writing the broker's settings"))?;
        broker.own.config = Some(file);
        Target::open(&broker)
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    args.check()?;
    let data = DataDir::new(args.broker.own.data.as_deref())?;
    let report = Report::begin(data.path());
    if args.wants(What::Commits) {
        commits::run(args, &report)?;
    }
    if args.wants(What::Rebalance) {
        rebalance::run(args, &report)?;
    }
    if args.wants(What::Churn) {
        churn::run(args, &report)?;
    }
    if args.wants(What::Compaction) {
        compaction::run(data.path(), &report)?;
    }
    report.end();
    Ok(())
}
