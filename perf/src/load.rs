//! Load: connections that send by a schedule, and what became of it.
//!
//! Each connection is two threads: one sends what is due, whatever the answers do, the other takes
//! the answers. A request that cannot go out in time, because this thread was late or the socket
//! was full, goes out as soon as it can and keeps the time at which it was due; its latency counts
//! from there. At [`Pace::Max`] there is no schedule: a connection keeps a fixed number of
//! requests in flight, which measures throughput, and latency only as what that queue costs.

use std::sync::mpsc::{self, Receiver as Queue, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use net::client::{Answer, Client, ClientError, Receiver, Sender};

use crate::error::PerfError;
use crate::latency::Timings;
use crate::machine;
use crate::schedule::{Arrivals, Schedule};
use crate::template::Mark;

/// Requests that may be on their way on one connection of a scheduled run; the schedule is kept
/// beyond this, too, but late.
const OUTSTANDING_MAX: usize = 16 << 10;
/// Time for all threads to stand ready.
const START: Duration = Duration::from_millis(50);

/// When requests go out.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// On a schedule, this many per second over all connections.
    Open {
        /// Requests per second.
        per_second: f64,
        /// Their distribution in time.
        arrivals: Arrivals,
        /// For the distribution.
        seed: u64,
    },
    /// A fixed number in flight per connection, at least 1.
    Max {
        /// The number.
        in_flight: usize,
    },
}

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// When requests go out.
    pub pace: Pace,
    /// Time at the beginning that does not count.
    pub warm_up: Duration,
    /// Time that counts.
    pub time: Duration,
    /// Whether requests are answered (acks=0 is not).
    pub answered: bool,
    /// Process whose processor time is taken.
    pub pid: Option<u32>,
}

/// Makes a connection's requests, one after the other.
pub trait Ask: Send {
    /// The frame of the next; its correlation id is overwritten.
    fn next(&mut self, mark: Mark) -> &mut [u8];
}

/// Looks at a connection's answers.
pub trait Take: Send {
    /// How many payload bytes the answer stands for; an error ends the run.
    fn take(&mut self, answer: Answer<'_>) -> Result<u64, PerfError>;
}

/// One connection with what it does.
pub struct Lane {
    /// The connection.
    pub client: Client,
    /// Its requests.
    pub ask: Box<dyn Ask>,
    /// Its answers.
    pub take: Box<dyn Take>,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of requests that were due (at maximum: answered) in the time that counts.
    pub timings: Timings,
    /// How many requests were due in the time that counts; 0 at maximum.
    pub due: u64,
    /// How many of them were answered (sent, where there are no answers).
    pub done: u64,
    /// Bytes that they stand for.
    pub bytes: u64,
    /// From when the count began until the last of them was done.
    pub elapsed: Duration,
    /// All requests that were sent, those that do not count included.
    pub sent: u64,
    /// Processor time of the process that was watched, from when the count began to the end.
    pub cpu: Option<Duration>,
}

/// Nanoseconds since the beginning of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that is zero `after` from now.
    pub fn starting(after: Duration) -> Clock {
        Clock(Instant::now() + after)
    }

    /// The time; 0 before the beginning.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Sleeps until then; at once if it has passed.
    pub fn sleep_until(&self, at: u64) {
        let wait = (self.0 + Duration::from_nanos(at)).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
    }
}

/// A request on its way.
struct Sent {
    due: u64,
    begun: u64,
}

/// What one thread of a connection counted.
struct Part {
    timings: Timings,
    due: u64,
    done: u64,
    bytes: u64,
    last: u64,
    sent: u64,
}

impl Part {
    fn new() -> Part {
        Part { timings: Timings::new(), due: 0, done: 0, bytes: 0, last: 0, sent: 0 }
    }
}

/// The time that counts, in ns of the run's clock.
#[derive(Clone, Copy)]
struct Window {
    from: u64,
    to: u64,
}

impl Window {
    fn has(&self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// When a run begins: it is given before, because requests carry times of it.
pub fn clock() -> Clock {
    Clock::starting(START)
}

/// Runs all lanes to their end.
pub fn run(run: &Run, clock: Clock, lanes: Vec<Lane>) -> Result<Outcome, PerfError> {
    let from = run.warm_up.as_nanos() as u64;
    let window = Window { from, to: from + run.time.as_nanos() as u64 };
    let count = lanes.len();
    let (parts, cpu) = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, lane) in lanes.into_iter().enumerate() {
            let (sender, receiver) = lane.client.split();
            let (on_way, answers_due) = mpsc::sync_channel(OUTSTANDING_MAX);
            let (permits, permitted) = permits(run);
            let schedule = match run.pace {
                Pace::Open { per_second, arrivals, seed } => {
                    Some(Schedule::new(arrivals, per_second, number, count, seed))
                }
                Pace::Max { .. } => None,
            };
            let scheduled = schedule.is_some();
            let connection = number as u32;
            let place = Place { connection, window, clock, answered: run.answered, scheduled };
            let (ask, take) = (lane.ask, lane.take);
            threads
                .push(scope.spawn(move || send(place, sender, ask, schedule, permitted, on_way)));
            if run.answered {
                let receiving = move || receive(place, receiver, take, answers_due, permits);
                threads.push(scope.spawn(receiving));
            }
        }
        let cpu = watch(run, clock, window);
        let parts: Vec<_> =
            threads.into_iter().map(|t| t.join().expect("no thread of a run panics")).collect();
        // At maximum the load ends with the window; a schedule is over when all is answered.
        let cpu = match (run.pace, cpu) {
            (Pace::Open { .. }, Some((begin, _))) => cpu_since(run.pid, begin),
            (_, cpu) => cpu.map(|(begin, end)| end.saturating_sub(begin)),
        };
        (parts, cpu)
    });
    gather(parts, cpu, window)
}

