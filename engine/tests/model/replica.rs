//! What a follower does to its log: leaders' batches as they are, truncation, and a new beginning.

use std::path::Path;

use engine::batch::{Checked, check_trusted};
use engine::ids::{LeaderEpoch, Offset};
use engine::log::{Limit, ReadError, ReplicateError, TruncateError};
use engine::time::Timestamp;
use futures_lite::future::zip;

use crate::World;
use crate::batches::{Sent, Shape, Stored, split};

impl World {
    /// Some batches as a leader wrote them, from the end on.
    fn of_a_leader(&mut self) -> Vec<Stored> {
        let mut all: Vec<Stored> = Vec::new();
        for _ in 0..self.random.between(1, 6) {
            let hole = if self.holes { self.random.below(4) } else { 0 };
            let base = all.last().map_or(self.end(), |last| last.end) + hole;
            let id = self.random.below(3) as i64;
            // One batch of a producer in each answer, so that its sequence is known here.
            let first = all.iter().all(|b| b.sent.producer.is_none_or(|(other, _)| other != id));
            let producer =
                (first && self.random.chance(2, 3)).then(|| (id, self.next_sequence(id)));
            if self.random.chance(1, 6) {
                self.epoch.0 += self.random.between(1, 3) as i32;
            }
            let sent = Sent::new(Shape { producer, ..self.shape() }, &self.random);
            all.push(sent.stored(Offset::new(base), self.epoch));
        }
        all
    }

    pub async fn append_replicated(&mut self) {
        let end = self.end();
        let stored = self.of_a_leader();
        if !self.holes {
            self.expect_no_hole(&stored[0]);
        }
        let batches: Vec<Checked<'_>> =
            stored.iter().map(|stored| check_trusted(&stored.bytes).expect("whole")).collect();
        if end > 0 {
            let shifted = stored[0].sent.stored(Offset::new(end - 1), self.epoch);
            let refused = self.log.append_replicated(&[check_trusted(&shifted.bytes).unwrap()]);
            let (base, end) = (Offset::new(end - 1), Offset::new(end));
            assert_eq!(refused, Err(ReplicateError::NotContiguous { base, end }));
        }
        if let Some(latest) = self.log.with_epochs(|epochs| epochs.latest()).map(|e| e.epoch) {
            let epoch = LeaderEpoch(latest.0 - 1);
            let old = stored[0].sent.stored(Offset::new(end), epoch);
            let old = [check_trusted(&old.bytes).unwrap(), batches[0]];
            let refused = self.log.append_replicated(&old[..1]);
            assert_eq!(refused, Err(ReplicateError::OldEpoch { epoch, latest }));
        }
        assert_eq!(self.log.end().value(), end, "what is refused leaves nothing");
        let appended = self.log.append_replicated(&batches).unwrap();
        assert_eq!(appended.value(), stored.last().unwrap().end);
        drop(batches);
        stored.into_iter().for_each(|stored| self.note(stored));
        if self.keys > 0 && !self.holes && self.random.chance(1, 8) {
            self.log.admit_holes().await.unwrap();
            self.holes = true;
        }
    }

    /// A leader that leaves out offsets is refused until holes are admitted.
    fn expect_no_hole(&self, first: &Stored) {
        let (base, end) = (Offset::new(self.end() + 1), Offset::new(self.end()));
        let shifted = first.sent.stored(base, self.epoch);
        let refused = self.log.append_replicated(&[check_trusted(&shifted.bytes).unwrap()]);
        assert_eq!(refused, Err(ReplicateError::Hole { base, end }));
    }

    pub async fn truncate(&mut self) {
        let (start, end) = (self.start, self.end());
        if start > 0 {
            let asked = Offset::new(self.random.below(start));
            let refused = self.log.truncate_to(asked).await;
            assert!(matches!(refused, Err(TruncateError::BelowStart { .. })), "{refused:?}");
        }
        let durable =
            if self.random.chance(1, 2) { start.max(end - (end - start) / 4) } else { start };
        // No leader lacks what was compacted.
        let durable = durable.max(self.compacted);
        let to = self.random.between(durable, end + 2);
        let watches = [self.log.written(), self.log.synced()];
        let indexes = self.indexes();
        let (log, beside) = (self.log.clone(), self.random.chance(1, 2));
        let (truncated, ()) = zip(log.truncate_to(Offset::new(to)), async {
            if beside {
                self.read_beside().await;
            }
        })
        .await;
        self.on_truncated(to);
        assert_eq!(truncated.unwrap().value(), self.end(), "truncated to {to} in {start}..{end}");
        let fell = self.end() < end;
        let latest = self.log.with_epochs(|epochs| epochs.latest());
        assert!(latest.is_none_or(|e| e.start.value() < self.end()), "{latest:?} (KAFKA-10706)");
        assert!(watches.iter().all(|watch| watch.is_closed() == fell), "{end} fell: {fell}");
        if fell {
            self.check_no_index_is_left(&indexes);
            assert_eq!(self.log.synced().value(), self.end(), "all that is left is durable");
        }
        // Another leader goes on from here.
        self.epoch.0 += 1;
    }

