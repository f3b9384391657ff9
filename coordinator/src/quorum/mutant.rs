//! Bugs on purpose. The simulation proves that it can see: each of these, switched on in
//! [`super::Options::mutant`], must make it fail within a few hundred seeds. They live here and not
//! in a patch so that the proof runs with every test run, on the code as it is. A coordinator has
//! no way to set one.

/// One bug that quorums have really had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A vote is reported as saved before the device has it for good.
    VoteUnsynced,
    /// A node forgets how it voted when it starts.
    VoteForgotten,
    /// Entries are acknowledged before they are synced.
    AcknowledgeEarly,
    /// Entries that a new leader took back are there again after a start.
    KeepTruncated,
    /// A snapshot is written over in place, and not synced before the log lets go.
    SnapshotInPlace,
    /// Entries are applied when they are appended, not when they are committed.
    ApplyUncommitted,
    /// Observers are shown entries that a snapshot from the leader has replaced, while the log
    /// still has them.
    ShowReplaced,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 7] = [
        Mutant::VoteUnsynced,
        Mutant::VoteForgotten,
        Mutant::AcknowledgeEarly,
        Mutant::KeepTruncated,
        Mutant::SnapshotInPlace,
        Mutant::ApplyUncommitted,
        Mutant::ShowReplaced,
    ];
}
