//! Reading partitions for Fetch, on the shard that owns them: what is hot without waiting, the
//! rest from the device, and the wait for growth without polling.

use std::ops::Deref;
use std::time::Duration;

use engine::ids::{LeaderEpoch, Offset, TopicPartition};
use engine::log::{ReadError, Slice};
use engine::wait;
use futures_lite::future;
use replication::leader::EpochMismatch;

use crate::env::NetEnv;
use crate::partitions::Unavailable;
use crate::shard::Shard;

/// What to read on one shard.
pub struct ReadCall {
    /// Which partitions, in the order in which the byte limit is spent.
    pub parts: Vec<ReadSpec>,
    /// About how many bytes to answer at most; the first batch found is always given.
    pub bytes_max: usize,
}

/// What to read of one partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadSpec {
    /// The partition.
    pub id: TopicPartition,
    /// From which offset.
    pub from: Offset,
    /// About how many bytes at most.
    pub bytes_max: usize,
    /// The epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the client has.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// What was found in one partition.
#[derive(Debug)]
pub struct ReadPart<S> {
    /// Exclusive end of what is committed; 0 where the partition is unavailable.
    pub high_watermark: Offset,
    /// First readable offset.
    pub log_start: Offset,
    /// Pieces of whole batches, or why there are none.
    pub read: Result<Found<S>, Fault>,
}

/// Whole batches.
#[derive(Debug)]
pub struct Found<S> {
    /// In order.
    pub slices: Vec<S>,
    /// Their length.
    pub bytes: usize,
    /// Where the client's log parts from this one, if it does: the epoch and its end.
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The partition cannot be used.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The client believes in another leadership.
    #[error(transparent)]
    Epoch(#[from] EpochMismatch),
    /// The leader is a new one and does not know yet how far is committed (KIP-207).
    #[error("the leader does not know yet how far is committed")]
    Unsettled,
    /// The log cannot be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Partitions whose growth is awaited, with the offset from which the client reads.
pub struct Growth {
    /// Each with the high watermark that was already seen.
    pub partitions: Vec<(TopicPartition, Offset)>,
    /// For at most so long.
    pub wait_max: Duration,
}

/// Reads what a call asks for.
pub async fn read<E: NetEnv>(shard: &Shard<E>, call: &ReadCall) -> Vec<ReadPart<Slice<E>>> {
    let mut left = call.bytes_max;
    let mut first = true;
    let mut parts = Vec::with_capacity(call.parts.len());
    for spec in &call.parts {
        let part = read_one(shard, spec, left.min(spec.bytes_max), first).await;
        if let Ok(found) = &part.read {
            left = left.saturating_sub(found.bytes);
            first &= found.bytes == 0;
        }
        parts.push(part);
        shard.env().turn().await;
    }
    parts
}

async fn read_one<E: NetEnv>(
    shard: &Shard<E>,
    spec: &ReadSpec,
    bytes_max: usize,
    at_least_one: bool,
) -> ReadPart<Slice<E>> {
    let partition = match shard.0.partitions.get(shard, spec.id).await {
        Ok(partition) => partition,
        Err(error) => {
            let (high_watermark, log_start) = (Offset::ZERO, Offset::ZERO);
            return ReadPart { high_watermark, log_start, read: Err(error.into()) };
        }
    };
    if !partition.is_leader() {
        let (high_watermark, log_start) = (Offset::ZERO, Offset::ZERO);
        return ReadPart { high_watermark, log_start, read: Err(Unavailable::NotLeader.into()) };
    }
    let high_watermark = partition.high_watermark();
    let log_start = partition.log().start();
    let answer = |read| ReadPart { high_watermark, log_start, read };
    if let Err(error) = partition.check_epoch(spec.leader_epoch) {
        return answer(Err(error.into()));
    }
    if let Some(epoch) = spec.last_fetched_epoch
        && let Some(end) = partition.end_of_epoch(epoch)
        && (end.epoch < epoch || end.end < spec.from)
    {
        let diverging = Some((end.epoch, end.end));
        return answer(Ok(Found { slices: Vec::new(), bytes: 0, diverging }));
    }
    let read = match partition.read_hot(spec.from, bytes_max, at_least_one) {
        Ok(Some(chunk)) => Ok(chunk),
        Ok(None) => partition.read(spec.from, bytes_max, at_least_one).await,
        Err(error) => Err(error),
    };
    answer(match read {
        Ok(chunk) => Ok(Found { slices: chunk.slices, bytes: chunk.bytes, diverging: None }),
        Err(error) => Err(error.into()),
    })
}

/// The same in memory that may cross a lane: device memory is bound to its thread. One copy.
pub fn copied<S: Deref<Target = [u8]>>(parts: Vec<ReadPart<S>>) -> Vec<ReadPart<Vec<u8>>> {
    let each = parts.into_iter().map(|part| {
        let read = part.read.map(|found| {
            let mut bytes = Vec::with_capacity(found.bytes);
            found.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            let slices = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
            Found { slices, bytes: found.bytes, diverging: found.diverging }
        });
        ReadPart { high_watermark: part.high_watermark, log_start: part.log_start, read }
    });
    each.collect()
}

/// Waits until one of the partitions has more than was seen, or the time is up, or the shard
/// stops. A partition that ends meanwhile counts as grown: reading it tells why.
pub async fn grew<E: NetEnv>(shard: &Shard<E>, growth: &Growth) {
    let mut watches = vec![(shard.0.stopping.clone(), 1)];
    for &(id, seen) in &growth.partitions {
        match shard.0.partitions.opened(id) {
            Some(partition) => watches.push((partition.watch(), seen.value() + 1)),
            None => return,
        }
    }
    let until = shard.env().now().after(growth.wait_max);
    future::or(wait::any(&watches), shard.env().sleep_until(until)).await;
}
