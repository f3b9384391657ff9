//! A partition with one replica on the simulated machine: what its tickets, its high watermark and
//! its readers are told, while the disk fills up, fails, or the configuration changes.
//!
//! `PARTITION_SEEDS` says how many seeds are tried, `PARTITION_FIRST_SEED` with which they begin.

#![allow(clippy::type_complexity)] // a tuple that one test keeps for itself

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use engine::batch::{BatchBuilder, NewRecord, batches, check_trusted};
use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::sim::{End, Fault, Node, OpKind, Random, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{AppendError, Bounds, Disk, Log, Shared};
use engine::time::Timestamp;
use replication::partition::{Lost, Refused};
use replication::role::{Assignment, Change, PartitionEpoch};
use replication::{Acks, Partition, Ticket};

const ME: BrokerId = BrokerId(1);
const DIR: &str = "/t/0";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn each_seed(run: impl Fn(u64)) {
    let first = number("PARTITION_FIRST_SEED", 0);
    (first..first + number("PARTITION_SEEDS", 300)).for_each(run);
}

/// What became of the batches, by the number that each has inside.
#[derive(Default)]
struct Fates {
    /// Where it was put, and how its ticket ended.
    by_number: BTreeMap<u64, (Acks, Offset, Option<Result<(), Lost>>)>,
}

#[derive(Clone)]
struct World {
    env: SimEnv,
    random: Rc<Random>,
    shared: Shared,
    config: LogConfig,
    partition: Partition<SimEnv>,
    fates: Rc<RefCell<Fates>>,
    next: Rc<Cell<u64>>,
}

async fn open(env: &SimEnv, config: LogConfig, shared: &Shared) -> Partition<SimEnv> {
    let topic = TopicId::from_bytes([1; 16]);
    let identity = TopicPartition { topic, partition: PartitionIndex(0) };
    let (log, _) = Log::open(env, Path::new(DIR), identity, Rc::new(config), shared).await.unwrap();
    Partition::lead(env, log, ME, LeaderEpoch(3), &[ME])
}

impl World {
    async fn new(env: SimEnv, random: Random) -> World {
        let config = LogConfig {
            segment_bytes: 20_000,
            flush_messages: [1, 1, 5, 1_000][random.below(4) as usize],
            flush_ms: random.chance(1, 2).then_some(20),
            ..LogConfig::default()
        };
        let shared = Shared {
            budget: BlockBudget::new(10_000, 1 << 20),
            disk: Disk::default(),
            bounds: Bounds { block_bytes_max: 8_192, ..Bounds::default() },
        };
        let partition = open(&env, config, &shared).await;
        World {
            env,
            random: Rc::new(random),
            shared,
            config,
            partition,
            fates: Rc::default(),
            next: Rc::default(),
        }
    }

    /// Appends a batch with a number of its own inside; a task of its own waits for its ticket.
    fn append(&self) -> Result<(), Refused> {
        let acks = [Acks::None, Acks::Leader, Acks::All, Acks::All];
        self.append_with(acks[self.random.below(4) as usize])
    }

    fn append_with(&self, acks: Acks) -> Result<(), Refused> {
        let number = self.next.replace(self.next.get() + 1);
        let mut value = vec![1; self.random.below(3_000) as usize + 8];
        value[..8].copy_from_slice(&number.to_be_bytes());
        let mut builder = BatchBuilder::new(u32::MAX);
        for _ in 0..self.random.between(1, 3) {
            let record = NewRecord { value: Some(&value), ..NewRecord::default() };
            builder.push(&record).expect("no maximum");
        }
        let bytes = builder.build().expect("uncompressed");
        let checked = check_trusted(&bytes).expect("well made");
        let ticket = self.partition.append(&checked, acks)?;
        let base = ticket.appended.base;
        self.fates.borrow_mut().by_number.insert(number, (acks, base, None));
        let world = self.clone();
        self.env.spawn(Queue::Request, async move { world.wait(number, acks, ticket).await });
        Ok(())
    }

    async fn wait(&self, number: u64, acks: Acks, ticket: Ticket) {
        let done = ticket.done().await;
        let (log, end) = (self.partition.log(), ticket.appended.end);
        if done.is_ok() {
            assert!(ticket.is_done(), "done means done");
            match acks {
                Acks::None => {}
                Acks::Leader => assert!(log.written().value() >= end.value(), "{number}"),
                Acks::All => assert!(self.partition.high_watermark() >= end, "{number}"),
            }
        }
        let mut fates = self.fates.borrow_mut();
        fates.by_number.get_mut(&number).expect("entered at its append").2 = Some(done);
    }

    async fn pause(&self, micros: u64) {
        self.env.sleep_until(self.env.now().after(Duration::from_micros(micros))).await;
    }

    /// Everything that consumers can read, as numbers by base offset.
    async fn read_committed(&self, partition: &Partition<SimEnv>) -> BTreeMap<u64, u64> {
        let watermark = partition.high_watermark();
        let (mut at, mut found) = (partition.log().start(), BTreeMap::new());
        while at < watermark {
            let chunk = partition.read(at, 10_000, true).await.unwrap();
            for batch in chunk.slices.iter().flat_map(|slice| batches(slice)) {
                let batch = batch.unwrap();
                assert!(batch.next_offset() <= partition.high_watermark(), "above the watermark");
                let mut scratch = Vec::new();
                let first = batch.records(&mut scratch, 1 << 20).unwrap().next().unwrap().unwrap();
                let number = first.value.unwrap()[..8].try_into().unwrap();
                found.insert(batch.base_offset().value(), u64::from_be_bytes(number));
            }
            assert!(chunk.next > at, "stuck at {at} of {watermark}");
            at = chunk.next;
        }
        found
    }

    /// A batch whose ticket was good is where it said, one whose ticket was not is nowhere.
    async fn compare(&self, partition: &Partition<SimEnv>) {
        let found = self.read_committed(partition).await;
        let numbers: Vec<u64> = found.values().copied().collect();
        for (number, (acks, base, fate)) in &self.fates.borrow().by_number {
            match (acks, fate) {
                (Acks::All, Some(Ok(()))) => {
                    assert_eq!(found.get(&base.value()), Some(number), "acknowledged and gone");
                }
                (Acks::Leader | Acks::All, Some(Err(Lost::GivenUp))) => {
                    assert!(!numbers.contains(number), "{number} was given up, and is there");
                }
                _ => {}
            }
        }
        let mut once = numbers.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), numbers.len(), "a batch is there twice");
    }

    fn unanswered(&self) -> usize {
        self.fates.borrow().by_number.values().filter(|fate| fate.2.is_none()).count()
    }
}

