//! Offset commits: how many, and how long each takes. Every one is synced before it is answered,
//! as `__consumer_offsets` has it.

use std::time::Duration;

use super::member::{Group, Member};
use super::steady::{self, Turn};
use super::{Args, PerfError, Report};
use crate::broker::Target;
use crate::load::{self, Outcome, Pace, Run};
use crate::produce::{latency_header, latency_row};
use crate::report::verdict;
use crate::schedule::Arrivals;
use crate::topic::{self, Topic};
use crate::{row, units};

/// Requests per second of one core.
const TARGET_RATE: f64 = 20_000.0;
/// p99 at the scheduled rate.
const TARGET_P99: Duration = Duration::from_millis(5);
/// Offsets of a larger request.
const MANY: i32 = 10;
/// Time before each run that does not count.
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs it.
pub fn run(args: &Args, report: &Report) -> Result<(), PerfError> {
    let target = args.target()?;
    let topic = topic::ensure(&mut target.connect()?, "perf-commits", MANY)?;
    let pace = Pace::Max { in_flight: args.in_flight };
    let mut rows = Vec::new();
    for offsets in [1, MANY] {
        let outcome = commit(args, &target, &topic, pace, offsets)?;
        rows.push(throughput_row(&outcome, offsets));
    }
    report.table(
        &format!(
            "Offset commits at the maximum: {} groups, {} requests in flight each",
            args.connections, args.in_flight
        ),
        &["offsets", "commits/s", "target", "offsets/s", "per core-s", "sent→ack p50", "p99"],
        rows,
    );
    let arrivals = Arrivals::Uniform;
    let pace = Pace::Open { per_second: args.rate, arrivals, seed: 1 };
    let outcome = commit(args, &target, &topic, pace, 1)?;
    let timings = &outcome.timings;
    let p99 = timings.response.percentile(99.0) as f64;
    let reached = verdict(p99, TARGET_P99.as_nanos() as f64, false);
    let mut rows = Vec::new();
    for (name, latencies, target) in [
        ("due → ack", &timings.response, format!("p99 ≤ {TARGET_P99:?} {reached}")),
        ("sent → ack", &timings.service, "–".into()),
        ("due → sent", &timings.delay, "–".into()),
    ] {
        let mut row = latency_row(name, latencies);
        row.push(target);
        rows.push(row);
    }
    let mut header = latency_header("from → to");
    header.push("target");
    let done = outcome.done as f64 / outcome.elapsed.as_secs_f64();
    report.table(
        &format!(
            "Offset commits at {}/s (done: {}/s), one offset each",
            units::count(args.rate),
            units::count(done)
        ),
        &header,
        rows,
    );
    Ok(())
}

fn throughput_row(outcome: &Outcome, offsets: i32) -> Vec<String> {
    let rate = outcome.done as f64 / outcome.elapsed.as_secs_f64();
    let per_core = outcome.cpu.map(|cpu| outcome.done as f64 / cpu.as_secs_f64());
    let target = match offsets {
        1 => format!("≥ {} {}", units::count(TARGET_RATE), verdict(rate, TARGET_RATE, true)),
        _ => "–".into(),
    };
    row![
        offsets,
        units::count(rate),
        target,
        units::count(outcome.bytes as f64 / outcome.elapsed.as_secs_f64()),
        per_core.map_or("–".into(), units::count),
        units::time(outcome.timings.service.percentile(50.0)),
        units::time(outcome.timings.service.percentile(99.0)),
    ]
}

/// Commits from one connection for each of some groups, whose only member it is.
fn commit(
    args: &Args,
    target: &Target,
    topic: &Topic,
    pace: Pace,
    offsets: i32,
) -> Result<Outcome, PerfError> {
    let mut lanes = Vec::new();
    let mut members = Vec::new();
    for number in 0..args.connections {
        let group = Group::find(target, &format!("perf-commits-{number}"), topic)?;
        let mut member = Member::new(&group)?;
        member.settle(0)?;
        lanes.push(steady::lane(&group, &member, &[Turn::Commit(offsets)])?);
        members.push(member);
    }
    let (time, pid) = (args.seconds, target.pid());
    let run = Run { pace, warm_up: WARM_UP, time, answered: true, pid };
    let outcome = load::run(&run, load::clock(), lanes)?;
    members.into_iter().try_for_each(Member::leave)?;
    Ok(outcome)
}
