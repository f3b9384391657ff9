//! The promise to a producer: its batch becomes as durable as its acks ask, or he is told that
//! nobody knows.

use std::cell::Cell;
use std::rc::Rc;

use engine::ids::Offset;
use engine::log::Appended;
use engine::wait::Watch;

/// An appended batch on its way to the durability that its producer asked for.
#[must_use]
pub struct Ticket {
    /// Where it was put.
    pub appended: Appended,
    /// First readable offset of the log at that moment.
    pub log_start: Offset,
    pub(super) reach: Option<Reach>,
}

/// What must reach the batch's end.
pub(super) struct Reach {
    pub commit: Commit,
    /// Whether it must be committed, or only written.
    pub all: bool,
}

/// Whether what was appended so far becomes committed. Taken in the same turn as the append that
/// it is asked about.
#[derive(Clone)]
pub struct Commit {
    /// The written end of that time: closed if batches are given up, and then others may get their
    /// offsets.
    pub(super) written: Watch,
    /// The high watermark of this term, closed with it.
    pub(super) high_watermark: Watch,
    /// Set when the term has ended.
    pub(super) ended: Rc<Cell<bool>>,
}

/// The batch is not known to become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It will not: the device was full or failed, or the log was closed.
    #[error("the batch was given up before it was durable")]
    GivenUp,
    /// This broker stopped leading. Whoever leads now may have the batch or not.
    #[error("the leadership ended before the batch was durable; it may become so yet")]
    NotLeader,
}

impl Commit {
    /// Whether everything below `end`, which was appended before this was taken, is committed.
    pub fn is_reached(&self, end: Offset) -> bool {
        self.is_written(end) && self.high_watermark.value() >= end.value()
    }

    /// Waits until everything below `end`, which was appended before this was taken, is committed.
    pub async fn reach(&self, end: Offset) -> Result<(), Lost> {
        // What is written is not given up any more, and the high watermark will be this batch's.
        self.reach_written(end).await?;
        self.high_watermark.reach(end.value()).await.map_err(|_| self.lost())
    }

    fn is_written(&self, end: Offset) -> bool {
        self.written.value() >= end.value()
    }

    async fn reach_written(&self, end: Offset) -> Result<(), Lost> {
        self.written.reach(end.value()).await.map_err(|_| self.lost())
    }

    fn lost(&self) -> Lost {
        if self.ended.get() { Lost::NotLeader } else { Lost::GivenUp }
    }
}

impl Ticket {
    /// Whether it has come far enough already.
    pub fn is_done(&self) -> bool {
        let end = self.appended.end;
        self.reach.as_ref().is_none_or(|reach| match reach.all {
            true => reach.commit.is_reached(end),
            false => reach.commit.is_written(end),
        })
    }

    /// Waits until the batch is as durable as its acks ask.
    pub async fn done(&self) -> Result<(), Lost> {
        match &self.reach {
            None => Ok(()),
            Some(Reach { commit, all: true }) => commit.reach(self.appended.end).await,
            Some(Reach { commit, all: false }) => commit.reach_written(self.appended.end).await,
        }
    }
}
