//! A log against a plain list of batches: whatever is appended, replicated, read, looked up,
//! deleted, truncated, rolled, flushed and reopened, both agree. Crashes are the matter of
//! `crash.rs`; here nothing fails.
//!
//! `MODEL_SEEDS` says how many seeds are tried, `MODEL_FIRST_SEED` with which they begin.

#[path = "model/batches.rs"]
mod batches;
#[path = "model/compacted.rs"]
mod compacted;
#[path = "model/compaction.rs"]
mod compaction;
#[path = "model/compare.rs"]
mod compare;
#[path = "model/replica.rs"]
mod replica;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use batches::{Sent, Shape, Stored};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::Env;
use engine::env::sim::{Random, Sim, SimEnv};
use engine::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{AppendError, Bounds, Disk, Durability, Log, Shared};
use engine::producers::ProducerError;
use futures_lite::future::poll_once;

const DIR: &str = "/data/topic/0";

fn identity() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionIndex(0) }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

struct World {
    env: SimEnv,
    random: Random,
    shared: Shared,
    config: LogConfig,
    log: Log<SimEnv>,
    /// Everything that was ever appended and not truncated, deleted or not.
    batches: Vec<Stored>,
    /// What compaction left of them.
    visible: Vec<Stored>,
    /// Distinct keys of its records; 0: they have none, and it is not compacted.
    keys: u64,
    /// Nothing at or above this offset was compacted.
    compacted: u64,
    /// Leaders leave out offsets, and the log expects that.
    holes: bool,
    /// Bytes that compaction removed.
    shrunk: u64,
    /// Where it ends without any.
    origin: u64,
    start: u64,
    epoch: LeaderEpoch,
    /// By producer: positions of its batches in `batches`.
    producers: BTreeMap<i64, Vec<usize>>,
    /// By producer: from which position on retries are recognised. What was truncated had pushed
    /// earlier batches out of the window, and no client has more in flight than the window holds.
    recognised: BTreeMap<i64, usize>,
    segment_bytes_max: u64,
}

fn random_config(random: &Random) -> LogConfig {
    LogConfig {
        segment_bytes: random.between(3_000, 60_000),
        segment_ms: 5_000,
        retention_ms: None,
        retention_bytes: None,
        flush_messages: [1, 1, 3, 1_000][random.below(4) as usize],
        flush_ms: random.chance(1, 2).then(|| random.between(1, 50)),
        index_interval_bytes: random.between(50, 4_096) as u32,
        ..LogConfig::default()
    }
}

impl World {
    async fn new(env: SimEnv, random: Random) -> World {
        World::with_keys(env, random, 0).await
    }

    async fn with_keys(env: SimEnv, random: Random, keys: u64) -> World {
        let bounds = Bounds {
            block_bytes_max: random.between(1, 5) as usize * 8_192,
            unsynced_bytes_max: random.between(1, 20_000),
            zeroed_bytes_max: 8_192,
            checkpoint_bytes: random.between(1_000, 50_000),
            mutant: None,
        };
        let held = random.below(60_000) as usize;
        // What is in memory stands there as it was before compaction.
        let held = if keys == 0 { held } else { 0 };
        let shared =
            Shared { budget: BlockBudget::new(held, 20_000), disk: Disk::default(), bounds };
        let mut config = random_config(&random);
        World::make_compacting(&mut config, keys, &random);
        let (log, recovered) =
            Log::open(&env, Path::new(DIR), identity(), Rc::new(config), &shared).await.unwrap();
        assert!(recovered.created && recovered.cut.is_none());
        World {
            env,
            random,
            shared,
            config,
            log,
            batches: Vec::new(),
            visible: Vec::new(),
            keys,
            compacted: 0,
            holes: false,
            shrunk: 0,
            origin: 0,
            start: 0,
            epoch: LeaderEpoch(0),
            producers: BTreeMap::new(),
            recognised: BTreeMap::new(),
            segment_bytes_max: config.segment_bytes,
        }
    }

    fn end(&self) -> u64 {
        self.batches.last().map_or(self.origin, |last| last.end)
    }

