//! Leaders that are moved on purpose: how long their partition takes no writes meanwhile, as a
//! client sees it that never waits ([`super::retry`]).

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::nodes::{BROKERS, Nodes};
use super::retry::{self, Acked};
use super::view::{self, spread};
use super::{Args, PerfError};
use crate::report::{Report, verdict};
use crate::topic::Topic;
use crate::{row, units};

/// Longest silence.
const TARGET: Duration = Duration::from_millis(100);
/// How long the client writes before and after a move.
const AROUND: Duration = Duration::from_millis(500);
/// Partitions of the topic whose leaders an ending broker gives away.
const PARTITIONS: usize = 30;

/// How a leader is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Election,
    Reassignment,
    Shutdown,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Election => "ElectLeaders: another preferred leader",
            Way::Reassignment => "reassignment: the leader's replica goes elsewhere",
            Way::Shutdown => "SIGTERM of the leader's broker",
        }
    }
}

/// Runs it.
pub fn run(args: &Args, nodes: &mut Nodes, report: &Report) -> Result<(), PerfError> {
    let mut rows = Vec::new();
    let topic = view::create(nodes, "moves", &spread(PARTITIONS))?;
    let narrow = view::create(nodes, "moves-narrow", &[vec![1, 2]])?;
    for way in [Way::Election, Way::Reassignment, Way::Shutdown] {
        let topic = if way == Way::Reassignment { &narrow } else { &topic };
        let mut silences = Vec::new();
        let mut usual = Vec::new();
        let (mut refused, mut unnamed) = (0, 0);
        for _ in 0..args.rounds {
            let (moved, acked) = move_once(nodes, topic, way)?;
            silences.push(acked.longest(moved.0, moved.1));
            usual.extend(acked.usual(moved.0));
            refused += acked.refused;
            unnamed += acked.unnamed;
        }
        rows.push(row_of(way, silences, usual, (refused, unnamed)));
    }
    report.table(
        "Planned moves of a leader, under a client that writes one batch after the other, acks=all",
        &[
            "how",
            "moves",
            "no write, median",
            "longest",
            "target",
            "otherwise p50",
            "p99",
            "sent elsewhere",
            "without a name",
        ],
        rows,
    );
    Ok(())
}

/// From when to when a leader was moved, and what the client saw.
fn move_once(
    nodes: &mut Nodes,
    topic: &Topic,
    way: Way,
) -> Result<((Instant, Instant), Acked), PerfError> {
    // Whoever asks is not the one that ends.
    let mut client = nodes.connect(BROKERS[0])?;
    let before = leader_of(&mut client, topic)?;
    let mut client = nodes.connect(other_than(before))?;
    let keeps = view::partitions(&mut client, &topic.name)?.swap_remove(0).isr;
    let writing = retry::begin(nodes, topic, 0, before);
    thread::sleep(AROUND);
    let mut next: Vec<i32> = keeps.iter().copied().filter(|id| *id != before).collect();
    if way == Way::Election {
        next.push(before);
        view::reassign(&mut client, &topic.name, 0, &next)?;
        thread::sleep(AROUND);
    }
    let from = Instant::now();
    match way {
        Way::Election => view::prefer(&mut client, &topic.name, 0)?,
        Way::Reassignment => {
            let absent = BROKERS.into_iter().find(|id| !keeps.contains(id));
            next.extend(absent);
            view::reassign(&mut client, &topic.name, 0, &next)?;
        }
        Way::Shutdown => nodes.signal(before, Signal::SIGTERM)?,
    }
    view::until("another leader", || {
        let leader = leader_of(&mut client, topic)?;
        Ok((leader >= 0 && leader != before).then_some(()))
    })?;
    if way == Way::Shutdown {
        nodes.wait_gone(before)?;
    }
    let to = Instant::now();
    thread::sleep(AROUND);
    let acked = writing.end()?;
    if way == Way::Shutdown {
        nodes.launch(before)?;
        nodes.wait_ready(before)?;
    }
    view::until("all replicas in sync", || {
        let seen = view::partitions(&mut client, &topic.name)?;
        Ok(seen.iter().all(|one| one.isr.len() == keeps.len()).then_some(()))
    })?;
    Ok(((from, to), acked))
}

fn leader_of(client: &mut net::client::Client, topic: &Topic) -> Result<i32, PerfError> {
    Ok(view::partitions(client, &topic.name)?.first().map_or(-1, |one| one.leader))
}

fn other_than(broker: i32) -> i32 {
    BROKERS.into_iter().find(|id| *id != broker).unwrap_or(BROKERS[0])
}

fn row_of(
    way: Way,
    mut silences: Vec<Duration>,
    mut usual: Vec<Duration>,
    (refused, unnamed): (u64, u64),
) -> Vec<String> {
    silences.sort_unstable();
    usual.sort_unstable();
    let time = |time: Option<&Duration>| {
        time.map_or("–".into(), |time| units::time(time.as_nanos() as u64))
    };
    let longest = silences.last().copied().unwrap_or_default();
    let reached = verdict(longest.as_secs_f64(), TARGET.as_secs_f64(), false);
    row![
        way.name(),
        silences.len(),
        time(silences.get(silences.len() / 2)),
        time(silences.last()),
        format!("≤ {TARGET:?} {reached}"),
        time(usual.get(usual.len() / 2)),
        time(usual.get(usual.len() * 99 / 100)),
        refused,
        unnamed,
    ]
}
