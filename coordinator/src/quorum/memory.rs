//! What the committed entries are for: a machine's memory, and openraft's hold on it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use engine::env::Env;
use engine::ids::Offset;
use engine::wait::Watch;
use futures_lite::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::mutant::Mutant;
use super::snapshots::{Snapshot, Snapshots, end_of};
use super::types::{Entry, LogId, Payload, SnapshotMeta, StoredMembership, Types};

/// What a memory was at one moment; called, it turns that into bytes.
pub type Picture = Box<dyn FnOnce() -> Vec<u8>>;

/// A machine's memory, in the hands of the quorum. Shared: whoever drives the machine looks at it.
pub trait Memory: 'static {
    /// Takes in the records of the entry at offset `at`, the next one: all entries come, in order,
    /// also those without records. They are committed. An error ends the quorum on this node.
    fn apply(&self, at: Offset, records: &[Vec<u8>]) -> Result<(), String>;

    /// What it is now, to be turned into bytes later and elsewhere.
    fn picture(&self) -> Picture;

    /// Becomes what `bytes`, another's picture, say: every entry below `end` is in there.
    fn restore(&self, bytes: &[u8], end: Offset) -> Result<(), String>;
}

/// openraft's state machine: it keeps count, the [`Memory`] remembers.
pub(super) struct Applier<E: Env, S: Memory> {
    memory: Rc<S>,
    snapshots: Snapshots<E>,
    state: Rc<State>,
    mutant: Option<Mutant>,
}

/// How far it has come, for all who look.
#[derive(Default)]
pub(super) struct State {
    pub last: RefCell<Option<LogId>>,
    membership: RefCell<StoredMembership>,
    /// Index of the next entry that is applied.
    pub applied: Watch,
    /// Index below which everything was taken in as a snapshot. What the log still has from below
    /// it need not be what was committed: openraft lets go of it only afterwards.
    pub restored: Cell<u64>,
    /// A snapshot that was read at the start, until it has been taken in.
    pub found: RefCell<Option<Snapshot>>,
    /// A snapshot that was written, until openraft knows.
    taken: RefCell<Option<Snapshot>>,
}

impl State {
    /// Nothing is applied yet.
    pub fn begin(found: Option<Snapshot>) -> State {
        State { found: RefCell::new(found), ..State::default() }
    }

    /// What a snapshot that is taken now is of.
    fn meta(&self) -> SnapshotMeta {
        let last_membership = self.membership.borrow().clone();
        SnapshotMeta { last_log_id: *self.last.borrow(), last_membership }
    }

    /// The membership that is committed.
    pub fn membership(&self) -> StoredMembership {
        self.membership.borrow().clone()
    }
}

impl<E: Env, S: Memory> Applier<E, S> {
    pub fn new(
        memory: &Rc<S>,
        snapshots: &Snapshots<E>,
        state: &Rc<State>,
        mutant: Option<Mutant>,
    ) -> Applier<E, S> {
        Applier {
            memory: memory.clone(),
            snapshots: snapshots.clone(),
            state: state.clone(),
            mutant,
        }
    }

    fn take_in(&self, entry: &Entry) -> io::Result<()> {
        let id = entry.log_id;
        if self.mutant != Some(Mutant::ApplyUncommitted) {
            apply_to(&*self.memory, entry)?;
        }
        if let Payload::Membership(membership) = &entry.payload {
            let stored = StoredMembership::new(Some(id), membership.clone());
            *self.state.membership.borrow_mut() = stored;
        }
        *self.state.last.borrow_mut() = Some(id);
        self.state.applied.raise(id.index + 1);
        Ok(())
    }
}

/// Gives a memory what an entry holds.
pub(super) fn apply_to<S: Memory>(memory: &S, entry: &Entry) -> io::Result<()> {
    let at = Offset::new(entry.log_id.index);
    let records: &[Vec<u8>] = match &entry.payload {
        Payload::Normal(decided) => &decided.records,
        Payload::Blank | Payload::Membership(_) => &[],
    };
    memory.apply(at, records).map_err(|why| io::Error::other(format!("entry {at}: {why}")))
}

impl<E: Env, S: Memory> RaftStateMachine<Types> for Applier<E, S> {
    type SnapshotData = Rc<[u8]>;
    type SnapshotBuilder = Taken<E>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = &self.state;
        Ok((*state.last.borrow(), state.membership.borrow().clone()))
    }

    async fn apply<T>(&mut self, mut entries: T) -> io::Result<()>
    where
        T: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.take_in(&entry)?;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    /// One that was taken ([`photograph`]) waits to be told; openraft takes none unasked, unless
    /// it needs one at once.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Taken<E>> {
        let taken = self.state.taken.take();
        if taken.is_none() && !force {
            return None;
        }
        let (snapshots, memory) = (self.snapshots.clone(), self.memory.picture());
        let meta = self.state.meta();
        Some(Taken { snapshots, taken, now: Some((meta, memory)) })
    }

    async fn get_snapshot_builder(&mut self) -> Taken<E> {
        self.try_create_snapshot_builder(true).await.expect("a forced one is made")
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Rc<[u8]>) -> io::Result<()> {
        // At a start it comes from the device.
        if self.state.found.borrow().as_ref().is_none_or(|found| found.meta != *meta) {
            self.snapshots.save(meta, &body).await?;
        }
        let end = end_of(meta);
        self.memory.restore(&body, Offset::new(end)).map_err(io::Error::other)?;
        *self.state.membership.borrow_mut() = meta.last_membership.clone();
        *self.state.last.borrow_mut() = meta.last_log_id;
        if self.mutant != Some(Mutant::ShowReplaced) {
            self.state.restored.set(end);
        }
        self.state.applied.raise(end);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let found = self.state.found.borrow().clone();
        let snapshot = match found {
            Some(found) => Some(found),
            None => self.snapshots.newest().await?,
        };
        Ok(snapshot.map(|snapshot| RaftSnapshot { meta: snapshot.meta, snapshot: snapshot.body }))
    }
}

type RaftSnapshot = openraft::type_config::alias::SnapshotOf<Types, Rc<[u8]>>;

/// Takes a snapshot and writes it. It is not openraft's to do, because a device that is full must
/// not end the quorum: the log holds everything.
pub(super) async fn photograph<E: Env, S: Memory>(
    memory: &S,
    state: &State,
    snapshots: &Snapshots<E>,
) -> io::Result<()> {
    let (meta, picture) = (state.meta(), memory.picture());
    let body: Rc<[u8]> = picture().into();
    snapshots.save(&meta, &body).await?;
    tracing::info!(end = end_of(&meta), "took a snapshot of the metadata");
    *state.taken.borrow_mut() = Some(Snapshot { meta, body });
    Ok(())
}

/// What openraft calls the builder of a snapshot: it has been built already, as a rule.
pub(super) struct Taken<E: Env> {
    snapshots: Snapshots<E>,
    taken: Option<Snapshot>,
    now: Option<(SnapshotMeta, Picture)>,
}

impl<E: Env> RaftSnapshotBuilder<Types> for Taken<E> {
    type SnapshotData = Rc<[u8]>;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        if let Some(Snapshot { meta, body }) = self.taken.take() {
            return Ok(RaftSnapshot { meta, snapshot: body });
        }
        let (meta, picture) = self.now.take().expect("a builder builds one snapshot");
        let body: Rc<[u8]> = picture().into();
        self.snapshots.save(&meta, &body).await?;
        Ok(RaftSnapshot { meta, snapshot: body })
    }
}
