//! The entries of one voter: in memory as a whole, on the device in segments.
//!
//! ```text
//! DIR/00000000000000000000.entries    entries from that index on, frame after frame
//! DIR/00000000000000004711.entries    the last one is being appended to
//! ```
//! [`Entries::append`] puts entries into memory at once and into the hands of one task, the
//! writer, which writes whatever has come together with one synced write and then says so (group
//! commit). Cutting, letting go and making room take their turns in the same task. Memory is
//! bounded by what lies between two snapshots.
//!
//! An error of the device is final: everything after it fails, too. Only room is different: who
//! asks for it with [`Entries::reserve`] before there is an entry learns in time that the device
//! is full, and nothing has happened.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::env::{Env, Queue};
use engine::wait::Watch;
use openraft::async_runtime::OneshotSender;
use openraft::storage::IOFlushed;

use super::facts::Facts;
use super::mutant::Mutant;
use super::runtime::{World, oneshot};
use super::types::{Entry, LogId, Membership, Payload, Types};
use writer::Writer;

mod frame;
mod open;
mod writer;

pub use open::LogError;

/// Room that is always left in the segment that is being appended to, in bytes: enough for what a
/// leader appends by itself (an empty entry, a change of the membership).
const MARGIN_BYTES: u64 = 64 << 10;

/// Memberships that are remembered: openraft changes one at a time, in two steps.
const MEMBERSHIPS_MAX: usize = 64;

/// The entries. Cloning shares them.
pub(super) struct Entries<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Entries<E> {
    fn clone(&self) -> Self {
        Entries(self.0.clone())
    }
}

struct Inner<E: Env> {
    facts: Facts<E>,
    kept: RefCell<Kept>,
    commands: RefCell<VecDeque<Command>>,
    /// Rises with each command; closed when the writer is to end.
    work: Watch,
    /// Bytes of records that were appended or found, to know when a snapshot is due.
    record_bytes: Cell<u64>,
    /// Memberships that were appended, by index; they count before they are committed.
    memberships: RefCell<Vec<(u64, Membership)>>,
    mutant: Option<Mutant>,
}

/// Entries in memory.
struct Kept {
    /// Index of the first one.
    first: u64,
    entries: VecDeque<Entry>,
}

impl Kept {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn truncate(&mut self, end: u64) {
        assert!(end >= self.first, "what was let go of below {} is committed", self.first);
        self.entries.truncate((end - self.first) as usize);
    }

    fn purge(&mut self, first: u64) {
        let gone = first.saturating_sub(self.first).min(self.entries.len() as u64);
        self.entries.drain(..gone as usize);
        self.first = self.first.max(first);
    }
}

/// What the writer is to do, in order.
enum Command {
    Append {
        entries: Vec<Entry>,
        done: Option<IOFlushed<Types>>,
    },
    /// Nothing is left from this index on.
    Truncate {
        end: u64,
        done: Done,
    },
    /// Nothing is left up to and including this one.
    Purge {
        upto: LogId,
        done: Done,
    },
    /// Room for so many bytes of entries.
    Reserve {
        bytes: u64,
        done: Done,
    },
    /// Nothing; the answer says whether all is well.
    Settle {
        done: Done,
    },
}

type Done = oneshot::Sender<io::Result<()>>;

impl<E: Env> Entries<E> {
    /// Opens the log in `dir` and begins to write. The directory above exists.
    pub async fn open(
        env: &E,
        dir: &Path,
        facts: &Facts<E>,
        world: &World,
        mutant: Option<Mutant>,
    ) -> Result<Entries<E>, LogError> {
        let (writer, entries) = Writer::open(env, dir, facts, mutant).await?;
        let first = writer.first();
        let record_bytes = entries.iter().map(record_bytes).sum();
        let memberships = entries.iter().filter_map(membership).collect();
        let log = Entries(Rc::new(Inner {
            facts: facts.clone(),
            kept: Kept { first, entries: entries.into() }.into(),
            commands: RefCell::default(),
            work: Watch::new(0),
            record_bytes: Cell::new(record_bytes),
            memberships: RefCell::new(memberships),
            mutant,
        }));
        // Telling openraft that something is on the device runs its code.
        let task = world.within(log.clone().write(writer));
        env.spawn(Queue::Storage, task);
        Ok(log)
    }

    /// Index of the first entry that is kept.
    pub fn first(&self) -> u64 {
        self.0.kept.borrow().first
    }

    /// Index of the next entry.
    pub fn end(&self) -> u64 {
        self.0.kept.borrow().end()
    }

    /// The last entry's id; without any, the last one that was let go of.
    pub fn last(&self) -> Option<LogId> {
        let last = self.0.kept.borrow().entries.back().map(|entry| entry.log_id);
        last.or_else(|| self.0.facts.purged())
    }

    /// Entries of a range, as far as they are kept.
    pub fn read(&self, range: Range<u64>) -> Vec<Entry> {
        let kept = self.0.kept.borrow();
        // A snapshot from the leader may end far behind the last entry.
        let at = |index: u64| (index.clamp(kept.first, kept.end()) - kept.first) as usize;
        let (from, to) = (at(range.start), at(range.end));
        kept.entries.range(from..to.max(from)).cloned().collect()
    }

    /// The last membership that was appended, if it stands at `from` or later.
    pub fn membership(&self, from: u64) -> Option<Membership> {
        let memberships = self.0.memberships.borrow();
        memberships.last().filter(|(at, _)| *at >= from).map(|(_, membership)| membership.clone())
    }

