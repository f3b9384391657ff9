//! Many partitions: how long it takes to make them, to have one broker back in all their in-sync
//! sets after an orderly end and after SIGKILL, and what they cost at rest.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Args;
use super::nodes::{BROKERS, COORDINATORS, Nodes};
use super::view::{self, spread};
use crate::error::{PerfError, system};
use crate::produce::Acks;
use crate::report::{Report, verdict};
use crate::start::write_to_each;
use crate::topic::{self, Topic};
use crate::{machine, row, units};

/// From the start of the process until the broker is in all in-sync sets.
const TARGET_BACK: Duration = Duration::from_secs(10);
/// The broker that is restarted.
const RESTARTED: i32 = 3;
/// Who is asked meanwhile.
const WITNESS: i32 = 1;
/// How long a broker may take to be back.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two questions whether it is: an answer names all partitions, and costs what it is
/// about some milliseconds of a broker.
const LOOK: Duration = Duration::from_millis(50);
/// Time to come to rest, and to look at the rest.
const SETTLE: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_secs(10);

/// Runs it.
pub fn run(args: &Args, nodes: &mut Nodes, report: &Report) -> Result<(), PerfError> {
    let begun = Instant::now();
    let topics = create(args, nodes)?;
    let created = begun.elapsed();
    topics.iter().try_for_each(|topic| write_to_each(topic, Acks::All))?;
    let written = begun.elapsed().saturating_sub(created);
    let count = units::count((args.topics * args.partitions) as f64);
    let time = |time: Duration| units::time(time.as_nanos() as u64);
    report.table(
        &format!("{count} partitions on 3 brokers, 3 replicas each"),
        &["what", "time"],
        vec![
            row![
                format!("made, {} at a time, known to all brokers", args.partitions),
                time(created)
            ],
            row!["a batch written to each, acks=all", time(written)],
        ],
    );
    at_rest(nodes, report, &format!("{count} partitions, written once"))?;
    let mut rows = Vec::new();
    for (name, signal) in [("SIGTERM", Signal::SIGTERM), ("SIGKILL", Signal::SIGKILL)] {
        rows.push(restart(nodes, &topics, name, signal)?);
    }
    report.table(
        &format!("Broker {RESTARTED} of 3 is ended, every partition is written to, it is started"),
        &["ended by", "ended after", "ready", "in all in-sync sets", "target", "written to"],
        rows,
    );
    at_rest(nodes, report, &format!("{count} partitions, after the restarts"))
}

fn create(args: &Args, nodes: &Nodes) -> Result<Vec<Topic>, PerfError> {
    let one = |number| view::create(nodes, &format!("many-{number}"), &spread(args.partitions));
    (0..args.topics).map(one).collect()
}

/// Ends a broker, writes to all partitions, starts it, and waits until it is in sync everywhere.
fn restart(
    nodes: &mut Nodes,
    topics: &[Topic],
    name: &str,
    signal: Signal,
) -> Result<Vec<String>, PerfError> {
    wait_in_sync(nodes, topics)?;
    let begun = Instant::now();
    nodes.signal(RESTARTED, signal)?;
    nodes.wait_gone(RESTARTED)?;
    let ended = begun.elapsed();
    let begun = Instant::now();
    for topic in topics {
        write_to_each(&led_by_others(nodes, topic)?, Acks::All)?;
    }
    let written = begun.elapsed();
    let begun = Instant::now();
    nodes.launch(RESTARTED)?;
    nodes.wait_ready(RESTARTED)?;
    let ready = begun.elapsed();
    wait_in_sync(nodes, topics)?;
    let back = begun.elapsed();
    let reached = verdict(back.as_secs_f64(), TARGET_BACK.as_secs_f64(), false);
    let time = |time: Duration| units::time(time.as_nanos() as u64);
    Ok(row![
        name,
        time(ended),
        time(ready),
        time(back),
        format!("≤ {TARGET_BACK:?} {reached}"),
        time(written)
    ])
}

/// Waits until somebody else leads all partitions of a topic.
fn led_by_others(nodes: &Nodes, topic: &Topic) -> Result<Topic, PerfError> {
    let mut client = nodes.connect(WITNESS)?;
    let gone = nodes.address(RESTARTED);
    view::until(&format!("new leaders of {}", topic.name), || {
        let found = topic::find(&mut client, &topic.name)?;
        Ok(found.filter(|found| {
            found.leaders.len() == topic.leaders.len() && !found.leaders.contains(&gone)
        }))
    })
}

fn wait_in_sync(nodes: &Nodes, topics: &[Topic]) -> Result<(), PerfError> {
    let mut client = nodes.connect(WITNESS)?;
    let begun = Instant::now();
    for topic in topics {
        loop {
            let seen = view::partitions(&mut client, &topic.name)?;
            let behind = seen.iter().filter(|one| one.isr.len() < BROKERS.len()).count();
            if behind == 0 && seen.len() == topic.leaders.len() {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let why = format!("{behind} partitions of {} lack a replica", topic.name);
                return Err(PerfError::Broker(why));
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Processor time and memory of each node while nobody asks anything.
fn at_rest(nodes: &Nodes, report: &Report, state: &str) -> Result<(), PerfError> {
    thread::sleep(SETTLE);
    let ids: Vec<i32> = BROKERS.into_iter().chain(COORDINATORS).collect();
    let pid = |id| nodes.pid(id).ok_or_else(|| PerfError::Broker(format!("{id} has ended")));
    let cpu = |id| machine::process_cpu(pid(id)?).map_err(system("reading processor time"));
    let before = ids.iter().map(|&id| cpu(id)).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    thread::sleep(REST);
    let elapsed = begun.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    for (&id, before) in ids.iter().zip(before) {
        let used = cpu(id)?.saturating_sub(before).as_secs_f64() / elapsed * 100.0;
        let pid = pid(id)?;
        let memory = |key| units::size(machine::process_memory(pid, key).unwrap_or(0));
        let role = if BROKERS.contains(&id) { "broker" } else { "coordinator" };
        rows.push(row![
            format!("{role} {id}"),
            format!("{used:.1}"),
            memory("VmRSS"),
            memory("RssAnon"),
            memory("VmHWM"),
            machine::open_files(pid)
        ]);
    }
    report.table(
        &format!("At rest for {REST:?}: {state}"),
        &["node", "CPU % of a core", "resident", "of it own", "peak", "open files"],
        rows,
    );
    Ok(())
}
