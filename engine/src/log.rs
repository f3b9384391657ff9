//! One partition log on one device: [`Log`].
//!
//! ```text
//!  start            synced end     written end        end
//!    │ … segments …      │              │              │
//!    ├───────────────────┼──────────────┼──────────────┤
//!    │   survives power  │ survives the │ in memory:   │
//!    │   loss            │ process      │ frozen or    │
//!    │                   │              │ filling      │
//! ```
//! `synced ≤ written ≤ end`; all three are exclusive. Appending is synchronous: the batch is
//! copied into the tail and has its offsets when `append` returns; [`Log::written`] and
//! [`Log::synced`] tell when it has become durable. The rooms:
//! `tail` (memory), `writer` (one write in flight, group commit, roll, device errors),
//! `syncs` (what is written becomes synced), [`replicated`] (what a leader wrote elsewhere),
//! [`truncation`] (taking back the end), [`read`], [`time`] (lookups by timestamp), `cursor`
//! (walking a file), [`recovery`] and `judge` (open after a crash), [`retention`], `checkpoints`
//! (tiny facts that survive), [`compact`] (of each key the newest), `swap` (a new segment for old
//! ones), `holes` (offsets that are missing rightly), [`mutant`] (bugs on purpose).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::batch::TimestampType;
use crate::batch::{Batch, Checked, Stamp};
use crate::cache::{BlockBudget, Evict};
use crate::config::LogConfig;
use crate::env::{Env, Queue};
use crate::epochs::{Epochs, TooManyEpochs};
use crate::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::producers::{ProducerError, Producers, Verdict};
use crate::segment::{SEGMENT_BYTES_MAX, Segment};
use crate::time::{Instant, Timestamp};
use crate::wait::{Closed, Gate, Watch};

pub mod compact;
pub mod mutant;
pub mod read;
pub mod recovery;
pub mod replicated;
pub mod retention;
pub mod time;
pub mod truncation;

mod checkpoints;
mod cursor;
mod disk;
mod holes;
mod index_file;
mod judge;
mod prepare;
mod swap;
mod syncs;
mod tail;
mod writer;

pub use compact::{Cleaner, CompactError, Compacted};
pub use disk::Disk;
pub use mutant::Mutant;
pub use read::{Chunk, Limit, ReadError, Slice};
pub use recovery::{OpenError, Recovered};
pub use replicated::ReplicateError;
pub use time::Timed;
pub use truncation::TruncateError;

use checkpoints::CheckpointState;
use holes::Holes;
use tail::{Placed, Tail};

/// How far an appended batch has come, and what it survives there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Durability {
    /// In this process's memory: survives nothing.
    Memory,
    /// The device has taken it: survives the process (`kill -9`), not the power.
    Written,
    /// Flushed: survives power loss.
    Synced,
}

/// Numbers of one log that bound its memory and its recovery.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest block that is filled before it is frozen, in bytes.
    pub block_bytes_max: usize,
    /// In a log that requires `Synced`: bytes that may be written ahead of the last sync. Recovery
    /// relies on it: valid batches further than this behind a hole prove damage.
    pub unsynced_bytes_max: u64,
    /// Bytes that are zeroed ahead of small synced writes, at most; a multiple of
    /// [`BLOCK_ALIGN`](crate::env::BLOCK_ALIGN). 0: none are.
    pub zeroed_bytes_max: u64,
    /// Bytes appended after which a checkpoint is due, bounding what recovery scans.
    pub checkpoint_bytes: u64,
    /// A bug, for the test of the crash test; `None` everywhere else.
    pub mutant: Option<Mutant>,
}

impl Bounds {
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            block_bytes_max: 4 << 20,
            unsynced_bytes_max: 4 << 20,
            zeroed_bytes_max: 1 << 20,
            checkpoint_bytes: 64 << 20,
            mutant: None,
        }
    }
}

/// What every log of one shard shares.
#[derive(Clone)]
pub struct Shared {
    /// Memory of the tails.
    pub budget: BlockBudget,
    /// The device: whether it has failed.
    pub disk: Disk,
    /// Limits.
    pub bounds: Bounds,
}

/// A partition log. Cloning shares it; it lives on one shard.
pub struct Log<E: Env>(pub(crate) Rc<Inner<E>>);

