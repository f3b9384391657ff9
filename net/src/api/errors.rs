//! The one place where what went wrong becomes a Kafka error code. Every match is exhaustive: a
//! new variant does not compile until its meaning to clients is decided.

use coordinator::controller::Why;
use coordinator::group::consumer;
use coordinator::group::request::GroupFault;
use engine::batch::BatchError;
use engine::log::retention::DeleteError;
use engine::log::{AppendError, ReadError};
use engine::producers::ProducerError;
use replication::leader::EpochMismatch;
use replication::partition::{Lost, Refused};

use super::admin::NoReply;
use super::produce::Failure;
use super::read::Fault;
use crate::ask::NotDeleted;
use crate::partitions::Unavailable;
use crate::wire::ErrorCode;

/// Of a partition that cannot be used.
pub fn of_unavailable(error: &Unavailable) -> ErrorCode {
    match error {
        Unavailable::Unknown => ErrorCode::UnknownTopicOrPartition,
        Unavailable::NotLeader | Unavailable::Stopping => ErrorCode::NotLeaderOrFollower,
        Unavailable::Offline(_) | Unavailable::Full(_) => ErrorCode::KafkaStorageError,
    }
}

/// Of a batch (Kafka's `LogValidator`, `UnifiedLog.analyzeAndValidateRecords`).
pub fn of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Length(_) | BatchError::UnknownMagic(_) | BatchError::Crc { .. } => {
            ErrorCode::CorruptMessage
        }
        BatchError::TooLarge { .. } | BatchError::Bomb { .. } => ErrorCode::MessageTooLarge,
        BatchError::OldMagic(_) => ErrorCode::UnsupportedForMessageFormat,
        BatchError::Transactional => ErrorCode::InvalidTxnState,
        BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
        BatchError::TimestampType | BatchError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
        BatchError::Incomplete { .. }
        | BatchError::MoreThanOne(_)
        | BatchError::BaseOffset(_)
        | BatchError::Count { .. }
        | BatchError::Control
        | BatchError::Attributes(_)
        | BatchError::Producer { .. }
        | BatchError::NoKey { .. }
        | BatchError::Record { .. }
        | BatchError::Undecodable(_) => ErrorCode::InvalidRecord,
    }
}

/// Of a Produce for one partition.
pub fn of_produce(error: &Failure) -> ErrorCode {
    match error {
        Failure::Unavailable(error) => of_unavailable(error),
        Failure::Batch(error) => of_batch(error),
        Failure::Refused(Refused::NotLeader) => ErrorCode::NotLeaderOrFollower,
        Failure::Refused(Refused::Replicas(_)) => ErrorCode::NotEnoughReplicas,
        Failure::Refused(Refused::Log(error)) => of_append(error),
        Failure::Lost(Lost::GivenUp) => ErrorCode::KafkaStorageError,
        // Nobody knows whether the next leader has it: a client must not take this for "no".
        Failure::Lost(Lost::NotLeader) => ErrorCode::NotLeaderOrFollower,
        Failure::TimedOut => ErrorCode::RequestTimedOut,
        Failure::Request(code, _) => *code,
    }
}

fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::DiskFailed | AppendError::NoSpace => ErrorCode::KafkaStorageError,
        // The log ends because the topic is deleted or the broker stops: look again.
        // Or it follows another leader already.
        AppendError::Closed | AppendError::Truncating => ErrorCode::NotLeaderOrFollower,
        AppendError::Producer(ProducerError::OldEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendError::Producer(ProducerError::OutOfOrder { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        AppendError::Epochs(_) => ErrorCode::KafkaStorageError,
    }
}

/// Of another leadership than the one in force.
pub fn of_epoch(error: &EpochMismatch) -> ErrorCode {
    match error {
        EpochMismatch::Fenced { .. } => ErrorCode::FencedLeaderEpoch,
        EpochMismatch::Unknown { .. } => ErrorCode::UnknownLeaderEpoch,
    }
}

/// Of a log that cannot be read.
pub fn of_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. } | ReadError::Device(_) => ErrorCode::KafkaStorageError,
        ReadError::Undecodable(_) => ErrorCode::CorruptMessage,
    }
}

/// Of a Fetch of one partition.
pub fn of_fetch(error: &Fault) -> ErrorCode {
    match error {
        Fault::Unavailable(error) => of_unavailable(error),
        Fault::Epoch(error) => of_epoch(error),
        Fault::Unsettled => ErrorCode::OffsetNotAvailable,
        Fault::Read(error) => of_read(error),
    }
}

