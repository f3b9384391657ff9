//! The log of one machine: where records are proposed, and where it is known that they are
//! committed. Proposing and committing are two steps, so that a quorum can stand here later: it
//! proposes alike, and commits when a majority has synced.
//!
//! Today a record is committed when the partition's high watermark has passed it. Records of one
//! proposal are one batch, which a crash leaves whole or not at all.

use engine::batch::{BatchBuilder, BatchError, NewRecord, RecordFault, batches, check_trusted};
use engine::env::Env;
use engine::ids::{LeaderEpoch, Offset};
use engine::log::retention::DeleteError;
use engine::log::{AppendError, ReadError};
use engine::time::Timestamp;
use replication::leader::Acks;
use replication::partition::{Commit, Partition, Refused};

use crate::config::BATCH_BYTES_MAX;
use crate::machine::Stored;

/// Bytes that one step of a replay reads.
const READ_BYTES: usize = 1 << 20;

/// A machine's log during one term of this broker's lead. Cloning shares it; it lives on one shard.
pub struct Journal<E: Env> {
    partition: Partition<E>,
    /// The term. Nothing is appended in another one, even if this broker leads in that, too:
    /// somebody else may have written in between.
    epoch: LeaderEpoch,
}

impl<E: Env> Clone for Journal<E> {
    fn clone(&self) -> Self {
        Journal { partition: self.partition.clone(), epoch: self.epoch }
    }
}

/// Why records were not appended. None of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// They are more than one request may bring about.
    #[error("the records of one request exceed {max} bytes")]
    TooLarge {
        /// How much they may be.
        max: u32,
    },
    /// The device is full; later attempts may succeed.
    #[error("no space left on the device")]
    NoSpace,
    /// Too few replicas are in sync; later attempts may succeed.
    #[error("too few replicas are in sync")]
    NotEnoughReplicas,
    /// This broker does not lead any more, or in another term.
    #[error("this broker does not lead the log any more")]
    NotLeader,
    /// The device failed, the log is closed, or it has had too many leaders: nothing will be
    /// appended any more.
    #[error("the log takes no records: {0}")]
    Ended(String),
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<D: std::error::Error + 'static> {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A batch is not what was written.
    #[error("batch at offset {at}: {error}")]
    Batch {
        /// Where it stands.
        at: Offset,
        /// What is wrong with it.
        error: BatchError,
    },
    /// A batch does not hold the records that it says.
    #[error("batch at offset {at}: {error}")]
    Fault {
        /// Where it stands.
        at: Offset,
        /// What is wrong with it.
        error: RecordFault,
    },
    /// A record is none of the machine's.
    #[error("record at offset {at}: {error}")]
    Record {
        /// Where it stands.
        at: Offset,
        /// What is wrong with it.
        error: D,
    },
    /// The log starts later than the replay must.
    #[error("the log starts at offset {start}, records from {from} on are missing")]
    Gap {
        /// Where the replay must start.
        from: Offset,
        /// Where the log does.
        start: Offset,
    },
    /// The log was closed, or failed, before all of it was committed.
    #[error("the log ended")]
    Ended,
}

impl From<Refused> for ProposeError {
    fn from(refused: Refused) -> ProposeError {
        match refused {
            Refused::Log(AppendError::NoSpace) => ProposeError::NoSpace,
            Refused::Replicas(_) => ProposeError::NotEnoughReplicas,
            Refused::NotLeader => ProposeError::NotLeader,
            Refused::Log(_) => ProposeError::Ended(refused.to_string()),
        }
    }
}

impl<E: Env> Journal<E> {
    /// On a partition that this broker leads, for its present term.
    pub fn new(partition: Partition<E>) -> Journal<E> {
        let epoch = partition.epoch();
        Journal { partition, epoch }
    }

    /// Whether this broker leads in the journal's term, and the log takes records.
    pub fn is_led(&self) -> bool {
        self.partition.is_leader() && self.partition.epoch() == self.epoch && self.is_open()
    }

    /// The term.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Waits until [`Journal::is_led`] may no longer be so: look again.
    pub async fn led(&self) {
        while self.is_led() {
            // Closed with the term, and when the watermark falls. Nothing is ever committed at
            // the end of all numbers.
            let watch = self.partition.watch();
            if watch.is_closed() {
                return;
            }
            let _ = watch.reach(u64::MAX).await;
        }
    }

