//! The deterministic executor: one thread, virtual time, and a seed that decides who runs next.
//!
//! - Among all runnable tasks (of all nodes and queues) a seeded draw picks one. Every order that
//!   a real scheduler could produce is therefore possible, and the same seed repeats it exactly;
//!   [`Executor::trace_hash`] is over every poll and every event and proves it.
//! - The clock moves when nothing can run (to the next event), by a random fraction of two
//!   microseconds per poll, and now and then to the next event although tasks are runnable (the
//!   core was taken away). So a task that never waits cannot keep timers from firing.
//! - Every task and event belongs to a [`Group`] (one life of one node). [`Executor::kill`] ends a
//!   group between two polls: its tasks are dropped where they stand, its events never happen.
//! - A poll budget turns a livelock into a panic, and a sleep without a timer does too.
//!
//! Boxed futures are allowed here: no production code runs on it.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::random::{Random, Stream, mix};
use crate::time::Instant;

/// Polls without any event (timer, disk, network) in between: more is a livelock.
const SPIN_POLLS_MAX: u64 = 1_000_000;
/// Polls of one `run_…` call, unless [`Executor::set_polls_max`] said otherwise.
const RUN_POLLS_MAX: u64 = 100_000_000;
/// A poll costs less than this much virtual time, in nanoseconds.
const POLL_COST_MAX: u64 = 2_000;
/// The longest stall, in nanoseconds: events further away wait until nothing is runnable.
const STALL_MAX: u64 = 10_000_000;
/// A stall happens before one poll in so many.
const STALL_ONE_IN: u64 = 32;
/// A spawned task is polled at once, on its parent's stack (as a real one may), one time in so many.
const INLINE_ONE_IN: u64 = 4;
/// Spawns that are polled at once may nest so deep.
const INLINE_DEPTH_MAX: u32 = 16;

/// Tasks and events that die together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Group(u64);

/// A handle to the executor; clones are the same executor.
#[derive(Clone)]
pub struct Executor(Rc<State>);

struct State {
    seed: u64,
    random: Random,
    now: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_task: Cell<u64>,
    runnable: RefCell<Vec<u64>>,
    woken: Receiver<u64>,
    waking: Sender<u64>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    next_event: Cell<u64>,
    alive: RefCell<BTreeSet<Group>>,
    next_group: Cell<u64>,
    running: Cell<bool>,
    inline_depth: Cell<u32>,
    polls: Cell<u64>,
    polls_at_event: Cell<u64>,
    polls_max: Cell<u64>,
    trace: Cell<u64>,
    things: RefCell<BTreeMap<TypeId, Rc<dyn Any>>>,
}

type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    group: Group,
    /// Absent while it is being polled.
    future: Option<BoxedFuture>,
    wake: Arc<TaskWake>,
}

/// When, then a random tie-breaker, then the order of arrival.
type EventKey = (u64, u64, u64);

struct Event {
    group: Group,
    action: Action,
}

enum Action {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

/// Sends a task's number to the executor, once per poll. A channel instead of a shared list because
/// a `Waker` must be `Send`.
struct TaskWake {
    task: u64,
    queued: AtomicBool,
    waking: Sender<u64>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            // It fails only when the executor is gone, and then nobody waits.
            let _ = self.waking.send(self.task);
        }
    }
}

impl Executor {
    /// An executor at time zero without tasks.
    pub fn new(seed: u64) -> Executor {
        let (waking, woken) = channel();
        Executor(Rc::new(State {
            seed,
            random: Random::new(seed, Stream::Schedule, 0),
            now: Cell::new(0),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            runnable: RefCell::default(),
            woken,
            waking,
            events: RefCell::default(),
            next_event: Cell::new(0),
            alive: RefCell::default(),
            next_group: Cell::new(0),
            running: Cell::new(false),
            inline_depth: Cell::new(0),
            polls: Cell::new(0),
            polls_at_event: Cell::new(0),
            polls_max: Cell::new(RUN_POLLS_MAX),
            trace: Cell::new(mix(seed)),
            things: RefCell::default(),
        }))
    }

