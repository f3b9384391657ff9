//! The driver that joins a log with this broker's role in its replication: appends, tickets, the
//! high watermark, reads below it, and the two ends of replication. With its rooms the one async
//! part of this crate: [`ticket`] (what producers wait for), [`replicate`] (what goes from leader
//! to follower), [`notices`] (who has something for somebody else).
//!
//! What changes the role and what changes the log's end by hand (truncation) take turns; everything
//! else is synchronous between two looks at the role.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::batch::Checked;
use engine::config::LogConfig;
use engine::env::{Env, Queue};
use engine::epochs::EpochEnd;
use engine::ids::{BrokerId, LeaderEpoch, Offset};
use engine::log::retention::DeleteError;
use engine::log::{AppendError, Chunk, Cleaner, CompactError, Compacted, Limit, Log};
use engine::log::{ReadError, Timed};
use engine::time::{Instant, Timestamp};
use engine::wait::Watch;
use futures_lite::future;

use crate::ask::{Ask, IsrAnswer};
use crate::config::ReplicationConfig;
use crate::divergence::View;
use crate::leader::{Acks, EpochMismatch, Leader, NotEnoughReplicas, check_epoch};
use crate::role::{Assignment, Change, PartitionEpoch, Replica};

mod newcomers;
pub mod notices;
pub mod replicate;
pub mod ticket;

pub use notices::Notices;
pub use replicate::{Accepted, FollowNews};
pub use ticket::{Commit, Lost, Ticket};

use newcomers::Newcomers;
use ticket::Reach;

/// One partition on this broker. Cloning shares it; it lives on one shard.
pub struct Partition<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Partition<E> {
    fn clone(&self) -> Self {
        Partition(self.0.clone())
    }
}

struct Inner<E: Env> {
    env: E,
    log: Log<E>,
    replica: RefCell<Replica>,
    /// Follows the role's high watermark; closed, and replaced by a new one, when a term ends or
    /// it has to fall. So whoever waits for an offset is never woken by another batch that got it.
    high_watermark: RefCell<Watch>,
    /// Set when the present term has ended; another one for each term.
    ended: RefCell<Rc<Cell<bool>>>,
    /// The log's end as the role knows it: a lower one means that batches were given up.
    known_end: Cell<Offset>,
    /// A follower's log is not where its stream believes: the position must be said anew.
    misplaced: Cell<bool>,
    /// A task is following the log's durable end.
    following: Cell<bool>,
    /// Raised at each change of the configuration.
    configured: Watch,
    newcomers: RefCell<Newcomers>,
    turn: Turn,
    notices: Notices,
}

