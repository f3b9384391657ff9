//! When requests are due: an arrival process that knows nothing of the answers. A request that is
//! sent late keeps its slot, and later ones are not moved.

use clap::ValueEnum;

/// How the gaps between requests are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// All gaps are equal; connections take turns.
    Uniform,
    /// Each connection is a Poisson process of its own: what many independent clients look like.
    Poisson,
}

/// The due times of one connection, in nanoseconds from the start of the run; endless.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    /// Mean time between two requests of this connection, in ns.
    gap: f64,
    next: f64,
    index: u64,
    first: f64,
    random: u64,
}

impl Schedule {
    /// The schedule of connection `lane` of `lanes` that share `per_second` requests per second.
    /// The same `seed` gives the same times.
    pub fn new(
        arrivals: Arrivals,
        per_second: f64,
        lane: usize,
        lanes: usize,
        seed: u64,
    ) -> Schedule {
        assert!(per_second > 0.0 && lane < lanes, "a rate, and a lane of those there are");
        let step = 1e9 / per_second;
        let mut schedule = Schedule {
            arrivals,
            gap: step * lanes as f64,
            next: 0.0,
            index: 0,
            first: step * lane as f64,
            random: seed ^ (lane as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        schedule.next = schedule.poisson_gap();
        schedule
    }

    /// An exponentially distributed gap (inverse transform of a uniform draw from (0, 1]).
    fn poisson_gap(&mut self) -> f64 {
        let uniform = ((split_mix(&mut self.random) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln() * self.gap
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let due = match self.arrivals {
            // From the index, so that no rounding adds up.
            Arrivals::Uniform => self.first + self.index as f64 * self.gap,
            Arrivals::Poisson => {
                let due = self.next;
                self.next += self.poisson_gap();
                due
            }
        };
        self.index += 1;
        Some(due as u64)
    }
}

/// SplitMix64: the next 64 random bits of `state`. Good enough for arrivals and payloads.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_connections_together_are_evenly_spaced_and_do_not_drift() {
        let lanes = 3;
        let mut due: Vec<u64> = (0..lanes)
            .flat_map(|lane| Schedule::new(Arrivals::Uniform, 7e3, lane, lanes, 1).take(70_000))
            .collect();
        due.sort_unstable();
        assert_eq!(due[0], 0);
        assert_eq!(due[7_000 * 29], 29_000_000_000);
        for (i, at) in due.iter().enumerate() {
            let exact = i as f64 * 1e9 / 7e3;
            assert!((*at as f64 - exact).abs() <= 2.0, "{i} is due at {at}, not {exact}");
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_their_kind() {
        let due: Vec<u64> = Schedule::new(Arrivals::Poisson, 1e4, 1, 4, 7).take(200_000).collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // One of four connections at 10,000/s: 400 µs; an exponential's deviation is its mean.
        assert!((mean / 4e5 - 1.0).abs() < 0.01, "mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "deviation {}", variance.sqrt());
        let beyond = gaps.iter().filter(|gap| **gap > 3.0 * mean).count() as f64;
        assert!((beyond / gaps.len() as f64 / (-3.0f64).exp() - 1.0).abs() < 0.05, "{beyond}");
    }

    #[test]
    fn a_seed_repeats_and_connections_differ() {
        let times = |lane, seed| -> Vec<u64> {
            Schedule::new(Arrivals::Poisson, 1e3, lane, 2, seed).take(50).collect()
        };
        assert_eq!(times(0, 5), times(0, 5));
        assert_ne!(times(0, 5), times(1, 5));
        assert_ne!(times(0, 5), times(0, 6));
    }
}
