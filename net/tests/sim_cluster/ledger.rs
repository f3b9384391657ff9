//! What a group was promised: who owns what, and how far it is. Knows nothing of how brokers work.
//!
//! * **OneOwnerPerGeneration**, classic: who is told a partition in a generation is the only one in
//!   that generation. Consumer protocol: a partition is nobody else's before its owner has let it
//!   go, was told that it is fenced, or may have been taken for dead. Its session lasts from the last
//!   heartbeat that the rightful coordinator has heard. A coordinator that has been replaced
//!   and does not know it goes on answering heartbeats, as Kafka's does, and these count for
//!   nothing; so one counts from when the same broker last had something written, which only the
//!   rightful one can.
//! * **CommittedOffsetsNeverRegress**: each partition's committed offset is a register. Whoever asks
//!   is told what some commit wrote that no acknowledged one has certainly overwritten before. What
//!   is not known to be written may be told or not; but not when its generation is over. A replaced
//!   coordinator may tell old offsets (Kafka's does, too: at least once still holds), so what another
//!   broker has acknowledged binds only who led in a later epoch than that one could.
//! * **OldGenerationsAreFenced**: nothing is acknowledged to a generation when a later one was told.
//! * **AtLeastOnce**: below an offset that is committed, or told, there is no record that was not
//!   handed to a member before.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use engine::time::Instant;
use net::groups::OFFSETS_TOPIC;

use crate::oracle::{Invariant, Kept, Place, broken};
use crate::watcher::Registry;

/// How much later than others the watcher may see who leads.
const WATCHER_LAG: Duration = Duration::from_millis(1_500);

/// A commit of one partition.
struct Commit {
    offset: u64,
    generation: i32,
    sent: Instant,
    state: CommitState,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitState {
    /// Nobody knows.
    Unknown,
    /// It was refused.
    Refused,
    /// It was acknowledged: when, and by whom.
    Acked(Instant, i32),
}

/// Who has a partition, of the consumer protocol.
struct Holder {
    member: Rc<str>,
    /// When it sent the last heartbeat that was answered well …
    beat: Instant,
    /// … and who answered it.
    by: i32,
}

/// What was told of a committed offset, and would be a broken promise if it was told by whom it
/// must not have been.
struct Suspect {
    place: Place,
    /// `None`: nothing.
    told: Option<u64>,
    asked: Instant,
    by: i32,
    /// Since when `by` leads, as it said itself.
    epoch: i32,
}

/// Who told an offset, and when it was asked.
#[derive(Clone, Copy)]
pub struct Told {
    pub asked: Instant,
    pub by: i32,
    /// The epoch in which it leads, as it said itself before; `None`: it did not say that it leads.
    pub epoch: Option<i32>,
}

/// One group.
pub struct Ledger {
    pub group: &'static str,
    is_classic: bool,
    session: Duration,
    registry: Rc<Registry>,
    state: RefCell<State>,
    pub failovers: Cell<u64>,
    pub commits: Cell<u64>,
    pub assignments: Cell<u64>,
    pub fenced: Cell<u64>,
}

#[derive(Default)]
struct State {
    commits: BTreeMap<Place, Vec<Commit>>,
    /// What was handed to members: ends by starts, neither overlapping nor touching.
    delivered: BTreeMap<Place, BTreeMap<u64, u64>>,
    /// Of the classic protocol.
    owners: BTreeMap<(i32, Place), Rc<str>>,
    /// When somebody was first told an assignment of a generation.
    generations: BTreeMap<i32, Instant>,
    /// Of the consumer protocol.
    holders: BTreeMap<Place, Holder>,
    /// When the last of what a broker acknowledged to have written was sent.
    written: BTreeMap<i32, Instant>,
    suspects: Vec<Suspect>,
    server: Option<i32>,
}

/// Which commits these are.
pub type CommitIds = Vec<(Place, usize)>;

impl Ledger {
    pub fn new(
        group: &'static str,
        is_classic: bool,
        session: Duration,
        registry: Rc<Registry>,
    ) -> Ledger {
        Ledger {
            group,
            is_classic,
            session,
            registry,
            state: RefCell::default(),
            failovers: Cell::new(0),
            commits: Cell::new(0),
            assignments: Cell::new(0),
            fenced: Cell::new(0),
        }
    }

    /// Whether its members speak the classic protocol.
    pub fn is_classic(&self) -> bool {
        self.is_classic
    }

    /// How long its members may be silent.
    pub fn session(&self) -> Duration {
        self.session
    }

