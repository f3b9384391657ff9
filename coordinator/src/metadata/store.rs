//! Snapshots as files: written beside, synced, renamed; read newest first.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::env::{Env, File, Open, Persist, align_up, block_of};
use engine::ids::Offset;

use crate::cluster::Cluster;
use crate::records::snapshot;

/// How the names of snapshots begin; their offset follows in 20 digits.
const PREFIX: &str = "snapshot.";
/// The name of one that is being written.
const UNFINISHED: &str = "unfinished-snapshot";
/// How many are kept.
const KEPT: usize = 2;
/// Bytes of one device operation.
const PIECE_BYTES: usize = 1 << 20;
/// Largest file that is read as one, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

/// The snapshots of one metadata directory.
pub(super) struct Store<E: Env> {
    env: E,
    dir: PathBuf,
}

/// Why snapshots cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The device said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was being used.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

impl<E: Env> Store<E> {
    pub fn new(env: &E, dir: &Path) -> Store<E> {
        Store { env: env.clone(), dir: dir.to_owned() }
    }

    /// The newest whole snapshot; `None` when there is none: the log then says whether it holds
    /// everything. Makes the directory.
    pub async fn load(&self) -> Result<Option<(Cluster, Offset)>, StoreError> {
        let found = async {
            self.env.create_dir(&self.dir).await?;
            let offsets = self.offsets().await?;
            if offsets.is_empty() {
                // Also when the directory was there: a crash may have come before it was durable.
                for above in self.dir.ancestors().skip(1).take(2) {
                    if !above.as_os_str().is_empty() {
                        self.env.sync_dir(above).await?;
                    }
                }
            }
            Ok(offsets)
        };
        let offsets = found.await.map_err(|error| self.io(&self.dir, error))?;
        for offset in offsets.into_iter().rev() {
            let path = self.path(offset);
            let bytes = self.read(&path).await.map_err(|error| self.io(&path, error))?;
            match snapshot::decode(&bytes) {
                Ok((cluster, at)) if at == offset => return Ok(Some((cluster, at))),
                Ok((_, at)) => {
                    tracing::error!(path = %path.display(), %at, "a snapshot has another's name");
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a snapshot is damaged");
                }
            }
        }
        Ok(None)
    }

    /// Writes a snapshot so that it survives power loss, and removes all but the newest. Returns
    /// the offset below which the log is not needed any more.
    pub async fn save(&self, cluster: &Cluster, offset: Offset) -> Result<Offset, StoreError> {
        let bytes = snapshot::encode(cluster, offset);
        let (unfinished, path) = (self.dir.join(UNFINISHED), self.path(offset));
        let written = async {
            self.write(&unfinished, &bytes).await?;
            self.env.rename(&unfinished, &path).await?;
            self.env.sync_dir(&self.dir).await
        };
        written.await.map_err(|error| self.io(&path, error))?;
        let mut offsets = self.offsets().await.map_err(|error| self.io(&self.dir, error))?;
        while offsets.len() > KEPT {
            let old = self.path(offsets.remove(0));
            self.env.remove(&old).await.map_err(|error| self.io(&old, error))?;
        }
        // With a single snapshot, the log is its substitute.
        Ok(if offsets.len() == KEPT { offsets[0] } else { Offset::ZERO })
    }

    /// Offsets of the snapshots that are there, in order.
    async fn offsets(&self) -> io::Result<Vec<Offset>> {
        let entries = self.env.list(&self.dir).await?;
        let number = |name: &str| name.strip_prefix(PREFIX)?.parse::<i64>().ok();
        let mut offsets: Vec<Offset> =
            entries.iter().filter_map(|e| Offset::from_wire(number(&e.name)?)).collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    fn path(&self, offset: Offset) -> PathBuf {
        self.dir.join(format!("{PREFIX}{:020}", offset.value()))
    }

    fn io(&self, path: &Path, error: io::Error) -> StoreError {
        StoreError::Io { path: path.to_owned(), error }
    }

    async fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.env.open(path, Open::Read).await?;
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
            self.env.turn().await;
        }
        Ok(bytes)
    }

    async fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self.env.remove(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.env.open(path, Open::Create).await?;
        file.allocate(0, align_up(bytes.len()) as u64).await?;
        for (at, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let block = block_of(&self.env, piece);
            let pos = (at * PIECE_BYTES) as u64;
            file.write_at(Rc::new(block), pos, Persist::Written).await?;
            self.env.turn().await;
        }
        file.sync().await
    }
}
