//! What a follower does to its log, in the life of a crash test: it takes what leaders wrote, takes
//! back what another leader did not keep, and begins anew where a leader's log has moved on.

use engine::batch::{Checked, check_trusted};
use engine::ids::{LeaderEpoch, Offset};
use engine::log::TruncateError;

use crate::batches::Stored;
use crate::promise::{Broken, Invariant, Kept, TakingBack, ensure};
use crate::workload::Life;

impl Life {
    /// Appends what the leader of this epoch, and perhaps of the next one, wrote.
    pub fn append_replicated(&self) -> Kept {
        let mut stored: Vec<Stored> = Vec::new();
        let mut end = self.promise.borrow().end();
        for _ in 0..self.random.between(1, 3) {
            let sent = self.batch();
            let of = |b: &Stored| b.sent.producer.map(|(id, _)| id);
            let id = sent.producer.map(|(id, _)| id);
            if id.is_some() && stored.iter().any(|b| of(b) == id) {
                // Its sequence is known when the first one is in the log.
                break;
            }
            if self.random.chance(1, 6) {
                self.promise.borrow_mut().epoch += 1;
            }
            let epoch = LeaderEpoch(self.promise.borrow().epoch);
            stored.push(sent.stored(Offset::new(end), epoch));
            end = stored[stored.len() - 1].end;
        }
        let batches: Vec<Checked<'_>> =
            stored.iter().map(|b| check_trusted(&b.bytes).expect("whole")).collect();
        match self.log.append_replicated(&batches) {
            Ok(at) => ensure(at.value() == end, Invariant::LogIsAPrefix, || {
                format!("replicated up to {end}, the log ends at {at}")
            })?,
            Err(error) => {
                let how = format!("a leader's batches are refused: {error}");
                return Err(Broken { invariant: Invariant::LogIsAPrefix, how });
            }
        }
        stored.into_iter().for_each(|stored| self.promise.borrow_mut().note(stored));
        Ok(())
    }

    /// Another leader is elected, whose log went another way from some offset on.
    pub async fn truncate(&self) -> Kept {
        let (start, end) = (self.log.start().value(), self.promise.borrow().end());
        let from = if self.random.chance(1, 2) { end - (end - start.min(end)) / 3 } else { start };
        // What was compacted is committed, and no leader lacks it.
        let from = from.max(self.promise.borrow().compacted);
        let to = self.random.between(from, end.max(from) + 1);
        self.promise.borrow_mut().taking_back = Some(TakingBack::From(to));
        let truncated = self.log.truncate_to(Offset::new(to)).await;
        let mut promise = self.promise.borrow_mut();
        promise.epoch += 1;
        match truncated {
            Ok(at) => {
                promise.truncated(to, self.log.start().value());
                let same = at.value() == promise.end() && self.log.end() == at;
                ensure(same, Invariant::TruncatesToTheBatch, || {
                    format!("{to} gave {at} instead of {}, it ended at {end}", promise.end())
                })?;
                let durable = (self.log.written().value(), self.log.synced().value());
                ensure(durable == (at.value(), at.value()), Invariant::AckedIsNeverLost, || {
                    format!("truncated to {at}, durable up to {durable:?}")
                })?;
                promise.check_epochs(&self.log)
            }
            Err(error) => self.on_refused(&mut promise, error),
        }
    }

    /// The leader's log starts somewhere else.
    pub async fn restart(&self) -> Kept {
        let (start, end) = (self.log.start().value(), self.promise.borrow().end());
        let mut to = match self.random.below(3) {
            0 => end + self.random.between(1, 100),
            1 => self.random.between(start, end.max(start)),
            _ => self.random.below(start + 1),
        };
        if to == end {
            to += 1;
        }
        self.promise.borrow_mut().taking_back = Some(TakingBack::All { at: to });
        let restarted = self.log.restart_at(Offset::new(to)).await;
        let mut promise = self.promise.borrow_mut();
        promise.epoch += 1;
        match restarted {
            Ok(()) => {
                promise.begin_at(to);
                let empty = (self.log.start().value(), self.log.end().value()) == (to, to);
                ensure(empty, Invariant::TruncatesToTheBatch, || {
                    format!("restarted at {to}: {}..{}", self.log.start(), self.log.end())
                })
            }
            Err(error) => self.on_refused(&mut promise, error),
        }
    }

    fn on_refused(&self, promise: &mut crate::promise::Promise, error: TruncateError) -> Kept {
        if self.log.is_open() {
            // It is as it was; somebody may have deleted beyond the offset meanwhile.
            promise.taking_back = None;
            let right = matches!(error, TruncateError::BelowStart { .. });
            return ensure(right, Invariant::TruncatesToTheBatch, || error.to_string());
        }
        Ok(())
    }
}
