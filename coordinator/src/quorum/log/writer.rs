//! The segments on the device, in the hands of the one task that writes them.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::env::{BLOCK_ALIGN, Env, File, Open, Persist, align_down, align_up, block_of};

use super::super::facts::Facts;
use super::super::mutant::Mutant;
use super::super::types::{Entry, LogId};
use super::frame::{self, Context};

/// A segment that has grown beyond this is followed by another, in bytes.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Room is made in steps of this, in bytes.
const ROOM_BYTES: u64 = 256 << 10;
/// Bytes of one device operation.
const PIECE_BYTES: usize = 1 << 20;

/// One file of entries.
pub(super) struct Segment<E: Env> {
    /// Index of its first entry.
    pub first: u64,
    pub path: PathBuf,
    pub file: E::File,
    /// Bytes that have their room on the device.
    pub len: u64,
    /// Where its entries are.
    pub placed: Vec<Placed>,
}

/// Where an entry stands in its segment.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    /// Position behind it.
    pub end: u64,
    pub crc: u32,
}

impl<E: Env> Segment<E> {
    fn end(&self) -> u64 {
        self.first + self.placed.len() as u64
    }

    /// Position behind its last entry.
    fn position(&self) -> u64 {
        self.placed.last().map_or(0, |placed| placed.end)
    }
}

/// All segments.
pub(super) struct Writer<E: Env> {
    env: E,
    dir: PathBuf,
    facts: Facts<E>,
    mutant: Option<Mutant>,
    /// The last one is appended to.
    segments: VecDeque<Segment<E>>,
    /// Index of the first entry that counts; earlier ones may still stand in the first segment.
    start: u64,
    /// What stands in the last segment's last, unfinished block.
    block: Vec<u8>,
    /// Below this index everything is synced.
    synced: u64,
    failed: Option<(io::ErrorKind, String)>,
}

impl<E: Env> Writer<E> {
    /// One without segments, whose first entry will be `start`.
    pub fn empty(
        env: &E,
        dir: &Path,
        facts: &Facts<E>,
        mutant: Option<Mutant>,
        start: u64,
    ) -> Writer<E> {
        Writer {
            env: env.clone(),
            dir: dir.to_owned(),
            facts: facts.clone(),
            mutant,
            segments: VecDeque::new(),
            start,
            block: Vec::new(),
            synced: start,
            failed: None,
        }
    }

    /// Takes in the next segment that was found; `bytes` are its entries.
    pub fn push(&mut self, segment: Segment<E>, bytes: &[u8]) {
        self.block = bytes[align_down(bytes.len() as u64) as usize..].to_vec();
        self.synced = self.start.max(segment.end());
        self.segments.push_back(segment);
    }

    /// Index of the first entry that counts.
    pub fn first(&self) -> u64 {
        self.start
    }

    /// Index of the next entry.
    pub fn end(&self) -> u64 {
        self.segments.back().map_or(self.start, Segment::end)
    }

