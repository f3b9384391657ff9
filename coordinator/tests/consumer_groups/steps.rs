//! One thing at a time: what each kind of heartbeat does.

use std::time::Duration;

use coordinator::group::assignor::{Assignor, Partitions};
use coordinator::group::consumer::heartbeat::{Beaten, Heartbeat, heartbeat};
use coordinator::group::consumer::records::{Change, Record};
use coordinator::group::consumer::{
    AWAY_EPOCH, ConsumerConfig, ConsumerGroup, Effects, Fault, JOIN_EPOCH, LEAVE_EPOCH, Scene,
    Soft, State, expiry,
};
use coordinator::machine::Moment;
use engine::ids::{PartitionIndex, TopicId};
use engine::time::{Instant, Timestamp};

use crate::world::Table;

/// One group on one broker, without faults.
#[derive(Default)]
pub struct Desk {
    pub topics: Table,
    pub config: ConsumerConfig,
    pub group: Option<ConsumerGroup>,
    pub soft: Soft,
    pub now: Instant,
    pub random: u64,
    pub last: Vec<Record>,
}

impl Desk {
    pub fn new(topics: &[(&str, i32)]) -> Desk {
        let mut desk = Desk::default();
        // What a step leads to is seen at once.
        desk.config.times.usual.assignment_interval = Duration::ZERO;
        topics
            .iter()
            .for_each(|(name, partitions)| desk.topics.create((*name).into(), *partitions));
        desk
    }

    pub fn scene(&mut self) -> Scene<'_> {
        self.random += 1;
        let at = Moment { now: self.now, wall: Timestamp(77), random: [self.random, 5] };
        Scene { config: &self.config, times: self.config.times.usual, topics: &self.topics, at }
    }

    pub fn keep(&mut self, out: Effects) {
        for record in &out.records {
            ConsumerGroup::apply(&mut self.group, &record.change);
        }
        self.last = out.records;
    }

    pub fn beat(&mut self, beat: Heartbeat) -> Result<Beaten, Fault> {
        let (mut out, mut soft) = (Effects::default(), std::mem::take(&mut self.soft));
        let group = self.group.take();
        let name = "group".into();
        let answer = heartbeat(&name, group.as_ref(), &mut soft, self.scene(), beat, &mut out);
        (self.group, self.soft) = (group, soft);
        self.keep(out);
        answer
    }

    pub fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        let Some(group) = self.group.take() else { return };
        let (mut out, mut soft) = (Effects::default(), std::mem::take(&mut self.soft));
        expiry::expire(&"group".into(), &group, &mut soft, self.scene(), &mut out);
        (self.group, self.soft) = (Some(group), soft);
        self.keep(out);
    }

    pub fn group(&self) -> &ConsumerGroup {
        self.group.as_ref().expect("it is there")
    }

    fn id(&self, topic: &str) -> TopicId {
        use coordinator::group::consumer::topics::Topics;
        self.topics.by_name(topic).expect("it is there").0
    }

    pub fn of(&self, topic: &str, partitions: impl IntoIterator<Item = i32>) -> Partitions {
        let all = partitions.into_iter().map(PartitionIndex).collect();
        Partitions::from([(self.id(topic), all)])
    }
}

/// A member that joins and wants `t`.
pub fn joining(member: &str) -> Heartbeat {
    Heartbeat {
        member: member.into(),
        epoch: JOIN_EPOCH,
        instance: None,
        rack: None,
        rebalance_ms: Some(5_000),
        topics: Some(vec!["t".into()]),
        pattern: None,
        assignor: None,
        owned: Some(Partitions::new()),
        client_id: "c".into(),
        client_host: "/h".into(),
    }
}

/// A member that says that it lives.
pub fn living(member: &str, epoch: i32) -> Heartbeat {
    Heartbeat { epoch, rebalance_ms: None, topics: None, owned: None, ..joining(member) }
}

