//! `perf engine`: what the log adds to the device.
//!
//! Appends through the engine's own log on io_uring, synced before they count (`flush.messages` is
//! 1, as by default), against raw synced writes of the same size and depth ([`crate::raw`]), in
//! turns of a fraction of a second in one run. "Depth" is how many appends wait at a time: the log
//! has one write in flight and lets the others share the next one (group commit); the raw ring has
//! that many writes in flight.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use engine::batch::{Checked, check_trusted};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::uring::UringEnv;
use engine::env::{Env, Queue, align_up};
use engine::ids::{LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Bounds, Disk, Log, Shared};
use engine::wait::Gate;

use crate::error::{PerfError, system};
use crate::latency::{Latencies, median};
use crate::raw::{RawLog, Space};
use crate::report::{Report, verdict};
use crate::{broker, machine, row, template, units};

/// How long one side works before it is the other's turn.
const SLICE: Duration = Duration::from_millis(200);
/// What the log must reach of the raw ring (ratio of appends to writes per second).
const TARGET: f64 = 0.9;

/// Options of `perf engine`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Batch sizes; what is no multiple of 4 KiB shares blocks with its neighbours
    #[arg(long, value_delimiter = ',', default_value = "4k,5000,64k,1m", value_parser = units::parse_size)]
    sizes: Vec<usize>,
    /// How many appends wait at a time
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    depths: Vec<usize>,
    /// Seconds for each size and depth, shared by the log and two baselines
    #[arg(long, default_value = "6", value_parser = units::parse_seconds)]
    seconds: Duration,
    /// Directory on the disk to measure [default: one for temporary files]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// One of the three that take turns.
#[derive(Default)]
struct Side {
    /// Operations per second of each turn.
    rates: Vec<f64>,
    latencies: Option<Latencies>,
    operations: u64,
    cpu: Duration,
}

impl Side {
    fn rate(&self) -> f64 {
        median(&self.rates)
    }