    /// Saved indexes, with what they say.
    fn indexes(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let disk = self.env.node().disk();
        let indexes = disk.files().into_iter().filter(|path| path.ends_with(".index"));
        indexes.map(|path| (path.clone(), disk.bytes(Path::new(&path)))).collect()
    }

    /// A saved index is a hint that is true of the segment as it was: it goes with the cut. A
    /// checkpoint that waited for the cut may have saved another one since.
    fn check_no_index_is_left(&self, before: &[(String, Option<Vec<u8>>)]) {
        let files = self.env.node().disk().files();
        let last = files.iter().rfind(|path| path.ends_with(".log")).expect("the active one");
        let active = last.replace(".log", ".index");
        let stale = |index: &&(String, Option<Vec<u8>>)| index.0 >= active;
        let after = self.indexes();
        let left = after.iter().filter(stale).find(|index| before.contains(index));
        assert_eq!(left, None, "the last segment is {last}");
    }

    fn on_truncated(&mut self, to: u64) {
        let kept = self.batches.partition_point(|batch| batch.end <= to);
        if kept == self.batches.len() {
            return;
        }
        // What was deleted may not be read back.
        let readable = self.start.max(self.compacted);
        let readable = self.batches.partition_point(|batch| batch.base < readable);
        for (&id, of) in &self.producers {
            let first = match of.last() {
                Some(&at) if at >= kept => of[of.len().saturating_sub(5)].max(readable),
                _ => readable,
            };
            let known = self.recognised.entry(id).or_default();
            *known = first.max(*known);
        }
        self.batches.truncate(kept);
        self.visible.retain(|batch| batch.end <= to);
        self.producers.values_mut().for_each(|of| of.retain(|&at| at < kept));
        let active = |id| self.log.with_producers(|all| all.active().any(|one| one.id.0 == id));
        self.producers.retain(|&id, of| {
            let readable = of.iter().any(|&at| at >= readable);
            assert!(active(id) || !readable, "producer {id} is forgotten");
            assert!(!active(id) || !of.is_empty(), "producer {id} is remembered");
            active(id)
        });
        if self.end() < self.start {
            self.begin_at(self.start);
        }
    }

    fn begin_at(&mut self, at: u64) {
        self.batches.clear();
        self.visible.clear();
        (self.compacted, self.holes) = (0, false);
        self.producers.clear();
        self.recognised.clear();
        (self.origin, self.start) = (at, at);
    }

    pub async fn restart(&mut self) {
        let to = match self.random.below(3) {
            0 => self.end() + self.random.below(1_000),
            1 => self.random.between(self.start, self.end()),
            _ => self.random.between(0, self.start),
        };
        let (log, beside) = (self.log.clone(), self.random.chance(1, 2));
        let (restarted, ()) = zip(log.restart_at(Offset::new(to)), async {
            if beside {
                self.read_beside().await;
            }
        })
        .await;
        restarted.unwrap();
        self.begin_at(to);
        self.epoch.0 += 1;
        assert_eq!(self.log.with_epochs(|epochs| epochs.latest()), None);
        assert!(self.log.with_producers(|producers| producers.is_empty()));
    }

    /// Whoever reads while the end is taken back gets what stood there, or learns that it is gone.
    async fn read_beside(&self) {
        for _ in 0..self.random.below(6) {
            let from = self.random.between(self.start, self.end());
            let limit = Limit {
                bytes_max: self.random.between(1, 100_000) as usize,
                bound: Offset::MAX,
                at_least_one: true,
            };
            let read = match self.log.read(Offset::new(from), limit).await {
                Ok(chunk) => chunk,
                Err(ReadError::OutOfRange { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            let bytes: Vec<u8> = read.slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let first = self.visible.partition_point(|batch| batch.end <= from);
            for ((base, end, bytes), stood) in split(&bytes).iter().zip(&self.visible[first..]) {
                assert_eq!((*base, *end), (stood.base, stood.end), "from {from}");
                assert_eq!(*bytes, stood.bytes, "batch {base}..{end}");
            }
            let some = self.visible.get(first).map_or(0, |batch| batch.sent.times[0]);
            for time in [some, 0] {
                let found = self.log.find_time(Timestamp(time), Offset::MAX).await;
                assert!(found.is_ok(), "no damage is reported: {found:?}");
            }
            let _ = self.log.max_time(Offset::MAX).await.expect("no damage is reported");
        }
    }
}
