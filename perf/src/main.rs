//! # perf: the instrument
//!
//! Measures this broker, and with `produce` and `fetch` any other that speaks Kafka's protocol.
//!
//! * Open loop: requests are due at times that do not depend on the answers ([`schedule`]), and a
//!   latency counts from when its request was *due*, so that a stall is felt by everyone who
//!   would have come during it.
//! * Ratios in one run: what is compared is interleaved in short slices on the same machine in the
//!   same minute; an absolute figure alone says little.
//! * Histograms are merged, percentiles never averaged; a percentile that too few samples carry
//!   is not shown ([`latency`]).
//! * Every report begins with the machine, and ends with what else kept it busy ([`machine`]).
//!
//! Load is made by plain threads on blocking sockets: this crate is outside the product.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod acks;
mod broker;
mod cluster;
mod deliver;
mod engine_log;
mod error;
mod fetch;
mod groups;
mod history;
mod idle;
mod latency;
mod load;
mod loopback;
mod machine;
mod produce;
mod raw;
mod report;
mod schedule;
mod start;
mod template;
mod topic;
mod units;

#[derive(Parser, Debug)]
#[command(
    name = "perf",
    version,
    about = "Measures the broker: ratios in one run, latencies from the intended send time.",
    after_help = "Every command but `engine` and `history` starts a broker of its own, with a data \
                  directory that it removes, unless it is told where one runs. `--help` of a \
                  command explains it."
)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Append + sync through the engine's log, against raw io_uring writes of the same size
    Engine(engine_log::Args),
    /// Produce at a rate, or as fast as answers come
    Produce(produce::Args),
    /// Fetch at a rate; or the newest data as fast as possible, against a raw loopback stream
    Fetch(fetch::Args),
    /// acks 0, 1 and all side by side, at equal rates and at their maximum
    Acks(acks::Args),
    /// What a broker with many partitions costs while nobody asks anything
    Idle(idle::Args),
    /// Consumer groups: offset commits, rebalances, churn, and compaction
    Groups(groups::Args),
    /// Three coordinators and three brokers: what replication costs, and how long they stand still
    Cluster(cluster::Args),
    /// From start to the first acknowledged write: empty, and after SIGKILL
    Start(start::Args),
    /// Judges what clients did and saw: is anything lost, doubled, reordered, changed?
    History(history::Args),
}

/// Blocks of the log are large and short-lived; glibc gives such memory back to the kernel and
/// takes it again page by page.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Line::parse().command {
        Command::Engine(args) => engine_log::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Fetch(args) => fetch::run(&args),
        Command::Acks(args) => acks::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Groups(args) => groups::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Start(args) => start::run(&args),
        Command::History(args) => history::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}
