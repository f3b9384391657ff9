//! The scenarios of replication by number (reliability.md, B33–B45), each as a short story of a
//! few cores and logs without bytes. What happens by chance is in `simulation.rs`.

#![allow(missing_docs)]

mod world;

use std::time::Duration;

use engine::epochs::EpochEnd;
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use engine::time::Instant;
use replication::ask::{
    AlterIsr, AnswerPart, Ask, FetchFault, FetchPart, IsrAnswer, Outcome, ReplicaFetch,
};
use replication::config::ReplicationConfig;
use replication::follower::Step;
use replication::leader::{Acks, NotEnoughReplicas, Verdict};
use replication::role::{Assignment, Change, PartitionEpoch, Replica};

use world::log::{Entry, ModelLog};
use world::part_id;

const A: i32 = 1;
const B: i32 = 2;
const C: i32 = 3;

/// One broker's log and role.
struct Side {
    id: i32,
    log: ModelLog,
    replica: Replica,
    min_in_sync: usize,
}

fn config() -> ReplicationConfig {
    ReplicationConfig { lag_max: Duration::from_secs(1), ..ReplicationConfig::default() }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn assignment(leader: i32, epoch: i32, version: i32, isr: &[i32]) -> Assignment {
    Assignment {
        leader: Some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(version),
        replicas: [A, B, C].map(BrokerId).to_vec(),
        isr: isr.iter().copied().map(BrokerId).collect(),
    }
}

impl Side {
    /// With so many durable records of each epoch.
    fn new(id: i32, records: &[(i32, u64)]) -> Side {
        let mut log = ModelLog::default();
        for &(epoch, count) in records {
            for _ in 0..count {
                let value = log.end();
                log.append(Entry { epoch: LeaderEpoch(epoch), value });
            }
        }
        log.durable = log.end();
        let replica = Replica::new(BrokerId(id), config(), Offset::ZERO);
        Side { id, log, replica, min_in_sync: 1 }
    }

    fn assign(&mut self, new: Assignment) -> Change {
        self.replica.on_assignment(new, &self.log.view(), self.min_in_sync, at(0))
    }

    fn append(&mut self, count: u64) {
        let epoch = self.replica.epoch();
        for _ in 0..count {
            self.log.append(Entry { epoch, value: 1_000 + self.log.end() });
        }
        self.log.durable = self.log.end();
        let end = Offset::new(self.log.end());
        let leader = self.replica.leader_mut().expect("leads");
        leader.on_append(end, at(0));
        leader.on_durable(end);
    }

    fn standing(&self) -> FetchPart {
        self.replica.follower().expect("follows").standing(part_id(0), &self.log.view())
    }

    fn watermark(&self) -> u64 {
        self.replica.high_watermark().value()
    }

    fn epochs(&self) -> Vec<i32> {
        self.log.entries.iter().map(|entry| entry.epoch.0).collect()
    }

    fn ask(&mut self, now: Instant) -> Option<AlterIsr> {
        match self.replica.leader_mut().expect("leads").ask(now)? {
            Ask::AlterIsr(asked) => Some(asked),
            Ask::NewTerm { .. } => None,
        }
    }
}

fn fetch_of(follower: &Side, part: FetchPart) -> ReplicaFetch {
    ReplicaFetch {
        replica: BrokerId(follower.id),
        broker_epoch: BrokerEpoch(follower.id.into()),
        part,
    }
}

/// One fetch and its answer, carried out; what happened.
fn round(leader: &mut Side, follower: &mut Side, now: Instant) -> String {
    let fetch = fetch_of(follower, follower.standing());
    let head = (leader.replica.high_watermark(), Offset::new(leader.log.start));
    let verdict = {
        let view = leader.log.view();
        leader.replica.leader_mut().expect("leads").on_fetch(&fetch, &view, now)
    };
    let from = follower.log.end();
    let outcome = match verdict {
        Ok(Verdict::Fits) => {
            let entries = leader.log.read(from, usize::MAX);
            Outcome::Records((!entries.is_empty()).then_some(entries))
        }
        Ok(Verdict::Diverging(end)) => Outcome::Diverging(end),
        Err(fault) => Outcome::Failed(fault),
    };
    let high_watermark = head.0.max(leader.replica.high_watermark());
    let answer = AnswerPart { id: part_id(0), high_watermark, log_start: head.1, outcome };
    let epoch = fetch.part.leader_epoch;
    carry_out(follower, epoch, &answer)
}

fn carry_out(follower: &mut Side, epoch: LeaderEpoch, answer: &AnswerPart<Vec<Entry>>) -> String {
    let step = follower.replica.on_answer(epoch, answer, &follower.log.view());
    match step {
        Step::Append => {
            let Outcome::Records(Some(entries)) = &answer.outcome else { unreachable!() };
            entries.iter().for_each(|entry| follower.log.append(*entry));
            follower.log.durable = follower.log.end();
            let end = Offset::new(follower.log.end());
            let core = follower.replica.follower_mut().expect("follows");
            core.on_appended(answer.high_watermark, end);
            format!("took {}", entries.len())
        }
        Step::Truncate(to) => {
            follower.log.truncate_to(to.value());
            let core = follower.replica.follower_mut().expect("follows");
            core.on_truncated(Offset::new(follower.log.start), to);
            format!("cut to {to}")
        }
        Step::Restart(to) => {
            follower.log.restart_at(to.value());
            follower.replica.follower_mut().expect("follows").on_truncated(to, to);
            format!("begins at {to}")
        }
        Step::Idle => "idle".into(),
        Step::Ignore => "ignored".into(),
        Step::Reposition => "again".into(),
        Step::BackOff(_, fault) => format!("{fault:?}"),
    }
}

/// Rounds until there is nothing to do.
fn follow(leader: &mut Side, follower: &mut Side) -> Vec<String> {
    let mut happened = Vec::new();
    for _ in 0..20 {
        match round(leader, follower, at(0)) {
            done if done == "idle" => return happened,
            other => happened.push(other),
        }
    }
    panic!("it does not end: {happened:?}");
}

/// B33, KIP-101: the watermark of a follower is late, so that cutting there would lose what was
/// committed; only what parts by epoch is cut.
#[test]
fn b33_a_log_is_cut_where_the_epochs_part_and_not_at_the_watermark() {
    let (mut a, mut b) = (Side::new(A, &[(0, 6)]), Side::new(B, &[(0, 5)]));
    let _ = (a.assign(assignment(A, 1, 1, &[A, B])), b.assign(assignment(A, 1, 1, &[A, B])));
    assert_eq!(b.watermark(), 0, "it knows of nothing committed");
    assert_eq!(follow(&mut a, &mut b), ["took 1"], "and cuts nothing");
    // B leads next; A has one that B never got.
    a.append(1);
    let _ = (a.assign(assignment(B, 2, 2, &[B])), b.assign(assignment(B, 2, 2, &[B])));
    b.append(2);
    assert_eq!(follow(&mut b, &mut a), ["cut to 6", "took 2"]);
    assert_eq!(a.log.entries, b.log.entries);
}

/// B34, KIP-279: A→B→A so fast that epochs are unknown to the other side.
#[test]
fn b34_logs_meet_after_fast_failovers_with_epochs_that_only_one_side_knows() {
    // Same length, other epochs: comparing offsets alone sees nothing.
    let mut a = Side::new(A, &[(0, 4), (3, 2)]);
    let mut b = Side::new(B, &[(0, 4), (1, 1), (2, 1)]);
    let _ = (a.assign(assignment(A, 4, 9, &[A])), b.assign(assignment(A, 4, 9, &[A])));
    assert_eq!(follow(&mut a, &mut b), ["cut to 4", "took 2"]);
    assert_eq!(b.epochs(), [0, 0, 0, 0, 3, 3]);
}

/// B35, KAFKA-7164: the leader is the same broker, and the epoch rose by more than one.
#[test]
fn b35_a_follower_that_missed_epochs_compares_again() {
    let (mut a, mut b) = (Side::new(A, &[(0, 3)]), Side::new(B, &[(0, 3), (1, 2)]));
    let _ = (a.assign(assignment(A, 0, 0, &[A, B])), b.assign(assignment(A, 0, 0, &[A, B])));
    // In between B led in epoch 1; A has led in 2 and wrote.
    let _ = (a.assign(assignment(A, 2, 4, &[A])), b.assign(assignment(A, 2, 4, &[A])));
    a.append(3);
    assert_eq!(follow(&mut a, &mut b), ["cut to 3", "took 3"]);
}

/// B36, KAFKA-10706 and 7415: elections without a record in between.
#[test]
fn b36_elections_without_data_end_and_know_where_their_terms_began() {
    let (mut a, mut b) = (Side::new(A, &[(0, 3)]), Side::new(B, &[(0, 3), (4, 2)]));
    for (epoch, version) in [(5, 5), (6, 6), (7, 7)] {
        let _ = a.assign(assignment(A, epoch, version, &[A]));
        let _ = b.assign(assignment(A, epoch, version, &[A]));
    }
    // A wrote nothing in 5, 6 or 7: that epoch 4 is none of its own follows from where 7 began.
    assert_eq!(follow(&mut a, &mut b), ["cut to 3"]);
    assert_eq!(b.log.end(), 3);
}

/// B37, KAFKA-7128.
#[test]
fn b37_a_replica_joins_only_when_it_has_what_the_leader_had_when_its_term_began() {
    let (mut a, mut c) = (Side::new(A, &[(0, 10)]), Side::new(C, &[(0, 4)]));
    // A does not know how far the watermark was, and B says nothing.
    let _ = (a.assign(assignment(A, 1, 1, &[A, B])), c.assign(assignment(A, 1, 1, &[A, B])));
    let _ = round(&mut a, &mut c, at(1));
    assert_eq!(a.watermark(), 0);
    assert_eq!(a.ask(at(1)), None, "at the watermark, and before the term's start");
    let _ = round(&mut a, &mut c, at(1));
    let asked = a.ask(at(1)).expect("it has everything");
    assert_eq!(asked.isr.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [A, B, C]);
    assert_eq!(asked.isr[2].1, Some(BrokerEpoch(3)), "in the registration that fetched");
}

/// B38: the maximal ISR, in both directions.
#[test]
fn b38_whoever_may_be_in_sync_counts_for_the_watermark() {
    let (mut a, mut b, mut c) =
        (Side::new(A, &[(0, 5)]), Side::new(B, &[(0, 5)]), Side::new(C, &[(0, 5)]));
    for side in [&mut a, &mut b, &mut c] {
        let _ = side.assign(assignment(A, 1, 1, &[A, B]));
    }
    let _ = (round(&mut a, &mut b, at(0)), round(&mut a, &mut c, at(0)));
    let asked = a.ask(at(0)).expect("C has caught up");
    assert_eq!(a.watermark(), 5);
    a.append(1);
    let _ = (round(&mut a, &mut b, at(1)), round(&mut a, &mut b, at(1)));
    assert_eq!(a.watermark(), 5, "the controller may have taken C in already");
    let leader = a.replica.leader_mut().unwrap();
    // Nobody knows: C still counts, and the same is asked again.
    leader.on_isr_answer(asked.attempt, &IsrAnswer::Unknown, at(2));
    assert_eq!(a.watermark(), 5);
    assert_eq!(a.ask(at(2)), None, "not at once");
    let again = a.ask(at(100)).expect("a pause later");
    assert_eq!((again.partition_epoch, &again.isr), (asked.partition_epoch, &asked.isr));
    // Refused now: but the first attempt may still be on its way. Only a new version ends that.
    let leader = a.replica.leader_mut().unwrap();
    leader.on_isr_answer(again.attempt, &IsrAnswer::Ineligible, at(100));
    assert_eq!(a.watermark(), 5);
    let void = a.ask(at(1_000)).expect("another pause later");
    assert_eq!(void.isr.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [A, B]);
    let accepted = IsrAnswer::Accepted {
        partition_epoch: PartitionEpoch(2),
        isr: vec![BrokerId(A), BrokerId(B)],
    };
    let leader = a.replica.leader_mut().unwrap();
    assert!(leader.on_isr_answer(void.attempt, &accepted, at(1_000)));
    assert_eq!(a.watermark(), 6);
}

/// B39, KAFKA-15583.
#[test]
fn b39_below_min_insync_replicas_nothing_is_committed() {
    let mut a = Side { min_in_sync: 2, ..Side::new(A, &[(0, 5)]) };
    let mut b = Side::new(B, &[(0, 5)]);
    let _ = (a.assign(assignment(A, 1, 1, &[A, B])), b.assign(assignment(A, 1, 1, &[A, B])));
    let _ = round(&mut a, &mut b, at(0));
    assert_eq!(a.watermark(), 5);
    a.append(1);
    let asked = a.ask(at(1_500)).expect("B is late");
    assert_eq!(asked.isr, [(BrokerId(A), None)]);
    let _ = a.assign(assignment(A, 1, 2, &[A]));
    assert_eq!(a.watermark(), 5, "frozen: B may be elected out of the ELR");
    let leader = a.replica.leader_mut().unwrap();
    let refused = NotEnoughReplicas { in_sync: 1, needed: 2 };
    assert_eq!(leader.admit(Acks::All), Err(refused));
    assert!(leader.admit(Acks::Leader).is_ok());
    assert!(leader.set_min_in_sync(1), "and it rises when fewer are demanded");
}

/// B40: what the controller refuses is not asked again at once, and no longer counted.
#[test]
fn b40_a_refused_replica_does_not_hold_the_watermark_back() {
    let (mut a, mut c) = (Side::new(A, &[(0, 5)]), Side::new(C, &[(0, 5)]));
    let _ = (a.assign(assignment(A, 1, 1, &[A])), c.assign(assignment(A, 1, 1, &[A])));
    let _ = round(&mut a, &mut c, at(0));
    let asked = a.ask(at(0)).expect("C has caught up");
    a.append(1);
    assert_eq!(a.watermark(), 5);
    let leader = a.replica.leader_mut().unwrap();
    assert!(leader.on_isr_answer(asked.attempt, &IsrAnswer::Ineligible, at(1)));
    assert_eq!(a.watermark(), 6);
    let _ = (round(&mut a, &mut c, at(2)), round(&mut a, &mut c, at(2)));
    assert_eq!(a.ask(at(2)), None, "not at once");
    assert!(a.ask(at(500)).is_some());
    // An older registration of the same broker is nobody.
    let mut stale = fetch_of(&c, c.standing());
    stale.broker_epoch = BrokerEpoch(2);
    let view = a.log.view();
    let leader = a.replica.leader_mut().unwrap();
    assert_eq!(leader.on_fetch(&stale, &view, at(3)), Err(FetchFault::NotReplica));
}

/// B41: removed and added again, seen by the leader in one step.
#[test]
fn b41_what_a_replica_promised_before_it_was_replaced_does_not_count() {
    let (mut a, mut c) = (Side::new(A, &[(0, 5)]), Side::new(C, &[(0, 5)]));
    let _ = (a.assign(assignment(A, 1, 1, &[A])), c.assign(assignment(A, 1, 1, &[A])));
    let _ = round(&mut a, &mut c, at(0));
    let old = fetch_of(&c, c.standing());
    let _ = a.assign(assignment(A, 1, 3, &[A]));
    assert_eq!(a.ask(at(0)), None, "its log may be gone");
    let view = a.log.view();
    let leader = a.replica.leader_mut().unwrap();
    let late = leader.on_fetch(&old, &view, at(1));
    assert_eq!(late, Err(FetchFault::UnknownEpoch), "a position from before that");
    let mut c = Side::new(C, &[]);
    let _ = c.assign(assignment(A, 1, 3, &[A]));
    assert_eq!(follow(&mut a, &mut c), ["took 5"]);
    assert!(a.ask(at(1)).is_some(), "now it has everything again");
}

/// B42: a leader that slept through its replacement.
#[test]
fn b42_a_zombie_leader_commits_nothing_and_steps_down_by_epoch() {
    let (mut a, mut b) = (Side::new(A, &[(0, 5)]), Side::new(B, &[(0, 5)]));
    let _ = (a.assign(assignment(A, 1, 1, &[A, B])), b.assign(assignment(A, 1, 1, &[A, B])));
    let _ = round(&mut a, &mut b, at(0));
    let _ = b.assign(assignment(B, 2, 2, &[B]));
    b.append(2);
    a.append(3);
    assert_eq!(a.watermark(), 5, "B does not fetch from it any more");
    let mut c = Side::new(C, &[(0, 5)]);
    let _ = c.assign(assignment(B, 2, 2, &[B]));
    let newer = fetch_of(&c, c.standing());
    let view = a.log.view();
    let leader = a.replica.leader_mut().unwrap();
    assert_eq!(leader.on_fetch(&newer, &view, at(1)), Err(FetchFault::UnknownEpoch));
    assert_eq!(a.assign(assignment(B, 2, 2, &[B])), Change::Follows { cut: None });
    assert_eq!(a.assign(assignment(A, 1, 1, &[A, B])), Change::Ignored, "older than known");
    assert_eq!(follow(&mut b, &mut a), ["cut to 5", "took 2"]);
}

/// B43, KAFKA-13207.
#[test]
fn b43_an_answer_of_another_term_is_ignored() {
    let mut b = Side::new(B, &[(0, 5)]);
    let _ = b.assign(assignment(A, 1, 1, &[A, B]));
    let cut = EpochEnd { epoch: LeaderEpoch(0), end: Offset::new(2) };
    let answer = AnswerPart {
        id: part_id(0),
        high_watermark: Offset::new(2),
        log_start: Offset::ZERO,
        outcome: Outcome::Diverging(cut),
    };
    let _ = b.assign(assignment(C, 2, 2, &[B, C]));
    assert_eq!(carry_out(&mut b, LeaderEpoch(1), &answer), "ignored");
    let _ = b.assign(assignment(B, 3, 3, &[B, C]));
    assert_eq!(carry_out(&mut b, LeaderEpoch(2), &answer), "ignored", "leads by now");
    assert_eq!(b.log.end(), 5);
}

/// B44, KAFKA-14704.
#[test]
fn b44_a_diverging_follower_shows_nothing_of_its_own() {
    let mut b = Side::new(B, &[(0, 3), (1, 4)]);
    let _ = b.assign(assignment(A, 2, 2, &[A]));
    let parts = EpochEnd { epoch: LeaderEpoch(0), end: Offset::new(3) };
    let answer = AnswerPart::<Vec<Entry>> {
        id: part_id(0),
        high_watermark: Offset::new(7),
        log_start: Offset::ZERO,
        outcome: Outcome::Diverging(parts),
    };
    let step = b.replica.on_answer(LeaderEpoch(2), &answer, &b.log.view());
    assert_eq!(step, Step::Truncate(Offset::new(3)));
    assert_eq!(b.watermark(), 0, "the leader's 7 are others");
    let again = b.replica.on_answer(LeaderEpoch(2), &answer, &b.log.view());
    assert_eq!(again, Step::Ignore, "nothing counts until it is cut");
}

/// B45 for the cores: what a consumer may read is the watermark, on leaders and followers. (With
/// real logs: `cluster.rs`.)
#[test]
fn b45_consumers_read_below_the_watermark_only() {
    let (mut a, mut b) = (Side::new(A, &[(0, 5)]), Side::new(B, &[]));
    let _ = (a.assign(assignment(A, 1, 1, &[A, B])), b.assign(assignment(A, 1, 1, &[A, B])));
    assert_eq!(a.replica.read_bound(&a.log.view()), Offset::ZERO);
    assert_eq!(round(&mut a, &mut b, at(0)), "took 5");
    assert_eq!(b.replica.read_bound(&b.log.view()), Offset::ZERO, "not committed yet");
    assert_eq!(round(&mut a, &mut b, at(0)), "idle");
    assert_eq!(a.replica.read_bound(&a.log.view()), Offset::new(5));
    assert_eq!(b.replica.read_bound(&b.log.view()), Offset::new(5));
}

/// A leader whose disk was full gave up what followers may have: its term is over.
#[test]
fn a_leader_that_gave_up_shown_batches_writes_no_more_in_its_term() {
    let (mut a, mut b) = (Side::new(A, &[(0, 5)]), Side::new(B, &[(0, 5)]));
    let _ = (a.assign(assignment(A, 1, 1, &[A, B])), b.assign(assignment(A, 1, 1, &[A, B])));
    let _ = round(&mut a, &mut b, at(0));
    let leader = a.replica.leader_mut().unwrap();
    leader.on_append(Offset::new(9), at(0));
    leader.on_shown(Offset::new(8));
    leader.on_given_up(Offset::new(5));
    assert!(leader.is_spent());
    assert_eq!(leader.ask(at(0)), Some(Ask::NewTerm { leader_epoch: LeaderEpoch(1) }));
    assert_eq!(leader.ask(at(1)), None, "asked already");
    assert!(leader.may_show(BrokerId(B)).is_err());
}
