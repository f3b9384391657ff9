//! The seams: everything that the storage half can learn from outside enters through these three
//! traits. [`uring`] implements them on io_uring, [`sim`] deterministically on a seed; both are
//! always compiled, and one contract suite (`tests/contract.rs`) runs against both.
//!
//! Static dispatch, `impl Future` in traits, futures are `!Send`. One type parameter, on shells
//! only (`Log<E>`, `Partition<E>`, `Shard<E>`); cores have none.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

use crate::time::{Instant, Timestamp};

pub mod sim;
pub mod uring;

/// Alignment, in bytes, of every device write's position and length, and of block memory.
pub const BLOCK_ALIGN: usize = 4096;

/// Memory that a device may write from: owned and mutable until it is frozen behind an `Rc`.
///
/// Its length is a multiple of [`BLOCK_ALIGN`] when it is given to [`File::write_at`].
pub trait Block: Deref<Target = [u8]> + 'static {
    /// All of it, to fill.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Makes it shorter; `len` is at most the present length.
    fn trim(&mut self, len: usize);
}

/// What a write must have survived before it counts as complete.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Persist {
    /// The device has taken it (survives the process, not the power).
    Written,
    /// It is flushed too (`O_DSYNC`): *this* write survives power loss. Earlier writes that were
    /// only `Written` are not covered; they need [`File::sync`].
    Synced,
}

/// One open file on one device. Shared within its shard behind an `Rc`.
///
/// A future that was started and dropped may still take effect: never reuse its position.
#[allow(clippy::len_without_is_empty)] // a length that must be awaited
pub trait File: 'static {
    /// Memory it writes from.
    type Block: Block;
    /// What a read returns: cheap to clone, never changes.
    type Read: Deref<Target = [u8]> + Clone + 'static;

    /// Writes the whole block at `pos` (a multiple of [`BLOCK_ALIGN`]), all or error. The future
    /// borrows nothing that the caller may change: the block is frozen.
    fn write_at(
        &self,
        block: Rc<Self::Block>,
        pos: u64,
        persist: Persist,
    ) -> impl Future<Output = io::Result<()>>;
    /// Reads `len` bytes at `pos`, no alignment needed. Shorter only at the end of the file; never
    /// bytes from past it.
    fn read_at(&self, pos: u64, len: usize) -> impl Future<Output = io::Result<Self::Read>>;
    /// Makes everything whose write has completed before this call survive power loss, the file's
    /// length included (`fdatasync`). An error is final for the file's device (never retried).
    fn sync(&self) -> impl Future<Output = io::Result<()>>;
    /// Length in bytes, from the open descriptor (right after a rename, too).
    fn len(&self) -> impl Future<Output = io::Result<u64>>;
    /// Cuts or extends (with zeros) to exactly `len` bytes, aligned or not.
    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Reserves `pos..pos + len` on the device and extends the file to at least there; new bytes
    /// read as zeros. `StorageFull` (ENOSPC) surfaces here, before anything depends on the room.
    fn allocate(&self, pos: u64, len: u64) -> impl Future<Output = io::Result<()>>;
}

/// Which queue of its shard a task is scheduled in (on io_uring: with a share of its core).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Queue {
    /// Connections and everything a client waits for.
    Request,
    /// Followers and fetchers.
    Replication,
    /// Writes and syncs of the tails.
    Storage,
    /// Retention, checkpoints, recovery of logs that nobody waits for.
    Background,
}

/// How [`Env::open`] finds or makes its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// It exists; reading only.
    Read,
    /// It exists; reading and writing.
    Write,
    /// It does not exist yet (`AlreadyExists` otherwise); reading and writing.
    Create,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// Its last path component; entries whose name is not UTF-8 are not listed.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes (files).
    pub len: u64,
}

/// How large a volume is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What this process may still write, in bytes.
    pub usable_bytes: u64,
}

/// The world of one shard: clock, tasks, memory for the device, and a directory tree.
///
/// Directory changes survive power loss only after [`Env::sync_dir`] of the parent.
pub trait Env: Clone + 'static {
    /// Its open files.
    type File: File;

    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// The wall clock, in Kafka's milliseconds. May jump.
    fn wall(&self) -> Timestamp;
    /// Waits until `at`; at once if it has passed.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()>;
    /// Starts a detached task on this shard. It may or may not be polled before this returns.
    fn spawn(&self, queue: Queue, task: impl Future<Output = ()> + 'static);
    /// Gives the reactor (timers, sockets, disk) a turn if the shard has worked for its budget
    /// (500 µs) since the last one; otherwise returns at once. Every loop that can stay ready
    /// calls it. Why it is needed: see [`uring`].
    fn turn(&self) -> impl Future<Output = ()>;
    /// 64 random bits; all randomness of a shard comes from here.
    fn random(&self) -> u64;
    /// Device memory of `len` bytes rounded up to [`BLOCK_ALIGN`], with whatever content: it may
    /// have been used before. Whoever writes it to a device fills all of it ([`block_of`]).
    fn block(&self, len: usize) -> <Self::File as File>::Block;

    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> impl Future<Output = io::Result<Self::File>>;
    /// Makes a directory and its missing parents; it may exist already.
    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<Entry>>>;
    /// Renames a file or directory, replacing a file that has the new name.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Makes the directory's entries (not their contents) survive power loss.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Size of the volume that holds a directory.
    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>>;
}

/// The block type of an environment's files.
pub type BlockOf<E> = <<E as Env>::File as File>::Block;
/// The read type of an environment's files.
pub type ReadOf<E> = <<E as Env>::File as File>::Read;

/// A block that holds `bytes`, and zeros to its end.
pub fn block_of<E: Env>(env: &E, bytes: &[u8]) -> BlockOf<E> {
    let mut block = env.block(bytes.len());
    let (front, padding) = block.bytes_mut().split_at_mut(bytes.len());
    front.copy_from_slice(bytes);
    padding.fill(0);
    block
}

/// Rounds up to the next multiple of [`BLOCK_ALIGN`].
pub const fn align_up(len: usize) -> usize {
    len.next_multiple_of(BLOCK_ALIGN)
}

/// Rounds a file position down to a multiple of [`BLOCK_ALIGN`].
pub const fn align_down(pos: u64) -> u64 {
    pos - pos % BLOCK_ALIGN as u64
}
