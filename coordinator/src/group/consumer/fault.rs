//! Why a consumer group does not do what it is asked.

/// The names are Kafka's errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// INVALID_REQUEST: the request contradicts itself.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// GROUP_ID_NOT_FOUND: there is no such group, and nobody joins with this request.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// UNKNOWN_MEMBER_ID: the group knows no such member.
    #[error("the group knows no such member")]
    UnknownMemberId,
    /// FENCED_MEMBER_EPOCH: the member is not in the epoch that it believes to be in; it must give
    /// up everything and join again.
    #[error("the member is in epoch {epoch}, not in {received}")]
    FencedMemberEpoch {
        /// Where it is.
        epoch: i32,
        /// Where it believes to be.
        received: i32,
    },
    /// STALE_MEMBER_EPOCH: the same where offsets are committed or fetched; it heartbeats first.
    #[error("the member is in epoch {epoch}, not in {received}")]
    StaleMemberEpoch {
        /// Where it is.
        epoch: i32,
        /// Where it believes to be.
        received: i32,
    },
    /// FENCED_INSTANCE_ID: another member has this `group.instance.id`.
    #[error("another member has this instance id")]
    FencedInstanceId,
    /// UNRELEASED_INSTANCE_ID: another member has this `group.instance.id` and has not let go of
    /// it; it may leave, or its session end.
    #[error("another member has not let go of this instance id")]
    UnreleasedInstanceId,
    /// UNSUPPORTED_ASSIGNOR: this broker does not have it.
    #[error("there is no such assignor; there are {0}")]
    UnsupportedAssignor(String),
    /// INVALID_REGULAR_EXPRESSION.
    #[error("not a regular expression: {0}")]
    InvalidRegularExpression(String),
    /// GROUP_MAX_SIZE_REACHED: no room for another member.
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// UNKNOWN_SERVER_ERROR: with what the member wants, the group would be more than one batch of
    /// the log can hold; nothing of it is kept, and the others go on.
    #[error("the group is larger than one batch holds")]
    GroupTooLarge,
    /// UNSUPPORTED_VERSION: a member of the consumer protocol commits with a version of
    /// OffsetCommit that does not know member epochs.
    #[error("members of the consumer protocol commit offsets from version 9 on")]
    UnsupportedVersion,
    /// ILLEGAL_GENERATION: a member of the classic protocol is not in the generation that it
    /// believes to be in.
    #[error("the member is in another generation")]
    IllegalGeneration,
    /// REBALANCE_IN_PROGRESS: a member of the classic protocol has to join again.
    #[error("the member has to join again")]
    RebalanceInProgress,
    /// INCONSISTENT_GROUP_PROTOCOL: the group speaks another protocol than the member, or what the
    /// member says in it cannot be read.
    #[error("no protocol in common")]
    InconsistentGroupProtocol,
    /// MEMBER_ID_REQUIRED: join again with this id.
    #[error("join again as {0}")]
    MemberIdRequired(String),
}