impl<E: Env> Clone for Log<E> {
    fn clone(&self) -> Self {
        Log(self.0.clone())
    }
}

pub(crate) struct Inner<E: Env> {
    pub env: E,
    pub dir: PathBuf,
    pub identity: TopicPartition,
    pub shared: Shared,
    pub state: RefCell<State<E>>,
    /// One checkpoint at a time.
    pub checkpoint: Cell<CheckpointState>,
    /// How many checkpoints have ended, well or not.
    pub checkpoints_ended: Watch,
    /// Tasks that work for this log are inside.
    pub gate: Gate,
    /// For handing a weak reference to the budget.
    pub me: std::rc::Weak<Inner<E>>,
}

pub(crate) struct State<E: Env> {
    pub config: Rc<LogConfig>,
    pub status: Status,
    pub start: Offset,
    pub end: Offset,
    /// Never empty; the last one is active.
    pub segments: VecDeque<Rc<Segment<E>>>,
    pub tail: Tail<E>,
    pub epochs: Epochs,
    pub producers: Producers,
    /// Where offsets may be missing.
    pub holes: Holes,
    /// It was compacted up to here: the first dirty offset.
    pub cleaned: Offset,
    /// Replaced by new ones when appended batches are given up (no space) or truncated, so that
    /// nobody who waited for an old offset is woken by a new batch that has it.
    pub written: Watch,
    /// The end of what is frozen, and hence can be read; likewise.
    pub readable: Watch,
    pub synced: Watch,
    pub writing: bool,
    pub syncing: bool,
    /// The synced end that somebody asked for.
    pub sync_wanted: u64,
    /// Bytes of batches that were written, and how many of them are synced, since it was opened.
    pub written_bytes: u64,
    pub synced_bytes: u64,
    /// Whether a timer for `flush.ms` runs.
    pub flush_timer: bool,
    /// Appends are refused until then: the device was full.
    pub full_until: Option<Instant>,
    /// Appends are refused: the producers are being read back.
    pub replaying: bool,
    /// How often they have been.
    pub replayed: Watch,
    /// Appends are refused: the end is being taken back.
    pub truncating: bool,
    /// Somebody compacts it.
    pub compacting: bool,
    /// How often it has been truncated: what was being read meanwhile may be gone.
    pub truncations: u64,
    /// How often the writer, a sync or a truncation has come to its end.
    pub rests: Watch,
    pub counters: Counters,
}

/// Whether a log works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Open,
    /// Nothing is accepted any more; what was accepted is being written and synced.
    Closing,
    /// Its device failed; nothing is accepted any more.
    Failed,
    /// Not wanted any more; nothing is accepted, nothing is finished.
    Retired,
    Closed,
}

impl Status {
    /// Whether what was accepted is still being written and synced.
    fn is_at_work(self) -> bool {
        matches!(self, Status::Open | Status::Closing)
    }
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Device writes completed.
    pub writes: u64,
    /// Bytes in them, padding included.
    pub write_bytes: u64,
    /// Flushes, those that rode on a write included.
    pub syncs: u64,
    /// Batches appended (duplicates not counted).
    pub batches: u64,
    /// Bytes of those batches.
    pub batch_bytes: u64,
}

/// Where a batch was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base: Offset,
    /// Exclusive end: durable when the log's written or synced end has reached it.
    pub end: Offset,
    /// It had been appended before (idempotent retry); nothing was added.
    pub duplicate: bool,
    /// The time that was stamped, where the topic says LogAppendTime; otherwise
    /// [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log's device failed earlier, for good.
    #[error("the log directory failed; it takes no writes until it is replaced")]
    DiskFailed,
    /// The device is full. Later attempts may succeed; what is stored stays readable.
    #[error("no space left on the device")]
    NoSpace,
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
    /// The end of the log is being taken back; where it will be is not known yet.
    #[error("the log is being truncated")]
    Truncating,
    /// Idempotence refuses it.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The partition has had more leaders than can be remembered.
    #[error(transparent)]
    Epochs(#[from] TooManyEpochs),
}

/// While the device is full, one append in this time is let through to try again.
const FULL_RETRY: Duration = Duration::from_millis(500);

