//! Consumer groups in the machine, case by case: beside classic ones, over failovers, and on the
//! way from one protocol to the other. Expectations are Kafka's.

#[path = "groups/alone.rs"]
mod alone;
#[path = "groups/topics.rs"]
mod topics;

use std::time::Duration;

use alone::*;
use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::config::Migration;
use coordinator::group::consumer::embedded::{self, Named};
use coordinator::group::consumer::heartbeat::{Beaten, Heartbeat as Beat};
use coordinator::group::consumer::times::{Bounds, Own};
use coordinator::group::consumer::{Fault, JOIN_EPOCH, LEAVE_EPOCH, Mutant};
use coordinator::group::records::Record;
use coordinator::group::request::*;
use coordinator::group::{Group, GroupConfig};
use coordinator::machine::Stored;
use engine::ids::PartitionIndex;
use topics::Table;

/// A machine, and the topics that it is shown.
struct Desk {
    g: Alone,
    topics: Table,
}

impl Desk {
    fn new() -> Desk {
        let mut config = GroupConfig::default();
        // What a step leads to is seen at once.
        config.consumer.times.usual.assignment_interval = Duration::ZERO;
        Desk::with(config)
    }

    fn with(config: GroupConfig) -> Desk {
        Desk { g: Alone::new(config), topics: Table::new(&[("t", 4), ("u", 2)]) }
    }

