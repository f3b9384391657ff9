//! Compaction on the real device; and how fast it is: `cargo test --release -p engine --test
//! compaction_on_uring -- --ignored --nocapture` prints it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use engine::batch::{BatchBuilder, Codec, NewRecord, batches, check_trusted};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::uring::{self, UringEnv};
use engine::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Bounds, Cleaner, Compacted, Disk, Limit, Log, Shared};
use engine::time::Timestamp;

async fn open(env: &UringEnv, dir: &Path, segment_bytes: u64) -> Log<UringEnv> {
    let topic = TopicId::from_bytes([7; 16]);
    let identity = TopicPartition { topic, partition: PartitionIndex(0) };
    let config = LogConfig {
        segment_bytes,
        compacts: true,
        deletes: false,
        min_dirty_ppm: 0,
        flush_messages: 1_000_000,
        ..LogConfig::default()
    };
    let shared = Shared {
        budget: BlockBudget::new(0, 64 << 20),
        disk: Disk::default(),
        bounds: Bounds::default(),
    };
    Log::open(env, dir, identity, Rc::new(config), &shared).await.expect("it opens").0
}

/// What is appended.
#[derive(Clone, Copy)]
struct Load {
    codec: Codec,
    batches: u64,
    records: u64,
    value_bytes: usize,
    keys: u64,
}

impl Load {
    /// Appends it; answers where the newest record of each key stands.
    async fn append(self, log: &Log<UringEnv>) -> Vec<Option<u64>> {
        let mut newest = vec![None; self.keys as usize];
        let mut noise: u64 = 88_172_645_463_325_252;
        let mut value = vec![0; self.value_bytes];
        for batch in 0..self.batches {
            let mut builder = BatchBuilder::new(u32::MAX).codec(self.codec);
            for record in 0..self.records {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                // Half of it does not compress.
                for (at, byte) in value.iter_mut().enumerate().skip(self.value_bytes / 2) {
                    *byte = (noise >> (at % 8 * 8)) as u8 ^ at as u8;
                }
                let key = noise % self.keys;
                newest[key as usize] = Some(batch * self.records + record);
                let (key, value) = (key.to_be_bytes(), Some(&value[..]));
                let timestamp = Timestamp(1_000);
                let record = NewRecord { timestamp, key: Some(&key), value, headers: &[] };
                builder.push(&record).expect("no maximum");
            }
            let bytes = builder.build().expect("codecs do not fail");
            let checked = check_trusted(&bytes).expect("well made");
            let appended = log.append(&checked, LeaderEpoch(1), true).expect("it is taken");
            if batch % 16 == 15 {
                log.written().reach(appended.end.value()).await.expect("it is written");
            }
        }
        log.flush().await.expect("it is synced");
        newest
    }
}

/// The records that are there: offset and key.
async fn read(log: &Log<UringEnv>) -> Vec<(u64, u64)> {
    let (mut at, mut all, mut scratch) = (log.start(), Vec::new(), Vec::new());
    while at < log.end() {
        let limit = Limit { bytes_max: 1 << 20, bound: log.end(), at_least_one: true };
        let chunk = log.read(at, limit).await.expect("readable");
        for slice in &chunk.slices {
            for batch in batches(slice) {
                let batch = batch.expect("whole batches");
                for record in batch.records(&mut scratch, 1 << 24).expect("decodable") {
                    let record = record.expect("decodable");
                    let key = record.key.expect("it has one").try_into().expect("eight bytes");
                    all.push((record.offset.value(), u64::from_be_bytes(key)));
                }
            }
        }
        assert!(chunk.next > at, "stuck at {at}");
        at = chunk.next;
    }
    all
}

async fn compact_all(log: &Log<UringEnv>, dedupe_bytes: usize) -> (Compacted, Duration) {
    let (mut cleaner, mut sum) = (Cleaner::new(dedupe_bytes), Compacted::default());
    let begun = Instant::now();
    while let Some(done) = log.compact(&mut cleaner, log.end()).await.expect("it is compacted") {
        sum.read_bytes += done.read_bytes;
        sum.written_bytes += done.written_bytes;
        sum.replaced += done.replaced;
        sum.cleaned = done.cleaned;
    }
    (sum, begun.elapsed())
}

async fn keeps_the_newest(env: UringEnv, dir: PathBuf, codec: Codec) {
    let log = open(&env, &dir, 60_000).await;
    let load = Load { codec, batches: 300, records: 7, value_bytes: 300, keys: 50 };
    let newest = load.append(&log).await;
    let before = log.size();
    // A small map: it takes several rounds.
    let (done, _) = compact_all(&log, 20 * 24).await;
    assert!(log.size() < before / 2, "{} of {before} bytes are left: {done:?}", log.size());
    let expected: Vec<Option<u64>> = newest;
    let check = |found: Vec<(u64, u64)>, cleaned: Offset| {
        for &(offset, key) in &found {
            let last = expected[key as usize].expect("it was appended");
            // What is replaced by a record that no round has seen yet stays.
            let seen = offset.max(last) < cleaned.value();
            assert!(offset == last || !seen, "{offset} of {key}, not {last}");
        }
        for (key, last) in expected.iter().enumerate() {
            let kept = last.is_none_or(|last| found.contains(&(last, key as u64)));
            assert!(kept, "{last:?} of {key} is gone");
        }
    };
    check(read(&log).await, done.cleaned);
    let end = log.end();
    log.close().await.expect("it closes");
    let log = open(&env, &dir, 60_000).await;
    assert_eq!((log.end(), log.cleaned()), (end, done.cleaned));
    check(read(&log).await, done.cleaned);
    log.close().await.expect("it closes");
}

/// Runs on a shard that has a directory.
fn on_a_shard(run: impl AsyncFnOnce(UringEnv, PathBuf)) {
    // Beside the test binary, because /tmp may be memory.
    let beside = std::env::current_exe().expect("it runs").parent().expect("a folder").to_owned();
    let dir = tempfile::tempdir_in(beside).expect("a folder");
    uring::run(|env| run(env, dir.path().join("topic/0"))).expect("it runs");
}

#[test]
fn the_newest_of_each_key_stays_on_a_device() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        on_a_shard(async move |env, dir| keeps_the_newest(env, dir, codec).await);
    }
}

#[test]
#[ignore = "a measurement"]
fn how_fast_it_is() {
    for (codec, value_bytes, keys) in [
        (Codec::None, 1_000, 20_000),
        (Codec::None, 1_000, 150_000),
        (Codec::None, 100, 100_000),
        (Codec::Lz4, 1_000, 20_000),
        (Codec::Zstd, 1_000, 20_000),
    ] {
        on_a_shard(async move |env, dir| {
            let log = open(&env, &dir, 64 << 20).await;
            let records = 16_000 / (value_bytes as u64 + 20);
            let batches = (256 << 20) / 16_000;
            Load { codec, batches, records, value_bytes, keys }.append(&log).await;
            let bytes = log.size();
            let (done, took) = compact_all(&log, 8 << 20).await;
            println!(
                "{codec:?}, values of {value_bytes} bytes, {keys} keys: {} MB of log \
                 at {:.0} MB/s; \
                 rewrote {} MB to {} MB",
                bytes >> 20,
                bytes as f64 / took.as_secs_f64() / 1e6,
                done.read_bytes >> 20,
                done.written_bytes >> 20,
            );
            log.close().await.expect("it closes");
        });
    }
}
