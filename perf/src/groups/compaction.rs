//! How fast a log is compacted: through the engine, on one core, without anybody else.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use engine::batch::{BatchBuilder, Codec, NewRecord, check_trusted};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::Env;
use engine::env::uring::{self, UringEnv};
use engine::ids::{LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Bounds, Cleaner, Compacted, Disk, Log, Shared};

use super::{PerfError, Report};
use crate::report::verdict;
use crate::schedule::split_mix;
use crate::template::now;
use crate::{machine, row, units};

/// Bytes of log per second of one core.
const TARGET: f64 = 100e6;
/// Bytes of batches that are written, before compression.
const LOG_BYTES: usize = 256 << 20;
/// Bytes of a segment.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Bytes of a batch, before compression.
const BATCH_BYTES: usize = 16_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 1_000;
/// Distinct keys: about 13 records of each.
const KEYS: u64 = 20_000;
/// Memory for keys (Kafka's `log.cleaner.dedupe.buffer.size`); they all fit in.
const DEDUPE_BYTES: usize = 8 << 20;
/// Batches after which the disk is waited for.
const UNWRITTEN_MAX: usize = 16;

/// Runs it.
pub fn run(data: &Path, report: &Report) -> Result<(), PerfError> {
    let mut rows = Vec::new();
    for (name, codec) in [("uncompressed", Codec::None), ("lz4", Codec::Lz4)] {
        let dir = data.join(format!("compaction-{name}"));
        let ran = uring::run(|env| async move { compact(&env, &dir, codec).await });
        let done = ran.map_err(|error| PerfError::Usage(error.to_string()))??;
        rows.push(done.row(name));
    }
    report.table(
        "Compaction of a log, on one core",
        &["log", "size", "left", "MB/s", "target", "MB per core-s", "raw MB/s"],
        rows,
    );
    report.note(
        "MB are of the log as it is stored; raw, before compression. Half of a value is random. The\n\
         log is read twice: for the keys, and to be written anew.",
    );
    Ok(())
}

struct Done {
    bytes: u64,
    raw: u64,
    compacted: Compacted,
    took: Duration,
    cpu: Duration,
}

impl Done {
    fn row(&self, name: &str) -> Vec<String> {
        let rate = self.bytes as f64 / self.took.as_secs_f64();
        row![
            name,
            units::size(self.bytes),
            units::size(self.compacted.written_bytes),
            units::megabytes(rate),
            format!("≥ {} {}", units::megabytes(TARGET), verdict(rate, TARGET, true)),
            units::megabytes(self.bytes as f64 / self.cpu.as_secs_f64()),
            units::megabytes(self.raw as f64 / self.took.as_secs_f64()),
        ]
    }
}

async fn compact(env: &UringEnv, dir: &Path, codec: Codec) -> Result<Done, PerfError> {
    let failed = |why: String| PerfError::Log { dir: dir.to_owned(), why };
    let topic = TopicId::random(env.random(), env.random());
    let identity = TopicPartition { topic, partition: PartitionIndex(0) };
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        compacts: true,
        deletes: false,
        min_dirty_ppm: 0,
        flush_messages: u64::MAX,
        ..LogConfig::default()
    };
    let budget = BlockBudget::new(0, 64 << 20);
    let shared = Shared { budget, disk: Disk::default(), bounds: Bounds::default() };
    let opened = Log::open(env, dir, identity, Rc::new(config), &shared).await;
    let (log, _) = opened.map_err(|error| failed(error.to_string()))?;
    let raw = fill(&log, codec).await.map_err(failed)?;
    let bytes = log.size();
    let (mut cleaner, mut compacted) = (Cleaner::new(DEDUPE_BYTES), Compacted::default());
    let (begun, cpu) = (Instant::now(), machine::this_cpu());
    loop {
        let round = log.compact(&mut cleaner, log.end()).await;
        let Some(round) = round.map_err(|error| failed(error.to_string()))? else { break };
        compacted.written_bytes += round.written_bytes;
        compacted.replaced += round.replaced;
    }
    let (took, cpu) = (begun.elapsed(), machine::this_cpu().saturating_sub(cpu));
    log.close().await.map_err(|error| failed(error.to_string()))?;
    if compacted.replaced == 0 {
        return Err(failed("nothing was compacted".into()));
    }
    Ok(Done { bytes, raw, compacted, took, cpu })
}

/// Appends records of random keys; how many bytes, before compression.
async fn fill(log: &Log<UringEnv>, codec: Codec) -> Result<u64, String> {
    let (mut state, mut raw) = (1, 0);
    let mut value = vec![0; VALUE_BYTES];
    for batch in 0..LOG_BYTES / BATCH_BYTES {
        let mut builder = BatchBuilder::new(u32::MAX).codec(codec);
        while builder.size() < BATCH_BYTES {
            for eight in value[VALUE_BYTES / 2..].chunks_exact_mut(8) {
                eight.copy_from_slice(&split_mix(&mut state).to_be_bytes());
            }
            let key = (split_mix(&mut state) % KEYS).to_be_bytes();
            let (key, value) = (Some(&key[..]), Some(&value[..]));
            let record = NewRecord { timestamp: now(), key, value, headers: &[] };
            builder.push(&record).map_err(|error| error.to_string())?;
        }
        raw += builder.size() as u64;
        let bytes = builder.build().map_err(|error| error.to_string())?;
        let checked = check_trusted(&bytes).map_err(|error| error.to_string())?;
        let appended = log.append(&checked, LeaderEpoch(0), true);
        let end = appended.map_err(|error| error.to_string())?.end.value();
        if batch % UNWRITTEN_MAX == UNWRITTEN_MAX - 1 {
            log.written().reach(end).await.map_err(|_| "it was not written".to_owned())?;
        }
    }
    log.flush().await.map_err(|_| "it was not synced".to_owned())?;
    Ok(raw)
}
