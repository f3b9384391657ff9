//! Groups that change their protocol while they live, and members of both protocols in one group.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::classic::{self, Join, Joined, Present};
use coordinator::group::consumer::config::Migration;
use coordinator::group::consumer::convert::{self, ClassicConsumer, ClassicGroup, UpgradeError};
use coordinator::group::consumer::embedded::{self, Named};
use coordinator::group::consumer::heartbeat::Heartbeat;
use coordinator::group::consumer::records::Change;
use coordinator::group::consumer::{ConsumerGroup, Effects, Fault, LEAVE_EPOCH, Soft, State};
use engine::ids::{PartitionIndex, TopicId};

use crate::steps::{Desk, joining, living};
use crate::world::Random;

/// A subscription of version 2: topics, what it has, and since when.
fn said(topics: &[&str], owned: &Named, generation: i32) -> Rc<[u8]> {
    let mut bytes = vec![0, 2];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    // An assignment has the same partitions in front, after its version.
    let partitions = embedded::write_assignment(2, owned);
    bytes.extend(&partitions[2..partitions.len() - 4]);
    bytes.extend(generation.to_be_bytes());
    bytes.into()
}

fn named(topic: &str, partitions: impl IntoIterator<Item = i32>) -> Named {
    Named::from([(topic.into(), partitions.into_iter().map(PartitionIndex).collect())])
}

fn person(id: &str, has: &Named) -> ClassicConsumer {
    ClassicConsumer {
        id: id.into(),
        instance: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        session_ms: 10_000,
        rebalance_ms: 5_000,
        protocols: vec![
            ("cooperative-sticky".into(), said(&["t"], &Named::new(), -1)),
            ("range".into(), said(&["t"], &Named::new(), -1)),
        ],
        assignment: embedded::write_assignment(2, has).into(),
    }
}

fn two() -> ClassicGroup {
    ClassicGroup {
        generation: 7,
        protocol: Some("cooperative-sticky".into()),
        leader: Some("a".into()),
        members: vec![person("a", &named("t", 0..3)), person("b", &named("t", 3..6))],
    }
}

impl Desk {
    fn upgrade(&mut self, classic: &ClassicGroup) -> Result<(), UpgradeError> {
        let (group, records) = convert::upgrade(&"group".into(), classic, &self.scene())?;
        let mut slot = None;
        records.iter().for_each(|record| ConsumerGroup::apply(&mut slot, &record.change));
        assert_eq!(slot.as_ref(), Some(&group), "the records make the group");
        self.soft = Soft::default();
        self.soft.take_up(&group, &self.config, &self.config.times.usual, self.now);
        self.group = Some(group);
        Ok(())
    }

    fn join(&mut self, join: Join) -> Result<Joined, Fault> {
        let (mut out, mut soft) = (Effects::default(), std::mem::take(&mut self.soft));
        let group = self.group.take().expect("it is there");
        let answer =
            classic::join(&"group".into(), &group, &mut soft, self.scene(), join, &mut out);
        (self.group, self.soft) = (Some(group), soft);
        self.keep(out);
        answer
    }

    fn sync(&mut self, present: &Present) -> Result<Named, Fault> {
        let mut soft = std::mem::take(&mut self.soft);
        let group = self.group.take().expect("it is there");
        let answer = classic::sync(&group, &mut soft, self.scene(), present, None);
        (self.group, self.soft) = (Some(group), soft);
        answer.map(|bytes| embedded::read_assignment(&bytes).expect("ours"))
    }

    fn classic_beat(&mut self, present: &Present) -> Result<(), Fault> {
        let mut soft = std::mem::take(&mut self.soft);
        let group = self.group.take().expect("it is there");
        let answer = classic::heartbeat(&group, &mut soft, self.scene(), present);
        (self.group, self.soft) = (Some(group), soft);
        answer
    }

    fn leave(&mut self, leavers: &[(String, Option<String>)]) -> (Vec<Result<(), Fault>>, Effects) {
        let (mut out, mut soft) = (Effects::default(), std::mem::take(&mut self.soft));
        let group = self.group.take().expect("it is there");
        let scene = self.scene();
        let answer = classic::leave(&"group".into(), &group, &mut soft, scene, leavers, &mut out);
        (self.group, self.soft) = (Some(group), soft);
        for record in &out.records {
            ConsumerGroup::apply(&mut self.group, &record.change);
        }
        (answer, out)
    }
}

