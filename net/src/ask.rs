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
///
/// A new leader may have to wait before it knows how far its predecessor had committed. Until then
/// its high watermark may lie below what clients have seen, so whatever depends on that (the end,
/// the largest timestamp, that nothing younger is there) is not told (KIP-207). What is found below
/// the high watermark is.
async fn find<E: NetEnv>(
    partition: &Partition<E>,
    point: Point,
    leader_epoch: Option<LeaderEpoch>,
) -> Result<Option<Found>, Fault> {
    partition.check_epoch(leader_epoch)?;
    let settled = partition.is_settled();
    let timed = match point {
        Point::Earliest => {
            let offset = partition.log().start();
            let written = partition.log().with_epochs(|epochs| epochs.epoch_at(offset));
            let leader_epoch = written.unwrap_or_else(|| partition.epoch());
            return Ok(Some(Found { timestamp: Timestamp::NONE, offset, leader_epoch }));
        }
        Point::Latest | Point::MaxTimestamp if !settled => {
            return Err(Fault::Unsettled);
        }
        Point::Latest => {
            let (offset, leader_epoch) = (partition.last_stable_offset(), partition.epoch());
            return Ok(Some(Found { timestamp: Timestamp::NONE, offset, leader_epoch }));
        }
        Point::MaxTimestamp => partition.max_time().await?,
        Point::Time(from) => match partition.find_time(from).await? {
            None if !settled => return Err(Fault::Unsettled),
            found => found,
        },
    };
    Ok(timed.map(|timed| Found {
        timestamp: timed.timestamp,
        offset: timed.offset,
        leader_epoch: timed.leader_epoch,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;

    use engine::batch::{BatchBuilder, NewRecord, check_trusted};
    use engine::cache::BlockBudget;
    use engine::config::LogConfig;
    use engine::env::sim::{End, Sim, SimEnv};
    use engine::ids::{BrokerId, PartitionIndex, TopicId};
    use engine::log::{Bounds, Disk, Log, Shared};
    use replication::Acks;
    use replication::role::{Assignment, Change, PartitionEpoch};

    use super::*;

    const ME: BrokerId = BrokerId(1);
    const OTHER: BrokerId = BrokerId(2);

    /// The partition in a life of this machine, led in `epoch`.
    async fn lead(env: &SimEnv, epoch: i32, isr: &[BrokerId]) -> Partition<SimEnv> {
        let id = TopicPartition { topic: TopicId::random(1, 2), partition: PartitionIndex(0) };
        let bounds = Bounds::default();
        let budget = BlockBudget::new(1 << 20, 1 << 20);
        let shared = Shared { budget, disk: Disk::default(), bounds };
        let config = Rc::new(LogConfig::default());
        let opened = Log::open(env, Path::new("/t/0"), id, config, &shared).await;
        Partition::lead(env, opened.unwrap().0, ME, LeaderEpoch(epoch), isr)
    }

    #[test]
    fn a_leader_that_does_not_know_what_is_committed_says_so() {
        let machine = Sim::new(1).node();
        let env = machine.env();
        machine.run(async {
            let partition = lead(&env, 3, &[ME]).await;
            let mut builder = BatchBuilder::new(1 << 20);
            let record = NewRecord { timestamp: Timestamp(5), ..NewRecord::default() };
            builder.push(&record).unwrap();
            let batch = builder.build().unwrap();
            let ticket = partition.append(&check_trusted(&batch).unwrap(), Acks::All).unwrap();
            ticket.done().await.unwrap();
        });
        machine.end(End::Kill);
        let env = machine.env();
        machine.run(async {
            // What the other one has is not known yet.
            let partition = lead(&env, 4, &[ME, OTHER]).await;
            let find = async |point| {
                let found = find(&partition, point, None).await;
                found.map(|found| found.map(|found| found.offset.value()))
            };
            for point in [Point::Latest, Point::MaxTimestamp, Point::Time(Timestamp(0))] {
                assert!(matches!(find(point).await, Err(Fault::Unsettled)), "{point:?}");
            }
            assert!(matches!(find(Point::Earliest).await, Ok(Some(0))));
            let alone = Assignment {
                leader: Some(ME),
                leader_epoch: LeaderEpoch(5),
                partition_epoch: PartitionEpoch(1),
                replicas: vec![ME, OTHER],
                isr: vec![ME],
            };
            assert_eq!(partition.assign(alone).await, Change::Leads);
            assert!(matches!(find(Point::Latest).await, Ok(Some(1))));
            assert!(matches!(find(Point::MaxTimestamp).await, Ok(Some(0))));
            assert!(matches!(find(Point::Time(Timestamp(5))).await, Ok(Some(0))));
            assert!(matches!(find(Point::Time(Timestamp(6))).await, Ok(None)));
        });
    }
}
