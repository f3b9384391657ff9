//! Groups of many members that come and go, in either protocol.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::consumer::{Consumers, are_settled};
use super::member::{Group, Member, is_to_join_again};
use crate::error::{PerfError, system};
use crate::load::Clock;

/// Between two heartbeats of a member: a third (classic) or a fifth (consumer protocol) of what
/// clients do unasked, so that a run is short; the broker has the more to do.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long a crowd may take to settle.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// Connections for the members of the consumer protocol.
const PARTS: usize = 8;
/// Stack of a member's thread, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// The members of a group.
pub trait Crowd {
    /// Lets `time` pass, in which so many members come or go each second, in turn: the oldest goes.
    fn live(&mut self, time: Duration, per_second: Option<f64>) -> Result<(), PerfError>;
    /// Waits until all are in one generation; how long that took.
    fn settle(&mut self) -> Result<Duration, PerfError>;
    /// Generation or epoch of the group, as far as members know.
    fn generation(&self) -> i32;
}

fn unsettled<T>() -> Result<T, PerfError> {
    Err(PerfError::Wrong(format!("LIVELOCK: no stable generation after {PATIENCE:?}")))
}

/// What a member of the classic protocol and its thread tell each other.
struct Seat {
    /// The generation that it has its share of; -1 while it joins.
    generation: AtomicI32,
    /// When it last heard that this is the newest, in ns of the crowd's clock.
    confirmed: AtomicU64,
    leaves: AtomicBool,
}

impl Seat {
    fn confirm(&self, generation: i32, clock: Clock) {
        self.confirmed.store(clock.now(), Ordering::SeqCst);
        self.generation.store(generation, Ordering::SeqCst);
    }

    fn leaves(&self) -> bool {
        self.leaves.load(Ordering::SeqCst)
    }
}

type Life = JoinHandle<Result<(), PerfError>>;

/// Members of the classic protocol, each on a thread, because joining waits for all others.
pub struct Classic {
    group: Arc<Group>,
    clock: Clock,
    /// The oldest first.
    members: VecDeque<(Arc<Seat>, Life)>,
    leaving: Vec<Life>,
    next: u32,
    /// The last that all were in.
    generation: i32,
}

impl Classic {
    /// `count` members that begin to join.
    pub fn gather(group: &Arc<Group>, count: usize) -> Result<Classic, PerfError> {
        let (clock, group) = (Clock::starting(Duration::ZERO), group.clone());
        let (members, leaving) = (VecDeque::new(), Vec::new());
        let mut crowd = Classic { group, clock, members, leaving, next: 0, generation: 0 };
        (0..count).try_for_each(|_| crowd.come())?;
        Ok(crowd)
    }

    fn come(&mut self) -> Result<(), PerfError> {
        let (confirmed, leaves) = (AtomicU64::new(0), AtomicBool::new(false));
        let seat = Arc::new(Seat { generation: AtomicI32::new(-1), confirmed, leaves });
        // Heartbeats are spread over time, as those of clients that started on their own.
        let first = BEAT * (self.next % 100) / 100;
        self.next += 1;
        let (group, clock, mine) = (self.group.clone(), self.clock, seat.clone());
        let thread = thread::Builder::new().stack_size(STACK_BYTES);
        let life = thread.spawn(move || live(&group, &mine, clock, first));
        self.members.push_back((seat, life.map_err(system("a thread for a member"))?));
        Ok(())
    }

    fn go(&mut self) {
        let Some((seat, life)) = self.members.pop_front() else { return };
        seat.leaves.store(true, Ordering::SeqCst);
        life.thread().unpark();
        self.leaving.push(life);
    }

    /// Waits for those that leave.
    fn see_off(&mut self) -> Result<(), PerfError> {
        let mut lives = std::mem::take(&mut self.leaving).into_iter();
        lives.try_for_each(|life| life.join().expect("no member panics"))
    }

    /// The generation that all are in, heard after `since`.
    fn common(&self, since: u64) -> Option<i32> {
        let seats = || self.members.iter().map(|(seat, _)| seat);
        let generation = seats().next()?.generation.load(Ordering::SeqCst);
        let is_in = |seat: &Arc<Seat>| {
            seat.generation.load(Ordering::SeqCst) == generation
                && seat.confirmed.load(Ordering::SeqCst) > since
        };
        seats().all(is_in).then_some(generation).filter(|generation| *generation >= 0)
    }
}

/// A member's life: joins, tells that it lives, joins again when it is told to, and leaves.
fn live(group: &Arc<Group>, seat: &Seat, clock: Clock, first: Duration) -> Result<(), PerfError> {
    let mut member = Member::new(group)?;
    while !seat.leaves() {
        seat.generation.store(-1, Ordering::SeqCst);
        let joined = member.join(0);
        if seat.leaves() {
            break;
        }
        match joined.and_then(|()| member.sync()) {
            Err(PerfError::Refused { error, .. }) if is_to_join_again(error) => continue,
            outcome => outcome?,
        };
        seat.confirm(member.generation, clock);
        thread::park_timeout(first);
        while !seat.leaves() && member.beat()? {
            seat.confirm(member.generation, clock);
            thread::park_timeout(BEAT);
        }
    }
    member.leave()
}