fn rejoin(member: &str, owned: &Named, generation: i32) -> Join {
    Join {
        member: member.into(),
        instance: None,
        session_ms: 10_000,
        rebalance_ms: 5_000,
        protocol_type: "consumer".into(),
        protocols: vec![("cooperative-sticky".into(), said(&["t"], owned, generation))],
        id_required: true,
        client_id: "c".into(),
        client_host: "/h".into(),
    }
}

fn present(member: &str, generation: i32) -> Present {
    Present { member: member.into(), instance: None, generation }
}

#[test]
fn a_classic_group_goes_over_and_back_and_nobody_loses_what_it_keeps() {
    let mut desk = Desk::new(&[("t", 6)]);
    desk.upgrade(&two()).expect("it may");
    assert_eq!((desk.group().epoch(), desk.group().state()), (7, State::Stable));
    assert_eq!(desk.classic_beat(&present("a", 7)), Ok(()));

    let c = desk.beat(joining("c")).expect("it joins");
    assert_eq!((c.epoch, c.assignment), (8, Some(Partitions::new())));
    assert_eq!(desk.classic_beat(&present("a", 7)), Err(Fault::RebalanceInProgress));
    assert_eq!(desk.classic_beat(&present("a", 6)), Err(Fault::IllegalGeneration));
    assert_eq!(desk.classic_beat(&present("c", 8)), Err(Fault::UnknownMemberId));

    // a joins again with what it has; it is to give up one, and goes on using the others.
    let joined = desk.join(rejoin("a", &named("t", 0..3), 7)).expect("it joins");
    assert_eq!((joined.generation, joined.protocol.as_str()), (7, "cooperative-sticky"));
    let kept = desk.sync(&present("a", 7)).expect("it is told");
    assert_eq!(kept, named("t", 0..2));
    assert_eq!(desk.classic_beat(&present("a", 7)), Err(Fault::RebalanceInProgress));
    assert_eq!(desk.beat(living("c", 8)).expect("it lives").assignment, None, "not free yet");
    let joined = desk.join(rejoin("a", &kept, 7)).expect("it joins");
    assert_eq!(joined.generation, 8);
    assert_eq!(desk.sync(&present("a", 8)), Ok(kept));
    assert_eq!(desk.classic_beat(&present("a", 8)), Ok(()));
    let c = desk.beat(living("c", 8)).expect("it lives");
    assert_eq!(c.assignment, Some(desk.of("t", [2])));

    // b speaks the eager protocol: it has given up everything before it joins.
    let joined = desk.join(rejoin("b", &Named::new(), 7)).expect("it joins");
    assert_eq!(joined.generation, 8);
    assert_eq!(desk.sync(&present("b", 8)), Ok(named("t", 3..5)));
    let c = desk.beat(living("c", 8)).expect("it lives");
    assert_eq!((c.assignment, desk.group().state()), (Some(desk.of("t", [2, 5])), State::Stable));

    // The last one that speaks the new protocol leaves.
    let members: Vec<bool> = desk.group().members().map(|(_, m)| m.classic.is_some()).collect();
    assert_eq!(members, [true, true, false]);
    let leavers = [("c".to_owned(), None), ("x".to_owned(), None)];
    let (answers, out) = desk.leave(&leavers);
    assert_eq!(answers, [Ok(()), Err(Fault::UnknownMemberId)]);
    let classic = out.downgraded.expect("only classic members are left");
    assert_eq!(out.records.last().map(|record| &record.change), Some(&Change::Group(None)));
    assert_eq!((desk.group.as_ref(), desk.soft.deadline()), (None, None));
    assert_eq!((classic.generation, classic.leader.as_deref()), (8, Some("a")));
    assert_eq!(classic.protocol.as_deref(), Some("cooperative-sticky"));
    let has = |at: usize| embedded::read_assignment(&classic.members[at].assignment);
    assert_eq!((has(0), has(1)), (Ok(named("t", 0..2)), Ok(named("t", 3..5))));
    assert_eq!(classic.members[0].session_ms, 10_000);
    // And forth again.
    desk.upgrade(&classic).expect("it may");
    assert_eq!(desk.group().epoch(), 8);
}

