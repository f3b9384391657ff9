//! The same promises on disks that rot, fail, are full or have no descriptors to give.

use std::path::Path;
use std::time::Duration;

use engine::batch::batches;
use engine::env::sim::{End, Fault, OpKind, Random, Stream};
use engine::env::{Env, Queue};
use engine::ids::Offset;
use engine::log::{AppendError, Limit, Log, Mutant, OpenError, ReadError};

use crate::promise::{DIR, Invariant, Kept, Promise, broken, ensure, open};
use crate::seeds::{each_seed, number};
use crate::workload::{Life, World};
use engine::env::sim::SimEnv;

/// Steps of a life before something goes wrong.
const STEPS: u64 = 14;

/// A batch as it stands in a file.
struct Standing {
    path: String,
    pos: u64,
    len: u64,
    end: u64,
}

/// Every batch on the disk that would be left by a power cut.
fn standing(world: &World) -> Vec<Standing> {
    let disk = world.node.disk();
    let logs = disk.files().into_iter().filter(|path| path.ends_with(".log"));
    let mut all = Vec::new();
    for path in logs {
        let bytes = disk.bytes(Path::new(&path)).expect("just listed");
        let mut pos = 0;
        for batch in batches(&bytes).map_while(Result::ok) {
            let (len, end) = (batch.size() as u64, batch.next_offset().value());
            all.push(Standing { path: path.clone(), pos, len, end });
            pos += len;
        }
    }
    all
}

/// Flips a bit of a batch, or of any file of some kind; says where.
fn flip(world: &World, all: &[Standing], random: &Random) -> Option<(String, u64)> {
    let disk = world.node.disk();
    let kind = [".log", ".index", "checkpoint"][random.below(3) as usize];
    if kind == ".log" && !all.is_empty() && random.chance(3, 4) {
        let batch = &all[random.below(all.len() as u64) as usize];
        let bit = batch.pos * 8 + random.below(batch.len * 8);
        assert!(disk.rot(Path::new(&batch.path), bit), "it was just read");
        return Some((batch.path.clone(), bit));
    }
    let mut files = disk.files();
    files.retain(|path| path.contains(kind));
    let path = files.get(random.below(files.len().max(1) as u64) as usize)?.clone();
    let bytes = disk.bytes(Path::new(&path)).expect("just listed");
    // Space that was reserved and not used is of less interest.
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
    let len = if random.chance(3, 4) { used } else { bytes.len() as u64 };
    let bit = random.below((len * 8).max(1));
    disk.rot(Path::new(&path), bit).then_some((path, bit))
}

/// After a quiet end, one bit of what is stored flips.
pub fn rot(seed: u64, mutant: Option<Mutant>) -> Kept {
    let world = World::new(seed, mutant);
    let random = Random::new(seed, Stream::Workload, 2_000);
    world.live(STEPS)?;
    world.rest();
    let end = if random.chance(1, 2) { End::Kill } else { End::PowerCut };
    world.node.end(end);
    let least_end = world.promise.borrow().least_end(end);
    let all = standing(&world);
    let Some((path, bit)) = flip(&world, &all, &random) else { return Ok(()) };
    let hit = all.into_iter().find(|batch| {
        batch.path == path && (batch.pos..batch.pos + batch.len).contains(&(bit / 8))
    });
    let env = world.node.env();
    let checked = world.node.run(async {
        match (open(&env, &world.config, &world.shared()).await, &hit) {
            (Ok((log, _)), None) => {
                let mut promise = world.promise.take();
                promise.check(&log, least_end, env.wall().0).await?;
                each_batch(&log, &promise, None).await
            }
            (Ok((log, _)), Some(hit)) => {
                let end = log.end().value();
                ensure(end >= least_end, Invariant::DamageIsReported, || {
                    format!("cut at {end} instead of {least_end}, batch {} rots", hit.end)
                })?;
                each_batch(&log, &world.promise.take(), Some((hit, bit))).await
            }
            (Err(OpenError::Damaged { path: at, pos, .. }), Some(hit)) => {
                let same = at == Path::new(&hit.path) && pos == hit.pos;
                ensure(same, Invariant::DamageIsReported, || {
                    format!("reported at {} {pos}, is at {} {}", at.display(), hit.path, hit.pos)
                })
            }
            (Err(error), hit) => {
                let whole = if hit.is_some() { "damaged" } else { "whole" };
                broken(Invariant::HintsAreRebuilt, format!("{error}, the batches are {whole}"))
            }
        }
    });
    checked.expect("nobody ends the node").map_err(|broken| crate::promise::Broken {
        how: format!("{path} bit {bit}: {}", broken.how),
        ..broken
    })
}

