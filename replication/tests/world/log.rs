//! A log without bytes: one record per batch, a value per record, and how far it is durable.

use engine::epochs::Epochs;
use engine::ids::{LeaderEpoch, Offset};
use replication::divergence::View;

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub epoch: LeaderEpoch,
    pub value: u64,
}

/// What an answer carries: records from an offset on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Records {
    pub base: u64,
    pub entries: Vec<Entry>,
}

/// A log on a device that may lose what is not durable.
#[derive(Clone, Default, Debug)]
pub struct ModelLog {
    pub start: u64,
    pub durable: u64,
    pub entries: Vec<Entry>,
    epochs: Epochs,
}

impl ModelLog {
    pub fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub fn view(&self) -> View<'_> {
        View {
            start: Offset::new(self.start),
            end: Offset::new(self.end()),
            durable_end: Offset::new(self.durable),
            epochs: &self.epochs,
        }
    }

    pub fn get(&self, offset: u64) -> Option<Entry> {
        self.entries.get(offset.checked_sub(self.start)? as usize).copied()
    }

    pub fn append(&mut self, entry: Entry) {
        self.epochs.assign(entry.epoch, Offset::new(self.end())).expect("few epochs");
        self.entries.push(entry);
    }

    pub fn read(&self, from: u64, count: usize) -> Vec<Entry> {
        let from = (from - self.start) as usize;
        self.entries[from..].iter().take(count).copied().collect()
    }

    /// Cuts everything from `to` on.
    pub fn truncate_to(&mut self, to: u64) {
        let to = to.clamp(self.start, self.end());
        self.entries.truncate((to - self.start) as usize);
        self.epochs.truncate_to(Offset::new(to));
        self.durable = self.durable.min(to);
    }

    /// Throws everything away and begins at `at`.
    pub fn restart_at(&mut self, at: u64) {
        *self = ModelLog { start: at, durable: at, ..ModelLog::default() };
    }

    /// Forgets what lies before `to`.
    pub fn delete_before(&mut self, to: u64) {
        if to > self.start && to <= self.durable {
            self.entries.drain(..(to - self.start) as usize);
            self.start = to;
            self.epochs.delete_before(Offset::new(to));
            if self.entries.is_empty() {
                self.epochs = Epochs::default();
            }
        }
    }
}
