//! Tiny facts of a log that must survive: where it starts, from where recovery has to scan, the
//! leader epochs and the producers at that point. Written alternately to two files, each with a
//! sequence number and a checksum, so that a torn write leaves the older one. Read with full
//! validation (rkyv's bytecheck); a checkpoint is an accelerator, the segments are the truth. The
//! exception is the log start: what DeleteRecords removed stays removed, so its reply waits until
//! both files have it, and damage to one of them brings nothing back.

use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::env::{Env, File, Open, Persist, block_of};
use crate::ids::TopicPartition;
use crate::producers::ProducersSnapshot;

/// "RBck": the first word of a slot.
const MAGIC: u32 = 0x6b63_4252;
/// 2 added `cut`, 3 `holes_below` and `cleaned`.
const VERSION: u32 = 3;
const HEAD_BYTES: usize = 16;
/// The two files.
const SLOTS: [&str; 2] = ["checkpoint.a", "checkpoint.b"];

/// Largest checkpoint that is read, in bytes: bounds memory against a damaged length.
pub const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;

/// The facts.
#[derive(Debug, Clone, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Checkpoint {
    /// Rises with each one; the larger of two whole slots counts.
    pub sequence: u64,
    /// Which partition this is: topic id and partition index.
    pub topic: [u8; 16],
    /// Partition index.
    pub partition: i32,
    /// First readable offset.
    pub log_start: u64,
    /// Base offset of the segment where recovery begins to scan.
    pub segment: u64,
    /// Position in it.
    pub position: u64,
    /// Offset of the batch that stands there, or will.
    pub offset: u64,
    /// Largest timestamp of that segment's first batch, for rolling by time.
    pub first_timestamp: Option<i64>,
    /// Leader epochs as (epoch, start offset).
    pub epochs: Vec<(i32, u64)>,
    /// How far behind `offset` or a later synced end the log may have been written without a sync
    /// since, in bytes: batches further behind a hole prove that the hole is damage. `None`: any
    /// distance.
    pub unsynced_bytes_max: Option<u64>,
    /// What stands behind `offset` was about to be cut off: it may be gone without being gone for
    /// good, so that recovery makes durable what it finds.
    pub cut: bool,
    /// Below this offset batches may leave out offsets: compaction removed them.
    pub holes_below: u64,
    /// Below this offset there is one record of each key, and a key's deletion mark stands alone.
    pub cleaned: u64,
    /// Producers at `offset`.
    pub producers: ProducersSnapshot,
}

impl Checkpoint {
    /// The bytes of a slot.
    pub fn encode(&self) -> Vec<u8> {
        let body = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("plain values serialize");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a slot; `None` if it is torn, foreign or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        if word(0)? != MAGIC || word(4)? != VERSION {
            return None;
        }
        let body = bytes.get(HEAD_BYTES..)?.get(..word(8)? as usize)?;
        if crc32c::crc32c(body) != word(12)? {
            return None;
        }
        // rkyv wants its bytes aligned.
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(body.len());
        aligned.extend_from_slice(body);
        rkyv::from_bytes::<Checkpoint, rkyv::rancor::Error>(&aligned).ok()
    }

    /// Writes it to the slot that its sequence number says. Durable when this returns.
    pub async fn write<E: Env>(&self, env: &E, dir: &Path) -> io::Result<()> {
        let bytes = self.encode();
        let path = dir.join(SLOTS[(self.sequence % 2) as usize]);
        let file = match env.open(&path, Open::Write).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = env.open(&path, Open::Create).await?;
                env.sync_dir(dir).await?;
                file
            }
            file => file?,
        };
        let block = block_of(env, &bytes);
        file.write_at(Rc::new(block), 0, Persist::Synced).await
    }

    /// The newest whole checkpoint in a directory, durable now. An error if a slot belongs to
    /// another partition than `identity`.
    pub async fn read<E: Env>(env: &E, dir: &Path, identity: TopicPartition) -> io::Result<Slots> {
        let mut slots = Slots { newest: None, suspect: false };
        let mut newest_file = None;
        for slot in SLOTS {
            let Some((file, found)) = read_slot(env, &dir.join(slot), identity).await? else {
                continue;
            };
            let Some(found) = found else {
                slots.suspect = true;
                continue;
            };
            if slots.newest.as_ref().is_none_or(|newest| newest.sequence < found.sequence) {
                slots.newest = Some(found);
                newest_file = Some(file);
            }
        }
        if let Some(file) = newest_file {
            // A process that was killed may have left it written and not flushed.
            file.sync().await?;
        }
        Ok(slots)
    }

    /// Of the whole checkpoints that speak of nothing behind `offset`, the one that speaks of most.
    pub async fn read_up_to<E: Env>(
        env: &E,
        dir: &Path,
        identity: TopicPartition,
        offset: u64,
    ) -> io::Result<Option<Checkpoint>> {
        let mut best: Option<Checkpoint> = None;
        for slot in SLOTS {
            let found = read_slot(env, &dir.join(slot), identity).await?;
            let found = found.and_then(|(_, found)| found).filter(|c| c.offset <= offset);
            best = match (best, found) {
                (Some(best), Some(found)) if found.offset < best.offset => Some(best),
                (best, found) => found.or(best),
            };
        }
        Ok(best)
    }
}

/// The file of a slot, if there is one, and the checkpoint in it, if that is whole.
async fn read_slot<E: Env>(
    env: &E,
    path: &Path,
    identity: TopicPartition,
) -> io::Result<Option<(E::File, Option<Checkpoint>)>> {
    let file = match env.open(path, Open::Read).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let len = file.len().await?.min(CHECKPOINT_BYTES_MAX);
    let bytes = file.read_at(0, len as usize).await?;
    let found = Checkpoint::decode(&bytes);
    let foreign =
        |c: &Checkpoint| c.topic != *identity.topic.bytes() || c.partition != identity.partition.0;
    if found.as_ref().is_some_and(foreign) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} belongs to another partition", path.display()),
        ));
    }
    Ok(Some((file, found)))
}

/// What the two files of a log hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Slots {
    /// The checkpoint that counts.
    pub newest: Option<Checkpoint>,
    /// A slot holds no whole checkpoint: perhaps its name is not durable either.
    pub suspect: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_slot_is_refused_whole() {
        let checkpoint = Checkpoint {
            sequence: 7,
            topic: [3; 16],
            partition: 2,
            log_start: 10,
            segment: 5,
            position: 4097,
            offset: 55,
            first_timestamp: Some(-1),
            unsynced_bytes_max: Some(4096),
            cut: true,
            holes_below: 40,
            cleaned: 30,
            epochs: vec![(0, 0), (3, 40)],
            producers: ProducersSnapshot { end: 55, producers: Vec::new() },
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Checkpoint::decode(&damaged), None, "flipped bit in byte {at}");
            assert_eq!(Checkpoint::decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
