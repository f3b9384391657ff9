//! `perf idle`: what a broker with many partitions costs while nobody asks it anything.

use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Launcher, OwnArgs};
use crate::error::{PerfError, system};
use crate::produce::Acks;
use crate::report::{Report, verdict};
use crate::start::write_to_each;
use crate::{machine, row, topic, units};

/// Processor time that an idle broker may use, in percent of a core.
const TARGET_CPU: f64 = 0.5;
/// Memory that it may have resident.
const TARGET_BYTES: u64 = 64 << 20;

/// Options of `perf idle`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    broker: OwnArgs,
    /// Partitions
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// Seconds for each measurement
    #[arg(long, default_value = "10", value_parser = units::parse_seconds)]
    seconds: Duration,
    /// Seconds for the broker to come to rest before each
    #[arg(long, default_value = "3", value_parser = units::parse_seconds)]
    settle: Duration,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    let launcher = Launcher::new(&args.broker)?;
    let report = Report::begin(launcher.data().parent().unwrap_or(&launcher.data()));
    let mut rows = Vec::new();
    let mut broker = launcher.start()?;
    let mut client = broker.connect()?;
    rows.push(measure(args, &broker, "no partition")?);
    let topic = topic::create(&mut client, "idle", args.partitions, &[])?;
    let name = units::count(f64::from(args.partitions));
    rows.push(measure(args, &broker, &format!("{name} partitions, never written"))?);
    write_to_each(&topic, Acks::All)?;
    rows.push(measure(args, &broker, &format!("{name} partitions, written once"))?);
    drop(client);
    broker.stop()?;
    let mut broker = launcher.start()?;
    let client = broker.connect()?;
    rows.push(measure(args, &broker, &format!("{name} partitions, after a restart"))?);
    drop(client);
    report.table(
        &format!(
            "Idle for {:?} after {:?} of rest, one client connected",
            args.seconds, args.settle
        ),
        &["state", "CPU % of a core", "target", "resident", "of it own", "peak", "target"],
        rows,
    );
    report.end();
    broker.stop()
}

fn measure(args: &Args, broker: &Broker, state: &str) -> Result<Vec<String>, PerfError> {
    let cpu = || machine::process_cpu(broker.pid()).map_err(system("reading processor time"));
    thread::sleep(args.settle);
    let (before, begun) = (cpu()?, Instant::now());
    thread::sleep(args.seconds);
    let used = cpu()?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let memory = |key| machine::process_memory(broker.pid(), key).unwrap_or(0);
    let resident = memory("VmRSS");
    Ok(row![
        state,
        format!("{used:.2}"),
        format!("≤ {TARGET_CPU} {}", verdict(used, TARGET_CPU, false)),
        units::size(resident),
        units::size(memory("RssAnon")),
        units::size(memory("VmHWM")),
        format!(
            "≤ {} {}",
            units::size(TARGET_BYTES),
            verdict(resident as f64, TARGET_BYTES as f64, false)
        ),
    ])
}
