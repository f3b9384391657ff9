//! The leader alone; with followers it is tried in `tests/scenarios.rs` and `tests/simulation.rs`.

use engine::epochs::Epochs;
use engine::ids::PartitionIndex;
use engine::ids::{TopicId, TopicPartition};

use super::*;
use crate::ask::FetchPart;

const ME: BrokerId = BrokerId(1);
const OTHER: BrokerId = BrokerId(2);

fn leader(replicas: &[BrokerId], durable: u64, known: u64, min_in_sync: usize) -> Leader {
    let assignment = Assignment {
        leader: Some(ME),
        leader_epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(1),
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
    };
    let config = ReplicationConfig::default();
    let known = Offset::new(known);
    with_view(durable, |view| {
        Leader::new(ME, &assignment, view, known, min_in_sync, config, Instant::ZERO)
    })
}

fn with_view<T>(end: u64, look: impl FnOnce(&View<'_>) -> T) -> T {
    let (epochs, end) = (Epochs::default(), Offset::new(end));
    look(&View { start: Offset::ZERO, end, durable_end: end, epochs: &epochs })
}

fn promise(leader: &mut Leader, durable: u64, position: Option<u64>, millis: u64) {
    let id = TopicPartition { topic: TopicId::ZERO, partition: PartitionIndex(0) };
    let position = position.map(|at| Position { offset: Offset::new(at), last_epoch: None });
    let part = FetchPart {
        id,
        leader_epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(1),
        position,
        durable_end: Offset::new(durable),
    };
    let fetch = ReplicaFetch { replica: OTHER, broker_epoch: BrokerEpoch(7), part };
    let now = Instant::from_nanos(millis * 1_000_000);
    let verdict = with_view(leader.end().value(), |view| leader.on_fetch(&fetch, view, now));
    assert_eq!(verdict, Ok(Verdict::Fits));
}

#[test]
fn the_high_watermark_is_the_least_durable_end_in_the_isr_and_never_falls() {
    let mut alone = leader(&[ME], 5, 3, 1);
    assert_eq!(alone.high_watermark(), Offset::new(5));
    alone.on_append(Offset::new(9), Instant::ZERO);
    assert!(alone.on_durable(Offset::new(9)));
    assert!(!alone.on_durable(Offset::new(7)));
    assert_eq!(alone.high_watermark(), Offset::new(9));

    let mut two = leader(&[ME, OTHER], 5, 3, 1);
    two.on_append(Offset::new(50), Instant::ZERO);
    assert!(!two.on_durable(Offset::new(50)), "the other one has promised nothing yet");
    assert_eq!((two.high_watermark(), two.is_settled()), (Offset::new(3), false));
    promise(&mut two, 10, Some(4), 0);
    assert_eq!(two.promise(OTHER), Some(Offset::new(4)), "not beyond what was compared");
    promise(&mut two, 8, None, 0);
    assert_eq!((two.high_watermark(), two.is_settled()), (Offset::new(8), true));
    promise(&mut two, 900, None, 0);
    assert_eq!(two.high_watermark(), Offset::new(50), "nor beyond the end");
}

#[test]
fn only_acks_all_looks_at_the_isr_and_no_more_is_demanded_than_there_are() {
    let alone = leader(&[ME], 0, 0, 2);
    assert!(alone.admit(Acks::All).is_ok(), "Kafka's effectiveMinIsr: one of one");
    let mut two = leader(&[ME, OTHER], 0, 0, 2);
    assert!(two.admit(Acks::All).is_ok());
    let shrunk = Assignment {
        leader: Some(ME),
        leader_epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(2),
        replicas: vec![ME, OTHER],
        isr: vec![ME],
    };
    two.on_assignment(&shrunk, Instant::ZERO);
    assert!(two.admit(Acks::Leader).is_ok());
    assert_eq!(two.admit(Acks::All), Err(NotEnoughReplicas { in_sync: 1, needed: 2 }));
}

#[test]
fn the_epoch_that_a_client_names_is_compared() {
    let leader = leader(&[ME], 0, 0, 1);
    assert!(leader.check_epoch(None).is_ok());
    assert!(leader.check_epoch(Some(LeaderEpoch(4))).is_ok());
    let older = leader.check_epoch(Some(LeaderEpoch(3)));
    assert!(matches!(older, Err(EpochMismatch::Fenced { .. })));
    let newer = leader.check_epoch(Some(LeaderEpoch(5)));
    assert!(matches!(newer, Err(EpochMismatch::Unknown { .. })));
}

#[test]
fn a_replica_of_a_partition_at_rest_is_not_late_when_something_is_written() {
    let mut two = leader(&[ME, OTHER], 0, 0, 1);
    promise(&mut two, 0, Some(0), 0);
    let lag_max = ReplicationConfig::default().lag_max;
    let written = Instant::ZERO.after(lag_max * 3);
    assert_eq!(two.ask(written), None);
    two.on_append(Offset::new(5), written);
    assert_eq!(two.ask(written), None, "it had everything until now");
    assert_eq!(two.deadline(), Some(written.after(lag_max)));
    // It is late though more is written, if it does not get what there was.
    let more = written.after(lag_max / 2);
    two.on_append(Offset::new(9), more);
    assert_eq!(two.deadline(), Some(written.after(lag_max)));
    assert!(two.ask(written.after(lag_max)).is_some());
}

/// Kafka's rule: late is who has not had, for so long, what there was at his fetch before.
#[test]
fn a_replica_under_steady_load_is_not_late_while_it_keeps_up() {
    let mut two = leader(&[ME, OTHER], 0, 0, 1);
    promise(&mut two, 0, Some(0), 0);
    let (mut end, step) = (0, 1_000);
    for round in 1..40 {
        end += 10;
        two.on_append(Offset::new(end), Instant::from_nanos((round - 1) * step * 1_000_000));
        // It always lacks the newest.
        promise(&mut two, end - 10, None, round * step);
        let now = Instant::from_nanos(round * step * 1_000_000);
        assert_eq!(two.ask(now), None, "round {round}");
    }
    let last = Instant::from_nanos(39 * step * 1_000_000);
    let due = two.deadline().expect("it lacks something");
    assert!(due > last && due <= last.after(ReplicationConfig::default().lag_max));
    let asked = two.ask(due).expect("it fetches no more");
    let Ask::AlterIsr(asked) = asked else { panic!("{asked:?}") };
    assert_eq!(asked.isr, [(ME, None)]);
    assert_eq!(two.deadline(), None, "one at a time");
}