/// Of records that were not deleted.
pub fn of_not_deleted(error: &NotDeleted) -> ErrorCode {
    match error {
        NotDeleted::Unavailable(error) => of_unavailable(error),
        NotDeleted::Log(DeleteError::OutOfRange { .. }) => ErrorCode::OffsetOutOfRange,
        NotDeleted::Log(DeleteError::Device(_)) => ErrorCode::KafkaStorageError,
    }
}

/// Of a controller that did not answer.
pub fn of_no_reply(why: NoReply) -> ErrorCode {
    match why {
        NoReply::TimedOut => ErrorCode::RequestTimedOut,
        // Clients look for the controller again, and find it when it is back.
        NoReply::Stopping => ErrorCode::NotController,
    }
}

/// Of a refusal by the controller.
pub fn of_refusal(why: Why) -> ErrorCode {
    match why {
        Why::TopicExists => ErrorCode::TopicAlreadyExists,
        Why::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        Why::UnknownTopicId => ErrorCode::UnknownTopicId,
        Why::TopicNameInvalid => ErrorCode::InvalidTopic,
        Why::PartitionsInvalid => ErrorCode::InvalidPartitions,
        Why::ReplicationFactorInvalid => ErrorCode::InvalidReplicationFactor,
        Why::AssignmentInvalid => ErrorCode::InvalidReplicaAssignment,
        Why::ConfigInvalid => ErrorCode::InvalidConfig,
        Why::RequestInvalid => ErrorCode::InvalidRequest,
        Why::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
        Why::LimitReached => ErrorCode::PolicyViolation,
        Why::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
        Why::UnknownBroker => ErrorCode::BrokerIdNotRegistered,
        Why::ForeignCluster => ErrorCode::InconsistentClusterId,
        Why::DuplicateBroker => ErrorCode::DuplicateBrokerRegistration,
        Why::RegistrationInvalid => ErrorCode::InvalidRegistration,
        Why::FeatureUnsupported => ErrorCode::UnsupportedVersion,
        Why::FeatureUpdateInvalid | Why::InvalidUpdateVersion => ErrorCode::InvalidUpdateVersion,
        Why::NotController => ErrorCode::NotController,
        Why::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        Why::IneligibleReplica => ErrorCode::IneligibleReplica,
        Why::NewLeaderElected => ErrorCode::NewLeaderElected,
        Why::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        Why::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        Why::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
        Why::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
    }
}

/// Why a group did not do what it was asked.
pub fn of_group(fault: GroupFault) -> ErrorCode {
    match fault {
        GroupFault::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupFault::InvalidRequest => ErrorCode::InvalidRequest,
        GroupFault::GroupIdNotFound | GroupFault::OtherType => ErrorCode::GroupIdNotFound,
        GroupFault::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupFault::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupFault::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupFault::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupFault::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupFault::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        GroupFault::UnsupportedVersion => ErrorCode::UnsupportedVersion,
        GroupFault::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupFault::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupFault::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupFault::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupFault::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupFault::InvalidCommitOffsetSize => ErrorCode::InvalidCommitOffsetSize,
        GroupFault::GroupTooLarge => ErrorCode::UnknownServerError,
        GroupFault::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupFault::UnstableOffsetCommit => ErrorCode::UnstableOffsetCommit,
    }
}

/// Why a consumer group did not do what a member asked.
pub fn of_consumer(fault: &consumer::Fault) -> ErrorCode {
    use consumer::Fault;
    match fault {
        Fault::InvalidRequest(_) => ErrorCode::InvalidRequest,
        Fault::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        Fault::UnknownMemberId => ErrorCode::UnknownMemberId,
        Fault::FencedMemberEpoch { .. } => ErrorCode::FencedMemberEpoch,
        Fault::StaleMemberEpoch { .. } => ErrorCode::StaleMemberEpoch,
        Fault::FencedInstanceId => ErrorCode::FencedInstanceId,
        Fault::UnreleasedInstanceId => ErrorCode::UnreleasedInstanceId,
        Fault::UnsupportedAssignor(_) => ErrorCode::UnsupportedAssignor,
        Fault::InvalidRegularExpression(_) => ErrorCode::InvalidRegularExpression,
        Fault::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        Fault::GroupTooLarge => ErrorCode::UnknownServerError,
        Fault::UnsupportedVersion => ErrorCode::UnsupportedVersion,
        Fault::IllegalGeneration => ErrorCode::IllegalGeneration,
        Fault::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Fault::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        Fault::MemberIdRequired(_) => ErrorCode::MemberIdRequired,
    }
}
