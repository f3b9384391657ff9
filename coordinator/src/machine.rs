//! The shape of a replicated machine: a value whose memory is a log.
//!
//! A machine has *hard* state, which only [`Machine::apply`] changes and which replaying the log
//! rebuilds, and *soft* state, which is lost when its driver ends. It decides by looking, and
//! answers with the records that would make the decision true; [`crate::runtime`] appends them,
//! applies them and lets no reply out before everything that the machine had seen is committed
//! (but for replies that speak of soft state only, [`Outcome::reply_now`]).
//! So a machine needs no rollback: whoever loses its log drops it and replays.
//!
//! Pure: no clock, no randomness, no IO. Time and random words come with each [`Moment`].

use engine::ids::Offset;
use engine::time::{Instant, Timestamp};

use crate::runtime::Mutant;

/// Who asked. The driver gives each request another; the machine only hands it back, perhaps much
/// later (a parked request).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// What the world says while a machine decides.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock; timers are set in it.
    pub now: Instant,
    /// The wall clock, for what people will read.
    pub wall: Timestamp,
    /// 128 random bits, fresh for this decision.
    pub random: [u64; 2],
}

/// A record as it stands in a log: a key and a value, either of which may be null.
pub trait Stored: Sized {
    /// Why bytes are not such a record.
    type Error: std::error::Error + 'static;

    /// The key and the value.
    fn store(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>);

    /// The record that a key and a value stand for.
    fn load(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, Self::Error>;
}

/// A deterministic machine whose memory is a log.
pub trait Machine: Sized + 'static {
    /// Its limits and defaults; the same for its whole life.
    type Config: 'static;
    /// What the log remembers. Only [`Machine::apply`] changes it.
    type Hard: Default + Clone + 'static;
    /// What may be forgotten: sessions, parked requests, timers.
    type Soft: Default + 'static;
    /// What may be asked.
    type Request: 'static;
    /// What it answers.
    type Reply: 'static;
    /// What it remembers.
    type Record: Stored + 'static;

    /// Takes up what the log remembers: sets soft state up, which is new, before anything else is
    /// decided. Called once for each soft state. By default nothing is to be done.
    fn begin(_seen: Seen<'_, Self>, _soft: &mut Self::Soft, _out: &mut Outcome<Self>) {}

    /// Whether deciding `request` may lead to records. If not, it is decided also while the log
    /// takes none.
    fn writes(_request: &Self::Request) -> bool {
        true
    }

    /// A bug on purpose of the driver, for tests that prove that they would see it. `None`
    /// everywhere else.
    fn runtime_mutant(_config: &Self::Config) -> Option<Mutant> {
        None
    }

    /// Decides one request. Neither waits nor changes hard state: what shall be remembered goes
    /// to `out.records`, answers (to this or to earlier requests) to `out.replies`.
    fn decide(
        seen: Seen<'_, Self>,
        soft: &mut Self::Soft,
        from: Token,
        request: Self::Request,
        out: &mut Outcome<Self>,
    );

    /// Lets what is due by `seen.at.now` happen.
    fn expire(seen: Seen<'_, Self>, soft: &mut Self::Soft, out: &mut Outcome<Self>);

    /// When [`Machine::expire`] wants to be called next, if at all.
    fn deadline(soft: &Self::Soft) -> Option<Instant>;

    /// Makes `record`, which stands at offset `at`, true. Cannot fail: what a log holds has been
    /// decided. Panics on a record that contradicts the state, because then this log is not the
    /// one that the machine wrote.
    fn apply(hard: &mut Self::Hard, at: Offset, record: &Self::Record);
}

/// What a machine may look at while it decides.
pub struct Seen<'a, M: Machine> {
    /// Its memory, as of everything appended so far.
    pub hard: &'a M::Hard,
    /// Its limits and defaults.
    pub config: &'a M::Config,
    /// The moment.
    pub at: Moment,
}

impl<M: Machine> Clone for Seen<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Seen<'_, M> {}

/// What a decision leads to.
pub struct Outcome<M: Machine> {
    /// To append, all or none, in this order.
    pub records: Vec<M::Record>,
    /// To send once everything seen and everything in `records` is committed.
    pub replies: Vec<(Token, M::Reply)>,
    /// To send at once. Only what is as true without the records that are not committed yet.
    pub early: Vec<(Token, M::Reply)>,
}

impl<M: Machine> Default for Outcome<M> {
    fn default() -> Self {
        Outcome { records: Vec::new(), replies: Vec::new(), early: Vec::new() }
    }
}

impl<M: Machine> Outcome<M> {
    /// Remembers one more thing.
    pub fn record(&mut self, record: M::Record) {
        self.records.push(record);
    }

    /// Answers `to`, once everything seen is committed.
    pub fn reply(&mut self, to: Token, reply: M::Reply) {
        self.replies.push((to, reply));
    }

    /// Answers `to` at once: about soft state only, such as that a session goes on. Nobody may
    /// learn from it what is not committed.
    pub fn reply_now(&mut self, to: Token, reply: M::Reply) {
        self.early.push((to, reply));
    }
}
