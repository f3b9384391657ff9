//! Thousands of random requests against the controller, under these invariants:
//! ReplayIsState · SnapshotIsState · NamesAreUnique · PartitionsAreWhole · LimitsHold ·
//! IdsAreNeverReused · EpochsNeverRegress · DeltasLeadToTheImage · CorruptRecordsAreRefused.

#[path = "controller/alone.rs"]
mod alone;

use std::collections::{BTreeMap, BTreeSet};

use alone::*;
use coordinator::cluster::{Cluster, Incarnation};
use coordinator::config::Config;
use coordinator::controller::{Change, ConfigChange, Edit, Heartbeat, NewTopic, Request};
use coordinator::image::Image;
use coordinator::image::delta::Delta;
use coordinator::records::{Record, snapshot};
use engine::ids::{BrokerId, LeaderEpoch, Offset, TopicId};

const NAMES: [&str; 10] = ["a", "b", "a.b", "a_b", "b.a", "c-1", "d", "", "bad name", "e"];

fn random_topic(random: &mut Random) -> NewTopic {
    let mut new =
        topic(random.pick(&NAMES), random.below(8) as i32 - 2, random.below(5) as i16 - 1);
    if random.below(4) == 0 {
        let value = (random.below(3) != 0).then(|| random.below(100).to_string());
        new.overrides.push(("retention.ms".into(), value));
    }
    new
}

fn random_change(random: &mut Random) -> ConfigChange {
    let name = random.pick(&["retention.ms", "cleanup.policy", "preallocate"]);
    let value = random.pick(&["1", "delete", "true", "false"]).to_string();
    let edit = match random.below(4) {
        0 => Edit::Set(Some(value.clone())),
        1 => Edit::Delete,
        2 => Edit::Append(Some(value.clone())),
        _ => Edit::Subtract(Some(value.clone())),
    };
    let change = match random.below(4) {
        0 => Change::Replace(vec![(name.to_string(), Some(value))]),
        _ => Change::Edit(vec![(name.to_string(), edit)]),
    };
    ConfigChange { name: random.pick(&NAMES).to_string(), change }
}

fn random_group_change(random: &mut Random) -> ConfigChange {
    let name = random.pick(&["consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"]);
    let value = Some(random.pick(&["4000", "9000", "50000"]).to_string());
    let change = match random.below(3) {
        0 => Change::Replace(vec![(name.to_string(), value)]),
        1 => Change::Edit(vec![(name.to_string(), Edit::Set(value))]),
        _ => Change::Edit(vec![(name.to_string(), Edit::Delete)]),
    };
    ConfigChange { name: random.pick(&NAMES).to_string(), change }
}

fn random_request(random: &mut Random, cluster: &Cluster) -> Request {
    let validate_only = random.below(8) == 0;
    let many = 1 + random.below(3);
    match random.below(15) {
        14 => {
            let groups = (0..many).map(|_| random_group_change(random)).collect();
            Request::AlterGroupConfigs { groups, validate_only }
        }
        12 | 13 => {
            let broker = BrokerId(random.below(5) as i32);
            let epoch = cluster.broker(broker).map(|b| b.epoch).unwrap_or_default();
            let reached = Offset::MAX;
            Request::Heartbeat(Heartbeat { broker, epoch, reached, want_shutdown: false })
        }
        0 => {
            let mut new = registration(random.below(5) as i32);
            new.incarnation = Incarnation::random([random.word(), random.word()]);
            new.rack = (random.below(2) == 0).then(|| random.below(2).to_string());
            Request::RegisterBroker(new)
        }
        1..=4 => {
            let topics = (0..many).map(|_| random_topic(random)).collect();
            Request::CreateTopics { topics, validate_only }
        }
        5 | 6 => {
            let topics = (0..many).map(|_| random_deletion(random, cluster)).collect();
            Request::DeleteTopics { topics }
        }
        7 => {
            let wider = |random: &mut Random| more(random.pick(&NAMES), random.below(9) as i32);
            let topics = (0..many).map(|_| wider(random)).collect();
            Request::CreatePartitions { topics, validate_only }
        }
        8 | 9 => {
            let topics = (0..many).map(|_| random_change(random)).collect();
            Request::AlterConfigs { topics, validate_only }
        }
        10 => {
            let broker = BrokerId(random.below(5) as i32);
            let epoch = cluster.broker(broker).map(|b| b.epoch).unwrap_or_default();
            Request::AllocateProducerIds { broker, epoch }
        }
        _ => Request::PurgedTopics {
            broker: BrokerId(random.below(5) as i32),
            topics: cluster.deleted_topics().map(|(id, _)| id).take(2).collect(),
        },
    }
}

