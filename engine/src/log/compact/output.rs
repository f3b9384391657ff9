//! Writing the segment that compaction makes: block by block, with its index.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::super::recovery::remove_if_there;
use crate::batch::Header;
use crate::env::{Block, BlockOf, Env, File, Open, Persist, align_up};
use crate::segment::index::Index;
use crate::segment::{Anew, Segment};
use crate::time::Timestamp;

/// Bytes that are written at once.
const BLOCK_BYTES: usize = 512 << 10;

/// A segment file that is being made.
pub(super) struct Output<E: Env> {
    env: E,
    pub file: Anew,
    path: PathBuf,
    open: E::File,
    block: BlockOf<E>,
    /// Bytes of the block that are filled.
    used: usize,
    /// Where the block will stand.
    pos: u64,
    index: Index,
    first_timestamp: Option<Timestamp>,
}

impl<E: Env> Output<E> {
    /// Makes the file.
    pub async fn create(
        env: &E,
        dir: &std::path::Path,
        file: Anew,
        interval: u32,
    ) -> io::Result<Output<E>> {
        let path = file.path(dir);
        // One that was given up half way may be there.
        remove_if_there(env, &path).await?;
        let open = env.open(&path, Open::Create).await?;
        let (env, block) = (env.clone(), env.block(BLOCK_BYTES));
        let index = Index::new(interval);
        Ok(Output { env, file, path, open, block, used: 0, pos: 0, index, first_timestamp: None })
    }

    /// Bytes of batches so far.
    pub fn bytes(&self) -> u64 {
        self.pos + self.used as u64
    }

    /// Writes a batch at the end.
    pub async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let header = Header::peek(bytes).expect("a batch that was read or made");
        let (pos, latest) = (self.bytes() as u32, header.max_timestamp());
        self.index.on_batch(header.base_offset(), pos, bytes.len() as u32, latest);
        self.first_timestamp.get_or_insert(latest);
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = rest.len().min(BLOCK_BYTES - self.used);
            let (here, behind) = rest.split_at(count);
            self.block.bytes_mut()[self.used..self.used + count].copy_from_slice(here);
            self.used += count;
            rest = behind;
            if self.used == BLOCK_BYTES {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        let next = self.env.block(BLOCK_BYTES);
        let mut block = std::mem::replace(&mut self.block, next);
        let len = align_up(self.used);
        block.bytes_mut()[self.used..len].fill(0);
        block.trim(len);
        self.open.write_at(Rc::new(block), self.pos, Persist::Written).await?;
        self.pos += self.used as u64;
        self.used = 0;
        Ok(())
    }

    /// Writes what is left, cuts the file to its data and syncs it, unless `sync` says otherwise.
    pub async fn finish(mut self, sync: bool) -> io::Result<Rc<Segment<E>>> {
        let size = self.bytes();
        if self.used > 0 {
            self.write().await?;
        }
        self.open.truncate(size).await?;
        if sync {
            self.open.sync().await?;
        }
        let segment = Segment::new(self.file.base, true, size);
        segment.first_timestamp.set(self.first_timestamp);
        segment.latest.set((size, self.index.max_timestamp()));
        segment.indexed.set(size);
        *segment.index.borrow_mut() = Some(self.index);
        Ok(segment)
    }

    /// Gives it up.
    pub async fn abandon(self) -> io::Result<()> {
        let Output { env, path, open, .. } = self;
        drop(open);
        env.remove(&path).await
    }
}
