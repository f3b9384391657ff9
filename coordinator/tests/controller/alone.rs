//! A controller and its log in memory, and short ways to write requests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use coordinator::cluster::{Cluster, Endpoint, Topic};
use coordinator::config::Config;
use coordinator::controller::{
    Change, ConfigChange, Controller, Edit, MorePartitions, NewTopic, Refusal, Registration, Reply,
    Request, TopicRef, Why,
};
use coordinator::machine::{Machine, Moment, Outcome, Seen, Token};
use coordinator::records::Record;
use engine::ids::{BrokerId, Offset, TopicId};
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
    pub log: Vec<Vec<u8>>,
    pub random: Random,
}

impl Alone {
    /// One without brokers.
    pub fn new(config: Config, seed: u64) -> Alone {
        Alone { config, cluster: Cluster::default(), log: Vec::new(), random: Random(seed) }
    }

    /// One with brokers `1..=brokers`.
    pub fn with_brokers(brokers: i32) -> Alone {
        let mut alone = Alone::new(Config::default(), 7);
        for id in 1..=brokers {
            alone.ask(Request::RegisterBroker(registration(id)));
        }
        alone
    }

    /// Decides, remembers and applies one request; returns the reply and what was remembered.
    pub fn ask_for_records(&mut self, request: Request) -> (Reply, Vec<Record>) {
        let random = [self.random.word(), self.random.word()];
        let at = Moment { now: Instant::ZERO, wall: Timestamp(0), random };
        let mut out = Outcome::<Controller>::default();
        let seen = Seen { hard: &self.cluster, config: &self.config, at };
        Controller::decide(seen, &mut (), Token(9), request, &mut out);
        for record in &out.records {
            let value = record.encode();
            assert_eq!(Record::decode(&value).as_ref(), Ok(record));
            Controller::apply(&mut self.cluster, Offset::new(self.log.len() as u64), record);
            self.log.push(value);
        }
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
        let topics = vec![ConfigChange { topic: topic.into(), change }];
        match self.ask(Request::AlterConfigs { topics, validate_only: false }) {
            Reply::AlteredConfigs(mut all) => all.pop().unwrap().1.err().map(|r| r.why),
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

pub fn registration(id: i32) -> Registration {
    let endpoint = Endpoint { listener: "PLAINTEXT".into(), host: format!("b{id}"), port: 9092 };
    Registration { id: BrokerId(id), endpoints: vec![endpoint], rack: None, cluster: None }
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