fn having(member: &str, epoch: i32, owned: &Partitions) -> Heartbeat {
    Heartbeat { owned: Some(owned.clone()), ..living(member, epoch) }
}

#[test]
fn a_second_member_waits_for_what_the_first_gives_up() {
    let mut desk = Desk::new(&[("t", 4)]);
    let a = desk.beat(joining("a")).expect("it joins");
    let all = desk.of("t", 0..4);
    assert_eq!((a.epoch, a.assignment), (1, Some(all.clone())));
    assert_eq!(desk.group().state(), State::Stable);
    let kinds: Vec<&str> = desk.last.iter().map(|record| kind(&record.change)).collect();
    assert_eq!(kinds, ["member", "group", "target", "target epoch", "current"]);

    // Nothing to tell while nothing changes, and nothing to write down.
    let quiet = desk.beat(having("a", 1, &all)).expect("it lives");
    assert_eq!((quiet.epoch, quiet.assignment), (1, None));
    assert!(desk.last.is_empty());

    let b = desk.beat(joining("b")).expect("it joins");
    assert_eq!((b.epoch, b.assignment), (2, Some(Partitions::new())), "nothing is free yet");
    assert_eq!(desk.group().state(), State::Reconciling);
    let kept = desk.of("t", 0..2);
    let a = desk.beat(living("a", 1)).expect("it lives");
    assert_eq!((a.epoch, a.assignment), (1, Some(kept.clone())), "give up the rest first");
    let a = desk.beat(having("a", 1, &all)).expect("it lives");
    assert_eq!((a.epoch, a.assignment), (1, None), "it has not yet");
    assert_eq!(desk.beat(living("b", 2)).expect("it lives").assignment, None);
    let a = desk.beat(having("a", 1, &kept)).expect("it lives");
    assert_eq!((a.epoch, a.assignment), (2, None), "it has arrived");
    let rest = desk.of("t", 2..4);
    let b = desk.beat(living("b", 2)).expect("it lives");
    assert_eq!((b.epoch, b.assignment), (2, Some(rest)));
    assert_eq!(desk.group().state(), State::Stable);
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Group(_) => "group",
        Change::PartitionMetadata(_) => "partition metadata",
        Change::Member(..) => "member",
        Change::TargetEpoch(_) => "target epoch",
        Change::Target(..) => "target",
        Change::Current(..) => "current",
        Change::Pattern(..) => "pattern",
    }
}

#[test]
fn old_epochs_are_fenced_but_for_an_answer_that_got_lost() {
    let mut desk = Desk::new(&[("t", 4)]);
    desk.beat(joining("a")).expect("it joins");
    desk.beat(joining("b")).expect("it joins");
    let kept = desk.of("t", 0..2);
    desk.beat(living("a", 1)).expect("it lives");
    desk.beat(having("a", 1, &kept)).expect("it lives");
    // The answer (epoch 2) got lost: it comes again with 1, and has nothing that it must not have.
    let again = desk.beat(having("a", 1, &desk.of("t", [1]))).expect("it is believed");
    assert_eq!(again.epoch, 2);
    let fenced = Err(Fault::FencedMemberEpoch { epoch: 2, received: 1 });
    assert_eq!(desk.beat(having("a", 1, &desk.of("t", 0..3))), fenced, "2 is not its any more");
    assert_eq!(desk.beat(living("a", 1)), fenced, "it does not say what it has");
    let ahead = Err(Fault::FencedMemberEpoch { epoch: 2, received: 3 });
    assert_eq!(desk.beat(having("a", 3, &kept)), ahead);
    assert_eq!(desk.beat(living("x", 1)), Err(Fault::UnknownMemberId));
    // Whoever is fenced joins again under its id, without anything.
    let back = desk.beat(joining("a")).expect("it joins again");
    assert_eq!((back.epoch, back.assignment), (2, Some(kept)));
    assert_eq!(Desk::new(&[]).beat(living("a", 1)), Err(Fault::GroupIdNotFound));
}

