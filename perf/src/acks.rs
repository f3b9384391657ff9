//! `perf acks`: the three acks modes side by side on one broker, at their maximum and at equal
//! rates, in turns, with what each costs and what it survives.

use std::time::Duration;

use crate::broker::{BrokerArgs, Target};
use crate::error::PerfError;
use crate::latency::{Latencies, median};
use crate::produce::{Acks, LoadArgs, Measured, latency_header, latency_row, measure};
use crate::report::Report;
use crate::row;
use crate::topic::{self, Topic};
use crate::units::{self, Rate};

/// All modes, with what a write that this broker (one replica, default settings) has taken with
/// them survives.
const MODES: [(Acks, &str); 3] = [
    (Acks::None, "nothing is promised: no answer"),
    (Acks::Leader, "kill -9 of the broker; not power loss"),
    (Acks::All, "kill -9 and power loss (synced; flush.messages=1)"),
];

/// Options of `perf acks`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Records per second of the equal rate [default: half the maximum of the slowest mode]
    #[arg(long, value_parser = units::parse_rate)]
    rate: Option<Rate>,
    /// How often each mode has its turn, at its maximum and at the equal rate
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    load: LoadArgs,
}

/// All turns of one mode.
struct Mode {
    acks: Acks,
    survives: &'static str,
    turns: Vec<Measured>,
}

impl Mode {
    fn rates(&self) -> Vec<f64> {
        self.turns.iter().map(Measured::rate).collect()
    }

    fn latencies<'m>(&'m self, of: impl Fn(&'m Measured) -> Option<&'m Latencies>) -> Latencies {
        let mut all = Latencies::new();
        self.turns.iter().filter_map(of).for_each(|latencies| all.merge(latencies));
        all
    }

    /// From the sums, not from the quotients.
    fn cpu_per_gb(&self) -> String {
        let cpu: Option<Duration> = self.turns.iter().map(|turn| turn.outcome.cpu).sum();
        let bytes: u64 = self.turns.iter().map(|t| t.outcome.done * t.batch_bytes as u64).sum();
        let per_gb = cpu.map(|cpu| cpu.as_secs_f64() / (bytes as f64 / 1e9));
        per_gb.map_or("–".into(), units::three_digits)
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    args.load.check()?;
    if args.rounds == 0 || args.rate == Some(Rate::Max) {
        return Err(PerfError::Usage("--rounds is at least 1, and --rate a number".into()));
    }
    let target = Target::open(&args.broker)?;
    let report = Report::begin(&target.directory());
    let modes = turns(args, &target, Rate::Max)?;
    throughput(args, &report, &modes);
    let rate = match args.rate {
        Some(Rate::PerSecond(rate)) => rate,
        _ => {
            let slowest = modes.iter().map(|mode| median(&mode.rates())).fold(f64::MAX, f64::min);
            slowest * args.load.batch as f64 / 2.0
        }
    };
    let modes = turns(args, &target, Rate::PerSecond(rate))?;
    equal_rate(args, &report, &modes, rate);
    for (acks, survives) in MODES {
        report.note(&format!("acks={:<3} survives: {survives}", acks.name()));
    }
    report.end();
    Ok(())
}

/// Lets every mode have its turns, each on a new topic.
fn turns(args: &Args, target: &Target, rate: Rate) -> Result<Vec<Mode>, PerfError> {
    let mode = |(acks, survives)| Mode { acks, survives, turns: Vec::new() };
    let mut modes: Vec<Mode> = MODES.into_iter().map(mode).collect();
    let mut client = target.connect()?;
    for round in 0..args.rounds {
        for place in 0..modes.len() {
            // Each round begins with another.
            let at = (place + round) % modes.len();
            let mode = &mut modes[at];
            let kind = if rate == Rate::Max { "max" } else { "equal" };
            let name = format!("perf-acks-{kind}-{round}-{}", mode.acks.name());
            let topic: Topic = topic::create(&mut client, &name, args.load.partitions, &[])?;
            let deliver = rate != Rate::Max;
            let turn = measure(&args.load, &topic, rate, mode.acks, deliver, target.pid())?;
            turn.verify()?;
            mode.turns.push(turn);
            topic::delete(&mut client, &topic)?;
        }
    }
    Ok(modes)
}

fn throughput(args: &Args, report: &Report, modes: &[Mode]) {
    let records = args.load.batch as f64;
    let row = |mode: &Mode| {
        let (rates, bytes) = (mode.rates(), mode.turns[0].batch_bytes as f64);
        let edge = |of: fn(f64, f64) -> f64, start| {
            units::megabytes(rates.iter().copied().fold(start, of) * bytes)
        };
        let service = mode.latencies(|turn| Some(&turn.outcome.timings.service));
        let [p50, _, p99, ..] = service.cells();
        let answered = mode.acks != Acks::None;
        row![
            mode.acks.name(),
            units::count(median(&rates) * records),
            units::megabytes(median(&rates) * bytes),
            format!("{}–{}", edge(f64::min, f64::MAX), edge(f64::max, 0.0)),
            if answered { p50 } else { "–".into() },
            if answered { p99 } else { "–".into() },
            mode.cpu_per_gb(),
            mode.survives,
        ]
    };
    let (connections, batch) = (args.load.connections, modes[0].turns[0].batch_bytes);
    let in_flight = args.load.in_flight;
    report.table(
        &format!(
            "At the maximum: {connections} connections, {in_flight} requests of {} in flight on \
             each (acks=0: what TCP takes)",
            units::size(batch as u64)
        ),
        &["acks", "rec/s", "MB/s", "MB/s min–max", "sent→ack p50", "p99", "core-s/GB", "survives"],
        modes.iter().map(row).collect(),
    );
}

fn equal_rate(args: &Args, report: &Report, modes: &[Mode], rate: f64) {
    let per_second = rate / args.load.batch as f64 * modes[0].turns[0].batch_bytes as f64;
    let mut rows = Vec::new();
    for mode in modes {
        let overloaded = mode.turns.iter().any(|turn| turn.overloaded(args.load.seconds));
        let name = |what: &str| {
            let mark = if overloaded { " OVERLOADED" } else { "" };
            format!("{} → {what}{mark}", mode.acks.name())
        };
        if mode.acks != Acks::None {
            let response = mode.latencies(|turn| Some(&turn.outcome.timings.response));
            rows.push(cpu_row(mode, latency_row(&name("ack"), &response)));
        }
        let consumed = mode.latencies(|turn| turn.delivered.as_ref().map(|d| &d.latencies));
        rows.push(cpu_row(mode, latency_row(&name("consumed"), &consumed)));
    }
    let mut header = latency_header("acks → until");
    header.push("core-s/GB");
    report.table(
        &format!(
            "At {} rec/s ({} MB/s, {:?} arrivals) each: latency from when a batch was due",
            units::count(rate),
            units::megabytes(per_second),
            args.load.arrivals,
        ),
        &header,
        rows,
    );
    let mut delay = Latencies::new();
    modes.iter().flat_map(|m| &m.turns).for_each(|t| delay.merge(&t.outcome.timings.delay));
    report.note(&format!(
        "\"consumed\" is when a tailing consumer had the batch. Of all this, {} (p50) and {} (p99)\n\
         passed before the batch left this program. core-s/GB counts the consumer's fetches, too.",
        units::time(delay.percentile(50.0)),
        units::time(delay.percentile(99.0)),
    ));
}

fn cpu_row(mode: &Mode, mut row: Vec<String>) -> Vec<String> {
    row.push(mode.cpu_per_gb());
    row
}
