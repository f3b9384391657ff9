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
    /// The written end in whose time the batch was appended: closed if the batch is given up, and
    /// then another batch may get its offsets.
    pub written: Watch,
    /// The high watermark, for those who want that: of this term, closed with it.
    pub committed: Option<Watch>,
    /// Set when the term has ended.
    pub ended: Rc<Cell<bool>>,
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

impl Ticket {
    /// Whether it has come far enough already.
    pub fn is_done(&self) -> bool {
        let end = self.appended.end.value();
        self.reach.as_ref().is_none_or(|reach| {
            let committed = reach.committed.as_ref().is_none_or(|watch| watch.value() >= end);
            committed && reach.written.value() >= end
        })
    }

    /// Waits until the batch is as durable as its acks ask.
    pub async fn done(&self) -> Result<(), Lost> {
        let Some(Reach { written, committed, ended }) = &self.reach else { return Ok(()) };
        let lost = |_| if ended.get() { Lost::NotLeader } else { Lost::GivenUp };
        let end = self.appended.end.value();
        // What is written is not given up any more, and the high watermark will be this batch's.
        written.reach(end).await.map_err(lost)?;
        match committed {
            None => Ok(()),
            Some(high_watermark) => high_watermark.reach(end).await.map_err(lost),
        }
    }
}