#[test]
fn what_cannot_go_over_stays() {
    let mut desk = Desk::new(&[("t", 6)]);
    let mut classic = two();
    classic.members[1].assignment = embedded::write_assignment(2, &named("t", 2..4)).into();
    let shared = UpgradeError::Shared { topic: "t".into(), partition: PartitionIndex(2) };
    assert_eq!(desk.upgrade(&classic), Err(shared));
    classic.members[1].assignment = Rc::from(&[0u8, 1, 2][..]);
    assert!(matches!(desk.upgrade(&classic), Err(UpgradeError::Unreadable { .. })));
    desk.config.members_max = 1;
    assert_eq!(desk.upgrade(&two()), Err(UpgradeError::TooLarge));
    desk.config.migration = Migration::Downgrade;
    assert_eq!(desk.upgrade(&two()), Err(UpgradeError::NotWanted));

    // A group that may not go back goes on as it is.
    let mut desk = Desk::new(&[("t", 6)]);
    desk.config.migration = Migration::Upgrade;
    desk.upgrade(&two()).expect("it may");
    desk.beat(joining("c")).expect("it joins");
    let leave = Heartbeat { epoch: LEAVE_EPOCH, ..living("c", 8) };
    desk.beat(leave).expect("it leaves");
    assert_eq!((desk.group().members().len(), desk.group().epoch()), (2, 9));
}

#[test]
fn classic_members_join_a_consumer_group_by_the_old_rules() {
    let mut desk = Desk::new(&[("t", 6)]);
    desk.beat(joining("c")).expect("it joins");
    let nobody = || rejoin("", &Named::new(), -1);
    let Err(Fault::MemberIdRequired(id)) = desk.join(nobody()) else { panic!("no id is given") };
    assert!(id.starts_with("c-"));
    assert!(desk.last.is_empty());
    assert_eq!(desk.join(rejoin(&id, &Named::new(), -1)).expect("it joins").generation, 2);
    let other = Join { protocol_type: "connect".into(), ..nobody() };
    assert_eq!(desk.join(other), Err(Fault::InconsistentGroupProtocol));
    let mut other = rejoin("d", &Named::new(), -1);
    other.protocols[0].0 = "mine".into();
    assert_eq!(desk.join(other), Err(Fault::InconsistentGroupProtocol), "nothing in common");
    let wrong = Some("range");
    let group = desk.group.clone().expect("it is there");
    let mut soft = std::mem::take(&mut desk.soft);
    let answer = classic::sync(&group, &mut soft, desk.scene(), &present(&id, 2), wrong);
    assert_eq!(answer, Err(Fault::InconsistentGroupProtocol));
    desk.soft = soft;

    // It never asks for its assignment: its own rebalance timeout ends it.
    desk.wait(Duration::from_secs(5));
    assert_eq!(desk.group().members().map(|(id, _)| &**id).collect::<Vec<_>>(), ["c"]);

    // A static one is given an id and keeps its place.
    let fixed =
        |member: &str| Join { instance: Some("i".into()), ..rejoin(member, &Named::new(), -1) };
    let first = desk.join(fixed("")).expect("it joins").member;
    let second = desk.join(fixed("")).expect("it takes over").member;
    assert!(first != second && first.starts_with("i-"));
    assert_eq!(desk.join(fixed(&first)), Err(Fault::FencedInstanceId));
    assert_eq!(desk.group().members().len(), 2);
    let by_instance = [(String::new(), Some("i".to_owned()))];
    assert_eq!(desk.leave(&by_instance).0, [Ok(())]);
    assert_eq!(desk.group().members().len(), 1);
}

/// A client of the classic protocol, cooperative or eager.
#[derive(Debug)]
struct Old {
    id: String,
    generation: i32,
    eager: bool,
    owned: Named,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Join,
    Sync,
    Live,
}

