//! Seeded groups under faults, and the proof that the faults would be seen: see `groups/world.rs`.
//!
//! `SEED=n cargo test -p coordinator --test groups -- one --nocapture` repeats one;
//! with `SEEDS=m` too, as many from there on.

#[path = "groups/client.rs"]
mod client;
#[path = "groups/oracle.rs"]
mod oracle;
#[path = "groups/world.rs"]
mod world;

use coordinator::group::Mutant;
use world::World;

const SEEDS: u64 = 400;

#[test]
fn members_are_served_and_nothing_that_was_promised_is_lost() {
    let mut seen = [0; 6];
    for seed in 0..SEEDS {
        let world =
            World::new(seed, None).run().unwrap_or_else(|broken| panic!("{seed}: {broken}"));
        let oracle = &world.oracle;
        for (sum, of_seed) in seen.iter_mut().zip([
            world.failovers,
            oracle.assignments,
            oracle.commits,
            oracle.fetches,
            oracle.expiries,
            oracle.kept_assignments,
        ]) {
            *sum += of_seed;
        }
    }
    println!("failovers, assignments, commits, fetches, expiries, kept: {seen:?}");
    // A simulation in which little happens proves little.
    let [failovers, assignments, commits, fetches, expiries, kept] = seen;
    assert!(failovers > 5 * SEEDS && assignments > 20 * SEEDS && commits > 20 * SEEDS);
    assert!(fetches > 15 * SEEDS && expiries > SEEDS / 10 && kept > SEEDS / 40);
}

#[test]
fn one() {
    let seed = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
    let seeds = std::env::var("SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    for seed in seed..seed + seeds {
        if let Err(broken) = World::new(seed, None).run() {
            panic!("{seed}: {broken}");
        }
    }
}

#[test]
fn every_mutant_is_caught() {
    let mut escaped = Vec::new();
    for mutant in Mutant::ALL {
        let caught =
            (0..1_000).find_map(|seed| Some((seed, World::new(seed, Some(mutant)).run().err()?)));
        match caught {
            Some((seed, how)) => println!("FOUND {mutant:?} seed {seed}: {how}"),
            None => escaped.push(mutant),
        }
    }
    assert!(escaped.is_empty(), "{escaped:?} escaped");
}

#[test]
fn a_seed_is_one_story() {
    let story = |seed| {
        let world = World::new(seed, None).run().ok().unwrap();
        (world.now, world.failovers, world.oracle.assignments, world.oracle.commits)
    };
    for seed in 0..10 {
        assert_eq!(story(seed), story(seed));
    }
}
