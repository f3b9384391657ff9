//! Which part of a log is to be compacted, whether it is worth it, and which segments become one.

use std::ops::Range;

use crate::config::LogConfig;
use crate::ids::Offset;
use crate::time::Timestamp;

/// Widest span of offsets in one segment: Kafka's indexes have them relative, in 31 bits.
const SPAN_MAX: u64 = i32::MAX as u64;

/// What a plan needs to know of a segment that is finished: it has a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its base offset.
    pub base: Offset,
    /// Base offset of its successor.
    pub end: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// Largest timestamp of its first batch. Needed in the dirty part, where
    /// `max.compaction.lag.ms` is set.
    pub first: Option<Timestamp>,
    /// Its largest timestamp. Needed in the dirty part, where `min.compaction.lag.ms` is set.
    pub latest: Option<Timestamp>,
}

/// What is dirty in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// First dirty offset.
    pub from: Offset,
    /// First offset that is not to be compacted now; the end of a segment, or `from`.
    pub to: Offset,
    /// Bytes of segments that lie wholly in the clean part.
    pub clean_bytes: u64,
    /// Bytes of segments that lie in the dirty part, or reach into it, below `to`.
    pub dirty_bytes: u64,
    /// A dirty record has waited for longer than `max.compaction.lag.ms`.
    pub overdue: bool,
}

/// Looks at the finished segments, oldest first, of a log that was compacted up to `cleaned`.
/// Nothing at or above `bound` is touched: the high watermark, or the last stable offset where
/// that is lower (Kafka's `LogCleanerManager.cleanableOffsets`).
pub fn survey(
    segments: &[Extent],
    cleaned: Offset,
    bound: Offset,
    now: Timestamp,
    config: &LogConfig,
) -> Survey {
    let start = segments.first().map_or(cleaned, |first| first.base);
    let from = cleaned.max(start);
    let young = |segment: &Extent| {
        let lag = config.min_compaction_lag_ms;
        lag > 0 && segment.latest.is_some_and(|at| now.millis_since(at) < lag)
    };
    let mut survey = Survey { from, to: from, clean_bytes: 0, dirty_bytes: 0, overdue: false };
    for segment in segments {
        if segment.end <= from {
            survey.clean_bytes += segment.bytes;
            continue;
        }
        if segment.end > bound || young(segment) {
            break;
        }
        survey.to = segment.end;
        survey.dirty_bytes += segment.bytes;
        survey.overdue |= config.max_compaction_lag_ms.is_some_and(|max| {
            segment.first.is_some_and(|first| first.0 > 0 && now.millis_since(first) > max)
        });
    }
    survey
}

impl Survey {
    /// Whether enough of it is dirty, or anything for too long.
    pub fn is_worth_it(&self, config: &LogConfig) -> bool {
        let all = u128::from(self.clean_bytes) + u128::from(self.dirty_bytes);
        let dirty = u128::from(self.dirty_bytes) * 1_000_000;
        let ratio = all > 0 && dirty > all * u128::from(config.min_dirty_ppm);
        self.dirty_bytes > 0 && (ratio || self.overdue)
    }
}