/// Reads every batch by itself: it is what was appended, or reported as damaged.
async fn each_batch(log: &Log<SimEnv>, promise: &Promise, hit: Option<(&Standing, u64)>) -> Kept {
    let end = log.end();
    for batch in promise.batches.iter().filter(|b| b.base >= log.start().value()) {
        if batch.end > end.value() {
            break;
        }
        // The checksum does not cover the leader epoch.
        let in_epoch = |at: u64, bit: u64| (at + 12..at + 16).contains(&(bit / 8));
        let exempt = hit.is_some_and(|(at, bit)| at.end == batch.end && in_epoch(at.pos, bit));
        let limit = Limit { bytes_max: 1, bound: end, at_least_one: true };
        match log.read(Offset::new(batch.end - 1), limit).await {
            Ok(chunk) => {
                let bytes: Vec<u8> = chunk.slices.iter().flat_map(|s| s.to_vec()).collect();
                if exempt {
                    continue;
                }
                promise.check_bytes(batch.end - 1, &bytes)?;
                let rots = hit.is_some_and(|(at, _)| at.end == batch.end);
                let fine = !rots && !bytes.is_empty();
                ensure(fine, Invariant::DamageIsReported, || format!("{} is served", batch.end))?;
            }
            // What stands before a batch may have to be walked over to find it.
            Err(ReadError::Damaged { .. }) if hit.is_some_and(|(at, _)| at.end <= batch.end) => {}
            Err(error) => {
                let how = format!("batch {}: {error}", batch.end);
                return broken(Invariant::HintsAreRebuilt, how);
            }
        }
        if hit.is_none() {
            let time = engine::time::Timestamp(batch.sent.times[0]);
            let found = log.find_time(time, end).await;
            let expected = promise.first_at(log.start().value(), time.0);
            let same = matches!(&found, Ok(Some(found)) if Some(found.offset.value()) == expected);
            ensure(same, Invariant::HintsAreRebuilt, || format!("{time:?}: {found:?}"))?;
        }
    }
    Ok(())
}

/// A write, a sync or something else fails while the log works.
pub fn fail(seed: u64, mutant: Option<Mutant>) -> Kept {
    fail_in(seed, World::new(seed, mutant))
}

fn fail_in(seed: u64, world: World) -> Kept {
    let random = Random::new(seed, Stream::Workload, 3_000);
    let kinds = [
        OpKind::Sync,
        OpKind::Sync,
        OpKind::Write,
        OpKind::Write,
        OpKind::Allocate,
        OpKind::Truncate,
        OpKind::Create,
        OpKind::SyncDir,
        OpKind::Remove,
    ];
    let kind = kinds[random.below(kinds.len() as u64) as usize];
    let full_at_sync = kind == OpKind::Sync && random.chance(1, 3);
    let fault = if full_at_sync { Fault::enospc(kind) } else { Fault::eio(kind) };
    let times = random.between(1, 3);
    let env = world.node.env();
    let lived = world.node.run(async {
        let shared = world.shared();
        let (log, _) = open(&env, &world.config, &shared).await.expect("nothing fails yet");
        let life = world.life(&env, log, 1);
        world.node.disk().fail(fault.under(DIR).skip(random.below(8)).times(times));
        let mut at_failure = None;
        for _ in 0..3 * STEPS {
            let refused = life.append_one()?;
            life.wait(&random).await;
            life.compact_sometimes(&random).await?;
            // One that failed half way is the last.
            let takes_back = world.promise.borrow().taking_back.is_none() && random.chance(1, 6);
            if takes_back {
                life.truncate().await?;
            }
            let durable = (life.log.written().value(), life.log.synced().value());
            let before = *at_failure.get_or_insert(durable);
            if shared.disk.failed().is_none() {
                at_failure = None;
                ensure(refused.is_ok(), Invariant::NoAckAfterAnError, || format!("{refused:?}"))?;
                continue;
            }
            ensure(durable == before, Invariant::NoAckAfterAnError, || {
                format!("{durable:?} after the device failed at {before:?}")
            })?;
            if let Err(error) = refused {
                let right = error == AppendError::DiskFailed;
                ensure(right, Invariant::NoAckAfterAnError, || format!("refused: {error}"))?;
            }
            world.check_served(&life).await?;
        }
        let closed = life.log.close().await;
        let right = closed.is_err() == shared.disk.failed().is_some();
        ensure(right, Invariant::NoAckAfterAnError, || format!("closed: {closed:?}"))
    });
    lived.expect("nobody ends the node")?;
    world.note_durable();
    world.node.disk().heal();
    // What a failed sync lost is seen after the machine has started anew, not before.
    world.after(End::PowerCut)
}

