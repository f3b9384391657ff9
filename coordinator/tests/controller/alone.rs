//! A controller and its log in memory, and short ways to write requests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator::cluster::{Cluster, DirectoryId, Endpoint, Incarnation, Partition, Topic};
use coordinator::config::Config;
use coordinator::controller::{
    Change, ConfigChange, Controller, Edit, Heartbeat, Loss, MorePartitions, NewTopic, Pulse,
    Refusal, Registered, Registration, Reply, Request, Soft, TopicRef, Why,
};
use coordinator::machine::{Machine, Moment, Outcome, Seen, Token};
use coordinator::records::Record;
use engine::ids::{BrokerId, Offset, PartitionIndex, TopicId};
use engine::time::{Instant, Timestamp};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A controller whose log is a `Vec` of encoded records.
pub struct Alone {
    pub config: Config,
    pub cluster: Cluster,
    pub soft: Soft,
    pub now: Instant,
    pub log: Vec<Vec<u8>>,
    pub random: Random,
}

impl Alone {
    /// One without brokers.
    pub fn new(config: Config, seed: u64) -> Alone {
        Alone {
            config,
            cluster: Cluster::default(),
            soft: Soft::default(),
            now: Instant::ZERO,
            log: Vec::new(),
            random: Random(seed),
        }
    }

    /// One with brokers `1..=brokers`.
    pub fn with_brokers(brokers: i32) -> Alone {
        let mut alone = Alone::new(Config::default(), 7);
        for id in 1..=brokers {
            alone.join(registration(id));
        }
        alone
    }

    /// A broker registers and is unfenced.
    pub fn join(&mut self, registration: Registration) -> Registered {
        let id = registration.id;
        let registered = self.register(registration).unwrap();
        assert!(!self.beat(id.0).fenced);
        registered
    }

    pub fn register(&mut self, registration: Registration) -> Result<Registered, Refusal> {
        match self.ask(Request::RegisterBroker(registration)) {
            Reply::Registered(registered) => registered,
            other => panic!("{other:?}"),
        }
    }

    /// A heartbeat of a broker that is up to date, in its present session.
    pub fn beat(&mut self, id: i32) -> Pulse {
        self.heartbeat(id, self.log.len() as u64, false)
    }

    pub fn heartbeat(&mut self, id: i32, reached: u64, want_shutdown: bool) -> Pulse {
        let epoch = self.cluster.broker(BrokerId(id)).unwrap().epoch;
        let (broker, reached) = (BrokerId(id), Offset::new(reached));
        let heartbeat = Heartbeat { broker, epoch, reached, want_shutdown };
        match self.ask(Request::Heartbeat(heartbeat)) {
            Reply::Heartbeat(pulse) => pulse.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Time passes; every broker of `alive` keeps beating, and what is due happens.
    pub fn pass(&mut self, time: Duration, alive: &[i32]) {
        let end = self.now.after(time);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(100));
            while Controller::deadline(&self.soft).is_some_and(|due| due <= self.now) {
                self.expire();
            }
            for id in alive {
                self.beat(*id);
            }
        }
    }

    pub fn expire(&mut self) {
        let seen = Seen {
            hard: &self.cluster,
            config: &self.config,
            at: moment(&mut self.random, self.now),
        };
        let mut out = Outcome::<Controller>::default();
        Controller::expire(seen, &mut self.soft, &mut out);
        assert!(out.replies.is_empty());
        self.remember(&out.records);
    }

    fn remember(&mut self, records: &[Record]) {
        for record in records {
            let value = record.encode();
            assert_eq!(Record::decode(&value).as_ref(), Ok(record));
            Controller::apply(&mut self.cluster, Offset::new(self.log.len() as u64), record);
            self.log.push(value);
        }
    }

    pub fn partition(&self, topic: &str, index: i32) -> &Partition {
        self.cluster.topic(topic).unwrap().partition(PartitionIndex(index)).unwrap()
    }

