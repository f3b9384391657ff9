//! What was promised to clients, and whether it is kept. Knows nothing of how brokers work.
//!
//! A promise has a class. *Written*: it holds while the machine has power and its disk works; what
//! acks=1 gives, and acks=all where `flush.messages` is raised. *Synced*: it holds for good; what
//! acks=all gives by default, and whatever was read from such a topic.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use engine::time::Instant;

/// What must always hold.
#[allow(dead_code)] // two suites share it, and each checks some
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// What was acknowledged is there, at its offset, within its class.
    AckedIsNeverLost,
    /// What was read is there, at its offset, within its class.
    ReadIsNeverLost,
    /// A batch of an idempotent producer is there once, and none before it is missing; any other
    /// batch is there at most once for each time that it was sent.
    NoDuplicateSequence,
    /// Offsets have no gaps.
    OffsetsContiguous,
    /// Nothing is read that is not committed.
    NoReadAboveWatermark,
    /// The high watermark never falls, within its class.
    MonotonicWatermark,
    /// Answers come in the order of the requests, each once.
    AnswersInRequestOrder,
    /// Batches that came by one connection are in the order in which they were sent.
    ConnectionOrder,
    /// A Fetch is answered with less than its least bytes only when its time is up.
    LongPollsWait,
    /// An error is one that a client can do something about, given what happened.
    ErrorsHaveCauses,
    /// When nothing is wrong any more, everything is acknowledged soon.
    EverythingIsAcknowledged,
    /// In a cluster: two never lead a partition in one epoch.
    OneLeaderPerEpoch,
    /// In a cluster: whatever a coordinator shows is what all of them have decided, in order.
    ImageIsPrefixOfMetadataLog,
    /// In a cluster: replicas in sync have the same bytes.
    LogMatching,
    /// In a cluster: the checker of client histories finds nothing.
    HistoryIsClean,
    /// In a cluster: a topic whose creation was acknowledged stays.
    TopicsStay,
    /// Of a group: a partition is nobody else's while it is somebody's.
    OneOwnerPerGeneration,
    /// Of a group: what was acknowledged is what is told, until something else is committed.
    CommittedOffsetsNeverRegress,
    /// Of a group: nothing is acknowledged to a generation that is over.
    OldGenerationsAreFenced,
    /// Of a group: a member's epoch only grows while it is one.
    EpochsNeverRegress,
    /// Of a group: nothing is taken for read that no member was given.
    AtLeastOnce,
    /// Of a group: when nothing is wrong any more, it is stable soon, and reads and commits all.
    GroupsSettle,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Broken(pub Invariant, pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0, self.1)
    }
}

pub type Kept<T = ()> = Result<T, Broken>;

pub fn broken<T>(invariant: Invariant, how: impl Into<String>) -> Kept<T> {
    Err(Broken(invariant, how.into()))
}

/// Which record this is: no two are sent with the same. Stands at the beginning of its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tag {
    pub producer: u32,
    /// Which connection of that producer sent it first.
    pub line: u32,
    pub number: u32,
}

impl Tag {
    pub fn bytes(self) -> [u8; 12] {
        let [a, b, c] = [self.producer, self.line, self.number].map(u32::to_be_bytes);
        [a, b, c].concat().try_into().expect("three words")
    }

    pub fn read(value: &[u8]) -> Option<Tag> {
        let word = |at: usize| Some(u32::from_be_bytes(*value.get(at..)?.first_chunk()?));
        Some(Tag { producer: word(0)?, line: word(4)?, number: word(8)? })
    }
}

/// A topic of the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// 0: synced before it is acknowledged to acks=all; 1: written.
    pub topic: usize,
    pub partition: i32,
}

impl Place {
    fn is_synced(self) -> bool {
        self.topic == 0
    }
}

/// One partition, as far as clients know.
#[derive(Default)]
struct Known {
    /// Records at offsets at which they have to stay, and how that is known.
    records: BTreeMap<u64, (Tag, Invariant)>,
    /// Below this nothing may ever be lost.
    synced_end: u64,
    /// Largest high watermark that was told.
    watermark: u64,
}

/// The state of the world that promises depend on, and the notes of what happened.
pub struct Oracle {
    known: RefCell<BTreeMap<Place, Known>>,
    /// How often what was only written may have been lost.
    losses: Cell<u64>,
    found: RefCell<Option<Broken>>,
    /// Whether events are printed.
    is_shown: bool,
    /// Over all events.
    events_hash: Cell<u64>,
    pub acked: Cell<u64>,
    pub read: Cell<u64>,
}

/// When something was asked: what is answered may be older than a loss since then.
#[derive(Clone, Copy)]
pub struct Asked(u64);

impl Oracle {
    pub fn new(is_shown: bool) -> Oracle {
        Oracle {
            known: RefCell::default(),
            losses: Cell::new(0),
            found: RefCell::new(None),
            is_shown,
            events_hash: Cell::new(0xcbf2_9ce4_8422_2325),
            acked: Cell::new(0),
            read: Cell::new(0),
        }
    }

    /// Writes down what happened, as one aligned line.
    pub fn event(&self, at: Instant, who: &str, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} s  {who:<10} {what}", at.nanos() as f64 / 1e9);
        let hash = line.bytes().fold(self.events_hash.get(), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.events_hash.set(hash);
        if self.is_shown {
            println!("{line}");
        }
    }

    pub fn events_hash(&self) -> u64 {
        self.events_hash.get()
    }

    /// Somebody found a broken promise; the first one counts.
    pub fn report(&self, broken: Broken) {
        self.found.borrow_mut().get_or_insert(broken);
    }

    pub fn verdict(&self) -> Kept {
        self.found.borrow().clone().map_or(Ok(()), Err)
    }

