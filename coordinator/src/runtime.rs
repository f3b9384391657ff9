//! The driver of a machine: decide → append → apply, and hold each reply until everything that the
//! machine had seen is committed.
//!
//! The first three happen in one turn, without waiting, so a machine decides against everything
//! appended so far and many requests can be on their way to the device together. When appended
//! records are given up (the device was full), the log's end falls back; the machine then has seen
//! what will never be, so it is dropped and replayed before the next request. Whoever waited for
//! such a reply is told that it is lost: the request may be asked again, and nothing of it is
//! remembered.
//!
//! A machine on a partition that brokers take turns to lead lives for one term ([`Runtime::lead`]):
//! while it loads, requests are told so at once; when the term ends, all who wait are told that it
//! is elsewhere, and a late append cannot be ([`Journal::propose`] compares the term). It ends by
//! itself; whoever leads again starts another.

mod mutant;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use engine::env::{Env, Queue};
use engine::ids::{BrokerId, Offset};
use engine::wait::Watch;
use futures_lite::future;
use replication::partition::{Commit, Lost};

use crate::config::{ANSWERS_AT_ONCE_MAX, REQUESTS_WAITING_MAX};
use crate::journal::{Journal, ProposeError, ReplayError};
use crate::machine::{Machine, Moment, Outcome, Seen, Stored, Token};
pub use mutant::Mutant;

/// Runs one machine. Cloning shares it; it lives on one shard.
pub struct Runtime<E: Env, M: Machine>(Rc<Inner<E, M>>);

impl<E: Env, M: Machine> Clone for Runtime<E, M> {
    fn clone(&self) -> Self {
        Runtime(self.0.clone())
    }
}

struct Inner<E: Env, M: Machine> {
    env: E,
    journal: Journal<E>,
    config: M::Config,
    state: RefCell<State<M>>,
    /// From where a replay starts: hard state as of an offset; `None`: with nothing, from where
    /// the log begins. Then requests are not kept waiting for it, either.
    base: RefCell<Option<(M::Hard, Offset)>>,
    observer: Observer<M>,
    replaying: Cell<bool>,
    /// Why it ended, if it did.
    over: RefCell<Option<RequestError>>,
    /// Rises with each replay that has ended.
    replays: Watch,
    /// Rises when the machine's deadline may have changed; closed when the runtime ends.
    decided: Watch,
}

struct State<M: Machine> {
    hard: M::Hard,
    soft: M::Soft,
    /// `soft` has not been set up yet.
    fresh: bool,
    /// `hard` is what the log says below this offset.
    end: Offset,
    next_token: u64,
    /// Requests without their answer.
    waiting: BTreeMap<Token, Slot<M::Reply>>,
}

/// Where a request waits for its answer.
enum Slot<R> {
    Open(Option<Waker>),
    Filled(Held<R>),
    /// The machine forgot the request.
    Lost,
}

/// A reply, and what must be committed before it may be told.
struct Held<R> {
    reply: R,
    end: Offset,
    /// `None`: nothing.
    commit: Option<Commit>,
}

/// A reply that may be told, and the state that it is true of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<R> {
    /// The reply.
    pub reply: R,
    /// Everything below this offset of the machine's log is committed, and the reply is true of
    /// it: an image that has reached it shows what the request did.
    pub at: Offset,
}

/// What an observer is shown after each change of hard state.
pub struct Seeing<'a, M: Machine> {
    /// The state, not necessarily committed.
    pub hard: &'a M::Hard,
    /// It is what the log says below this offset.
    pub end: Offset,
    /// Tells when that is committed, or that it will never be.
    pub commit: Commit,
    /// The machine was replayed: what was shown before and is not committed never will be.
    pub replayed: bool,
}

/// Who is shown each change; not called often enough for its indirection to matter.
type Observer<M> = Box<dyn Fn(Seeing<'_, M>)>;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too many wait already. Nothing was done; ask again later.
    #[error("{REQUESTS_WAITING_MAX} requests wait already")]
    Busy,
    /// What it would have brought about was not appended. Nothing was done.
    #[error(transparent)]
    Refused(ProposeError),
    /// It was given up before it was durable. Nothing of it is remembered; ask again.
    #[error("the request was given up before it was durable")]
    Lost,
    /// Another node's machine is the active one. Nothing was done, unless this node lost the lead
    /// meanwhile: then it may still come to be. Ask that one.
    #[error("the active controller is elsewhere")]
    NotController {
        /// Whose it is, where known.
        leader: Option<BrokerId>,
    },
    /// The machine is being loaded. Nothing was done; ask again soon.
    #[error("the machine is being loaded")]
    Loading,
    /// This broker does not lead the machine's log any more. Nothing was done, or what was may
    /// still come to be. Ask whoever leads.
    #[error("this broker does not lead the machine's log")]
    NotCoordinator,
    /// The machine's log ended. What the request did is not known.
    #[error("the log ended: {0}")]
    Ended(String),
}

