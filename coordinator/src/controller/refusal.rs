//! Why the controller does not do what it is asked.

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
    /// Another broker with this id is alive.
    DuplicateBroker,
    /// The broker says something of itself that cannot be.
    RegistrationInvalid,
    /// The broker cannot do what the cluster has switched on.
    FeatureUnsupported,
    /// A feature cannot have this level now.
    FeatureUpdateInvalid,
    /// The asker knows more than this controller, which therefore is not the newest one.
    NotController,
    /// The asker leads in a term that is over.
    FencedLeaderEpoch,
    /// The asker knows an old version of the partition.
    InvalidUpdateVersion,
    /// A replica that cannot be in sync: not registered, fenced, stopping, or in another session.
    IneligibleReplica,
    /// It was done, and another leads now.
    NewLeaderElected,
    /// There is a leader already, or the preferred one.
    ElectionNotNeeded,
    /// The preferred leader is not in sync or not alive.
    PreferredLeaderNotAvailable,
    /// Nobody who could lead is alive.
    EligibleLeadersNotAvailable,
    /// The partition is not being reassigned.
    NoReassignmentInProgress,
}

impl Refusal {
    pub(crate) fn new(why: Why, message: impl Into<String>) -> Refusal {
        Refusal { why, message: message.into() }
    }
}
