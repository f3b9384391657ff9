//! Groups and their log in memory, on a clock that the test moves, and short ways to ask.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::group::request::*;
use coordinator::group::{GroupConfig, Groups, Hard, Soft};
use coordinator::machine::{Machine, Moment, Outcome, Seen, Stored, Token};
use engine::ids::Offset;
use engine::time::{Instant, Timestamp};

/// A stored record: key and value.
pub type Entry = (Option<Vec<u8>>, Option<Vec<u8>>);

/// One machine whose log is a `Vec`, every record of which counts as committed at once.
pub struct Alone {
    pub config: GroupConfig,
    pub hard: Hard,
    pub soft: Soft,
    pub now: Instant,
    pub log: Vec<Entry>,
    pub replies: BTreeMap<Token, Reply>,
    next: u64,
}

impl Alone {
    pub fn new(config: GroupConfig) -> Alone {
        let (hard, soft) = Default::default();
        let (log, replies) = Default::default();
        let mut alone = Alone { config, hard, soft, now: Instant::ZERO, log, replies, next: 0 };
        alone.act(Groups::begin);
        alone
    }

    fn act(&mut self, act: impl FnOnce(Seen<'_, Groups>, &mut Soft, &mut Outcome<Groups>)) {
        let mut out = Outcome::default();
        let at = self.at();
        let seen = Seen { hard: &self.hard, config: &self.config, at };
        act(seen, &mut self.soft, &mut out);
        for record in out.records {
            // Through its bytes, as it will be read again.
            let (key, value) = record.store();
            let read = Stored::load(key.as_deref(), value.as_deref()).unwrap();
            assert_eq!(record, read);
            Groups::apply(&mut self.hard, Offset::new(self.log.len() as u64), &read);
            self.log.push((key, value));
        }
        for (token, reply) in out.replies.into_iter().chain(out.early) {
            assert!(self.replies.insert(token, reply).is_none(), "{token:?} is answered once");
        }
    }

    fn at(&self) -> Moment {
        let wall = Timestamp(1_000_000 + (self.now.nanos() / 1_000_000) as i64);
        Moment { now: self.now, wall, random: [0xabcd, self.next] }
    }

    /// Asks, without waiting.
    pub fn ask(&mut self, request: Request) -> Token {
        self.next += 1;
        let token = Token(self.next);
        self.act(|seen, soft, out| Groups::decide(seen, soft, token, request, out));
        token
    }

    /// The answer, if it is there.
    pub fn take(&mut self, token: Token) -> Option<Reply> {
        self.replies.remove(&token)
    }

    /// Asks what is answered at once.
    pub fn now(&mut self, request: Request) -> Reply {
        let token = self.ask(request);
        self.take(token).expect("answered at once")
    }

    /// Lets time pass, alarm by alarm.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(due) = Groups::deadline(&self.soft).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.act(Groups::expire);
        }
        self.now = end;
    }

    pub fn pass_ms(&mut self, millis: u64) {
        self.pass(Duration::from_millis(millis));
    }

    /// Another machine takes over, with the log alone. Whoever waited is not answered.
    pub fn fail_over(&mut self) {
        (self.hard, self.soft) = Default::default();
        for (at, (key, value)) in self.log.iter().enumerate() {
            let record = Stored::load(key.as_deref(), value.as_deref()).unwrap();
            Groups::apply(&mut self.hard, Offset::new(at as u64), &record);
        }
        self.act(Groups::begin);
    }

    pub fn join(&mut self, join: Join) -> Token {
        self.ask(Request::Join(join))
    }

    pub fn joined(&mut self, token: Token) -> Option<Joined> {
        self.take(token).map(|reply| match reply {
            Reply::Joined(joined) => joined,
            other => panic!("{other:?}"),
        })
    }

    /// Joins twice, as a client of today does: for its id, and with it.
    pub fn enter(&mut self, join: Join) -> (String, Token) {
        let first = self.join(join.clone());
        let given = self.joined(first).unwrap();
        assert_eq!(given.generation, Err(GroupFault::MemberIdRequired));
        let token = self.join(Join { member: given.member.clone(), ..join });
        (given.member, token)
    }

    pub fn sync(&mut self, member: &str, generation: i32, give: &[(&str, &str)]) -> Token {
        let assignments =
            give.iter().map(|(id, what)| (id.to_string(), what.as_bytes().to_vec())).collect();
        self.ask(Request::Sync(Sync {
            group: "g".into(),
            member: member.into(),
            generation,
            assignments,
            ..Sync::default()
        }))
    }

    pub fn synced(&mut self, token: Token) -> Option<Result<String, GroupFault>> {
        self.take(token).map(|reply| match reply {
            Reply::Synced(synced) => {
                synced.map(|synced| String::from_utf8(synced.assignment).unwrap())
            }
            other => panic!("{other:?}"),
        })
    }

    pub fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupFault> {
        self.heartbeat_as(member, None, generation)
    }

    pub fn heartbeat_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupFault> {
        let (group, member) = ("g".into(), member.into());
        let instance = instance.map(String::from);
        match self.now(Request::Heartbeat(Heartbeat {
            group,
            member,
            instance,
            generation,
            ..Heartbeat::default()
        })) {
            Reply::Heartbeat(beat) => beat,
            other => panic!("{other:?}"),
        }
    }

    pub fn leave(&mut self, leavers: Vec<Leaver>) -> Vec<Option<GroupFault>> {
        let leave = Leave { group: "g".into(), members: leavers, ..Leave::default() };
        match self.now(Request::Leave(leave)) {
            Reply::Left(left) => left.unwrap().into_iter().map(|one| one.fault).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Commits offset `offset` of t-0; its own outcome.
    pub fn commit(&mut self, member: &str, generation: i32, offset: i64) -> Option<GroupFault> {
        self.commit_with(CommitOffsets {
            group: "g".into(),
            member: member.into(),
            generation,
            topics: vec![("t".into(), vec![OffsetOf { offset, ..OffsetOf::default() }])],
            ..CommitOffsets::default()
        })
    }

    pub fn commit_with(&mut self, commit: CommitOffsets) -> Option<GroupFault> {
        match self.now(Request::CommitOffsets(commit)) {
            Reply::OffsetsCommitted(Ok(topics)) => topics[0].1[0].1,
            Reply::OffsetsCommitted(Err(why)) => Some(why),
            other => panic!("{other:?}"),
        }
    }

    /// What is committed for a partition of a topic.
    pub fn fetch(&mut self, topic: &str, partition: i32) -> Option<i64> {
        let fetch = FetchOffsets {
            group: "g".into(),
            topics: Some(vec![(topic.into(), vec![partition])]),
            ..FetchOffsets::default()
        };
        match self.now(Request::FetchOffsets(vec![fetch])) {
            Reply::Offsets(fetched) => {
                let topics = fetched[0].topics.clone().unwrap();
                topics[0].1[0].committed.as_ref().map(|committed| committed.offset)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn describe(&mut self, group: &str) -> Described {
        match self.now(Request::Describe(vec![group.into()])) {
            Reply::Described(mut described) => described.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&mut self) -> &'static str {
        self.describe("g").state
    }

    pub fn delete(&mut self, group: &str) -> Option<GroupFault> {
        match self.now(Request::Delete(vec![group.into()])) {
            Reply::Deleted(deleted) => deleted[0].1,
            other => panic!("{other:?}"),
        }
    }
}

/// A consumer that wants topic "t" and offers the range protocol.
pub fn consumer() -> Join {
    consumer_of(&["t"])
}

pub fn consumer_of(topics: &[&str]) -> Join {
    Join {
        group: "g".into(),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_ms: 10_000,
        rebalance_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: subscription(topics) }],
        takes_member_id: true,
        may_skip_assignment: true,
        ..Join::default()
    }
}

pub fn fixed(instance: &str) -> Join {
    Join { instance: Some(instance.into()), ..consumer() }
}

/// A `ConsumerProtocolSubscription` of version 0.
pub fn subscription(topics: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes
}
