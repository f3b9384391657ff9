//! What may be asked of groups and what they answer, in no wire's words: ids are strings,
//! subscriptions and assignments bytes. `net` translates, and gives each [`GroupFault`] its number.
//! Nothing here is tied to a shard: requests and replies may cross lanes.

use std::time::Duration;

use engine::ids::LeaderEpoch;
use engine::time::Timestamp;

use super::consumer::heartbeat::Beaten;
use super::consumer::topics::View;
use super::consumer::{self, Fault};

/// One question about groups of one partition of the internal topic.
#[derive(Clone, Debug)]
pub enum Request {
    /// JoinGroup.
    Join(Join),
    /// SyncGroup.
    Sync(Sync),
    /// Heartbeat.
    Heartbeat(Heartbeat),
    /// LeaveGroup.
    Leave(Leave),
    /// OffsetCommit.
    CommitOffsets(CommitOffsets),
    /// OffsetFetch, of one or several groups.
    FetchOffsets(Vec<FetchOffsets>),
    /// OffsetDelete.
    DeleteOffsets(DeleteOffsets),
    /// ConsumerGroupHeartbeat.
    ConsumerHeartbeat(ConsumerHeartbeat),
    /// ConsumerGroupDescribe.
    DescribeConsumers(Vec<String>),
    /// DescribeGroups.
    Describe(Vec<String>),
    /// ListGroups.
    List(List),
    /// DeleteGroups.
    Delete(Vec<String>),
    /// The cluster as it is: its topics, and the settings of groups. Not from a client; whoever
    /// loads the machine shows it, so that it need not wait until somebody asks.
    See(View),
    /// Topics of these names are gone: so are the offsets that were committed for them. Not from
    /// a client; whoever follows the cluster's image asks it. Answered at once; the work is done
    /// in steps.
    ForgetTopics(Vec<String>),
}

/// What is answered: the kind of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Join`].
    Joined(Joined),
    /// To [`Request::Sync`].
    Synced(Result<Synced, GroupFault>),
    /// To [`Request::Heartbeat`].
    Heartbeat(Result<(), GroupFault>),
    /// To [`Request::Leave`].
    Left(Result<Vec<Left>, GroupFault>),
    /// To [`Request::CommitOffsets`]: per topic and partition as asked, what was wrong with it.
    OffsetsCommitted(Result<Vec<Outcomes>, GroupFault>),
    /// To [`Request::FetchOffsets`], group by group as asked.
    Offsets(Vec<Fetched>),
    /// To [`Request::DeleteOffsets`]: per topic and partition as asked, what was wrong with it.
    OffsetsDeleted(Result<Vec<Outcomes>, GroupFault>),
    /// To [`Request::ConsumerHeartbeat`].
    ConsumerHeartbeat(Result<Beaten, Fault>),
    /// To [`Request::DescribeConsumers`], group by group as asked.
    ConsumersDescribed(Vec<(String, Result<consumer::describe::Described, GroupFault>)>),
    /// To [`Request::Describe`], group by group as asked.
    Described(Vec<Described>),
    /// To [`Request::List`].
    Listed(Vec<Listed>),
    /// To [`Request::Delete`]: each group once, by name, and why it is still there.
    Deleted(Vec<(String, Option<GroupFault>)>),
    /// To [`Request::See`].
    Seen,
    /// To [`Request::ForgetTopics`].
    Forgotten,
}

const _: () = {
    const fn crosses_lanes<T: Send>() {}
    crosses_lanes::<Request>();
    crosses_lanes::<Reply>();
};

/// A topic's name, and per partition what was wrong with it, if anything was.
pub type Outcomes = (String, Vec<(i32, Option<GroupFault>)>);