/// The device fills up, in the middle of whatever, and is emptied again.
pub fn fill(seed: u64, mutant: Option<Mutant>) -> Kept {
    fill_in(seed, World::new(seed, mutant))
}

fn fill_in(seed: u64, world: World) -> Kept {
    let random = Random::new(seed, Stream::Workload, 4_000);
    let env = world.node.env();
    let disk = world.node.disk();
    let lived = world.node.run(async {
        let shared = world.shared();
        let (log, _) = open(&env, &world.config, &shared).await.expect("there is room");
        let life = world.life(&env, log, 1);
        'life: for _ in 0..random.between(1, 3) {
            match random.below(3) {
                0 => disk.set_capacity(Some(disk.used() + random.below(80_000))),
                1 => disk
                    .fail(Fault::enospc(OpKind::Write).under(DIR).skip(random.below(4)).times(1)),
                _ => disk
                    .fail(Fault::enospc(OpKind::Allocate).under(DIR).times(random.between(1, 4))),
            }
            for _ in 0..STEPS {
                // What comes while it is full is refused, what came before may be given up.
                for _ in 0..random.between(1, 3) {
                    world.note_given_up(&life)?;
                    let refused = life.append_one()?;
                    let right = matches!(refused, Ok(()) | Err(AppendError::NoSpace));
                    ensure(right, Invariant::FullDiskPasses, || format!("refused: {refused:?}"))?;
                }
                life.wait(&random).await;
                life.compact_sometimes(&random).await?;
                world.check_served(&life).await?;
                world.note_given_up(&life)?;
                if random.chance(1, 3 * STEPS) {
                    break 'life;
                }
            }
            disk.set_capacity(None);
            disk.heal();
            env.sleep_until(env.now().after(Duration::from_secs(2))).await;
            world.note_given_up(&life)?;
            let taken = life.append_one()?;
            ensure(taken.is_ok(), Invariant::FullDiskPasses, || format!("still: {taken:?}"))?;
            let flushed = life.log.flush().await;
            ensure(flushed.is_ok(), Invariant::FullDiskPasses, || "there is room".to_owned())?;
        }
        let failed = shared.disk.failed();
        ensure(failed.is_none(), Invariant::FullDiskPasses, || format!("{failed:?}"))?;
        // Some more on the way, to be torn.
        world.note_given_up(&life)?;
        life.append_one().map(drop)
    });
    lived.expect("nobody ends the node")?;
    world.note_durable();
    world.after(if random.chance(1, 2) { End::Kill } else { End::PowerCut })
}

/// The process runs out of file descriptors for a while.
pub fn starve(seed: u64, mutant: Option<Mutant>) -> Kept {
    starve_in(seed, World::new(seed, mutant))
}

fn starve_in(seed: u64, world: World) -> Kept {
    let random = Random::new(seed, Stream::Workload, 5_000);
    let env = world.node.env();
    let disk = world.node.disk();
    let lived = world.node.run(async {
        let shared = world.shared();
        let (log, _) = open(&env, &world.config, &shared).await.expect("there are descriptors");
        let life = world.life(&env, log, 1);
        for _ in 0..3 {
            disk.set_open_files_max(random.below(3) as usize);
            for _ in 0..STEPS {
                let refused = life.append_one()?;
                ensure(refused.is_ok(), Invariant::NoPanic, || format!("refused: {refused:?}"))?;
                if random.chance(1, 4) {
                    // It waits until there are descriptors again.
                    let life = life.clone();
                    env.spawn(Queue::Background, async move { drop(life.tend().await) });
                }
                life.pause(random.below(5_000)).await;
                life.compact_beside(&random);
            }
            disk.set_open_files_max(usize::MAX);
            let flushed = life.log.flush().await;
            ensure(flushed.is_ok(), Invariant::AckedIsNeverLost, || "descriptors".to_owned())?;
        }
        Ok(())
    });
    lived.expect("nobody ends the node")?;
    world.note_durable();
    world.after(End::PowerCut)
}

