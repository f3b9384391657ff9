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
    for (groups, offsets) in [(args.groups, 1), (args.groups, MANY), (args.connections, 1)] {
        let outcome = commit(args, &target, &topic, pace, (groups, offsets))?;
        let has_target = (groups, offsets) == (args.groups, 1);
        rows.push(throughput_row(&outcome, groups, offsets, has_target));
    }
    report.table(
        &format!(
            "Offset commits at the maximum: {} connections, {} in flight on each",
            args.connections, args.in_flight
        ),
        &["groups", "offsets", "commits/s", "target", "offsets/s", "per core-s", "p50", "p99"],
        rows,
    );
    scheduled(args, report, &target, &topic)?;
    report.note(
        "A commit is one request; per core-s is the same per second of processor time. The more\n\
         groups, the more partitions of __consumer_offsets are synced one by one.",
    );
    Ok(())
}

/// At the rate, and at half of it: what is left of the latency where the broker has time.
fn scheduled(
    args: &Args,
    report: &Report,
    target: &Target,
    topic: &Topic,
) -> Result<(), PerfError> {
    let mut rows = Vec::new();
    for rate in [args.rate, args.rate / 2.0] {
        let pace = Pace::Open { per_second: rate, arrivals: Arrivals::Uniform, seed: 1 };
        let outcome = commit(args, target, topic, pace, (args.groups, 1))?;
        let timings = &outcome.timings;
        let p99 = timings.response.percentile(99.0) as f64;
        let reached = verdict(p99, TARGET_P99.as_nanos() as f64, false);
        let goal = match rate == args.rate {
            true => format!("p99 ≤ {TARGET_P99:?} {reached}"),
            false => "–".into(),
        };
        let done = outcome.done as f64 / outcome.elapsed.as_secs_f64();
        for (what, latencies, goal) in
            [("due → ack", &timings.response, goal), ("due → sent", &timings.delay, "–".into())]
        {
            let (rate, done) = (units::count(rate), units::count(done));
            let mut row = latency_row(&format!("{rate}/s, done {done}/s, {what}"), latencies);
            row.push(goal);
            rows.push(row);
        }
    }
    let mut header = latency_header("rate, from → to");
    header.push("target");
    report.table(
        &format!("Offset commits at a rate: {} groups, one offset each", args.groups),
        &header,
        rows,
    );
    Ok(())
}

fn throughput_row(outcome: &Outcome, groups: usize, offsets: i32, has_target: bool) -> Vec<String> {
    let rate = outcome.done as f64 / outcome.elapsed.as_secs_f64();
    let per_core = outcome.cpu.map(|cpu| outcome.done as f64 / cpu.as_secs_f64());
    let target = match has_target {
        true => format!("≥ {} {}", units::count(TARGET_RATE), verdict(rate, TARGET_RATE, true)),
        false => "–".into(),
    };
    row![
        groups,
        offsets,
        units::count(rate),
        target,
        units::count(outcome.bytes as f64 / outcome.elapsed.as_secs_f64()),
        per_core.map_or("–".into(), units::count),
        units::time(outcome.timings.service.percentile(50.0)),
        units::time(outcome.timings.service.percentile(99.0)),
    ]
}

/// Commits over all connections for the groups in turn; each connection speaks for the only member
/// of its group.
fn commit(
    args: &Args,
    target: &Target,
    topic: &Topic,
    pace: Pace,
    (groups, offsets): (usize, i32),
) -> Result<Outcome, PerfError> {
    let seated = |number: usize| -> Result<_, PerfError> {
        let group = Group::find(target, &format!("perf-commits-{number}"), topic)?;
        let mut member = Member::new(&group)?;
        member.settle(0)?;
        Ok((group, member))
    };
    let seated: Vec<_> = (0..groups).map(seated).collect::<Result<_, _>>()?;
    let lanes = (0..args.connections).map(|number| {
        let (group, member) = &seated[number % groups];
        steady::lane(group, member, &[Turn::Commit(offsets)])
    });
    let lanes = lanes.collect::<Result<_, _>>()?;
    let (time, pid) = (args.seconds, target.pid());
    let run = Run { pace, warm_up: WARM_UP, time, answered: true, pid };
    let outcome = load::run(&run, load::clock(), lanes)?;
    seated.into_iter().try_for_each(|(_, member)| member.leave())?;
    Ok(outcome)
}
