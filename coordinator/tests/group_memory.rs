//! What a committed offset costs: measured, not added up. In a file of its own, so that nothing
//! else of the process grows meanwhile.

use std::fs::read_to_string;

use coordinator::group::records::{OffsetKey, OffsetValue, Record};
use coordinator::group::{Groups, Hard};
use coordinator::machine::Machine;
use engine::ids::{LeaderEpoch, Offset};
use engine::time::Timestamp;

const OFFSETS: u32 = 300_000;
const BYTES_MAX: usize = 300;

/// Bytes of memory that are the process's own.
fn resident() -> usize {
    let pages = read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Commits as many offsets, spread over groups and topics as said; what one of them took.
fn cost(groups: u32, topics: u32) -> usize {
    let before = resident();
    let mut hard = Hard::default();
    let partitions = OFFSETS / groups / topics;
    // As they come: every group commits its partitions again and again, here twice.
    for round in 0..2 {
        for group in 0..groups {
            for topic in 0..topics {
                for partition in 0..partitions as i32 {
                    let key = OffsetKey {
                        group: format!("a-group-with-a-name-{group}"),
                        topic: format!("a-topic-with-a-name-{topic}"),
                        partition,
                    };
                    let value = OffsetValue {
                        offset: 1_000_000 + round,
                        leader_epoch: Some(LeaderEpoch(3)),
                        metadata: String::new(),
                        committed: Timestamp(1_700_000_000_000),
                        expires: None,
                    };
                    let record = Record::Offset(key, Some(value));
                    Groups::apply(&mut hard, Offset::ZERO, &record);
                }
            }
        }
    }
    assert_eq!(hard.offsets.len(), (groups * topics * partitions) as usize);
    let grown = resident() - before;
    // What were freed could be used by the next one, which would then seem to cost nothing.
    std::mem::forget(hard);
    grown / OFFSETS as usize
}

#[test]
fn an_offset_costs_no_more_than_promised() {
    // The last one is as bad as it gets: a group and a topic's place for a single offset each.
    for (groups, topics) in [(30, 100), (3_000, 10), (300_000, 1)] {
        let bytes = cost(groups, topics);
        println!("{groups} groups, {topics} topics: {bytes} bytes per offset");
        assert!(bytes <= BYTES_MAX, "{bytes} bytes with {groups} groups and {topics} topics");
        assert!(bytes >= 40, "{bytes} bytes: that was not measured");
    }
}
