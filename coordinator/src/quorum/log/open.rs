//! Finding the entries of a directory: segment after segment, up to where a crash tore the last.

use std::io;
use std::path::{Path, PathBuf};

use engine::env::{Env, File, Open};

use super::super::facts::Facts;
use super::super::mutant::Mutant;
use super::super::types::Entry;
use super::frame::{proves_damage, scan};
use super::writer::{Placed, Segment, Writer};

/// Bytes of one read.
const PIECE_BYTES: usize = 1 << 20;

/// Why a log cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The device said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was being used.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// Entries that had been synced are not there: this node must not vote.
    #[error("{}: entry {index} had been durable and is not there", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// The first entry that is missing.
        index: u64,
    },
}

impl<E: Env> Writer<E> {
    /// Reads a directory, and makes it if it is not there.
    pub async fn open(
        env: &E,
        dir: &Path,
        facts: &Facts<E>,
        mutant: Option<Mutant>,
    ) -> Result<(Writer<E>, Vec<Entry>), LogError> {
        let failed = |path: &Path, error| LogError::Io { path: path.to_owned(), error };
        let names = names(env, dir).await.map_err(|error| failed(dir, error))?;
        let start = facts.purged().map_or(0, |purged| purged.index + 1);
        let mut writer = Writer::empty(env, dir, facts, mutant, start);
        let mut entries: Vec<Entry> = Vec::new();
        for (at, first) in names.iter().copied().enumerate() {
            let path = super::path(dir, first);
            let (file, bytes) = whole(env, &path).await.map_err(|error| failed(&path, error))?;
            let frames = scan(&bytes, first);
            let end = first + frames.len() as u64;
            if names.get(at + 1).is_some_and(|next| *next <= start) || end <= start && first < start
            {
                // Let go of, but for its removal; or torn where nothing counts any more.
                env.remove(&path).await.map_err(|error| failed(&path, error))?;
                continue;
            }
            if first > writer.end().max(start) {
                return Err(LogError::Damaged { path, index: writer.end().max(start) });
            }
            let position = frames.last().map_or(0, |(_, end)| *end);
            let is_last = at + 1 == names.len();
            if !is_last && names[at + 1] != end
                || proves_damage(&bytes, position, end, facts.truncations())
            {
                return Err(LogError::Damaged { path, index: end });
            }
            // A process that was killed may have left it written and not flushed.
            file.sync().await.map_err(|error| failed(&path, error))?;
            let len = bytes.len() as u64;
            let placed = frames.iter().map(|(frame, end)| Placed { end: *end, crc: frame.crc });
            let segment = Segment { first, path, file, len, placed: placed.collect() };
            entries.extend(frames.into_iter().map(|(frame, _)| frame.entry));
            writer.push(segment, &bytes[..position as usize]);
        }
        env.sync_dir(dir).await.map_err(|error| failed(dir, error))?;
        let kept = entries.into_iter().filter(|entry| entry.log_id.index >= start).collect();
        Ok((writer, kept))
    }
}

/// First indexes of the segments in a directory, in order.
async fn names<E: Env>(env: &E, dir: &Path) -> io::Result<Vec<u64>> {
    env.create_dir(dir).await?;
    let entries = env.list(dir).await?;
    if entries.is_empty() {
        // Also when it was there: a crash may have come before its name was durable.
        for above in dir.ancestors().skip(1).take(3) {
            if !above.as_os_str().is_empty() {
                env.sync_dir(above).await?;
            }
        }
    }
    let number = |name: &str| name.strip_suffix(".entries")?.parse::<u64>().ok();
    let mut names: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// A file, and all of it.
async fn whole<E: Env>(env: &E, path: &Path) -> io::Result<(E::File, Vec<u8>)> {
    let file = env.open(path, Open::Write).await?;
    let len = file.len().await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let piece = file.read_at(bytes.len() as u64, PIECE_BYTES).await?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
        env.turn().await;
    }
    Ok((file, bytes))
}
