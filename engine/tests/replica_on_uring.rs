//! A follower's log on the real device: the model and the crash test know it on the simulator only.

#[allow(dead_code)] // other tests use the rest
#[path = "model/batches.rs"]
mod batches;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use batches::{Sent, Shape, Stored, split};
use engine::batch::check_trusted;
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::sim::Sim;
use engine::env::uring::{self, UringEnv};
use engine::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Bounds, Disk, Limit, Log, Shared};

async fn open(env: &UringEnv, dir: &Path) -> Log<UringEnv> {
    let topic = TopicId::from_bytes([7; 16]);
    let identity = TopicPartition { topic, partition: PartitionIndex(0) };
    let config = LogConfig { segment_bytes: 40_000, ..LogConfig::default() };
    let shared = Shared {
        budget: BlockBudget::new(0, 1 << 20),
        disk: Disk::default(),
        bounds: Bounds { checkpoint_bytes: 50_000, ..Bounds::default() },
    };
    Log::open(env, dir, identity, Rc::new(config), &shared).await.expect("it opens").0
}

/// Batches of one leader, from `base` on.
fn of_leader(epoch: i32, base: u64, count: u64) -> Vec<Stored> {
    let random = Sim::new(base + epoch as u64).workload(0);
    let mut stored: Vec<Stored> = Vec::new();
    for _ in 0..count {
        let bytes = random.between(10, 9_000) as usize;
        let base = stored.last().map_or(base, |last| last.end);
        // Each batch of another producer: what goes is forgotten.
        let producer = Some((base as i64 * 10 + i64::from(epoch), 0));
        let shape = Shape { records: 3, bytes, zeros: false, producer, time: 1_000, keys: 0 };
        stored.push(Sent::new(shape, &random).stored(Offset::new(base), LeaderEpoch(epoch)));
    }
    stored
}

async fn replicate(log: &Log<UringEnv>, stored: &[Stored]) {
    for some in stored.chunks(5) {
        let batches: Vec<_> =
            some.iter().map(|stored| check_trusted(&stored.bytes).expect("whole")).collect();
        log.append_replicated(&batches).expect("they follow");
    }
}

async fn holds(log: &Log<UringEnv>, all: &[Stored]) {
    let (mut at, mut expected) = (log.start(), all.iter());
    while at < log.end() {
        let limit = Limit { bytes_max: 30_000, bound: log.end(), at_least_one: true };
        let chunk = log.read(at, limit).await.expect("readable");
        let bytes: Vec<u8> = chunk.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        for (base, _, bytes) in split(&bytes) {
            let stored = expected.next().expect("no more than was appended");
            assert!(stored.base == base && stored.bytes == bytes, "batch at {base}");
            let epoch = log.with_epochs(|epochs| epochs.epoch_at(Offset::new(base)));
            assert_eq!(epoch, Some(stored.epoch), "batch at {base}");
        }
        at = chunk.next;
    }
    assert!(expected.next().is_none(), "all that was appended");
    let times = all.iter().flat_map(|stored| stored.sent.times.iter().copied());
    let latest = log.max_time(log.end()).await.expect("readable");
    assert_eq!(latest.map(|found| found.timestamp.0), times.max());
    let known = log.with_producers(|producers| producers.len());
    assert_eq!(known, all.iter().filter_map(|b| b.sent.producer).collect::<BTreeSet<_>>().len());
}

async fn live(env: UringEnv, dir: PathBuf) {
    let mut log = open(&env, &dir).await;
    let mut stored = of_leader(1, 0, 60);
    replicate(&log, &stored).await;
    // Back into older segments, into the active one, and to a boundary between two leaders.
    for (epoch, keep) in [(2, 50), (3, 20), (5, 19), (6, 0), (7, 40)] {
        let keep = keep.min(stored.len());
        let to = stored.get(keep).map_or(log.end().value(), |first| first.base + 1);
        let end = log.truncate_to(Offset::new(to)).await.expect("the device works");
        stored.truncate(keep);
        assert_eq!(end.value(), stored.last().map_or(0, |last| last.end));
        holds(&log, &stored).await;
        let more = of_leader(epoch, end.value(), 40);
        replicate(&log, &more).await;
        stored.extend(more);
        log.flush().await.expect("the device works");
        holds(&log, &stored).await;
        if epoch % 2 == 0 {
            log.close().await.expect("the device works");
            log = open(&env, &dir).await;
            holds(&log, &stored).await;
        }
    }
    for (epoch, at) in [(8, 5_000), (9, 70)] {
        log.restart_at(Offset::new(at)).await.expect("the device works");
        let stored = of_leader(epoch, at, 20);
        replicate(&log, &stored).await;
        log.close().await.expect("the device works");
        log = open(&env, &dir).await;
        assert_eq!(log.start().value(), at);
        holds(&log, &stored).await;
    }
}

#[test]
fn a_follower_takes_and_takes_back() {
    // Beside the test binary, because /tmp may be memory.
    let beside = std::env::current_exe().expect("it runs").parent().expect("a folder").to_owned();
    for place in [beside.as_path(), Path::new("/dev/shm")] {
        if place.is_dir() {
            let dir = tempfile::tempdir_in(place).expect("a folder");
            uring::run(|env| live(env, dir.path().join("topic/0"))).expect("it runs");
        }
    }
}
