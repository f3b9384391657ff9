//! The real world of a shard: glommio's executor, io_uring and direct IO behind the seams.
//!
//! Two facts of glommio 0.9 shape this file; both were measured.
//!
//! **A shard can sleep with work to do.** The executor asks whether it must give way before it has
//! run anything; when its latency ring holds an event at that moment (an expired preempt timer, a
//! late wake-up from another thread) it reports "nothing ran", swallows the event, and parks
//! although tasks are runnable. Hence: the preempt timer is so long that it never fires
//! ([`start`]), no queue is latency-sensitive (its completions would land in that ring), fairness
//! comes from the tasks ([`Env::turn`]), and every task is counted as runnable from wake-up to poll
//! ([`pulse`]), so that a watchdog can see the one thing that must never be: a parked thread with
//! runnable tasks.
//!
//! **Yielding does not poll IO.** Only a timer in the future does, so a turn is a timer of 1 µs
//! (one of 0 starves sockets). Whether the reactor had a turn of its own since is read from the
//! executor's run time, which it only moves between two turns.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glommio::timer::Timer;
use glommio::{Latency, Shares, TaskQueueHandle};
use nix::sys::resource::{Resource, getrlimit};

use crate::env::{Entry, Env, Open, Queue, Space};
use crate::time::{Instant, Timestamp};

mod file;
mod probe;
pub mod pulse;
mod random;
pub mod start;
#[cfg(test)]
mod tests;

pub use file::{UringBlock, UringFile, UringRead};
pub use start::{ShardOptions, Shards, StartError, run, start_shards};

use probe::Probe;
use pulse::{Pulse, Tracked};
use random::Random;

/// How long the tasks of a shard may work before [`Env::turn`] gives the reactor a turn. At this
/// value the turns cost 8 % of the work (40–60 µs each).
const TURN_BUDGET: Duration = Duration::from_micros(500);

/// The timer that makes a turn. Not zero: a timer that has already expired starves sockets.
const TURN_TIMER: Duration = Duration::from_micros(1);

/// One shard's environment. A clone is a pointer; it never leaves its thread.
#[derive(Clone)]
pub struct UringEnv(Rc<Shard>);

/// What the clones share.
struct Shard {
    index: usize,
    shards: usize,
    /// Zero of the monotonic clock, the same in every shard of a start.
    origin: std::time::Instant,
    pulse: std::sync::Arc<Pulse>,
    queues: [TaskQueueHandle; 4],
    random: Random,
    /// The executor's run time when [`Env::turn`] last saw it change, and when that was.
    turn_seen: Cell<Duration>,
    turn_since: Cell<Instant>,
    /// Devices (`st_dev`) whose direct IO is known, or being found out.
    probes: RefCell<BTreeMap<u64, Probe>>,
    /// Whether `/proc/self/fd` is there, so that an open file can be opened a second time.
    proc_fd: bool,
    /// A descriptor from here on says that there are few left.
    scarce_from: RawFd,
    /// Until then files have no second one: other files and connections need them.
    scarce_until: Cell<Instant>,
}

impl UringEnv {
    /// Makes the environment of the executor that runs on this thread.
    fn new(seat: start::Seat, random: Random) -> UringEnv {
        let executor = glommio::executor();
        // Shares are out of 1,000: what waits for a client goes first, what nobody waits for last.
        let queue = |shares, name| {
            executor.create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
        };
        UringEnv(Rc::new(Shard {
            index: seat.index,
            shards: seat.shards,
            origin: seat.origin,
            pulse: seat.pulse,
            queues: [
                queue(1_000, "request"),
                queue(800, "replication"),
                queue(1_000, "storage"),
                queue(100, "background"),
            ],
            random,
            turn_seen: Cell::new(Duration::ZERO),
            turn_since: Cell::new(Instant::ZERO),
            probes: RefCell::new(BTreeMap::new()),
            proc_fd: Path::new("/proc/self/fd").is_dir(),
            scarce_from: scarce_from(),
            scarce_until: Cell::new(Instant::ZERO),
        }))
    }

