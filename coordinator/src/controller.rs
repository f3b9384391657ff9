//! The controller: the machine that owns what a cluster agrees on.
//!
//! Its hard state is a [`Cluster`], its records are [`Record`]s. Rules and messages follow Kafka's
//! controller (`ReplicationControlManager`, `ConfigurationControlManager`, `ControllerApis`); the
//! refusals are domain values that `net` maps to error codes. One request's records are appended
//! together, so a request is remembered whole or not at all.
//!
//! It does not know the wire, who may do what (authorization happens before), or how its log is
//! kept.

use std::sync::Arc;

use engine::ids::{BrokerEpoch, BrokerId, Offset, PartitionIndex, ProducerId, TopicId};
use engine::time::Instant;

use crate::cluster::{Cluster, ClusterId, Endpoint, Topic};
use crate::config::Config;
use crate::machine::{Machine, Outcome, Seen, Token};
use crate::records::Record;

mod brokers;
mod configs;
mod names;
mod placement;
mod producer_ids;
mod random;
mod topics;

pub use names::check_topic_name;

/// The controller machine. See [`Machine`]; it has no timers and nothing to forget.
pub enum Controller {}

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
    /// Give a broker a block of producer ids.
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// Its uptime session.
        epoch: BrokerEpoch,
    },
    /// A broker has removed the files of deleted topics. Unknown ones are ignored.
    PurgedTopics {
        /// The broker.
        broker: BrokerId,
        /// Which.
        topics: Vec<TopicId>,
    },
}

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
    /// To `AlterConfigs`: one per distinct name, in the order of first mention.
    AlteredConfigs(Vec<(String, Result<(), Refusal>)>),
    /// To `AllocateProducerIds`.
    AllocatedProducerIds(Result<ProducerIdBlock, Refusal>),
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

/// A change to one topic's overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// The topic's name.
    pub topic: String,
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

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind, by which programs act.
    pub why: Why,
    /// The sentence, for people; in Kafka's words where Kafka has some.
    pub message: String,
}

/// Kinds of refusals. `net` gives each its Kafka error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A topic of this name exists.
    TopicExists,
    /// No topic has this name, or no such partition.
    UnknownTopic,
    /// No topic has this identity.
    UnknownTopicId,
    /// No topic can have this name, or it collides with another.
    TopicNameInvalid,
    /// A number of partitions that cannot be.
    PartitionsInvalid,
    /// More replicas than brokers, or none.
    ReplicationFactorInvalid,
    /// An assignment of replicas that cannot be.
    AssignmentInvalid,
    /// A setting that nobody knows, or a value that it cannot have.
    ConfigInvalid,
    /// The request contradicts itself.
    RequestInvalid,
    /// Topics may not be deleted here.
    DeletionDisabled,
    /// A limit of this cluster is reached; the message names it.
    LimitReached,
    /// The broker's session is not its newest.
    StaleBrokerEpoch,
    /// No broker has this id.
    UnknownBroker,
    /// The broker belongs to another cluster.
    ForeignCluster,
}

impl Refusal {
    pub(crate) fn new(why: Why, message: impl Into<String>) -> Refusal {
        Refusal { why, message: message.into() }
    }
}

impl Machine for Controller {
    type Config = Config;
    type Hard = Cluster;
    type Soft = ();
    type Request = Request;
    type Reply = Reply;
    type Record = Record;

    fn decide(
        seen: Seen<'_, Self>,
        _soft: &mut (),
        from: Token,
        request: Request,
        out: &mut Outcome<Self>,
    ) {
        let records = &mut out.records;
        let reply = match request {
            Request::RegisterBroker(registration) => {
                Reply::Registered(brokers::register(seen, registration, records))
            }
            Request::CreateTopics { topics, validate_only } => {
                Reply::CreatedTopics(topics::create(seen, topics, validate_only, records))
            }
            Request::DeleteTopics { topics } => {
                Reply::DeletedTopics(topics::delete(seen, topics, records))
            }
            Request::CreatePartitions { topics, validate_only } => {
                Reply::CreatedPartitions(topics::widen(seen, topics, validate_only, records))
            }
            Request::AlterConfigs { topics, validate_only } => {
                Reply::AlteredConfigs(configs::alter(seen, topics, validate_only, records))
            }
            Request::AllocateProducerIds { broker, epoch } => Reply::AllocatedProducerIds(
                producer_ids::allocate(seen.hard, broker, epoch, records),
            ),
            Request::PurgedTopics { broker, topics } => {
                topics::purged(seen.hard, broker, topics, records);
                Reply::PurgedTopics
            }
        };
        out.reply(from, reply);
    }

    fn expire(_seen: Seen<'_, Self>, _soft: &mut (), _out: &mut Outcome<Self>) {}

    fn deadline(_soft: &()) -> Option<Instant> {
        None
    }

    fn apply(hard: &mut Cluster, _at: Offset, record: &Record) {
        hard.apply(record);
    }
}