fn in_world<Fut: Future<Output = ()>>(seed: u64, run: impl FnOnce(World, Node) -> Fut) {
    let sim = Sim::new(seed);
    let node = sim.node();
    let env = node.env();
    let random = sim.workload(0);
    node.run(async {
        let world = World::new(env, random).await;
        run(world, node.clone()).await;
    })
    .expect("nobody ends the node");
}

#[test]
fn tickets_of_a_disk_that_fills_up_tell_the_truth() {
    each_seed(|seed| {
        in_world(seed, async |world, node| {
            let disk = node.disk();
            let mut watermark = Offset::ZERO;
            for _ in 0..6 {
                match world.random.below(3) {
                    0 => disk.set_capacity(Some(disk.used() + world.random.below(60_000))),
                    1 => disk.fail(Fault::enospc(OpKind::Write).skip(2).times(1)),
                    _ => disk.fail(Fault::enospc(OpKind::Allocate).times(3)),
                }
                for _ in 0..15 {
                    match world.append() {
                        Ok(()) | Err(Refused::Log(AppendError::NoSpace)) => {}
                        Err(other) => panic!("{other}"),
                    }
                    let micros = [0, 0, 300, 600_000][world.random.below(4) as usize];
                    world.pause(micros).await;
                    assert!(world.partition.high_watermark() >= watermark, "it never falls");
                    watermark = world.partition.high_watermark();
                    assert!(!world.partition.watch().is_closed());
                }
                disk.set_capacity(None);
                disk.heal();
                world.pause(2_000_000).await;
                world.partition.log().flush().await.unwrap();
            }
            world.pause(100_000).await;
            assert_eq!(world.unanswered(), 0);
            assert!(world.shared.disk.failed().is_none());
            assert_eq!(world.partition.high_watermark(), world.partition.log().end());
            world.compare(&world.partition).await;
        });
    });
}

