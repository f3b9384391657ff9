//! Saving and loading what [`Index`] knows, in a file beside the segment. Never synced and never
//! trusted: a missing, torn or foreign file only means that the segment is walked again.

use std::io;
use std::rc::Rc;

use super::Inner;
use crate::env::{Block, Env, File, Open, Persist};
use crate::segment::index::Index;
use crate::segment::{Segment, index_path};

impl<E: Env> Inner<E> {
    /// Writes the segment's index beside it, if it is known.
    pub(super) async fn save_index(&self, segment: &Segment<E>) -> io::Result<()> {
        let bytes = match &*segment.index.borrow() {
            Some(index) => index.save(segment.base, segment.indexed.get()),
            None => return Ok(()),
        };
        let path = index_path(&self.dir, segment.base);
        match self.env.remove(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.env.open(&path, Open::Create).await?;
        let mut block = self.env.block(bytes.len());
        block.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        file.write_at(Rc::new(block), 0, Persist::Written).await
    }

    /// The saved index and how many bytes of the segment it covers.
    pub(super) async fn load_index(&self, segment: &Segment<E>) -> Option<(Index, u64)> {
        let file = self.env.open(&index_path(&self.dir, segment.base), Open::Read).await.ok()?;
        let len = usize::try_from(file.len().await.ok()?).ok()?;
        let bytes = file.read_at(0, len).await.ok()?;
        Index::load(&bytes, segment.base, segment.size.get(), self.interval())
    }
}
