//! The driver of the controller on the quorum.
//!
//! While this node leads, it decides one entry at a time: it takes the requests that wait, decides
//! them in order against the committed state and what it has just decided, appends what comes of
//! all of them as *one* entry, and answers when that is committed and applied. Requests that come
//! meanwhile wait for the next entry; that is the group commit. So nothing speculative outlives an
//! entry, and losing the lead means only to tell those who wait.
//!
//! Timers run on the node that leads, and nowhere else.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use engine::env::{Env, Queue};
use engine::ids::Offset;
use engine::time::Instant;
use engine::wait::Watch;
use futures_lite::future;

use super::published::Published;
use crate::config::{BATCH_BYTES_MAX, Config, REQUESTS_WAITING_MAX};
use crate::controller::{Controller, Reply, Request};
use crate::journal;
use crate::machine::{Machine, Moment, Outcome, Seen, Token};
use crate::quorum::types::Decided;
use crate::quorum::{Changes, ProposeError, Quorum, Turn};
use crate::runtime::{Answer, RequestError};

/// Bytes of records after which an entry takes no more requests.
const ENTRY_BYTES: usize = 1 << 20;

type Soft = <Controller as Machine>::Soft;

/// The driver. Cloning shares it.
pub(super) struct Control<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Control<E> {
    fn clone(&self) -> Self {
        Control(self.0.clone())
    }
}

struct Inner<E: Env> {
    env: E,
    quorum: Quorum<E, Published>,
    published: Rc<Published>,
    config: Config,
    next_token: Cell<u64>,
    /// Requests that are not decided yet.
    asked: RefCell<VecDeque<(Token, Request)>>,
    /// Requests without their answer, those among them.
    waiting: RefCell<BTreeMap<Token, Slot>>,
    /// Rises with each request; closed when this ends.
    work: Watch,
}

/// Where a request waits for its answer.
enum Slot {
    Open(Option<Waker>),
    Filled(Result<Answer<Reply>, RequestError>),
}

/// What comes of the requests that were taken together.
struct Batch {
    records: Vec<Vec<u8>>,
    bytes: usize,
    replies: Vec<(Token, Reply)>,
    /// Whose requests these were.
    tokens: Vec<Token>,
}

impl<E: Env> Control<E> {
    /// Begins to drive.
    pub fn begin(
        env: &E,
        quorum: &Quorum<E, Published>,
        published: &Rc<Published>,
        config: Config,
    ) -> Control<E> {
        let control = Control(Rc::new(Inner {
            env: env.clone(),
            quorum: quorum.clone(),
            published: published.clone(),
            config,
            next_token: Cell::new(0),
            asked: RefCell::default(),
            waiting: RefCell::default(),
            work: Watch::new(0),
        }));
        env.spawn(Queue::Request, control.clone().run());
        control
    }

    /// Asks the controller, and waits until its answer may be told.
    pub async fn request(&self, request: Request) -> Result<Answer<Reply>, RequestError> {
        let inner = &self.0;
        if inner.work.is_closed() {
            return Err(RequestError::Ended("stopped".into()));
        }
        if inner.quorum.leading().map_err(told)?.is_none() {
            return Err(RequestError::NotController { leader: inner.elsewhere() });
        }
        if inner.waiting.borrow().len() >= REQUESTS_WAITING_MAX {
            return Err(RequestError::Busy);
        }
        let token = Token(inner.next_token.get());
        inner.next_token.set(token.0 + 1);
        inner.waiting.borrow_mut().insert(token, Slot::Open(None));
        inner.asked.borrow_mut().push_back((token, request));
        inner.work.raise(inner.work.value() + 1);
        Waiting { inner, token }.filled().await
    }

    /// Ends it: requests that wait are told.
    pub fn stop(&self) {
        self.0.work.close();
        self.0.tell_all(|| RequestError::Ended("stopped".into()));
    }

    async fn run(self) {
        let inner = &self.0;
        let mut changes = inner.quorum.changes();
        while !inner.work.is_closed() {
            let turn = inner.quorum.turn().await;
            let _ = inner.quorum.introduce().await;
            drop(turn);
            inner.published.set_controller(inner.quorum.leader());
            match inner.quorum.leading() {
                Err(error) => {
                    if !inner.work.is_closed() {
                        tracing::error!(%error, "the controller has ended");
                        inner.published.fail(error.to_string());
                    }
                    inner.work.close();
                    inner.tell_all(|| told(error.clone()));
                }
                Ok(None) => {
                    let leader = inner.elsewhere();
                    inner.tell_all(|| RequestError::NotController { leader });
                    let stopped = async {
                        let never = inner.work.reach(u64::MAX).await;
                        debug_assert!(never.is_err(), "so many requests are never asked");
                    };
                    future::or(inner.quorum.changed(&mut changes), stopped).await;
                }
                Ok(Some(term)) => {
                    tracing::info!(term, "this node's controller is active");
                    inner.lead(term, &mut changes).await;
                    tracing::info!(term, "this node's controller is not active any more");
                }
            }
        }
    }
}

