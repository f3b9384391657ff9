//! A group that goes on quietly: one member that commits, and tells that it is alive, on a schedule.

use std::sync::Arc;

use net::client::{Answer, ClientError};
use net::wire::encode_request;
use net::wire::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};

use super::member::{Group, Member};
use crate::broker::CLIENT_ID;
use crate::error::{PerfError, accepted};
use crate::load::{Ask, Lane, Take};
use crate::template::Mark;

/// Stands for the offset in a frame until the offset is written over it.
const OFFSET: i64 = 0x0b5e_55ed_0ff5_e7a1;

/// What one connection asks for, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This many partitions' offsets in one request.
    Commit(i32),
    /// A heartbeat.
    Beat,
}

/// A connection on which `member` asks for each of `turns`, one after the other.
pub fn lane(group: &Arc<Group>, member: &Member, turns: &[Turn]) -> Result<Lane, PerfError> {
    let client = group.connect()?;
    let commit = client.versions().highest::<OffsetCommitRequest<'_>>()?;
    let beat = client.versions().highest::<HeartbeatRequest<'_>>()?;
    let frame = |turn: &Turn| match turn {
        Turn::Commit(partitions) => Frame::new(commit_frame(group, member, *partitions, commit)),
        Turn::Beat => Frame::new(beat_frame(group, member, beat)),
    };
    let version = |turn: &Turn| match turn {
        Turn::Commit(_) => Version::Commit(commit),
        Turn::Beat => Version::Beat(beat),
    };
    let ask = Box::new(Asks { frames: turns.iter().map(frame).collect(), next: 0 });
    let take = Box::new(Takes { versions: turns.iter().map(version).collect(), next: 0 });
    Ok(Lane { client, ask, take })
}

fn commit_frame(group: &Group, member: &Member, partitions: i32, version: i16) -> Vec<u8> {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: OFFSET,
        committed_metadata: Some(""),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: &group.topic.name,
        topic_id: group.topic.id,
        partitions: (0..partitions).map(partition).collect(),
    };
    let request = OffsetCommitRequest {
        group_id: &group.name,
        generation_id_or_member_epoch: member.generation,
        member_id: &member.id,
        topics: vec![topic].into(),
        ..Default::default()
    };
    encode_request(&request, version, 0, Some(CLIENT_ID)).into_bytes()
}

fn beat_frame(group: &Group, member: &Member, version: i16) -> Vec<u8> {
    let request = HeartbeatRequest {
        group_id: &group.name,
        generation_id: member.generation,
        member_id: &member.id,
        ..Default::default()
    };
    encode_request(&request, version, 0, Some(CLIENT_ID)).into_bytes()
}

/// A request with the places of the offsets in it.
struct Frame {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Frame {
    fn new(bytes: Vec<u8>) -> Frame {
        let offset = OFFSET.to_be_bytes();
        let windows = bytes.windows(offset.len()).enumerate();
        let offsets = windows.filter(|(_, window)| *window == offset).map(|(at, _)| at).collect();
        Frame { bytes, offsets }
    }

    fn stamp(&mut self, offset: u64) {
        for &at in &self.offsets {
            self.bytes[at..at + 8].copy_from_slice(&offset.to_be_bytes());
        }
    }
}

struct Asks {
    frames: Vec<Frame>,
    next: usize,
}

impl Ask for Asks {
    fn next(&mut self, mark: Mark) -> &mut [u8] {
        let turn = self.next;
        self.next = (turn + 1) % self.frames.len();
        let frame = &mut self.frames[turn];
        frame.stamp(mark.sequence);
        &mut frame.bytes
    }
}

enum Version {
    Commit(i16),
    Beat(i16),
}

struct Takes {
    versions: Vec<Version>,
    next: usize,
}

impl Take for Takes {
    /// Counts offsets, not bytes.
    fn take(&mut self, answer: Answer<'_>) -> Result<u64, PerfError> {
        let turn = self.next;
        self.next = (turn + 1) % self.versions.len();
        match self.versions[turn] {
            Version::Commit(version) => {
                let response: OffsetCommitResponse<'_> =
                    answer.decode(version).map_err(ClientError::from)?;
                let mut offsets = 0;
                for topic in &response.topics {
                    for partition in &topic.partitions {
                        accepted("committing an offset", partition.error_code)?;
                        offsets += 1;
                    }
                }
                Ok(offsets)
            }
            Version::Beat(version) => {
                let response: HeartbeatResponse =
                    answer.decode(version).map_err(ClientError::from)?;
                accepted("a heartbeat", response.error_code).map(|()| 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_of_a_frame_is_written_over() {
        let one = OFFSET.to_be_bytes();
        let mut frame = Frame::new([&b"ab"[..], &one, b"c", &one].concat());
        frame.stamp(7);
        let seven = 7u64.to_be_bytes();
        assert_eq!(frame.bytes, [&b"ab"[..], &seven, b"c", &seven].concat());
        frame.stamp(8);
        assert_eq!(frame.offsets, [2, 11]);
        assert_eq!(frame.bytes[18], 8);
    }
}
