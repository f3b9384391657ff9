//! The driver that joins a log with its leadership: appends, tickets, the high watermark, reads
//! below it. The one async file of this crate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::batch::Checked;
use engine::config::LogConfig;
use engine::env::{Env, Queue};
use engine::epochs::EpochEnd;
use engine::ids::{BrokerId, LeaderEpoch, Offset};
use engine::log::retention::DeleteError;
use engine::log::{AppendError, Appended, Chunk, Limit, Log, ReadError, Timed};
use engine::time::Timestamp;
use engine::wait::Watch;
use futures_lite::future;

use crate::leader::{Acks, EpochMismatch, Leader, NotEnoughReplicas};

/// A partition that this broker leads. Cloning shares it; it lives on one shard.
pub struct Partition<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Partition<E> {
    fn clone(&self) -> Self {
        Partition(self.0.clone())
    }
}

struct Inner<E: Env> {
    env: E,
    log: Log<E>,
    leader: RefCell<Leader>,
    /// Follows `leader.high_watermark()`; closed when the log takes no batches any more. What is
    /// below it is durable and never given up, so that it only rises.
    high_watermark: Watch,
    /// A task is following the log's durable end.
    following: Cell<bool>,
    /// Raised at each change of the configuration.
    configured: Watch,
}

/// Why a batch was refused. Nothing of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too few replicas are in sync.
    #[error(transparent)]
    Replicas(#[from] NotEnoughReplicas),
    /// The log does not take it.
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// An appended batch on its way to the durability that its producer asked for.
#[must_use]
pub struct Ticket {
    /// Where it was put.
    pub appended: Appended,
    /// First readable offset of the log at that moment.
    pub log_start: Offset,
    reach: Option<Reach>,
}

/// What must reach the batch's end.
enum Reach {
    /// The written end in whose time the batch was appended, for those who want no more.
    Written(Watch),
    /// The high watermark.
    Committed(Commit),
}

/// Whether what was appended so far becomes committed. Taken in the same turn as the append that
/// it is asked about.
#[derive(Clone)]
pub struct Commit {
    /// The written end of that time: closed if batches are given up, and then others may get their
    /// offsets.
    written: Watch,
    high_watermark: Watch,
}

impl Commit {
    /// Whether everything below `end`, which was appended before this was taken, is committed.
    pub fn is_reached(&self, end: Offset) -> bool {
        let end = end.value();
        self.written.value() >= end && self.high_watermark.value() >= end
    }

    /// Waits until everything below `end`, which was appended before this was taken, is committed.
    pub async fn reach(&self, end: Offset) -> Result<(), Lost> {
        // What is written is not given up any more, and the high watermark will be this batch's.
        self.written.reach(end.value()).await.map_err(|_| Lost)?;
        self.high_watermark.reach(end.value()).await.map_err(|_| Lost)
    }
}

/// The batch will not become durable here: the device was full or failed, or the log was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch was given up before it was durable")]
pub struct Lost;

impl Ticket {
    /// Whether it has come far enough already.
    pub fn is_done(&self) -> bool {
        let end = self.appended.end;
        self.reach.as_ref().is_none_or(|reach| match reach {
            Reach::Written(written) => written.value() >= end.value(),
            Reach::Committed(commit) => commit.is_reached(end),
        })
    }

    /// Waits until the batch is as durable as its acks ask.
    pub async fn done(&self) -> Result<(), Lost> {
        let end = self.appended.end;
        match &self.reach {
            None => Ok(()),
            Some(Reach::Written(written)) => written.reach(end.value()).await.map_err(|_| Lost),
            Some(Reach::Committed(commit)) => commit.reach(end).await,
        }
    }
}

impl<E: Env> Partition<E> {
    /// Takes the lead in `epoch` with `isr` (this broker included) over an opened log.
    pub fn lead(
        env: &E,
        log: Log<E>,
        me: BrokerId,
        epoch: LeaderEpoch,
        isr: &[BrokerId],
    ) -> Partition<E> {
        let durable = Offset::new(log.durable().value());
        // Opening has synced what it found, and alone in the ISR that is what is committed.
        let leader = Leader::new(me, epoch, isr, durable, Offset::ZERO);
        let high_watermark = Watch::new(leader.high_watermark().value());
        Partition(Rc::new(Inner {
            env: env.clone(),
            log,
            leader: leader.into(),
            high_watermark,
            following: Cell::new(false),
            configured: Watch::new(0),
        }))
    }

    /// Appends a checked batch. Synchronous: batches get their offsets in the order of the calls.
    pub fn append(&self, batch: &Checked<'_>, acks: Acks) -> Result<Ticket, Refused> {
        let partition = &self.0;
        let epoch = {
            let leader = partition.leader.borrow();
            leader.admit(acks, partition.log.config().min_insync_replicas as usize)?;
            leader.epoch()
        };
        let appended = partition.log.append(batch, epoch, acks == Acks::Leader)?;
        let reach = match acks {
            Acks::None => None,
            Acks::Leader => Some(Reach::Written(partition.log.written())),
            Acks::All => Some(Reach::Committed(self.commit())),
        };
        if !partition.following.replace(true) {
            partition.env.spawn(Queue::Request, follow(partition.clone()));
        }
        Ok(Ticket { appended, log_start: partition.log.start(), reach })
    }

    /// The log below.
    pub fn log(&self) -> &Log<E> {
        &self.0.log
    }

    /// The term of this leadership.
    pub fn epoch(&self) -> LeaderEpoch {
        self.0.leader.borrow().epoch()
    }

    /// Compares the epoch that a client named, if it did.
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochMismatch> {
        self.0.leader.borrow().check_epoch(asked)
    }

    /// Exclusive end of the committed log.
    pub fn high_watermark(&self) -> Offset {
        self.0.leader.borrow().high_watermark()
    }

    /// Exclusive end of what read-committed consumers see: without transactions, the high
    /// watermark.
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }

    /// The high watermark, to wait for. Closed when the log takes no batches any more.
    pub fn watch(&self) -> Watch {
        self.0.high_watermark.clone()
    }

    /// Whether what is in the log now becomes committed.
    pub fn commit(&self) -> Commit {
        let high_watermark = self.0.high_watermark.clone();
        Commit { written: self.0.log.written(), high_watermark }
    }

    /// Reads committed batches; `None` when the device must be asked.
    pub fn read_hot(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Option<Chunk<E>>, ReadError> {
        self.0.log.read_hot(from, self.limit(bytes_max, at_least_one))
    }

    /// Reads committed batches.
    pub async fn read(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Chunk<E>, ReadError> {
        self.0.log.read(from, self.limit(bytes_max, at_least_one)).await
    }

    fn limit(&self, bytes_max: usize, at_least_one: bool) -> Limit {
        Limit { bytes_max, bound: self.high_watermark(), at_least_one }
    }

    /// The first committed record at or after a time.
    pub async fn find_time(&self, from: Timestamp) -> Result<Option<Timed>, ReadError> {
        self.0.log.find_time(from, self.high_watermark()).await
    }

    /// The committed record with the largest timestamp.
    pub async fn max_time(&self) -> Result<Option<Timed>, ReadError> {
        self.0.log.max_time(self.high_watermark()).await
    }

    /// Where an epoch ended (OffsetForLeaderEpoch): the largest epoch not above the one asked for,
    /// and its exclusive end offset.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let end = self.0.log.end();
        // A log without a batch of the current epoch still ends where it ends in this epoch.
        if epoch == self.epoch() {
            return Some(EpochEnd { epoch, end });
        }
        self.0.log.with_epochs(|epochs| epochs.end_of(epoch, end))
    }

    /// Deletes records below `to`, or below the high watermark if `None`; answers the new start.
    pub async fn delete_before(&self, to: Option<Offset>) -> Result<Offset, DeleteError> {
        let bound = self.high_watermark();
        self.0.log.delete_before(to.unwrap_or(bound), bound).await
    }

    /// Puts a configuration in force.
    pub fn configure(&self, config: Rc<LogConfig>) {
        self.0.log.configure(config);
        self.0.configured.raise(self.0.configured.value() + 1);
    }

    /// The chores of the log.
    pub async fn tend(&self) -> Result<(), ReadError> {
        self.0.log.tend(self.high_watermark()).await
    }

    /// Ends it at once, without waiting for anything: the topic was deleted. Whoever waits is told.
    pub fn retire(&self) {
        self.0.log.retire();
        self.0.high_watermark.close();
    }

    /// Syncs and closes the log.
    pub async fn close(&self) -> std::io::Result<()> {
        let closed = self.0.log.close().await;
        self.0.high_watermark.close();
        closed
    }
}

/// Follows the log's durable end until everything appended is committed. Ends then, so that an
/// idle partition has no task.
async fn follow<E: Env>(partition: Rc<Inner<E>>) {
    loop {
        let before = partition.leader.borrow().high_watermark();
        if before >= partition.log.end() {
            partition.following.set(false);
            return;
        }
        let durable = partition.log.durable();
        let configured = partition.configured.value();
        let reconfigured = async {
            let _ = partition.configured.reach(configured + 1).await;
            Ok(())
        };
        let reached = future::or(durable.reach(before.value() + 1), reconfigured).await;
        // Asked anew: the class that counts may have changed with the configuration.
        let end = Offset::new(partition.log.durable().value());
        if partition.leader.borrow_mut().on_durable(end) {
            let high_watermark = partition.leader.borrow().high_watermark();
            partition.high_watermark.raise(high_watermark.value());
        }
        // Closed: batches were given up, and the log goes on with a new watch; or it is at its end.
        if reached.is_err() && !partition.log.is_open() {
            partition.high_watermark.close();
            partition.following.set(false);
            return;
        }
    }
}
