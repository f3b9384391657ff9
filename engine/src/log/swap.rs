//! A compacted segment takes the place of those that it was made of.
//!
//! ```text
//!   A.log  B.log  C.log  A-D.cleaned      written, and synced as a whole
//!   A.log  B.log  C.log  A-D.swap         renamed, durably: from here on it counts
//!   A.log                A-D.swap         B and C are removed, durably
//!   A.log (the new one)                   renamed over A
//! ```
//! A crash before the first rename leaves a file that counts for nothing; after it, opening the log
//! goes on from there, and what is done twice does no harm. At no time are there two files of which
//! one knows that a record is gone and the other still has it, without the first one's name saying
//! so. Saved indexes go before the first rename, because they are true of what is replaced.
//!
//! Readers that hold a replaced segment go on in its file, which lives as long as its descriptor.
//!
//! Source: Kafka's `LocalLog.replaceSegments`, whose names carry no end, so that recovery has to
//! read the file.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::recovery::remove_if_there;
use super::{Inner, Mutant, Status};
use crate::env::{Entry, Env, Queue};
use crate::segment::{Anew, Segment, index_path, log_path, parse_log_name};
use crate::wait::Watch;

impl<E: Env> Inner<E> {
    /// Puts `new`, whose file is `file`, whole and synced, in the place of `old`, which follow each
    /// other. False, and nothing is done, where these are not part of the log as it is now. A task
    /// of its own does it, so that a caller that goes away does not leave it half done.
    pub(super) async fn swap(
        &self,
        old: Vec<Rc<Segment<E>>>,
        new: Rc<Segment<E>>,
        file: Anew,
    ) -> io::Result<bool> {
        let Some(pass) = self.gate.enter() else { return Ok(false) };
        let (outcome, ended) = (Rc::new(Cell::new(None)), Watch::new(0));
        let (log, told, outcome_of) = (self.strong(), ended.clone(), outcome.clone());
        self.env.spawn(Queue::Background, async move {
            outcome_of.set(Some(log.swap_here(&old, new, file).await));
            drop(pass);
            told.raise(1);
        });
        // This watch is never closed.
        let _ = ended.reach(1).await;
        outcome.take().expect("it was set before")
    }

    async fn swap_here(
        &self,
        old: &[Rc<Segment<E>>],
        new: Rc<Segment<E>>,
        file: Anew,
    ) -> io::Result<bool> {
        let _turn = self.checkpoint_turn().await;
        if !self.holds(old) {
            return Ok(false);
        }
        // Whoever reads them goes on with the descriptors that they have.
        old.iter().for_each(|segment| segment.replaced.set(true));
        if let Err(error) = self.commit(old, file).await {
            old.iter().for_each(|segment| segment.replaced.set(false));
            return Err(error);
        }
        let whole = Anew { whole: true, ..file };
        let swapped = match self.shared.bounds.has(Mutant::SwapForwards) {
            true => self.take_place_forwards(old, whole).await,
            false => take_place(&self.env, &self.dir, whole, old[1..].iter().map(|s| s.base)).await,
        };
        if let Err(error) = swapped {
            self.fail("replacing segments in", &error);
            return Err(error);
        }
        self.exchange(old, new);
        Ok(true)
    }

    /// Whether these segments, one or more after each other, are part of the log, and nobody is
    /// about to change that.
    pub(super) fn holds(&self, segments: &[Rc<Segment<E>>]) -> bool {
        let state = self.state.borrow();
        let is_first = |s: &Rc<Segment<E>>| Rc::ptr_eq(s, &segments[0]);
        let first = state.segments.iter().position(is_first);
        let same = first.is_some_and(|first| {
            let held = state.segments.range(first..).take(segments.len());
            held.len() == segments.len() && held.zip(segments).all(|(a, b)| Rc::ptr_eq(a, b))
        });
        same && state.status == Status::Open && !state.truncating && !state.replaying
    }

    /// From when this returns on, the new file counts.
    async fn commit(&self, old: &[Rc<Segment<E>>], file: Anew) -> io::Result<()> {
        for segment in old {
            self.patient_file(segment).await?;
        }
        // One that stayed would speak of another file.
        for segment in old {
            remove_if_there(&self.env, &index_path(&self.dir, segment.base)).await?;
        }
        let whole = Anew { whole: true, ..file };
        self.env.rename(&file.path(&self.dir), &whole.path(&self.dir)).await?;
        if let Err(error) = self.env.sync_dir(&self.dir).await {
            self.fail("replacing segments in", &error);
            return Err(error);
        }
        Ok(())
    }

    /// [`Mutant::SwapForwards`].
    async fn take_place_forwards(&self, old: &[Rc<Segment<E>>], file: Anew) -> io::Result<()> {
        self.env.rename(&file.path(&self.dir), &log_path(&self.dir, file.base)).await?;
        self.env.sync_dir(&self.dir).await?;
        for segment in &old[1..] {
            self.env.remove(&log_path(&self.dir, segment.base)).await?;
        }
        self.env.sync_dir(&self.dir).await
    }

    /// In memory, too.
    fn exchange(&self, old: &[Rc<Segment<E>>], new: Rc<Segment<E>>) {
        let mut state = self.state.borrow_mut();
        let first = state.segments.iter().position(|s| Rc::ptr_eq(s, &old[0]));
        // Whoever could have removed it waits for the turn.
        let first = first.expect("segments stay while a checkpoint's turn is held");
        state.segments.drain(first + 1..first + old.len());
        state.segments[first] = new;
    }
}

/// Removes the other segments that are in `file`, then gives it the name of the first. The names
/// are durable when this returns.
async fn take_place<E: Env>(
    env: &E,
    dir: &Path,
    file: Anew,
    others: impl ExactSizeIterator<Item = crate::ids::Offset>,
) -> io::Result<()> {
    let some = others.len() > 0;
    for base in others {
        remove_if_there(env, &log_path(dir, base)).await?;
        remove_if_there(env, &index_path(dir, base)).await?;
        env.turn().await;
    }
    if some {
        env.sync_dir(dir).await?;
    }
    remove_if_there(env, &index_path(dir, file.base)).await?;
    env.rename(&file.path(dir), &log_path(dir, file.base)).await?;
    env.sync_dir(dir).await
}

/// Ends, or forgets, what was under way when the process ended. `entries` are what is in the
/// directory; returned is what is in it afterwards.
pub(super) async fn finish_swaps<E: Env>(
    env: &E,
    dir: &Path,
    entries: Vec<Entry>,
) -> io::Result<Vec<Entry>> {
    let mut found = false;
    for file in entries.iter().filter_map(|entry| Anew::parse(&entry.name)) {
        found = true;
        if !file.whole {
            env.remove(&file.path(dir)).await?;
            continue;
        }
        tracing::info!(dir = %dir.display(), base = %file.base, end = %file.end,
            "an interrupted swap of compacted segments is ended");
        let bases = entries.iter().filter_map(|entry| parse_log_name(&entry.name));
        let others: Vec<_> = bases.filter(|&base| base > file.base && base < file.end).collect();
        take_place(env, dir, file, others.into_iter()).await?;
    }
    // Nearly always there is none, and a directory of many is not read twice.
    if found { env.list(dir).await } else { Ok(entries) }
}
