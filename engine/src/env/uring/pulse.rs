//! What one shard lets other threads see: how many of its tasks have been woken and not yet run,
//! and how many polls it has made. A shard with runnable tasks whose polls stand still is either
//! held by one task or asleep with work to do; see the watchdog in `net`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use nix::sys::pthread::{Pthread, pthread_self};
use nix::unistd::{Pid, gettid};

/// Counters of one shard. Lives on every thread; written by its shard and by whoever wakes a task.
#[derive(Default)]
pub struct Pulse {
    runnable: AtomicU64,
    polls: AtomicU64,
    polling: AtomicBool,
    ended: AtomicBool,
    abort_on_panic: bool,
    thread: OnceLock<(Pthread, Pid)>,
}

impl Pulse {
    pub(super) fn new(abort_on_panic: bool) -> Arc<Pulse> {
        Arc::new(Pulse { abort_on_panic, ..Pulse::default() })
    }

    /// Tasks that were woken (or just spawned) and have not been polled since.
    pub fn runnable(&self) -> u64 {
        self.runnable.load(Ordering::Relaxed)
    }

    /// Polls of tasks since the start; wraps around.
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Whether a task is being polled at this moment.
    pub fn polling(&self) -> bool {
        self.polling.load(Ordering::Relaxed)
    }

    /// Whether the shard's body has returned, after which nothing runs there.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The shard's thread: its handle for a directed signal, and its kernel id. `None` before the
    /// start. The handle is valid until the thread is joined.
    pub fn thread(&self) -> Option<(Pthread, Pid)> {
        self.thread.get().copied()
    }

    pub(super) fn begin(&self) {
        self.thread.get_or_init(|| (pthread_self(), gettid()));
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Woken, and not polled since.
const WOKEN: u8 = 1;
/// Finished or dropped; wake-ups change nothing any more.
const DONE: u8 = 2;

/// The waker of one task: counts, then wakes.
struct TaskWaker {
    pulse: Arc<Pulse>,
    inner: Waker,
    state: AtomicU8,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        // A read-modify-write even when nothing changes: it is what makes the waking thread's
        // earlier stores visible to the poll that clears the flag.
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) == 0 {
            self.pulse.runnable.fetch_add(1, Ordering::Relaxed);
            self.inner.wake_by_ref();
        }
    }
}

impl TaskWaker {
    fn leave(&self, next: u8) {
        if self.state.swap(next, Ordering::AcqRel) & WOKEN != 0 {
            self.pulse.runnable.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A task of a shard, counted; a panic in it ends the process (a shard is never half alive).
///
/// The task and its waker hold each other until it ends, so a task that waits for something which
/// nobody can wake any more stays in memory.
pub struct Tracked<F> {
    task: Pin<Box<F>>,
    pulse: Arc<Pulse>,
    waker: Option<(Arc<TaskWaker>, Waker)>,
}

impl<F: Future> Tracked<F> {
    pub(super) fn new(pulse: Arc<Pulse>, task: F) -> Tracked<F> {
        pulse.runnable.fetch_add(1, Ordering::Relaxed);
        Tracked { task: Box::pin(task), pulse, waker: None }
    }

    /// Notes that the poll has begun, and gives the waker to poll with.
    fn begin(&mut self, inner: &Waker) -> &Waker {
        match &self.waker {
            None => drop(self.pulse.runnable.fetch_sub(1, Ordering::Relaxed)),
            Some((task, _)) if task.inner.will_wake(inner) => task.leave(0),
            Some((task, _)) => {
                task.leave(DONE);
                self.waker = None;
            }
        }
        let polls = self.pulse.polls.load(Ordering::Relaxed);
        // Only the shard's own thread writes it.
        self.pulse.polls.store(polls.wrapping_add(1), Ordering::Relaxed);
        &self
            .waker
            .get_or_insert_with(|| {
                let task = Arc::new(TaskWaker {
                    pulse: self.pulse.clone(),
                    inner: inner.clone(),
                    state: AtomicU8::new(0),
                });
                (task.clone(), Waker::from(task))
            })
            .1
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let waker = this.begin(cx.waker()).clone();
        let fail_stop = this.pulse.abort_on_panic.then_some(AbortOnPanic);
        this.pulse.polling.store(true, Ordering::Relaxed);
        let outcome = this.task.as_mut().poll(&mut Context::from_waker(&waker));
        this.pulse.polling.store(false, Ordering::Relaxed);
        drop(fail_stop);
        outcome
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        match &self.waker {
            None => drop(self.pulse.runnable.fetch_sub(1, Ordering::Relaxed)),
            Some((task, _)) => task.leave(DONE),
        }
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic hook has already printed what and where.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    #[test]
    fn a_task_is_runnable_from_its_wake_up_to_its_poll() {
        let pulse = Pulse::new(false);
        let seen: Rc<RefCell<Option<Waker>>> = Rc::default();
        let rounds = Rc::new(RefCell::new(0));
        let task = Tracked::new(pulse.clone(), {
            let (seen, rounds) = (seen.clone(), rounds.clone());
            poll_fn(move |cx| {
                *seen.borrow_mut() = Some(cx.waker().clone());
                *rounds.borrow_mut() += 1;
                if *rounds.borrow() == 3 { Poll::Ready(()) } else { Poll::Pending }
            })
        });
        assert_eq!(pulse.runnable(), 1, "from the spawn on");
        let mut task = Box::pin(task);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut cx).is_pending());
        assert_eq!((pulse.runnable(), pulse.polls()), (0, 1));
        let waker = seen.borrow().clone().unwrap();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(pulse.runnable(), 1, "woken twice is runnable once");
        std::thread::spawn(move || waker.wake()).join().unwrap();
        assert_eq!(pulse.runnable(), 1);
        assert!(task.as_mut().poll(&mut cx).is_pending());
        assert_eq!(pulse.runnable(), 0);
        assert!(task.as_mut().poll(&mut cx).is_ready());
        let waker = seen.borrow().clone().unwrap();
        waker.wake_by_ref();
        drop(task);
        waker.wake();
        assert_eq!((pulse.runnable(), pulse.polls()), (0, 3), "an ended task does not count");
    }

    #[test]
    fn a_task_dropped_before_its_first_poll_does_not_count() {
        let pulse = Pulse::new(false);
        drop(Tracked::new(pulse.clone(), async {}));
        assert_eq!(pulse.runnable(), 0);
    }
}
