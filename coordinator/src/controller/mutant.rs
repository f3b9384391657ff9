//! Bugs on purpose. The simulation of the controller proves that it can see: each of these,
//! switched on in [`crate::config::Config::mutant`], must make it fail within a thousand seeds.
//! They live here and not in a patch so that the proof runs with every test run, on the code as
//! it is. None is looked at per record of data; a broker has no way to set one.

/// One bug that controllers have really had, or nearly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A leader may take a fenced replica into its ISR (KAFKA-13916).
    FencedJoins,
    /// The last known leader is elected though it is fenced (KAFKA-19522).
    FencedLastLeader,
    /// What a broker lost when it went down is not asked (KAFKA-18106, KAFKA-18635).
    LossForgotten,
    /// Whoever leaves an ISR that is smaller than its minimum is forgotten (KIP-966).
    EligibleDropped,
    /// Members of a new ISR may have fetched in an earlier session (KIP-903).
    StaleBrokerEpoch,
    /// A leader may change a version of the partition that is not the newest (KAFKA-12686).
    StalePartitionEpoch,
    /// A leader that returns goes on in the term it had.
    EpochKept,
    /// Removing a replica begins no new term, so that a leader that sees it removed and added
    /// again at once believes that it has what it had.
    RemovalUnseen,
    /// A broker is unfenced before it has applied its own registration.
    UnfencedEarly,
    /// Whoever is alone in the ISR leaves it when it is fenced, though it lost nothing.
    LastOneLeaves,
    /// A reassignment ends when the new replicas are in sync, whether or not the others are.
    ReassignmentEndsEarly,
    /// Eligible replicas stay eligible when a topic's minimum is lowered, below which they are
    /// behind.
    EligibleOutlivesMinimum,
    /// A new controller takes up the sessions of brokers that it has never heard of as ended.
    SessionsNotRenewed,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 13] = [
        Mutant::FencedJoins,
        Mutant::FencedLastLeader,
        Mutant::LossForgotten,
        Mutant::EligibleDropped,
        Mutant::StaleBrokerEpoch,
        Mutant::StalePartitionEpoch,
        Mutant::EpochKept,
        Mutant::RemovalUnseen,
        Mutant::UnfencedEarly,
        Mutant::LastOneLeaves,
        Mutant::ReassignmentEndsEarly,
        Mutant::EligibleOutlivesMinimum,
        Mutant::SessionsNotRenewed,
    ];
}
