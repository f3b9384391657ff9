//! Replication without disks, sockets or an executor: thousands of small clusters a second.
//!
//! `REPLICATION_SEEDS` says how many seeds are tried, `REPLICATION_FIRST_SEED` with which they
//! begin; a failure names the seed that shows it again.

mod world;

use world::World;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn each_seed(default: u64, run: impl Fn(u64)) {
    let first = number("REPLICATION_FIRST_SEED", 0);
    (first..first + number("REPLICATION_SEEDS", default)).for_each(run);
}

const STEPS: u64 = 1_000;

#[test]
fn whatever_happens_the_promises_hold_and_it_goes_on() {
    let acks = std::cell::Cell::new(0);
    each_seed(2_000, |seed| {
        let mut world = World::new(seed, None);
        if let Err(broken) = world.run(STEPS) {
            if number("REPLICATION_PICTURE", 0) == 1 {
                println!("{:#?}{}", world.controller.history, world.picture());
            }
            panic!("seed {seed}: {} is broken: {}", broken.name, broken.seen);
        }
        acks.set(acks.get() + world.truth.acks);
    });
    assert!(acks.get() > 0, "nothing was acknowledged at all");
}

/// Whoever is there may lead: then what was acknowledged may go, but logs come together, terms
/// have one leader each, and it goes on.
#[test]
fn after_unclean_elections_logs_still_come_together() {
    each_seed(500, |seed| {
        let mut world = World::new(seed, None);
        world.controller.unclean = true;
        world.truth.unclean = true;
        if let Err(broken) = world.run(STEPS) {
            panic!("seed {seed}: {} is broken: {}", broken.name, broken.seen);
        }
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, None);
        world.run(STEPS).map(|()| (world.trace, world.now, world.truth.acks))
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(0), run(1), "a seed decides");
}