impl World {
    /// Lets everything that is under way come to its end.
    fn rest(&self) {
        if self.node.is_up() {
            self.sim.run_for(Duration::from_secs(1));
            self.note_durable();
        }
    }

    /// Ends the process, opens the log again and compares.
    fn after(&self, end: End) -> Kept {
        self.node.end(end);
        let least_end = self.promise.borrow().least_end(end);
        let env = self.node.env();
        let checked = self.node.run(async {
            match open(&env, &self.config, &self.shared()).await {
                Ok((log, _)) => self.promise.take().check(&log, least_end, env.wall().0).await,
                Err(error) => broken(Invariant::OpensAfterACrash, error.to_string()),
            }
        });
        checked.expect("nobody ends the node")
    }

    /// What is written can be read, whatever the device refuses.
    async fn check_served(&self, life: &Life) -> Kept {
        let written = life.log.written().value();
        let promise = self.promise.take();
        let kept = promise.check_content(&life.log, life.env.wall().0).await;
        let mut now = self.promise.borrow_mut();
        // Nothing was appended meanwhile: this task does that.
        *now = promise;
        now.written = now.written.max(written.min(life.log.end().value()));
        kept.map(drop)
    }

    /// Batches that were given up are gone from the end; nothing that was written is.
    fn note_given_up(&self, life: &Life) -> Kept {
        self.note_durable();
        let mut promise = self.promise.borrow_mut();
        let (end, written) = (life.log.end().value(), promise.written);
        ensure(end >= written, Invariant::FullDiskPasses, || {
            format!("given up from {end} on, {written} was written")
        })?;
        if end < promise.end() {
            promise.give_up(end);
        }
        Ok(())
    }
}

impl Life {
    /// Waits for this or that, or for nothing.
    async fn wait(&self, random: &Random) {
        let end = self.log.end().value();
        match random.below(5) {
            0 => drop(self.log.flush().await),
            1 => drop(self.log.written().reach(end).await),
            2 => self.pause(random.below(2_000)).await,
            3 => self.pause(random.below(900_000)).await,
            _ => {}
        }
    }

    async fn compact_sometimes(&self, random: &Random) -> Kept {
        match self.log.config().compacts && random.chance(1, 3) {
            true => self.compact().await,
            false => Ok(()),
        }
    }

    fn compact_beside(&self, random: &Random) {
        if self.log.config().compacts && random.chance(1, 3) {
            let life = self.clone();
            // It waits until there are descriptors again.
            self.env.spawn(Queue::Background, async move { drop(life.compact().await) });
        }
    }

    pub async fn pause(&self, micros: u64) {
        self.env.sleep_until(self.env.now().after(Duration::from_micros(micros))).await;
    }
}

fn seeds() -> u64 {
    number("CRASH_SEEDS", 2_000)
}

fn tried(scenario: fn(u64, Option<Mutant>) -> Kept) {
    each_seed(seeds(), |seed| {
        scenario(seed, None).map(|()| 1).map_err(|broken| broken.to_string())
    });
}

#[test]
fn rot_is_reported_or_rebuilt() {
    tried(rot);
}

#[test]
fn a_failed_device_acknowledges_nothing() {
    tried(fail);
}

#[test]
fn a_full_device_costs_only_what_was_not_written() {
    tried(fill);
}

#[test]
fn a_lack_of_descriptors_costs_only_time() {
    tried(starve);
}

#[test]
fn compaction_on_a_bad_device_loses_nothing() {
    let compacted = |run: fn(u64, World) -> Kept| {
        each_seed(seeds() / 4, |seed| {
            let kept = run(seed, World::compacting(seed, None));
            kept.map(|()| 1).map_err(|broken| broken.to_string())
        });
    };
    compacted(fail_in);
    compacted(fill_in);
    compacted(starve_in);
}