    async fn step(&mut self) {
        if self.keys > 0 && self.random.chance(1, 6) {
            self.compact().await;
        }
        match self.random.below(24) {
            0..7 => self.append(),
            20..22 => self.append_replicated().await,
            22 => self.truncate().await,
            23 if self.random.chance(1, 4) => self.restart().await,
            7 => self.append_again(),
            8 => self.append_out_of_order(),
            9..12 => self.read().await,
            12 => self.look_up().await,
            13 => self.env.sleep_until(self.env.now().after(self.pause())).await,
            14 => {
                let end = self.end();
                self.log.written().reach(end).await.unwrap();
                assert!(self.log.synced().value() <= self.log.written().value());
            }
            15 => {
                self.log.flush().await.unwrap();
                assert_eq!(self.log.synced().value(), self.end());
            }
            16 => self.delete().await,
            17 => self.tend().await,
            18 => self.configure(),
            _ if self.random.chance(1, 3) => self.reopen().await,
            _ => self.shared.budget.room().await,
        }
        self.compare_ends();
    }

    fn pause(&self) -> Duration {
        Duration::from_millis([0, 1, 30, 3_000][self.random.below(4) as usize])
    }

    fn shape(&self) -> Shape {
        let records = self.random.between(1, 12) as u32;
        let bytes = match self.random.below(12) {
            0 => self.random.between(8_000, 50_000),
            1 => self.random.between(50_000, 100_000),
            2..6 => self.random.between(200, 3_000),
            _ => self.random.below(100),
        };
        Shape {
            records,
            bytes: bytes as usize,
            zeros: self.random.chance(1, 8),
            producer: None,
            time: self.env.wall().0 - self.random.below(3_000) as i64,
            keys: self.keys,
        }
    }

    fn next_sequence(&self, producer: i64) -> i32 {
        let last = self.producers.get(&producer).and_then(|of| of.last());
        last.map_or(0, |&at| {
            let sent = &self.batches[at].sent;
            sent.producer.expect("it has one").1 + sent.records as i32
        })
    }

    fn append(&mut self) {
        for _ in 0..self.random.between(1, 4) {
            let producer = self.random.chance(2, 3).then(|| self.random.below(3) as i64);
            let producer = producer.map(|id| (id, self.next_sequence(id)));
            let sent = Sent::new(Shape { producer, ..self.shape() }, &self.random);
            if self.random.chance(1, 30) {
                self.epoch.0 += 1;
            }
            let early = self.random.chance(1, 3);
            let appended = self.log.append(&sent.checked(), self.epoch, early).unwrap();
            let stored = sent.stored(Offset::new(self.end()), self.epoch);
            assert_eq!(appended.base.value(), stored.base);
            assert_eq!(appended.end.value(), stored.end);
            assert!(!appended.duplicate);
            self.note(stored);
        }
    }

    /// It was appended.
    fn note(&mut self, stored: Stored) {
        if let Some((id, _)) = stored.sent.producer {
            self.producers.entry(id).or_default().push(self.batches.len());
        }
        self.visible.push(stored.clone());
        self.batches.push(stored);
    }

    /// A retry of one of a producer's last five batches is the same batch, wherever that is now.
    fn append_again(&mut self) {
        for (id, of) in &self.producers {
            let known = self.recognised.get(id).copied().unwrap_or_default();
            for &at in of.iter().rev().take(5).filter(|&&at| at >= known) {
                let old = &self.batches[at];
                let again = self.log.append(&old.sent.checked(), self.epoch, false).unwrap();
                assert!(again.duplicate, "batch {}..{} was doubled", old.base, old.end);
                assert_eq!((again.base.value(), again.end.value()), (old.base, old.end));
            }
        }
    }

    fn append_out_of_order(&mut self) {
        let known: Vec<i64> = self.producers.keys().copied().collect();
        for id in known {
            let producer = Some((id, self.next_sequence(id) + 1));
            let sent = Sent::new(Shape { producer, ..self.shape() }, &self.random);
            let refused = self.log.append(&sent.checked(), self.epoch, false);
            let refused = refused.expect_err("records are missing before it");
            let expected =
                matches!(refused, AppendError::Producer(ProducerError::OutOfOrder { .. }));
            assert!(expected, "{refused}");
        }
    }

    async fn delete(&mut self) {
        let durable = self.log.durable().value();
        let to = self.random.between(self.start, durable.max(self.start));
        let start = self.log.delete_before(Offset::new(to), Offset::new(durable)).await.unwrap();
        assert_eq!(start.value(), to);
        self.start = to;
        let above = self.log.delete_before(Offset::new(durable + 1), Offset::new(durable)).await;
        above.expect_err("above the high watermark");
    }