/// Why a batch was refused. Nothing of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Too few replicas are in sync.
    #[error(transparent)]
    Replicas(#[from] NotEnoughReplicas),
    /// The log does not take it.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl<E: Env> Partition<E> {
    /// Over an opened log, without a role until the first [`Partition::assign`]. Assignments from
    /// before this broker's present registration must never be given to it: it may have led in
    /// those terms and lost their ends.
    pub fn open(
        env: &E,
        log: Log<E>,
        me: BrokerId,
        config: ReplicationConfig,
        notices: &Notices,
    ) -> Partition<E> {
        let replica = Replica::new(me, config, log.start());
        let high_watermark = Watch::new(replica.high_watermark().value());
        Partition(Rc::new(Inner {
            env: env.clone(),
            known_end: Cell::new(log.end()),
            log,
            replica: replica.into(),
            high_watermark: high_watermark.into(),
            ended: RefCell::default(),
            misplaced: Cell::new(false),
            following: Cell::new(false),
            configured: Watch::new(0),
            newcomers: RefCell::default(),
            turn: Turn::default(),
            notices: notices.clone(),
        }))
    }

    /// Takes the lead in `epoch` over an opened log, with `isr` (this broker included) for all the
    /// replicas: where nobody else decides. Opening has synced what it found, so that alone all of
    /// it is committed.
    pub fn lead(
        env: &E,
        log: Log<E>,
        me: BrokerId,
        epoch: LeaderEpoch,
        isr: &[BrokerId],
    ) -> Partition<E> {
        let config = ReplicationConfig::default();
        let partition = Partition::open(env, log, me, config, &Notices::default());
        let change = partition.0.assign(Assignment {
            leader: Some(me),
            leader_epoch: epoch,
            partition_epoch: PartitionEpoch(0),
            replicas: isr.to_vec(),
            isr: isr.to_vec(),
        });
        assert_eq!(change, Change::Leads, "a leader is in its own ISR");
        partition
    }

    /// Takes an assignment of the controller in; older ones than the newest seen change nothing.
    /// Waits while the log is being cut. Afterwards [`Partition::follow_news`] says whom to fetch
    /// from.
    pub async fn assign(&self, assignment: Assignment) -> Change {
        let _turn = self.0.turn.take().await;
        self.0.assign(assignment)
    }

    /// Appends a checked batch as leader. Synchronous: batches get their offsets in the order of
    /// the calls.
    pub fn append(&self, batch: &Checked<'_>, acks: Acks) -> Result<Ticket, Refused> {
        if let Some(producer) = batch.producer()
            && !self.0.log.with_producers(|producers| producers.knows(producer.id))
        {
            let admitted = self.0.newcomers.borrow_mut().admit(producer, self.0.env.now());
            admitted.map_err(|out_of_order| Refused::Log(out_of_order.into()))?;
        }
        self.try_append(batch, acks)
    }

    fn try_append(&self, batch: &Checked<'_>, acks: Acks) -> Result<Ticket, Refused> {
        let partition = &self.0;
        partition.notice_given_up();
        let epoch = {
            let replica = partition.replica.borrow();
            let leader = replica.leader().ok_or(Refused::NotLeader)?;
            if leader.is_spent() {
                // Until the controller has heard of it; the client tries again, perhaps elsewhere.
                return Err(Refused::Log(AppendError::NoSpace));
            }
            leader.admit(acks)?;
            leader.epoch()
        };
        let appended = partition.log.append(batch, epoch, acks == Acks::Leader)?;
        let end = partition.log.end();
        partition.known_end.set(end);
        // The high watermark does not move with it, so that nobody is to be told.
        if let Some(leader) = partition.replica.borrow_mut().leader_mut() {
            leader.on_append(end, partition.env.now());
        }
        let all = acks == Acks::All;
        let reach = (acks != Acks::None).then(|| Reach { commit: self.commit(), all });
        partition.start_following();
        Ok(Ticket { appended, log_start: partition.log.start(), reach })
    }

    /// Whether an append would be refused for the role's sake; the log may refuse it yet.
    pub fn admits(&self, acks: Acks) -> Result<(), Refused> {
        self.0.notice_given_up();
        let replica = self.0.replica.borrow();
        let leader = replica.leader().ok_or(Refused::NotLeader)?;
        if leader.is_spent() {
            return Err(Refused::Log(AppendError::NoSpace));
        }
        Ok(leader.admit(acks)?)
    }

    /// The log below.
    pub fn log(&self) -> &Log<E> {
        &self.0.log
    }

    /// The newest term that this broker has heard of.
    pub fn epoch(&self) -> LeaderEpoch {
        self.0.replica.borrow().epoch()
    }

    /// The newest version of the partition that it has heard of.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.0.replica.borrow().partition_epoch()
    }

    /// Whether this broker leads.
    pub fn is_leader(&self) -> bool {
        self.0.replica.borrow().leader().is_some()
    }

    /// Whom it follows, if it does.
    pub fn followed(&self) -> Option<BrokerId> {
        self.0.replica.borrow().follower().map(|follower| follower.leader())
    }

    /// The in-sync replicas, as far as the leader knows; nothing where this broker does not lead.
    pub fn isr(&self) -> Option<Vec<BrokerId>> {
        let replica = self.0.replica.borrow();
        Some(replica.leader()?.isr().iter().copied().collect())
    }

    /// Whether the high watermark is known as far as the log reached when the term began. Before
    /// that "the latest offset" would run backwards for a client (KIP-207: OFFSET_NOT_AVAILABLE).
    pub fn is_settled(&self) -> bool {
        self.0.replica.borrow().leader().is_none_or(Leader::is_settled)
    }

    /// Compares the epoch that a client named, if it did.
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochMismatch> {
        check_epoch(self.epoch(), asked)
    }

    /// Exclusive end of what is known here to be committed.
    pub fn high_watermark(&self) -> Offset {
        self.0.replica.borrow().high_watermark()
    }

    /// Exclusive end of what read-committed consumers see: without transactions, the high
    /// watermark.
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }

    /// The high watermark, to wait for. Closed when the term ends, when it has to fall, and when
    /// the log takes no batches any more: then look again, at another one.
    pub fn watch(&self) -> Watch {
        self.0.high_watermark.borrow().clone()
    }

    /// The end of what replicas can read, to wait for; closed like [`Partition::watch`], except
    /// with the term.
    pub fn growth(&self) -> Watch {
        self.0.log.readable()
    }

    /// Whether what is in the log now becomes committed.
    pub fn commit(&self) -> Commit {
        let ended = self.0.ended.borrow().clone();
        Commit { written: self.0.log.written(), high_watermark: self.watch(), ended }
    }

    /// Reads committed batches; `None` when the device must be asked.
    pub fn read_hot(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Option<Chunk<E>>, ReadError> {
        self.0.log.read_hot(from, self.limit(bytes_max, at_least_one))
    }

    /// Reads committed batches.
    pub async fn read(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Chunk<E>, ReadError> {
        self.0.log.read(from, self.limit(bytes_max, at_least_one)).await
    }

    fn limit(&self, bytes_max: usize, at_least_one: bool) -> Limit {
        let bound = self.0.view(|replica, view| replica.read_bound(view));
        Limit { bytes_max, bound, at_least_one }
    }

    /// The first committed record at or after a time.
    pub async fn find_time(&self, from: Timestamp) -> Result<Option<Timed>, ReadError> {
        self.0.log.find_time(from, self.high_watermark()).await
    }

    /// The committed record with the largest timestamp.
    pub async fn max_time(&self) -> Result<Option<Timed>, ReadError> {
        self.0.log.max_time(self.high_watermark()).await
    }

    /// Where an epoch ended (OffsetForLeaderEpoch): the largest epoch not above the one asked for,
    /// and its exclusive end offset.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.0.view(|replica, view| match replica.leader() {
            Some(leader) => leader.end_of(epoch, view),
            None => view.epochs.end_of(epoch, view.end),
        })
    }

    /// Deletes records below `to`, or below the high watermark if `None`; answers the new start.
    pub async fn delete_before(&self, to: Option<Offset>) -> Result<Offset, DeleteError> {
        let bound = self.high_watermark();
        self.0.log.delete_before(to.unwrap_or(bound), bound).await
    }

    /// Puts a configuration in force.
    pub fn configure(&self, config: Rc<LogConfig>) {
        let min_in_sync = config.min_insync_replicas as usize;
        self.0.log.configure(config);
        self.0.configured.raise(self.0.configured.value() + 1);
        self.0.lead_with(|leader| leader.set_min_in_sync(min_in_sync));
        self.0.start_following();
    }

    /// What the controller should be asked, if anything: look here when [`Notices`] name this
    /// partition, and once per tick (some 100 ms) for replicas that fall behind. Whatever becomes
    /// of a proposal goes to [`Partition::on_isr_answer`].
    pub fn ask(&self, now: Instant) -> Option<Ask> {
        self.0.notice_given_up();
        self.0.replica.borrow_mut().leader_mut()?.ask(now)
    }

    /// The controller's answer to attempt `attempt` of the term `epoch`.
    pub fn on_isr_answer(&self, epoch: LeaderEpoch, attempt: u64, answer: &IsrAnswer) {
        let now = self.0.env.now();
        self.0.lead_with(|leader| {
            if leader.epoch() == epoch {
                leader.on_isr_answer(attempt, answer, now);
            }
        });
    }

    /// The chores of the log.
    pub async fn tend(&self) -> Result<(), ReadError> {
        self.0.log.tend(self.high_watermark()).await
    }

    /// Compacts the log, if its settings say so and it is worth it: below the high watermark,
    /// whoever leads.
    pub async fn compact(&self, cleaner: &mut Cleaner) -> Result<Option<Compacted>, CompactError> {
        self.0.log.compact(cleaner, self.high_watermark()).await
    }

    /// Ends it at once, without waiting for anything: the topic was deleted. Whoever waits is told.
    pub fn retire(&self) {
        self.0.log.retire();
        self.watch().close();
    }

    /// Syncs and closes the log.
    pub async fn close(&self) -> std::io::Result<()> {
        let closed = self.0.log.close().await;
        self.watch().close();
        closed
    }
}

