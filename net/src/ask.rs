//! Small questions about partitions, as data that crosses lanes: what the admin APIs need to know
//! from the shard that owns a partition.

use engine::ids::{LeaderEpoch, Offset, TopicPartition};
use engine::log::retention::DeleteError;
use engine::producers::ActiveProducer;
use engine::time::Timestamp;
use replication::Partition;

use crate::api::read::Fault;
use crate::env::NetEnv;
use crate::partitions::Unavailable;
use crate::shard::Shard;

/// A question about one partition, or a small thing to do to it.
#[derive(Clone, Debug)]
pub enum Ask {
    /// How large it is and what it holds.
    Size(TopicPartition),
    /// Where a point in time is.
    FindOffset {
        /// The partition.
        id: TopicPartition,
        /// Which point.
        point: Point,
        /// The epoch that the client believes in.
        leader_epoch: Option<LeaderEpoch>,
    },
    /// Delete the records below an offset.
    DeleteBefore {
        /// The partition.
        id: TopicPartition,
        /// First offset to keep; `None`: the high watermark.
        to: Option<Offset>,
    },
    /// Where a leader epoch ends.
    EndOfEpoch {
        /// The partition.
        id: TopicPartition,
        /// The epoch that the client believes in.
        leader_epoch: Option<LeaderEpoch>,
        /// The epoch whose end it wants.
        epoch: LeaderEpoch,
    },
    /// Which producers it remembers.
    Producers(TopicPartition),
}

/// A point in a log, by time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// The first readable record.
    Earliest,
    /// Behind the last committed record.
    Latest,
    /// The committed record with the largest timestamp.
    MaxTimestamp,
    /// The first committed record at or after this time.
    Time(Timestamp),
}

/// What was told.
#[derive(Debug)]
pub enum Told {
    /// To `Size`.
    Size(Result<Size, Unavailable>),
    /// To `FindOffset`; nothing where no record is there.
    FoundOffset(Result<Option<Found>, Fault>),
    /// To `DeleteBefore`: the first readable offset.
    DeletedBefore(Result<Offset, NotDeleted>),
    /// To `EndOfEpoch`: the largest epoch not above the one asked for, and its exclusive end.
    EndOfEpoch(Result<Option<(LeaderEpoch, Offset)>, Fault>),
    /// To `Producers`, by id.
    Producers(Result<Vec<ActiveProducer>, Unavailable>),
}

/// A partition's extent.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of its batches.
    pub bytes: u64,
    /// First readable offset.
    pub start: Offset,
    /// Log end offset.
    pub end: Offset,
}

/// Where a point was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Timestamp of the record; [`Timestamp::NONE`] where the point is not a record.
    pub timestamp: Timestamp,
    /// Its offset.
    pub offset: Offset,
    /// Its leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Why records were not deleted.
#[derive(Debug, thiserror::Error)]
pub enum NotDeleted {
    /// The partition cannot be used.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The log does not do it.
    #[error(transparent)]
    Log(#[from] DeleteError),
}

impl Ask {
    /// Which partition it is about.
    pub fn partition(&self) -> TopicPartition {
        match self {
            Ask::Size(id)
            | Ask::FindOffset { id, .. }
            | Ask::DeleteBefore { id, .. }
            | Ask::EndOfEpoch { id, .. }
            | Ask::Producers(id) => *id,
        }
    }
}

/// Answers, on the owner.
pub async fn tell<E: NetEnv>(shard: &Shard<E>, ask: Ask) -> Told {
    let partition = shard.0.partitions.get(shard, ask.partition()).await;
    match ask {
        Ask::Size(_) => Told::Size(partition.map(|partition| {
            let log = partition.log();
            Size { bytes: log.size(), start: log.start(), end: log.end() }
        })),
        Ask::FindOffset { point, leader_epoch, .. } => Told::FoundOffset(match partition {
            Ok(partition) => find(&partition, point, leader_epoch).await,
            Err(error) => Err(error.into()),
        }),
        Ask::DeleteBefore { to, .. } => Told::DeletedBefore(match partition {
            Ok(partition) => partition.delete_before(to).await.map_err(NotDeleted::from),
            Err(error) => Err(error.into()),
        }),
        Ask::EndOfEpoch { leader_epoch, epoch, .. } => Told::EndOfEpoch(match partition {
            Ok(partition) => partition
                .check_epoch(leader_epoch)
                .map(|()| partition.end_of_epoch(epoch).map(|end| (end.epoch, end.end)))
                .map_err(Fault::from),
            Err(error) => Err(error.into()),
        }),
        Ask::Producers(_) => Told::Producers(partition.map(|partition| {
            partition.log().with_producers(|producers| producers.active().collect())
        })),
    }
}

/// Kafka's `Partition.fetchOffsetForTimestamp`, `UnifiedLog.fetchOffsetByTimestamp`.
async fn find<E: NetEnv>(
    partition: &Partition<E>,
    point: Point,
    leader_epoch: Option<LeaderEpoch>,
) -> Result<Option<Found>, Fault> {
    partition.check_epoch(leader_epoch)?;
    let timed = match point {
        Point::Earliest => {
            let offset = partition.log().start();
            let written = partition.log().with_epochs(|epochs| epochs.epoch_at(offset));
            let leader_epoch = written.unwrap_or_else(|| partition.epoch());
            return Ok(Some(Found { timestamp: Timestamp::NONE, offset, leader_epoch }));
        }
        Point::Latest => {
            let (offset, leader_epoch) = (partition.last_stable_offset(), partition.epoch());
            return Ok(Some(Found { timestamp: Timestamp::NONE, offset, leader_epoch }));
        }
        Point::MaxTimestamp => partition.max_time().await?,
        Point::Time(from) => partition.find_time(from).await?,
    };
    Ok(timed.map(|timed| Found {
        timestamp: timed.timestamp,
        offset: timed.offset,
        leader_epoch: timed.leader_epoch,
    }))
}
