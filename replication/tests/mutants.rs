//! Proof that the simulation can see: each bug of [`replication::mutant`] breaks a named invariant
//! within a thousand seeds.
//!
//! `MUTANT_SEEDS` says how many seeds each may take, `MUTANT` names one of them.

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use replication::mutant::Mutant;
use world::World;

const STEPS: u64 = 4_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The first seed that shows the bug, and as what. Liveness is no proof: a bug of safety must be
/// seen as one.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    (0..number("MUTANT_SEEDS", 1_000)).find_map(|seed| {
        let mut world = World::new(seed, Some(mutant));
        match catch_unwind(AssertUnwindSafe(|| world.run(STEPS))) {
            Ok(Ok(())) => None,
            Ok(Err(broken)) if broken.name == "Liveness" => None,
            Ok(Err(broken)) => Some((seed, format!("{}: {}", broken.name, broken.seen))),
            Err(_) => None,
        }
    })
}

#[test]
fn every_bug_breaks_an_invariant_within_a_thousand_seeds() {
    let only = std::env::var("MUTANT").ok();
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        match caught(mutant) {
            Some((seed, seen)) => println!("FOUND {mutant:?} seed {seed}: {seen}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not seen: {missed:?}");
}