fn random_deletion(random: &mut Random, cluster: &Cluster) -> coordinator::controller::TopicRef {
    match cluster.topic(random.pick(&NAMES)) {
        Some(topic) if random.below(2) == 0 => by_id(topic.id),
        _ => by_name(random.pick(&NAMES)),
    }
}

/// What was seen of each topic identity, over the whole run.
#[derive(Default)]
struct History {
    dead: BTreeSet<TopicId>,
    leader_epochs: BTreeMap<TopicId, Vec<LeaderEpoch>>,
    next_producer_id: i64,
}

impl History {
    fn check(&mut self, cluster: &Cluster, config: &Config) {
        let mut unified = BTreeSet::new();
        let mut partitions = 0;
        let mut alive = BTreeSet::new();
        for topic in cluster.topics() {
            assert!(unified.insert(topic.name.replace('.', "_")), "{} collides", topic.name);
            assert_eq!(cluster.topic_by_id(topic.id), Some(topic));
            assert!(!self.dead.contains(&topic.id), "{} lives again", topic.id);
            alive.insert(topic.id);
            partitions += topic.partitions.len();
            assert!(!topic.partitions.is_empty());
            let epochs = self.leader_epochs.entry(topic.id).or_default();
            for (at, partition) in topic.partitions.iter().enumerate() {
                let distinct: BTreeSet<_> = partition.replicas.iter().collect();
                assert_eq!(distinct.len(), topic.replication_factor());
                assert!(distinct.iter().all(|id| cluster.broker(**id).is_some()));
                assert!(partition.leader.is_none_or(|leader| partition.isr.contains(&leader)));
                match epochs.get_mut(at) {
                    Some(before) => {
                        assert!(partition.leader_epoch >= *before);
                        *before = partition.leader_epoch;
                    }
                    None => epochs.push(partition.leader_epoch),
                }
            }
        }
        let was_alive: Vec<_> = self.leader_epochs.keys().copied().collect();
        self.dead.extend(was_alive.into_iter().filter(|id| !alive.contains(id)));
        assert_eq!(cluster.partition_count(), partitions);
        assert_eq!(cluster.topic_count(), alive.len());
        assert!(partitions <= config.partitions_max && alive.len() <= config.topics_max);
        assert!(cluster.deleted_topic_count() <= config.deleted_topics_max);
        assert!(cluster.next_producer_id().0 >= self.next_producer_id);
        self.next_producer_id = cluster.next_producer_id().0;
    }
}

/// A shard that opens and closes partitions by deltas alone.
#[derive(Default)]
struct Shard {
    open: BTreeMap<(TopicId, i32), LeaderEpoch>,
    overrides: BTreeMap<TopicId, BTreeMap<String, String>>,
    to_purge: BTreeSet<TopicId>,
}

impl Shard {
    fn follow(&mut self, delta: &Delta) {
        for topic in &delta.deleted {
            self.open.retain(|(id, _), _| *id != topic.id);
            self.overrides.remove(&topic.id).unwrap();
        }
        for topic in &delta.created {
            for (index, partition) in topic.partitions() {
                assert_eq!(self.open.insert((topic.id, index.0), partition.leader_epoch), None);
            }
            self.overrides.insert(topic.id, topic.overrides.clone());
        }
        for change in &delta.changed {
            let id = change.after.id;
            for (index, partition) in change.partitions_added() {
                assert_eq!(self.open.insert((id, index.0), partition.leader_epoch), None);
            }
            for (index, partition) in change.partitions_changed() {
                *self.open.get_mut(&(id, index.0)).unwrap() = partition.leader_epoch;
            }
            if change.overrides_changed() {
                self.overrides.insert(id, change.after.overrides.clone());
            }
        }
        for (id, deleted) in &delta.purges {
            match deleted {
                Some(_) => self.to_purge.insert(*id),
                None => self.to_purge.remove(id),
            };
        }
    }

    fn check(&self, image: &Image) {
        let mut other = Shard::default();
        other.follow(&Delta::between(&Image::empty(), image));
        assert_eq!(self.open, other.open);
        assert_eq!(self.overrides, other.overrides);
        assert_eq!(self.to_purge, other.to_purge);
        let open: usize = image.topics().map(|topic| topic.partitions.len()).sum();
        assert_eq!(self.open.len(), open);
    }
}