    /// Bytes of records of the entries from `from` on.
    pub fn record_bytes_from(&self, from: u64) -> u64 {
        self.read(from..u64::MAX).iter().map(record_bytes).sum()
    }

    /// Bytes of records that were found and appended so far.
    pub fn record_bytes(&self) -> u64 {
        self.0.record_bytes.get()
    }

    /// Appends entries that follow the last one; `done` hears of it when they are durable.
    pub fn append(&self, entries: Vec<Entry>, done: IOFlushed<Types>) {
        let mut done = Some(done);
        if self.has(Mutant::AcknowledgeEarly) {
            done.take().into_iter().for_each(|done| done.io_completed(Ok(())));
        }
        let mut kept = self.0.kept.borrow_mut();
        for entry in &entries {
            assert_eq!(entry.log_id.index, kept.end(), "entries follow each other");
            kept.entries.push_back(entry.clone());
        }
        drop(kept);
        let mut memberships = self.0.memberships.borrow_mut();
        for (at, membership) in entries.iter().filter_map(membership) {
            // The last few are enough: those before them are committed.
            if memberships.len() >= MEMBERSHIPS_MAX {
                memberships.remove(0);
            }
            memberships.push((at, membership));
        }
        drop(memberships);
        let bytes: u64 = entries.iter().map(record_bytes).sum();
        self.0.record_bytes.set(self.0.record_bytes.get() + bytes);
        self.command(Command::Append { entries, done });
    }

    /// Takes back everything from index `end` on; it is gone for good when this returns.
    pub async fn truncate(&self, end: u64) -> io::Result<()> {
        self.0.kept.borrow_mut().truncate(end);
        self.0.memberships.borrow_mut().retain(|(at, _)| *at < end);
        self.ask(|done| Command::Truncate { end, done }).await
    }

    /// Lets go of everything up to and including `upto`, also if that is more than there is.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.0.kept.borrow_mut().purge(upto.index + 1);
        self.ask(|done| Command::Purge { upto, done }).await
    }

    /// Makes room for entries of so many bytes on the wire, or says that there is none.
    pub async fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.ask(|done| Command::Reserve { bytes, done }).await
    }

    /// Waits until everything that was appended before is on the device.
    pub async fn settle(&self) -> io::Result<()> {
        self.ask(|done| Command::Settle { done }).await
    }

    /// Ends the writer when it has done what it was told before.
    pub fn close(&self) {
        self.0.work.close();
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.0.mutant == Some(mutant)
    }

    fn command(&self, command: Command) {
        self.0.commands.borrow_mut().push_back(command);
        self.0.work.raise(self.0.work.value() + 1);
    }

    async fn ask(&self, command: impl FnOnce(Done) -> Command) -> io::Result<()> {
        if self.0.work.is_closed() {
            return Err(io::Error::other("the log of the quorum is closed"));
        }
        let (sender, receiver) = oneshot::channel();
        self.command(command(sender));
        match receiver.await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the log of the quorum is closed")),
        }
    }

    /// The writer's task.
    async fn write(self, mut writer: Writer<E>) {
        let mut done = 0;
        loop {
            let next = self.0.commands.borrow_mut().pop_front();
            match next {
                Some(Command::Append { entries, done: flushed }) => {
                    let (entries, flushed) = self.gather(entries, flushed);
                    let result = writer.append(&entries).await;
                    for flushed in flushed {
                        flushed.io_completed(copy(&result));
                    }
                }
                Some(Command::Truncate { end, done }) => {
                    let _ = done.send(writer.truncate(end).await);
                }
                Some(Command::Purge { upto, done }) => {
                    let _ = done.send(writer.purge(&upto).await);
                }
                Some(Command::Reserve { bytes, done }) => {
                    let _ = done.send(writer.reserve(bytes + MARGIN_BYTES).await);
                }
                Some(Command::Settle { done }) => {
                    let _ = done.send(writer.alive());
                }
                None => {
                    if self.0.work.reach(done + 1).await.is_err() {
                        return;
                    }
                    done = self.0.work.value();
                }
            }
        }
    }

    /// An append and all that wait behind it.
    fn gather(
        &self,
        mut entries: Vec<Entry>,
        flushed: Option<IOFlushed<Types>>,
    ) -> (Vec<Entry>, Vec<IOFlushed<Types>>) {
        let mut all: Vec<IOFlushed<Types>> = flushed.into_iter().collect();
        let mut commands = self.0.commands.borrow_mut();
        while let Some(Command::Append { .. }) = commands.front() {
            let Some(Command::Append { entries: more, done }) = commands.pop_front() else {
                unreachable!("it was looked at");
            };
            entries.extend(more);
            all.extend(done);
        }
        (entries, all)
    }
}

/// The membership that an entry holds.
fn membership(entry: &Entry) -> Option<(u64, Membership)> {
    match &entry.payload {
        Payload::Membership(membership) => Some((entry.log_id.index, membership.clone())),
        Payload::Blank | Payload::Normal(_) => None,
    }
}

/// Bytes of an entry's records.
fn record_bytes(entry: &Entry) -> u64 {
    match &entry.payload {
        Payload::Normal(decided) => decided.bytes() as u64,
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

/// The name of the segment that begins with entry `first`.
fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.entries"))
}
