//! Bugs on purpose. The crash test proves that it can see: each of these, switched on in
//! [`super::Bounds::mutant`], must make it fail within a thousand seeds (`scripts/mutants`). They
//! live here and not in a patch so that the proof runs with every test run, on the code as it is.
//! None is looked at per batch; a broker has no way to set one.

/// One bug that storage engines have really had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Nothing is ever flushed, and success is reported.
    SkipSync,
    /// Writes are reported before the device has them.
    AnswerEarly,
    /// A failed flush counts as a successful one.
    IgnoreFailedSync,
    /// Directories are never synced, so that new segments may vanish.
    ForgetDirSync,
    /// A new segment is begun without cutting and syncing the one before.
    RollUnfinished,
    /// A checkpoint speaks of data that is not synced yet.
    CheckpointEarly,
    /// Segments are removed before the new start of the log is durable.
    RemoveEarly,
    /// Whatever cannot be read ends the log: damage in the middle is cut like a torn tail.
    CutDamage,
    /// What lies behind a cut stays in the file.
    KeepCutBytes,
    /// What lies behind a given-up write stays in the file.
    KeepGivenUp,
    /// A saved index is taken as it is, and its entries are not compared with the segment.
    TrustIndex,
    /// Producers are not read back when a log is opened: retries are appended twice.
    ForgetProducers,
    /// A truncated segment is cut, but that is not synced.
    CutUnsynced,
    /// Truncation removes the oldest segments first.
    CutForwards,
    /// The checkpoint still speaks of what was truncated.
    CheckpointBeyondCut,
    /// The leader epochs of what was truncated stay.
    KeepCutEpochs,
    /// The producers remember what was truncated.
    KeepCutProducers,
    /// Opening relies on a truncation that it finds under way being durable.
    ForgetCut,
    /// A compacted segment takes its place before it is synced.
    SwapUnsynced,
    /// It takes its place before the other segments that are in it are removed.
    SwapForwards,
    /// Deletion marks go before their horizon.
    RemoveMarksEarly,
    /// Compaction goes beyond what its full map knows.
    CleanUnknown,
    /// The active segment is compacted.
    CleanActive,
    /// No checkpoint says that there are holes now.
    ForgetHoles,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 24] = [
        Mutant::SkipSync,
        Mutant::AnswerEarly,
        Mutant::IgnoreFailedSync,
        Mutant::ForgetDirSync,
        Mutant::RollUnfinished,
        Mutant::CheckpointEarly,
        Mutant::RemoveEarly,
        Mutant::CutDamage,
        Mutant::KeepCutBytes,
        Mutant::KeepGivenUp,
        Mutant::TrustIndex,
        Mutant::ForgetProducers,
        Mutant::CutUnsynced,
        Mutant::CutForwards,
        Mutant::CheckpointBeyondCut,
        Mutant::KeepCutEpochs,
        Mutant::KeepCutProducers,
        Mutant::ForgetCut,
        Mutant::SwapUnsynced,
        Mutant::SwapForwards,
        Mutant::RemoveMarksEarly,
        Mutant::CleanUnknown,
        Mutant::CleanActive,
        Mutant::ForgetHoles,
    ];
}
