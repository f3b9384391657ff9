//! Writes with acks=all on three replicas, at a rate, in turns with what they are made of: syncs of
//! the device and round trips over the loopback, at the same rate.
//!
//! A write goes to the leader and from it to two followers, who answer: two round trips; and it is
//! synced by the leader and by the followers, at best at the same time. Here all three have the
//! same device, and the load has the same cores.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::nodes::Nodes;
use super::view::{self, spread};
use super::{Args, PerfError};
use crate::error::system;
use crate::latency::{Latencies, Timings};
use crate::load::Clock;
use crate::machine;
use crate::produce::{Acks, LoadArgs, latency_header, latency_row, measure};
use crate::raw::{RawLog, Space};
use crate::report::{Report, verdict};
use crate::row;
use crate::schedule::{Arrivals, Schedule};
use crate::topic::Topic;
use crate::units::{self, Rate};

/// Of the p50 to two syncs and two round trips.
const TARGET_RATIO: f64 = 1.5;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 1 << 10;
/// Bytes of an answer to a message, about.
const ANSWER_BYTES: usize = 64;
/// Bytes that the log writes for one message.
const SYNCED_BYTES: usize = 4 << 10;

/// One kind of topic.
struct Side {
    name: &'static str,
    topic: Topic,
    connections: usize,
    replicas: usize,
    timings: Timings,
}

/// Runs it.
pub fn run(args: &Args, nodes: &Nodes, report: &Report) -> Result<(), PerfError> {
    let side = |name, topic, placed: Vec<Vec<i32>>, connections| -> Result<Side, PerfError> {
        let replicas = placed[0].len();
        let topic = view::create(nodes, topic, &placed)?;
        Ok(Side { name, topic, connections, replicas, timings: Timings::new() })
    };
    let mut sides = [
        side("1 partition, 1 replica", "synced-alone", vec![vec![1]], 1)?,
        side("1 partition", "synced-1", spread(1), 1)?,
        side("6 partitions, 6 connections", "synced-6", spread(6), 6)?,
    ];
    let (mut syncs, mut trips) = (Latencies::new(), Latencies::new());
    let mut raw = RawLog::new(nodes.path(), SYNCED_BYTES, 1, Space::Written)
        .map_err(system("a file to sync"))?;
    let trip = Trip::new().map_err(system("a connection over the loopback"))?;
    // Not counted: files grow, caches are empty.
    sides.iter().try_for_each(|side| load(args, side).map(|_| ()))?;
    for _ in 0..args.rounds {
        at_rate(args, || raw.run(Duration::ZERO, &mut syncs).map(|_| ()))
            .map_err(system("syncing"))?;
        at_rate(args, || trip.make(&mut trips)).map_err(system("the loopback"))?;
        for side in &mut sides {
            let measured = load(args, side)?;
            side.timings.merge(&measured);
        }
    }
    print(args, report, &sides, &syncs, &trips);
    Ok(())
}

fn load(args: &Args, side: &Side) -> Result<Timings, PerfError> {
    let load = LoadArgs {
        size: MESSAGE_BYTES,
        batch: 1,
        connections: side.connections,
        partitions: side.topic.leaders.len() as i32,
        in_flight: 1,
        seconds: args.seconds,
        warm_up: Duration::from_millis(200),
        arrivals: Arrivals::Uniform,
        seed: 1,
    };
    let measured = measure(&load, &side.topic, Rate::PerSecond(args.rate), Acks::All, false, None)?;
    measured.verify()?;
    Ok(measured.outcome.timings)
}

/// Does something at the rate of the load, for as long.
fn at_rate(args: &Args, mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    machine::sharpen_timers();
    let clock = Clock::starting(Duration::ZERO);
    let time = args.seconds.as_nanos() as u64;
    let due = Schedule::new(Arrivals::Uniform, args.rate, 0, 1, 1);
    for due in due.take_while(|due| *due < time) {
        clock.sleep_until(due);
        act()?;
    }
    Ok(())
}

/// A connection over the loopback to a thread that answers each message.
struct Trip(TcpStream);

impl Trip {
    fn new() -> io::Result<Trip> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (mut answering, _) = listener.accept()?;
        answering.set_nodelay(true)?;
        thread::spawn(move || {
            let mut message = [0; MESSAGE_BYTES];
            // Until the other end is closed.
            while answering.read_exact(&mut message).is_ok()
                && answering.write_all(&message[..ANSWER_BYTES]).is_ok()
            {}
        });
        Ok(Trip(stream))
    }

    fn make(&self, into: &mut Latencies) -> io::Result<()> {
        let begun = Instant::now();
        (&self.0).write_all(&[0x5a; MESSAGE_BYTES])?;
        (&self.0).read_exact(&mut [0; ANSWER_BYTES])?;
        into.record(begun.elapsed().as_nanos() as u64);
        Ok(())
    }
}

fn print(args: &Args, report: &Report, sides: &[Side], syncs: &Latencies, trips: &Latencies) {
    let median = |latencies: &Latencies| latencies.percentile(50.0);
    let parts = 2 * (median(syncs) + median(trips));
    let mut rows = vec![
        latency_row("sync of 4 KiB, RWF_DSYNC", syncs),
        latency_row("round trip, 1 KiB there", trips),
    ];
    rows.iter_mut().for_each(|row| row.extend(row!["–", "–"]));
    for side in sides {
        let ratio = median(&side.timings.response) as f64 / parts.max(1) as f64;
        let reached = verdict(ratio, TARGET_RATIO, false);
        let mut row = latency_row(&format!("{}: due → ack", side.name), &side.timings.response);
        let target = match side.replicas {
            1 => "–".into(),
            _ => format!("≤ {TARGET_RATIO} {reached}"),
        };
        row.extend(row![units::three_digits(ratio), target]);
        rows.push(row);
        let mut row = latency_row("… due → sent", &side.timings.delay);
        row.extend(row!["–", "–"]);
        rows.push(row);
    }
    let mut header = latency_header("what");
    header.extend(["p50 ÷ parts", "target"]);
    let title = format!(
        "{} messages/s of 1 KiB, a request each, acks=all, synced; {} turns of {:?}",
        units::count(args.rate),
        args.rounds,
        args.seconds
    );
    report.table(&title, &header, rows);
    report.note(&format!(
        "The parts: two syncs and two round trips, at the same rate in the same minute: {}.\n",
        units::time(parts)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_takes_time_and_can_be_made_again() {
        let trip = Trip::new().expect("the loopback works");
        let mut latencies = Latencies::new();
        for _ in 0..3 {
            trip.make(&mut latencies).expect("it is answered");
        }
        assert_eq!(latencies.count(), 3);
        assert!(latencies.percentile(50.0) > 1_000, "{latencies:?}");
    }
}