    /// Appends entries; they are durable when this returns.
    pub async fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.alive()?;
        let result = self.write(entries).await;
        self.note(result)
    }

    async fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.make_room(0).await?;
        let (synced, truncations) = (self.synced, self.facts.truncations());
        let segment = self.segments.back_mut().expect("room was made");
        let from = align_down(segment.position());
        let mut chain = segment.placed.last().map_or(0, |placed| placed.crc);
        let mut bytes = std::mem::take(&mut self.block);
        let mut placed = Vec::with_capacity(entries.len());
        for entry in entries {
            chain = frame::encode(entry, Context { chain, synced, truncations }, &mut bytes);
            placed.push(Placed { end: from + bytes.len() as u64, crc: chain });
        }
        let len = align_up(bytes.len()) as u64;
        grow(segment, from + len).await?;
        let early = self.mutant == Some(Mutant::AcknowledgeEarly);
        let one = bytes.len() <= PIECE_BYTES;
        let persist = if one && !early { Persist::Synced } else { Persist::Written };
        for (at, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let block = block_of(&self.env, piece);
            let position = from + (at * PIECE_BYTES) as u64;
            segment.file.write_at(Rc::new(block), position, persist).await?;
        }
        if !one && !early {
            segment.file.sync().await?;
        }
        segment.placed.extend(placed);
        self.block = bytes.split_off(align_down(bytes.len() as u64) as usize);
        self.synced = segment.end();
        Ok(())
    }

    /// Room for so many more bytes; an error leaves everything as it was.
    pub async fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.alive()?;
        match self.make_room(bytes).await {
            // The one thing that may be asked again.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
            result => self.note(result),
        }
    }

    /// A last segment that takes entries, with room for so many bytes.
    async fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        if self.segments.back().is_none_or(|last| last.position() >= SEGMENT_BYTES) {
            self.begin(self.end()).await?;
        }
        let segment = self.segments.back_mut().expect("one was begun");
        // Frames are a little larger than what they hold.
        let needed = segment.position() + bytes + bytes / 4 + BLOCK_ALIGN as u64;
        grow(segment, needed).await
    }

    /// Begins a segment.
    async fn begin(&mut self, first: u64) -> io::Result<()> {
        let path = super::path(&self.dir, first);
        if self.segments.back().is_some_and(|last| last.first == first) {
            return Ok(());
        }
        match self.env.remove(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.env.open(&path, Open::Create).await?;
        let mut segment: Segment<E> = Segment { first, path, file, len: 0, placed: Vec::new() };
        grow(&mut segment, 1).await?;
        segment.file.sync().await?;
        self.env.sync_dir(&self.dir).await?;
        self.segments.push_back(segment);
        self.block.clear();
        Ok(())
    }

    /// Takes back everything from index `end` on.
    pub async fn truncate(&mut self, end: u64) -> io::Result<()> {
        self.alive()?;
        let result = self.cut(end).await;
        self.note(result)
    }

    async fn cut(&mut self, end: u64) -> io::Result<()> {
        if self.mutant == Some(Mutant::KeepTruncated) {
            return Ok(());
        }
        // What stands behind the cut proves nothing any more; that must be known first.
        self.facts.save_truncation().await?;
        while let Some(last) = self.segments.back()
            && last.first >= end
        {
            let last = self.segments.pop_back().expect("it was looked at");
            self.env.remove(&last.path).await?;
            self.env.sync_dir(&self.dir).await?;
        }
        if let Some(last) = self.segments.back_mut() {
            last.placed.truncate((end - last.first) as usize);
            let position = last.position();
            let kept = align_up(position as usize) as u64;
            last.file.truncate(kept).await?;
            last.len = kept;
            last.file.sync().await?;
            let from = align_down(position);
            let piece = last.file.read_at(from, (position - from) as usize).await?;
            self.block = piece.to_vec();
        } else {
            self.block.clear();
        }
        self.synced = self.synced.min(end);
        Ok(())
    }

    /// Lets go of everything up to and including `upto`.
    pub async fn purge(&mut self, upto: &LogId) -> io::Result<()> {
        self.alive()?;
        let result = self.let_go(upto).await;
        self.note(result)
    }

    async fn let_go(&mut self, upto: &LogId) -> io::Result<()> {
        if upto.index < self.start {
            return Ok(());
        }
        self.facts.save_purged(upto).await?;
        self.start = upto.index + 1;
        let mut removed = false;
        while let Some(first) = self.segments.front()
            && first.end() <= self.start
            // The last one goes only when the next entry does not follow it.
            && (self.segments.len() > 1 || first.end() < self.start)
        {
            let first = self.segments.pop_front().expect("it was looked at");
            self.env.remove(&first.path).await?;
            removed = true;
        }
        if removed {
            self.env.sync_dir(&self.dir).await?;
        }
        if self.segments.is_empty() {
            self.block.clear();
        }
        self.synced = self.synced.max(self.start);
        Ok(())
    }

    /// Whether nothing has failed so far.
    pub fn alive(&self) -> io::Result<()> {
        match &self.failed {
            Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
            None => Ok(()),
        }
    }

    /// Remembers a failure: what the device holds is not known then.
    fn note(&mut self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            self.failed = Some((error.kind(), error.to_string()));
        }
        result
    }
}

/// Makes sure that a segment has room up to `len`.
async fn grow<E: Env>(segment: &mut Segment<E>, len: u64) -> io::Result<()> {
    if len > segment.len {
        let room = len.next_multiple_of(ROOM_BYTES);
        segment.file.allocate(segment.len, room - segment.len).await?;
        segment.len = room;
    }
    Ok(())
}
