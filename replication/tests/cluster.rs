//! Three brokers with real logs on simulated disks, joined by the cores as net joins them: streams
//! over connections that break, a controller, producers, processes that are killed and machines
//! that lose power. What was acknowledged stays, and all logs come together.
//!
//! `CLUSTER_SEEDS` says how many seeds are tried, `CLUSTER_FIRST_SEED` with which they begin.

#![allow(missing_docs, dead_code)]

#[path = "world/controller.rs"]
mod controller;
mod cluster {
    pub mod broker;
    pub mod link;
}

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::batch::{BatchBuilder, NewRecord, batches, check_trusted};
use engine::env::sim::{End, Random, Sim};
use engine::ids::{BrokerId, Offset, PartitionIndex, TopicId, TopicPartition};
use replication::{Acks, Partition};

use cluster::broker::{Broker, Life};
use controller::Controller;

pub const PART: TopicPartition =
    TopicPartition { topic: TopicId::from_bytes([3; 16]), partition: PartitionIndex(0) };

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn each_seed(run: impl Fn(u64)) {
    let first = number("CLUSTER_FIRST_SEED", 0);
    (first..first + number("CLUSTER_SEEDS", 40)).for_each(run);
}

/// What all tasks of a run share.
pub struct Shared {
    pub sim: Sim,
    pub random: Random,
    pub controller: RefCell<Controller>,
    pub lives: RefCell<BTreeMap<BrokerId, Rc<Life>>>,
    /// Offset to number, of what was acknowledged.
    acked: RefCell<BTreeMap<u64, u64>>,
    refused: RefCell<u64>,
    /// Distinct keys, of which only the newest records stay; 0: nothing is compacted.
    pub keys: u64,
    /// Bytes that compaction removed.
    pub shrunk: Cell<u64>,
}

impl Shared {
    pub async fn pause(&self, micros: u64) {
        self.sim.sleep(Duration::from_micros(micros)).await;
    }

    fn leader(&self) -> Option<Partition<engine::env::sim::SimEnv>> {
        let lives = self.lives.borrow();
        let partitions = lives.values().filter_map(|life| life.partition());
        partitions.filter(|partition| partition.is_leader()).max_by_key(|p| p.epoch())
    }
}

/// Appends numbered batches to whoever leads, and notes what is acknowledged.
async fn produce(shared: Rc<Shared>, batches: u64) {
    for number in 0..batches {
        shared.pause(shared.random.between(100, 3_000)).await;
        let Some(partition) = shared.leader() else { continue };
        let mut value = vec![7; shared.random.below(2_000) as usize + 8];
        value[..8].copy_from_slice(&number.to_be_bytes());
        let mut builder = BatchBuilder::new(u32::MAX);
        for _ in 0..shared.random.between(1, 3) {
            let key = number.checked_rem(shared.keys).map(u64::to_be_bytes);
            let key = key.as_ref().map(|key| &key[..]);
            let record = NewRecord { key, value: Some(&value), ..NewRecord::default() };
            builder.push(&record).expect("no maximum");
        }
        let bytes = builder.build().expect("uncompressed");
        let checked = check_trusted(&bytes).expect("well made");
        match partition.append(&checked, Acks::All) {
            Ok(ticket) => {
                let shared = shared.clone();
                let base = ticket.appended.base.value();
                shared.clone().sim.spawn(async move {
                    if ticket.done().await.is_ok() {
                        shared.acked.borrow_mut().insert(base, number);
                    }
                });
            }
            Err(_) => *shared.refused.borrow_mut() += 1,
        }
    }
}

/// Everything in a log, as numbers by base offset.
async fn numbers(partition: &Partition<engine::env::sim::SimEnv>) -> BTreeMap<u64, (i32, u64)> {
    let (mut at, end) = (partition.log().start(), partition.log().end());
    let mut found = BTreeMap::new();
    while at < end {
        let limit = engine::log::Limit { bytes_max: 50_000, bound: end, at_least_one: true };
        let chunk = partition.log().read(at, limit).await.expect("readable");
        for batch in chunk.slices.iter().flat_map(|slice| batches(slice)) {
            let batch = batch.expect("whole");
            let mut scratch = Vec::new();
            let first = batch.records(&mut scratch, 1 << 20).unwrap().next().unwrap().unwrap();
            let number = first.value.unwrap()[..8].try_into().unwrap();
            let number = u64::from_be_bytes(number);
            found.insert(batch.base_offset().value(), (batch.leader_epoch().0, number));
        }
        assert!(chunk.next > at);
        at = chunk.next;
    }
    found
}