    /// Decides, remembers and applies one request; returns the reply and what was remembered.
    pub fn ask_for_records(&mut self, request: Request) -> (Reply, Vec<Record>) {
        let mut out = Outcome::<Controller>::default();
        let at = moment(&mut self.random, self.now);
        let seen = Seen { hard: &self.cluster, config: &self.config, at };
        Controller::decide(seen, &mut self.soft, Token(9), request, &mut out);
        self.remember(&out.records);
        let mut replies = out.replies;
        assert_eq!(replies.len(), 1, "one request, one reply");
        let (to, reply) = replies.pop().unwrap();
        assert_eq!(to, Token(9));
        (reply, out.records)
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        self.ask_for_records(request).0
    }

    pub fn create(&mut self, topics: Vec<NewTopic>) -> Vec<(String, Result<Arc<Topic>, Refusal>)> {
        match self.ask(Request::CreateTopics { topics, validate_only: false }) {
            Reply::CreatedTopics(made) => {
                made.into_iter().map(|(name, made)| (name, made.map(|made| made.topic))).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Why one topic was not made, or `None` when it was.
    pub fn create_one(&mut self, topic: NewTopic) -> Option<Why> {
        let mut made = self.create(vec![topic]);
        assert_eq!(made.len(), 1);
        made.pop().unwrap().1.err().map(|refusal| refusal.why)
    }

    pub fn delete(&mut self, topics: Vec<TopicRef>) -> Vec<Option<Why>> {
        match self.ask(Request::DeleteTopics { topics }) {
            Reply::DeletedTopics(all) => {
                all.into_iter().map(|one| one.result.err().map(|refusal| refusal.why)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn widen(&mut self, topic: MorePartitions) -> Option<Why> {
        match self.ask(Request::CreatePartitions { topics: vec![topic], validate_only: false }) {
            Reply::CreatedPartitions(mut all) => all.pop().unwrap().1.err().map(|r| r.why),
            other => panic!("{other:?}"),
        }
    }

    pub fn alter(&mut self, topic: &str, change: Change) -> Option<Why> {
        let topics = vec![ConfigChange { name: topic.into(), change }];
        match self.ask(Request::AlterConfigs { topics, validate_only: false }) {
            Reply::AlteredConfigs(mut all) => all.pop().unwrap().1.err().map(|r| r.why),
            other => panic!("{other:?}"),
        }
    }

    pub fn alter_group(&mut self, group: &str, change: Change) -> Result<(), Refusal> {
        let groups = vec![ConfigChange { name: group.into(), change }];
        match self.ask(Request::AlterGroupConfigs { groups, validate_only: false }) {
            Reply::AlteredConfigs(mut all) => all.pop().unwrap().1,
            other => panic!("{other:?}"),
        }
    }

    /// What replaying the log gives.
    pub fn replayed(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for (at, value) in (0..).zip(&self.log) {
            Controller::apply(&mut cluster, Offset::new(at), &Record::decode(value).unwrap());
        }
        cluster
    }
}

/// A broker's registration in a run of its process that was never seen before.
pub fn registration(id: i32) -> Registration {
    let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: format!("b{id}"), port: 9092 };
    static RUNS: AtomicU64 = AtomicU64::new(1);
    Registration {
        id: BrokerId(id),
        endpoints: vec![endpoint],
        rack: None,
        cluster: None,
        incarnation: Incarnation(RUNS.fetch_add(1, Ordering::Relaxed).into()),
        directory: directory(id),
        features: BTreeMap::new(),
        lost: Loss::Nothing,
    }
}

/// The directory of a broker that has always had the same one.
pub fn directory(id: i32) -> DirectoryId {
    DirectoryId(1_000 + u128::from(id.unsigned_abs()))
}

fn moment(random: &mut Random, now: Instant) -> Moment {
    Moment { now, wall: Timestamp(0), random: [random.word(), random.word()] }
}

pub fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions,
        replication_factor,
        assignments: vec![],
        overrides: vec![],
    }
}

pub fn by_name(name: &str) -> TopicRef {
    TopicRef { name: Some(name.into()), id: None }
}

pub fn by_id(id: TopicId) -> TopicRef {
    TopicRef { name: None, id: Some(id) }
}

pub fn more(name: &str, count: i32) -> MorePartitions {
    MorePartitions { name: name.into(), count, assignments: None }
}

pub fn set(name: &str, value: &str) -> (String, Edit) {
    (name.into(), Edit::Set(Some(value.into())))
}
