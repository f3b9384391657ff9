//! The whole broker, simulated: real frames, real shards and lanes, real logs, on a network and a
//! disk decided by one seed. Clients produce and fetch while connections are cut, packets held back,
//! the process killed, the power cut, the disk full, slow or broken. What they were promised is
//! compared with what they get, and in the end with everything that is there.
//!
//! `scripts/sim --seed N` shows one seed, one line per event; `--seeds A..B` tries many. Environment:
//! `SIM_FIRST_SEED`, `SIM_SEEDS`, `SIM_SHOW` (the level of the log lines that are shown).

#[path = "sim_broker/batches.rs"]
mod batches;
#[path = "sim_broker/consumer.rs"]
mod consumer;
#[path = "sim_broker/line.rs"]
mod line;
#[path = "sim_broker/oracle.rs"]
mod oracle;
#[path = "sim_broker/producer.rs"]
mod producer;
#[path = "sim_broker/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::log::Mutant;
use world::{Summary, run};

/// Seeds of the normal test run.
const SEEDS: u64 = 100;
/// Seeds within which each mutant has to be seen.
const MUTANT_SEEDS: u64 = 300;

/// Seeds that once failed and lie beyond the hundred. 180: a broker that listened and never served.
const FOUND: &[u64] = &[180];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs one seed; a panic of the broker is a failure like any other.
fn attempt(seed: u64, mutant: Option<Mutant>, is_shown: bool) -> Result<Summary, String> {
    let run = || run(seed, mutant, is_shown).map_err(|broken| broken.to_string());
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(format!("NoPanic: {text}"))
    })
}

/// Tries seeds on all cores until one fails: the least of those that were seen to.
fn first_failure(
    seeds: &[u64],
    mutant: Option<Mutant>,
    each: impl Fn(u64, Summary) + Sync,
) -> Option<(u64, String)> {
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while failures.lock().expect("no panic").is_empty() {
            let at = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(&seed) = seeds.get(at) else { break };
            match attempt(seed, mutant, false) {
                Ok(summary) => each(seed, summary),
                Err(how) => failures.lock().expect("no panic").push((seed, how)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    failures.into_inner().expect("no panic").into_iter().min()
}

#[test]
fn what_clients_are_promised_is_kept() {
    let first = number("SIM_FIRST_SEED", 0);
    if std::env::var_os("SIM_SHOW").is_some() {
        // What the broker itself would have logged.
        let level = std::env::var("SIM_SHOW").unwrap_or_default();
        let level = level.parse().unwrap_or(tracing::Level::INFO);
        tracing_subscriber::fmt().without_time().with_max_level(level).init();
        println!("{:#?}", attempt(first, None, true).expect("the promises are kept"));
        return;
    }
    let mut seeds = FOUND.to_vec();
    seeds.extend(first..first + number("SIM_SEEDS", SEEDS));
    let (acked, read, lives) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failure = first_failure(&seeds, None, |_, summary| {
        acked.fetch_add(summary.acked, Ordering::Relaxed);
        read.fetch_add(summary.read, Ordering::Relaxed);
        lives.fetch_add(summary.lives, Ordering::Relaxed);
    });
    if let Some((seed, how)) = failure {
        panic!("seed {seed}: {how}\nscripts/sim --seed {seed}");
    }
    let count = seeds.len() as u64;
    let [acked, read, lives] = [acked, read, lives].map(AtomicU64::into_inner);
    println!("{count} seeds: {acked} records acknowledged, {read} read, {lives} lives of brokers");
    // A test in which nothing happens would keep every promise.
    assert!(acked > 150 * count && read > 200 * count && lives > 2 * count);
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [1, 7, 23] {
        let once = attempt(seed, None, false);
        assert_eq!(once, attempt(seed, None, false), "seed {seed}");
        assert_ne!(once, attempt(seed + 1, None, false), "seeds {seed} and {}", seed + 1);
    }
}

/// Bugs of the log that clients of the broker have to notice.
#[test]
fn broken_brokers_are_seen() {
    let seeds: Vec<u64> = (0..MUTANT_SEEDS).collect();
    for mutant in [Mutant::SkipSync, Mutant::AnswerEarly, Mutant::ForgetProducers] {
        match first_failure(&seeds, Some(mutant), |_, _| {}) {
            Some((seed, how)) => println!("FOUND {mutant:?} seed {seed}: {how}"),
            None => panic!("{mutant:?} was not noticed within {MUTANT_SEEDS} seeds"),
        }
    }
}
