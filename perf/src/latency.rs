//! Latencies: one histogram each, merged, never averaged.

use hdrhistogram::Histogram;

use crate::units;

/// Longest latency that is kept apart, in ns: an hour. Nothing in a run is longer.
const LONGEST: u64 = 3_600_000_000_000;

/// Samples below which p99.99 says nothing and is not shown.
const SAMPLES_FOR_P9999: u64 = 100_000;
/// Samples below which p99.9 is not shown.
const SAMPLES_FOR_P999: u64 = 10_000;

/// A histogram of nanoseconds, three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Without samples.
    pub fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are valid"))
    }

    /// Adds one of `nanos`.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1));
    }

    /// Adds the samples of another.
    pub fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many samples.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The `percent` percentile in ns, 0 without samples.
    pub fn percentile(&self, percent: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_percentile(percent) }
    }

    /// The largest, in ns.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// Names of the columns of [`Latencies::cells`].
    pub const COLUMNS: [&str; 7] = ["p50", "p90", "p99", "p99.9", "p99.99", "max", "samples"];

    /// p50, p90, p99, p99.9, p99.99, max and the number of samples, as text. What too few samples
    /// carry is a dash.
    pub fn cells(&self) -> [String; 7] {
        let at = |percent, samples| {
            if self.count() < samples {
                "–".into()
            } else {
                units::time(self.percentile(percent))
            }
        };
        let max = if self.count() == 0 { "–".into() } else { units::time(self.max()) };
        [
            at(50.0, 1),
            at(90.0, 10),
            at(99.0, 100),
            at(99.9, SAMPLES_FOR_P999),
            at(99.99, SAMPLES_FOR_P9999),
            max,
            units::count(self.count() as f64),
        ]
    }
}

/// What one request cost, from three points in time. They differ when a request goes out late:
/// because this process was late, or because the connection took nothing.
#[derive(Clone, Debug)]
pub struct Timings {
    /// From when it was due to its answer: what a client feels.
    pub response: Latencies,
    /// From when it was handed to the socket to its answer.
    pub service: Latencies,
    /// From when it was due to when it was handed to the socket.
    pub delay: Latencies,
}

impl Timings {
    /// Without samples.
    pub fn new() -> Timings {
        Timings { response: Latencies::new(), service: Latencies::new(), delay: Latencies::new() }
    }

    /// Adds a request that was due at `due`, was begun at `begun` and is over at `over`, all in ns
    /// of one clock.
    pub fn record(&mut self, due: u64, begun: u64, over: u64) {
        self.response.record(over.saturating_sub(due));
        self.service.record(over.saturating_sub(begun));
        self.delay.record(begun.saturating_sub(due));
    }

    /// Adds the samples of another.
    pub fn merge(&mut self, other: &Timings) {
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.delay.merge(&other.delay);
    }
}

/// The middle one of `values`, which are finite; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Arrivals, Schedule};

    #[test]
    fn a_stall_is_felt_by_everyone_who_came_during_it() {
        // 1,000 requests per second for 10 s to a server that takes 100 µs, one at a time, and
        // stands still for 1 s once. A closed loop would see one slow request of ten thousand.
        let mut timings = Timings::new();
        let mut free = 0;
        for due in Schedule::new(Arrivals::Uniform, 1e3, 0, 1, 0).take(10_000) {
            let begun = free.max(due);
            let stall = if due == 5_000_000_000 { 1_000_000_000 } else { 0 };
            free = begun + 100_000 + stall;
            timings.record(due, begun, free);
        }
        assert!(timings.service.percentile(99.9) < 101_000);
        let p99 = timings.response.percentile(99.0);
        assert!((850_000_000..1_000_000_000).contains(&p99), "{p99}");
        assert!(timings.response.max() > 999_000_000);
        assert_eq!(timings.delay.max() / 1_000_000, 999);
    }

    #[test]
    fn merging_is_the_same_as_recording_together() {
        let (mut together, mut one, mut other) =
            (Latencies::new(), Latencies::new(), Latencies::new());
        for n in 1..5_000u64 {
            let nanos = n * n * 137;
            together.record(nanos);
            if n % 3 == 0 { one.record(nanos) } else { other.record(nanos) }
        }
        one.merge(&other);
        assert_eq!(one.count(), together.count());
        for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
            assert_eq!(one.percentile(percent), together.percentile(percent));
        }
    }

    #[test]
    fn percentiles_without_enough_samples_are_not_shown() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.cells(), ["–", "–", "–", "–", "–", "–", "0"]);
        for _ in 0..99_999 {
            latencies.record(2_000_000);
        }
        assert_eq!(latencies.cells()[3..5], ["2.00 ms", "–"]);
        latencies.record(u64::MAX);
        assert_eq!(latencies.cells()[4..], ["2.00 ms", "3601 s", "100,000"]);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!([median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])], [0.0, 2.0, 2.5]);
    }
}