    fn beat(&mut self, beat: Beat) -> Result<Beaten, Fault> {
        let (group, topics) = ("g".into(), self.topics.view());
        match self.g.now(Request::ConsumerHeartbeat(ConsumerHeartbeat { group, beat, topics })) {
            Reply::ConsumerHeartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// The machine is shown the topics and settings, as it is when it is loaded.
    fn see(&mut self) {
        assert_eq!(self.g.now(Request::See(self.topics.view())), Reply::Seen);
    }

    fn classic_join(&mut self, join: Join) -> Joined {
        let token = self.g.join(Join { topics: self.topics.view(), ..join });
        self.g.joined(token).expect("answered at once")
    }

    fn classic_sync(&mut self, member: &str, generation: i32) -> Result<Named, GroupFault> {
        let sync = Sync {
            group: "g".into(),
            member: member.into(),
            generation,
            topics: self.topics.view(),
            ..Sync::default()
        };
        match self.g.now(Request::Sync(sync)) {
            Reply::Synced(synced) => {
                synced.map(|all| embedded::read_assignment(&all.assignment).expect("ours"))
            }
            other => panic!("{other:?}"),
        }
    }

    fn describe(
        &mut self,
    ) -> Result<coordinator::group::consumer::describe::Described, GroupFault> {
        match self.g.now(Request::DescribeConsumers(vec!["g".into()])) {
            Reply::ConsumersDescribed(mut all) => all.remove(0).1,
            other => panic!("{other:?}"),
        }
    }

    fn list(&mut self, list: List) -> Vec<(String, &'static str, &'static str, String)> {
        match self.g.now(Request::List(list)) {
            Reply::Listed(all) => all
                .into_iter()
                .map(|one| (one.group, one.state, one.group_type, one.protocol_type))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn fetch_as(&mut self, member: Option<(&str, i32)>) -> Result<Option<i64>, GroupFault> {
        let fetch = FetchOffsets {
            group: "g".into(),
            member: member.map(|(id, epoch)| (id.into(), epoch)),
            topics: Some(vec![("t".into(), vec![0])]),
            ..FetchOffsets::default()
        };
        match self.g.now(Request::FetchOffsets(vec![fetch])) {
            Reply::Offsets(mut all) => all
                .remove(0)
                .topics
                .map(|topics| topics[0].1[0].committed.as_ref().map(|committed| committed.offset)),
            other => panic!("{other:?}"),
        }
    }

    fn kinds(&self) -> Vec<&'static str> {
        let kind = |(_, group): (_, Group<'_>)| group.type_name();
        self.g.hard.groups.iter().map(kind).collect()
    }

    /// A classic group of two that has assigned: ids of the leader and the other; generation 1.
    fn two_classic(&mut self) -> (String, String) {
        let (a, join_a) = self.g.enter(classic(&Named::new(), -1));
        let (b, join_b) = self.g.enter(classic(&Named::new(), -1));
        self.g.pass_ms(6_000);
        assert!(self.g.joined(join_a).is_some() && self.g.joined(join_b).is_some());
        let assignments = [(&a, 0..2), (&b, 2..4)].map(|(id, partitions)| {
            (id.clone(), embedded::write_assignment(1, &named(partitions)))
        });
        let sync = Sync {
            group: "g".into(),
            member: a.clone(),
            generation: 1,
            assignments: assignments.into(),
            ..Sync::default()
        };
        assert!(matches!(self.g.now(Request::Sync(sync)), Reply::Synced(Ok(_))));
        assert_eq!(self.classic_sync(&b, 1), Ok(named(2..4)));
        (a, b)
    }
}

fn named(partitions: impl IntoIterator<Item = i32>) -> Named {
    Named::from([("t".into(), partitions.into_iter().map(PartitionIndex).collect())])
}

/// A consumer of the classic protocol that shares topic "t" cooperatively.
fn classic(owned: &Named, generation: i32) -> Join {
    let mut said = subscription(&["t"]);
    said[1] = 2;
    let partitions = embedded::write_assignment(2, owned);
    said.extend(&partitions[2..partitions.len() - 4]);
    said.extend(generation.to_be_bytes());
    let protocols = vec![Protocol { name: "cooperative-sticky".into(), metadata: said }];
    Join { protocols, ..consumer() }
}

fn joining(member: &str) -> Beat {
    Beat {
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

fn living(member: &str, epoch: i32) -> Beat {
    Beat { epoch, rebalance_ms: None, topics: None, owned: None, ..joining(member) }
}

fn having(member: &str, epoch: i32, owned: &Partitions) -> Beat {
    Beat { owned: Some(owned.clone()), ..living(member, epoch) }
}

#[test]
fn members_share_and_go_on_after_a_failover() {
    let mut desk = Desk::new();
    let a = desk.beat(joining("a")).expect("it joins");
    assert_eq!((a.epoch, a.assignment), (1, Some(desk.topics.of("t", 0..4))));
    assert_eq!(desk.beat(joining("b")).expect("it joins").assignment, Some(Partitions::new()));
    desk.beat(living("a", 1)).expect("it lives");
    let before = format!("{:?}", desk.g.hard.groups);
    desk.g.fail_over();
    assert_eq!(format!("{:?}", desk.g.hard.groups), before, "the log is the group");

    // a was giving something up: it has its whole time for that anew, and no more.
    let kept = desk.topics.of("t", 0..2);
    desk.g.pass_ms(4_900);
    assert_eq!(desk.beat(having("a", 1, &kept)).expect("it lives").epoch, 2);
    let b = desk.beat(living("b", 2)).expect("it lives");
    assert_eq!(b.assignment, Some(desk.topics.of("t", 2..4)));
    let described = desk.describe().expect("it is there");
    assert_eq!((described.state, described.epoch, described.members.len()), ("Stable", 2, 2));
    assert_eq!(described.members[1].client_host, "/h");

    // Silence ends a membership, also after a failover before anybody has asked anything.
    desk.g.fail_over();
    desk.see();
    desk.g.pass_ms(44_900);
    assert_eq!(desk.describe().expect("it is there").members.len(), 2);
    desk.g.pass_ms(200);
    let described = desk.describe().expect("it is there");
    assert_eq!((described.state, described.members.len()), ("Empty", 0));
    assert_eq!(desk.beat(living("a", 2)), Err(Fault::UnknownMemberId));
    assert_eq!(desk.beat(joining("a")).expect("it joins").assignment.map(|all| all.len()), Some(1));
}

/// A group of `a` on brokers whose sessions are of 6 to 60 seconds, usually the shortest.
fn with_own(own: Own, mutant: Option<Mutant>) -> Desk {
    let mut config = GroupConfig::default();
    config.consumer.times.min.session = Duration::from_secs(6);
    config.consumer.times.usual.session = Duration::from_secs(6);
    config.consumer.mutant = mutant;
    let mut desk = Desk::with(config);
    desk.topics.set_own("g", own);
    desk.topics.set_own("another", Own { session: Some(Duration::from_secs(9)), ..own });
    desk.beat(joining("a")).expect("it joins");
    desk
}

fn slow() -> Own {
    let (session, interval) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(15)));
    Own { session, heartbeat_interval: interval, ..Own::default() }
}

#[test]
fn a_group_goes_by_its_own_times_and_is_told_when_they_change() {
    let mut desk = with_own(slow(), None);
    for _ in 0..3 {
        desk.g.pass_ms(59_900);
        let told = desk.beat(living("a", 1)).expect("its session is its group's");
        assert_eq!(told.interval, Duration::from_secs(15));
    }
    // From its next heartbeat on: the broker's.
    desk.topics.set_own("g", Own::default());
    desk.g.pass_ms(59_900);
    let told = desk.beat(living("a", 1)).expect("it was told 15 seconds");
    assert_eq!(told.interval, Duration::from_secs(5));
    desk.g.pass_ms(5_900);
    desk.beat(living("a", 1)).expect("it lives");
    desk.g.pass_ms(6_100);
    assert_eq!(desk.beat(living("a", 1)), Err(Fault::UnknownMemberId));

    // What a broker's bounds do not allow is brought near.
    let (long, short) = (Duration::from_secs(100), Duration::from_secs(1));
    let own = Own { session: Some(long), heartbeat_interval: Some(short), ..Own::default() };
    let mut desk = with_own(own, None);
    let told = desk.beat(living("a", 1)).expect("it lives");
    assert_eq!(told.interval, Bounds::default().min.heartbeat_interval);
    desk.g.pass_ms(59_900);
    desk.beat(living("a", 1)).expect("it lives");
    desk.g.pass_ms(60_100);
    assert_eq!(desk.beat(living("a", 1)), Err(Fault::UnknownMemberId));
}

#[test]
fn a_machine_that_takes_over_does_not_end_what_it_does_not_know() {
    let after = |own: Own, mutant: Option<Mutant>, sees: bool, millis: u64| {
        let mut desk = with_own(own, mutant);
        desk.g.fail_over();
        desk.g.pass_ms(10);
        if sees {
            desk.see();
        }
        desk.g.pass_ms(millis);
        desk.beat(living("a", 1)).map(|told| told.interval.as_secs())
    };
    let (gone, usual) = (Err(Fault::UnknownMemberId), Own::default());
    // Its own session is longer than the broker's; nobody has shown it.
    assert_eq!(after(slow(), None, false, 15_000), Ok(15));
    assert_eq!(after(slow(), Some(Mutant::OwnTimesForgotten), false, 15_000), gone);
    assert_eq!(after(slow(), None, false, 60_000), gone, "the longest that there can be");
    // As soon as it is shown, everybody has what they have.
    assert_eq!(after(slow(), None, true, 59_900), Ok(15));
    assert_eq!(after(usual, None, true, 5_900), Ok(5));
    assert_eq!(after(usual, None, true, 6_000), gone);
}

#[test]
fn members_who_come_at_once_share_a_target() {
    let mut desk = Desk::with(GroupConfig::default());
    let epochs = |desk: &mut Desk| {
        let described = desk.describe().expect("it is there");
        (described.epoch, described.assignment_epoch)
    };
    let a = desk.beat(joining("a")).expect("it joins");
    assert_eq!(a.assignment, Some(desk.topics.of("t", 0..4)), "the first is assigned at once");
    for member in ["b", "c", "d"] {
        desk.g.pass_ms(300);
        desk.beat(joining(member)).expect("it joins");
    }
    assert_eq!(epochs(&mut desk), (4, 1));
    desk.g.pass_ms(99);
    desk.beat(living("a", 1)).expect("it lives");
    assert_eq!(epochs(&mut desk), (4, 1), "a second is not over");
    desk.g.pass_ms(1);
    desk.beat(living("a", 1)).expect("it lives");
    assert_eq!(epochs(&mut desk), (4, 4));
    // A group of its own mind.
    desk.topics.set_own("g", Own { assignment_interval: Some(Duration::ZERO), ..Own::default() });
    desk.beat(joining("e")).expect("it joins");
    assert_eq!(epochs(&mut desk), (5, 5));
}

/// `c` wants topic "large".
fn wanting_much(member: &str) -> Beat {
    Beat { topics: Some(vec!["large".into()]), ..joining(member) }
}

#[test]
fn what_one_batch_does_not_hold_is_refused_to_who_wants_it() {
    let desk_with = |most: usize| {
        let mut desk = Desk::new();
        desk.beat(joining("a")).expect("it joins");
        desk.topics.set("large", 1_000);
        desk.g.config.consumer.records_bytes_max = most;
        desk
    };
    // How much it is.
    let mut desk = desk_with(1 << 20);
    let before = desk.g.log.len();
    desk.beat(wanting_much("c")).expect("it joins");
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let written = desk.g.log[before..].iter();
    let bytes: usize = written.map(|(key, value)| len(key) + len(value) + 64).sum();
    assert!(bytes > 4_000, "four bytes a partition");

    let mut desk = desk_with(bytes);
    let all = desk.topics.of("large", 0..1_000);
    assert_eq!(desk.beat(wanting_much("c")).expect("just as much").assignment, Some(all));
    let mut desk = desk_with(bytes - 1);
    let described = desk.describe().expect("it is there");
    let before = desk.g.log.len();
    assert_eq!(desk.beat(wanting_much("c")), Err(Fault::GroupTooLarge));
    assert_eq!((desk.g.log.len(), desk.describe().expect("it is there")), (before, described));
    // The others go on, and whoever wants less.
    assert_eq!(desk.beat(living("a", 1)).expect("it lives").epoch, 1);
    assert_eq!(desk.beat(living("c", 1)), Err(Fault::UnknownMemberId));
    desk.beat(joining("b")).expect("it joins");
}

/// How many members there are after the session of a static one that went away, whose successor was
/// refused because it wants too much.
fn left_after_a_refused_return(mutant: Option<Mutant>) -> usize {
    let mut desk = Desk::new();
    desk.g.config.consumer.mutant = mutant;
    desk.topics.set("large", 1_000);
    desk.beat(joining("a")).expect("it joins");
    let named = |beat: Beat| Beat { instance: Some("i".into()), ..beat };
    desk.beat(named(joining("s"))).expect("it joins");
    desk.beat(named(living("s", -2))).expect("it goes away for a while");
    desk.g.config.consumer.records_bytes_max = 3_000;
    assert_eq!(desk.beat(named(wanting_much("s2"))), Err(Fault::GroupTooLarge));
    desk.g.pass_ms(44_900);
    desk.beat(living("a", 1)).expect("it lives");
    assert_eq!(desk.describe().expect("it is there").members.len(), 2);
    desk.g.pass_ms(200);
    desk.beat(living("a", 1)).expect("it lives");
    desk.describe().expect("it is there").members.len()
}

#[test]
fn who_could_not_be_replaced_keeps_its_place_for_its_session() {
    assert_eq!(left_after_a_refused_return(None), 1);
    assert_eq!(left_after_a_refused_return(Some(Mutant::RefusedPlaceForgotten)), 2, "for ever");
}

#[test]
fn a_target_that_is_made_later_is_refused_to_who_wants_it_all_the_same() {
    let epochs = |desk: &mut Desk| {
        let described = desk.describe().expect("it is there");
        (described.epoch, described.assignment_epoch)
    };
    let late = |mutant: Option<Mutant>| {
        let mut desk = Desk::with(GroupConfig::default());
        desk.g.config.consumer.records_bytes_max = 3_000;
        desk.g.config.consumer.mutant = mutant;
        desk.beat(joining("a")).expect("it joins");
        desk.topics.set("large", 1_000);
        desk.g.pass_ms(300);
        let joined = desk.beat(wanting_much("c")).map(|told| told.epoch);
        for _ in 0..3 {
            desk.g.pass_ms(1_000);
            desk.beat(living("a", 1)).expect("it lives");
        }
        (joined, epochs(&mut desk))
    };
    assert_eq!(late(None), (Err(Fault::GroupTooLarge), (1, 1)));
    let (joined, epochs_then) = late(Some(Mutant::LateTargetUnchecked));
    assert!(joined.is_ok() && epochs_then == (2, 1), "{epochs_then:?}: it never gets anything");

    // A topic that grows does not end those who consume it: they go on with what they have.
    let mut desk = Desk::new();
    desk.g.config.consumer.records_bytes_max = 3_000;
    desk.topics.set("large", 100);
    desk.beat(wanting_much("a")).expect("it joins");
    desk.topics.set("large", 1_000);
    let a = desk.beat(living("a", 1)).expect("it lives");
    assert_eq!((a.epoch, a.assignment), (1, None));
    assert_eq!(epochs(&mut desk), (2, 1));
    assert_eq!(desk.beat(wanting_much("b")), Err(Fault::GroupTooLarge));
    let before = desk.g.log.len();
    desk.beat(living("a", 1)).expect("it lives");
    assert_eq!(desk.g.log.len(), before);
}

#[test]
fn a_member_that_never_gives_up_is_out_also_after_a_failover() {
    let mut desk = Desk::new();
    desk.beat(joining("a")).expect("it joins");
    desk.beat(joining("b")).expect("it joins");
    desk.beat(living("a", 1)).expect("it lives");
    desk.g.fail_over();
    let all = desk.topics.of("t", 0..4);
    for _ in 0..4 {
        desk.g.pass_ms(1_200);
        desk.beat(having("a", 1, &all)).expect("it lives");
    }
    desk.g.pass_ms(300);
    assert_eq!(desk.beat(having("a", 1, &all)), Err(Fault::UnknownMemberId));
    let b = desk.beat(living("b", 2)).expect("it lives");
    assert_eq!((b.epoch, b.assignment), (3, Some(all)));
}

#[test]
fn quiet_heartbeats_write_nothing() {
    let mut desk = Desk::new();
    desk.beat(joining("a")).expect("it joins");
    let end = desk.g.log.len();
    for _ in 0..3 {
        desk.g.pass_ms(5_000);
        assert_eq!(desk.beat(living("a", 1)).expect("it lives").assignment, None);
    }
    assert_eq!(desk.g.log.len(), end);
    desk.topics.set("other", 3);
    assert_eq!(desk.beat(living("a", 1)).expect("it lives").epoch, 1, "nothing to this group");
    desk.topics.set("t", 5);
    let a = desk.beat(living("a", 1)).expect("it lives");
    assert_eq!((a.epoch, a.assignment), (2, Some(desk.topics.of("t", 0..5))));
}

#[test]
fn offsets_are_fenced_by_member_epochs() {
    let mut desk = Desk::new();
    assert_eq!(desk.g.commit("", -1, 3), None, "nobody is there");
    assert_eq!(desk.kinds(), ["classic"]);
    desk.beat(joining("a")).expect("it joins");
    assert_eq!(desk.kinds(), ["consumer"]);
    assert_eq!(desk.fetch_as(None), Ok(Some(3)), "the offsets stay");
    assert_eq!(desk.g.commit("a", 1, 10), None);
    assert_eq!(desk.g.commit("", -1, 4), Some(GroupFault::UnknownMemberId));
    assert_eq!(desk.g.commit("a", 2, 4), Some(GroupFault::StaleMemberEpoch));
    assert_eq!(desk.g.commit("x", 1, 4), Some(GroupFault::UnknownMemberId));
    assert_eq!(desk.fetch_as(Some(("a", 1))), Ok(Some(10)));
    assert_eq!(desk.fetch_as(Some(("a", 0))), Err(GroupFault::StaleMemberEpoch));
    assert_eq!(desk.fetch_as(Some(("x", 1))), Err(GroupFault::UnknownMemberId));

    // Before version 9 a commit cannot say which epoch it means.
    let old = |member: &str, generation| CommitOffsets {
        group: "g".into(),
        member: member.into(),
        generation,
        is_old: true,
        topics: vec![("t".into(), vec![OffsetOf { offset: 5, ..OffsetOf::default() }])],
        ..CommitOffsets::default()
    };
    for epoch in [0, 1, 2] {
        assert_eq!(desk.g.commit_with(old("a", epoch)), Some(GroupFault::UnsupportedVersion));
    }
    assert_eq!(desk.g.commit_with(old("x", 1)), Some(GroupFault::UnknownMemberId));
    assert_eq!(desk.fetch_as(None), Ok(Some(10)), "nothing came of it");

    // b comes, and a gives up half: it may still commit in its old epoch what it kept.
    desk.beat(joining("b")).expect("it joins");
    desk.beat(living("a", 1)).expect("it lives");
    desk.beat(having("a", 1, &desk.topics.of("t", 0..2))).expect("it lives");
    assert_eq!(desk.g.commit("a", 1, 11), None);
    let of = |partition| CommitOffsets {
        group: "g".into(),
        member: "a".into(),
        generation: 1,
        topics: vec![("t".into(), vec![OffsetOf { partition, ..OffsetOf::default() }])],
        ..CommitOffsets::default()
    };
    assert_eq!(desk.g.commit_with(of(3)), Some(GroupFault::StaleMemberEpoch));
    assert_eq!(desk.g.commit_with(CommitOffsets { generation: 2, ..of(3) }), None, "as in Kafka");
    desk.g.fail_over();
    assert_eq!(desk.fetch_as(None), Ok(Some(11)));
    assert_eq!(desk.g.commit("a", 1, 12), Some(GroupFault::StaleMemberEpoch), "topics not seen");
    assert_eq!(desk.g.commit("a", 2, 12), None);
}

#[test]
fn offsets_are_deleted_and_expire_unless_they_are_in_use() {
    let mut desk = Desk::new();
    desk.beat(joining("a")).expect("it joins");
    let of = |topic: &str| CommitOffsets {
        group: "g".into(),
        member: "a".into(),
        generation: 1,
        topics: vec![(topic.into(), vec![OffsetOf { offset: 5, ..OffsetOf::default() }])],
        ..CommitOffsets::default()
    };
    for topic in ["t", "u", "v"] {
        assert_eq!(desk.g.commit_with(of(topic)), None);
    }
    let topics = vec![("t".into(), vec![0]), ("v".into(), vec![0])];
    let delete = Request::DeleteOffsets(DeleteOffsets { group: "g".into(), topics });
    let Reply::OffsetsDeleted(Ok(outcomes)) = desk.g.now(delete) else { panic!("refused") };
    assert_eq!(outcomes[0].1, [(0, Some(GroupFault::GroupSubscribedToTopic))]);
    assert_eq!(outcomes[1].1, [(0, None)]);
    assert_eq!(desk.g.fetch("v", 0), None);

    // What nobody consumes expires under a living group; the rest with its members, and at last
    // the group.
    let hour = 3_600_000;
    for _ in 0..(169 * 120) {
        desk.g.pass_ms(30_000);
        desk.beat(living("a", 1)).expect("it lives");
    }
    assert_eq!((desk.g.fetch("u", 0), desk.fetch_as(None)), (None, Ok(Some(5))));
    desk.beat(living("a", LEAVE_EPOCH)).expect("it leaves");
    desk.g.pass_ms(hour);
    assert_eq!(desk.kinds(), [""; 0], "older than a week, and nobody is there");
    desk.g.fail_over();
    assert_eq!(desk.kinds(), [""; 0]);
}

#[test]
fn groups_of_both_kinds_are_listed_described_and_deleted() {
    let mut desk = Desk::new();
    desk.beat(joining("a")).expect("it joins");
    desk.g.enter(Join { group: "old".into(), ..consumer() });
    let consumer = ("g".to_owned(), "Stable", "consumer", "consumer".to_owned());
    let classic = ("old".to_owned(), "PreparingRebalance", "classic", "consumer".to_owned());
    assert_eq!(desk.list(List::default()), [consumer.clone(), classic.clone()]);
    let types = |name: &str| List { types: vec![name.into()], ..List::default() };
    assert_eq!(desk.list(types("Consumer")), std::slice::from_ref(&consumer));
    assert_eq!(desk.list(types("classic")), [classic]);
    let stable = List { states: vec!["stable".into()], ..List::default() };
    assert_eq!(desk.list(stable), [consumer]);

    let described = desk.g.describe("g");
    assert_eq!((described.fault, described.state), (Some(GroupFault::OtherType), "Dead"));
    match desk.g.now(Request::DescribeConsumers(vec!["old".into(), "".into()])) {
        Reply::ConsumersDescribed(all) => {
            assert_eq!(all[0].1, Err(GroupFault::OtherType));
            assert_eq!(all[1].1, Err(GroupFault::InvalidGroupId));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(desk.g.commit("a", 1, 7), None);
    assert_eq!(desk.g.delete("g"), Some(GroupFault::NonEmptyGroup));
    desk.beat(living("a", LEAVE_EPOCH)).expect("it leaves");
    assert_eq!(desk.g.delete("g"), None);
    assert_eq!(desk.kinds(), ["classic"]);
    assert_eq!(desk.g.delete("g"), Some(GroupFault::GroupIdNotFound));
    assert_eq!(
        (desk.fetch_as(None), desk.beat(living("a", 1))),
        (Ok(None), Err(Fault::GroupIdNotFound))
    );
    desk.g.fail_over();
    assert_eq!(desk.kinds(), ["classic"]);
}

#[test]
fn a_classic_group_becomes_a_consumer_group_and_a_classic_one_again() {
    let mut desk = Desk::new();
    let (a, b) = desk.two_classic();
    assert_eq!(desk.g.commit(&a, 1, 10), None);
    let c = desk.beat(joining("c")).expect("it joins");
    assert_eq!((c.epoch, c.assignment), (2, Some(Partitions::new())));
    assert_eq!((desk.kinds(), desk.fetch_as(None)), (vec!["consumer"], Ok(Some(10))));
    assert_eq!(desk.g.heartbeat(&a, 1), Err(GroupFault::RebalanceInProgress));
    assert_eq!(desk.g.commit(&a, 1, 11), None, "it goes on meanwhile");
    desk.g.fail_over();

    // Each joins again; the last partition of one of them is for c.
    let mut owned = BTree::new();
    for (id, had) in [(&a, 0..2), (&b, 2..4)] {
        let had = named(had);
        let joined = desk.classic_join(Join { member: id.clone(), ..classic(&had, 1) });
        let generation = joined.generation.expect("it joins");
        assert_eq!(generation.protocol.as_deref(), Some("cooperative-sticky"));
        assert!(generation.leader != *id && generation.members.is_empty());
        let has = desk.classic_sync(id, generation.id).expect("it is told");
        if has != had {
            let again = Join { member: id.clone(), ..classic(&has, generation.id) };
            let generation = desk.classic_join(again).generation.expect("it joins");
            assert_eq!(generation.id, 2);
            assert_eq!(desk.classic_sync(id, 2), Ok(has.clone()));
        }
        owned.insert(id.clone(), has);
    }
    let c = desk.beat(living("c", 2)).expect("it lives").assignment.expect("it is told");
    let count: usize = owned.values().flat_map(|all| all.values()).map(Vec::len).sum();
    assert_eq!((count, coordinator::group::assignor::count(&c)), (3, 1));
    assert_eq!(desk.describe().expect("it is there").state, "Stable");

    // c leaves: what is left is a classic group, which calls its members together.
    desk.beat(living("c", LEAVE_EPOCH)).expect("it leaves");
    assert_eq!((desk.kinds(), desk.g.state()), (vec!["classic"], "PreparingRebalance"));
    assert_eq!(desk.g.heartbeat(&b, 2), Err(GroupFault::RebalanceInProgress));
    assert_eq!(desk.g.commit(&a, 2, 12), None);
    assert_eq!(desk.fetch_as(None), Ok(Some(12)));
    let join_a = desk.g.join(Join { member: a.clone(), ..classic(&owned[&a], 2) });
    assert_eq!(desk.g.joined(join_a), None, "the other one is missing");
    let join_b = desk.g.join(Join { member: b.clone(), ..classic(&owned[&b], 2) });
    let generation = desk.g.joined(join_a).expect("all are there").generation.expect("it joins");
    assert_eq!((generation.id, &generation.leader, generation.members.len()), (3, &a, 2));
    assert!(desk.g.joined(join_b).is_some());
    desk.g.fail_over();
    assert_eq!(desk.kinds(), ["classic"]);
    assert_eq!(desk.g.heartbeat(&a, 2), Err(GroupFault::RebalanceInProgress), "still called");
}

type BTree = std::collections::BTreeMap<String, Named>;

#[test]
fn a_group_in_the_middle_of_a_rebalance_goes_over_and_who_waits_joins_again() {
    let mut desk = Desk::new();
    let (a, _) = desk.two_classic();
    let waits = desk.g.join(Join { member: a.clone(), ..classic(&named(0..2), 1) });
    assert_eq!(desk.g.joined(waits), None);
    desk.beat(joining("c")).expect("it joins");
    let answer = desk.g.joined(waits).expect("answered");
    assert_eq!(answer.generation, Err(GroupFault::RebalanceInProgress));
    let again = desk.classic_join(Join { member: a.clone(), ..classic(&named(0..2), 1) });
    assert!(again.generation.is_ok());
    desk.g.pass_ms(20_000);
    assert_eq!(desk.describe().expect("it is there").members.len(), 1, "c alone is within time");
}

#[test]
fn what_may_not_go_over_is_not_there() {
    let mut desk = Desk::new();
    let (a, _) = desk.two_classic();
    let end = desk.g.log.len();
    assert_eq!(desk.beat(living("c", 1)), Err(Fault::GroupIdNotFound), "it does not join");
    let regex = Beat { pattern: Some("(".into()), ..joining("c") };
    assert!(matches!(desk.beat(regex), Err(Fault::InvalidRegularExpression(_))));
    desk.g.config.consumer.migration = Migration::Downgrade;
    assert_eq!(desk.beat(joining("c")), Err(Fault::GroupIdNotFound));
    desk.g.config.consumer.migration = Migration::Upgrade;
    assert_eq!((desk.g.heartbeat(&a, 1), desk.g.log.len()), (Ok(()), end), "nothing came of it");

    // Other kinds of members stay among themselves.
    let mut desk = Desk::new();
    desk.g.enter(Join { protocol_type: "connect".into(), ..consumer() });
    assert_eq!(desk.beat(joining("c")), Err(Fault::GroupIdNotFound));

    // A group that may not go back goes on as it is.
    let mut desk = Desk::new();
    desk.g.config.consumer.migration = Migration::Upgrade;
    desk.two_classic();
    desk.beat(joining("c")).expect("it joins");
    desk.beat(living("c", LEAVE_EPOCH)).expect("it leaves");
    assert_eq!(
        (desk.kinds(), desk.g.heartbeat("x", 1)),
        (vec!["consumer"], Err(GroupFault::UnknownMemberId))
    );
}

#[test]
fn an_empty_group_makes_room_for_the_other_kind() {
    let mut desk = Desk::new();
    desk.beat(joining("c")).expect("it joins");
    assert_eq!(desk.g.commit("c", 1, 5), None);
    let classic_one = Join { member: "x".into(), ..classic(&Named::new(), -1) };
    let generation = desk.classic_join(classic_one.clone()).generation.expect("it joins");
    assert_eq!((generation.id, desk.kinds()), (2, vec!["consumer"]));
    assert_eq!(desk.g.leave(vec![Leaver { member: "x".into(), ..Leaver::default() }]), [None]);
    desk.beat(living("c", LEAVE_EPOCH)).expect("it leaves");
    assert_eq!(desk.classic_join(classic_one).generation, Err(GroupFault::UnknownMemberId));
    assert_eq!(desk.kinds(), ["consumer"], "nothing came of it");
    let refused = Join { protocols: vec![], ..consumer() };
    let refused = desk.classic_join(refused).generation;
    assert_eq!(refused, Err(GroupFault::InconsistentGroupProtocol));
    assert_eq!(desk.kinds(), ["consumer"]);

    let (_, join) = desk.g.enter(consumer());
    assert_eq!((desk.kinds(), desk.fetch_as(None)), (vec!["classic"], Ok(Some(5))));
    desk.g.pass_ms(3_000);
    assert_eq!(desk.g.joined(join).expect("it joins").generation.expect("it does").id, 1);
    desk.g.fail_over();
    assert_eq!((desk.kinds(), desk.g.state()), (vec!["classic"], "Empty"));
    let c = desk.beat(joining("c")).expect("it joins");
    assert_eq!((c.epoch, desk.kinds(), desk.fetch_as(None)), (1, vec!["consumer"], Ok(Some(5))));
    desk.g.fail_over();
    assert_eq!(
        (desk.kinds(), desk.beat(living("c", 1)).map(|c| c.epoch)),
        (vec!["consumer"], Ok(1))
    );
}

#[test]
fn a_static_member_changes_its_protocol_in_place() {
    let mut desk = Desk::new();
    let mut fixed = classic(&Named::new(), -1);
    fixed.instance = Some("i".into());
    let (_, other) = desk.g.enter(classic(&Named::new(), -1));
    let first = desk.g.join(fixed.clone());
    desk.g.pass_ms(6_000);
    assert!(desk.g.joined(first).is_some() && desk.g.joined(other).is_some());
    // It is restarted with the new protocol, and did not say good-bye.
    let new = Beat { instance: Some("i".into()), ..joining("new") };
    desk.beat(new).expect("it joins");
    assert_eq!(desk.kinds(), ["consumer"]);
    assert_eq!(desk.describe().expect("it is there").members.len(), 2);
    // And back: no member of the new protocol is left.
    let back = desk.classic_join(fixed);
    assert!(back.member.starts_with("i-"), "{back:?}");
    let generation = back.generation.expect("it joins").id;
    assert_eq!(desk.kinds(), ["classic"]);
    assert_eq!(desk.g.describe("g").members.len(), 2);
    let sync = desk.classic_sync(&back.member, generation);
    assert_eq!(sync, Err(GroupFault::RebalanceInProgress));
}

#[test]
fn whatever_is_cut_off_the_log_is_a_log() {
    let mut desk = Desk::new();
    let (a, _) = desk.two_classic();
    desk.beat(joining("c")).expect("it joins");
    desk.beat(Beat { pattern: Some("u|t".into()), ..joining("d") }).expect("it joins");
    desk.classic_join(Join { member: a, ..classic(&named(0..2), 1) }).generation.expect("it joins");
    desk.beat(living("d", LEAVE_EPOCH)).expect("it leaves");
    desk.beat(living("c", LEAVE_EPOCH)).expect("it leaves");
    let log = desk.g.log.clone();
    for end in 0..=log.len() {
        let mut desk = Desk::new();
        desk.g.log = log[..end].to_vec();
        desk.g.fail_over();
        for (key, value) in &desk.g.log {
            let record: Record = Stored::load(key.as_deref(), value.as_deref()).expect("ours");
            assert!(!matches!(record, Record::Unknown(_)));
        }
        desk.g.pass_ms(120_000);
        let c = desk.beat(joining("n")).expect("it joins");
        assert_eq!(c.assignment, Some(desk.topics.of("t", 0..4)), "cut after {end}");
    }
}