impl Crowd for Classic {
    fn live(&mut self, time: Duration, per_second: Option<f64>) -> Result<(), PerfError> {
        let clock = Clock::starting(Duration::ZERO);
        let end = time.as_nanos() as u64;
        let step = per_second.map_or(end, |rate| (1e9 / rate) as u64).max(1);
        for (turn, at) in (step..=end).step_by(step as usize).enumerate() {
            clock.sleep_until(at);
            match per_second {
                Some(_) if turn % 2 == 0 => self.go(),
                Some(_) => self.come()?,
                None => {}
            }
        }
        clock.sleep_until(end);
        Ok(())
    }

    fn settle(&mut self) -> Result<Duration, PerfError> {
        let begun = Instant::now();
        self.see_off()?;
        let since = self.clock.now();
        while begun.elapsed() < PATIENCE {
            if let Some(generation) = self.common(since) {
                self.generation = generation;
                return Ok(begun.elapsed());
            }
            if let Some(at) = self.members.iter().position(|(_, life)| life.is_finished()) {
                // Nobody told it to leave, so it has failed and says why.
                self.leaving.extend(self.members.remove(at).map(|(_, life)| life));
                self.see_off()?;
            }
            thread::sleep(LOOK);
        }
        unsettled()
    }

    fn generation(&self) -> i32 {
        self.generation
    }
}

impl Drop for Classic {
    fn drop(&mut self) {
        while !self.members.is_empty() {
            self.go();
        }
        // How it ends is nothing to the measurement, which is over or has failed before.
        let _ = self.see_off();
    }
}

/// Members of the consumer protocol, whose heartbeats take turns on a few connections.
pub struct Calm {
    parts: Vec<Part>,
}

/// Those of one connection.
struct Part {
    consumers: Consumers,
    /// Whose heartbeat was last.
    last: u32,
}

impl Part {
    fn gather(group: &Arc<Group>, part: usize, count: usize) -> Result<Part, PerfError> {
        let mut consumers = Consumers::new(group, &part.to_string())?;
        (0..count).try_for_each(|_| consumers.join().map(|_| ()))?;
        Ok(Part { consumers, last: 0 })
    }

    /// Heartbeats, spread evenly over time, until `until`.
    fn beat(&mut self, clock: Clock, until: u64) -> Result<(), PerfError> {
        while clock.now() < until {
            let begun = clock.now();
            if let Some(next) = self.consumers.after(self.last) {
                self.consumers.beat(next)?;
                self.last = next;
            }
            let step = BEAT.as_nanos() as u64 / self.consumers.len().max(1) as u64;
            clock.sleep_until((begun + step).min(until));
        }
        Ok(())
    }

    /// The same, while one goes or comes after each `step`, first after `first`.
    fn live(&mut self, clock: Clock, times: Times) -> Result<(), PerfError> {
        for (turn, at) in (times.first..=times.end).step_by(times.step as usize).enumerate() {
            self.beat(clock, at)?;
            match turn % 2 {
                0 => self.consumers.leave()?,
                _ => self.consumers.join().map(|_| ())?,
            }
        }
        self.beat(clock, times.end)
    }
}

/// When members come and go, in ns.
#[derive(Clone, Copy)]
struct Times {
    first: u64,
    step: u64,
    end: u64,
}

impl Calm {
    /// `count` members that have joined.
    pub fn gather(group: &Arc<Group>, count: usize) -> Result<Calm, PerfError> {
        let parts = (0..PARTS).map(|part| (part, (count + PARTS - 1 - part) / PARTS));
        let parts: Result<Vec<Part>, PerfError> = thread::scope(|scope| {
            let gather = |(part, count)| scope.spawn(move || Part::gather(group, part, count));
            let threads: Vec<_> = parts.map(gather).collect();
            threads.into_iter().map(|thread| thread.join().expect("none panics")).collect()
        });
        Ok(Calm { parts: parts? })
    }

    /// Lets all parts do something at the same time.
    fn each(
        &mut self,
        act: impl Fn(usize, &mut Part) -> Result<(), PerfError> + Sync,
    ) -> Result<(), PerfError> {
        let act = &act;
        thread::scope(|scope| {
            let parts = self.parts.iter_mut().enumerate();
            let threads: Vec<_> =
                parts.map(|(number, part)| scope.spawn(move || act(number, part))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("none panics"))
        })
    }
}

impl Crowd for Calm {
    fn live(&mut self, time: Duration, per_second: Option<f64>) -> Result<(), PerfError> {
        let clock = Clock::starting(Duration::ZERO);
        let end = time.as_nanos() as u64;
        let gap = per_second.map_or(end + 1, |rate| ((1e9 / rate) as u64).max(1));
        self.each(|number, part| {
            let (first, step) = (gap * (number as u64 + 1), gap * PARTS as u64);
            part.live(clock, Times { first, step, end })
        })
    }

    fn settle(&mut self) -> Result<Duration, PerfError> {
        let (begun, clock) = (Instant::now(), Clock::starting(Duration::ZERO));
        while begun.elapsed() < PATIENCE {
            let until = clock.now() + BEAT.as_nanos() as u64 / 10;
            self.each(|_, part| part.beat(clock, until))?;
            let parts = self.parts.iter().map(|part| &part.consumers);
            if are_settled(parts) {
                return Ok(begun.elapsed());
            }
        }
        unsettled()
    }

    fn generation(&self) -> i32 {
        self.parts.iter().map(|part| part.consumers.epoch()).max().unwrap_or(0)
    }
}