fn in_cluster(seed: u64, run: impl AsyncFnOnce(Rc<Shared>, Vec<Broker>)) {
    in_cluster_of(seed, 0, run);
}

fn in_cluster_of(seed: u64, keys: u64, run: impl AsyncFnOnce(Rc<Shared>, Vec<Broker>)) {
    let sim = Sim::new(seed);
    let random = sim.workload(0);
    let mut controller = Controller::new(seed);
    let ids: Vec<_> = (1..=3).map(BrokerId).collect();
    for &id in &ids {
        controller.register(id, false);
        controller.unfence(id);
    }
    controller.create(PART, ids.clone(), 2);
    let shared = Rc::new(Shared {
        sim,
        random,
        controller: controller.into(),
        lives: RefCell::default(),
        acked: RefCell::default(),
        refused: RefCell::default(),
        keys,
        shrunk: Cell::default(),
    });
    let brokers: Vec<_> = ids.into_iter().map(|id| Broker::new(id, &shared)).collect();
    shared.sim.run_until(run(shared.clone(), brokers));
}

/// All replicas are in sync, and everything is committed.
async fn until_well(shared: &Rc<Shared>, seed: u64) {
    for _ in 0..400 {
        shared.pause(20_000).await;
        let current = shared.controller.borrow().parts[&PART].current.clone();
        let lives = shared.lives.borrow();
        let all: Vec<_> = lives.values().filter_map(|life| life.partition()).collect();
        let ends = all.iter().map(|p| (p.log().end(), p.high_watermark()));
        let ends: Vec<_> = ends.collect();
        if current.isr.len() == 3
            && all.len() == 3
            && ends.iter().all(|&(end, watermark)| end == watermark && end == ends[0].0)
        {
            return;
        }
    }
    let lives = shared.lives.borrow();
    let all: Vec<_> = lives.values().filter_map(|life| life.partition()).collect();
    let state: Vec<_> = all
        .iter()
        .map(|p| (p.is_leader(), p.epoch(), p.log().end(), p.high_watermark(), p.isr()))
        .collect();
    panic!("seed {seed}: not well: {:?} {state:?}", shared.controller.borrow().parts[&PART]);
}

async fn compare(shared: &Rc<Shared>, seed: u64) {
    let all: Vec<_> = shared.lives.borrow().values().filter_map(|life| life.partition()).collect();
    let first = numbers(&all[0]).await;
    for partition in &all[1..] {
        assert_eq!(numbers(partition).await, first, "seed {seed}: logs differ");
    }
    for (base, number) in &*shared.acked.borrow() {
        let found = first.get(base).map(|found| found.1);
        assert_eq!(found, Some(*number), "seed {seed}: acknowledged at {base} and gone");
    }
}

/// Where the newest record of each key stands, and its number.
async fn newest(partition: &Partition<engine::env::sim::SimEnv>) -> BTreeMap<Vec<u8>, (u64, u64)> {
    let (mut at, end) = (partition.log().start(), partition.log().end());
    let mut found = BTreeMap::new();
    while at < end {
        let limit = engine::log::Limit { bytes_max: 50_000, bound: end, at_least_one: true };
        let chunk = partition.log().read(at, limit).await.expect("readable");
        for batch in chunk.slices.iter().flat_map(|slice| batches(slice)) {
            let (batch, mut scratch) = (batch.expect("whole"), Vec::new());
            for record in batch.records(&mut scratch, 1 << 20).unwrap() {
                let record = record.unwrap();
                let number = record.value.unwrap()[..8].try_into().unwrap();
                let newest = (record.offset.value(), u64::from_be_bytes(number));
                found.insert(record.key.unwrap().to_vec(), newest);
            }
        }
        assert!(chunk.next > at);
        at = chunk.next;
    }
    found
}