#[test]
fn a_change_of_the_durability_class_leaves_nobody_waiting() {
    each_seed(|seed| {
        in_world(seed, async |mut world, _| {
            for _ in 0..40 {
                world.append().unwrap();
                if world.random.chance(1, 3) {
                    world.config.flush_messages = [1, 2, 1_000][world.random.below(3) as usize];
                    world.config.flush_ms = None;
                    world.partition.configure(Rc::new(world.config));
                    world.append().unwrap();
                }
                world.pause([0, 0, 200, 3_000][world.random.below(4) as usize]).await;
            }
            world.pause(100_000).await;
            assert_eq!(world.unanswered(), 0, "flush.messages {}", world.config.flush_messages);
            world.compare(&world.partition).await;
        });
    });
}

#[test]
fn after_a_device_error_nobody_is_told_that_all_is_well() {
    each_seed(|seed| {
        let sim = Sim::new(seed);
        let node = sim.node();
        let (env, random) = (node.env(), sim.workload(0));
        let world = node.run(async {
            let world = World::new(env, random).await;
            let kind = [OpKind::Write, OpKind::Sync][world.random.below(2) as usize];
            node.disk().fail(Fault::eio(kind).under(DIR).skip(world.random.below(12)).times(1));
            let watch = world.partition.watch();
            for _ in 0..60 {
                match world.append() {
                    Ok(()) => {}
                    Err(Refused::Log(AppendError::DiskFailed)) => break,
                    Err(other) => panic!("{other}"),
                }
                world.pause(world.random.below(2_000)).await;
            }
            world.pause(1_000_000).await;
            if world.shared.disk.failed().is_some() {
                let pending = world.partition.high_watermark() < world.partition.log().end();
                assert!(watch.is_closed() || !pending, "whoever waits for a batch is told");
                assert_eq!(world.unanswered(), 0);
            }
            world
        });
        let world = world.expect("nobody ends the node");
        // A failed sync has lost what it was to sync; the machine shows that when it starts anew.
        node.end(End::PowerCut);
        let env = node.env();
        let checked = node.run(async {
            let shared = Shared { disk: Disk::default(), ..world.shared.clone() };
            let partition = open(&env, world.config, &shared).await;
            let found = world.read_committed(&partition).await;
            if world.config.flush_messages > 1 {
                // Committed is what was written, which does not survive the power.
                return;
            }
            for (number, (acks, base, fate)) in &world.fates.borrow().by_number {
                if (*acks, fate) == (Acks::All, &Some(Ok(()))) {
                    assert_eq!(found.get(&base.value()), Some(number), "acknowledged and gone");
                }
            }
        });
        checked.expect("nobody ends the node");
    });
}

