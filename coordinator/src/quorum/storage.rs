//! openraft's view of the log and the vote.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::rc::Rc;

use engine::env::Env;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::facts::Facts;
use super::log::Entries;
use super::types::{Entry, LogId, Types, Vote};

/// Most records of one answer to a reader, in bytes; one entry may be more.
const READ_BYTES: usize = 1 << 20;

/// Who is shown entries before they are committed.
pub(super) type Early = Rc<dyn Fn(&Entry)>;

/// The log and the facts of a voter.
pub(super) struct Storage<E: Env> {
    pub log: Entries<E>,
    pub facts: Facts<E>,
    /// Shown each entry when it is appended (a bug on purpose).
    pub early: Option<Early>,
}

impl<E: Env> Clone for Storage<E> {
    fn clone(&self) -> Self {
        let (log, facts) = (self.log.clone(), self.facts.clone());
        Storage { log, facts, early: self.early.clone() }
    }
}

impl<E: Env> RaftLogReader<Types> for Storage<E> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.log.read(start..end))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.facts.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries = self.log.read(start..end);
        let mut bytes = 0;
        let fitting = entries.iter().take_while(|entry| {
            let fits = bytes < READ_BYTES;
            if let openraft::EntryPayload::Normal(decided) = &entry.payload {
                bytes += decided.bytes();
            }
            fits
        });
        let fitting = fitting.count();
        entries.truncate(fitting);
        Ok(entries)
    }
}

impl<E: Env> RaftLogStorage<Types> for Storage<E> {
    type LogReader = Storage<E>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState { last_purged_log_id: self.facts.purged(), last_log_id: self.log.last() })
    }

    async fn get_log_reader(&mut self) -> Storage<E> {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        // In the order of the calls: a quorum that has voted and does not know its first membership
        // would be stuck.
        self.log.settle().await?;
        self.facts.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.facts.note_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // More may have been committed elsewhere than is durable here.
        let (committed, end) = (self.facts.committed(), self.log.end());
        Ok(committed.filter(|committed| committed.index < end))
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry>,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(early) = &self.early {
            entries.iter().for_each(|entry| early(entry));
        }
        self.log.append(entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate(last.map_or(0, |last| last.index + 1)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge(upto).await
    }
}