impl<E: Env> Log<E> {
    /// Appends a checked batch as leader of `epoch`: gives it the next offsets and copies it into
    /// the tail. Synchronous. `early`: somebody will wait for [`Durability::Written`] only, so the
    /// write should not be combined with a flush.
    pub fn append(
        &self,
        batch: &Checked<'_>,
        epoch: LeaderEpoch,
        early: bool,
    ) -> Result<Appended, AppendError> {
        let mut guard = self.0.state.borrow_mut();
        let state = &mut *guard;
        state.ready(&self.0.shared.disk)?;
        let stamped = state.config.timestamp_type == TimestampType::LogAppendTime;
        if let Verdict::Duplicate(written) = state.producers.check(batch)? {
            let (base, end) = (written.base_offset, written.last_offset().plus(1));
            let log_append_time = if stamped { written.timestamp } else { Timestamp::NONE };
            return Ok(Appended { base, end, duplicate: true, log_append_time });
        }
        state.retry_if_full(self.0.env.now())?;
        let base = state.end;
        state.epochs.assign(epoch, base)?;
        let (at, busy) = (Stamp { base_offset: base, leader_epoch: epoch }, state.writing);
        state.place(&self.0.env, batch, at, early, busy);
        let end = state.end;
        drop(guard);
        self.0.on_placed(batch.bytes().len());
        let log_append_time = if stamped { batch.max_timestamp() } else { Timestamp::NONE };
        Ok(Appended { base, end, duplicate: false, log_append_time })
    }

    /// First readable offset.
    pub fn start(&self) -> Offset {
        self.0.state.borrow().start
    }

    /// Log end offset: what the next record will get.
    pub fn end(&self) -> Offset {
        self.0.state.borrow().end
    }

    /// The written end, to read or to wait for. Take it in the same turn as the append whose end
    /// is awaited; it is closed when that batch is given up.
    pub fn written(&self) -> Watch {
        self.0.state.borrow().written.clone()
    }

    /// The end of what can be read, ahead of the written end: blocks are readable from the moment
    /// at which their write begins. For replicas, whose writes go on beside this one; likewise.
    pub fn readable(&self) -> Watch {
        self.0.state.borrow().readable.clone()
    }

    /// The synced end, likewise.
    pub fn synced(&self) -> Watch {
        self.0.state.borrow().synced.clone()
    }

    /// The durability that this log's configuration requires before a batch counts as committed:
    /// `Synced` where `flush.messages` is 1 (the default), `Written` where it is raised.
    pub fn required(&self) -> Durability {
        self.0.state.borrow().required()
    }