    /// Records were handed to a member.
    pub fn on_delivered(&self, place: Place, from: u64, to: u64) {
        let mut state = self.state.borrow_mut();
        let all = state.delivered.entry(place).or_default();
        let touching: Vec<u64> =
            all.range(..=to).filter(|(_, end)| **end >= from).map(|(start, _)| *start).collect();
        let (mut from, mut to) = (from, to);
        for start in touching {
            let end = all.remove(&start).expect("it was just seen");
            (from, to) = (from.min(start), to.max(end));
        }
        all.insert(from, to);
    }

    /// Everything below was handed to somebody.
    fn delivered(&self, place: Place) -> u64 {
        let state = self.state.borrow();
        state.delivered.get(&place).and_then(|all| all.get(&0)).copied().unwrap_or(0)
    }

    /// A commit is about to be sent.
    pub fn on_commit(
        &self,
        now: Instant,
        generation: i32,
        offsets: &[(Place, u64)],
    ) -> Kept<CommitIds> {
        let mut ids = Vec::new();
        for &(place, offset) in offsets {
            self.check_delivered(place, offset, "is to be committed")?;
            let mut state = self.state.borrow_mut();
            let commits = state.commits.entry(place).or_default();
            ids.push((place, commits.len()));
            commits.push(Commit { offset, generation, sent: now, state: CommitState::Unknown });
        }
        Ok(ids)
    }

    fn check_delivered(&self, place: Place, offset: u64, how: &str) -> Kept {
        let delivered = self.delivered(place);
        if offset > delivered {
            let group = self.group;
            let how = format!("{group}: {offset} of {place:?} {how}, {delivered} were read");
            return broken(Invariant::AtLeastOnce, how);
        }
        Ok(())
    }

    /// It is known what became of a commit.
    pub fn on_committed(&self, (place, at): (Place, usize), became: CommitState) -> Kept {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let commit = &mut state.commits.get_mut(&place).expect("it was sent")[at];
        commit.state = became;
        let CommitState::Acked(_, by) = became else { return Ok(()) };
        self.commits.set(self.commits.get() + 1);
        let written = state.written.entry(by).or_insert(commit.sent);
        *written = commit.sent.max(*written);
        if state.server.replace(by).is_some_and(|before| before != by) {
            self.failovers.set(self.failovers.get() + 1);
        }
        let mut later = state.generations.range(commit.generation + 1..);
        let over = later.rfind(|(_, told)| **told < commit.sent);
        if let Some((later, _)) = over.filter(|_| self.is_classic) {
            let how = format!(
                "{}: {} of {place:?} acknowledged to generation {}, {later} was told before",
                self.group, commit.offset, commit.generation,
            );
            return broken(Invariant::OldGenerationsAreFenced, how);
        }
        Ok(())
    }

    /// Somebody is told what is committed of a partition.
    pub fn on_told(&self, place: Place, offset: Option<u64>, told: Told) -> Kept {
        if let Some(offset) = offset {
            self.check_delivered(place, offset, "is told to be committed")?;
        }
        if let Some(how) = self.contradiction(place, offset, told.asked, |by, _| by == told.by) {
            return broken(Invariant::CommittedOffsetsNeverRegress, how);
        }
        let (asked, by) = (told.asked, told.by);
        if let Some(epoch) = told.epoch
            && self.contradiction(place, offset, asked, |_, _| true).is_some()
        {
            let suspect = Suspect { place, told: offset, asked, by, epoch };
            self.state.borrow_mut().suspects.push(suspect);
        }
        Ok(())
    }

    /// Why `told` cannot have been committed when it was `asked` for, if those commits bind that
    /// were acknowledged by whom and when `binds` says so.
    fn contradiction(
        &self,
        place: Place,
        told: Option<u64>,
        asked: Instant,
        binds: impl Fn(i32, Instant) -> bool,
    ) -> Option<String> {
        let state = self.state.borrow();
        let none = Vec::new();
        let commits = state.commits.get(&place).unwrap_or(&none);
        // Until when each commit that wrote it may have been on its way.
        let mut until: Vec<Option<Instant>> = Vec::new();
        if told.is_none() {
            until.push(Some(Instant::ZERO));
        }
        for commit in commits.iter().filter(|commit| Some(commit.offset) == told) {
            match commit.state {
                CommitState::Refused => {}
                CommitState::Acked(at, _) => until.push(Some(at)),
                CommitState::Unknown if self.is_classic => {
                    let mut later = state.generations.range(commit.generation + 1..);
                    until.push(later.next().map(|(_, told)| *told));
                }
                CommitState::Unknown => until.push(None),
            }
        }
        let overwritten = |until: Instant| {
            commits.iter().find(|commit| match commit.state {
                CommitState::Acked(at, by) => at < asked && commit.sent > until && binds(by, at),
                CommitState::Unknown | CommitState::Refused => false,
            })
        };
        let last = until.iter().copied().reduce(|one, other| Some(one?.max(other?)));
        let Some(last) = last else {
            return Some(format!("{}: {told:?} of {place:?} was never committed", self.group));
        };
        let over = overwritten(last?)?;
        Some(format!(
            "{}: {told:?} of {place:?} is told, where {} was acknowledged ({:?})",
            self.group, over.offset, over.state
        ))
    }