    /// The seed that decides everything.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Virtual time since the executor was made.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.0.now.get())
    }

    /// How often a task was polled so far.
    pub fn polls(&self) -> u64 {
        self.0.polls.get()
    }

    /// Tasks that are neither finished nor killed.
    pub fn tasks(&self) -> usize {
        self.0.tasks.borrow().len()
    }

    /// Depends on every poll, event and [`Executor::trace`] so far, and on their order.
    pub fn trace_hash(&self) -> u64 {
        self.0.trace.get()
    }

    /// Adds a word to the trace (an outcome that should repeat with the seed).
    pub fn trace(&self, word: u64) {
        self.0.trace.set(mix(self.0.trace.get().rotate_left(23) ^ word));
    }

    /// How many polls one `run_…` call may take before it panics.
    pub fn set_polls_max(&self, polls_max: u64) {
        self.0.polls_max.set(polls_max);
    }

    /// A random number below `bound` from the scheduler's stream.
    pub(super) fn draw(&self, bound: u64) -> u64 {
        self.0.random.below(bound)
    }

    /// A new group, alive and empty.
    pub fn group(&self) -> Group {
        let group = Group(self.0.next_group.get());
        self.0.next_group.set(group.0 + 1);
        self.0.alive.borrow_mut().insert(group);
        group
    }

    /// Whether the group was not killed.
    pub fn is_alive(&self, group: Group) -> bool {
        self.0.alive.borrow().contains(&group)
    }

    /// Ends a group now: its tasks are dropped, its events forgotten, and whatever its code still
    /// asks for (while it is dropped, or from elsewhere) never happens. May be called from inside
    /// one of its own tasks, which then is dropped at the end of its poll.
    pub fn kill(&self, group: Group) {
        if !self.0.alive.borrow_mut().remove(&group) {
            return;
        }
        self.trace(group.0 ^ 0xdead);
        let mut dropped = Vec::new();
        self.0.tasks.borrow_mut().retain(|_, task| {
            if task.group == group {
                dropped.push(task.future.take());
            }
            task.group != group
        });
        let mut forgotten = Vec::new();
        self.0.events.borrow_mut().retain(|_, event| {
            if event.group == group {
                let nothing = Action::Wake(Waker::noop().clone());
                forgotten.push(std::mem::replace(&mut event.action, nothing));
            }
            event.group != group
        });
        // Dropped here, with nothing borrowed: their destructors may call back.
        drop(dropped);
        drop(forgotten);
    }

    /// Starts a detached task; nothing happens if the group is dead.
    pub fn spawn(&self, group: Group, future: impl Future<Output = ()> + 'static) {
        if !self.is_alive(group) {
            return;
        }
        let wake = self.new_wake();
        let task = wake.task;
        let future: BoxedFuture = Box::pin(future);
        self.0
            .tasks
            .borrow_mut()
            .insert(task, Task { group, future: Some(future), wake: wake.clone() });
        let depth = self.0.inline_depth.get();
        let inline = self.0.running.get() && depth < INLINE_DEPTH_MAX;
        if inline && self.draw(INLINE_ONE_IN) == 0 {
            self.0.inline_depth.set(depth + 1);
            self.poll_task(task);
            self.0.inline_depth.set(depth);
        } else {
            wake.wake();
        }
    }

    /// Runs `action` at `at` (now, if that has passed), outside every task, unless the group is
    /// killed before.
    pub fn call_at(&self, group: Group, at: Instant, action: impl FnOnce() + 'static) {
        if self.is_alive(group) {
            let key = self.new_key(at);
            let event = Event { group, action: Action::Call(Box::new(action)) };
            self.0.events.borrow_mut().insert(key, event);
        }
    }

    /// Waits until `at`; for ever if the group is dead.
    pub fn sleep_until(&self, group: Group, at: Instant) -> Sleep {
        Sleep { executor: self.clone(), group, at, key: None }
    }

    /// Lets other tasks and due events go first, once.
    pub fn pass(&self) -> impl Future<Output = ()> + use<> {
        let mut passed = false;
        std::future::poll_fn(move |cx| {
            if std::mem::replace(&mut passed, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Runs everything until `future` (which counts as a task of `group`) is ready; `None` if the
    /// group is killed first. Panics when nothing can ever run again, and on a livelock.
    pub fn run_in<T>(&self, group: Group, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let wake = self.new_wake();
        let waker = Waker::from(wake.clone());
        wake.wake_by_ref();
        let _running = Running::start(&self.0);
        let polls_end = self.0.polls.get().saturating_add(self.0.polls_max.get());
        while self.is_alive(group) {
            self.fire_due();
            // An event may have ended the group; what its tasks held is dropped by then, and must
            // not look to this future like something that happened in its life.
            if !self.is_alive(group) {
                break;
            }
            let Some(task) = self.pick() else {
                let next = self.next_event();
                self.0.now.set(next.unwrap_or_else(|| self.panic_asleep()));
                continue;
            };
            self.check_budget(polls_end);
            if task != wake.task {
                self.poll_task(task);
                continue;
            }
            wake.queued.store(false, Ordering::Relaxed);
            self.before_poll(task);
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(value);
            }
        }
        None
    }

    /// Runs everything for `duration` of virtual time.
    pub fn run_for(&self, duration: Duration) {
        let end = self.now().after(duration).nanos();
        let _running = Running::start(&self.0);
        let polls_end = self.0.polls.get().saturating_add(self.0.polls_max.get());
        while self.0.now.get() < end {
            self.fire_due();
            if let Some(task) = self.pick() {
                self.check_budget(polls_end);
                self.poll_task(task);
            } else {
                let next = self.next_event().unwrap_or(end).min(end);
                self.0.now.set(next.max(self.0.now.get()));
            }
        }
    }

    /// The one thing of its type that this world shares (its network, say), made by `make` when
    /// first asked for. `make` must not ask in turn.
    pub fn thing<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        let mut things = self.0.things.borrow_mut();
        let thing = things.entry(TypeId::of::<T>()).or_insert_with(|| Rc::new(make()));
        thing.clone().downcast().expect("it is kept under its type")
    }

    /// Kills every group and lets go of every thing, so that nothing of this run outlives it.
    pub fn shut_down(&self) {
        loop {
            let first = self.0.alive.borrow().first().copied();
            match first {
                Some(group) => self.kill(group),
                None => break,
            }
        }
        let things = self.0.things.take();
        drop(things);
    }

    fn new_wake(&self) -> Arc<TaskWake> {
        let task = self.0.next_task.get();
        self.0.next_task.set(task + 1);
        Arc::new(TaskWake { task, queued: AtomicBool::new(false), waking: self.0.waking.clone() })
    }

    fn new_key(&self, at: Instant) -> EventKey {
        let arrival = self.0.next_event.get();
        self.0.next_event.set(arrival + 1);
        (at.nanos(), self.0.random.next(), arrival)
    }

    fn next_event(&self) -> Option<u64> {
        let events = self.0.events.borrow();
        events.first_key_value().map(|(key, _)| key.0.max(self.0.now.get()))
    }

    /// Lets every event happen whose time has come.
    fn fire_due(&self) {
        loop {
            let event = {
                let mut events = self.0.events.borrow_mut();
                match events.first_entry() {
                    Some(entry) if entry.key().0 <= self.0.now.get() => {
                        self.trace(entry.key().2);
                        entry.remove()
                    }
                    _ => return,
                }
            };
            self.0.polls_at_event.set(self.0.polls.get());
            match event.action {
                Action::Wake(waker) => waker.wake(),
                Action::Call(action) => action(),
            }
        }
    }

    /// Draws one of the runnable tasks, and sometimes stalls first.
    fn pick(&self) -> Option<u64> {
        let mut runnable = self.0.runnable.borrow_mut();
        runnable.extend(self.0.woken.try_iter());
        if runnable.is_empty() {
            return None;
        }
        if self.draw(STALL_ONE_IN) == 0
            && let Some(next) = self.next_event()
            && next - self.0.now.get() <= STALL_MAX
        {
            self.0.now.set(next);
        }
        let chosen = self.draw(runnable.len() as u64) as usize;
        Some(runnable.swap_remove(chosen))
    }

    fn before_poll(&self, task: u64) {
        self.0.polls.set(self.0.polls.get() + 1);
        self.0.now.set(self.0.now.get() + self.draw(POLL_COST_MAX));
        self.trace(task ^ self.0.now.get() << 20);
    }

    fn poll_task(&self, task: u64) {
        let (mut future, wake) = {
            let mut tasks = self.0.tasks.borrow_mut();
            let Some(entry) = tasks.get_mut(&task) else { return };
            // Absent when it woke itself, spawned inline and is still being polled further up.
            let Some(future) = entry.future.take() else { return };
            (future, entry.wake.clone())
        };
        wake.queued.store(false, Ordering::Relaxed);
        self.before_poll(task);
        let waker = Waker::from(wake);
        let ready = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.0.tasks.borrow_mut();
        if ready {
            tasks.remove(&task);
        } else if let Some(entry) = tasks.get_mut(&task) {
            entry.future = Some(future);
            return;
        }
        // Finished or killed meanwhile: dropped with nothing borrowed.
        drop(tasks);
        drop(future);
    }

    fn check_budget(&self, polls_end: u64) {
        let polls = self.0.polls.get();
        let spun = polls - self.0.polls_at_event.get();
        assert!(
            spun < SPIN_POLLS_MAX && polls < polls_end,
            "livelock: {polls} polls, {spun} of them since the last event, at {:?}, seed {}",
            self.now(),
            self.0.seed,
        );
    }

    fn panic_asleep(&self) -> ! {
        panic!(
            "asleep for ever: {} tasks wait, no event is due, at {:?}, seed {}",
            self.tasks(),
            self.now(),
            self.0.seed,
        )
    }
}

/// Marks the executor as running, until dropped.
struct Running<'a>(&'a State);

impl Running<'_> {
    fn start(state: &State) -> Running<'_> {
        assert!(!state.running.replace(true), "a task must not run the executor that runs it");
        state.polls_at_event.set(state.polls.get());
        Running(state)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
    }
}

/// See [`Executor::sleep_until`].
pub struct Sleep {
    executor: Executor,
    group: Group,
    at: Instant,
    key: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.at {
            return Poll::Ready(());
        }
        if self.executor.is_alive(self.group) {
            let at = self.at;
            let executor = self.executor.clone();
            let key = *self.key.get_or_insert_with(|| executor.new_key(at));
            let event = Event { group: self.group, action: Action::Wake(cx.waker().clone()) };
            executor.0.events.borrow_mut().insert(key, event);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let event = self.executor.0.events.borrow_mut().remove(&key);
            drop(event);
        }
    }
}

#[cfg(test)]
mod tests;
