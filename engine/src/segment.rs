//! One file of a log, and what is derived from it.
//!
//! A segment is named by its base offset, twenty digits wide, as in Kafka: `….log` holds record
//! batches back to back and nothing else, `….index` what [`index`] saves. Space is reserved ahead
//! of the writes, so the file is longer than its data; the rest reads as zeros. When a segment is
//! rolled it is cut to its data and synced before its successor comes into being.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::env::{Env, Open};
use crate::ids::Offset;
use crate::time::Timestamp;
use crate::wait::Watch;

pub mod index;

use index::Index;

/// Largest segment, in bytes: positions are 32 bits wide in Kafka (`segment.bytes` is an int).
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// One segment. Shared by the log, its writer and readers in flight.
pub(crate) struct Segment<E: Env> {
    pub base: Offset,
    /// Opened on first use; `None` again when it was idle.
    file: RefCell<Option<Rc<E::File>>>,
    /// Whether the file exists; a rolled-to segment is made by the writer.
    pub exists: Cell<bool>,
    /// Bytes of whole batches that the device has.
    pub size: Cell<u64>,
    /// Bytes reserved on the device.
    pub allocated: Cell<u64>,
    /// Zeros that were written behind the data.
    pub zeros: Zeros,
    /// Behind `size` there may be batches of a write that was given up.
    pub stale: Cell<bool>,
    /// Covers the first `indexed` bytes; `None` until somebody needs it.
    pub index: RefCell<Option<Index>>,
    pub indexed: Cell<u64>,
    /// A task is making the index.
    pub indexing: Cell<bool>,
    /// The largest timestamp of its first so many bytes, for retention.
    pub latest: Cell<(u64, Option<Timestamp>)>,
    /// Largest timestamp of the first batch: what rolling by time counts from.
    pub first_timestamp: Cell<Option<Timestamp>>,
    /// Not part of the log any more: its file is being cut or removed under whoever reads it.
    pub gone: Cell<bool>,
    /// Its file is being replaced, or was: it keeps the descriptor that it has, for those who still
    /// read it, and has no saved index.
    pub replaced: Cell<bool>,
    /// Used since the last round of housekeeping.
    pub touched: Cell<bool>,
}

/// What is zeroed ahead of the writes (see `log::prepare`).
#[derive(Default)]
pub(crate) struct Zeros {
    /// Position up to which the file has written blocks, except for a short gap behind the data.
    pub end: Cell<u64>,
    /// Zeros are on their way to positions from `begin` on.
    pub busy: Cell<bool>,
    pub begin: Cell<u64>,
    /// How many rounds are over.
    pub rounds: Watch,
}

impl<E: Env> Segment<E> {
    /// A segment that is to be, or whose file has been seen in the directory (`exists`).
    pub fn new(base: Offset, exists: bool, size: u64) -> Rc<Segment<E>> {
        Rc::new(Segment {
            base,
            file: RefCell::new(None),
            exists: Cell::new(exists),
            size: Cell::new(size),
            allocated: Cell::new(size),
            zeros: Zeros::default(),
            stale: Cell::new(false),
            index: RefCell::new(None),
            indexed: Cell::new(0),
            indexing: Cell::new(false),
            latest: Cell::new((0, None)),
            first_timestamp: Cell::new(None),
            gone: Cell::new(false),
            replaced: Cell::new(false),
            touched: Cell::new(false),
        })
    }

    /// Its open file, opened for reading and writing if it was not.
    pub async fn file(&self, env: &E, dir: &Path) -> io::Result<Rc<E::File>> {
        self.touched.set(true);
        if let Some(file) = &*self.file.borrow() {
            return Ok(file.clone());
        }
        let file = Rc::new(env.open(&log_path(dir, self.base), Open::Write).await?);
        Ok(self.file.borrow_mut().get_or_insert(file).clone())
    }

    /// Makes its file; whoever calls this syncs the directory.
    pub async fn create(&self, env: &E, dir: &Path) -> io::Result<Rc<E::File>> {
        let file = Rc::new(env.open(&log_path(dir, self.base), Open::Create).await?);
        self.exists.set(true);
        *self.file.borrow_mut() = Some(file.clone());
        Ok(file)
    }

    /// Closes the file if nobody used it since the last call (readers in flight keep theirs).
    pub fn rest(&self) {
        if !self.touched.replace(false) && !self.replaced.get() {
            *self.file.borrow_mut() = None;
            *self.index.borrow_mut() = None;
            self.indexed.set(0);
        }
    }
}

/// Path of the data file of the segment at `base`.
pub(crate) fn log_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.log", base.value()))
}

/// Path of the saved index of the segment at `base`.
pub(crate) fn index_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.index", base.value()))
}

/// A file of segments that were compacted, which is to take the place of those that begin at or
/// after `base` and end at or before `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Anew {
    pub base: Offset,
    pub end: Offset,
    /// It is whole and durable, and what it replaces may be gone; otherwise it counts for nothing.
    pub whole: bool,
}

impl Anew {
    pub fn path(self, dir: &Path) -> PathBuf {
        let suffix = if self.whole { "swap" } else { "cleaned" };
        let (base, end) = (self.base.value(), self.end.value());
        dir.join(format!("{base:020}-{end:020}.{suffix}"))
    }

    /// What a file name says, if it is such a name.
    pub fn parse(name: &str) -> Option<Anew> {
        let (stem, suffix) = name.split_once('.')?;
        let whole = match suffix {
            "swap" => true,
            "cleaned" => false,
            _ => return None,
        };
        let (base, end) = stem.split_once('-')?;
        let (base, end) = (parse_offset(base)?, parse_offset(end)?);
        Some(Anew { base, end, whole })
    }
}

/// The base offset that a file name says, if it is the name of a segment's data file.
pub(crate) fn parse_log_name(name: &str) -> Option<Offset> {
    parse_offset(name.strip_suffix(".log")?)
}

fn parse_offset(digits: &str) -> Option<Offset> {
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Offset::from_wire(digits.parse().ok()?)
}
