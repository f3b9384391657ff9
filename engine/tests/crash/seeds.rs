//! Trying many seeds on all cores, and finding the first that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs one seed; a panic counts as a failure.
pub fn attempt<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(format!("NoPanic: {text}"))
    })
}

/// The failure of the least seed that fails within `first..first + seeds`, or the sum of what the
/// seeds answered.
pub fn first_failure(
    first: u64,
    seeds: u64,
    run: impl Fn(u64) -> Result<u64, String> + Sync,
) -> Result<u64, (u64, String)> {
    let (next, sum, stop) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let mut failure = None;
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            match attempt(|| run(seed)) {
                Ok(count) => drop(sum.fetch_add(count, Ordering::Relaxed)),
                Err(how) => {
                    failure = Some((seed, how));
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        failure
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failures = workers.into_iter().filter_map(|worker| worker.join().expect("caught"));
        failures.min()
    });
    failures.map_or(Ok(sum.into_inner()), Err)
}

/// Tries many seeds; panics with the first that fails.
pub fn each_seed(seeds: u64, run: impl Fn(u64) -> Result<u64, String> + Sync) -> u64 {
    match first_failure(number("CRASH_FIRST_SEED", 0), seeds, run) {
        Ok(sum) => sum,
        Err((seed, how)) => panic!("seed {seed}: {how}"),
    }
}