/// What limits the requests in flight of one connection: a permit for each, given back with its
/// answer. A schedule has none.
fn permits(run: &Run) -> (SyncSender<()>, Queue<()>) {
    let in_flight = match run.pace {
        Pace::Max { in_flight } => in_flight.max(1),
        Pace::Open { .. } => 0,
    };
    let (permits, permitted) = mpsc::sync_channel(in_flight);
    for _ in 0..in_flight {
        permits.send(()).expect("the other end is in the next line");
    }
    (permits, permitted)
}

/// Processor time of the watched process when the window opens and closes.
fn watch(run: &Run, clock: Clock, window: Window) -> Option<(Duration, Duration)> {
    let pid = run.pid?;
    clock.sleep_until(window.from);
    let begin = machine::process_cpu(pid).ok()?;
    clock.sleep_until(window.to);
    Some((begin, machine::process_cpu(pid).ok()?))
}

fn cpu_since(pid: Option<u32>, begin: Duration) -> Option<Duration> {
    Some(machine::process_cpu(pid?).ok()?.saturating_sub(begin))
}

fn gather(
    parts: Vec<Result<Part, PerfError>>,
    cpu: Option<Duration>,
    window: Window,
) -> Result<Outcome, PerfError> {
    let mut all = Part::new();
    for part in parts {
        let part = part?;
        all.timings.merge(&part.timings);
        all.due += part.due;
        all.done += part.done;
        all.bytes += part.bytes;
        all.sent += part.sent;
        all.last = all.last.max(part.last);
    }
    Ok(Outcome {
        timings: all.timings,
        due: all.due,
        done: all.done,
        bytes: all.bytes,
        elapsed: Duration::from_nanos(all.last.max(window.to) - window.from),
        sent: all.sent,
        cpu,
    })
}

/// Where a thread stands in its run.
#[derive(Clone, Copy)]
struct Place {
    connection: u32,
    window: Window,
    clock: Clock,
    answered: bool,
    scheduled: bool,
}

/// The sending half of a connection.
fn send(
    place: Place,
    mut sender: Sender,
    mut ask: Box<dyn Ask>,
    mut schedule: Option<Schedule>,
    permitted: Queue<()>,
    on_way: SyncSender<Sent>,
) -> Result<Part, PerfError> {
    machine::sharpen_timers();
    let (clock, window) = (place.clock, place.window);
    let mut part = Part::new();
    clock.sleep_until(0);
    loop {
        // A receiver that is gone has failed, and says why.
        if !place.scheduled && place.answered && permitted.recv().is_err() {
            break;
        }
        let now = clock.now();
        let due = schedule.as_mut().and_then(Schedule::next).unwrap_or(now);
        if due >= window.to {
            break;
        }
        clock.sleep_until(due);
        let begun = clock.now();
        if place.answered && on_way.send(Sent { due, begun }).is_err() {
            break;
        }
        let (sequence, connection) = (part.sent, place.connection);
        sender.send_frame(ask.next(Mark { due, sequence, connection }))?;
        part.sent += 1;
        let counts = window.has(due);
        part.due += u64::from(counts && place.scheduled);
        if !place.answered && counts {
            let over = clock.now();
            part.timings.record(due, begun, over);
            part.done += 1;
            part.last = over;
        }
    }
    Ok(part)
}

/// The answering half. Without a schedule a request is due when it is sent.
fn receive(
    place: Place,
    mut receiver: Receiver,
    mut take: Box<dyn Take>,
    on_way: Queue<Sent>,
    permits: SyncSender<()>,
) -> Result<Part, PerfError> {
    let (clock, window) = (place.clock, place.window);
    let mut part = Part::new();
    let mut want = None;
    for sent in on_way {
        let answer = receiver.receive()?;
        let over = clock.now();
        let (got, due) = (answer.correlation_id, want.unwrap_or(answer.correlation_id));
        if got != due {
            return Err(ClientError::Correlation { want: due, got }.into());
        }
        want = Some(due.wrapping_add(1));
        let bytes = take.take(answer)?;
        if !place.scheduled {
            // Nobody takes it any more when the time is up.
            let _ = permits.try_send(());
        }
        if window.has(if place.scheduled { sent.due } else { over }) {
            part.timings.record(sent.due, sent.begun, over);
            part.done += 1;
            part.bytes += bytes;
            part.last = over;
        }
    }
    Ok(part)
}
