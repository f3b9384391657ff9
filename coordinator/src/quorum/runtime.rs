//! What openraft needs of a runtime, over the environment of this crate: tasks, time, randomness,
//! channels. It knows nothing of quorums.
//!
//! openraft asks its runtime through functions without a receiver, so that the environment must be
//! found from where a task is polled. Every future that openraft runs is wrapped in a [`Within`],
//! which names its environment for the length of each poll (and of its drop) and then puts back
//! what was named before. So several simulated nodes share one thread, and none can reach another's
//! clock.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::env::{Env, Queue};
use engine::time::Instant;
use futures_lite::future;
use openraft::async_runtime::AsyncRuntime;

mod mpsc;
mod mutex;
pub(super) mod oneshot;
mod watch;

pub use mpsc::Channels;
pub use mutex::{Guard, Lock};
pub use oneshot::{Dropped, Oneshots};
pub use watch::Watches;

thread_local! {
    /// Whose future is being polled.
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// An environment without its type: the part of it that openraft asks for.
trait Seam {
    fn now(&self) -> Instant;
    fn random(&self) -> u64;
    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()>>>;
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>);
}

impl<E: Env> Seam for E {
    fn now(&self) -> Instant {
        Env::now(self)
    }

    fn random(&self) -> u64 {
        Env::random(self)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        let env = self.clone();
        Box::pin(async move { Env::sleep_until(&env, at).await })
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>) {
        Env::spawn(self, Queue::Request, task);
    }
}

/// The environment that a quorum runs in. Cloning shares it.
#[derive(Clone)]
pub struct World(Rc<dyn Seam>);

impl World {
    /// Of an environment.
    pub fn new<E: Env>(env: &E) -> World {
        World(Rc::new(env.clone()))
    }

    /// A future that runs in this environment, wherever it is polled.
    pub fn within<F: Future>(&self, future: F) -> Within<F> {
        Within { world: self.clone(), future: Some(Box::pin(future)) }
    }

    /// Runs `what` in this environment.
    pub fn enter<T>(&self, what: impl FnOnce() -> T) -> T {
        let before = CURRENT.with(|current| current.replace(Some(self.clone())));
        let _restore = Restore(before);
        what()
    }

    fn current() -> World {
        CURRENT
            .with(|current| current.borrow().clone())
            .expect("what asks openraft's runtime runs within a world")
    }
}

/// Puts back the environment that was named before, also when a poll panics.
struct Restore(Option<World>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        // Fails only while the thread ends, and then nothing is polled any more.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

/// A future that runs in one environment.
pub struct Within<F> {
    world: World,
    /// Taken when it is dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let world = self.world.clone();
        let future = self.future.as_mut().expect("it is there until it is dropped");
        world.enter(|| future.as_mut().poll(context))
    }
}

impl<F> Drop for Within<F> {
    fn drop(&mut self) {
        let future = self.future.take();
        self.world.clone().enter(|| drop(future));
    }
}

/// openraft's runtime over the current [`World`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Runtime;

/// A moment on the current world's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Instant);

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl openraft::Instant for Moment {
    fn now() -> Moment {
        Moment(World::current().0.now())
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, by: Duration) -> Moment {
        Moment(self.0.after(by))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, by: Duration) -> Moment {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Moment(Instant::from_nanos(self.0.nanos().saturating_sub(by)))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, by: Duration) {
        *self = *self - by;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.0.since(earlier.0)
    }
}

/// Random numbers of the current world.
#[derive(Debug)]
pub struct Draws;

impl rand::TryRng for Draws {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((World::current().0.random() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(World::current().0.random())
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in into.chunks_mut(8) {
            chunk.copy_from_slice(&World::current().0.random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A wait for a moment.
pub struct Sleep(Pin<Box<dyn Future<Output = ()>>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

/// The time for something was up before it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the time is up")]
pub struct TimeIsUp;

/// A future and the moment at which it is given up.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimeIsUp>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(TimeIsUp))
    }
}

/// A task's result, to wait for. Dropping it does not end the task.
pub struct Joined<T>(oneshot::Receiver<T>);

impl<T> Future for Joined<T> {
    type Output = Result<T, Dropped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = Dropped;
    type JoinHandle<T: 'static> = Joined<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = TimeIsUp;
    type Timeout<R, T: Future<Output = R>> = Timeout<T>;
    type ThreadLocalRng = Draws;
    type Mpsc = Channels;
    type Watch = Watches;
    type Oneshot = Oneshots;
    type Mutex<T: 'static> = Lock<T>;

    fn spawn<T>(future: T) -> Joined<T::Output>
    where
        T: Future + 'static,
        T::Output: 'static,
    {
        let world = World::current();
        let (sender, receiver) = oneshot::channel();
        let task = world.within(async move {
            let _ = openraft::async_runtime::OneshotSender::send(sender, future.await);
        });
        world.0.spawn(Box::pin(task));
        Joined(receiver)
    }

    fn sleep(duration: Duration) -> Sleep {
        Self::sleep_until(Moment(World::current().0.now()) + duration)
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        Sleep(World::current().0.sleep_until(deadline.0))
    }

    fn timeout<R, F: Future<Output = R>>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R>>(deadline: Moment, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    /// No: a panic ends the process, or the test.
    fn is_panic(_error: &Dropped) -> bool {
        false
    }

    fn thread_rng() -> Draws {
        Draws
    }

    fn new(_threads: usize) -> Runtime {
        Runtime
    }

    /// On this thread, in the current world; whoever made that world drives it.
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        let world = World::current();
        future::block_on(world.within(future))
    }
}