    /// Appends records, all or none, in order; they take the offsets from the one returned to
    /// [`Journal::end`]. Synchronous.
    pub fn propose<R: Stored>(&self, records: &[R], at: Timestamp) -> Result<Offset, ProposeError> {
        if !self.is_led() {
            return Err(ProposeError::NotLeader);
        }
        let too_large = ProposeError::TooLarge { max: BATCH_BYTES_MAX };
        let mut builder = BatchBuilder::new(BATCH_BYTES_MAX);
        for record in records {
            let (key, value) = record.store();
            let record = NewRecord {
                timestamp: at,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &[],
            };
            builder.push(&record).map_err(|_| too_large.clone())?;
        }
        let bytes = builder.build().map_err(|_| too_large)?;
        let checked = check_trusted(&bytes).expect("a batch that was just built is whole");
        match self.partition.append(&checked, Acks::All) {
            Ok(ticket) => Ok(ticket.appended.base),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Whether records would be taken now, as far as that can be known without them.
    pub fn admits(&self) -> Result<(), ProposeError> {
        if !self.is_led() {
            return Err(ProposeError::NotLeader);
        }
        Ok(self.partition.admits(Acks::All)?)
    }

    /// Exclusive end of what is committed.
    pub fn committed(&self) -> Offset {
        self.partition.high_watermark()
    }

    /// Whether what was proposed so far becomes committed, to wait for. Take it in the same turn
    /// as the proposal that is awaited.
    pub fn commit(&self) -> Commit {
        self.partition.commit()
    }

    /// What the next record will get. Falls when proposals were given up.
    pub fn end(&self) -> Offset {
        self.partition.log().end()
    }

    /// Whether it still takes records.
    pub fn is_open(&self) -> bool {
        self.partition.log().is_open()
    }

    /// Bytes of batches that were appended since it was opened.
    pub fn appended_bytes(&self) -> u64 {
        self.partition.log().counters().batch_bytes
    }

    /// Where the log begins: what is before it was compacted or deleted.
    pub fn start(&self) -> Offset {
        self.partition.log().start()
    }

    /// Hands every record from `from` on to `each`, once all of them are committed; returns the
    /// end and how many bytes were read. Control batches are passed over. Reads a bounded piece at
    /// a time and gives the shard's other tasks a turn after each. Nothing may be proposed
    /// meanwhile.
    pub async fn replay<R: Stored>(
        &self,
        env: &E,
        from: Offset,
        mut each: impl FnMut(Offset, R),
    ) -> Result<(Offset, u64), ReplayError<R::Error>> {
        let start = self.partition.log().start();
        if from < start {
            return Err(ReplayError::Gap { from, start });
        }
        self.settle().await.ok_or(ReplayError::Ended)?;
        let (mut at, end, mut bytes) = (from, self.end(), 0);
        while at < end {
            if !self.is_led() {
                return Err(ReplayError::Ended);
            }
            let chunk = self.partition.read(at, READ_BYTES, true).await?;
            for slice in &chunk.slices {
                replay_batches(slice, from, &mut each)?;
            }
            bytes += chunk.bytes as u64;
            assert!(chunk.next > at, "a read below the end at {end} gives nothing at {at}");
            at = chunk.next;
            env.turn().await;
        }
        Ok((at, bytes))
    }

    /// Waits until everything in the log is committed; what cannot be is given up by the log.
    /// `None` when the log has ended.
    async fn settle(&self) -> Option<()> {
        loop {
            let end = self.end();
            if self.commit().reach(end).await.is_ok() {
                return Some(());
            }
            if !self.is_led() {
                return None;
            }
        }
    }

    /// Lets go of records below `to`, which are committed and in a snapshot.
    pub async fn forget_before(&self, to: Offset) -> Result<(), DeleteError> {
        self.partition.delete_before(Some(to)).await.map(|_| ())
    }

    /// Syncs it and ends it in good order.
    pub async fn close(&self) -> std::io::Result<()> {
        self.partition.close().await
    }
}

/// Hands the records in a run of whole batches to `each`, leaving out those before `from`.
fn replay_batches<R: Stored>(
    bytes: &[u8],
    from: Offset,
    each: &mut impl FnMut(Offset, R),
) -> Result<(), ReplayError<R::Error>> {
    let mut scratch = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.expect("a log reads whole batches");
        let at = batch.base_offset();
        check_trusted(batch.bytes()).map_err(|error| ReplayError::Batch { at, error })?;
        let fault = |error| ReplayError::Fault { at, error };
        if batch.attributes().is_control() {
            continue;
        }
        for record in batch.records(&mut scratch, BATCH_BYTES_MAX.into()).map_err(fault)? {
            let record = record.map_err(fault)?;
            let at = record.offset;
            if at >= from {
                let record = R::load(record.key, record.value);
                each(at, record.map_err(|error| ReplayError::Record { at, error })?);
            }
        }
    }
    Ok(())
}
