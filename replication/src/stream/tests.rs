//! What a leader keeps of a stream, request by request.

use std::time::Duration;

use engine::ids::{PartitionIndex, TopicId};

use super::*;
use crate::ask::Position;
use crate::role::PartitionEpoch;

fn id(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex(partition) }
}

fn part(partition: i32, position: Option<u64>) -> FetchPart {
    let position =
        position.map(|offset| Position { offset: Offset::new(offset), last_epoch: None });
    FetchPart {
        id: id(partition),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        position,
        durable_end: Offset::ZERO,
    }
}

fn ask(session: u64, seq: u64, parts: Vec<FetchPart>) -> FetchAsk {
    FetchAsk {
        session,
        seq,
        parts,
        forgotten: Vec::new(),
        bytes_max: 100,
        partition_bytes_max: 100,
        wait_max: Duration::from_millis(500),
    }
}

/// Takes a request in, and everything fits.
fn fits(stream: &mut Stream, ask: &FetchAsk) {
    for fetch in stream.on_request(ask).unwrap() {
        stream.on_verdict(ask.seq, &fetch.part, Ok(Verdict::Fits));
    }
}

fn head(high_watermark: u64) -> Head {
    Head { high_watermark: Offset::new(high_watermark), log_start: Offset::ZERO }
}

fn froms(stream: &Stream, seq: u64) -> Vec<(i32, u64)> {
    let reads = stream.reads(seq);
    reads.iter().map(|read| (read.id.partition.0, read.from.value())).collect()
}

fn new() -> Stream {
    Stream::new(BrokerId(2), BrokerEpoch(9))
}

#[test]
fn cursors_advance_with_what_is_read_and_the_hungry_come_first() {
    let mut stream = new();
    fits(&mut stream, &ask(7, 0, vec![part(0, Some(5)), part(1, Some(8)), part(2, Some(0))]));
    assert_eq!(froms(&stream, 0), [(0, 5), (1, 8), (2, 0)]);
    let first = stream.reads(0)[0];
    assert!(stream.on_read(&first, Offset::new(9), head(5)));
    // The limit is spent; the next answer begins with the others.
    assert_eq!(froms(&stream, 0), [(1, 8), (2, 0), (0, 9)]);
    assert!(!stream.on_read(&first, Offset::new(9), head(5)), "the cursor is elsewhere");
    fits(&mut stream, &ask(7, 1, vec![]));
    assert!(stream.is_superseded(0) && !stream.is_superseded(1));
    let third = stream.reads(1)[2];
    assert!(!stream.on_read(&third, Offset::new(9), head(5)), "nothing, and no news");
    assert!(stream.on_read(&third, Offset::new(9), head(6)), "a new watermark is");
}

#[test]
fn where_nothing_was_found_nothing_is_read_until_there_is_news() {
    let mut stream = new();
    fits(&mut stream, &ask(7, 0, vec![part(0, Some(5)), part(1, Some(8)), part(2, Some(0))]));
    for (read, next) in stream.reads(0).into_iter().zip([5, 9, 0]) {
        assert!(stream.on_read(&read, Offset::new(next), head(3)), "the head is news");
    }
    assert_eq!(froms(&stream, 0), [(1, 9)], "there may be more where there was something");
    let read = stream.reads(0)[0];
    assert!(!stream.on_read(&read, Offset::new(9), head(3)));
    assert!(froms(&stream, 0).is_empty());
    stream.stir(id(2));
    stream.stir(id(2));
    stream.stir(id(9));
    assert_eq!(froms(&stream, 0), [(2, 0)]);
    stream.stir_all();
    assert_eq!(froms(&stream, 0), [(2, 0), (0, 5), (1, 9)]);
    // A promise is no reason to read, a position is.
    stream.reads(0).iter().for_each(|read| _ = stream.on_read(read, read.from, head(3)));
    fits(&mut stream, &ask(7, 1, vec![part(0, None), part(1, Some(4))]));
    assert_eq!(froms(&stream, 1), [(1, 4)]);
    // What was stopped is not stirred.
    stream.on_unreadable(&stream.reads(1)[0].clone(), FetchFault::NotLeader);
    stream.stir_all();
    assert_eq!(froms(&stream, 1), [(0, 5), (2, 0)]);
}

#[test]
fn a_new_position_is_answered_with_its_own_request() {
    let mut stream = new();
    fits(&mut stream, &ask(7, 0, vec![part(0, Some(5)), part(1, Some(5))]));
    fits(&mut stream, &ask(7, 1, vec![part(0, Some(3))]));
    assert_eq!(froms(&stream, 0), [(1, 5)], "0 waits for the answer to the newer one");
    assert_eq!(froms(&stream, 1), [(0, 3), (1, 5)]);
    let diverging = EpochEnd { epoch: LeaderEpoch(0), end: Offset::new(2) };
    let again = part(0, Some(3));
    stream.on_verdict(0, &again, Ok(Verdict::Diverging(diverging)));
    assert!(!stream.has_trouble(1), "of the position before");
    stream.on_verdict(1, &again, Ok(Verdict::Diverging(diverging)));
    assert!(stream.has_trouble(1) && !stream.has_trouble(0));
    assert_eq!(stream.take_troubles(1), [(id(0), Trouble::Diverging(diverging))]);
    assert!(stream.take_troubles(1).is_empty(), "once");
    assert_eq!(froms(&stream, 1), [(1, 5)], "stopped until the follower says where it is");
}

#[test]
fn only_the_next_request_of_the_session_is_taken() {
    let mut stream = new();
    assert!(stream.on_request(&ask(7, 1, vec![])).is_err(), "no session yet");
    fits(&mut stream, &ask(7, 0, vec![part(0, Some(5))]));
    assert!(stream.on_request(&ask(7, 0, vec![])).is_err(), "twice");
    assert!(stream.on_request(&ask(7, 2, vec![])).is_err(), "one is missing");
    assert!(stream.on_request(&ask(6, 1, vec![])).is_err(), "another session");
    fits(&mut stream, &ask(8, 0, vec![part(1, Some(1))]));
    assert_eq!(froms(&stream, 0), [(1, 1)], "a new session knows nothing of the one before");
}

#[test]
fn a_partition_without_a_position_is_asked_for_one() {
    let mut stream = new();
    let ask = FetchAsk { forgotten: vec![id(4)], ..ask(7, 0, vec![part(0, None)]) };
    let fetches = stream.on_request(&ask).unwrap();
    assert_eq!((fetches[0].replica, fetches[0].broker_epoch), (BrokerId(2), BrokerEpoch(9)));
    let fault = FetchFault::Unpositioned;
    stream.on_verdict(0, &fetches[0].part, Err(fault));
    assert_eq!(stream.take_troubles(0), [(id(0), Trouble::Failed(fault))]);
    assert!(stream.reads(0).is_empty());
}

#[test]
fn what_is_read_while_a_position_is_said_anew_does_not_count() {
    let mut stream = new();
    fits(&mut stream, &ask(7, 0, vec![part(0, Some(5))]));
    let old = stream.reads(0)[0];
    // The follower says the same position again, and ignores answers to what it asked before.
    fits(&mut stream, &ask(7, 1, vec![part(0, Some(5))]));
    assert!(!stream.on_read(&old, Offset::new(5), head(6)), "of the position before");
    stream.on_unreadable(&old, FetchFault::Storage);
    assert!(!stream.has_trouble(1));
    let new = stream.reads(1)[0];
    assert!(stream.on_read(&new, Offset::new(5), head(6)), "the watermark is told yet");
}
