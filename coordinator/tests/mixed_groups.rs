//! Groups whose members speak both protocols, one after the other and at once, under faults: see
//! `mixed/world.rs`. `SEED=n SEEDS=m cargo test -p coordinator --test mixed_groups -- one` tries m
//! seeds from n on.

#[path = "mixed/client.rs"]
mod client;
#[path = "mixed/oracle.rs"]
mod oracle;
#[path = "groups/topics.rs"]
mod topics;
#[path = "mixed/world.rs"]
mod world;

use coordinator::group::consumer::Mutant;
use oracle::Figures;
use world::World;

const SEEDS: u64 = 400;

#[test]
fn groups_go_over_and_back_and_nothing_that_was_promised_is_lost() {
    let mut all = Figures::default();
    for seed in 0..SEEDS {
        match World::new(seed, None).run() {
            Ok(figures) => all.add(&figures),
            Err(broken) => panic!("{seed}: {broken}"),
        }
    }
    println!("{SEEDS} seeds: {all:?}");
    // A simulation in which little happens proves little.
    assert!(all.failovers > 5 * SEEDS && all.commits > 20 * SEEDS && all.fetches > 10 * SEEDS);
    assert!(all.upgrades > SEEDS && all.downgrades > SEEDS && all.fenced > SEEDS, "{all:?}");
}

#[test]
fn one() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seed, seeds) = (number("SEED", 0), number("SEEDS", 1));
    for seed in seed..seed + seeds {
        if let Err(broken) = World::new(seed, None).run() {
            panic!("{seed}: {broken}");
        }
    }
}

#[test]
fn every_mutant_is_caught() {
    let mut escaped = Vec::new();
    for mutant in Mutant::MIGRATION {
        let mut seeds = 0..1_000;
        let caught =
            seeds.find_map(|seed| Some((seed, World::new(seed, Some(mutant)).run().err()?)));
        match caught {
            Some((seed, how)) => println!("FOUND {mutant:?} seed {seed}: {how}"),
            None => escaped.push(mutant),
        }
    }
    assert!(escaped.is_empty(), "{escaped:?} escaped");
}

#[test]
fn a_seed_is_one_story() {
    for seed in 0..10 {
        assert_eq!(World::new(seed, None).run(), World::new(seed, None).run());
    }
}
