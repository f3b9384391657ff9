//! The leading coordinator dies under load: how long nothing can be decided, and what writes feel
//! of it.

use std::thread;
use std::time::{Duration, Instant};

use net::wire::ErrorCode;

use super::nodes::{BROKERS, COORDINATORS, Nodes};
use super::view::{self, spread};
use super::{Args, PerfError};
use crate::latency::{Latencies, Timings};
use crate::produce::{Acks, LoadArgs, latency_header, latency_row, measure};
use crate::report::{Report, verdict};
use crate::schedule::Arrivals;
use crate::topic::Topic;
use crate::units::{self, Rate};

/// From the kill until a change of the metadata that was asked for after it has succeeded.
const TARGET: Duration = Duration::from_secs(1);
/// Of p99 while a coordinator is replaced to p99 in other minutes: no effect, within noise.
const TARGET_EFFECT: f64 = 1.2;
/// Into the load, when the coordinator is killed.
const KILLED_AFTER: Duration = Duration::from_millis(500);
/// How long coordinators get to be three again.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a change may wait for its decision before it is asked for again.
const TIMEOUT_MS: i32 = 5_000;

/// Runs it.
pub fn run(args: &Args, nodes: &mut Nodes, report: &Report) -> Result<(), PerfError> {
    let topic = view::create(nodes, "failover", &spread(6))?;
    let (mut quiet, mut killed) = (Timings::new(), Timings::new());
    let mut decided = Latencies::new();
    let mut usual = Latencies::new();
    load(args, &topic)?;
    for round in 0..args.rounds {
        quiet.merge(&load(args, &topic)?);
        let begun = Instant::now();
        change(nodes, &format!("failover-quiet-{round}"))?;
        usual.record(begun.elapsed().as_nanos() as u64);
        let under_load = thread::scope(|scope| {
            let load = scope.spawn(|| load(args, &topic));
            thread::sleep(KILLED_AFTER);
            let replaced = replace(nodes, round);
            (load.join().expect("no load panics"), replaced)
        });
        killed.merge(&under_load.0?);
        let (took, victim) = under_load.1?;
        decided.record(took.as_nanos() as u64);
        nodes.launch(victim)?;
        thread::sleep(SETTLE);
    }
    print(args, report, (&quiet, &killed), (&usual, &decided));
    Ok(())
}

/// Kills the leading coordinator; how long a change took that was asked for then, and whom.
fn replace(nodes: &mut Nodes, round: usize) -> Result<(Duration, i32), PerfError> {
    let victim = view::leading_coordinator(&mut nodes.connect(BROKERS[0])?)?;
    if !COORDINATORS.contains(&victim) {
        return Err(PerfError::Wrong(format!("{victim} is no coordinator")));
    }
    let begun = Instant::now();
    nodes.kill(victim)?;
    change(nodes, &format!("failover-{round}"))?;
    Ok((begun.elapsed(), victim))
}

/// Has a topic made, asking again until it is there.
fn change(nodes: &Nodes, name: &str) -> Result<(), PerfError> {
    let mut client = nodes.connect(BROKERS[0])?;
    view::until("a decision", || {
        match view::ask_for(&mut client, name, &spread(1), TIMEOUT_MS)? {
            // An earlier attempt may have been carried out though its answer was lost.
            ErrorCode::None | ErrorCode::TopicAlreadyExists => Ok(Some(())),
            _ => Ok(None),
        }
    })
}

fn load(args: &Args, topic: &Topic) -> Result<Timings, PerfError> {
    let load = LoadArgs {
        size: 1 << 10,
        batch: 1,
        connections: 6,
        partitions: topic.leaders.len() as i32,
        in_flight: 1,
        seconds: args.seconds.max(Duration::from_secs(3)),
        warm_up: Duration::from_millis(200),
        arrivals: Arrivals::Uniform,
        seed: 1,
    };
    let measured = measure(&load, topic, Rate::PerSecond(args.rate), Acks::All, false, None)?;
    measured.verify()?;
    Ok(measured.outcome.timings)
}

fn print(
    args: &Args,
    report: &Report,
    (quiet, killed): (&Timings, &Timings),
    (usual, decided): (&Latencies, &Latencies),
) {
    let p99 = |timings: &Timings| timings.response.percentile(99.0) as f64;
    let effect = p99(killed) / p99(quiet).max(1.0);
    let row = |name: &str, latencies: &Latencies, target: String| {
        let mut row = latency_row(name, latencies);
        row.push(target);
        row
    };
    let slowest = decided.max() as f64;
    let rows = vec![
        row("CreateTopics otherwise", usual, "–".into()),
        row(
            "CreateTopics, from the SIGKILL of the leading coordinator",
            decided,
            format!("≤ {TARGET:?} {}", verdict(slowest, TARGET.as_nanos() as f64, false)),
        ),
        row("write otherwise: due → ack", &quiet.response, "–".into()),
        row(
            "write while it is replaced: due → ack",
            &killed.response,
            format!(
                "p99 × {} (≤ {TARGET_EFFECT}) {}",
                units::three_digits(effect),
                verdict(effect, TARGET_EFFECT, false)
            ),
        ),
    ];
    let mut header = latency_header("what");
    header.push("target");
    report.table(
        &format!(
            "{} times the leading coordinator is killed under {} writes/s of 1 KiB, acks=all",
            args.rounds,
            units::count(args.rate)
        ),
        &header,
        rows,
    );
}