    /// Looks again at what could not be judged before it was known who led when.
    pub fn judge(&self) -> Kept {
        let suspects = std::mem::take(&mut self.state.borrow_mut().suspects);
        let history = self.registry.history(OFFSETS_TOPIC, self.group);
        for Suspect { place, told, asked, by, epoch } in suspects {
            let binds = |other: i32, acked: Instant| {
                let known = history.iter().take_while(|led| led.seen <= acked.after(WATCHER_LAG));
                let mut next = epoch + 1;
                other == by
                    || known.filter(|led| led.epoch > epoch).all(|led| {
                        let follows = led.epoch == next;
                        next = led.epoch + 1;
                        follows && led.leader != other
                    })
            };
            if let Some(how) = self.contradiction(place, told, asked, binds) {
                let how = format!("{how}; broker {by} led in epoch {epoch}");
                return broken(Invariant::CommittedOffsetsNeverRegress, how);
            }
        }
        Ok(())
    }

    /// A member of the classic protocol is told what it has.
    pub fn on_assigned(
        &self,
        now: Instant,
        member: &Rc<str>,
        generation: i32,
        places: &[Place],
    ) -> Kept {
        self.assignments.set(self.assignments.get() + 1);
        let state = &mut *self.state.borrow_mut();
        state.generations.entry(generation).or_insert(now);
        for &place in places {
            let owner = state.owners.entry((generation, place)).or_insert_with(|| member.clone());
            if owner != member {
                let group = self.group;
                let how = format!("{group}: {owner} and {member} have {place:?} in {generation}");
                return broken(Invariant::OneOwnerPerGeneration, how);
            }
        }
        Ok(())
    }

    /// A heartbeat of the consumer protocol was answered well.
    pub fn on_beat(&self, member: &str, sent: Instant, by: i32, wrote: bool) {
        let state = &mut *self.state.borrow_mut();
        for holder in state.holders.values_mut().filter(|holder| *holder.member == *member) {
            (holder.beat, holder.by) = (sent, by);
        }
        if wrote {
            let written = state.written.entry(by).or_insert(sent);
            *written = sent.max(*written);
        }
    }

    /// A member of the consumer protocol is told, in answer to what it sent at `sent`, that it has
    /// a partition.
    pub fn on_taken(
        &self,
        now: Instant,
        member: &Rc<str>,
        place: Place,
        sent: Instant,
        by: i32,
    ) -> Kept {
        self.assignments.set(self.assignments.get() + 1);
        let state = &mut *self.state.borrow_mut();
        let holder = Holder { member: member.clone(), beat: sent, by };
        let Some(before) = state.holders.insert(place, holder) else { return Ok(()) };
        let heard = state.written.get(&before.by).copied().unwrap_or(Instant::ZERO);
        let until = heard.min(before.beat).after(self.session);
        if before.member != *member && now < until {
            let how = format!(
                "{}: {member} is told {place:?} by {by}, which {} has until {until:?} by {}",
                self.group, before.member, before.by,
            );
            return broken(Invariant::OneOwnerPerGeneration, how);
        }
        Ok(())
    }

    /// A member has let a partition go.
    pub fn on_released(&self, member: &str, place: Place) {
        let holders = &mut self.state.borrow_mut().holders;
        if holders.get(&place).is_some_and(|holder| *holder.member == *member) {
            holders.remove(&place);
        }
    }

    /// A member was told that it is none, or in another epoch.
    pub fn on_fenced(&self, member: &str, places: &BTreeSet<Place>) {
        self.fenced.set(self.fenced.get() + 1);
        places.iter().for_each(|place| self.on_released(member, *place));
    }
}