#[test]
fn silence_and_slowness_end_a_membership() {
    let mut desk = Desk::new(&[("t", 4)]);
    desk.beat(joining("a")).expect("it joins");
    desk.wait(Duration::from_secs(30));
    desk.beat(joining("b")).expect("it joins");
    desk.wait(Duration::from_secs(14));
    assert_eq!(desk.group().members().len(), 2);
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.group().members().len(), 1, "a was silent for 45 s");
    assert_eq!(desk.group().state(), State::Assigning);
    let b = desk.beat(living("b", 2)).expect("it lives");
    assert_eq!((b.epoch, b.assignment), (3, Some(desk.of("t", 0..4))));

    // c joins; b says that it lives, but never gives anything up.
    desk.beat(joining("c")).expect("it joins");
    for _ in 0..4 {
        desk.beat(having("b", 3, &desk.of("t", 0..4))).expect("it lives");
        desk.wait(Duration::from_secs(1));
    }
    assert_eq!(desk.group().members().len(), 2);
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.beat(living("b", 3)), Err(Fault::UnknownMemberId), "5 s were its own limit");
    let c = desk.beat(living("c", 4)).expect("it lives");
    assert_eq!(c.assignment, Some(desk.of("t", 0..4)));
    // The last one leaves: the group is there, and empty.
    desk.beat(living("c", LEAVE_EPOCH)).expect("it leaves");
    assert_eq!((desk.group().state(), desk.soft.deadline()), (State::Empty, None));
    assert_eq!(desk.beat(living("c", LEAVE_EPOCH)), Err(Fault::UnknownMemberId));
}

