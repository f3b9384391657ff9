//! Compacting a log, and what it must hold then.

use engine::batch::batches;
use engine::config::LogConfig;
use engine::env::Env;
use engine::env::sim::Random;
use engine::ids::Offset;
use engine::log::{Cleaner, Limit};
use futures_lite::future::zip;

use crate::World;
use crate::batches::Stored;
use crate::compacted::Truth;

impl World {
    pub fn make_compacting(config: &mut LogConfig, keys: u64, random: &Random) {
        if keys == 0 {
            return;
        }
        config.compacts = true;
        config.segment_bytes = random.between(1_000, 20_000);
        config.delete_retention_ms = [0, 1_000, 1 << 40][random.below(3) as usize];
        config.min_compaction_lag_ms = [0, 0, 500][random.below(3) as usize];
        config.max_compaction_lag_ms = random.chance(1, 3).then(|| random.between(1, 2_000));
        config.min_dirty_ppm = [0, 0, 500_000][random.below(3) as usize];
    }

    /// A round, perhaps with appends and reads beside it; then everything is compared.
    pub async fn compact(&mut self) {
        let bound = self.log.durable().value();
        self.compacted = self.compacted.max(bound);
        let mut cleaner = Cleaner::new(self.random.between(3, 30) as usize * 24);
        let (log, beside) = (self.log.clone(), self.random.chance(1, 2));
        let (done, ()) = zip(log.compact(&mut cleaner, Offset::new(bound)), async {
            if beside {
                self.append();
                self.env.turn().await;
                self.append();
            }
        })
        .await;
        if let Some(done) = done.unwrap() {
            assert_eq!(self.log.cleaned(), done.cleaned.max(self.log.start()));
            assert!(done.cleaned.value() <= bound, "{done:?} beyond {bound}");
            self.shrunk += done.read_bytes.saturating_sub(done.written_bytes);
        }
        self.look_again().await;
    }

    /// Reads all that is written, compares it with what was appended, and takes it over.
    async fn look_again(&mut self) {
        let (mut at, end) = (self.start, self.log.written().value());
        let mut all = Vec::new();
        while at < end {
            let limit = Limit { bytes_max: 1 << 16, bound: Offset::new(end), at_least_one: true };
            let chunk = self.log.read(Offset::new(at), limit).await.unwrap();
            assert!(chunk.next.value() > at, "stuck at {at} of {end}");
            chunk.slices.iter().for_each(|slice| all.extend_from_slice(slice));
            at = chunk.next.value();
        }
        // Retention may have been another one when a horizon was written.
        let old = self.env.wall().0;
        let (batches_of, compacted) = (&self.batches, self.compacted);
        let truth = Truth { batches: batches_of, compacted, old, partial: false };
        truth.check_all(self.start, end, &all).unwrap();
        let read = batches(&all).map(|batch| {
            let batch = batch.unwrap();
            let base = batch.base_offset().value();
            let stored = self.batches.iter().find(|stored| stored.base == base).unwrap();
            let mut scratch = Vec::new();
            let records = batch.records(&mut scratch, 1 << 24).unwrap();
            let records = records.map(|record| record.unwrap());
            let records = records.map(|record| (record.offset.value(), record.timestamp.0));
            let records = records.collect();
            Stored { bytes: batch.bytes().to_vec(), records, ..stored.clone() }
        });
        let mut visible: Vec<Stored> = read.collect();
        visible.extend(self.batches.iter().filter(|batch| batch.end > end).cloned());
        self.visible = visible;
    }
}
