//! What a history showed.

use std::fmt;

/// How many cases of each anomaly a report shows.
pub const EXAMPLES_MAX: usize = 5;

macro_rules! anomalies {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)*) => {
        /// What a broker that keeps its promises cannot cause.
        ///
        /// The *log* of a partition is what all reads and all acknowledgements say: values at
        /// offsets. Offsets without a value are legal; what is next to each other without them has
        /// indexes one apart.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Anomaly {
            $($(#[$meta])* $name,)*
        }

        impl Anomaly {
            /// All of them, in the order of a report.
            pub const ALL: &'static [Anomaly] = &[$(Anomaly::$name),*];

            /// Its name in a report.
            pub const fn name(self) -> &'static str {
                match self { $(Anomaly::$name => $text,)* }
            }
        }
    };
}

anomalies! {
    /// Two values at one offset.
    InconsistentOffsets = "inconsistent-offsets";
    /// One value at two places.
    Duplicate = "duplicate";
    /// A read of a value whose write had failed for certain.
    AbortedRead = "G1a";
    /// A read of a value that nobody sent (to a topic that somebody sends to).
    Unwritten = "unwritten-read";
    /// An acknowledged value that nobody read although somebody read behind it. The reader must
    /// have come from the beginning.
    LostWrite = "lost-write";
    /// An acknowledged value that no reader which read to the end got.
    Unseen = "unseen";
    /// A value that somebody read, and no reader which read to the end.
    Vanished = "vanished-read";
    /// A partition with an acknowledged value that nobody read to the end: what was not looked
    /// for is not there.
    Unread = "not-read-to-the-end";
    /// A reader left out a value between two calls.
    PollSkip = "poll-skip";
    /// A reader went back between two calls.
    NonmonotonicPoll = "nonmonotonic-poll";
    /// A reader left out a value within a call.
    IntPollSkip = "int-poll-skip";
    /// A reader went back within a call.
    IntNonmonotonicPoll = "int-nonmonotonic-poll";
    /// Two values of one producer are in the other order than sent, by different calls.
    NonmonotonicSend = "nonmonotonic-send";
    /// Two values of one producer are in the other order than sent, by the same call.
    IntNonmonotonicSend = "int-nonmonotonic-send";
    /// A reader was told a lower high watermark than before.
    WatermarkFell = "nonmonotonic-watermark";
    /// A group's stored offset is below an earlier one: somebody who no longer belonged to the
    /// group was let in.
    CommitFell = "nonmonotonic-commit";
    /// A group was told another offset than the last that was stored, a lower one.
    CommitLost = "lost-commit";
}

/// Cases of one anomaly.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The first [`EXAMPLES_MAX`] of them, in words.
    pub examples: Vec<String>,
}

impl Found {
    pub(super) fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// How much a history has of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Partitions.
    pub partitions: u64,
    /// Writes tried.
    pub sent: u64,
    /// Of those, acknowledged.
    pub acked: u64,
    /// Of those, refused for certain.
    pub failed: u64,
    /// Records that readers got.
    pub polled: u64,
    /// Different values among them.
    pub read: u64,
    /// Records that one reader got again without having moved.
    pub read_again: u64,
    /// Partitions that somebody read to the end.
    pub read_to_end: u64,
    /// Last lines that their writers did not finish.
    pub torn: u64,
}

/// What a history showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How much there was.
    pub counts: Counts,
    /// By anomaly, in the order of [`Anomaly::ALL`].
    found: Vec<Found>,
}

impl Report {
    pub(super) fn new(counts: Counts) -> Report {
        Report { counts, found: vec![Found::default(); Anomaly::ALL.len()] }
    }

    pub(super) fn of(&mut self, anomaly: Anomaly) -> &mut Found {
        &mut self.found[anomaly as usize]
    }

    /// The cases of an anomaly.
    pub fn found(&self, anomaly: Anomaly) -> &Found {
        &self.found[anomaly as usize]
    }

    /// How many cases of an anomaly there are.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.found(anomaly).count
    }

    /// The anomalies that there are.
    pub fn anomalies(&self) -> impl Iterator<Item = (Anomaly, &Found)> {
        Anomaly::ALL.iter().copied().zip(&self.found).filter(|(_, found)| found.count > 0)
    }

    /// Whether there is none.
    pub fn is_clean(&self) -> bool {
        self.anomalies().next().is_none()
    }
}

/// A line of counts, and one for each anomaly.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { partitions, sent, acked, failed, polled, read, .. } = self.counts;
        let Counts { read_again, read_to_end, torn, .. } = self.counts;
        let verdict = if self.is_clean() { "ok  " } else { "FAIL" };
        write!(
            f,
            "{verdict} history: {sent} sent, {acked} acked, {failed} failed, {} unknown; \
             {polled} polled, {read} different, {read_again} again; \
             {read_to_end} of {partitions} partitions read to the end",
            sent - acked - failed,
        )?;
        if torn > 0 {
            write!(f, "; {torn} torn last lines")?;
        }
        for (anomaly, found) in self.anomalies() {
            write!(f, "\nFAIL history: {}: {}", anomaly.name(), found.count)?;
            for example in &found.examples {
                write!(f, "\n       {example}")?;
            }
            if found.count > found.examples.len() as u64 {
                write!(f, "\n       …")?;
            }
        }
        Ok(())
    }
}