#[test]
fn its_end_answers_everybody() {
    each_seed(|seed| {
        in_world(seed, async |world, _| {
            for _ in 0..world.random.below(20) {
                world.append().unwrap();
                world.pause([0, 300][world.random.below(2) as usize]).await;
            }
            let watch = world.partition.watch();
            let retires = world.random.chance(1, 2);
            if retires {
                world.partition.retire();
            }
            world.partition.close().await.unwrap();
            assert!(world.append().is_err());
            world.pause(100_000).await;
            assert!(watch.is_closed());
            assert_eq!(world.unanswered(), 0);
            let partition = open(&world.env, world.config, &world.shared).await;
            if retires {
                let fates = world.fates.borrow();
                let good = fates.by_number.values().filter(|f| f.0 == Acks::All);
                let good = good.filter(|fate| fate.2 == Some(Ok(()))).map(|fate| fate.1);
                assert!(good.max().is_none_or(|last| last < partition.high_watermark()));
            } else {
                assert_eq!(partition.high_watermark(), world.partition.log().end());
                world.compare(&partition).await;
            }
        });
    });
}

#[test]
fn an_idle_partition_costs_no_task_and_answers_like_a_log() {
    in_world(7, async |world, node| {
        let before = world.env.executor().tasks();
        for _ in 0..20 {
            world.append().unwrap();
        }
        world.partition.log().flush().await.unwrap();
        world.pause(1_000_000).await;
        assert_eq!(world.env.executor().tasks(), before, "nothing runs for it");
        let end = world.partition.high_watermark();
        assert_eq!(end, world.partition.log().end());
        assert_eq!(world.partition.last_stable_offset(), end);
        let of_epoch = world.partition.end_of_epoch(LeaderEpoch(3)).unwrap();
        assert_eq!((of_epoch.epoch, of_epoch.end), (LeaderEpoch(3), end));
        assert_eq!(world.partition.find_time(Timestamp(i64::MAX)).await.unwrap(), None);
        let start = world.partition.delete_before(Some(Offset::new(4))).await.unwrap();
        assert_eq!(start, Offset::new(4));
        world.partition.delete_before(Some(end.plus(1))).await.expect_err("above the watermark");
        assert_eq!(world.partition.delete_before(None).await.unwrap(), end);
        world.partition.tend().await.unwrap();
        assert!(node.disk().files().iter().filter(|path| path.ends_with(".log")).count() == 1);
    });
}

#[test]
fn the_end_of_a_leadership_is_told_to_whoever_waits_for_it() {
    each_seed(|seed| {
        in_world(seed, async |world, _| {
            let replicas = vec![ME, BrokerId(2)];
            let term = |leader, epoch| Assignment {
                leader: Some(leader),
                leader_epoch: LeaderEpoch(epoch),
                partition_epoch: PartitionEpoch(epoch),
                replicas: replicas.clone(),
                isr: replicas.clone(),
            };
            let partition = &world.partition;
            assert_eq!(partition.assign(term(ME, 5)).await, Change::Leads);
            let start = partition.high_watermark();
            world.append_with(Acks::All).unwrap();
            let watch = partition.watch();
            world.pause(world.random.below(3_000)).await;
            assert_eq!(partition.high_watermark(), start, "the other one has promised nothing");
            assert_eq!(partition.assign(term(ME, 4)).await, Change::Ignored);
            let change = partition.assign(term(BrokerId(2), 6)).await;
            assert_eq!(change, Change::Follows { cut: None });
            assert!(watch.is_closed() && !partition.watch().is_closed());
            assert!(matches!(world.append_with(Acks::All), Err(Refused::NotLeader)));
            let news = partition.follow_news().expect("it follows");
            assert_eq!((news.leader, news.place), (BrokerId(2), true));
            assert!(!partition.follow_news().unwrap().place, "a position is named once");
            // Leading again does not bring the old ticket back.
            assert_eq!(partition.assign(term(ME, 7)).await, Change::Leads);
            let mut alone = term(ME, 7);
            (alone.isr, alone.partition_epoch) = (vec![ME], PartitionEpoch(8));
            assert_eq!(partition.assign(alone).await, Change::Version);
            world.pause(100_000).await;
            assert_eq!(partition.high_watermark(), partition.log().end());
            let fates = world.fates.borrow();
            let fate = fates.by_number.values().next_back().unwrap();
            assert_eq!(fate.2, Some(Err(Lost::NotLeader)), "nobody knows, for the producer");
        });
    });
}
