//! Walking the batches of one segment file, chunk by chunk: what recovery, index rebuilding, cold
//! reads and time lookups share. Checks shape and CRC of each batch; knows nothing of offsets.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use crate::batch::{Batch, HEADER_BYTES, Header, ShapeError};
use crate::env::{Env, File, ReadOf};

/// Largest piece that is read at once while walking, in bytes (one larger batch is read whole).
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A walk over one file.
pub(crate) struct Cursor<E: Env> {
    file: Rc<E::File>,
    pos: u64,
    end: u64,
    chunk: Option<(u64, ReadOf<E>)>,
    chunk_bytes: usize,
}

/// What stands at a position.
pub(crate) enum Step<E: Env> {
    /// A whole batch with a true CRC.
    Batch(Found<E>),
    /// The end that was given, or of the file.
    End,
    /// No batch: what is there is no header, is cut short, or has a wrong CRC.
    Bad(Fault),
}

/// Why there is no batch at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes that the batch claims to have, when its header makes sense.
    pub claims: Option<usize>,
    pub why: &'static str,
}

/// A batch in the memory of a read.
pub(crate) struct Found<E: Env> {
    /// Its position in the file.
    pub pos: u64,
    pub read: ReadOf<E>,
    pub range: Range<usize>,
}

impl<E: Env> Found<E> {
    /// The batch itself.
    pub fn batch(&self) -> Batch<'_> {
        Batch::first(&self.read[self.range.clone()]).expect("the cursor has looked at it")
    }
}

impl<E: Env> Cursor<E> {
    /// Starts at `pos`; stops at `end`. The first read takes `first_bytes`, later ones grow.
    pub fn new(file: Rc<E::File>, pos: u64, end: u64, first_bytes: usize) -> Cursor<E> {
        Cursor {
            file,
            pos,
            end,
            chunk: None,
            chunk_bytes: first_bytes.clamp(4096, CHUNK_BYTES_MAX),
        }
    }

    /// Where the next step will look.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// Whether it stands at the end that it was given.
    pub fn is_at_end(&self) -> bool {
        self.pos >= self.end
    }

    /// Takes the batch at the present position and moves behind it. Does not move on `Bad`.
    pub async fn next(&mut self) -> io::Result<Step<E>> {
        let left = usize::try_from(self.end.saturating_sub(self.pos)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(Step::End);
        }
        let have = self.need(HEADER_BYTES.min(left)).await?;
        if have.is_empty() {
            return Ok(Step::End);
        }
        let (size, fault) = {
            let (_, read) = self.chunk.as_ref().expect("just read");
            match Header::peek(&read[have]) {
                Ok(header) => (header.size(), None),
                Err(ShapeError::Short { .. }) => (0, Some("cut inside a batch header")),
                Err(_) => (0, Some("not a batch header")),
            }
        };
        if let Some(why) = fault {
            return Ok(Step::Bad(Fault { claims: None, why }));
        }
        if size > left {
            return Ok(Step::Bad(Fault { claims: Some(size), why: "longer than the data" }));
        }
        let range = self.need(size).await?;
        let (_, read) = self.chunk.as_ref().expect("just read");
        if range.len() < size {
            return Ok(Step::Bad(Fault { claims: Some(size), why: "cut short" }));
        }
        let range = range.start..range.start + size;
        let batch = Batch::first(&read[range.clone()]).expect("peeked before");
        if !batch.verify_crc() {
            return Ok(Step::Bad(Fault { claims: Some(size), why: "wrong checksum" }));
        }
        let found = Found { pos: self.pos, read: read.clone(), range };
        self.pos += size as u64;
        Ok(Step::Batch(found))
    }

    /// Makes sure that at least `len` bytes from the present position are in the chunk, if the
    /// file has them; answers where all that is there stands in the chunk.
    async fn need(&mut self, len: usize) -> io::Result<Range<usize>> {
        if let Some((at, read)) = &self.chunk {
            let from = (self.pos - at) as usize;
            if from + len <= read.len() {
                return Ok(from..read.len());
            }
        }
        let left = usize::try_from(self.end - self.pos).unwrap_or(usize::MAX);
        let want = self.chunk_bytes.max(len).min(left);
        self.chunk_bytes = (self.chunk_bytes * 4).min(CHUNK_BYTES_MAX);
        let read = self.file.read_at(self.pos, want).await?;
        let len = read.len();
        self.chunk = Some((self.pos, read));
        Ok(0..len)
    }
}
