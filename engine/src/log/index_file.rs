//! Saving, loading and completing what [`Index`] knows, in a file beside the segment. Never synced
//! and never trusted: a missing, torn or foreign file only means that the segment is walked again.

use std::io;
use std::rc::Rc;

use super::read::Walk;
use super::{Inner, Mutant, ReadError};
use crate::env::{Env, File, Open, Persist, block_of};
use crate::segment::index::Index;
use crate::segment::{Segment, index_path};

impl<E: Env> Inner<E> {
    /// Writes the segment's index beside it, as far as the first `synced` bytes go, if it is known.
    pub(super) async fn save_index(&self, segment: &Segment<E>, synced: u64) -> io::Result<()> {
        let index = match &*segment.index.borrow() {
            _ if segment.replaced.get() => None,
            Some(index) => index.save(segment.base, synced),
            None => None,
        };
        let Some(bytes) = index else { return Ok(()) };
        let path = index_path(&self.dir, segment.base);
        match self.env.remove(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.env.open(&path, Open::Create).await?;
        let block = block_of(&self.env, &bytes);
        file.write_at(Rc::new(block), 0, Persist::Written).await
    }

    async fn load_index(&self, segment: &Segment<E>) -> Option<Index> {
        if segment.replaced.get() {
            return None;
        }
        let file = self.env.open(&index_path(&self.dir, segment.base), Open::Read).await.ok()?;
        let len = usize::try_from(file.len().await.ok()?).ok()?;
        let bytes = file.read_at(0, len).await.ok()?;
        let trust = self.shared.bounds.has(Mutant::TrustIndex);
        Index::load(&bytes, segment.base, segment.size.get(), self.interval(), trust)
    }

    /// Brings the index of a segment up to what the device has: loads the saved one, then walks
    /// what it does not cover.
    pub(super) async fn ensure_index(&self, segment: &Rc<Segment<E>>) -> Result<(), ReadError> {
        segment.touched.set(true);
        if segment.index.borrow().is_some() && segment.indexed.get() >= segment.size.get() {
            return Ok(());
        }
        let known = segment.index.take();
        let known = match known {
            Some(index) => Some(index),
            None => self.load_index(segment).await,
        };
        match self.complete_index(segment, known).await {
            // What was known may have led astray.
            Err(ReadError::Damaged { .. }) => self.complete_index(segment, None).await,
            done => done,
        }
    }

    /// Walks what an index does not cover. Where that is damaged, it covers what stands before.
    async fn complete_index(
        &self,
        segment: &Rc<Segment<E>>,
        known: Option<Index>,
    ) -> Result<(), ReadError> {
        let mut index = known.unwrap_or_else(|| Index::new(self.interval()));
        let (pos, mut at) = index.rewind().unwrap_or((0, segment.base));
        let mut pos = u64::from(pos);
        let mut done = Ok(());
        // The writer goes on while this walks; what it adds meanwhile is walked, too.
        while pos < segment.size.get() && done.is_ok() {
            let mut walk = self.walk(segment, pos, at).await?;
            done = self.index_rest(&mut walk, &mut index).await;
            (pos, at) = (walk.pos(), walk.at());
        }
        segment.indexed.set(pos);
        *segment.index.borrow_mut() = Some(index);
        done
    }

    async fn index_rest(&self, walk: &mut Walk<E>, index: &mut Index) -> Result<(), ReadError> {
        while let Some(found) = self.step(walk).await? {
            let (batch, len) = (found.batch(), found.range.len() as u32);
            index.on_batch(batch.base_offset(), found.pos as u32, len, batch.max_timestamp());
            self.env.turn().await;
        }
        Ok(())
    }

    pub(super) fn interval(&self) -> u32 {
        self.state.borrow().config.index_interval_bytes
    }
}
