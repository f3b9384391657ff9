//! Snapshots as files: written beside, synced, renamed; read newest first. Layout, in bytes,
//! numbers little endian:
//!
//! ```text
//! 0   8  magic "RBquorum"
//! 8   4  version of the layout
//! 12  4  CRC-32C of everything after it
//! 16  8  length of the head
//! 24  8  length of the body
//! 32  …  the head (rkyv, checked on read): the last entry and the membership as of it
//!     …  the body: what the machine made of every entry up to that one; after it, padding
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::env::{Env, File, Open, Persist, align_up, block_of};
use openraft::async_runtime::Mutex;

use super::layout::{self, SealError, SnapshotMetaV1};
use super::mutant::Mutant;
use super::runtime::Lock;
use super::types::SnapshotMeta;

/// How the names of snapshots begin; in 20 digits follows the index of the first entry that is
/// not in it.
const PREFIX: &str = "snapshot.";
/// The name of one that is being written.
const UNFINISHED: &str = "unfinished-snapshot";
const MAGIC: &[u8; 8] = b"RBquorum";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
/// How many are kept, so that one of them may be lost.
const KEPT: usize = 2;
/// Bytes of one device operation.
const PIECE_BYTES: usize = 1 << 20;
/// Largest file that is read as one, in bytes.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

/// The snapshots of one directory. Cloning shares them.
pub(super) struct Snapshots<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Snapshots<E> {
    fn clone(&self) -> Self {
        Snapshots(self.0.clone())
    }
}

struct Inner<E: Env> {
    env: E,
    dir: PathBuf,
    /// One at a time: one's own and one that comes from the leader have the same unfinished name.
    writing: Lock<()>,
    mutant: Option<Mutant>,
}

/// A snapshot in memory.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub meta: SnapshotMeta,
    pub body: Rc<[u8]>,
}

/// Index of the first entry that a snapshot does not hold.
pub(super) fn end_of(meta: &SnapshotMeta) -> u64 {
    meta.last_log_id.as_ref().map_or(0, |last| last.index + 1)
}

impl<E: Env> Snapshots<E> {
    /// Those in `dir`, which exists.
    pub fn new(env: &E, dir: &Path, mutant: Option<Mutant>) -> Snapshots<E> {
        let (env, dir, writing) = (env.clone(), dir.to_owned(), Lock::new(()));
        Snapshots(Rc::new(Inner { env, dir, writing, mutant }))
    }

    /// The newest whole one. Damaged ones are passed over and put aside: the log then says whether
    /// it holds what they held. What a crash left of older ones is removed.
    pub async fn newest(&self) -> io::Result<Option<Snapshot>> {
        // An observer may ask while the next one is being put in place of what is read here.
        let _writing = self.0.writing.lock().await;
        for end in self.ends().await?.into_iter().rev() {
            let path = self.path(end);
            let bytes = self.read(&path).await?;
            match decode(&bytes) {
                Ok(snapshot) if end_of(&snapshot.meta) == end => {
                    self.prune().await?;
                    return Ok(Some(snapshot));
                }
                Ok(_) => {
                    tracing::error!(path = %path.display(), "a snapshot has another's name");
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a snapshot is damaged");
                }
            }
            let aside = self.0.dir.join(format!("damaged-{PREFIX}{end:020}"));
            self.0.env.rename(&path, &aside).await?;
        }
        Ok(None)
    }

    /// Removes all but the newest.
    async fn prune(&self) -> io::Result<()> {
        let mut ends = self.ends().await?;
        while ends.len() > KEPT {
            self.0.env.remove(&self.path(ends.remove(0))).await?;
        }
        Ok(())
    }

    /// Writes one so that it survives power loss, and removes all but the newest.
    pub async fn save(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let bytes = encode(meta, body);
        let _writing = self.0.writing.lock().await;
        let (env, dir) = (&self.0.env, &self.0.dir);
        let path = self.path(end_of(meta));
        if self.0.mutant == Some(Mutant::SnapshotInPlace) {
            return self.write(&path, &bytes, false).await;
        }
        let unfinished = dir.join(UNFINISHED);
        self.write(&unfinished, &bytes, true).await?;
        env.rename(&unfinished, &path).await?;
        env.sync_dir(dir).await?;
        self.prune().await
    }