/// Why a group does not do what it is asked. The names are Kafka's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFault {
    /// INVALID_GROUP_ID: the group has no name.
    #[error("the group has no name")]
    InvalidGroupId,
    /// INVALID_REQUEST: a name is longer than the log can hold.
    #[error("a name is too long")]
    InvalidRequest,
    /// GROUP_ID_NOT_FOUND: there is no such group. Kafka answers ILLEGAL_GENERATION instead to
    /// OffsetCommit before version 9.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// GROUP_ID_NOT_FOUND: there is a group of this name, but of the other type.
    #[error("the group is of another type")]
    OtherType,
    /// NON_EMPTY_GROUP: it has members.
    #[error("the group has members")]
    NonEmptyGroup,
    /// UNKNOWN_MEMBER_ID: the group knows no such member.
    #[error("the group knows no such member")]
    UnknownMemberId,
    /// FENCED_INSTANCE_ID: another member took over this `group.instance.id`.
    #[error("another member took over this instance")]
    FencedInstanceId,
    /// ILLEGAL_GENERATION: it is another generation than the group's.
    #[error("the group is in another generation")]
    IllegalGeneration,
    /// STALE_MEMBER_EPOCH: the member of a consumer group is in another epoch; it heartbeats first.
    #[error("the member is in another epoch")]
    StaleMemberEpoch,
    /// UNSUPPORTED_VERSION: OffsetCommit before version 9 knows nothing of member epochs, and the
    /// member has one.
    #[error("members of the consumer protocol commit offsets from version 9 on")]
    UnsupportedVersion,
    /// REBALANCE_IN_PROGRESS: the members have to rejoin first.
    #[error("the group rebalances")]
    RebalanceInProgress,
    /// INCONSISTENT_GROUP_PROTOCOL: the member and the group have no protocol in common.
    #[error("no protocol in common")]
    InconsistentGroupProtocol,
    /// MEMBER_ID_REQUIRED: join again with the id that is given.
    #[error("join again with this member id")]
    MemberIdRequired,
    /// INVALID_SESSION_TIMEOUT: it is not within the broker's bounds.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// GROUP_MAX_SIZE_REACHED: no room for another member.
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// OFFSET_METADATA_TOO_LARGE.
    #[error("the metadata of an offset is too large")]
    OffsetMetadataTooLarge,
    /// INVALID_COMMIT_OFFSET_SIZE: more than one batch of the log can hold.
    #[error("more offsets than one batch holds")]
    InvalidCommitOffsetSize,
    /// UNKNOWN_SERVER_ERROR: a group's members and assignments are more than one batch of the log
    /// can hold.
    #[error("the group is larger than one batch holds")]
    GroupTooLarge,
    /// GROUP_SUBSCRIBED_TO_TOPIC: its members consume the topic.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// UNSTABLE_OFFSET_COMMIT: a transaction is about to change the offset. For transactions; not
    /// answered without them.
    #[error("a transaction is about to change the offset")]
    UnstableOffsetCommit,
}

impl From<Fault> for GroupFault {
    /// What members of the classic protocol are told by a consumer group, and who commits offsets.
    fn from(fault: Fault) -> GroupFault {
        match fault {
            Fault::InvalidRequest(_) => GroupFault::InvalidRequest,
            Fault::GroupIdNotFound => GroupFault::GroupIdNotFound,
            Fault::UnknownMemberId => GroupFault::UnknownMemberId,
            Fault::StaleMemberEpoch { .. } => GroupFault::StaleMemberEpoch,
            Fault::FencedInstanceId => GroupFault::FencedInstanceId,
            Fault::GroupMaxSizeReached => GroupFault::GroupMaxSizeReached,
            Fault::GroupTooLarge => GroupFault::GroupTooLarge,
            Fault::UnsupportedVersion => GroupFault::UnsupportedVersion,
            Fault::IllegalGeneration => GroupFault::IllegalGeneration,
            Fault::RebalanceInProgress => GroupFault::RebalanceInProgress,
            Fault::InconsistentGroupProtocol => GroupFault::InconsistentGroupProtocol,
            Fault::MemberIdRequired(_) => GroupFault::MemberIdRequired,
            Fault::FencedMemberEpoch { .. }
            | Fault::UnreleasedInstanceId
            | Fault::UnsupportedAssignor(_)
            | Fault::InvalidRegularExpression(_) => {
                unreachable!("only heartbeats of the consumer protocol are answered {fault:?}")
            }
        }
    }
}

/// A member of a consumer group says that it lives, what it wants, and what it has; or that it
/// joins or leaves.
#[derive(Clone, Debug)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: String,
    /// What it says.
    pub beat: consumer::heartbeat::Heartbeat,
    /// The topics as whoever asks sees them.
    pub topics: View,
}

/// Wants to become, or stay, a member.
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// The group.
    pub group: String,
    /// The member's id; empty if it has none yet.
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// The client's id, from the request's header.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// How long it may be silent, in milliseconds.
    pub session_ms: i32,
    /// How long it may take to rejoin, in milliseconds. In version 0 the session timeout.
    pub rebalance_ms: i32,
    /// What kind of members these are.
    pub protocol_type: String,
    /// What it can do, best first, and what it says about itself in each.
    pub protocols: Vec<Protocol>,
    /// Why it joins, for the log (KIP-800).
    pub reason: Option<String>,
    /// The client can come back with the id that it is given (version 4 on).
    pub takes_member_id: bool,
    /// The client understands that it leads and need not assign (version 9 on, KIP-814).
    pub may_skip_assignment: bool,
    /// The topics as whoever asks sees them; looked at in a consumer group only.
    pub topics: View,
}

/// A protocol of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// What the member says about itself in it.
    pub metadata: Vec<u8>,
}

/// What came of joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's id: also with [`GroupFault::MemberIdRequired`].
    pub member: String,
    /// The generation it is in, or why it is in none.
    pub generation: Result<Generation, GroupFault>,
}

/// A generation as its members learn of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub id: i32,
    /// What kind of members these are.
    pub protocol_type: Option<String>,
    /// The protocol that they agreed on.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: String,
    /// Who leads need not assign: the assignments stand.
    pub skip_assignment: bool,
    /// All members, for the leader alone.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// What it says about itself in the generation's protocol.
    pub metadata: Vec<u8>,
}

