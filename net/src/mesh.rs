//! Calls between the shards of a process: one message there, one back, grouped by shard by whoever
//! calls. Each ordered pair has two bounded FIFO lanes, one for calls and one for answers, so a
//! call that takes its time never holds back an answer.
//!
//! A full lane makes nobody wait while holding something: what does not fit stays in the sender's
//! outbox, which a pump empties. An outbox is bounded by what the shard has admitted: a connection
//! has a bounded number of requests in flight, and each makes one call per shard.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use engine::env::Queue;

use crate::env::{LaneReceive, LaneSend, NetEnv, Refused};

/// Crosses a lane: a call with the number under which its answer is awaited.
pub struct Numbered<T> {
    number: u64,
    value: T,
}

/// The ends of all lanes of one shard. Index: the other shard; `None` at its own.
pub struct Ends<E: NetEnv, C: Send + 'static, A: Send + 'static> {
    /// Calls to and from the others.
    pub calls: crate::env::LaneEnds<E, Numbered<C>>,
    /// Answers to and from the others.
    pub answers: crate::env::LaneEnds<E, Numbered<A>>,
}

/// One shard's view of the mesh. Cloning shares it.
pub struct Mesh<E: NetEnv, C: Send + 'static, A: Send + 'static>(Rc<Inner<E, C, A>>);

impl<E: NetEnv, C: Send + 'static, A: Send + 'static> Clone for Mesh<E, C, A> {
    fn clone(&self) -> Self {
        Mesh(self.0.clone())
    }
}

struct Inner<E: NetEnv, C: Send + 'static, A: Send + 'static> {
    calls: Vec<Option<Outbox<E, C>>>,
    answers: Vec<Option<Outbox<E, A>>>,
    waiting: RefCell<BTreeMap<u64, Rc<Slot<A>>>>,
    next: Cell<u64>,
}

struct Outbox<E: NetEnv, T: Send + 'static> {
    lane: E::LaneTx<Numbered<T>>,
    waiting: RefCell<VecDeque<Numbered<T>>>,
    pumping: Cell<bool>,
}

struct Slot<A> {
    answer: RefCell<Option<A>>,
    waker: RefCell<Option<Waker>>,
}

/// An answer on its way.
pub struct Awaited<E: NetEnv, C: Send + 'static, A: Send + 'static> {
    mesh: Mesh<E, C, A>,
    number: u64,
    slot: Rc<Slot<A>>,
}

impl<E: NetEnv, C: Send + 'static, A: Send + 'static> Mesh<E, C, A> {
    /// Takes over the ends of one shard. `serve` is called with each call in the order in which
    /// its sender made it: what it does before it waits is done in that order. The next call of
    /// the same sender is served when the future it returns is ready.
    pub fn start<F>(
        env: &E,
        ends: Ends<E, C, A>,
        serve: impl Fn(usize, C, Answering<E, C, A>) -> F + Clone + 'static,
    ) -> Mesh<E, C, A>
    where
        F: Future<Output = ()> + 'static,
    {
        let Ends { calls, answers } = ends;
        let mesh = Mesh(Rc::new(Inner {
            calls: calls.to.into_iter().map(|lane| lane.map(Outbox::new)).collect(),
            answers: answers.to.into_iter().map(|lane| lane.map(Outbox::new)).collect(),
            waiting: RefCell::new(BTreeMap::new()),
            next: Cell::new(0),
        }));
        for (from, lane) in calls.from.into_iter().enumerate() {
            let Some(lane) = lane else { continue };
            let (mesh, serve, env2) = (mesh.clone(), serve.clone(), env.clone());
            env.spawn(Queue::Request, async move {
                while let Some(Numbered { number, value }) = lane.recv().await {
                    let answering =
                        Answering { env: env2.clone(), mesh: mesh.clone(), to: from, number };
                    serve(from, value, answering).await;
                    env2.turn().await;
                }
            });
        }
        for lane in answers.from.into_iter().flatten() {
            let mesh = mesh.clone();
            env.spawn(Queue::Request, async move {
                while let Some(Numbered { number, value }) = lane.recv().await {
                    mesh.on_answer(number, value);
                }
            });
        }
        mesh
    }

