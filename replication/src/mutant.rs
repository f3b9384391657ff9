//! Bugs on purpose: each has really been in Kafka or is the obvious way to get this wrong. The
//! simulation proves that it can see: every one of them, switched on in
//! [`crate::config::ReplicationConfig::mutant`], must break a named invariant within a thousand
//! seeds (`tests/mutants.rs`). They live here and not in a patch so that the proof runs with every
//! test run, on the code as it is. A broker has no way to set one.

/// One bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A new follower cuts its log at its own high watermark and trusts the rest (before KIP-101).
    TruncateByWatermark,
    /// The leader compares where an epoch ended, and not which epoch it was (before KIP-279).
    CompareOffsetsOnly,
    /// A follower whose leader stayed the same while the epoch rose goes on as it was
    /// (KAFKA-7164).
    SkipMissedEpoch,
    /// A follower takes over the high watermark of an answer that tells it to truncate, before it
    /// has (KAFKA-14704).
    WatermarkBeforeTruncation,
    /// A replica joins the ISR at the high watermark, though the leader's term began later
    /// (KAFKA-7128).
    JoinBeforeEpochStart,
    /// Replicas that were proposed for the ISR do not count until the leader hears of it.
    IgnoreMaximalIsr,
    /// The high watermark rises though fewer than `min.insync.replicas` are in sync (KAFKA-15583).
    AdvanceUnderMinIsr,
    /// A new leader does not know where its own term began until it has written (KAFKA-7415).
    ForgetEpochStart,
    /// An answer that was asked for in another role is carried out (KAFKA-13207).
    ObeyZombies,
    /// A follower promises what is only in its memory.
    PromiseEarly,
    /// Consumers read up to the log end.
    ReadToEnd,
    /// A leader that gave up batches which followers may have goes on in the same term.
    ReuseGivenUp,
    /// What a replica promised before it was taken away and given back still counts (the
    /// "removed and added in one batch" trap of the TLA+ model).
    KeepOldPromise,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 13] = [
        Mutant::TruncateByWatermark,
        Mutant::CompareOffsetsOnly,
        Mutant::SkipMissedEpoch,
        Mutant::WatermarkBeforeTruncation,
        Mutant::JoinBeforeEpochStart,
        Mutant::IgnoreMaximalIsr,
        Mutant::AdvanceUnderMinIsr,
        Mutant::ForgetEpochStart,
        Mutant::ObeyZombies,
        Mutant::PromiseEarly,
        Mutant::ReadToEnd,
        Mutant::ReuseGivenUp,
        Mutant::KeepOldPromise,
    ];
}
