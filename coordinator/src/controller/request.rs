//! What the controller is asked, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, TopicPartition,
};

use super::Refusal;
use crate::cluster::features::FeatureRange;
use crate::cluster::{
    ClusterId, DirectoryId, Endpoint, Incarnation, Partition, PartitionEpoch, Topic,
};

/// What can be asked of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A broker begins an uptime session.
    RegisterBroker(Registration),
    /// Make topics.
    CreateTopics {
        /// Which.
        topics: Vec<NewTopic>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Delete topics.
    DeleteTopics {
        /// Which.
        topics: Vec<TopicRef>,
    },
    /// Give topics more partitions.
    CreatePartitions {
        /// Which and how many.
        topics: Vec<MorePartitions>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Change overrides of topics.
    AlterConfigs {
        /// Which and how.
        topics: Vec<ConfigChange>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Change the settings that groups have of their own.
    AlterGroupConfigs {
        /// Of which, and how.
        groups: Vec<ConfigChange>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Give a broker a block of producer ids.
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// Its uptime session.
        epoch: BrokerEpoch,
    },
    /// A broker is alive, and how far it is. To be sent every fifth of the session timeout.
    Heartbeat(Heartbeat),
    /// A leader says who is in sync (Kafka's `AlterPartition`).
    AlterPartitions {
        /// The leader.
        broker: BrokerId,
        /// Its uptime session.
        epoch: BrokerEpoch,
        /// Which partitions, and how.
        partitions: Vec<IsrChange>,
    },
    /// A leader gave up batches that followers may have (its device was full) and can lead no
    /// further in its term: others shall lead, or it in a new term.
    NewTerms {
        /// The leader.
        broker: BrokerId,
        /// Its uptime session.
        epoch: BrokerEpoch,
        /// Which partitions, with the term that is spent. Of an older term nothing happens.
        partitions: Vec<(TopicPartition, LeaderEpoch)>,
    },
    /// Elect leaders.
    ElectLeaders {
        /// Which kind of election.
        kind: ElectionKind,
        /// Of which partitions, by name of the topic; `None`: of all.
        partitions: Option<Vec<(String, PartitionIndex)>>,
    },
    /// Begin, change or cancel reassignments (KIP-455).
    AlterReassignments {
        /// Which, and how.
        partitions: Vec<Reassignment>,
        /// Whether those that would get more or fewer replicas are refused (KIP-860).
        keep_factor: bool,
    },
    /// A broker is no member any more.
    UnregisterBroker {
        /// The broker.
        broker: BrokerId,
    },
    /// Change finalized levels of features: all of them or none.
    UpdateFeatures {
        /// Which, and how; each once.
        updates: Vec<FeatureUpdate>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// A broker has removed the files of deleted topics. Unknown ones are ignored.
    PurgedTopics {
        /// The broker.
        broker: BrokerId,
        /// Which.
        topics: Vec<TopicId>,
    },
}

/// What became of each ISR that a leader asked for: the partition as it is now, or why not.
pub type AlteredPartitions = Vec<(TopicPartition, Result<Partition, Refusal>)>;

/// What the controller answers; one variant for each of [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `RegisterBroker`.
    Registered(Result<Registered, Refusal>),
    /// To `CreateTopics`: one per distinct name, in the order of first mention.
    CreatedTopics(Vec<(String, Result<CreatedTopic, Refusal>)>),
    /// To `DeleteTopics`: one per distinct topic, in the order of first mention.
    DeletedTopics(Vec<Deletion>),
    /// To `CreatePartitions`: one per distinct name, in the order of first mention.
    CreatedPartitions(Vec<(String, Result<(), Refusal>)>),
    /// To `AlterConfigs` and `AlterGroupConfigs`: one per distinct name, in the order of first
    /// mention.
    AlteredConfigs(Vec<(String, Result<(), Refusal>)>),
    /// To `AllocateProducerIds`.
    AllocatedProducerIds(Result<ProducerIdBlock, Refusal>),
    /// To `Heartbeat`.
    Heartbeat(Result<Pulse, Refusal>),
    /// To `AlterPartitions`: one for each that was asked, in that order; or, for a broker that
    /// may ask nothing, why.
    AlteredPartitions(Result<AlteredPartitions, Refusal>),
    /// To `NewTerms`.
    NewTerms(Result<(), Refusal>),
    /// To `ElectLeaders`: one for each that was asked, in that order. Where all were asked, those
    /// that need no election are left out.
    ElectedLeaders(Vec<(String, PartitionIndex, Result<(), Refusal>)>),
    /// To `AlterReassignments`: one for each that was asked, in that order.
    AlteredReassignments(Vec<(String, PartitionIndex, Result<(), Refusal>)>),
    /// To `UnregisterBroker`.
    UnregisteredBroker(Result<(), Refusal>),
    /// To `UpdateFeatures`: why nothing was done, by the feature that is to blame.
    UpdatedFeatures(Result<(), (String, Refusal)>),
    /// To `PurgedTopics`.
    PurgedTopics,
}

/// A broker as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub id: BrokerId,
    /// How clients reach it; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands.
    pub rack: Option<String>,
    /// The cluster it believes it belongs to; `None` when it has never belonged to one.
    pub cluster: Option<ClusterId>,
    /// The run of its process. The same one again is a repeated request, not a restart.
    pub incarnation: Incarnation,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Which levels of which features it can do, by name. Empty: those of this release.
    pub features: BTreeMap<String, FeatureRange>,
    /// What its last end may have cost it.
    pub lost: Loss,
}

/// What the end of a broker's last run may have cost it of what it had promised to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nothing: a clean stop, or its process was killed while the machine stayed up.
    Nothing,
    /// What was written and not synced: the machine went down.
    Unsynced,
    /// Everything: its directory is a new one.
    Everything,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The broker.
    pub broker: BrokerId,
    /// Its uptime session.
    pub epoch: BrokerEpoch,
    /// It has applied every metadata record below this offset ([`crate::image::Image::offset`]).
    pub reached: Offset,
    /// It wants to stop as soon as it leads nothing that another could lead.
    pub want_shutdown: bool,
}