/// Asks for an assignment; the leader brings those of all.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// The generation it is in.
    pub generation: i32,
    /// What the member believes to be the group's, from version 5 on.
    pub protocol_type: Option<String>,
    /// What the member believes to be the generation's, from version 5 on.
    pub protocol: Option<String>,
    /// By member id.
    pub assignments: Vec<(String, Vec<u8>)>,
    /// The topics as whoever asks sees them; looked at in a consumer group only.
    pub topics: View,
}

/// An assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of members these are.
    pub protocol_type: Option<String>,
    /// The generation's protocol.
    pub protocol: Option<String>,
    /// What the leader gave.
    pub assignment: Vec<u8>,
}

/// Says that a member lives.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// The generation it is in.
    pub generation: i32,
    /// The topics as whoever asks sees them; looked at in a consumer group only.
    pub topics: View,
}

/// Members leave, or are removed.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// The group.
    pub group: String,
    /// Who.
    pub members: Vec<Leaver>,
    /// The topics as whoever asks sees them; looked at in a consumer group only.
    pub topics: View,
}

/// Who leaves.
#[derive(Clone, Debug, Default)]
pub struct Leaver {
    /// Its id; empty if an administrator names it by its instance only.
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Why, for the log (KIP-800).
    pub reason: Option<String>,
}

/// What came of one leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// As asked.
    pub member: String,
    /// As asked.
    pub instance: Option<String>,
    /// Why it did not leave.
    pub fault: Option<GroupFault>,
}

/// Remembers offsets.
#[derive(Clone, Debug, Default)]
pub struct CommitOffsets {
    /// The group.
    pub group: String,
    /// The member; empty for who uses no membership.
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// The generation it is in; −1 for who uses no membership.
    pub generation: i32,
    /// The request is of a version that knows generations, but no member epochs (before 9).
    pub is_old: bool,
    /// How long they shall be kept, from clients that still say so (versions 2 to 4).
    pub retention: Option<Duration>,
    /// Topics and their partitions. That they exist has been checked.
    pub topics: Vec<(String, Vec<OffsetOf>)>,
}

/// One offset to remember.
#[derive(Clone, Debug, Default)]
pub struct OffsetOf {
    /// The partition.
    pub partition: i32,
    /// The next record to consume.
    pub offset: i64,
    /// The leader epoch of the last record consumed.
    pub leader_epoch: Option<LeaderEpoch>,
    /// To remember with it; null is as good as empty.
    pub metadata: Option<String>,
}

/// Asks for what one group committed.
#[derive(Clone, Debug, Default)]
pub struct FetchOffsets {
    /// The group.
    pub group: String,
    /// A member of a group that the consumer protocol runs, and its epoch; not looked at for
    /// classic groups.
    pub member: Option<(String, i32)>,
    /// Which topics and partitions; `None`: all.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
    /// Whether offsets that a transaction is about to change are refused.
    pub require_stable: bool,
}

/// What one group committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The group.
    pub group: String,
    /// By topic, or why there is none.
    pub topics: Result<Vec<(String, Vec<FetchedOffset>)>, GroupFault>,
}

/// What was committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: i32,
    /// What was committed; `None`: nothing, which Kafka writes as offset −1. Not a fault.
    pub committed: Option<CommittedOffset>,
    /// Why it is not told.
    pub fault: Option<GroupFault>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to consume.
    pub offset: i64,
    /// The leader epoch of the last record consumed.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What was remembered with it.
    pub metadata: String,
}

/// Forgets offsets.
#[derive(Clone, Debug, Default)]
pub struct DeleteOffsets {
    /// The group.
    pub group: String,
    /// Which.
    pub topics: Vec<(String, Vec<i32>)>,
}

/// Which groups to list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Only in these states, by Kafka's names in any case; empty: all.
    pub states: Vec<String>,
    /// Only of these types ("classic", "consumer"), in any case; empty: all.
    pub types: Vec<String>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// What kind of members it has; empty if none ever.
    pub protocol_type: String,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Kafka's name of its type.
    pub group_type: &'static str,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub group: String,
    /// Why there is nothing to describe. From version 6 on it is told; before that a group that is
    /// not there is described as one in state "Dead".
    pub fault: Option<GroupFault>,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// What kind of members it has.
    pub protocol_type: String,
    /// The generation's protocol, when it is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// What it says about itself in the group's protocol; empty when the group is not stable.
    pub metadata: Vec<u8>,
    /// What the leader gave it; empty when the group is not stable.
    pub assignment: Vec<u8>,
}

/// When an offset that brings its own retention expires.
pub(crate) fn expiry(committed: Timestamp, retention: Duration) -> Timestamp {
    let millis = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    Timestamp(committed.0.saturating_add(millis))
}