    async fn tend(&mut self) {
        let durable = self.log.durable().value();
        let bytes = self.random.below(50_000);
        let by_size = self.random.chance(1, 2);
        if by_size {
            self.config.retention_bytes = Some(bytes);
            self.log.configure(Rc::new(self.config));
        }
        self.log.tend(Offset::new(durable)).await.unwrap();
        let start = self.log.start().value();
        assert!(start <= durable);
        if start != self.start {
            assert!(by_size, "nothing else removes anything");
            let whole = start == self.end()
                || self.batches.iter().any(|b| b.base == start || self.keys > 0 && b.end == start);
            assert!(whole, "whole segments go");
            let kept = self.visible.iter().filter(|b| b.base >= start);
            assert!(kept.map(|b| b.bytes.len() as u64).sum::<u64>() >= bytes, "too much went");
        }
        self.start = start;
        self.config.retention_bytes = None;
        self.log.configure(Rc::new(self.config));
    }

    fn configure(&mut self) {
        self.config = random_config(&self.random);
        World::make_compacting(&mut self.config, self.keys, &self.random);
        self.segment_bytes_max = self.segment_bytes_max.max(self.config.segment_bytes);
        self.log.configure(Rc::new(self.config));
        let required = self.log.required();
        assert_eq!(required == Durability::Synced, self.config.flush_messages == 1);
    }

    async fn reopen(&mut self) {
        self.log.close().await.unwrap();
        let sent = Sent::new(self.shape(), &self.random);
        let refused = self.log.append(&sent.checked(), self.epoch, false);
        assert_eq!(refused, Err(AppendError::Closed));
        assert_eq!(self.shared.budget.unwritten_bytes(), 0);
        assert_eq!(self.shared.budget.held_bytes(), 0, "it is the only log");
        self.check_files();
        let (log, recovered) =
            Log::open(&self.env, Path::new(DIR), identity(), Rc::new(self.config), &self.shared)
                .await
                .unwrap();
        assert_eq!(recovered.scanned_bytes, 0, "a checkpoint made that unnecessary");
        assert_eq!(recovered.cut, None);
        self.log = log;
    }

    /// Segments are named by their first batch, hold batches and nothing else, and none is larger
    /// than it may be.
    fn check_files(&self) {
        let disk = self.env.node().disk();
        let logs: Vec<String> =
            disk.files().into_iter().filter(|path| path.ends_with(".log")).collect();
        for (at, path) in logs.iter().enumerate() {
            let bytes = disk.bytes(Path::new(path)).expect("just listed");
            let base: u64 =
                PathBuf::from(path).file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let held: Vec<_> = match logs.get(at + 1) {
                Some(_) => batches::split(&bytes),
                // Space is reserved behind the last one.
                None => continue,
            };
            // Its first batches may have been compacted away; its last one never is.
            assert!(held[0].0 == base || self.keys > 0 && held[0].0 > base, "{path}");
            let next = logs[at + 1].rsplit('/').next().unwrap().strip_suffix(".log").unwrap();
            assert_eq!(held.last().unwrap().1, next.parse::<u64>().unwrap(), "{path}");
            let size = bytes.len() as u64;
            assert!(size <= self.segment_bytes_max || held.len() == 1, "{path} has {size} bytes");
        }
    }
}

fn run(seed: u64, keys: u64) -> u64 {
    let sim = Sim::new(seed);
    let node = sim.node();
    let env = node.env();
    let random = sim.workload(0);
    node.run(async {
        let mut world = World::with_keys(env, random, keys).await;
        for _ in 0..60 {
            world.step().await;
        }
        world.reopen().await;
        world.read_everything().await;
        world.append_again();
        world.append();
        world.log.flush().await.unwrap();
        world.read_everything().await;
        world.shrunk
    })
    .expect("nobody ends the node")
}

#[test]
fn a_log_is_a_list_of_batches() {
    let first = number("MODEL_FIRST_SEED", 0);
    for seed in first..first + number("MODEL_SEEDS", 400) {
        run(seed, 0);
    }
}

#[test]
fn a_compacted_log_is_a_list_of_what_is_newest() {
    let first = number("MODEL_FIRST_SEED", 0);
    let seeds = number("MODEL_SEEDS", 400);
    let shrunk: u64 = (first..first + seeds).map(|seed| run(seed, 8)).sum();
    assert!(shrunk > seeds * 10_000, "{shrunk} bytes were removed");
}

