//! What a group in which members come and go all the time costs another group on the same core, and
//! whether it comes to rest afterwards.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::crowd::{BEAT, Calm, Classic, Crowd};
use super::member::{Group, Member};
use super::steady::{self, Turn};
use super::{Args, PerfError, Report};
use crate::broker::Target;
use crate::latency::{Latencies, Timings};
use crate::load::{self, Outcome, Pace, Run};
use crate::produce::{latency_header, latency_row};
use crate::report::verdict;
use crate::schedule::Arrivals;
use crate::topic::{self, Topic};
use crate::{machine, row, units};

/// How much longer the other group's p99 may get.
const TARGET_RATIO: f64 = 2.0;
/// How soon after the last change all are in one generation. Members hear of a rebalance with their
/// next heartbeat, so a few of these are theirs.
const TARGET_SETTLED: Duration = Duration::from_secs(10);
/// How long a turn is.
const TURN: Duration = Duration::from_secs(2);
/// Time before each turn that does not count.
const WARM_UP: Duration = Duration::from_millis(200);
/// Requests of the other group per second, half of them commits.
const STEADY_RATE: f64 = 1_000.0;
/// Connections of the other group.
const STEADY_CONNECTIONS: usize = 2;

/// What came of one protocol.
struct Churned {
    protocol: &'static str,
    gathered: Duration,
    quiet: Part,
    churned: Part,
    generations: i32,
    settled: Vec<Duration>,
}

/// What the other group felt in turns of one kind.
struct Part {
    timings: Timings,
    /// Processor time of the broker.
    cpu: Duration,
    time: Duration,
}

impl Part {
    fn new() -> Part {
        Part { timings: Timings::new(), cpu: Duration::ZERO, time: Duration::ZERO }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.timings.merge(&outcome.timings);
        self.cpu += outcome.cpu.unwrap_or_default();
        self.time += outcome.elapsed;
    }

    fn p99(&self) -> f64 {
        self.timings.response.percentile(99.0) as f64
    }

    /// Percent of a core.
    fn core(&self) -> String {
        units::three_digits(self.cpu.as_secs_f64() / self.time.as_secs_f64() * 100.0)
    }
}

/// Runs it.
pub fn run(args: &Args, report: &Report) -> Result<(), PerfError> {
    let mut all = Vec::new();
    for protocol in ["classic", "consumer"] {
        let target = args.target()?;
        let client = &mut target.connect()?;
        let topic = topic::ensure(client, "perf-churn", args.partitions)?;
        let steady = topic::ensure(client, "perf-steady", 1)?;
        // Partitions come to be in the background; an answer from each says that it is there.
        topic::ends(&topic)?;
        let group = Group::find(&target, &format!("perf-churn-{protocol}"), &topic)?;
        let churned = match protocol {
            "classic" => {
                measure(args, &target, &steady, protocol, || Classic::gather(&group, args.crowd))
            }
            _ => measure(args, &target, &steady, protocol, || Calm::gather(&group, args.crowd)),
        };
        all.push(churned?);
    }
    let each = || all.iter().flat_map(Churned::latency_rows);
    report.table(
        &format!(
            "Another group's heartbeats and commits, {}/s, while a group of {} is quiet, and while \
             members come and go at {}/s",
            units::count(STEADY_RATE),
            units::count(args.crowd as f64),
            args.churn,
        ),
        &latency_header("crowd, from → to"),
        each().collect(),
    );
    report.table(
        "The same: what it means, and what becomes of the crowd",
        &[
            "crowd",
            "p99 ratio",
            "target",
            "broker, % of a core",
            "generations",
            "joined in",
            "settled in",
            "target",
        ],
        all.iter().map(Churned::row).collect(),
    );
    report.note(&format!(
        "Turns of {TURN:?}, one quiet, one with churn. \"Settled\" is the longest time from the last\n\
         change until every member has heard, from the broker, that it is in the one newest\n\
         generation; heartbeats are {BEAT:?} apart. The crowd's threads have the lowest priority\n\
         here, because its members are on other machines in truth."
    ));
    Ok(())
}

impl Churned {
    fn latency_rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, latencies: &Latencies| {
            latency_row(&format!("{} {what}", self.protocol), latencies)
        };
        vec![
            row("quiet, due → answer", &self.quiet.timings.response),
            row("churn, due → answer", &self.churned.timings.response),
            row("quiet, sent → answer", &self.quiet.timings.service),
            row("churn, sent → answer", &self.churned.timings.service),
        ]
    }

    fn row(&self) -> Vec<String> {
        let ratio = self.churned.p99() / self.quiet.p99();
        let settled = self.settled.iter().max().copied().unwrap_or_default();
        let time = |time: Duration| units::time(time.as_nanos() as u64);
        row![
            self.protocol,
            units::three_digits(ratio),
            format!("≤ {TARGET_RATIO} {}", verdict(ratio, TARGET_RATIO, false)),
            format!("{} → {}", self.quiet.core(), self.churned.core()),
            self.generations,
            time(self.gathered),
            time(settled),
            format!(
                "≤ {TARGET_SETTLED:?} {}",
                verdict(settled.as_secs_f64(), TARGET_SETTLED.as_secs_f64(), false)
            ),
        ]
    }
}

/// Gathers a crowd, and lets turns without and with churn alternate beside a steady group.
fn measure<C: Crowd + Send>(
    args: &Args,
    target: &Target,
    topic: &Topic,
    protocol: &'static str,
    gather: impl FnOnce() -> Result<C, PerfError> + Send,
) -> Result<Churned, PerfError> {
    let group = Group::find(target, "perf-steady", topic)?;
    let mut member = Member::new(&group)?;
    member.settle(0)?;
    let begun = Instant::now();
    let mut crowd = thread::scope(|scope| {
        let gather = || {
            machine::step_back();
            gather()
        };
        scope.spawn(gather).join().expect("no crowd panics")
    })?;
    crowd.settle()?;
    let gathered = begun.elapsed();
    let first = crowd.generation();
    let (mut quiet, mut churned, mut settled) = (Part::new(), Part::new(), Vec::new());
    for _ in 0..args.turns {
        quiet.add(&turn(target, &group, &member, &mut crowd, None)?);
        churned.add(&turn(target, &group, &member, &mut crowd, Some(args.churn))?);
        settled.push(crowd.settle()?);
    }
    let generations = crowd.generation() - first;
    drop(crowd);
    member.leave()?;
    Ok(Churned { protocol, gathered, quiet, churned, generations, settled })
}

/// What the steady group's requests took while the crowd lived.
fn turn(
    target: &Target,
    group: &Arc<Group>,
    member: &Member,
    crowd: &mut (impl Crowd + Send),
    churn: Option<f64>,
) -> Result<Outcome, PerfError> {
    let turns = [Turn::Commit(1), Turn::Beat];
    let lanes = (0..STEADY_CONNECTIONS)
        .map(|_| steady::lane(group, member, &turns))
        .collect::<Result<_, _>>()?;
    let pace = Pace::Open { per_second: STEADY_RATE, arrivals: Arrivals::Poisson, seed: 1 };
    let run = Run { pace, warm_up: WARM_UP, time: TURN, answered: true, pid: target.pid() };
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            machine::step_back();
            crowd.live(TURN + WARM_UP, churn)
        });
        let outcome = load::run(&run, load::clock(), lanes)?;
        crowd.join().expect("no crowd panics")?;
        Ok(outcome)
    })
}
