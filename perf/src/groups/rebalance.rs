//! How long a group stands still while its members come to terms: the broker's part only, because
//! members here answer at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::consumer::Consumers;
use super::member::{Group, Member};
use super::share::is_whole;
use super::{Args, PerfError, Report};
use crate::broker::Target;
use crate::report::verdict;
use crate::topic::{self, Topic};
use crate::{row, units};

/// From the first member that joins until the last has its share.
const TARGET: Duration = Duration::from_secs(3);
/// Between two heartbeats of a member of the classic protocol that waits for the others.
const BEAT: Duration = Duration::from_millis(5);
/// How long the consumer protocol may take to share out all partitions.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it.
pub fn run(args: &Args, report: &Report) -> Result<(), PerfError> {
    let target = args.target()?;
    let topic = topic::ensure(&mut target.connect()?, "perf-rebalance", args.partitions)?;
    let mut rows = classic(args, &target, &topic)?;
    rows.extend(consumer(args, &target, &topic)?);
    report.table(
        &format!(
            "Rebalance: {} members, {} partitions",
            args.members,
            units::count(f64::from(args.partitions))
        ),
        &["what", "times", "median", "max", "target", "told to give up", "needed"],
        rows,
    );
    report.note(
        "Classic: from when all are let go until the last has its share. Consumer protocol: until\n\
         all have what they are to have and have said so, heartbeats going round without a pause;\n\
         a client waits for the time of its next one in between. \"Told to give up\" is partitions;\n\
         needed are those that the new member gets.",
    );
    Ok(())
}

fn time_row(what: &str, times: &mut [Duration], given: Option<(usize, usize)>) -> Vec<String> {
    times.sort_unstable();
    let max = times.last().copied().unwrap_or_default();
    let time = |time: Duration| units::time(time.as_nanos() as u64);
    let reached = verdict(max.as_secs_f64(), TARGET.as_secs_f64(), false);
    let told = given.map_or("–".into(), |(told, needed)| {
        format!("{told} {}", verdict(told as f64, needed as f64, false))
    });
    row![
        what,
        times.len(),
        time(times.get(times.len() / 2).copied().unwrap_or_default()),
        time(max),
        format!("≤ {TARGET:?} {reached}"),
        told,
        given.map_or("–".into(), |(_, needed)| needed.to_string()),
    ]
}

/// All join an empty group; then, again and again, all join anew.
fn classic(args: &Args, target: &Target, topic: &Topic) -> Result<Vec<Vec<String>>, PerfError> {
    let group = Group::find(target, "perf-classic", topic)?;
    let mut members: Vec<Member> =
        (0..args.members).map(|_| Member::new(&group)).collect::<Result<_, _>>()?;
    members.iter_mut().try_for_each(Member::introduce)?;
    let mut first = [classic_round(&mut members, args.partitions, 0)?];
    let again = 1..=args.rounds as u32;
    let mut again: Vec<Duration> = again
        .map(|round| classic_round(&mut members, args.partitions, round))
        .collect::<Result<_, _>>()?;
    members.into_iter().try_for_each(Member::leave)?;
    Ok(vec![
        time_row("classic, into an empty group", &mut first, None),
        time_row("classic, all join again", &mut again, None),
    ])
}

/// What the members of a round share.
struct Round {
    number: u32,
    begin: Barrier,
    /// By member: the generation that it has its share of; -1 before.
    generations: Vec<AtomicI32>,
    failed: AtomicBool,
}

impl Round {
    /// One member joins, and tells that it lives until all are in one generation; when it had its
    /// share, and that.
    fn take_part(
        &self,
        place: usize,
        member: &mut Member,
    ) -> Result<(Instant, Vec<i32>), PerfError> {
        self.begin.wait();
        loop {
            let share = member.settle(self.number)?;
            let end = Instant::now();
            self.generations[place].store(member.generation, Ordering::SeqCst);
            while member.beat()? {
                let is_mine = |other: &AtomicI32| other.load(Ordering::SeqCst) == member.generation;
                if self.generations.iter().all(is_mine) {
                    return Ok((end, share));
                }
                if self.failed.load(Ordering::SeqCst) {
                    return Err(PerfError::Wrong("another member has failed".into()));
                }
                thread::sleep(BEAT);
            }
        }
    }
}

/// All join at once; how long until the last has its share.
fn classic_round(
    members: &mut [Member],
    partitions: i32,
    number: u32,
) -> Result<Duration, PerfError> {
    let begin = Barrier::new(members.len() + 1);
    let generations = members.iter().map(|_| AtomicI32::new(-1)).collect();
    let round = Round { number, begin, generations, failed: AtomicBool::new(false) };
    let take_part = |(place, member)| {
        let outcome = round.take_part(place, member);
        outcome.inspect_err(|_| round.failed.store(true, Ordering::SeqCst))
    };
    let (begun, ends) = thread::scope(|scope| {
        let each = members.iter_mut().enumerate();
        let threads: Vec<_> = each.map(|each| scope.spawn(|| take_part(each))).collect();
        round.begin.wait();
        let begun = Instant::now();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("none panics");
        (begun, threads.into_iter().map(join).collect::<Result<Vec<_>, PerfError>>())
    });
    let ends = ends?;
    if !is_whole(ends.iter().map(|(_, share): &(_, Vec<i32>)| share.as_slice()), partitions) {
        return Err(PerfError::Wrong("the shares of a generation are not whole".into()));
    }
    let last = ends.iter().map(|(end, _)| *end).max().unwrap_or(begun);
    Ok(last.saturating_duration_since(begun))
}

/// All join, one after the other; then, again and again, one more joins and the oldest leaves.
fn consumer(args: &Args, target: &Target, topic: &Topic) -> Result<Vec<Vec<String>>, PerfError> {
    let group = Group::find(target, "perf-consumer", topic)?;
    let mut all = Consumers::new(&group, "member")?;
    let begun = Instant::now();
    (0..args.members).try_for_each(|_| all.join().map(|_| ()))?;
    all.settle(PATIENCE)?;
    let mut first = [begun.elapsed()];
    let mut times = Vec::new();
    let (mut told, mut needed) = (0, 0);
    for _ in 0..args.rounds {
        let (before, given_up) = (all.owned(), all.given_up);
        let begun = Instant::now();
        let joined = all.join()?;
        all.settle(PATIENCE)?;
        times.push(begun.elapsed());
        told += all.given_up - given_up;
        needed += check(&before, &all, joined)?;
        all.leave()?;
        all.settle(PATIENCE)?;
    }
    while all.len() > 0 {
        all.leave()?;
    }
    Ok(vec![
        time_row("consumer protocol, one after the other", &mut first, None),
        time_row("consumer protocol, one more", &mut times, Some((told, needed))),
    ])
}

/// How many partitions the new member has; errs if others have exchanged any among them.
fn check(
    before: &BTreeMap<u32, BTreeSet<i32>>,
    all: &Consumers,
    joined: u32,
) -> Result<usize, PerfError> {
    let after = all.owned();
    let gained = |(number, has): &(&u32, &BTreeSet<i32>)| {
        before.get(number).is_none_or(|had| !has.is_subset(had))
    };
    let gainers: Vec<u32> = after.iter().filter(gained).map(|(number, _)| *number).collect();
    match gainers == [joined] {
        true => Ok(after[&joined].len()),
        false => Err(PerfError::Wrong(format!("{} members have gained something", gainers.len()))),
    }
}