#[test]
fn a_segment_is_rolled_when_it_is_old_and_goes_when_it_has_outlived_its_time() {
    let sim = Sim::new(1);
    let node = sim.node();
    let env = node.env();
    let random = sim.workload(0);
    node.run(async {
        let mut world = World::new(env.clone(), random).await;
        world.config = LogConfig {
            segment_bytes: 1 << 20,
            segment_ms: 1_000,
            retention_ms: Some(10_000),
            ..LogConfig::default()
        };
        world.log.configure(Rc::new(world.config));
        for _ in 0..3 {
            world.append();
            world.log.flush().await.unwrap();
            env.sleep_until(env.now().after(Duration::from_secs(4))).await;
        }
        let logs = || node.disk().files().iter().filter(|path| path.ends_with(".log")).count();
        assert_eq!(logs(), 3, "each is more than a second younger than the last");
        for (seconds, left) in [(0, 2), (4, 1), (4, 1)] {
            env.sleep_until(env.now().after(Duration::from_secs(seconds))).await;
            let end = world.log.end();
            world.log.tend(end).await.unwrap();
            assert_eq!(logs(), left, "after {seconds} s more");
        }
        env.sleep_until(env.now().after(Duration::from_secs(1))).await;
        world.log.tend(world.log.end()).await.unwrap();
        assert_eq!(world.log.start(), world.log.end(), "the active one, too");
        assert_eq!(logs(), 1, "an empty one is left");
        world.start = world.end();
        world.append();
        world.reopen().await;
        world.read_everything().await;
    })
    .expect("nobody ends the node");
}

#[test]
fn a_retired_log_stops_and_lets_go_of_its_files() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        let random = sim.workload(0);
        node.run(async {
            let mut world = World::new(env.clone(), random).await;
            for _ in 0..world.random.below(8) {
                world.append();
                env.sleep_until(env.now().after(world.pause())).await;
            }
            world.append();
            let (end, written) = (world.end(), world.log.written());
            world.log.retire();
            assert!(written.reach(end).await.is_err() || world.log.written().value() == end);
            world.log.close().await.unwrap();
            for path in node.disk().files() {
                env.remove(Path::new(&path)).await.unwrap();
            }
            env.sleep_until(env.now().after(Duration::from_secs(10))).await;
            assert!(world.shared.disk.failed().is_none(), "nobody missed the files");
            assert!(node.disk().files().is_empty(), "nobody made them again");
            assert_eq!(world.shared.budget.unwritten_bytes(), 0);
            assert_eq!(world.shared.budget.held_bytes(), 0);
        })
        .expect("nobody ends the node");
    }
}

#[test]
fn appends_wait_for_a_truncation_which_ends_even_if_nobody_waits() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        let random = sim.workload(0);
        node.run(async {
            let mut world = World::new(env.clone(), random).await;
            while world.batches.len() < 8 {
                world.append();
            }
            let written = world.log.written();
            let end = world.end();
            let mut waits = Box::pin(written.reach(end + 1));
            assert_eq!(poll_once(&mut waits).await, None);
            let to = world.batches[3].base;
            let mut truncation = Box::pin(world.log.truncate_to(Offset::new(to)));
            assert!(poll_once(&mut truncation).await.is_none(), "the device has to do something");
            let sent = Sent::new(world.shape(), &world.random);
            let refused = world.log.append(&sent.checked(), world.epoch, false);
            assert_eq!(refused, Err(AppendError::Truncating));
            let refused = world.log.append_replicated(&[]);
            assert_eq!(refused, Err(AppendError::Truncating.into()));
            drop(truncation);
            // The second waits for the first.
            assert_eq!(world.log.truncate_to(Offset::MAX).await.unwrap(), Offset::new(to));
            waits.await.expect_err("what was waited for is gone");
            world.batches.truncate(3);
            world.visible.truncate(3);
            world.producers.clear();
            world.compare_ends();
            world.append_replicated().await;
            assert_eq!(written.value(), end, "the old watch says nothing new");
            world.log.written().reach(world.end()).await.unwrap();
            world.read_everything().await;
            world.reopen().await;
            world.read_everything().await;
        })
        .expect("nobody ends the node");
    }
}