impl<E: Env> Inner<E> {
    /// Who leads, if it is somebody else.
    fn elsewhere(&self) -> Option<engine::ids::BrokerId> {
        let status = self.quorum.leader();
        status.filter(|leader| *leader != self.quorum.me())
    }

    /// Decides for as long as this node leads in `term`.
    async fn lead(&self, term: u64, changes: &mut Changes) {
        #[allow(clippy::let_unit_value, reason = "how much a machine may forget is its own affair")]
        let mut soft = Soft::default();
        // Introducing a voter was tried in vain; the next news may allow it.
        let mut tried = false;
        while !self.work.is_closed() && self.leads(term) {
            let seen = self.work.value();
            let due = Controller::deadline(&soft);
            let idle = self.asked.borrow().is_empty()
                && due.is_none_or(|due| due > self.env.now())
                && (tried || !self.quorum.has_to_introduce());
            if idle {
                self.rest(seen, due, changes).await;
                tried = false;
                continue;
            }
            let turn = self.quorum.turn().await;
            tried = self.quorum.introduce().await != Ok(true);
            if !self.leads(term) {
                return;
            }
            let at = self.quorum.next();
            if self.published.committed().1 != at {
                // Somebody else's entry (of a change of the voters) is on its way.
                drop(turn);
                self.quorum.changed(changes).await;
                continue;
            }
            let batch = self.decide(&mut soft, at);
            if !self.carry_out(&turn, term, at, batch, &mut soft, changes).await {
                return;
            }
        }
    }

    fn leads(&self, term: u64) -> bool {
        self.quorum.leading() == Ok(Some(term))
    }

    /// Waits for a request, a deadline, or news of the quorum.
    async fn rest(&self, seen: u64, due: Option<Instant>, changes: &mut Changes) {
        let asked = async {
            let _ = self.work.reach(seen + 1).await;
        };
        let either = future::or(asked, self.quorum.changed(changes));
        match due {
            Some(due) => future::or(either, self.env.sleep_until(due)).await,
            None => either.await,
        }
    }

    /// Decides what is due and what was asked, in order. One turn, from the first line to the last.
    fn decide(&self, soft: &mut Soft, at: Offset) -> Batch {
        let (mut hard, _) = self.published.committed();
        let moment = || Moment {
            now: self.env.now(),
            wall: self.env.wall(),
            random: [self.env.random(), self.env.random()],
        };
        let (records, replies, tokens) = Default::default();
        let mut batch = Batch { records, bytes: 0, replies, tokens };
        if Controller::deadline(soft).is_some_and(|due| due <= self.env.now()) {
            let mut out = Outcome::default();
            let seen = Seen { hard: &hard, config: &self.config, at: moment() };
            Controller::expire(seen, soft, &mut out);
            self.take(out, &mut hard, at, &mut batch);
        }
        while batch.bytes < ENTRY_BYTES {
            let Some((token, request)) = self.asked.borrow_mut().pop_front() else { break };
            if !self.waiting.borrow().contains_key(&token) {
                // Whoever asked does not wait any more.
                continue;
            }
            let mut out = Outcome::default();
            let seen = Seen { hard: &hard, config: &self.config, at: moment() };
            Controller::decide(seen, soft, token, request, &mut out);
            if self.take(out, &mut hard, at, &mut batch) {
                batch.tokens.push(token);
            } else {
                // Soft state may speak of records that do not exist.
                *soft = Soft::default();
                let max = BATCH_BYTES_MAX;
                let too_large = journal::ProposeError::TooLarge { max };
                self.fill(token, Err(RequestError::Refused(too_large)));
            }
        }
        batch
    }

