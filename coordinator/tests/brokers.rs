//! Brokers that crash, lose what they had, hear late and ask late, against one controller; and
//! what must hold whatever they do:
//! AckedIsNeverLost · LastReplicaStanding · OneLeaderPerEpoch · LeaderIsInSync · FencedIsOutside ·
//! EpochsOnlyGrow · SilentIsFenced · ReplayIsState · EverythingHealsAgain.
//!
//! The data of a partition is a count: how many acknowledged records a replica has. A controller
//! that elects the wrong one, or believes the wrong one in sync, is seen by it.

#[path = "brokers/oracle.rs"]
mod oracle;
#[path = "brokers/world.rs"]
mod world;

use std::panic::catch_unwind;

use coordinator::controller::Mutant;
use world::World;

/// Steps of one run before everything heals.
const STEPS: usize = 160;

fn run(seed: u64, mutant: Option<Mutant>) {
    let mut world = World::new(seed, mutant);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    world.replay();
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

#[test]
fn whatever_brokers_do_the_invariants_hold() {
    let first = number("SEED").unwrap_or(0);
    let seeds = number("SEEDS").unwrap_or(if first > 0 { 1 } else { 1_500 });
    for seed in first..first + seeds {
        if let Err(panic) = catch_unwind(|| run(seed, None)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn every_mutant_is_caught_within_a_thousand_seeds() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        let caught = (0..number("MUTANT_SEEDS").unwrap_or(1_000)).find_map(|seed| {
            let panic = catch_unwind(|| run(seed, Some(mutant))).err()?;
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Some((seed, text.unwrap_or_default()))
        });
        match caught {
            Some((seed, text)) => {
                let first = text.lines().next().unwrap_or_default();
                println!("FOUND {mutant:?} seed {seed}: {first}");
            }
            None => survivors.push(mutant),
        }
    }
    std::panic::set_hook(hook);
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}

#[test]
fn the_same_seed_is_the_same_story() {
    let story = |seed| {
        let mut world = World::new(seed, None);
        (0..STEPS).for_each(|_| world.step());
        world.log
    };
    assert!(story(3) == story(3));
    assert!(story(3) != story(4));
}
