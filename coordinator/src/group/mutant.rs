//! Bugs on purpose: each has been in Kafka or is the obvious way to get groups wrong. The
//! simulation proves that it can see: each of them, switched on in
//! [`super::GroupConfig::mutant`], must break a named invariant within a thousand seeds. They live
//! here and not in a patch so that the proof runs with every test run, on the code as it is. A
//! broker has no way to set one.

/// One bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A static member that comes back is given its new id without writing it down: after a
    /// failover the old id is the member again (KAFKA-10284).
    StaticChangeForgotten,
    /// A rebalance waits for members whose ids were given out but who never came (KAFKA-9752: a
    /// pending member without a session keeps the join phase open).
    PendingForever,
    /// Whether a commit is of the present generation is not looked at (KAFKA-9823).
    StaleGenerationCommits,
    /// An assignment is told before it is committed (KAFKA-17507's order, for groups).
    AssignmentToldEarly,
    /// An acknowledgement of committed offsets does not wait until they are committed.
    CommitToldEarly,
    /// A machine that took over does not watch the sessions of the members it found.
    SessionsNotTakenUp,
    /// Members that never ask for their assignment are waited for without end.
    SyncWaitsForever,
    /// Expiry looks at the time alone, and not at whether the group consumes the topic.
    ExpiresInUse,
    /// Whoever waited for an assignment is told the leader's.
    AssignmentsMixed,
    /// A new generation takes the number of the last one.
    GenerationReused,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 10] = [
        Mutant::StaticChangeForgotten,
        Mutant::PendingForever,
        Mutant::StaleGenerationCommits,
        Mutant::AssignmentToldEarly,
        Mutant::CommitToldEarly,
        Mutant::SessionsNotTakenUp,
        Mutant::SyncWaitsForever,
        Mutant::ExpiresInUse,
        Mutant::AssignmentsMixed,
        Mutant::GenerationReused,
    ];
}
