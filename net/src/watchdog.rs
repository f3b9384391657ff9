//! The watchdog: one plain thread per process that looks at every shard ten times a second.
//!
//! A shard whose tasks are runnable while its thread sleeps has fallen into the executor's trap
//! (see `engine::env::uring`). Neither a timer nor another thread's wake-up gets it out, but an
//! interrupted system call does: the watchdog sends its thread a signal whose action is to do
//! nothing. With the long preempt timer that shards run with this has not been seen; it is here
//! because a shard that stops is an outage and a look costs nothing.
//!
//! It also sees a task that keeps its core for longer than two looks, and says so.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::env::uring::{Pulse, Shards};

/// How often it looks. A shard that stands still for a whole interval is interrupted.
const INTERVAL: Duration = Duration::from_millis(100);

/// The signal that interrupts: one that is ignored by default, so that it cannot hurt.
const INTERRUPT: Signal = Signal::SIGURG;

/// What the watchdog has seen; metrics of the process. Lives on every thread.
#[derive(Default, Debug)]
pub struct WatchdogCounts {
    interrupts: AtomicU64,
    rescues: AtomicU64,
    stalls: AtomicU64,
}

impl WatchdogCounts {
    /// Signals sent to a shard that slept with runnable tasks.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// How often a shard moved on after such a signal.
    pub fn rescues(&self) -> u64 {
        self.rescues.load(Ordering::Relaxed)
    }

    /// How often one task kept its shard from one look to the next.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }
}

/// The running watchdog; dropping it ends it. It signals threads, so it must end before they are
/// joined, which is why it borrows their shards.
pub struct Watchdog<'a> {
    counts: Arc<WatchdogCounts>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    shards: PhantomData<&'a ()>,
}

impl<'a> Watchdog<'a> {
    /// Begins to watch `shards`.
    pub fn start<T>(shards: &'a Shards<T>) -> io::Result<Watchdog<'a>> {
        take_the_signal()?;
        let counts = Arc::<WatchdogCounts>::default();
        let mut watches: Vec<Watch> = shards.pulses().iter().cloned().map(Watch::new).collect();
        let (stop, stopped) = mpsc::channel();
        let shared = counts.clone();
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for (shard, watch) in watches.iter_mut().enumerate() {
                    watch.look(shard, &shared);
                }
            }
        })?;
        Ok(Watchdog { counts, stop: Some(stop), thread: Some(thread), shards: PhantomData })
    }

    /// What it has seen so far, and will.
    pub fn counts(&self) -> &Arc<WatchdogCounts> {
        &self.counts
    }
}

impl Drop for Watchdog<'_> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nobody else to tell.
            drop(thread.join());
        }
    }
}

/// What was seen of one shard at the last look.
struct Watch {
    pulse: Arc<Pulse>,
    polls: u64,
    /// Since when it has stood still with something to do, and what was done about it.
    standing: Option<Standing>,
}

struct Standing {
    since: Instant,
    verdict: Option<Verdict>,
}

/// Why a shard stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Its thread sleeps although tasks are runnable.
    Asleep,
    /// One task is being polled all the time.
    Held,
}

impl Watch {
    fn new(pulse: Arc<Pulse>) -> Watch {
        Watch { polls: pulse.polls(), pulse, standing: None }
    }

    fn look(&mut self, shard: usize, counts: &WatchdogCounts) {
        let polls = self.pulse.polls();
        let (runnable, polling) = (self.pulse.runnable(), self.pulse.polling());
        if polls != self.polls || self.pulse.ended() || (runnable == 0 && !polling) {
            self.polls = polls;
            if let Some(standing) = self.standing.take() {
                self.moved_on(shard, &standing, counts);
            }
            return;
        }
        let Some(standing) = &mut self.standing else {
            self.standing = Some(Standing { since: Instant::now(), verdict: None });
            return;
        };
        let Some((thread, id)) = self.pulse.thread() else { return };
        let verdict = if polling { Verdict::Held } else { Verdict::Asleep };
        if verdict == Verdict::Asleep && !sleeps(id.as_raw()) {
            // It waits for its core.
            return;
        }
        let first = standing.verdict.is_none();
        standing.verdict = Some(verdict);
        match verdict {
            Verdict::Asleep => {
                if first {
                    tracing::warn!(shard, runnable, "shard sleeps with work to do; waking it");
                }
                counts.interrupts.fetch_add(1, Ordering::Relaxed);
                // It can only fail for a thread that has ended, which needs no help.
                let _ = pthread_kill(thread, INTERRUPT);
            }
            Verdict::Held if first => {
                counts.stalls.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(shard, runnable, "one task keeps the shard");
            }
            Verdict::Held => {}
        }
    }

    fn moved_on(&self, shard: usize, standing: &Standing, counts: &WatchdogCounts) {
        let millis = standing.since.elapsed().as_millis() as u64;
        match standing.verdict {
            None => {}
            Some(Verdict::Asleep) => {
                counts.rescues.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(shard, millis, "shard works again");
            }
            Some(Verdict::Held) => tracing::warn!(shard, millis, "shard works again"),
        }
    }
}

/// Whether a thread of this process sleeps (and can be interrupted); `true` if nobody can tell.
fn sleeps(thread: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")) else {
        return true;
    };
    // `id (name) state …`, and the name may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Makes the signal interrupt a system call and do nothing else.
#[allow(unsafe_code)]
fn take_the_signal() -> io::Result<()> {
    extern "C" fn nothing(_: nix::libc::c_int) {}
    // Without SA_RESTART: the call must return.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, which is safe at any moment, and lives as long as the
    // program; nobody else in this process uses this signal.
    unsafe { sigaction(INTERRUPT, &action) }?;
    Ok(())
}