type Loading<M> = ReplayError<<<M as Machine>::Record as Stored>::Error>;

impl<E: Env, M: Machine> Runtime<E, M> {
    /// Replays the journal from `base` on and begins to serve. `observer` is shown every change,
    /// and must not ask anything of the runtime. Returns how many bytes were replayed, too.
    pub async fn open(
        env: &E,
        journal: Journal<E>,
        config: M::Config,
        base: (M::Hard, Offset),
        observer: impl Fn(Seeing<'_, M>) + 'static,
    ) -> Result<(Runtime<E, M>, u64), Loading<M>> {
        let runtime = Runtime::over(env, journal, config, Some(base), observer);
        let bytes = runtime.0.replay().await?;
        env.spawn(Queue::Request, keep_time(runtime.0.clone()));
        Ok((runtime, bytes))
    }

    /// Serves a log that this broker leads, for the term of `journal`. Returns at once and loads
    /// in the background; meanwhile requests are answered [`RequestError::Loading`]. Ends by
    /// itself with the term: from then on every request, also one that waits, is answered
    /// [`RequestError::NotCoordinator`]. If the log cannot be loaded, [`RequestError::Ended`].
    pub fn lead(env: &E, journal: Journal<E>, config: M::Config) -> Runtime<E, M> {
        let runtime = Runtime::over(env, journal, config, None, |_: Seeing<'_, M>| {});
        runtime.0.replaying.set(true);
        env.spawn(Queue::Request, load(runtime.0.clone()));
        env.spawn(Queue::Request, keep_time(runtime.0.clone()));
        env.spawn(Queue::Request, keep_term(runtime.0.clone()));
        runtime
    }

    fn over(
        env: &E,
        journal: Journal<E>,
        config: M::Config,
        base: Option<(M::Hard, Offset)>,
        observer: impl Fn(Seeing<'_, M>) + 'static,
    ) -> Runtime<E, M> {
        let (hard, end) = base.clone().unwrap_or_else(|| (M::Hard::default(), journal.start()));
        let soft = M::Soft::default();
        let state = State { hard, soft, fresh: true, end, next_token: 0, waiting: BTreeMap::new() };
        Runtime(Rc::new(Inner {
            env: env.clone(),
            journal,
            config,
            state: state.into(),
            base: base.into(),
            observer: Box::new(observer),
            replaying: Cell::new(false),
            over: RefCell::new(None),
            replays: Watch::new(0),
            decided: Watch::new(0),
        }))
    }

    /// Whether it is being loaded, so that requests are turned away.
    pub fn is_loading(&self) -> bool {
        self.0.replaying.get()
    }

    /// Waits until it serves, or has ended.
    pub async fn loaded(&self) {
        while self.is_loading() && !self.0.decided.is_closed() {
            let _ = self.0.replays.reach(self.0.replays.value() + 1).await;
        }
    }

    /// Asks the machine, and waits until its answer may be told.
    pub async fn request(&self, request: M::Request) -> Result<Answer<M::Reply>, RequestError> {
        let inner = &self.0;
        inner.ready().await?;
        if M::writes(&request) {
            inner.journal.admits()?;
        }
        let waiting = Waiting { inner, token: inner.take_token()? };
        inner.step(|seen, soft, out| M::decide(seen, soft, waiting.token, request, out))?;
        let held = waiting.filled().await?;
        let awaited = inner.mutant() != Some(Mutant::ReplyBeforeCommit);
        let Some(commit) = held.commit.filter(|_| awaited) else {
            let at = held.end.min(inner.journal.committed());
            return Ok(Answer { reply: held.reply, at });
        };
        match commit.reach(held.end).await {
            Ok(()) => Ok(Answer { reply: held.reply, at: held.end }),
            Err(Lost::NotLeader) => Err(RequestError::NotCoordinator),
            Err(Lost::GivenUp) if inner.journal.is_open() => Err(RequestError::Lost),
            Err(Lost::GivenUp) => Err(RequestError::Ended("closed or failed".into())),
        }
    }

    /// Where replays start from now on: `hard` as of `end`, which is committed and in a snapshot.
    pub fn rebase(&self, hard: M::Hard, end: Offset) {
        let mut base = self.0.base.borrow_mut();
        let base = base.as_mut().expect("a machine without snapshots has no base");
        assert!(end >= base.1, "a base does not go back to {end}");
        *base = (hard, end);
    }

    /// Ends it: requests that wait are told. The journal stays open.
    pub fn stop(&self) {
        self.0.end(RequestError::Ended("stopped".into()));
    }
}

impl From<ProposeError> for RequestError {
    fn from(error: ProposeError) -> RequestError {
        match error {
            ProposeError::NotLeader => RequestError::NotCoordinator,
            refused => RequestError::Refused(refused),
        }
    }
}

impl<E: Env, M: Machine> Inner<E, M> {
    fn mutant(&self) -> Option<Mutant> {
        M::runtime_mutant(&self.config)
    }

    /// The machine has seen what will never be: the log gave it up.
    fn is_stale(&self) -> bool {
        self.state.borrow().end != self.journal.end()
    }

    /// Ends it, for the first reason given: who waits is told, and what it remembers is let go.
    fn end(&self, why: RequestError) {
        self.over.borrow_mut().get_or_insert(why);
        self.decided.close();
        let state = &mut *self.state.borrow_mut();
        state.forget();
        state.hard = M::Hard::default();
    }

    /// Why requests are not answered any more.
    fn why_over(&self) -> RequestError {
        self.over.borrow().clone().expect("it is over")
    }

    /// Waits until the machine's state is what the log says, replaying if it is not.
    async fn ready(self: &Rc<Self>) -> Result<(), RequestError> {
        let waits = self.base.borrow().is_some();
        loop {
            if self.decided.is_closed() {
                return Err(self.why_over());
            }
            if !waits && !self.journal.is_led() {
                return Err(RequestError::NotCoordinator);
            }
            if self.replaying.get() {
                if self.mutant() == Some(Mutant::AnswersWhileLoading) {
                    return Ok(());
                }
                if !waits {
                    return Err(RequestError::Loading);
                }
                let ended = self.replays.value() + 1;
                let _ = self.replays.reach(ended).await;
            } else if self.is_stale() {
                if waits {
                    let replayed = self.replay().await;
                    replayed.map_err(|error| RequestError::Ended(error.to_string()))?;
                } else {
                    self.replaying.set(true);
                    self.env.spawn(Queue::Request, load(self.clone()));
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Drops the machine and rebuilds it from its log.
    async fn replay(&self) -> Result<u64, Loading<M>> {
        let _replaying = Replaying::begin(self);
        let base = self.base.borrow().clone();
        let (mut hard, from) = base.unwrap_or_else(|| (M::Hard::default(), self.journal.start()));
        {
            let state = &mut *self.state.borrow_mut();
            state.forget();
            // Two of them would be twice the memory.
            state.hard = M::Hard::default();
        }
        let bound = match self.mutant() {
            Some(Mutant::LoadsToWatermark) => self.journal.committed(),
            _ => Offset::MAX,
        };
        let apply = |at, record: M::Record| {
            if at < bound {
                M::apply(&mut hard, at, &record);
            }
        };
        let (end, bytes) = self.journal.replay(&self.env, from, apply).await?;
        if !self.decided.is_closed() {
            let state = &mut *self.state.borrow_mut();
            (state.hard, state.end) = (hard, end);
            let commit = self.journal.commit();
            (self.observer)(Seeing { hard: &state.hard, end, commit, replayed: true });
        }
        Ok(bytes)
    }

    fn take_token(&self) -> Result<Token, RequestError> {
        let state = &mut *self.state.borrow_mut();
        if state.waiting.len() >= REQUESTS_WAITING_MAX {
            return Err(RequestError::Busy);
        }
        let token = Token(state.next_token);
        state.next_token += 1;
        state.waiting.insert(token, Slot::Open(None));
        Ok(token)
    }

    /// Lets the machine act; before that, if its soft state is new, set it up.
    fn step(
        &self,
        act: impl FnOnce(Seen<'_, M>, &mut M::Soft, &mut Outcome<M>),
    ) -> Result<(), ProposeError> {
        if self.state.borrow().fresh {
            self.act(|seen, soft, out| M::begin(seen, soft, out))?;
            self.state.borrow_mut().fresh = false;
        }
        self.act(act)
    }

    /// Lets the machine act, appends and applies what comes of it, and hands out the replies. One
    /// turn, from the first line to the last.
    fn act(
        &self,
        act: impl FnOnce(Seen<'_, M>, &mut M::Soft, &mut Outcome<M>),
    ) -> Result<(), ProposeError> {
        let (env, journal) = (&self.env, &self.journal);
        let random = [env.random(), env.random()];
        let at = Moment { now: env.now(), wall: env.wall(), random };
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let mut out = Outcome::default();
        let seen = Seen { hard: &state.hard, config: &self.config, at };
        act(seen, &mut state.soft, &mut out);
        if !out.records.is_empty() {
            let base = match journal.propose(&out.records, at.wall) {
                Ok(base) => base,
                Err(error) => {
                    // Soft state may speak of records that do not exist.
                    state.forget();
                    return Err(error);
                }
            };
            assert_eq!(base, state.end, "the machine alone writes its log");
            for record in &out.records {
                M::apply(&mut state.hard, state.end, record);
                state.end = state.end.plus(1);
            }
            assert_eq!(journal.end(), state.end, "a record takes one offset");
            let (hard, end, commit) = (&state.hard, state.end, journal.commit());
            (self.observer)(Seeing { hard, end, commit, replayed: false });
        }
        let (end, commit) = (state.end, journal.commit());
        let mut fill = |(token, reply), commit: Option<&Commit>| {
            // Without a slot: whoever asked does not wait any more.
            let slot = state.waiting.get_mut(&token)?;
            let held = Held { reply, end, commit: commit.cloned() };
            match std::mem::replace(slot, Slot::Filled(held)) {
                Slot::Open(waker) => waker,
                Slot::Filled(_) | Slot::Lost => None,
            }
        };
        let early: Vec<Waker> =
            out.early.into_iter().filter_map(|early| fill(early, None)).collect();
        let replies = out.replies.into_iter();
        let held: Vec<Waker> = replies.filter_map(|held| fill(held, Some(&commit))).collect();
        drop(guard);
        self.decided.raise(self.decided.value() + 1);
        early.into_iter().for_each(Waker::wake);
        if held.len() > ANSWERS_AT_ONCE_MAX {
            self.env.spawn(Queue::Request, hand_out(self.env.clone(), commit, end, held));
        } else {
            held.into_iter().for_each(Waker::wake);
        }
        Ok(())
    }
}

impl<M: Machine> State<M> {
    /// Soft state is lost, and with it every request that waits for an answer.
    fn forget(&mut self) {
        self.soft = M::Soft::default();
        self.fresh = true;
        for slot in self.waiting.values_mut() {
            if let Slot::Open(waker) = slot {
                let waker = waker.take();
                *slot = Slot::Lost;
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// Marks a replay as under way, also if whoever asked for it stops waiting.
struct Replaying<'a> {
    replaying: &'a Cell<bool>,
    replays: &'a Watch,
}

impl<'a> Replaying<'a> {
    fn begin<E: Env, M: Machine>(inner: &'a Inner<E, M>) -> Replaying<'a> {
        inner.replaying.set(true);
        Replaying { replaying: &inner.replaying, replays: &inner.replays }
    }
}

impl Drop for Replaying<'_> {
    fn drop(&mut self) {
        self.replaying.set(false);
        self.replays.raise(self.replays.value() + 1);
    }
}

/// A request's place among those that wait; leaves it when dropped.
struct Waiting<'a, E: Env, M: Machine> {
    inner: &'a Inner<E, M>,
    token: Token,
}

impl<E: Env, M: Machine> Waiting<'_, E, M> {
    /// Waits until the machine has answered.
    async fn filled(&self) -> Result<Held<M::Reply>, RequestError> {
        poll_fn(|context| {
            let state = &mut *self.inner.state.borrow_mut();
            let slot = state.waiting.get_mut(&self.token).expect("it leaves only when dropped");
            match std::mem::replace(slot, Slot::Open(Some(context.waker().clone()))) {
                Slot::Open(_) => Poll::Pending,
                Slot::Filled(held) => Poll::Ready(Ok(held)),
                Slot::Lost if self.inner.decided.is_closed() => {
                    Poll::Ready(Err(self.inner.why_over()))
                }
                Slot::Lost => Poll::Ready(Err(RequestError::Lost)),
            }
        })
        .await
    }
}

impl<E: Env, M: Machine> Drop for Waiting<'_, E, M> {
    fn drop(&mut self) {
        self.inner.state.borrow_mut().waiting.remove(&self.token);
    }
}

/// Pause before it is tried again to let the machine act that could not.
const RETRY: Duration = Duration::from_millis(500);

/// Pause between answers that are handed out a few at a time: until the reactor had its turn.
const BREATH: Duration = Duration::from_micros(1);

/// Loads the machine, and sets it up.
async fn load<E: Env, M: Machine>(inner: Rc<Inner<E, M>>) {
    let begun = inner.env.now();
    match inner.replay().await {
        _ if inner.decided.is_closed() => {}
        Err(_) if !inner.journal.is_led() => inner.end(RequestError::NotCoordinator),
        Err(error) => {
            // It is not tried again in this term, as in Kafka (`CoordinatorRuntime`, where it is
            // FAILED and answers NOT_COORDINATOR until the next leader epoch): what was read here
            // is what would be read again. Who takes over reads another replica.
            tracing::error!(%error, "a machine's log cannot be loaded");
            inner.end(RequestError::Ended(error.to_string()));
        }
        Ok(bytes) => {
            let took = inner.env.now().since(begun);
            tracing::info!(epoch = %inner.journal.epoch(), bytes, ?took, "a machine is loaded");
            // What fails here is tried again before the next request.
            let _ = inner.step(|_, _, _| {});
        }
    }
}

/// Wakes those who were answered, a few at a time, once they may be told. Else a machine that
/// answers a thousand at once (a generation of a large group begins) keeps everybody else on the
/// shard waiting while all of them send, and once more when all of them come back with the next
/// request.
async fn hand_out<E: Env>(env: E, commit: Commit, end: Offset, wakers: Vec<Waker>) {
    // If it never is, each finds out for itself.
    let _ = commit.reach(end).await;
    let mut left = wakers.into_iter().peekable();
    while left.peek().is_some() {
        left.by_ref().take(ANSWERS_AT_ONCE_MAX).for_each(Waker::wake);
        // They run now, and after them whatever came in meanwhile.
        env.sleep_until(env.now().after(BREATH)).await;
    }
}

/// Ends the machine with the term.
async fn keep_term<E: Env, M: Machine>(inner: Rc<Inner<E, M>>) {
    while !inner.decided.is_closed() {
        let stopped = async { _ = inner.decided.reach(u64::MAX).await };
        future::or(inner.journal.led(), stopped).await;
        if !inner.journal.is_led() {
            return inner.end(RequestError::NotCoordinator);
        }
        // Not over, and nothing to wait for: the log is on its way somewhere.
        inner.env.sleep_until(inner.env.now().after(RETRY)).await;
    }
}

/// Lets the machine act at its deadlines, until the runtime ends.
async fn keep_time<E: Env, M: Machine>(inner: Rc<Inner<E, M>>) {
    loop {
        let seen = inner.decided.value();
        let decided = inner.decided.reach(seen + 1);
        let deadline = {
            let state = inner.state.borrow();
            match state.fresh && !inner.replaying.get() {
                true => Some(inner.env.now().after(RETRY)),
                false => M::deadline(&state.soft),
            }
        };
        let due = match deadline {
            None => decided.await.map(|()| false),
            Some(at) => {
                let due = async {
                    inner.env.sleep_until(at).await;
                    Ok(true)
                };
                future::or(async { decided.await.map(|()| false) }, due).await
            }
        };
        match due {
            Err(_) => return,
            Ok(false) => {}
            Ok(true) => {
                if inner.expire().await.is_err() {
                    inner.env.sleep_until(inner.env.now().after(RETRY)).await;
                }
            }
        }
    }
}

impl<E: Env, M: Machine> Inner<E, M> {
    /// Lets what is due happen; not while the log takes nothing. What fails here fails for the
    /// next request, too, and is told there.
    async fn expire(self: &Rc<Self>) -> Result<(), RequestError> {
        self.ready().await?;
        self.journal.admits()?;
        Ok(self.step(|seen, soft, out| M::expire(seen, soft, out))?)
    }
}