    fn at(&self, percent: f64) -> u64 {
        self.latencies.as_ref().map_or(0, |latencies| latencies.percentile(percent))
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), PerfError> {
    let data = broker::DataDir::new(args.data.as_deref())?;
    let report = Report::begin(data.path());
    let sizes = args.sizes.clone();
    let cases: Vec<(usize, usize)> = sizes
        .iter()
        .flat_map(|&size| args.depths.iter().map(move |&depth| (size, depth)))
        .collect();
    if cases.iter().any(|(_, depth)| *depth == 0) {
        return Err(PerfError::Usage("a depth is at least 1".into()));
    }
    let mut rows = Vec::new();
    for (number, (size, depth)) in cases.into_iter().enumerate() {
        let dir = data.path().join(format!("case-{number}"));
        std::fs::create_dir(&dir).map_err(system("making a directory"))?;
        let (time, case) = (args.seconds, (size, depth));
        let sides =
            engine::env::uring::run(|env| async move { measure(env, &dir, case, time).await });
        let sides = sides.map_err(|error| PerfError::Usage(error.to_string()))??;
        rows.push(describe(size, depth, &sides));
    }
    report.table(
        "Append + sync: the log, a raw ring into reserved space, a raw ring over written blocks",
        &[
            "batch",
            "depth",
            "log/s",
            "raw/s",
            "written/s",
            "log÷raw",
            "target",
            "log p50",
            "raw p50",
            "log p99",
            "raw p99",
            "log CPU",
            "raw CPU",
        ],
        rows,
    );
    report.note(
        "log÷raw compares operations per second of neighbouring turns (median). CPU is user and\n\
         system time of the process per operation, in µs. The batch was checked before, once;\n\
         log latency is from before the append until its offset is synced. raw is O_DIRECT +\n\
         RWF_DSYNC into fallocated space, the state of the log's own segments; written is the same\n\
         over blocks that were written before.",
    );
    report.end();
    Ok(())
}

fn describe(size: usize, depth: usize, sides: &[Side; 3]) -> Vec<String> {
    let [log, raw, written] = sides;
    let ratios: Vec<f64> = log.rates.iter().zip(&raw.rates).map(|(log, raw)| log / raw).collect();
    let ratio = median(&ratios);
    let three = units::three_digits;
    row![
        units::size(size as u64),
        depth,
        units::count(log.rate()),
        units::count(raw.rate()),
        units::count(written.rate()),
        three(ratio),
        format!("≥ {TARGET} {}", verdict(ratio, TARGET, true)),
        units::time(log.at(50.0)),
        units::time(raw.at(50.0)),
        units::time(log.at(99.0)),
        units::time(raw.at(99.0)),
        three(log.cpu_micros()),
        three(raw.cpu_micros()),
    ]
}

/// Lets the three take turns until `time` is over; the first round is thrown away.
async fn measure(
    env: UringEnv,
    dir: &Path,
    (size, depth): (usize, usize),
    time: Duration,
) -> Result<[Side; 3], PerfError> {
    let batch = template::batch_of(size)
        .ok_or_else(|| PerfError::Usage(format!("there is no batch of {size} bytes")))?;
    let log = open(&env, &dir.join("log")).await?;
    let raw = |space| RawLog::new(dir, align_up(size), depth, space).map_err(system("a raw ring"));
    let (mut reserved, mut written) = (raw(Space::Reserved)?, raw(Space::Written)?);
    let mut sides: [Side; 3] = Default::default();
    let rounds = (time.as_secs_f64() / (3.0 * SLICE.as_secs_f64())).ceil().max(1.0) as usize;
    for round in 0..=rounds {
        // Each round in the other order, so that nobody is always first.
        let order = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for which in order {
            let mut latencies = Latencies::new();
            let cpu = machine::this_cpu();
            let (operations, elapsed) = match which {
                0 => append(&env, &log, &batch, depth, &mut latencies).await?,
                1 => reserved.run(SLICE, &mut latencies).map_err(system("writing"))?,
                _ => written.run(SLICE, &mut latencies).map_err(system("writing"))?,
            };
            if round == 0 {
                continue;
            }
            let side = &mut sides[which];
            side.rates.push(operations as f64 / elapsed.as_secs_f64());
            side.latencies.get_or_insert_with(Latencies::new).merge(&latencies);
            side.operations += operations;
            side.cpu += machine::this_cpu().saturating_sub(cpu);
        }
    }
    let closed = log.close().await;
    closed.map_err(|error| PerfError::Log { dir: dir.to_owned(), why: error.to_string() })?;
    drop((reserved, written));
    std::fs::remove_dir_all(dir).map_err(system("removing what was written"))?;
    Ok(sides)
}

async fn open(env: &UringEnv, dir: &Path) -> Result<Log<UringEnv>, PerfError> {
    let budget = BlockBudget::new(64 << 20, 64 << 20);
    let shared = Shared { budget, disk: Disk::default(), bounds: Bounds::default() };
    let topic = TopicId::random(env.random(), env.random());
    let identity = TopicPartition { topic, partition: PartitionIndex(0) };
    let opened = Log::open(env, dir, identity, Rc::new(LogConfig::default()), &shared).await;
    let failed =
        |why: engine::log::OpenError| PerfError::Log { dir: dir.to_owned(), why: why.to_string() };
    let (log, _) = opened.map_err(failed)?;
    assert_eq!(log.config().flush_messages, 1, "what is measured is append + sync");
    Ok(log)
}

/// `depth` tasks append and wait for the sync, each again as soon as it is through.
async fn append(
    env: &UringEnv,
    log: &Log<UringEnv>,
    batch: &[u8],
    depth: usize,
    into: &mut Latencies,
) -> Result<(u64, Duration), PerfError> {
    let begun = env.now();
    let until = begun.after(SLICE);
    let done = Rc::new(Done::default());
    let gate = Gate::default();
    for _ in 0..depth {
        let (env, log, done) = (env.clone(), log.clone(), done.clone());
        let (batch, pass) = (batch.to_vec(), gate.enter());
        env.clone().spawn(Queue::Request, async move {
            let batch = check_trusted(&batch).expect("it was built here");
            while env.now() < until && done.failed.borrow().is_none() {
                let begun = env.now();
                if let Err(why) = append_one(&log, &batch).await {
                    *done.failed.borrow_mut() = Some(why);
                    break;
                }
                done.latencies.borrow_mut().push(env.now().since(begun).as_nanos() as u64);
            }
            done.ended.set(env.now());
            drop(pass);
        });
    }
    gate.close().await;
    if let Some(why) = done.failed.take() {
        return Err(PerfError::Log { dir: log.dir().to_owned(), why });
    }
    let latencies = done.latencies.take();
    latencies.iter().for_each(|nanos| into.record(*nanos));
    Ok((latencies.len() as u64, done.ended.get().since(begun)))
}

/// What the tasks of one turn leave behind.
#[derive(Default)]
struct Done {
    latencies: RefCell<Vec<u64>>,
    ended: Cell<engine::time::Instant>,
    failed: RefCell<Option<String>>,
}

async fn append_one(log: &Log<UringEnv>, batch: &Checked<'_>) -> Result<(), String> {
    let appended = log.append(batch, LeaderEpoch(0), false).map_err(|error| error.to_string())?;
    let synced = log.synced();
    synced.reach(appended.end.value()).await.map_err(|_| "it failed while it was written".into())
}