    /// Waits until none is being written.
    pub async fn settle(&self) {
        drop(self.0.writing.lock().await);
    }

    /// The index below which the log is not needed any more: as long as there is one snapshot
    /// only, the log is its substitute.
    pub async fn covered(&self) -> io::Result<Option<u64>> {
        let ends = self.ends().await?;
        Ok((ends.len() >= KEPT).then(|| ends[ends.len() - KEPT]))
    }

    /// Where the snapshots that are there end, in order.
    async fn ends(&self) -> io::Result<Vec<u64>> {
        let entries = self.0.env.list(&self.0.dir).await?;
        let number = |name: &str| name.strip_prefix(PREFIX)?.parse::<u64>().ok();
        let mut ends: Vec<u64> = entries.iter().filter_map(|e| number(&e.name)).collect();
        ends.sort_unstable();
        Ok(ends)
    }

    fn path(&self, end: u64) -> PathBuf {
        self.0.dir.join(format!("{PREFIX}{end:020}"))
    }

    async fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.0.env.open(path, Open::Read).await?;
        let len = file.len().await?;
        if len > SNAPSHOT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let piece = file.read_at(bytes.len() as u64, PIECE_BYTES).await?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
            self.0.env.turn().await;
        }
        Ok(bytes)
    }

    async fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let env = &self.0.env;
        match env.remove(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = env.open(path, Open::Create).await?;
        file.allocate(0, align_up(bytes.len()) as u64).await?;
        for (at, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let block = block_of(env, piece);
            let position = (at * PIECE_BYTES) as u64;
            file.write_at(Rc::new(block), position, Persist::Written).await?;
            env.turn().await;
        }
        if sync { file.sync().await } else { Ok(()) }
    }
}

fn encode(meta: &SnapshotMeta, body: &[u8]) -> Vec<u8> {
    let head = layout::write(&SnapshotMetaV1::from(meta));
    let mut bytes = Vec::with_capacity(HEADER_BYTES + head.len() + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Snapshot, SealError> {
    let corrupt = |reason: &str| SealError::Corrupt(reason.to_string());
    if bytes.len() < HEADER_BYTES || &bytes[..8] != MAGIC {
        return Err(SealError::Foreign);
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| {
        let long = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        usize::try_from(long).ok()
    };
    if word(8) != VERSION {
        return Err(SealError::Unknown(word(8)));
    }
    let head_end = long(16).and_then(|len| len.checked_add(HEADER_BYTES));
    let end = head_end.and_then(|head| head.checked_add(long(24)?));
    let (Some(head_end), Some(end)) = (head_end, end) else {
        return Err(corrupt("its lengths are none"));
    };
    let checked = bytes.get(16..end).ok_or_else(|| corrupt("it is cut short"))?;
    if crc32c::crc32c(checked) != word(12) {
        return Err(corrupt("its checksum does not match"));
    }
    let meta: SnapshotMetaV1 =
        layout::read(&bytes[HEADER_BYTES..head_end]).map_err(SealError::Corrupt)?;
    let meta = SnapshotMeta::try_from(meta).map_err(SealError::Corrupt)?;
    Ok(Snapshot { meta, body: bytes[head_end..end].into() })
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    #[test]
    fn a_damaged_snapshot_is_refused_whole() {
        let meta = SnapshotMeta { last_log_id: Some(log_id(3, 9)), ..SnapshotMeta::default() };
        let bytes = encode(&meta, b"what the machine made of it");
        let read = decode(&bytes).unwrap();
        assert_eq!((&read.meta, &*read.body), (&meta, &b"what the machine made of it"[..]));
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            assert!(decode(&rotten).is_err(), "a flipped bit in byte {at}");
        }
    }
}
