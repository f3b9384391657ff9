//! Layouts of replies, version 1.

use super::super::{
    CreatedTopic, Deletion, ProducerIdBlock, Pulse, Refusal, Registered, Reply, Why,
};
use super::plain::{Plain, layout};
use crate::records::{PartitionV2, TopicV2};

type Named = Vec<(String, Result<(), RefusalV1>)>;
type Placed = Vec<(String, i32, Result<(), RefusalV1>)>;
type Altered = Vec<(([u8; 16], i32), Result<PartitionV2, RefusalV1>)>;

layout! {
    enum ReplyV1 of Reply {
        Registered(registered: Result<RegisteredV1, RefusalV1>),
        CreatedTopics(topics: Vec<(String, Result<CreatedTopicV1, RefusalV1>)>),
        DeletedTopics(topics: Vec<DeletionV1>),
        CreatedPartitions(topics: Named),
        AlteredConfigs(topics: Named),
        AllocatedProducerIds(block: Result<ProducerIdBlockV1, RefusalV1>),
        Heartbeat(pulse: Result<PulseV1, RefusalV1>),
        AlteredPartitions(partitions: Result<Altered, RefusalV1>),
        ElectedLeaders(partitions: Placed),
        AlteredReassignments(partitions: Placed),
        UnregisteredBroker(done: Result<(), RefusalV1>),
        UpdatedFeatures(done: Result<(), (String, RefusalV1)>),
        PurgedTopics,
        NewTerms(done: Result<(), RefusalV1>),
    }

    struct RegisteredV1 of Registered {
        cluster: String,
        epoch: i64,
    }

    struct CreatedTopicV1 of CreatedTopic {
        topic: TopicV2,
    }

    struct DeletionV1 of Deletion {
        name: Option<String>,
        id: Option<[u8; 16]>,
        result: Result<(), RefusalV1>,
    }

    struct ProducerIdBlockV1 of ProducerIdBlock {
        first: i64,
        count: i64,
    }

    struct PulseV1 of Pulse {
        fenced: bool,
        stopping: bool,
        should_shut_down: bool,
    }

    struct RefusalV1 of Refusal {
        why: WhyV1,
        message: String,
    }

    enum WhyV1 of Why {
        TopicExists,
        UnknownTopic,
        UnknownTopicId,
        TopicNameInvalid,
        PartitionsInvalid,
        ReplicationFactorInvalid,
        AssignmentInvalid,
        ConfigInvalid,
        RequestInvalid,
        DeletionDisabled,
        LimitReached,
        StaleBrokerEpoch,
        UnknownBroker,
        ForeignCluster,
        DuplicateBroker,
        RegistrationInvalid,
        FeatureUnsupported,
        FeatureUpdateInvalid,
        NotController,
        FencedLeaderEpoch,
        InvalidUpdateVersion,
        IneligibleReplica,
        NewLeaderElected,
        ElectionNotNeeded,
        PreferredLeaderNotAvailable,
        EligibleLeadersNotAvailable,
        NoReassignmentInProgress,
    }
}
