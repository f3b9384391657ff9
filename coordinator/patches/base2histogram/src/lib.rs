//! What openraft asks of the crate `base2histogram`, on `hdrhistogram`.
//!
//! The original makes the tables of all its sixteen resolutions when the first histogram is made,
//! of which openraft uses one: 26 MiB, more than all the rest of a coordinator (measured with
//! version 0.2.3: 61 MiB resident with it). It has no switch for that. Ringbolt looks at none of
//! these figures, but openraft records them, so they are kept, in the few KiB that they need.
//! To be removed when the original makes its tables when they are asked for.

use std::fmt;
use std::marker::PhantomData;

/// Largest value that is told apart, so that no histogram grows beyond some KiB.
const VALUE_MAX: u64 = 1 << 40;

/// How often which value was recorded, exact to 10 %.
#[derive(Clone, Debug)]
pub struct Histogram<T = ()> {
    counts: hdrhistogram::Histogram<u64>,
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Nothing is recorded.
    pub fn new() -> Histogram<T> {
        let counts = hdrhistogram::Histogram::new(1).expect("one digit is allowed");
        Histogram { counts, of: PhantomData }
    }

    /// Records one value.
    pub fn record(&mut self, value: u64) {
        self.counts.record(value.min(VALUE_MAX)).expect("it grows by itself");
    }

    /// Records one value so often.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts.record_n(value.min(VALUE_MAX), count).expect("it grows by itself");
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.counts.len()
    }

    /// Where most of them lie.
    pub fn percentile_stats(&self) -> PercentileStats {
        let at = |percent: f64| self.counts.value_at_percentile(percent);
        PercentileStats {
            samples: self.total(),
            p0_1: at(0.1),
            p1: at(1.0),
            p5: at(5.0),
            p10: at(10.0),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram::new()
    }
}

impl<T> PartialEq for Histogram<T> {
    fn eq(&self, other: &Histogram<T>) -> bool {
        self.counts == other.counts
    }
}

impl<T> Eq for Histogram<T> {}

/// Where most of the recorded values lie; all zero where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many there are.
    pub samples: u64,
    /// One in a thousand is at most this.
    pub p0_1: u64,
    /// One in a hundred.
    pub p1: u64,
    /// One in twenty.
    pub p5: u64,
    /// One in ten.
    pub p10: u64,
    /// One in two.
    pub p50: u64,
    /// Nine in ten.
    pub p90: u64,
    /// 99 in a hundred.
    pub p99: u64,
    /// 999 in a thousand.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p50, p99, .. } = self;
        write!(f, "{samples} samples, p50 {p50}, p99 {p99}")
    }
}

/// Several histograms one below the other; here a line each.
#[derive(Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// Of none.
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// With one more.
    #[allow(clippy::should_implement_trait, reason = "the original's name")]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> AsciiChart {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }

    /// The same, at greater length.
    pub fn detailed(&self) -> &AsciiChart {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_tells() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        (1..=100).for_each(|value| histogram.record(value));
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, histogram.total()), (101, 101));
        assert!((46..=56).contains(&stats.p50) && (91..=112).contains(&stats.p99), "{stats}");
        assert!(histogram.counts.distinct_values() < 1_000);
    }
}