impl Old {
    fn work(&mut self, desk: &mut Desk) {
        match self.step {
            Step::Join => {
                if self.eager {
                    self.owned.clear();
                }
                match desk.join(rejoin(&self.id, &self.owned, self.generation)) {
                    Ok(joined) => {
                        self.generation = joined.generation;
                        self.step = Step::Sync;
                    }
                    Err(Fault::UnknownMemberId) => self.start_over(),
                    Err(other) => panic!("{other:?}"),
                }
            }
            Step::Sync => match desk.sync(&present(&self.id, self.generation)) {
                Ok(told) => {
                    let flat = |named: &Named| -> Vec<(String, PartitionIndex)> {
                        let all = named.iter();
                        all.flat_map(|(t, all)| all.iter().map(|p| (t.clone(), *p))).collect()
                    };
                    let (had, has) = (flat(&self.owned), flat(&told));
                    // Who gave something up joins again at once.
                    let gave_up = had.iter().any(|one| !has.contains(one));
                    self.owned = told;
                    self.step = if gave_up { Step::Join } else { Step::Live };
                }
                Err(Fault::RebalanceInProgress) => self.step = Step::Join,
                Err(_) => self.start_over(),
            },
            Step::Live => match desk.classic_beat(&present(&self.id, self.generation)) {
                Ok(()) => {}
                Err(Fault::RebalanceInProgress) => self.step = Step::Join,
                Err(_) => self.start_over(),
            },
        }
    }

    fn start_over(&mut self) {
        self.owned.clear();
        self.generation = -1;
        self.step = Step::Join;
    }
}

/// Members of both protocols, in any order, slowly or quickly: one owner at all times, and in the
/// end everything has one.
#[test]
fn both_protocols_share_a_group_safely() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut desk = Desk::new(&[("t", 1 + random.below(12) as i32)]);
        let mut new: BTreeMap<String, (i32, Partitions)> = BTreeMap::new();
        desk.beat(joining("new-0")).expect("it joins");
        new.insert("new-0".into(), (0, Partitions::new()));
        let mut old: Vec<Old> = Vec::new();
        for round in 0..400 {
            desk.wait(Duration::from_millis(200));
            if round < 200 && random.once_in(30) && old.len() + new.len() < 7 {
                let number = old.len() + new.len();
                if random.once_in(2) {
                    new.insert(format!("new-{number}"), (0, Partitions::new()));
                } else {
                    old.push(Old {
                        id: format!("old-{number}"),
                        generation: -1,
                        eager: random.once_in(2),
                        owned: Named::new(),
                        step: Step::Join,
                    });
                }
            }
            for old in &mut old {
                if random.once_in(3) {
                    old.work(&mut desk);
                }
            }
            for (id, (epoch, owned)) in &mut new {
                if random.once_in(3) {
                    let beat = if *epoch == 0 {
                        joining(id)
                    } else {
                        Heartbeat { owned: Some(owned.clone()), ..living(id, *epoch) }
                    };
                    match desk.beat(beat) {
                        Ok(beaten) => {
                            *epoch = beaten.epoch;
                            *owned = beaten.assignment.unwrap_or_else(|| owned.clone());
                        }
                        Err(_) => (*epoch, *owned) = (0, Partitions::new()),
                    }
                }
            }
            let topic = desk.of("t", [0]).into_keys().next().expect("there is one");
            check_owners(seed, topic, desk.group(), &old, &new);
        }
        let owned: usize =
            old.iter().flat_map(|old| old.owned.values()).map(Vec::len).sum::<usize>()
                + new
                    .values()
                    .map(|(_, owned)| coordinator::group::assignor::count(owned))
                    .sum::<usize>();
        assert_eq!(desk.group().state(), State::Stable, "seed {seed}: {old:?} {new:?}");
        let all = desk.group().members().map(|(id, _)| desk.group().target(id));
        let wanted: usize = all.map(|target| coordinator::group::assignor::count(&target)).sum();
        assert_eq!(owned, wanted, "seed {seed}");
    }
}

/// Those whom the group has struck off are owners no more, whatever they believe.
fn check_owners(
    seed: u64,
    topic: TopicId,
    group: &ConsumerGroup,
    old: &[Old],
    new: &BTreeMap<String, (i32, Partitions)>,
) {
    let mut owners: BTreeMap<PartitionIndex, &str> = BTreeMap::new();
    let of_old = old.iter().filter(|old| group.member(&old.id).is_some()).flat_map(|old| {
        old.owned.values().flatten().map(move |partition| (*partition, old.id.as_str()))
    });
    let of_new = new.iter().flat_map(|(id, (_, owned))| {
        owned.get(&topic).into_iter().flatten().map(move |partition| (*partition, id.as_str()))
    });
    for (partition, id) in of_old.chain(of_new) {
        if let Some(other) = owners.insert(partition, id) {
            panic!("seed {seed}: OneOwnerPerPartition: {other} and {id} have {partition}");
        }
    }
}
