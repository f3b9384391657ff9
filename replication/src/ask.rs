//! What this broker wants from others, and what they say to it, as data. net turns it into frames
//! and back; nothing here knows bytes on a wire.

use std::time::Duration;

use engine::epochs::EpochEnd;
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};

use crate::role::PartitionEpoch;

/// What a partition wants from the controller.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Ask {
    /// Change the in-sync replicas (Kafka's AlterPartition).
    AlterIsr(AlterIsr),
    /// Give this partition a new leader epoch, under this broker or (better) another: this leader
    /// had to give up batches that followers may have, so that it may not write in this term any
    /// more.
    NewTerm {
        /// The term that must end.
        leader_epoch: LeaderEpoch,
    },
}

/// A proposal for the in-sync replicas. The controller accepts it if both epochs are current, this
/// broker leads, and every member has the broker epoch named and is neither fenced nor shutting
/// down. A proposal that names the ISR as it is must be accepted and raise the partition epoch:
/// that is how a leader makes sure that an older proposal will not be carried out any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterIsr {
    /// Number of this attempt within the term, to go with the answer.
    pub attempt: u64,
    /// The term.
    pub leader_epoch: LeaderEpoch,
    /// The version of the partition that this builds on.
    pub partition_epoch: PartitionEpoch,
    /// The new ISR with the registrations that are meant; `None`: this broker itself, or a member
    /// that has not fetched in this term.
    pub isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
}

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IsrAnswer {
    /// It is committed.
    Accepted {
        /// The partition's version since.
        partition_epoch: PartitionEpoch,
        /// The ISR since.
        isr: Vec<BrokerId>,
    },
    /// It was not carried out: a member is fenced, shutting down or registered anew
    /// (INELIGIBLE_REPLICA).
    Ineligible,
    /// It was not carried out: it builds on an older version of the partition, or on an older term
    /// (INVALID_UPDATE_VERSION, FENCED_LEADER_EPOCH). The present one is on its way here.
    Stale,
    /// Nobody knows: no answer, or no controller (NOT_CONTROLLER, time-outs, lost connections).
    Unknown,
}

/// Where a follower's log ends, as far as a leader must know to compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Log end offset: where to go on.
    pub offset: Offset,
    /// Epoch of the last record; `None` in a log without records.
    pub last_epoch: Option<LeaderEpoch>,
}

/// One request of a fetch stream. On the wire a Fetch: `session` and `seq` are the session id and
/// epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct FetchAsk {
    /// Which stream of this follower; a new one after each loss of the connection.
    pub session: u64,
    /// Number within the stream, from 0. The request 0 names every partition with its position.
    pub seq: u64,
    /// Partitions about which there is something to say. The others go on.
    pub parts: Vec<FetchPart>,
    /// Partitions that left the stream.
    pub forgotten: Vec<TopicPartition>,
    /// About how many bytes to answer at most.
    pub bytes_max: usize,
    /// About how many bytes of one partition.
    pub partition_bytes_max: usize,
    /// How long to wait for news.
    pub wait_max: Duration,
}

/// What a request says about one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPart {
    /// The partition.
    pub id: TopicPartition,
    /// The term in which the follower follows.
    pub leader_epoch: LeaderEpoch,
    /// The version of the partition that the follower knows.
    pub partition_epoch: PartitionEpoch,
    /// Puts the cursor here; `None`: the cursor goes on (fetch offset -1 on the wire).
    pub position: Option<Position>,
    /// The promise: everything below is durable on the follower, in the class of the topic.
    pub durable_end: Offset,
}

/// The same with the sender, as the leader gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaFetch {
    /// Who fetches.
    pub replica: BrokerId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// What it says.
    pub part: FetchPart,
}

/// What an answer says about one partition. `B`: bytes of whole batches, possibly none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerPart<B> {
    /// The partition.
    pub id: TopicPartition,
    /// The leader's high watermark; 0 with a failure.
    pub high_watermark: Offset,
    /// The leader's first readable offset; 0 with a failure.
    pub log_start: Offset,
    /// The rest.
    pub outcome: Outcome<B>,
}

/// What came of a fetch of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<B> {
    /// Batches from the cursor on; `None` when only the head is news.
    Records(Option<B>),
    /// The follower's log parts from the leader's: the largest epoch not above the follower's last
    /// one, and its end on the leader.
    Diverging(EpochEnd),
    /// Nothing, and the cursor is lost: the follower must say its position again.
    Failed(FetchFault),
}

/// Why a leader does not serve a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchFault {
    /// This broker does not lead the partition, or has not heard of it (NOT_LEADER_OR_FOLLOWER,
    /// UNKNOWN_TOPIC_ID).
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The follower is in an older term (FENCED_LEADER_EPOCH).
    #[error("the term is over")]
    Fenced,
    /// The follower is in a newer term than this broker (UNKNOWN_LEADER_EPOCH).
    #[error("the term is not known here yet")]
    UnknownEpoch,
    /// The follower is not one of the replicas, or its registration is not the latest
    /// (UNKNOWN_LEADER_EPOCH, STALE_BROKER_EPOCH).
    #[error("the sender is not a replica of this partition, in this registration")]
    NotReplica,
    /// The follower must say its position before it may go on.
    #[error("the position is not known")]
    Unpositioned,
    /// The position is outside of the leader's log (OFFSET_OUT_OF_RANGE).
    #[error("the position is outside {start}..={end}")]
    OutOfRange {
        /// First readable offset of the leader.
        start: Offset,
        /// Log end offset of the leader.
        end: Offset,
    },
    /// The leader cannot read its log (KAFKA_STORAGE_ERROR).
    #[error("the leader cannot read its log")]
    Storage,
}