#[test]
fn a_machine_that_takes_over_gives_everybody_a_whole_time() {
    let mut desk = Desk::new(&[("t", 4)]);
    desk.beat(joining("a")).expect("it joins");
    desk.beat(joining("b")).expect("it joins");
    desk.beat(living("a", 1)).expect("it lives");
    desk.wait(Duration::from_secs(4));
    desk.soft = Soft::default();
    let group = desk.group.clone().expect("it is there");
    desk.soft.take_up(&group, &desk.config, &desk.config.times.usual, desk.now);
    assert_eq!(desk.soft.deadline(), Some(desk.now.after(Duration::from_secs(5))));
    desk.wait(Duration::from_secs(5));
    assert_eq!(desk.group().members().map(|(id, _)| &**id).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_static_member_keeps_its_place() {
    let mut desk = Desk::new(&[("t", 4)]);
    let named = |member: &str, beat: fn(&str) -> Heartbeat| Heartbeat {
        instance: Some("i".into()),
        ..beat(member)
    };
    let a = desk.beat(named("a", joining)).expect("it joins");
    desk.beat(joining("b")).expect("it joins");
    assert_eq!(desk.beat(named("a2", joining)), Err(Fault::UnreleasedInstanceId));
    let other = Heartbeat { instance: Some("i".into()), ..living("b", 2) };
    assert_eq!(desk.beat(other), Err(Fault::FencedInstanceId));
    let unknown = Heartbeat { instance: Some("j".into()), ..living("a", a.epoch) };
    assert_eq!(desk.beat(unknown), Err(Fault::UnknownMemberId));

    // It goes away in the middle of giving something up: that is free, the rest stays its own.
    desk.beat(named("a", |id| living(id, 1))).expect("it lives");
    let away = desk.beat(named("a", |id| living(id, AWAY_EPOCH))).expect("it goes");
    assert_eq!(away.epoch, AWAY_EPOCH);
    assert_eq!(desk.beat(living("b", 2)).expect("it lives").assignment, Some(desk.of("t", 2..4)));
    let epoch = desk.group().epoch();
    let back = desk.beat(named("a2", joining)).expect("it is back");
    assert_eq!((back.epoch, back.assignment), (2, Some(desk.of("t", 0..2))));
    assert_eq!(desk.group().epoch(), epoch, "nobody had to move");
    assert_eq!(desk.group().static_member("i").map(|id| &**id), Some("a2"));
    assert_eq!(desk.beat(named("a", |id| living(id, 2))), Err(Fault::FencedInstanceId));
    assert_eq!(desk.group().members().len(), 2);
    let nameless = Fault::InvalidRequest("only a static member leaves to come back");
    assert_eq!(desk.beat(living("b", AWAY_EPOCH)), Err(nameless));

    // It goes away and does not come back: its session ends.
    desk.beat(named("a2", |id| living(id, AWAY_EPOCH))).expect("it goes");
    desk.wait(Duration::from_secs(44));
    desk.beat(living("b", 2)).expect("it lives");
    desk.wait(Duration::from_secs(2));
    assert_eq!(desk.beat(living("b", 2)).expect("it lives").assignment, Some(desk.of("t", 0..4)));
}

#[test]
fn requests_that_contradict_themselves_change_nothing() {
    let mut desk = Desk::new(&[("t", 4)]);
    let join = || joining("a");
    let bad = [
        Heartbeat { rebalance_ms: None, ..join() },
        Heartbeat { owned: None, ..join() },
        Heartbeat { owned: Some(desk.of("t", [1])), ..join() },
        Heartbeat { topics: None, ..join() },
        Heartbeat { instance: Some(String::new()), ..join() },
        Heartbeat { rack: Some(String::new()), ..join() },
        Heartbeat { member: String::new(), ..living("", 1) },
        Heartbeat { member: "x".repeat(40_000), ..join() },
        living("a", -3),
    ];
    for beat in bad {
        let answer = desk.beat(beat.clone());
        assert!(matches!(answer, Err(Fault::InvalidRequest(_))), "{beat:?}: {answer:?}");
    }
    let answer = desk.beat(Heartbeat { assignor: Some("mine".into()), ..join() });
    assert_eq!(answer, Err(Fault::UnsupportedAssignor("uniform, range".into())));
    let answer = desk.beat(Heartbeat { pattern: Some("(".into()), ..join() });
    assert!(matches!(answer, Err(Fault::InvalidRegularExpression(_))), "{answer:?}");
    assert_eq!(desk.group, None);
    assert_eq!(desk.soft.deadline(), None);

    desk.config.members_max = 1;
    let given = desk.beat(Heartbeat { member: String::new(), ..join() }).expect("it joins");
    assert_eq!(given.member.len(), 22, "it was given an id: {}", given.member);
    assert_eq!(desk.beat(joining("b")), Err(Fault::GroupMaxSizeReached));
}

#[test]
fn the_assignor_that_most_prefer_is_used() {
    let mut desk = Desk::new(&[("t", 4), ("u", 4)]);
    desk.config.assignors = vec![Assignor::Uniform, Assignor::Range];
    let both = |member: &str, assignor: &str| Heartbeat {
        topics: Some(vec!["t".into(), "u".into()]),
        assignor: Some(assignor.into()),
        ..joining(member)
    };
    desk.beat(both("a", "range")).expect("it joins");
    assert_eq!(desk.group().describe(&desk.config).assignor, "range");
    desk.beat(both("b", "uniform")).expect("it joins");
    assert_eq!(desk.group().describe(&desk.config).assignor, "uniform", "the broker's first");
    desk.beat(both("c", "range")).expect("it joins");
    let described = desk.group().describe(&desk.config);
    assert_eq!((described.assignor, described.state, described.epoch), ("range", "Reconciling", 3));
    assert_eq!((described.assignment_epoch, described.members.len()), (3, 3));
    let c = &described.members[2];
    assert_eq!((c.id.as_str(), c.epoch, c.assignment.len()), ("c", 3, 0));
    let mut last = desk.of("t", [3]);
    last.extend(desk.of("u", [3]));
    assert_eq!(c.target, last);
}

#[test]
fn patterns_find_topics_that_come_later() {
    let mut desk = Desk::new(&[("t", 1), ("other", 1)]);
    let join = Heartbeat { topics: None, pattern: Some("t.*".into()), ..joining("a") };
    let a = desk.beat(join).expect("it joins");
    assert_eq!(a.assignment, Some(desk.of("t", [0])));
    assert!(desk.group().is_subscribed("t") && !desk.group().is_subscribed("other"));
    desk.topics.create("t2".into(), 2);
    let early = desk.beat(living("a", 1)).expect("it lives");
    assert_eq!(early.epoch, 1, "looked for a moment ago");
    desk.wait(Duration::from_secs(10));
    let later = desk.beat(living("a", 1)).expect("it lives");
    let mut both = desk.of("t", [0]);
    both.extend(desk.of("t2", 0..2));
    assert_eq!((later.epoch, later.assignment), (2, Some(both)));
    // Its own kind of topics are gone: so is what the pattern stood for.
    let names = Heartbeat { pattern: Some(String::new()), ..joining("a") };
    let names = Heartbeat { epoch: 2, owned: Some(desk.of("t", [0])), ..names };
    desk.beat(names).expect("it lives");
    assert!(desk.last.iter().any(|r| matches!(r.change, Change::Pattern(_, None))));
    assert!(!desk.group().is_subscribed("t2"));
}

#[test]
fn topics_that_grow_and_go_begin_new_epochs() {
    let mut desk = Desk::new(&[("t", 1)]);
    desk.beat(joining("a")).expect("it joins");
    desk.topics.create("unrelated".into(), 1);
    assert_eq!(desk.beat(living("a", 1)).expect("it lives").epoch, 1);
    desk.topics.grow("t");
    let a = desk.beat(living("a", 1)).expect("it lives");
    assert_eq!((a.epoch, a.assignment), (2, Some(desk.of("t", 0..2))));
    desk.topics.delete("t");
    let a = desk.beat(living("a", 2)).expect("it lives");
    assert_eq!(a.assignment, Some(Partitions::new()));
}

#[test]
fn offsets_may_be_committed_by_those_who_have_the_partition() {
    let mut desk = Desk::new(&[("t", 4)]);
    desk.beat(joining("a")).expect("it joins");
    let topic = desk.id("t");
    let (first, last) = (PartitionIndex(0), PartitionIndex(3));
    desk.beat(joining("b")).expect("it joins");
    desk.beat(living("a", 1)).expect("it lives");
    let group = desk.group();
    assert_eq!(group.check_commit("a", 1, false), Ok(()));
    assert_eq!(group.may_commit("a", 1, Some(topic), last), Ok(()), "while it gives it up");
    let ahead = Err(Fault::StaleMemberEpoch { epoch: 1, received: 2 });
    assert_eq!(group.check_commit("a", 2, false), ahead);
    assert_eq!(group.check_commit("x", 1, false), Err(Fault::UnknownMemberId));
    assert_eq!(group.check_commit("", -1, false), Err(Fault::UnknownMemberId), "it has members");
    desk.beat(having("a", 1, &desk.of("t", 0..2))).expect("it lives");
    let group = desk.group();
    assert_eq!(group.check_commit("a", 1, false), Ok(()));
    assert_eq!(
        group.may_commit("a", 1, Some(topic), first),
        Ok(()),
        "its own since then (KIP-1251)"
    );
    let stale = Err(Fault::StaleMemberEpoch { epoch: 2, received: 1 });
    assert_eq!(group.may_commit("a", 1, Some(topic), last), stale);
    assert_eq!(group.check_fetch(Some("a"), 1), stale);
    assert_eq!((group.check_fetch(Some("a"), 2), group.check_fetch(None, -1)), (Ok(()), Ok(())));
    desk.beat(living("a", LEAVE_EPOCH)).expect("it leaves");
    desk.beat(living("b", LEAVE_EPOCH)).expect("it leaves");
    assert_eq!(desk.group().check_commit("", -1, false), Ok(()), "nobody is in it");
}
