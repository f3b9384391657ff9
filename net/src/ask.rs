//! Small questions about partitions, as data that crosses lanes: what the admin APIs need to know
//! from the shard that owns a partition.

use engine::ids::{Offset, TopicPartition};

use crate::env::NetEnv;
use crate::partitions::Unavailable;
use crate::shard::Shard;

/// A question about one partition.
#[derive(Clone, Debug)]
pub enum Ask {
    /// How large it is and what it holds.
    Size(TopicPartition),
}

/// What was told.
#[derive(Clone, Debug)]
pub enum Told {
    /// To `Size`.
    Size(Result<Size, Unavailable>),
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

impl Ask {
    /// Which partition it is about.
    pub fn partition(&self) -> TopicPartition {
        match self {
            Ask::Size(id) => *id,
        }
    }
}

/// Answers, on the owner.
pub async fn tell<E: NetEnv>(shard: &Shard<E>, ask: Ask) -> Told {
    match ask {
        Ask::Size(id) => Told::Size(shard.0.partitions.get(shard, id).await.map(|partition| {
            let log = partition.log();
            Size { bytes: log.size(), start: log.start(), end: log.end() }
        })),
    }
}
