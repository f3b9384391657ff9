//! Bugs on purpose: each has been in Kafka or is the obvious way to get KIP-848 wrong. The
//! simulation proves that it can see: each of them, switched on in
//! [`super::ConsumerConfig::mutant`], must break a named invariant within a thousand seeds. They
//! live here and not in a patch so that the proof runs with every test run, on the code as it is.
//! A broker has no way to set one.

/// One bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A partition is given to its next owner while the last one has not let go of it.
    UnreleasedGivenEarly,
    /// What a member is to give up is taken for given up at once, without its word.
    RevocationNotAwaited,
    /// A member that comes with an old epoch is believed.
    FencingForgotten,
    /// A member whose time to give up partitions is over is let be.
    RevokesForever,
    /// A machine that took over does not watch the sessions of the members it found.
    SessionsNotTakenUp,
    /// A member that arrives at its target keeps its old epoch.
    EpochNotBumped,
    /// Who has left goes on to be among those that the target assignment is made for.
    LeaversAssigned,
    /// A static member that comes back is given what it had without writing that down
    /// (KAFKA-10284).
    StaticChangeForgotten,
    /// What the members of a classic group have is forgotten when it becomes a consumer group.
    UpgradeForgetsOwners,
    /// A classic group that was a consumer group is taken for one that has assigned, though those
    /// who are gone took partitions with them (Kafka's, after a failover).
    DowngradeTakenForAssigned,
    /// Members that wait for an answer of a classic group wait on when it becomes a consumer group,
    /// and nobody goes on watching them.
    WaitersForgotten,
    /// A machine that took over gives members the broker's session before it knows their group's
    /// own.
    OwnTimesForgotten,
    /// Whether a batch holds the target is looked at when it is made, and not when a member joins
    /// that makes it too large.
    LateTargetUnchecked,
    /// A member whose place another was refused is not watched any more.
    RefusedPlaceForgotten,
}

impl Mutant {
    /// Those on the way between protocols, which `tests/mixed_groups.rs` sees.
    pub const MIGRATION: [Mutant; 3] =
        [Mutant::UpgradeForgetsOwners, Mutant::DowngradeTakenForAssigned, Mutant::WaitersForgotten];

    /// Those that no random run comes across; `tests/consumer_cases.rs` sees them, case by case.
    pub const CASES: [Mutant; 3] =
        [Mutant::OwnTimesForgotten, Mutant::LateTargetUnchecked, Mutant::RefusedPlaceForgotten];

    /// Those inside of a consumer group, which `tests/consumer_groups.rs` sees.
    pub const ALL: [Mutant; 8] = [
        Mutant::UnreleasedGivenEarly,
        Mutant::RevocationNotAwaited,
        Mutant::FencingForgotten,
        Mutant::RevokesForever,
        Mutant::SessionsNotTakenUp,
        Mutant::EpochNotBumped,
        Mutant::LeaversAssigned,
        Mutant::StaticChangeForgotten,
    ];
}