    /// Sends a call to another shard, now; the answer can be awaited later.
    pub fn call(&self, env: &E, to: usize, call: C) -> Awaited<E, C, A> {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        let slot = Rc::new(Slot { answer: RefCell::new(None), waker: RefCell::new(None) });
        self.0.waiting.borrow_mut().insert(number, slot.clone());
        let numbered = Numbered { number, value: call };
        let mesh = self.clone();
        Outbox::send(env, &self.0.calls, to, numbered, move || mesh.0.clone(), |i| &i.calls);
        Awaited { mesh: self.clone(), number, slot }
    }

    /// Calls whose answers are still awaited.
    pub fn outstanding(&self) -> usize {
        self.0.waiting.borrow().len()
    }

    fn on_answer(&self, number: u64, answer: A) {
        // Nobody waits any more where the connection has gone meanwhile.
        let Some(slot) = self.0.waiting.borrow_mut().remove(&number) else { return };
        *slot.answer.borrow_mut() = Some(answer);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

impl<E: NetEnv, T: Send + 'static> Outbox<E, T> {
    fn new(lane: E::LaneTx<Numbered<T>>) -> Outbox<E, T> {
        Outbox { lane, waiting: RefCell::new(VecDeque::new()), pumping: Cell::new(false) }
    }

    /// Puts `value` into the lane, or behind what waits for room in it. Never waits.
    fn send<I: 'static>(
        env: &E,
        outboxes: &[Option<Outbox<E, T>>],
        to: usize,
        value: Numbered<T>,
        keep: impl FnOnce() -> Rc<I>,
        find: impl Fn(&I) -> &Vec<Option<Outbox<E, T>>> + 'static,
    ) {
        let outbox = outboxes[to].as_ref().expect("a shard does not call itself");
        let value = if outbox.pumping.get() {
            value
        } else {
            match outbox.lane.try_send(value) {
                Ok(()) => return,
                // The other shard has ended: the process is stopping.
                Err(Refused::Closed(_)) => return,
                Err(Refused::Full(value)) => value,
            }
        };
        outbox.waiting.borrow_mut().push_back(value);
        if outbox.pumping.replace(true) {
            return;
        }
        let inner = keep();
        env.spawn(Queue::Request, async move {
            let outbox = find(&inner)[to].as_ref().expect("seen before");
            loop {
                let Some(value) = outbox.waiting.borrow_mut().pop_front() else { break };
                if outbox.lane.send(value).await.is_err() {
                    break;
                }
            }
            outbox.pumping.set(false);
        });
    }
}

/// The right to answer one call.
pub struct Answering<E: NetEnv, C: Send + 'static, A: Send + 'static> {
    env: E,
    mesh: Mesh<E, C, A>,
    to: usize,
    number: u64,
}

impl<E: NetEnv, C: Send + 'static, A: Send + 'static> Answering<E, C, A> {
    /// Sends the answer.
    pub fn answer(self, answer: A) {
        let numbered = Numbered { number: self.number, value: answer };
        let mesh = self.mesh.clone();
        let answers = &self.mesh.0.answers;
        Outbox::send(&self.env, answers, self.to, numbered, move || mesh.0.clone(), |i| &i.answers);
    }
}

impl<E: NetEnv, C: Send + 'static, A: Send + 'static> Awaited<E, C, A> {
    /// Whether the answer has come and was not taken.
    pub fn is_answered(&self) -> bool {
        self.slot.answer.borrow().is_some()
    }

    /// The same; otherwise the task is woken when it comes.
    pub fn poll_answered(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let answered = self.is_answered();
        if !answered {
            *self.slot.waker.borrow_mut() = Some(cx.waker().clone());
        }
        answered
    }

    /// Waits for the answer.
    pub async fn answer(&mut self) -> A {
        poll_fn(|cx| {
            if let Some(answer) = self.slot.answer.take() {
                return Poll::Ready(answer);
            }
            *self.slot.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<E: NetEnv, C: Send + 'static, A: Send + 'static> Drop for Awaited<E, C, A> {
    fn drop(&mut self) {
        self.mesh.0.waiting.borrow_mut().remove(&self.number);
    }
}
