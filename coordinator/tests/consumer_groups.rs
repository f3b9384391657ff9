//! Consumer groups under fire: members whose heartbeats get lost and come late, who give up
//! partitions slowly or never, crash, leave and come back, and a coordinator that loses what is
//! not committed. Everything follows from a seed.
//!
//! Held throughout: OneOwnerPerPartition and EpochsNeverRegress. Held once faults have ended:
//! EveryoneIsServed. `cargo test -p coordinator --test consumer_groups -- --nocapture` prints the
//! seed that catches each mutant; `SEED=n SEEDS=m … one` tries m seeds from n on.

use coordinator::group::consumer::Mutant;

#[path = "consumer_groups/client.rs"]
mod client;
#[path = "consumer_groups/migration.rs"]
mod migration;
#[path = "consumer_groups/steps.rs"]
mod steps;
#[path = "consumer_groups/world.rs"]
mod world;

use world::{Figures, World};

/// Seeds of the run without mutants.
const SEEDS: u64 = 1_000;
/// Within how many seeds each mutant has to be seen.
const MUTANT_SEEDS: u64 = 1_000;

#[test]
fn members_share_safely_and_all_are_served_in_the_end() {
    let mut all = Figures::default();
    for seed in 0..SEEDS {
        match World::run(seed, None) {
            Ok(figures) => all.add(&figures),
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    println!("{SEEDS} seeds: {all:?}");
    assert!(all.failovers > SEEDS && all.fenced > SEEDS && all.lost > SEEDS, "{all:?}");
    assert!(all.revocations > SEEDS && all.late > 0 && all.away > 0, "{all:?}");
}

#[test]
fn one() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seed, seeds) = (number("SEED", 0), number("SEEDS", 1));
    for seed in seed..seed + seeds {
        if let Err(broken) = World::run(seed, None) {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn every_mutant_is_seen() {
    for mutant in Mutant::ALL {
        let mut seeds = 0..MUTANT_SEEDS;
        let found = seeds.find_map(|seed| World::run(seed, Some(mutant)).err().map(|b| (seed, b)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{mutant:?} survived"));
        println!("FOUND {mutant:?} seed {seed}: {broken}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 77] {
        assert_eq!(World::run(seed, None), World::run(seed, None));
    }
}
