//! `perf start`: from the start of the process to the first acknowledged write, on an empty
//! directory and after SIGKILL under load.

use std::thread;
use std::time::{Duration, Instant};

use net::client::{Client, ClientError};
use net::wire::produce::{ProduceRequest, ProduceResponse};

use crate::broker::{self, Broker, Launcher, OwnArgs};
use crate::error::PerfError;
use crate::latency::Latencies;
use crate::load::{self, Pace, Run};
use crate::produce::{Acks, LoadArgs, first_error, lanes, produce_frame, produce_request};
use crate::report::{Report, verdict};
use crate::schedule::Arrivals;
use crate::template::{batch_of, marked_batch};
use crate::topic::{self, Topic};
use crate::{row, units};

/// From the start on an empty directory to the first write with acks=all, topic creation included.
const TARGET_EMPTY: Duration = Duration::from_millis(150);
/// The same after SIGKILL, into a topic that was there.
const TARGET_KILLED: Duration = Duration::from_secs(1);
/// How long a broker that recovers may refuse a write.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a load runs before its broker is killed.
const BEFORE_KILL: Duration = Duration::from_millis(1_500);

/// Options of `perf start`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    broker: OwnArgs,
    /// Starts on an empty directory
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Kills and restarts
    #[arg(long, default_value_t = 3)]
    kills: usize,
    /// Partitions that the killed broker has
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// GiB of data that it has
    #[arg(long, default_value_t = 2.0)]
    gib: f64,
}

/// What one start took.
struct Start {
    accepted: Duration,
    acked: Duration,
    /// Until every partition told its end.
    all: Option<Duration>,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    let launcher = Launcher::new(&args.broker)?;
    let report = Report::begin(launcher.data().parent().unwrap_or(&launcher.data()));
    let mut rows = Vec::new();
    let mut empty = Vec::new();
    for _ in 0..args.runs {
        launcher.clear()?;
        empty.push(start_empty(&launcher)?);
    }
    rows.extend(describe("empty directory", &empty, TARGET_EMPTY));
    launcher.clear()?;
    let topic = prepare(args, &launcher)?;
    let mut killed = Vec::new();
    for _ in 0..args.kills {
        killed.push(start_killed(&launcher, &topic)?);
    }
    let name = format!(
        "SIGKILL, {} partitions, {:.1} GiB",
        units::count(f64::from(args.partitions)),
        args.gib
    );
    rows.extend(describe(&name, &killed, TARGET_KILLED));
    report.table(
        "From the start of the process",
        &["start", "until", "runs", "median", "max", "target"],
        rows,
    );
    report.note(
        "\"acked\" is the first write with acks=all (synced); on the empty directory the creation of\n\
         its topic is part of it. Killed in the middle of a load of 64 KiB writes with acks=1.",
    );
    report.end();
    Ok(())
}

fn describe(name: &str, starts: &[Start], target: Duration) -> Vec<Vec<String>> {
    let row = |until: &str, times: Vec<Duration>, target: Option<Duration>| {
        let mut all = Latencies::new();
        times.iter().for_each(|time| all.record(time.as_nanos() as u64));
        let verdict = target.map_or("–".into(), |target| {
            let reached = verdict(all.max() as f64, target.as_nanos() as f64, false);
            format!("≤ {target:?} {reached}")
        });
        let (median, max) = (units::time(all.percentile(50.0)), units::time(all.max()));
        row![name, until, times.len(), median, max, verdict]
    };
    if starts.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![
        row("connected", starts.iter().map(|start| start.accepted).collect(), None),
        row("acked", starts.iter().map(|start| start.acked).collect(), Some(target)),
    ];
    let all: Vec<Duration> = starts.iter().filter_map(|start| start.all).collect();
    if !all.is_empty() {
        rows.push(row("all partitions", all, None));
    }
    rows
}

fn start_empty(launcher: &Launcher) -> Result<Start, PerfError> {
    let mut broker = launcher.start()?;
    let mut client = broker.connect()?;
    let accepted = broker.started().elapsed();
    let topic = topic::create(&mut client, "start", 1, &[])?;
    write_until_acked(&mut client, &topic, 0)?;
    let acked = broker.started().elapsed();
    broker.kill()?;
    Ok(Start { accepted, acked, all: None })
}