#[test]
fn compacted_logs_agree_on_what_is_newest() {
    let shrunk = Cell::new(0);
    each_seed(|seed| {
        in_cluster_of(seed, 12, async |shared, mut brokers| {
            for broker in &brokers {
                broker.start().await;
            }
            let produced = shared.clone();
            shared.sim.spawn(async move { produce(produced, 250).await });
            for _ in 0..shared.random.between(3, 8) {
                shared.pause(shared.random.between(1_000, 60_000)).await;
                // One at a time, so that the others go on and compact without it.
                let broker = &mut brokers[shared.random.below(3) as usize];
                let end = if shared.random.chance(1, 2) { End::Kill } else { End::PowerCut };
                broker.end(end);
                shared.pause(shared.random.between(50_000, 150_000)).await;
                broker.start().await;
            }
            until_well(&shared, seed).await;
            shared.pause(1_000_000).await;
            until_well(&shared, seed).await;
            let all: Vec<_> = {
                let lives = shared.lives.borrow();
                lives.values().filter_map(|life| life.partition()).collect()
            };
            let first = newest(&all[0]).await;
            for partition in &all[1..] {
                assert_eq!(newest(partition).await, first, "seed {seed}: logs differ");
            }
            for (&base, &number) in &*shared.acked.borrow() {
                let key = (number % shared.keys).to_be_bytes();
                let found = first.get(&key[..]);
                let there = found.is_some_and(|&(at, of)| at >= base && of >= number);
                assert!(there, "seed {seed}: {number} was acknowledged at {base}, now {found:?}");
            }
            shrunk.set(shrunk.get() + shared.shrunk.get());
        });
    });
    println!("SEEN {} bytes removed", shrunk.get());
    assert!(shrunk.get() > 0);
}

#[test]
fn three_brokers_agree_while_nothing_happens_to_them() {
    in_cluster(1, async |shared, brokers| {
        for broker in &brokers {
            broker.start().await;
        }
        until_well(&shared, 1).await;
        produce(shared.clone(), 200).await;
        until_well(&shared, 1).await;
        compare(&shared, 1).await;
        assert_eq!(shared.acked.borrow().len(), 200, "all of them are acknowledged");
        assert_eq!(*shared.refused.borrow(), 0);
    });
}

#[test]
fn what_was_acknowledged_stays_whatever_ends_and_breaks() {
    let acked = std::cell::Cell::new(0);
    each_seed(|seed| {
        in_cluster(seed, async |shared, mut brokers| {
            for broker in &brokers {
                broker.start().await;
            }
            let produced = shared.clone();
            shared.sim.spawn(async move { produce(produced, 250).await });
            for _ in 0..shared.random.between(3, 12) {
                shared.pause(shared.random.between(1_000, 60_000)).await;
                let broker = &mut brokers[shared.random.below(3) as usize];
                match shared.random.below(7) {
                    0 => broker.end(End::PowerCut),
                    1 => broker.end(End::Kill),
                    2 => {
                        let current = shared.controller.borrow().parts[&PART].current.leader;
                        shared.controller.borrow_mut().elect(PART, current);
                    }
                    3 => broker.break_links(),
                    4 => {
                        // A session that ended though the broker lives: a zombie for a while.
                        shared.controller.borrow_mut().fence(broker.id());
                        shared.pause(shared.random.between(0, 20_000)).await;
                        if broker.is_up() {
                            shared.controller.borrow_mut().unfence(broker.id());
                        }
                    }
                    5 => {
                        // B4: the power of all of them at once.
                        brokers.iter_mut().for_each(|broker| broker.end(End::PowerCut));
                        shared.pause(shared.random.between(1, 50_000)).await;
                        shared.random.shuffle(&mut brokers);
                        for broker in &brokers {
                            broker.start().await;
                        }
                    }
                    _ => {
                        if !broker.is_up() {
                            broker.start().await;
                        }
                    }
                }
            }
            for broker in &mut brokers {
                if !broker.is_up() {
                    broker.start().await;
                }
            }
            until_well(&shared, seed).await;
            shared.pause(1_000_000).await;
            until_well(&shared, seed).await;
            compare(&shared, seed).await;
            acked.set(acked.get() + shared.acked.borrow().len());
        });
    });
    println!("SEEN {} acknowledged", acked.get());
    assert!(acked.get() > 0);
}

/// A read for consumers shows nothing above the high watermark, also on followers (B45).
#[test]
fn nobody_reads_above_the_high_watermark() {
    in_cluster(5, async |shared, brokers| {
        for broker in &brokers {
            broker.start().await;
        }
        let produced = shared.clone();
        shared.sim.spawn(async move { produce(produced, 150).await });
        for _ in 0..2_000 {
            shared.pause(shared.random.below(300)).await;
            let lives: Vec<_> = shared.lives.borrow().values().cloned().collect();
            for partition in lives.iter().filter_map(|life| life.partition()) {
                let high_watermark = partition.high_watermark();
                let from = Offset::new(shared.random.below(high_watermark.value() + 1));
                let chunk = partition.read(from, 100_000, true).await.unwrap();
                for batch in chunk.slices.iter().flat_map(|slice| batches(slice)) {
                    assert!(batch.unwrap().next_offset() <= partition.high_watermark());
                }
            }
        }
        until_well(&shared, 5).await;
    });
}