    /// The watch of [`Log::required`].
    pub fn durable(&self) -> Watch {
        let state = self.0.state.borrow();
        match state.required() {
            Durability::Synced => state.synced.clone(),
            _ => state.written.clone(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Rc<LogConfig> {
        self.0.state.borrow().config.clone()
    }

    /// Puts a new configuration in force from the next append on.
    pub fn configure(&self, config: Rc<LogConfig>) {
        let was = {
            let mut state = self.0.state.borrow_mut();
            let was = state.required();
            state.producers.set_limits(config.producer_limits());
            state.config = config;
            was
        };
        // Where `flush.messages` was lowered, what is only written must become synced.
        self.0.maybe_sync();
        if self.required() != was {
            // Recovery goes by the class that the last checkpoint names.
            self.0.start(Queue::Background, checkpoints::write_soon(self.0.strong()));
        }
    }

    /// Whether it still takes batches.
    pub fn is_open(&self) -> bool {
        self.0.state.borrow().status == Status::Open
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.0.state.borrow().counters
    }

    /// Which partition it is.
    pub fn identity(&self) -> TopicPartition {
        self.0.identity
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Bytes of batches that it holds on the device and in memory.
    pub fn size(&self) -> u64 {
        let state = self.0.state.borrow();
        state.segments.iter().map(|s| s.size.get()).sum::<u64>() + state.tail.unwritten() as u64
    }

    /// Looks at the leader epochs.
    pub fn with_epochs<T>(&self, look: impl FnOnce(&Epochs) -> T) -> T {
        look(&self.0.state.borrow().epochs)
    }

    /// Looks at the producers.
    pub fn with_producers<T>(&self, look: impl FnOnce(&Producers) -> T) -> T {
        look(&self.0.state.borrow().producers)
    }

    /// Waits until everything appended so far is synced; asks for the sync.
    pub async fn flush(&self) -> Result<(), Closed> {
        let (end, written, synced) = {
            let state = self.0.state.borrow();
            (state.end, state.written.clone(), state.synced.clone())
        };
        written.reach(end.value()).await?;
        self.0.start_sync();
        synced.reach(end.value()).await
    }

    /// Takes nothing more, gives up what is not written and tells whoever waits: the partition is
    /// not wanted any more. Afterwards [`Log::close`] waits until nothing of it is at work.
    pub fn retire(&self) {
        if self.is_open() {
            self.0.stop(Status::Retired);
        }
    }

    /// Ends the log in good order: nothing is accepted any more, everything is synced, and a
    /// checkpoint makes the next start instant. When this returns nothing of it is at work any
    /// more, so that its directory can be opened again or removed. An error says that the device
    /// failed or that the checkpoint was not written: then the next start has to scan.
    pub async fn close(&self) -> io::Result<()> {
        let status = self.0.state.borrow().status;
        let stored = match status {
            Status::Open => {
                self.0.state.borrow_mut().status = Status::Closing;
                let stored = self.settle().await;
                self.0.stop(Status::Closed);
                stored
            }
            Status::Closing => {
                // Only the end is waited for; the watch may be replaced on the way.
                while self.0.state.borrow().status == Status::Closing {
                    let synced = self.synced();
                    let _ = synced.reach(u64::MAX).await;
                }
                Ok(())
            }
            Status::Failed => Err(io::Error::other(AppendError::DiskFailed)),
            Status::Retired | Status::Closed => Ok(()),
        };
        self.0.gate.close().await;
        let released = self.0.state.borrow_mut().tail.release();
        self.0.shared.budget.on_released(released);
        stored
    }

    async fn settle(&self) -> io::Result<()> {
        // What is given up meanwhile (no space) ends the waiting, not the closing.
        while self.flush().await.is_err() {
            if self.0.state.borrow().status != Status::Closing {
                return Err(io::Error::other(AppendError::DiskFailed));
            }
        }
        let stored = self.0.checkpoint.get();
        if (stored.start, stored.end) == (self.start(), self.end()) {
            return Ok(());
        }
        self.0.write_checkpoint_next().await
    }
}

impl<E: Env> State<E> {
    /// Of a log that was just opened, ends at `end`, and has all of that on the device.
    fn opened(
        config: Rc<LogConfig>,
        (start, end): (Offset, Offset),
        tail: Tail<E>,
        segments: VecDeque<Rc<Segment<E>>>,
        (epochs, producers): (Epochs, Producers),
        (holes, cleaned): (Holes, Offset),
    ) -> State<E> {
        State {
            config,
            status: Status::Open,
            start,
            end,
            segments,
            tail,
            epochs,
            producers,
            holes,
            cleaned,
            written: Watch::new(end.value()),
            readable: Watch::new(end.value()),
            synced: Watch::new(end.value()),
            writing: false,
            syncing: false,
            sync_wanted: 0,
            written_bytes: 0,
            synced_bytes: 0,
            flush_timer: false,
            full_until: None,
            replaying: false,
            replayed: Watch::new(0),
            truncating: false,
            compacting: false,
            truncations: 0,
            rests: Watch::new(0),
            counters: Counters::default(),
        }
    }

    /// Whether batches may be looked at now.
    fn ready(&self, disk: &Disk) -> Result<(), AppendError> {
        match self.status {
            Status::Failed => return Err(AppendError::DiskFailed),
            Status::Closing | Status::Retired | Status::Closed => {
                return Err(AppendError::Closed);
            }
            Status::Open if disk.has_failed() => return Err(AppendError::DiskFailed),
            Status::Open if self.truncating => return Err(AppendError::Truncating),
            Status::Open => {}
        }
        // Without the producers a retry could not be told from a new batch.
        if self.replaying { Err(AppendError::NoSpace) } else { Ok(()) }
    }

    /// Copies a batch, whose offsets begin at the end or after a hole, into the tail, stamped with
    /// `at`. `busy`: more are likely to share its block. Then [`Inner::on_placed`].
    fn place(&mut self, env: &E, batch: &Checked<'_>, at: Stamp, early: bool, busy: bool) {
        let now = env.wall();
        if self.must_roll(batch, at.base_offset, now) {
            self.roll();
        }
        let base = at.base_offset;
        assert!(self.holes.admit(self.end, base), "batches follow each other");
        let last = base.plus(u64::from(batch.last_offset_delta()));
        let max_timestamp = batch.max_timestamp();
        let placed = Placed { base, last, at: 0, len: 0, max_timestamp };
        let producers = &mut self.producers;
        self.tail.append(env, batch.size(), placed, early, busy, |bytes| {
            batch.copy_stamped(bytes, at);
            producers.update(&Batch::first(bytes).expect("it was just stamped"), now);
        });
        self.end = last.plus(1);
        self.counters.batches += 1;
        self.counters.batch_bytes += batch.size() as u64;
        let active = self.segments.back().expect("a log has an active segment");
        if active.first_timestamp.get().is_none() {
            active.first_timestamp.set(Some(max_timestamp));
        }
    }

    /// While the device is full, one append after each pause tries; the others stay refused until
    /// it is known how that went.
    fn retry_if_full(&mut self, now: Instant) -> Result<(), AppendError> {
        match self.full_until {
            Some(until) if now < until => Err(AppendError::NoSpace),
            Some(_) => {
                self.full_until = Some(now.after(FULL_RETRY));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The writer, a sync or a truncation has come to its end.
    fn on_rest(&self) {
        self.rests.raise(self.rests.value() + 1);
    }

    pub fn required(&self) -> Durability {
        match self.config.flush_messages {
            1 => Durability::Synced,
            _ => Durability::Written,
        }
    }

    /// Whether the batch belongs into a new segment (Kafka's `LogSegment.shouldRoll`).
    fn must_roll(&self, batch: &Checked<'_>, base: Offset, now: Timestamp) -> bool {
        let active = self.segments.back().expect("a log has an active segment");
        let pos = self.tail.pos();
        if pos == 0 {
            return false;
        }
        let len = batch.bytes().len() as u64;
        let full = pos + len > self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        let last = base.plus(u64::from(batch.last_offset_delta()));
        let far = last.since(active.base) > i32::MAX as u64;
        let latest = if batch.max_timestamp().0 >= 0 { batch.max_timestamp() } else { now };
        let old = active
            .first_timestamp
            .get()
            .is_some_and(|first| latest.millis_since(first) > self.config.segment_ms_max());
        full || far || old
    }

    /// Lets the next batch begin a new segment; the writer makes its file when it gets there.
    pub fn roll(&mut self) {
        self.tail.roll(self.end);
        self.segments.push_back(Segment::new(self.end, false, 0));
    }
}

impl<E: Env> Inner<E> {
    pub fn strong(&self) -> Rc<Inner<E>> {
        self.me.upgrade().expect("a log is reached through its Rc")
    }

    /// Batches of `len` bytes were placed: tells those who count, and starts the writer if it
    /// rests.
    fn on_placed(&self, len: usize) {
        let start_writer = !std::mem::replace(&mut self.state.borrow_mut().writing, true);
        let mut checkpoint = self.checkpoint.get();
        checkpoint.bytes += len as u64;
        self.checkpoint.set(checkpoint);
        self.shared.budget.on_append(len);
        if start_writer {
            self.start(Queue::Storage, writer::run(self.strong()));
        }
    }

    /// Starts a task that works for this log; its end waits for it.
    pub fn start(&self, queue: Queue, task: impl Future<Output = ()> + 'static) {
        if let Some(pass) = self.gate.enter() {
            self.env.spawn(queue, async move {
                task.await;
                drop(pass);
            });
        }
    }

    pub fn active(&self) -> Rc<Segment<E>> {
        self.state.borrow().segments.back().expect("a log has an active segment").clone()
    }
}

impl<E: Env> Evict for Inner<E> {
    fn evict(&self, block: u64) -> Option<usize> {
        self.state.borrow_mut().tail.evict(block)
    }
}

impl<E: Env> Drop for Inner<E> {
    /// Gives back what the budget still counts for this log.
    fn drop(&mut self) {
        let tail = &mut self.state.get_mut().tail;
        let (drained, released) = tail.roll_back();
        let released = released + tail.release();
        self.shared.budget.on_drained(drained);
        self.shared.budget.on_released(released);
    }
}
