//! How long partitions went without an acknowledgement around what was done to a cluster.

use super::{Event, History, Op};

/// What was done to a cluster, and when. It lasts until the next one, whatever that is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When, in nanoseconds on the clock of the history.
    pub time_ns: i64,
    /// What, in a word.
    pub kind: String,
    /// The partitions that are looked at, as `topic/partition`: those that the node led.
    pub partitions: Vec<String>,
}

/// Why a line is no fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a fault is a time in nanoseconds, a word, and partitions as topic/partition")]
pub struct FaultError;

impl Fault {
    /// Reads `TIME_NS KIND TOPIC/PARTITION …`.
    pub fn parse(line: &str) -> Result<Fault, FaultError> {
        let mut words = line.split_ascii_whitespace();
        let time_ns = words.next().and_then(|word| word.parse().ok()).ok_or(FaultError)?;
        let kind = words.next().ok_or(FaultError)?.to_owned();
        let partitions: Vec<String> = words.map(str::to_owned).collect();
        match partitions.iter().all(|place| place.contains('/')) {
            true => Ok(Fault { time_ns, kind, partitions }),
            false => Err(FaultError),
        }
    }
}

/// The longest time without an acknowledgement of one partition while one fault lasted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Gap {
    /// What was done.
    pub kind: String,
    /// How long, in nanoseconds: from one acknowledgement to the next, of whatever client.
    pub length_ns: i64,
    /// When the fault began.
    pub time_ns: i64,
    /// Where, as `topic/partition`.
    pub place: String,
}

impl History {
    pub(super) fn note_time(&mut self, key: u32, event: &Event<'_>) {
        let times = match event.op {
            Op::Send => &mut self.sent_at,
            Op::Ack => &mut self.acked_at,
            _ => return,
        };
        if event.time_ns >= 0 {
            times.entry(key).or_default().push(event.time_ns);
        }
    }

    /// For each fault and each of its partitions the longest gap, sorted by kind and then by
    /// length. A gap that was there when the fault began counts whole (so that a partition at a
    /// rate of R has one of about 1/R without any fault); one that is there when the next fault
    /// begins ends there for this one; one after which there is no acknowledgement any more ends
    /// with what was sent last. `faults` must be in order of time. A partition that the history
    /// does not have is left out, and so is one to which nothing was sent while the fault lasted.
    pub fn gaps(&self, faults: &[Fault]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (at, fault) in faults.iter().enumerate() {
            let end = faults.get(at + 1).map_or(i64::MAX, |next| next.time_ns);
            for place in &fault.partitions {
                let Some(length_ns) = self.longest(place, fault.time_ns, end) else { continue };
                let (kind, place) = (fault.kind.clone(), place.clone());
                gaps.push(Gap { kind, length_ns, time_ns: fault.time_ns, place });
            }
        }
        gaps.sort_unstable();
        gaps
    }

    fn longest(&self, place: &str, from: i64, to: i64) -> Option<i64> {
        let (topic, partition) = place.rsplit_once('/')?;
        let topic = self.topics.numbers.get(topic)?;
        let key = self.key_numbers.get(&(*topic, partition.parse().ok()?))?;
        let sorted = |times: Option<&Vec<i64>>| {
            let mut times = times.cloned().unwrap_or_default();
            times.sort_unstable();
            times
        };
        let sent = sorted(self.sent_at.get(key));
        let last_sent = *sent.iter().rfind(|time| (from..to).contains(*time))?;
        let acked = sorted(self.acked_at.get(key));
        let first = acked.partition_point(|time| *time <= from);
        // Before the first acknowledgement of all there is nothing that could have been one.
        let mut last = if first == 0 { sent[0].max(from) } else { acked[first - 1] };
        let mut longest = 0;
        for time in acked[first..].iter().take_while(|time| **time < to) {
            longest = longest.max(time - last);
            last = *time;
        }
        let next = acked.get(acked.partition_point(|time| *time < to));
        // What is open ends with the fault if it went on behind it, else with the load.
        let open = if next.is_some() { to } else { last_sent };
        Some(longest.max(open - last))
    }
}
