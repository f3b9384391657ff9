//! What happens in the life of a compacted log: rounds of compaction, some of them beside others,
//! and readers that read on while segments are swapped.

use engine::env::Env;
use engine::ids::Offset;
use engine::log::{Cleaner, CompactError, Limit};

use crate::promise::{Broken, Invariant, Kept, broken};
use crate::workload::{Life, chunk_end};

impl Life {
    pub async fn step_of_compaction(&self) -> Kept {
        match self.random.below(6) {
            0..3 => self.compact().await,
            3 => {
                let life = self.clone();
                self.beside(async move { life.compact().await }).await
            }
            4 => {
                // Time passes for deletion marks.
                self.pause(self.random.below(30_000)).await;
                self.compact().await
            }
            _ => {
                let life = self.clone();
                self.beside(async move { life.scan().await }).await
            }
        }
    }

    /// A round of compaction, if it is worth it.
    pub async fn compact(&self) -> Kept {
        let bound = {
            let mut promise = self.promise.borrow_mut();
            if promise.taking_back.is_some() {
                return Ok(());
            }
            let bound = self.log.durable().value();
            promise.compacted = promise.compacted.max(bound);
            bound
        };
        let mut cleaner = Cleaner::new(self.dedupe_bytes);
        match self.log.compact(&mut cleaner, Offset::new(bound)).await {
            Ok(Some(done)) => {
                let mut promise = self.promise.borrow_mut();
                promise.shrunk += done.read_bytes.saturating_sub(done.written_bytes);
                Ok(())
            }
            Ok(None) | Err(CompactError::Interrupted | CompactError::NoSpace) => Ok(()),
            Err(_) if !self.log.is_open() => Ok(()),
            // There were no descriptors.
            Err(CompactError::Device(error)) if error.raw_os_error() == Some(24) => Ok(()),
            Err(error) => broken(Invariant::NewestOfEachKeyStays, format!("compacting: {error}")),
        }
    }

    /// Reads from the start to the end in small pieces, and misses nothing that is newest.
    pub async fn scan(&self) -> Kept {
        let epoch = self.promise.borrow().epoch;
        let start = self.log.start().value();
        let (mut at, mut seen) = (start, Vec::new());
        loop {
            let bound = self.log.durable().value();
            let limit = Limit { bytes_max: 300, bound: Offset::new(bound), at_least_one: true };
            let read = self.log.read(Offset::new(at), limit).await;
            let gone = {
                let promise = self.promise.borrow();
                promise.taking_back.is_some() || promise.epoch != epoch
            };
            if gone || self.log.start().value() > at {
                return Ok(());
            }
            let chunk = match read {
                Ok(chunk) => chunk,
                Err(error) => {
                    return broken(Invariant::ReadersSeeNoGap, format!("from {at}: {error}"));
                }
            };
            let bytes: Vec<u8> = chunk.slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let Some(end) = chunk_end(&bytes) else { break };
            let now = self.env.wall().0;
            let found = self.promise.borrow().truth(now).check(at, end, &bytes);
            seen.extend(found.map_err(Broken::of_rule)?);
            at = end;
            if self.random.chance(1, 3) {
                self.pause(self.random.below(1_000)).await;
            }
        }
        let promise = self.promise.borrow();
        if promise.taking_back.is_some() || promise.epoch != epoch {
            return Ok(());
        }
        let truth = promise.truth(self.env.wall().0);
        for (key, (newest, may_go)) in truth.newest(at) {
            let found = seen.iter().any(|seen| (seen.key, seen.offset) == (key, newest));
            if newest >= start && !found && !may_go {
                let how = format!("{newest} of key {key} was not seen from {start} to {at}");
                return broken(Invariant::ReadersSeeNoGap, how);
            }
        }
        Ok(())
    }
}