    /// Which shard this is, `0..shards`.
    pub fn shard(&self) -> usize {
        self.0.index
    }

    /// How many shards were started together.
    pub fn shards(&self) -> usize {
        self.0.shards
    }

    /// What this shard publishes for the watchdog.
    pub fn pulse(&self) -> &std::sync::Arc<Pulse> {
        &self.0.pulse
    }

    /// Whether files in `dir` bypass the page cache. `false` where the file system refuses
    /// `O_DIRECT` (or is memory): everything keeps its meaning there, through buffered IO.
    pub async fn direct_io(&self, dir: &Path) -> io::Result<bool> {
        probe::direct_io(self, dir).await
    }
}

impl Env for UringEnv {
    type File = UringFile;

    fn now(&self) -> Instant {
        let nanos = self.0.origin.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Timestamp(millis)
    }

    async fn sleep_until(&self, at: Instant) {
        let wait = at.since(self.now());
        if !wait.is_zero() {
            Timer::new(wait).await;
        }
    }

    fn spawn(&self, queue: Queue, task: impl Future<Output = ()> + 'static) {
        let queue = self.0.queues[match queue {
            Queue::Request => 0,
            Queue::Replication => 1,
            Queue::Storage => 2,
            Queue::Background => 3,
        }];
        glommio::spawn_local_into(Tracked::new(self.0.pulse.clone(), task), queue)
            .expect("the shard's queues live as long as its executor")
            .detach();
    }

    async fn turn(&self) {
        let (shard, now) = (&self.0, self.now());
        let run_time = glommio::executor().executor_stats().total_runtime();
        if run_time != shard.turn_seen.get() {
            // The reactor had a turn since somebody last asked: the budget begins anew.
            shard.turn_seen.set(run_time);
            shard.turn_since.set(now);
        } else if now.since(shard.turn_since.get()) >= TURN_BUDGET {
            Timer::new(TURN_TIMER).await;
        }
    }

    fn random(&self) -> u64 {
        self.0.random.next()
    }

    fn block(&self, len: usize) -> UringBlock {
        UringBlock::new(len)
    }

    async fn open(&self, path: &Path, how: Open) -> io::Result<UringFile> {
        file::open(self, path, how).await
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        on_path(path, std::fs::create_dir_all).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        on_path(path, |path| list(&path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        on_path(from, move |from| std::fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        on_path(path, std::fs::remove_file).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        on_path(path, std::fs::remove_dir).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // A real fsync: what fdatasync means for a directory differs between file systems, and the
        // ring offers, through glommio, only that.
        on_path(path, |path| std::fs::File::open(path)?.sync_all()).await
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        on_path(path, |path| {
            let volume = nix::sys::statvfs::statvfs(&path)?;
            let bytes = |blocks: u64| blocks.saturating_mul(volume.fragment_size());
            Ok(Space {
                total_bytes: bytes(volume.blocks()),
                usable_bytes: bytes(volume.blocks_available()),
            })
        })
        .await
    }
}

/// Three quarters of what the process may open; everything, if that is not known.
fn scarce_from() -> RawFd {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    RawFd::try_from(most / 4 * 3).unwrap_or(RawFd::MAX)
}

/// Runs a call that io_uring has no operation for on one of the shard's blocking threads.
async fn on_path<T: Send + 'static>(
    path: &Path,
    call: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let path = path.to_owned();
    glommio::executor().spawn_blocking(move || call(path)).await
}

fn list(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = metadata.is_dir();
        entries.push(Entry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
    }
    entries.sort();
    Ok(entries)
}

/// The error of the kernel inside glommio's: its own conversion keeps the kind but loses the
/// number.
pub fn os_error<T>(error: glommio::GlommioError<T>) -> io::Error {
    match error {
        glommio::GlommioError::IoError(error) => error,
        glommio::GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::from(other),
    }
}
