//! The contract of the seams in `engine::env`: one suite, two worlds. Every case runs on the
//! simulator under many seeds, and on io_uring in a real directory on disk and in memory (where
//! there is no direct IO). What passes on both is what the rest of the house may rely on.
//!
//! Left out: what only one of them can show. Power cuts and faults are in the simulator's own
//! tests; a shard that must never sleep with work to do, under contention, is in `shards.rs`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::env::sim::{Sim, SimEnv};
use engine::env::uring::{self, UringEnv};
use engine::env::{Block, BlockOf, Env};
use futures_lite::future::or;

#[path = "contract/files.rs"]
mod files;
#[path = "contract/names.rs"]
mod names;
#[path = "contract/tasks.rs"]
mod tasks;

/// Seeds that every case sees on the simulator.
const SEEDS: u64 = 60;

/// How long a case may take on io_uring; in virtual time there is no need of a limit.
const CASE_MAX: Duration = Duration::from_secs(120);

fn on_sim<Fut: Future<Output = ()>>(case: impl Fn(SimEnv, PathBuf) -> Fut) {
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let node = sim.node();
        let env = node.env();
        let dir = PathBuf::from("/contract");
        node.run(async {
            env.create_dir(&dir).await.unwrap();
            case(env.clone(), dir.clone()).await;
        })
        .expect("nobody ends the node");
    }
}

fn on_uring<Fut: Future<Output = ()>>(case: impl Fn(UringEnv, PathBuf) -> Fut) {
    // Beside the test binary, because /tmp may be memory.
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    for place in [beside.as_path(), Path::new("/dev/shm")] {
        if !place.is_dir() {
            continue;
        }
        let dir = tempfile::tempdir_in(place).unwrap();
        uring::run(|env| {
            let late = env.clone();
            let case = case(env, dir.path().to_owned());
            or(case, async move {
                late.sleep_until(late.now().after(CASE_MAX)).await;
                panic!("not done after {CASE_MAX:?}");
            })
        })
        .unwrap();
    }
}

macro_rules! cases {
    ($($file:ident: $($case:ident)*;)*) => {
        mod sim {
            $($(
                #[test]
                fn $case() {
                    crate::on_sim(crate::$file::$case);
                }
            )*)*
        }
        mod io_uring {
            $($(
                #[test]
                fn $case() {
                    crate::on_uring(crate::$file::$case);
                }
            )*)*
        }
    };
}

cases! {
    files:
        blocks_are_aligned_padded_and_trimmed
        what_is_written_is_read_at_any_position
        reads_end_with_the_file
        truncation_cuts_and_extends_to_any_length
        allocation_extends_with_zeros
        what_does_not_fit_is_refused
        both_persistences_are_read_back
        any_sequence_of_changes_reads_as_in_memory
        writes_in_flight_do_not_disturb_each_other
        long_reads_and_writes_are_whole
        what_was_read_never_changes
        a_dropped_read_harms_nobody
        a_dropped_write_lands_in_its_place_or_not
        two_openings_are_one_file
        a_file_for_reading_refuses_changes;
    names:
        opening_finds_or_makes
        the_length_is_of_the_open_file_not_of_its_name
        a_removed_file_lives_until_it_is_closed
        listings_are_sorted
        directories_are_made_with_their_parents
        renames_replace
        removal_refuses_what_it_is_not_for
        directories_are_synced
        the_volume_has_a_size;
    tasks:
        timers_fire_in_order_and_never_early
        a_dropped_timer_is_forgotten
        clocks_and_random_numbers
        tasks_run_on_every_queue_in_whatever_order
        tasks_spawn_tasks_and_outlive_their_parents
        a_turn_lets_timers_tasks_and_the_disk_through
        a_watch_wakes_across_tasks
        a_gate_waits_across_tasks;
}

/// A block of `len` bytes (rounded up) that all are `fill`.
fn filled<E: Env>(env: &E, len: usize, fill: u8) -> std::rc::Rc<BlockOf<E>> {
    let mut block = env.block(len);
    block.bytes_mut().fill(fill);
    std::rc::Rc::new(block)
}

/// Waits.
async fn sleep<E: Env>(env: &E, duration: Duration) {
    env.sleep_until(env.now().after(duration)).await;
}
