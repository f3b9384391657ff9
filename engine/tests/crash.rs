//! The crash test: a log lives on a simulated disk, the power is cut or the process killed at a
//! write boundary, and what comes back is compared with what was promised. Every boundary of every
//! seed's life is tried; the recovery itself is crashed, too; and what survived goes on and has to
//! survive once more. `faults` does the same with disks that rot, fail or are full.
//!
//! `CRASH_SEEDS` says how many seeds are tried, `CRASH_FIRST_SEED` with which they begin. A failure
//! names the seed and the cut: `CRASH_FIRST_SEED=… CRASH_SEEDS=1` repeats it.

#[path = "model/batches.rs"]
mod batches;
#[path = "model/compacted.rs"]
mod compacted;
#[path = "crash/compaction.rs"]
mod compaction;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/mutants.rs"]
mod mutants;
#[path = "crash/promise.rs"]
mod promise;
#[path = "crash/replica.rs"]
mod replica;
#[path = "crash/seeds.rs"]
mod seeds;
#[path = "crash/workload.rs"]
mod workload;

use std::ops::Range;

use engine::env::Env;
use engine::env::sim::{Cut, End, Random, Side, Stream};
use engine::log::Mutant;

use promise::{Invariant, Kept, broken, open};
use seeds::{each_seed, number};
use workload::World;

/// Makes the world of a seed.
type Make<'a> = &'a dyn Fn(u64) -> World;

/// Most crashes of one recovery.
const RECOVERY_CRASHES_MAX: u64 = 10;

/// Lives the life of a seed once without a crash; says where its boundaries are.
fn boundaries(seed: u64, make: Make<'_>) -> Kept<Range<u64>> {
    let world = make(seed);
    let first = world.node.disk().steps();
    world.live(world.steps)?;
    Ok(first..world.node.disk().steps())
}

/// Lives the life of a seed up to the cut, reopens, compares, goes on, and crashes again.
fn crash(seed: u64, make: Make<'_>, cut: Cut) -> Kept {
    let world = make(seed);
    world.node.disk().cut_at(cut);
    if world.live(world.steps)? {
        world.node.end(cut.end);
    }
    let random = Random::new(seed, Stream::Workload, 1_000 + cut.step);
    let end = reopen(&world, &random, cut.end)?;
    // It went on; now that is to survive.
    world.node.end(end);
    reopen(&world, &random, end)?;
    Ok(())
}

/// Opens a log after a crash, with more crashes on the way; compares it with the promise; appends
/// some more. Answers how the next crash is to be.
fn reopen(world: &World, random: &Random, mut end: End) -> Kept<End> {
    let crashes = if random.chance(1, 4) { random.between(1, RECOVERY_CRASHES_MAX) } else { 0 };
    let mut least_end = world.promise.borrow().least_end(end);
    for _ in 0..crashes {
        let step = world.node.disk().steps() + random.below(6);
        let side = if random.chance(1, 2) { Side::Before } else { Side::After };
        end = if random.chance(1, 2) { End::Kill } else { End::PowerCut };
        let env = world.node.env();
        world.node.disk().cut_at(Cut { step, side, end });
        let opened = world.node.run(open(&env, &world.config, &world.shared()));
        if let Some(Err(error)) = opened {
            return broken(Invariant::OpensAfterACrash, error.to_string());
        }
        world.node.end(end);
        // What only survives the process may be lost now.
        least_end = least_end.min(world.promise.borrow().least_end(end));
    }
    let env = world.node.env();
    let checked = world.node.run(async {
        let (log, _) = match open(&env, &world.config, &world.shared()).await {
            Ok(opened) => opened,
            Err(error) => return broken(Invariant::OpensAfterACrash, error.to_string()),
        };
        let life = world.life(&env, log, 2 + world.node.disk().steps());
        let mut promise = world.promise.take();
        let kept = promise.check(&life.log, least_end, env.wall().0).await;
        *world.promise.borrow_mut() = promise;
        kept?;
        for _ in 0..random.below(3) {
            life.append()?;
            match random.below(3) {
                0 => drop(life.log.flush().await),
                1 => env.sleep_until(env.now().after(std::time::Duration::from_micros(300))).await,
                _ => {}
            }
        }
        Ok(())
    });
    checked.expect("nobody ends the node")?;
    world.note_durable();
    Ok(if random.chance(1, 2) { End::Kill } else { End::PowerCut })
}

/// All cuts of one seed.
fn crash_everywhere(seed: u64, mutant: Option<Mutant>) -> Result<u64, String> {
    crash_each(seed, &|seed| World::new(seed, mutant))
}

fn crash_each(seed: u64, make: Make<'_>) -> Result<u64, String> {
    let steps = boundaries(seed, make).map_err(|broken| format!("without a crash: {broken}"))?;
    let random = Random::new(seed, Stream::Workload, 999);
    for step in steps.clone() {
        let side = if random.chance(1, 2) { Side::Before } else { Side::After };
        let end = if random.chance(1, 2) { End::Kill } else { End::PowerCut };
        let cut = Cut { step, side, end };
        crash(seed, make, cut).map_err(|broken| format!("{cut:?}: {broken}"))?;
    }
    Ok(steps.end - steps.start)
}

#[test]
fn every_crash_leaves_what_was_promised() {
    let seeds = number("CRASH_SEEDS", 2_000);
    let cuts = each_seed(seeds, |seed| crash_everywhere(seed, None));
    println!("{cuts} crashes of {seeds} lives");
    assert!(cuts > seeds * 10, "{cuts} boundaries: the lives are too short");
}

#[test]
fn every_crash_of_a_compacted_log_leaves_what_was_promised() {
    let seeds = number("CRASH_SEEDS", 2_000) / 8;
    let cuts = each_seed(seeds, |seed| crash_each(seed, &|seed| World::compacting(seed, None)));
    println!("{cuts} crashes of {seeds} compacted lives");
    assert!(cuts > seeds * 20, "{cuts} boundaries: the lives are too short");
}

#[test]
#[ignore = "for looking at one crash: CRASH_FIRST_SEED and CRASH_STEP"]
fn one_crash() {
    let (seed, step) = (number("CRASH_FIRST_SEED", 0), number("CRASH_STEP", 0));
    let compacts = number("CRASH_COMPACTS", 0) > 0;
    let make: Make<'_> = match compacts {
        true => &|seed| World::compacting(seed, None),
        false => &|seed| World::new(seed, None),
    };
    let random = Random::new(seed, Stream::Workload, 999);
    for at in boundaries(seed, make).expect("it fails without a crash") {
        let side = if random.chance(1, 2) { Side::Before } else { Side::After };
        let end = if random.chance(1, 2) { End::Kill } else { End::PowerCut };
        if at == step {
            crash(seed, make, Cut { step, side, end }).expect("a promise is broken");
        }
    }
}