    /// Takes an outcome into the batch; not if it is more than one request may bring about.
    fn take(
        &self,
        out: Outcome<Controller>,
        hard: &mut <Controller as Machine>::Hard,
        at: Offset,
        batch: &mut Batch,
    ) -> bool {
        let values: Vec<Vec<u8>> = out.records.iter().map(|record| record.encode()).collect();
        let bytes: usize = values.iter().map(Vec::len).sum();
        if bytes > BATCH_BYTES_MAX as usize {
            return false;
        }
        for record in &out.records {
            Controller::apply(hard, at, record);
        }
        batch.records.extend(values);
        batch.bytes += bytes;
        assert!(out.early.is_empty(), "the controller speaks of what is remembered only");
        batch.replies.extend(out.replies);
        true
    }

    /// Appends what was decided and answers; whether this node goes on leading.
    async fn carry_out(
        &self,
        turn: &Turn<'_>,
        term: u64,
        at: Offset,
        batch: Batch,
        soft: &mut Soft,
        changes: &mut Changes,
    ) -> bool {
        if batch.records.is_empty() {
            self.answer(batch.replies, at);
            return true;
        }
        let room = batch.bytes + batch.records.len() * 16;
        let lost = match self.quorum.reserve(room as u64).await {
            Err(ProposeError::NoSpace) => {
                *soft = Soft::default();
                let full = || RequestError::Refused(journal::ProposeError::NoSpace);
                self.tell(&batch, full);
                return true;
            }
            Err(error) => Some(error),
            Ok(()) => {
                let decided =
                    Decided { wall: self.env.wall(), records: batch.records.clone().into() };
                let proposed = async { self.quorum.propose(turn, term, decided).await };
                let deposed = async {
                    while self.leads(term) {
                        self.quorum.changed(changes).await;
                    }
                    Err(ProposeError::NotLeader { leader: self.elsewhere() })
                };
                match future::or(proposed, deposed).await {
                    Ok(committed) => {
                        assert_eq!(committed, at, "whoever has the turn appends alone");
                        None
                    }
                    Err(error) => Some(error),
                }
            }
        };
        match lost {
            None => {
                self.answer(batch.replies, at.plus(1));
                true
            }
            Some(error) => {
                self.tell(&batch, || told(error.clone()));
                false
            }
        }
    }

    /// Hands out replies that are true of everything below `at`.
    fn answer(&self, replies: Vec<(Token, Reply)>, at: Offset) {
        for (token, reply) in replies {
            self.fill(token, Ok(Answer { reply, at }));
        }
    }

    /// Tells everybody whom a batch concerns that nothing comes of it.
    fn tell(&self, batch: &Batch, why: impl Fn() -> RequestError) {
        let replied = batch.replies.iter().map(|(token, _)| token);
        for token in batch.tokens.iter().chain(replied) {
            self.fill(*token, Err(why()));
        }
    }

    fn tell_all(&self, why: impl Fn() -> RequestError) {
        self.asked.borrow_mut().clear();
        let tokens: Vec<Token> = self.waiting.borrow().keys().copied().collect();
        for token in tokens {
            self.fill(token, Err(why()));
        }
    }

    fn fill(&self, token: Token, answer: Result<Answer<Reply>, RequestError>) {
        let mut waiting = self.waiting.borrow_mut();
        // Gone: whoever asked does not wait any more. Filled: the first word counts.
        let Some(slot @ Slot::Open(_)) = waiting.get_mut(&token) else { return };
        let before = std::mem::replace(slot, Slot::Filled(answer));
        drop(waiting);
        if let Slot::Open(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// What whoever asked the controller is told.
fn told(error: ProposeError) -> RequestError {
    match error {
        ProposeError::NotLeader { leader } => RequestError::NotController { leader },
        ProposeError::NoSpace => RequestError::Refused(journal::ProposeError::NoSpace),
        ProposeError::Ended(why) => RequestError::Ended(why),
    }
}

/// A request's place among those that wait; leaves it when dropped.
struct Waiting<'a, E: Env> {
    inner: &'a Inner<E>,
    token: Token,
}

impl<E: Env> Waiting<'_, E> {
    async fn filled(&self) -> Result<Answer<Reply>, RequestError> {
        poll_fn(|context| {
            let mut waiting = self.inner.waiting.borrow_mut();
            let slot = waiting.get_mut(&self.token).expect("it leaves only when dropped");
            match std::mem::replace(slot, Slot::Open(Some(context.waker().clone()))) {
                Slot::Open(_) => Poll::Pending,
                Slot::Filled(answer) => Poll::Ready(answer),
            }
        })
        .await
    }
}

impl<E: Env> Drop for Waiting<'_, E> {
    fn drop(&mut self) {
        self.inner.waiting.borrow_mut().remove(&self.token);
    }
}