impl<E: Env> Inner<E> {
    /// The role, with the log as it stands.
    fn view<T>(&self, look: impl FnOnce(&mut Replica, &View<'_>) -> T) -> T {
        let (start, end) = (self.log.start(), self.log.end());
        let durable = Offset::new(self.log.durable().value());
        self.log.with_epochs(|epochs| {
            let view = View { start, end, durable_end: durable.min(end), epochs };
            look(&mut self.replica.borrow_mut(), &view)
        })
    }

    /// Lets the leadership do something, if there is one, and tells whoever waits.
    fn lead_with<T>(&self, act: impl FnOnce(&mut Leader) -> T) -> Option<T> {
        let done = {
            let mut replica = self.replica.borrow_mut();
            act(replica.leader_mut()?)
        };
        self.tell();
        Some(done)
    }

    fn assign(self: &Rc<Self>, assignment: Assignment) -> Change {
        self.notice_given_up();
        let min_in_sync = self.log.config().min_insync_replicas as usize;
        let now = self.env.now();
        let epoch = assignment.leader_epoch;
        let change =
            self.view(|replica, view| replica.on_assignment(assignment, view, min_in_sync, now));
        match change {
            Change::Ignored => return change,
            Change::Version => {}
            Change::Leads | Change::Follows { .. } | Change::Stands => {
                tracing::info!(id = %self.log.identity(), %epoch, ?change, "new term");
                self.known_end.set(self.log.end());
                self.ended.replace(Rc::default()).set(true);
                let high_watermark = self.replica.borrow().high_watermark().value();
                self.high_watermark.replace(Watch::new(high_watermark)).close();
            }
        }
        self.misplaced.set(self.replica.borrow().follower().is_some());
        self.notices.note(self.log.identity());
        self.tell();
        self.start_following();
        change
    }

    /// The watch follows the role; a leader with something to ask is noted.
    fn tell(&self) {
        let (high_watermark, asks) = {
            let replica = self.replica.borrow();
            let due = replica.leader().and_then(Leader::deadline);
            let now = self.env.now();
            (replica.high_watermark().value(), due.is_some_and(|at| at <= now))
        };
        if asks {
            self.notices.note(self.log.identity());
        }
        let watch = self.high_watermark.borrow().clone();
        if high_watermark < watch.value() {
            self.high_watermark.replace(Watch::new(high_watermark)).close();
        } else {
            watch.raise(high_watermark);
        }
    }

    /// The log may have given up batches (no space). That must be known before others are appended
    /// in their place.
    fn notice_given_up(&self) {
        let end = self.log.end();
        if end >= self.known_end.replace(end) {
            return;
        }
        {
            let mut replica = self.replica.borrow_mut();
            if let Some(leader) = replica.leader_mut() {
                leader.on_given_up(end);
            }
            if let Some(follower) = replica.follower_mut()
                && !follower.is_truncating()
            {
                follower.on_given_up(end);
                self.misplaced.set(true);
            }
        }
        self.notices.note(self.log.identity());
        self.tell();
    }

    fn on_durable(&self) {
        self.notice_given_up();
        let end = Offset::new(self.log.durable().value());
        if self.lead_with(|leader| leader.on_durable(end)).is_none() {
            // A follower has something to promise.
            self.notices.note(self.log.identity());
        }
    }
}

impl<E: Env> Inner<E> {
    fn start_following(self: &Rc<Self>) {
        let behind = self.log.durable().value() < self.log.end().value();
        if behind && !self.following.replace(true) {
            self.env.spawn(Queue::Request, follow(self.clone()));
        }
    }
}

/// Follows the log's durable end until everything appended is durable. Ends then, so that an idle
/// partition has no task.
async fn follow<E: Env>(partition: Rc<Inner<E>>) {
    loop {
        let durable = partition.log.durable();
        let before = durable.value();
        if before >= partition.log.end().value() {
            partition.following.set(false);
            return partition.on_durable();
        }
        let configured = partition.configured.value();
        let reconfigured = async {
            let _ = partition.configured.reach(configured + 1).await;
            Ok(())
        };
        let reached = future::or(durable.reach(before + 1), reconfigured).await;
        // Asked anew: the class that counts may have changed with the configuration.
        partition.on_durable();
        // Closed: batches were given up, and the log goes on with a new watch; or it is at its end.
        if reached.is_err() && !partition.log.is_open() {
            partition.high_watermark.borrow().close();
            partition.following.set(false);
            return;
        }
    }
}

/// Who may change the role, or the log by hand: one at a time.
#[derive(Default)]
struct Turn {
    taken: Cell<bool>,
    /// Raised when it is given back.
    ends: Watch,
}

struct Taken<'a>(&'a Turn);

impl Turn {
    async fn take(&self) -> Taken<'_> {
        while self.taken.replace(true) {
            // This watch is never closed.
            let _ = self.ends.reach(self.ends.value() + 1).await;
        }
        Taken(self)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.ends.raise(self.0.ends.value() + 1);
    }
}