    /// Taken when something is asked.
    pub fn asked(&self) -> Asked {
        Asked(self.losses.get())
    }

    /// The power was cut or the device has failed: what was only written may be lost.
    pub fn on_loss(&self) {
        self.losses.set(self.losses.get() + 1);
        for known in self.known.borrow_mut().values_mut() {
            known.records.split_off(&known.synced_end);
            known.watermark = known.watermark.min(known.synced_end);
        }
    }

    /// A batch was acknowledged. `synced`: the producer had asked for acks=all.
    pub fn on_ack(&self, at: Place, asked: Asked, acks_all: bool, base: u64, tags: &[Tag]) -> Kept {
        self.acked.set(self.acked.get() + tags.len() as u64);
        let for_good = acks_all && at.is_synced();
        if !for_good && asked.0 != self.losses.get() {
            return Ok(());
        }
        for (offset, &tag) in (base..).zip(tags) {
            self.note(at, offset, tag, Invariant::AckedIsNeverLost)?;
        }
        if for_good {
            self.keep(at, base + tags.len() as u64);
        }
        Ok(())
    }

    /// A record was read.
    pub fn on_read(&self, at: Place, asked: Asked, offset: u64, tag: Tag) -> Kept {
        self.read.set(self.read.get() + 1);
        if !at.is_synced() && asked.0 != self.losses.get() {
            return Ok(());
        }
        self.note(at, offset, tag, Invariant::ReadIsNeverLost)?;
        if at.is_synced() {
            self.keep(at, offset + 1);
        }
        Ok(())
    }

    fn keep(&self, at: Place, end: u64) {
        let mut known = self.known.borrow_mut();
        let known = known.entry(at).or_default();
        known.synced_end = known.synced_end.max(end);
    }

    fn note(&self, at: Place, offset: u64, tag: Tag, how: Invariant) -> Kept {
        let mut known = self.known.borrow_mut();
        let records = &mut known.entry(at).or_default().records;
        match records.get(&offset) {
            Some((there, how)) if *there != tag => {
                broken(*how, format!("{at:?} has {tag:?} at {offset}, where {there:?} was"))
            }
            Some((_, Invariant::AckedIsNeverLost)) => Ok(()),
            _ => {
                records.insert(offset, (tag, how));
                Ok(())
            }
        }
    }

    /// The largest watermark that was told of a partition: what is asked now may not be below.
    pub fn watermark(&self, at: Place) -> u64 {
        self.known.borrow().get(&at).map_or(0, |known| known.watermark)
    }

    /// A watermark was told in answer to what was asked when `before` was the largest.
    pub fn on_watermark(&self, at: Place, asked: Asked, before: u64, told: u64) -> Kept {
        if asked.0 != self.losses.get() {
            // Of a synced topic it may not have fallen, but the answer may be from before the loss.
            return Ok(());
        }
        if told < before {
            let how = format!("{at:?} has high watermark {told}, and had {before}");
            return broken(Invariant::MonotonicWatermark, how);
        }
        let mut known = self.known.borrow_mut();
        let known = known.entry(at).or_default();
        known.watermark = known.watermark.max(told);
        if at.is_synced() {
            known.synced_end = known.synced_end.max(told);
        }
        Ok(())
    }

    /// Whether a reader at `offset` may be told that the log does not reach so far.
    pub fn may_be_short_of(&self, at: Place, asked: Asked, offset: u64) -> bool {
        let lost = asked.0 != self.losses.get();
        let known = self.known.borrow();
        let known_end = known.get(&at).map_or(0, |known| known.watermark.max(known.synced_end));
        lost && !at.is_synced() || offset > known_end
    }

    /// Compares a whole log, read when all was well again, with everything that was promised.
    pub fn check_log(&self, at: Place, log: &WholeLog) -> Kept {
        let known = self.known.borrow();
        let nothing = Known::default();
        let known = known.get(&at).unwrap_or(&nothing);
        for (&offset, &(tag, how)) in &known.records {
            match log.records.get(offset as usize) {
                Some(&there) if there == tag => {}
                there => {
                    let how_it_is = format!("{at:?} has {there:?} at {offset}, where {tag:?} was");
                    return broken(how, how_it_is);
                }
            }
        }
        if (log.records.len() as u64) < known.synced_end {
            let how = format!("{at:?} ends at {}, not {}", log.records.len(), known.synced_end);
            return broken(Invariant::AckedIsNeverLost, how);
        }
        log.check_order(at)
    }
}

/// Everything that is in a partition.
#[derive(Default)]
pub struct WholeLog {
    /// By offset.
    pub records: Vec<Tag>,
    /// Producer id, first sequence and number of records of each batch that has one.
    pub sequences: Vec<(i64, i32, u32)>,
}

impl WholeLog {
    fn check_order(&self, at: Place) -> Kept {
        let mut once = BTreeSet::new();
        let mut last = BTreeMap::new();
        for (offset, tag) in self.records.iter().enumerate() {
            if !once.insert(*tag) {
                let how = format!("{at:?} has {tag:?} twice, again at {offset}");
                return broken(Invariant::NoDuplicateSequence, how);
            }
            let before = last.insert((tag.producer, tag.line), tag.number);
            if before.is_some_and(|before| before > tag.number) {
                let how = format!("{at:?} has {tag:?} at {offset} behind number {before:?}");
                return broken(Invariant::ConnectionOrder, how);
            }
        }
        let mut next = BTreeMap::new();
        for &(producer, sequence, count) in &self.sequences {
            let expected = next.insert(producer, sequence + count as i32).unwrap_or(0);
            if sequence != expected {
                let how = format!("{at:?}: producer {producer} has {sequence}, not {expected}");
                return broken(Invariant::NoDuplicateSequence, how);
            }
        }
        Ok(())
    }
}