/// Positions of segments that become one each, oldest first: those that begin below `to`. Together
/// they are no larger than a segment may be, if each stayed as large as it is
/// (`Cleaner.groupSegmentsBySize`).
pub fn groups(segments: &[Extent], to: Offset, segment_bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    let touched = segments.iter().take_while(|segment| segment.base < to);
    for (at, segment) in touched.enumerate() {
        let fits = |group: &&mut Range<usize>| {
            let span = segment.end.since(segments[group.start].base);
            bytes + segment.bytes <= segment_bytes_max && span <= SPAN_MAX
        };
        match groups.last_mut().filter(fits) {
            Some(group) => {
                group.end = at + 1;
                bytes += segment.bytes;
            }
            None => {
                groups.push(at..at + 1);
                bytes = segment.bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(base: u64, end: u64, bytes: u64, first: i64, latest: i64) -> Extent {
        let (base, end) = (Offset::new(base), Offset::new(end));
        Extent { base, end, bytes, first: Some(Timestamp(first)), latest: Some(Timestamp(latest)) }
    }

    fn three() -> [Extent; 3] {
        [extent(10, 20, 100, 1, 5), extent(20, 40, 100, 5, 9), extent(40, 50, 200, 9, 12)]
    }

    fn look(cleaned: u64, bound: u64, now: i64, config: &LogConfig) -> (u64, u64, u64, u64, bool) {
        let (cleaned, bound) = (Offset::new(cleaned), Offset::new(bound));
        let found = survey(&three(), cleaned, bound, Timestamp(now), config);
        let Survey { from, to, clean_bytes, dirty_bytes, overdue } = found;
        (from.value(), to.value(), clean_bytes, dirty_bytes, overdue)
    }

    #[test]
    fn what_is_dirty() {
        let config = LogConfig::default();
        for (cleaned, bound, expected) in [
            (0, 50, (10, 50, 0, 400, false)),
            (10, 50, (10, 50, 0, 400, false)),
            (20, 50, (20, 50, 100, 300, false)),
            (25, 50, (25, 50, 100, 300, false)),
            (50, 50, (50, 50, 400, 0, false)),
            (0, 49, (10, 40, 0, 200, false)),
            (0, 20, (10, 20, 0, 100, false)),
            (0, 19, (10, 10, 0, 0, false)),
            (40, 39, (40, 40, 200, 0, false)),
        ] {
            assert_eq!(look(cleaned, bound, 1_000, &config), expected, "{cleaned} {bound}");
        }
        let none = survey(&[], Offset::new(7), Offset::MAX, Timestamp(0), &config);
        assert_eq!(
            (none.from, none.to, none.is_worth_it(&config)),
            (Offset::new(7), Offset::new(7), false)
        );
    }

    #[test]
    fn what_is_young_waits_and_so_does_what_stands_behind_it() {
        let config = LogConfig { min_compaction_lag_ms: 10, ..LogConfig::default() };
        assert_eq!(look(0, 50, 22, &config).1, 50, "all are ten old");
        assert_eq!(look(0, 50, 21, &config).1, 40);
        assert_eq!(look(0, 50, 18, &config).1, 20);
        assert_eq!(look(0, 50, 14, &config).1, 10);
    }

    #[test]
    fn what_has_waited_for_too_long_is_worth_it() {
        let config = LogConfig { max_compaction_lag_ms: Some(10), ..LogConfig::default() };
        assert!(!look(20, 50, 15, &config).4, "exactly as long");
        assert!(look(20, 50, 16, &config).4);
        assert!(!look(20, 39, 16, &config).4, "nothing of it can be compacted");
        let overdue = |dirty_bytes, overdue| {
            let (from, to) = (Offset::new(1), Offset::new(2));
            Survey { from, to, clean_bytes: 1_000, dirty_bytes, overdue }.is_worth_it(&config)
        };
        assert!(overdue(1, true));
        assert!(!overdue(0, true) && !overdue(1, false));
    }

    #[test]
    fn more_than_the_ratio_is_worth_it() {
        let worth = |clean_bytes, dirty_bytes, min_dirty_ppm| {
            let (from, to) = (Offset::new(1), Offset::new(2));
            let config = LogConfig { min_dirty_ppm, ..LogConfig::default() };
            Survey { from, to, clean_bytes, dirty_bytes, overdue: false }.is_worth_it(&config)
        };
        assert!(!worth(100, 100, 500_000), "exactly half");
        assert!(worth(100, 101, 500_000));
        assert!(worth(100, 1, 0) && !worth(100, 0, 0));
        assert!(!worth(0, 100, 1_000_000), "never");
    }

    #[test]
    fn small_segments_become_one() {
        let ends = |to, max| {
            let groups = groups(&three(), Offset::new(to), max);
            groups.into_iter().map(|group| (group.start, group.end)).collect::<Vec<_>>()
        };
        assert_eq!(ends(50, 400), [(0, 3)]);
        assert_eq!(ends(50, 399), [(0, 2), (2, 3)]);
        assert_eq!(ends(50, 100), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(ends(50, 1), [(0, 1), (1, 2), (2, 3)], "one that is too large stays by itself");
        assert_eq!(ends(40, 400), [(0, 2)]);
        assert_eq!(ends(41, 400), [(0, 3)], "a segment that is known in part is written, too");
        assert_eq!(ends(10, 400), []);
    }

    #[test]
    fn no_segment_spans_more_than_31_bits() {
        let far = SPAN_MAX + 10;
        let segments = [extent(10, 20, 1, 0, 0), extent(20, far, 1, 0, 0)];
        assert_eq!(groups(&segments, Offset::MAX, 9).len(), 1, "exactly as far");
        let segments = [extent(10, 20, 1, 0, 0), extent(20, far + 1, 1, 0, 0)];
        assert_eq!(groups(&segments, Offset::MAX, 9).len(), 2);
    }
}
