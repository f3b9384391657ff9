//! What a stream says and when, request by request.

use engine::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::time::Instant;

use super::*;
use crate::ask::{Outcome, Position};
use crate::role::PartitionEpoch;

fn id(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex(partition) }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn standing(partition: i32, end: u64, durable: u64) -> FetchPart {
    FetchPart {
        id: id(partition),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        position: Some(Position { offset: Offset::new(end), last_epoch: Some(LeaderEpoch(0)) }),
        durable_end: Offset::new(durable),
    }
}

fn answer(partition: i32) -> AnswerPart<u8> {
    AnswerPart {
        id: id(partition),
        high_watermark: Offset::ZERO,
        log_start: Offset::ZERO,
        outcome: Outcome::Records(Some(7)),
    }
}

fn config() -> ReplicationConfig {
    ReplicationConfig { in_flight_max: 2, ..ReplicationConfig::default() }
}

#[test]
fn one_request_waits_and_another_says_what_is_new() {
    let mut fetcher = Fetcher::new(5, config());
    assert_eq!(fetcher.next(at(0)), None, "nothing to fetch");
    fetcher.place(standing(0, 10, 10));
    fetcher.place(standing(1, 20, 15));
    let first = fetcher.next(at(0)).unwrap();
    assert_eq!((first.session, first.seq, first.parts.len()), (5, 0, 2));
    assert!(first.parts.iter().all(|part| part.position.is_some()), "the first says everything");
    assert_eq!(fetcher.next(at(0)), None, "one waits");
    fetcher.on_progress(standing(1, 20, 18));
    let second = fetcher.next(at(0)).unwrap();
    assert_eq!(second.parts, [FetchPart { position: None, ..standing(1, 20, 18) }]);
    fetcher.on_progress(standing(1, 20, 20));
    assert_eq!(fetcher.next(at(0)), None, "two are on their way");
    let got = fetcher.on_answer(5, 0, vec![answer(0)]).unwrap();
    assert_eq!((got.len(), got[0].leader_epoch), (1, LeaderEpoch(1)));
    assert_eq!(fetcher.next(at(0)).unwrap().parts[0].durable_end, Offset::new(20));
    let late = fetcher.on_answer(5, 2, vec![answer(0)]);
    assert_eq!(late, Err(OutOfOrder { got: 2, due: Some(1) }));
}

#[test]
fn an_answer_goes_on_though_nothing_is_new() {
    let mut fetcher = Fetcher::new(1, config());
    fetcher.place(standing(0, 10, 10));
    let _ = fetcher.next(at(0)).unwrap();
    fetcher.on_answer(1, 0, vec![answer(0)]).unwrap();
    let next = fetcher.next(at(0)).unwrap();
    assert_eq!((next.seq, next.parts.len()), (1, 0), "at once, before what came is durable");
}

#[test]
fn what_was_asked_before_a_new_position_is_ignored() {
    let mut fetcher = Fetcher::new(1, config());
    fetcher.place(standing(0, 10, 10));
    let _ = fetcher.next(at(0)).unwrap();
    fetcher.place(FetchPart { leader_epoch: LeaderEpoch(2), ..standing(0, 8, 8) });
    let placed = fetcher.next(at(0)).unwrap();
    assert_eq!(placed.parts[0].position.unwrap().offset, Offset::new(8));
    assert_eq!(fetcher.on_answer(1, 0, vec![answer(0)]), Ok(vec![]), "of the old position");
    let got = fetcher.on_answer(1, 1, vec![answer(0)]).unwrap();
    assert_eq!(got[0].leader_epoch, LeaderEpoch(2));
    fetcher.on_progress(standing(0, 30, 30));
    assert!(fetcher.next(at(0)).unwrap().parts.is_empty(), "progress of another term");
}

#[test]
fn a_lost_connection_begins_a_session_that_says_everything() {
    let mut fetcher = Fetcher::new(1, config());
    fetcher.place(standing(0, 10, 10));
    fetcher.place(standing(1, 20, 20));
    let _ = fetcher.next(at(0)).unwrap();
    fetcher.remove(id(1));
    assert_eq!(fetcher.next(at(0)).unwrap().forgotten, [id(1)]);
    fetcher.on_progress(standing(0, 12, 11));
    fetcher.on_lost(at(0));
    assert_eq!(fetcher.next(at(0)), None, "a pause first");
    let until = fetcher.deadline().unwrap();
    let anew = fetcher.next(until).unwrap();
    assert_eq!((anew.session, anew.seq), (2, 0));
    assert_eq!(anew.parts, [standing(0, 12, 11)], "from where the log ends by now");
    assert!(anew.forgotten.is_empty());
    assert_eq!(fetcher.on_answer(1, 1, vec![answer(0)]), Ok(vec![]), "of the session before");
    fetcher.on_lost(at(0));
    let second = fetcher.deadline().unwrap();
    assert!(second > until, "longer each time");
}

#[test]
fn a_partition_that_backs_off_leaves_the_others_alone() {
    let mut fetcher = Fetcher::new(1, config());
    fetcher.place(standing(0, 10, 10));
    fetcher.place_at(standing(1, 20, 20), at(50));
    assert_eq!(fetcher.next(at(0)).unwrap().parts, [standing(0, 10, 10)]);
    fetcher.on_progress(standing(1, 20, 20));
    assert_eq!((fetcher.next(at(49)), fetcher.deadline()), (None, Some(at(50))));
    assert_eq!(fetcher.next(at(50)).unwrap().parts, [standing(1, 20, 20)]);
    fetcher.place_at(standing(1, 20, 20), at(90));
    fetcher.remove(id(1));
    assert_eq!(fetcher.deadline(), None);
}

#[test]
fn a_stream_with_nothing_to_follow_waits_for_nothing() {
    let mut fetcher = Fetcher::new(1, config());
    fetcher.place(standing(0, 10, 10));
    let _ = fetcher.next(at(0)).unwrap();
    fetcher.on_lost(at(0));
    fetcher.remove(id(0));
    assert_eq!(fetcher.deadline(), None, "the pause ends nothing");
    fetcher.place_at(standing(0, 10, 10), at(7_000));
    assert_eq!(fetcher.deadline(), Some(at(7_000)));
    assert_eq!((fetcher.next(at(6_999)), fetcher.deadline()), (None, Some(at(7_000))));
}