/// A topic with its data, on a broker that was killed at work.
fn prepare(args: &Args, launcher: &Launcher) -> Result<Topic, PerfError> {
    let mut broker = launcher.start()?;
    let topic = topic::create(&mut broker.connect()?, "start", args.partitions, &[])?;
    write_to_each(&topic, Acks::Leader)?;
    let load = load_args();
    let target = (args.gib * (1u64 << 30) as f64) as u64;
    loop {
        let written: i64 = topic::ends(&topic)?.iter().sum();
        if written as u64 * load.size as u64 >= target {
            break;
        }
        put_load(&load, &topic)?;
    }
    kill_at_work(broker, &topic)?;
    Ok(topic)
}

fn start_killed(launcher: &Launcher, topic: &Topic) -> Result<Start, PerfError> {
    let mut broker = launcher.start()?;
    let mut client = broker.connect()?;
    let accepted = broker.started().elapsed();
    // Its port is another one now.
    let leaders = vec![broker.address().to_owned(); topic.leaders.len()];
    let topic = Topic { leaders, ..topic.clone() };
    write_until_acked(&mut client, &topic, 0)?;
    let acked = broker.started().elapsed();
    while topic::ends(&topic).is_err() {
        if broker.started().elapsed() > PATIENCE {
            return Err(PerfError::Broker("some partitions do not come back".into()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let all = Some(broker.started().elapsed());
    kill_at_work(broker, &topic)?;
    Ok(Start { accepted, acked, all })
}

/// Puts load on the broker and kills it in the middle.
fn kill_at_work(broker: Broker, topic: &Topic) -> Result<(), PerfError> {
    let topic = topic.clone();
    let load = thread::spawn(move || put_load(&load_args(), &topic));
    thread::sleep(BEFORE_KILL);
    broker.kill()?;
    match load.join().expect("no load panics") {
        Ok(()) => Err(PerfError::Wrong("the load was over before the broker was killed".into())),
        Err(_) => Ok(()),
    }
}

/// Writes of 64 KiB over all partitions.
fn load_args() -> LoadArgs {
    LoadArgs {
        size: 1 << 10,
        batch: 64,
        connections: 4,
        partitions: 1,
        in_flight: 5,
        seconds: Duration::from_secs(2),
        warm_up: Duration::ZERO,
        arrivals: Arrivals::Uniform,
        seed: 1,
    }
}

fn put_load(load: &LoadArgs, topic: &Topic) -> Result<(), PerfError> {
    let batch = marked_batch(load.batch, load.size, load.seed);
    let lanes = lanes(load, topic, Acks::Leader, &batch)?;
    let pace = Pace::Max { in_flight: load.in_flight };
    let run = Run { pace, warm_up: load.warm_up, time: load.seconds, answered: true, pid: None };
    load::run(&run, load::clock(), lanes).map(|_| ())
}

/// Writes one small batch with acks=all, again and again until it is acknowledged.
fn write_until_acked(client: &mut Client, topic: &Topic, partition: i32) -> Result<(), PerfError> {
    let begun = Instant::now();
    let batch = batch_of(200).expect("there is one of 200 bytes");
    let version = topic.version_of::<ProduceRequest<'_>>(client, 12)?;
    loop {
        let request = produce_request(topic, partition, Acks::All, &batch);
        let response: ProduceResponse<'_> = client.call_in(&request, version)?;
        match first_error(&response) {
            Ok(()) => return Ok(()),
            Err(PerfError::Refused { error, .. }) if error.is_retriable() => {}
            Err(error) => return Err(error),
        }
        if begun.elapsed() > PATIENCE {
            return Err(PerfError::Broker("it takes no write".into()));
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// Writes one small batch to each partition; all are in flight together.
pub fn write_to_each(topic: &Topic, acks: Acks) -> Result<(), PerfError> {
    let batch = batch_of(200).expect("there is one of 200 bytes");
    for seat in topic.seats(topic.leaders.len().min(4)) {
        let client = broker::connect(&seat.leader)?;
        let version = topic.version_of::<ProduceRequest<'_>>(&client, 12)?;
        let (mut sender, mut receiver) = client.split();
        for &partition in &seat.partitions {
            sender.send_frame(&mut produce_frame(topic, partition, acks, &batch, version))?;
        }
        for _ in &seat.partitions {
            let answer = receiver.receive()?;
            first_error(&answer.decode(version).map_err(ClientError::from)?)?;
        }
    }
    Ok(())
}
