//! Bugs on purpose of the driver: each is an obvious way to get it wrong. The simulated cluster
//! (`net/tests/sim_cluster.rs`) proves that its clients would notice. A broker has no way to set
//! one; a machine's configuration hands it on ([`crate::machine::Machine::runtime_mutant`]).

/// One bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A reply does not wait until what the machine has seen is committed.
    ReplyBeforeCommit,
    /// A machine that is being loaded answers as if it were loaded.
    AnswersWhileLoading,
    /// A machine is loaded as far as the new leader knows that its log is committed, which is less
    /// than what the one before acknowledged.
    LoadsToWatermark,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 3] =
        [Mutant::ReplyBeforeCommit, Mutant::AnswersWhileLoading, Mutant::LoadsToWatermark];
}