fn run(seed: u64, requests: usize) {
    let config = Config {
        topics_max: 6,
        partitions_max: 24,
        request_partitions_max: 10,
        deleted_topics_max: 4,
        num_partitions: 2,
        ..Config::default()
    };
    let mut alone = Alone::new(config, seed);
    let mut random = Random(!seed);
    let mut history = History::default();
    let mut image = Image::empty();
    let mut seen = image.clone();
    let mut shard = Shard::default();
    for _ in 0..requests {
        let request = random_request(&mut random, &alone.cluster);
        let (_, records) = alone.ask_for_records(request);
        history.check(&alone.cluster, &alone.config);
        for record in &records {
            image.apply(image.offset(), record);
        }
        assert_eq!(*image.cluster(), alone.cluster);
        assert!(Delta::between(&image, &image.clone()).is_empty());
        // A busy shard looks only now and then.
        if random.below(3) == 0 {
            shard.follow(&Delta::between(&seen, &image));
            shard.check(&image);
            seen = image.clone();
        }
    }
    let replayed = alone.replayed();
    assert_eq!(replayed, alone.cluster);
    let bytes = snapshot::encode(&alone.cluster, image.offset());
    let (restored, offset) = snapshot::decode(&bytes).unwrap();
    assert_eq!((&restored, offset), (&alone.cluster, image.offset()));
    history.check(&restored, &alone.config);
    for name in NAMES {
        assert_eq!(restored.topic(name), alone.cluster.topic(name));
        assert_eq!(restored.colliding(name), alone.cluster.colliding(name));
    }
}

#[test]
fn random_requests_keep_every_invariant() {
    for seed in 0..400 {
        run(seed, 60);
    }
    run(1_000_001, 5_000);
}

#[test]
fn the_same_seed_writes_the_same_log() {
    let log = |seed| {
        let mut alone = Alone::new(Config::default(), seed);
        let mut random = Random(seed);
        for _ in 0..200 {
            let request = random_request(&mut random, &alone.cluster);
            alone.ask(request);
        }
        alone.log
    };
    assert_eq!(log(5), log(5));
    assert_ne!(log(5), log(6));
}

#[test]
fn a_snapshot_and_the_rest_of_the_log_are_the_whole_log() {
    let mut alone = Alone::new(Config::default(), 3);
    let mut random = Random(3);
    let mut snapshots = Vec::new();
    for step in 0..300 {
        let request = random_request(&mut random, &alone.cluster);
        alone.ask(request);
        if step % 30 == 0 {
            let end = Offset::new(alone.log.len() as u64);
            snapshots.push(snapshot::encode(&alone.cluster, end));
        }
    }
    for bytes in snapshots {
        let (mut cluster, offset) = snapshot::decode(&bytes).unwrap();
        for (at, value) in (offset.value()..).zip(&alone.log[offset.value() as usize..]) {
            cluster.apply(Offset::new(at), &Record::decode(value).unwrap());
        }
        assert_eq!(cluster, alone.cluster);
    }
}

#[test]
fn corrupt_records_and_snapshots_are_refused_never_believed_or_fatal() {
    let mut alone = Alone::new(Config::default(), 4);
    let mut random = Random(4);
    for _ in 0..100 {
        let request = random_request(&mut random, &alone.cluster);
        alone.ask(request);
    }
    for value in &alone.log {
        // The log's own checksum finds every cut and flip; here none may panic or run away.
        for cut in 0..value.len() {
            let _ = Record::decode(&value[..cut]);
        }
        for _ in 0..64 {
            let mut rotten = value.clone();
            let at = random.below(rotten.len() as u64) as usize;
            rotten[at] ^= 1 << random.below(8);
            let _ = Record::decode(&rotten);
        }
    }
    let bytes = snapshot::encode(&alone.cluster, Offset::new(9));
    for cut in 0..bytes.len() {
        assert!(snapshot::decode(&bytes[..cut]).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut rotten = bytes.clone();
        rotten[bit / 8] ^= 1 << (bit % 8);
        assert!(snapshot::decode(&rotten).is_err(), "bit {bit}");
    }
    let mut padded = bytes.clone();
    padded.resize(bytes.len().next_multiple_of(4096), 0);
    assert!(snapshot::decode(&padded).is_ok(), "padding does no harm");
}
