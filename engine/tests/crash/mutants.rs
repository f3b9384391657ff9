//! The test of the crash test: every bug that is put in on purpose must be found, within
//! `MUTANT_SEEDS` seeds. `scripts/mutants` shows which seed finds which bug by which promise.

use engine::log::Mutant;

use crate::promise::Kept;
use crate::seeds::{first_failure, number};
use crate::workload::World;
use crate::{crash_each, crash_everywhere, faults};

/// Tries one seed with a bug.
type Scenario = fn(u64, Option<Mutant>) -> Result<u64, String>;

/// Where a bug is looked for.
fn scenario(mutant: Mutant) -> Scenario {
    fn fault(kept: Kept) -> Result<u64, String> {
        kept.map(|()| 1).map_err(|broken| broken.to_string())
    }
    match mutant {
        Mutant::SkipSync
        | Mutant::AnswerEarly
        | Mutant::ForgetDirSync
        | Mutant::RollUnfinished
        | Mutant::CheckpointEarly
        | Mutant::RemoveEarly
        | Mutant::KeepCutBytes
        | Mutant::ForgetProducers
        | Mutant::CutUnsynced
        | Mutant::CutForwards
        | Mutant::CheckpointBeyondCut
        | Mutant::KeepCutEpochs
        | Mutant::KeepCutProducers
        | Mutant::ForgetCut => crash_everywhere,
        Mutant::SwapUnsynced
        | Mutant::SwapForwards
        | Mutant::RemoveMarksEarly
        | Mutant::CleanUnknown
        | Mutant::CleanActive
        | Mutant::ForgetHoles => {
            |seed, mutant| crash_each(seed, &|seed| World::compacting(seed, mutant))
        }
        Mutant::IgnoreFailedSync => |seed, mutant| fault(faults::fail(seed, mutant)),
        Mutant::KeepGivenUp => |seed, mutant| fault(faults::fill(seed, mutant)),
        Mutant::CutDamage | Mutant::TrustIndex => |seed, mutant| fault(faults::rot(seed, mutant)),
    }
}

#[test]
fn every_bug_on_purpose_is_found() {
    let seeds = number("MUTANT_SEEDS", 1_000);
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        let run = scenario(mutant);
        match first_failure(0, seeds, |seed| run(seed, Some(mutant))) {
            Err((seed, how)) => println!("FOUND {mutant:?} seed {seed}: {how}"),
            Ok(_) => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not found within {seeds} seeds: {survivors:?}");
}
