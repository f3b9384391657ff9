//! What a follower's copy costs, in processor time, against the leader's: all partitions are led
//! by one broker, and the other two follow.

use std::time::Duration;

use super::nodes::{BROKERS, Nodes};
use super::view;
use super::{Args, PerfError};
use crate::error::system;
use crate::machine;
use crate::produce::{Acks, LoadArgs, measure};
use crate::report::{Report, verdict};
use crate::row;
use crate::schedule::Arrivals;
use crate::topic;
use crate::units::{self, Rate};

/// A follower's core-seconds per GB to the leader's.
const TARGET_RATIO: f64 = 1.0;
/// Partitions of each topic.
const PARTITIONS: usize = 6;

/// What one size of batches cost.
#[derive(Default)]
struct Cost {
    bytes: u64,
    leader: Duration,
    followers: Duration,
    elapsed: Duration,
}

/// Runs it.
pub fn run(args: &Args, nodes: &Nodes, report: &Report) -> Result<(), PerfError> {
    let mut rows = Vec::new();
    for (records, connections) in [(1, 16), (16, 4), (256, 4)] {
        let mut cost = Cost::default();
        for round in 0..args.rounds {
            // Each leads in turn.
            let leader = BROKERS[round % BROKERS.len()];
            measure_one(args, nodes, (records, connections), (round, leader), &mut cost)?;
        }
        rows.push(row_of(records, connections, &cost));
    }
    report.table(
        &format!(
            "{PARTITIONS} partitions led by one broker, followed by two, acks=all, synced, at the \
             maximum; {} turns of {:?}",
            args.rounds, args.seconds
        ),
        &[
            "records of 1 KiB in a batch",
            "connections",
            "MB/s",
            "leader core-s/GB",
            "follower core-s/GB",
            "follower ÷ leader",
            "target",
        ],
        rows,
    );
    Ok(())
}

fn measure_one(
    args: &Args,
    nodes: &Nodes,
    (records, connections): (usize, usize),
    (round, leader): (usize, i32),
    cost: &mut Cost,
) -> Result<(), PerfError> {
    let at = BROKERS.iter().position(|&id| id == leader).unwrap_or(0);
    let mut brokers = BROKERS;
    brokers.rotate_left(at);
    let name = format!("replicas-{records}-{round}");
    let topic = view::create(nodes, &name, &vec![brokers.to_vec(); PARTITIONS])?;
    let load = LoadArgs {
        size: 1 << 10,
        batch: records,
        connections,
        partitions: PARTITIONS as i32,
        in_flight: 5,
        seconds: args.seconds,
        warm_up: Duration::ZERO,
        arrivals: Arrivals::Uniform,
        seed: 1,
    };
    let cpu = |id: i32| {
        let pid = nodes.pid(id).ok_or_else(|| PerfError::Broker(format!("{id} has ended")))?;
        machine::process_cpu(pid).map_err(system("reading processor time"))
    };
    let all = || brokers.iter().map(|&id| cpu(id)).collect::<Result<Vec<_>, _>>();
    let before = all()?;
    let measured = measure(&load, &topic, Rate::Max, Acks::All, false, None)?;
    let after = all()?;
    measured.verify()?;
    let used: Vec<Duration> =
        after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).collect();
    cost.bytes += measured.stored * measured.batch_bytes as u64;
    cost.leader += used[0];
    cost.followers += used[1] + used[2];
    cost.elapsed += measured.outcome.elapsed;
    let mut client = nodes.connect(leader)?;
    topic::delete(&mut client, &topic)
}

fn row_of(records: usize, connections: usize, cost: &Cost) -> Vec<String> {
    let gigabytes = cost.bytes as f64 / 1e9;
    let leader = cost.leader.as_secs_f64() / gigabytes;
    let follower = cost.followers.as_secs_f64() / 2.0 / gigabytes;
    let ratio = follower / leader;
    row![
        records,
        connections,
        units::megabytes(cost.bytes as f64 / cost.elapsed.as_secs_f64()),
        units::three_digits(leader),
        units::three_digits(follower),
        units::three_digits(ratio),
        format!("≤ {TARGET_RATIO} {}", verdict(ratio, TARGET_RATIO, false)),
    ]
}