/// What a broker learns from its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Whether it is fenced.
    pub fenced: bool,
    /// Whether it is in controlled shutdown.
    pub stopping: bool,
    /// Whether it may stop now. It is fenced then.
    pub should_shut_down: bool,
}

/// An ISR as its leader wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The partition.
    pub partition: TopicPartition,
    /// Term in which the leader asks.
    pub leader_epoch: LeaderEpoch,
    /// Version of the partition that the leader knows.
    pub partition_epoch: PartitionEpoch,
    /// Who is in sync, each with the uptime session in which it fetched; the leader is one.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
}

/// Kinds of elections on demand (`ElectLeadersRequest.electionType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first replica, where it is in sync.
    Preferred,
    /// Anybody alive, where there is no leader; what others have committed may be lost.
    Unclean,
}

/// A reassignment of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic, by name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Who shall keep it; `None` cancels the reassignment under way.
    pub replicas: Option<Vec<BrokerId>>,
}

/// A change of one feature's finalized level (`UpdateFeaturesRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// The feature.
    pub name: String,
    /// The level it shall have; 0: off.
    pub level: i16,
    /// Whether it may go down.
    pub kind: UpgradeKind,
}

/// How a level may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeKind {
    /// Only up.
    Upgrade,
    /// Only down, if nothing is lost by it.
    SafeDowngrade,
    /// Only down, whatever is lost by it.
    UnsafeDowngrade,
}

/// What a broker learns when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its uptime session.
    pub epoch: BrokerEpoch,
}

/// A topic to make. Field meanings and -1 are Kafka's (`CreateTopicsRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1: the default, or as many as `assignments`.
    pub partitions: i32,
    /// How many replicas each; -1: the default, or as `assignments` say.
    pub replication_factor: i16,
    /// Who keeps what, when the caller decides it; otherwise empty.
    pub assignments: Vec<Assignment>,
    /// Its overrides, by name; a later mention wins; `None` is refused.
    pub overrides: Vec<(String, Option<String>)>,
}

/// One partition's brokers as the caller wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its brokers, the preferred leader first.
    pub replicas: Vec<BrokerId>,
}

/// What became of a topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// The topic as it is (or, with `validate_only`, as it would be).
    pub topic: Arc<Topic>,
}

/// A topic as a caller names it. Kafka's wire allows both or neither, which is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicRef {
    /// By name.
    pub name: Option<String>,
    /// By identity; `None` for the zero id.
    pub id: Option<TopicId>,
}

/// What became of a topic to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Its name, where known.
    pub name: Option<String>,
    /// Its identity, where known.
    pub id: Option<TopicId>,
    /// Whether it is gone.
    pub result: Result<(), Refusal>,
}

/// A topic to widen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    /// Its name.
    pub name: String,
    /// How many partitions it shall have in the end.
    pub count: i32,
    /// Brokers of each new partition, when the caller decides it.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// A change to the overrides of one topic, or of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its name.
    pub name: String,
    /// The change.
    pub change: Change,
}

/// How overrides change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These and no others (`AlterConfigs`); `None` is refused.
    Replace(Vec<(String, Option<String>)>),
    /// One by one (`IncrementalAlterConfigs`); each name at most once.
    Edit(Vec<(String, Edit)>),
}

/// One edit of one override (`AlterConfigOp.OpType`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// To this value; `None` is refused.
    Set(Option<String>),
    /// Back to the broker's value.
    Delete,
    /// These comma-separated values join the list, unless there; `None` is refused.
    Append(Option<String>),
    /// These comma-separated values leave the list; `None` is refused.
    Subtract(Option<String>),
}

/// Producer ids that a broker may give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first.
    pub first: ProducerId,
    /// How many.
    pub count: i64,
}
