//! Starting shards: one thread with one executor each.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::pulse::{Pulse, Tracked};
use super::random::Random;
use super::{UringEnv, os_error};

/// Bytes that glommio registers with each of a shard's three rings, for reads. Three times this
/// per shard counts against the memlock limit, 8 MiB by default; where that is used up glommio
/// goes on without registering.
const IO_MEMORY_BYTES: usize = 256 << 10;

/// Threads per shard for the calls that io_uring has no operation for (rename, unlink, fsync of a
/// directory …). More than one, so that the fsyncs of many directories share journal commits.
const BLOCKING_THREADS: usize = 4;

/// How the shards of a process are started.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Whether shard `i` is bound to the `i`-th processor that the process may use.
    pub pin: bool,
    /// How long an idle shard looks for work before it sleeps. Zero (the default) costs nothing
    /// when idle; 50 µs halves the latency between two busy shards and costs their cores.
    pub spin_before_park: Duration,
    /// Whether a panic in any task ends the process. Only tests turn it off.
    pub abort_on_panic: bool,
    /// How long tasks may run before the executor wants the core back: 10 s, which is never
    /// reached, because its expiry is what sends a shard to sleep with work to do (see the parent
    /// module). Only a test that provokes just that shortens it.
    pub preempt_timer: Duration,
}

impl Default for ShardOptions {
    fn default() -> Self {
        ShardOptions {
            pin: false,
            spin_before_park: Duration::ZERO,
            abort_on_panic: true,
            preempt_timer: Duration::from_secs(10),
        }
    }
}

/// Why a shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The thread could not be made or bound.
    #[error("shard {shard}: no thread: {source}")]
    Thread {
        /// Which shard.
        shard: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The executor could not set up its rings.
    #[error("shard {shard}: no io_uring: {source}")]
    Rings {
        /// Which shard.
        shard: usize,
        /// What the system, or glommio's own limit check, said.
        source: io::Error,
    },
}

/// What a shard is given before it exists.
pub(super) struct Seat {
    pub(super) index: usize,
    pub(super) shards: usize,
    pub(super) origin: std::time::Instant,
    pub(super) pulse: Arc<Pulse>,
}

/// Running shards.
pub struct Shards<T> {
    threads: Vec<JoinHandle<Option<T>>>,
    pulses: Vec<Arc<Pulse>>,
}

impl<T> Shards<T> {
    /// What each shard publishes, in order.
    pub fn pulses(&self) -> &[Arc<Pulse>] {
        &self.pulses
    }

    /// Waits until every shard's body has returned; an `Err` is the panic of one (only with
    /// `abort_on_panic` off). Whoever signals the threads must have stopped before.
    pub fn join(self) -> Vec<std::thread::Result<T>> {
        let outcome = |thread: JoinHandle<Option<T>>| {
            thread.join().map(|ran| ran.expect("a started shard has run its body"))
        };
        self.threads.into_iter().map(outcome).collect()
    }
}

/// Starts one shard for each of `ends`, which it is given (its ends of the lanes, say), and
/// returns when all of them have their rings. If one cannot have them, none runs its body.
///
/// A shard lives until its body's future completes; tasks that are still waiting then are never
/// polled again.
pub fn start_shards<S, F, Fut, T>(
    options: &ShardOptions,
    ends: Vec<S>,
    body: F,
) -> Result<Shards<T>, StartError>
where
    S: Send + 'static,
    F: Fn(UringEnv, S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (origin, shards, body) = (std::time::Instant::now(), ends.len(), Arc::new(body));
    let (ready_tx, ready_rx) = mpsc::channel();
    let mut running = Shards { threads: Vec::new(), pulses: Vec::new() };
    // Dropping a gate without opening it sends its shard home.
    let mut gates = Vec::new();
    for (index, end) in ends.into_iter().enumerate() {
        let pulse = Pulse::new(options.abort_on_panic);
        let seat = Seat { index, shards, origin, pulse: pulse.clone() };
        let (options, body, ready_tx) = (options.clone(), body.clone(), ready_tx.clone());
        let (gate_tx, gate_rx) = mpsc::channel::<()>();
        let shard = move || {
            let (executor, outcome) = match make(&options, index) {
                Ok(made) => (Some(made), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody listens only if another shard has failed already.
            drop(ready_tx.send(outcome));
            let (executor, random) = executor?;
            gate_rx.recv().ok()?;
            Some(run_on(&executor, random, seat, |env| body(env, end)))
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(shard)
            .map_err(|source| StartError::Thread { shard: index, source })?;
        running.threads.push(thread);
        running.pulses.push(pulse);
        gates.push(gate_tx);
    }
    for _ in 0..shards {
        ready_rx.recv().expect("every shard reports before it waits")?;
    }
    for gate in gates {
        gate.send(()).expect("a shard that reported waits at its gate");
    }
    Ok(running)
}

/// Runs `body` as a start of one shard on the calling thread; for tests and small tools. A panic
/// comes out as one.
pub fn run<Fut: Future>(body: impl FnOnce(UringEnv) -> Fut) -> Result<Fut::Output, StartError> {
    let options = ShardOptions { abort_on_panic: false, ..ShardOptions::default() };
    let (executor, random) = make(&options, 0)?;
    let origin = std::time::Instant::now();
    let seat = Seat { index: 0, shards: 1, origin, pulse: Pulse::new(false) };
    Ok(run_on(&executor, random, seat, body))
}

/// Makes the executor of the shard that will run on this thread.
fn make(options: &ShardOptions, shard: usize) -> Result<(LocalExecutor, Random), StartError> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("shard")
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(options.preempt_timer)
        .spin_before_park(options.spin_before_park)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .make()
        .map_err(|error| StartError::Rings { shard, source: os_error(error) })?;
    let rest = || {
        if options.pin {
            pin(shard)?;
        }
        Random::from_os()
    };
    let random = rest().map_err(|source| StartError::Thread { shard, source })?;
    Ok((executor, random))
}

/// Binds this thread to one of the processors that it may use. After the executor has made its
/// blocking threads, which would inherit it.
fn pin(shard: usize) -> io::Result<()> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let cpus: Vec<usize> =
        (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let mut one = CpuSet::new();
    one.set(cpus[shard % cpus.len()])?;
    sched_setaffinity(this_thread, &one)?;
    Ok(())
}

fn run_on<Fut: Future>(
    executor: &LocalExecutor,
    random: Random,
    seat: Seat,
    body: impl FnOnce(UringEnv) -> Fut,
) -> Fut::Output {
    let pulse = seat.pulse.clone();
    pulse.begin();
    let outcome = executor.run(Tracked::new(pulse.clone(), async move {
        // In the task, so that a panic here, too, is a panic of the shard.
        body(UringEnv::new(seat, random)).await
    }));
    pulse.end();
    outcome
}
