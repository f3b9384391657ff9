//! Looks for what must never be; the definitions are at [`Anomaly`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Anomaly, Commit, Counts, History, Outcome, Poll, Report};

/// No place in the log.
const NOWHERE: u32 = u32::MAX;

/// A value at an offset of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: u32,
    offset: i64,
    value: u32,
}

/// Where a value is among the offsets of its partition that have one.
#[derive(Clone, Copy)]
struct Index {
    first: u32,
    last: u32,
}

/// What follows from the operations, by number of the value.
struct Log {
    /// Sorted, each once.
    places: Vec<Place>,
    /// The offsets that have a value, with their partitions: sorted, each once.
    offsets: Vec<(u32, i64)>,
    index: Vec<Index>,
    /// Whether anybody read it.
    read: Vec<bool>,
    /// Whether a reader that got to the end read it.
    read_to_end: Vec<bool>,
}

impl History {
    /// Looks for everything that must never be.
    pub fn judge(mut self) -> Report {
        self.join_values();
        let log = Log::of(&self);
        let mut report = Report::new(self.counts(&log));
        *report.of(Anomaly::WatermarkFell) = std::mem::take(&mut self.watermark_fell);
        self.judge_places(&log, &mut report);
        self.judge_reads(&log, &mut report);
        self.judge_losses(&log, &mut report);
        self.judge_polls(&log, &mut report);
        self.judge_sends(&log, &mut report);
        self.judge_commits(&mut report);
        report
    }

    /// Values that were read in a file before the one in which they are sent, without saying where,
    /// become one with what was sent.
    fn join_values(&mut self) {
        let mut joined = BTreeMap::new();
        for key in &self.keys {
            let Some(anywhere) = self.key_numbers.get(&(key.topic, -1)) else { continue };
            let sent = &self.keys[*anywhere as usize].values;
            for (text, number) in &key.values {
                let never_sent = self.values[*number as usize].outcome == Outcome::NeverSent;
                if let (true, Some(sent)) = (never_sent, sent.get(text)) {
                    joined.insert(*number, *sent);
                }
            }
        }
        for poll in &mut self.polls {
            poll.value = joined.get(&poll.value).copied().unwrap_or(poll.value);
            let value = &mut self.values[poll.value as usize];
            if self.keys[value.key as usize].partition < 0 {
                value.key = poll.key;
            }
        }
    }

    fn counts(&self, log: &Log) -> Counts {
        let outcome = |wanted| self.values.iter().filter(|v| v.outcome == wanted).count() as u64;
        let mut reads: Vec<(u32, u32, u32, u32)> =
            self.polls.iter().map(|p| (p.client, p.moves, p.key, p.value)).collect();
        reads.sort_unstable();
        reads.dedup();
        let ends: BTreeSet<u32> = self.ends.keys().map(|(key, _)| *key).collect();
        Counts {
            partitions: self.keys.iter().filter(|key| key.partition >= 0).count() as u64,
            sent: self.sends.len() as u64,
            acked: outcome(Outcome::Acked),
            failed: outcome(Outcome::Failed),
            polled: self.polls.len() as u64,
            read: log.read.iter().filter(|read| **read).count() as u64,
            read_again: (self.polls.len() - reads.len()) as u64,
            read_to_end: ends.len() as u64,
            torn: self.torn,
        }
    }

    fn text(&self, value: u32) -> &str {
        &self.values[value as usize].text
    }

    /// inconsistent-offsets, duplicate.
    fn judge_places(&self, log: &Log, report: &mut Report) {
        let found = report.of(Anomaly::InconsistentOffsets);
        for same in log.places.chunk_by(|a, b| (a.key, a.offset) == (b.key, b.offset)) {
            if let [a, b, ..] = same {
                found.add(|| {
                    let (place, a_text, b_text) =
                        (self.place(a.key), self.text(a.value), self.text(b.value));
                    format!("{place} offset {}: {a_text:?} and {b_text:?}", a.offset)
                });
            }
        }
        let found = report.of(Anomaly::Duplicate);
        let mut by_value = log.places.clone();
        by_value.sort_unstable_by_key(|place| (place.value, place.key, place.offset));
        for same in by_value.chunk_by(|a, b| a.value == b.value) {
            if let [a, b, ..] = same {
                found.add(|| {
                    let (a_place, b_place) = (self.place(a.key), self.place(b.key));
                    let text = self.text(a.value);
                    format!("{text:?} at {a_place} {} and {b_place} {}", a.offset, b.offset)
                });
            }
        }
    }

    /// G1a, unwritten-read.
    fn judge_reads(&self, log: &Log, report: &mut Report) {
        let sent: BTreeSet<u32> = self.sends.iter().map(|send| self.topic_of(send.value)).collect();
        for (value, _) in (0..).zip(&log.read).filter(|(_, read)| **read) {
            let anomaly = match self.values[value as usize].outcome {
                Outcome::Failed => Anomaly::AbortedRead,
                Outcome::NeverSent if sent.contains(&self.topic_of(value)) => Anomaly::Unwritten,
                _ => continue,
            };
            report.of(anomaly).add(|| self.named(value));
        }
    }

    fn topic_of(&self, value: u32) -> u32 {
        self.keys[self.values[value as usize].key as usize].topic
    }

    /// A value and its partition, in words.
    fn named(&self, value: u32) -> String {
        let known = &self.values[value as usize];
        let offset = match known.offset {
            -1 => String::new(),
            offset => format!(", acknowledged at {offset}"),
        };
        format!("{}: {:?}{offset}", self.place(known.key), known.text)
    }

    /// lost-write, unseen, vanished-read, not-read-to-the-end.
    fn judge_losses(&self, log: &Log, report: &mut Report) {
        // By partition: highest index that somebody read.
        let mut bounds = vec![None; self.keys.len()];
        for (value, known) in self.values.iter().enumerate() {
            let Index { first, .. } = log.index[value];
            let bound: &mut Option<u32> = &mut bounds[known.key as usize];
            if log.read[value] && first != NOWHERE && bound.is_none_or(|bound| bound < first) {
                *bound = Some(first);
            }
        }
        let ends: BTreeSet<u32> = self.ends.keys().map(|(key, _)| *key).collect();
        let mut unread = BTreeMap::<u32, u64>::new();
        for (value, known) in self.values.iter().enumerate() {
            let Index { last, .. } = log.index[value];
            let acked = known.outcome == Outcome::Acked;
            let ended = ends.contains(&known.key);
            let bound = bounds[known.key as usize];
            let named = || self.named(value as u32);
            if acked && !log.read[value] && last != NOWHERE && bound.is_some_and(|b| last <= b) {
                report.of(Anomaly::LostWrite).add(named);
            }
            if acked && ended && !log.read_to_end[value] {
                report.of(Anomaly::Unseen).add(named);
            }
            let certain_to_be = known.outcome != Outcome::Failed;
            if log.read[value] && ended && certain_to_be && !log.read_to_end[value] {
                report.of(Anomaly::Vanished).add(named);
            }
            if acked && !ended {
                *unread.entry(known.key).or_default() += 1;
            }
        }
        for (key, acked) in unread {
            report.of(Anomaly::Unread).add(|| format!("{}: {acked} acked", self.place(key)));
        }
    }

    /// poll-skip, nonmonotonic-poll, and both within a call.
    fn judge_polls(&self, log: &Log, report: &mut Report) {
        let mut before = BTreeMap::<(u32, u32), Poll>::new();
        for poll in &self.polls {
            let Some(last) = before.insert((poll.client, poll.key), *poll) else { continue };
            if last.moves != poll.moves {
                continue;
            }
            // By offset, so that a value at two places does not count as two anomalies.
            let (from, to) = (log.rank(poll.key, last.offset), log.rank(poll.key, poll.offset));
            let within = poll.call >= 0 && poll.call == last.call;
            let anomaly = match (to.checked_sub(from), within) {
                (Some(1), _) => continue,
                (None | Some(0), false) => Anomaly::NonmonotonicPoll,
                (None | Some(0), true) => Anomaly::IntNonmonotonicPoll,
                (Some(_), false) => Anomaly::PollSkip,
                (Some(_), true) => Anomaly::IntPollSkip,
            };
            report.of(anomaly).add(|| {
                let (place, client) = (self.place(poll.key), self.clients.text(poll.client));
                format!("{place}: {client} read {}, then {}", last.offset, poll.offset)
            });
        }
    }

    /// nonmonotonic-send, and within a call.
    fn judge_sends(&self, log: &Log, report: &mut Report) {
        // By producer and partition: its last value that is anywhere, and in which call.
        let mut before = BTreeMap::<(u32, u32), (u32, i64)>::new();
        for send in &self.sends {
            let known = &self.values[send.value as usize];
            let Index { first, .. } = log.index[send.value as usize];
            if known.outcome == Outcome::Failed || first == NOWHERE {
                continue;
            }
            let last = before.insert((send.client, known.key), (send.value, send.call));
            let Some((last, call)) = last else { continue };
            if first > log.index[last as usize].first {
                continue;
            }
            let within = send.call >= 0 && send.call == call;
            let anomaly =
                if within { Anomaly::IntNonmonotonicSend } else { Anomaly::NonmonotonicSend };
            report.of(anomaly).add(|| {
                let (place, client) = (self.place(known.key), self.clients.text(send.client));
                let (last, text) = (self.text(last), &known.text);
                format!("{place}: {client} sent {last:?}, then {text:?}, which is before it")
            });
        }
    }

    /// nonmonotonic-commit, lost-commit.
    fn judge_commits(&self, report: &mut Report) {
        let mut commits = self.commits.clone();
        commits.sort_by_key(|commit| commit.time_ns);
        let mut stored = BTreeMap::<(u32, u32), i64>::new();
        for Commit { group, key, offset, stored: stores, .. } in commits {
            let before = stored.get(&(group, key)).copied().unwrap_or(-1);
            if stores {
                stored.insert((group, key), offset);
            }
            if offset < before {
                let anomaly = if stores { Anomaly::CommitFell } else { Anomaly::CommitLost };
                report.of(anomaly).add(|| {
                    let (place, group) = (self.place(key), self.groups.text(group));
                    format!("{place}: {group} had {before}, then {offset}")
                });
            }
        }
    }
}

impl Log {
    fn of(history: &History) -> Log {
        let polls =
            history.polls.iter().map(|p| Place { key: p.key, offset: p.offset, value: p.value });
        let acked = (0..).zip(&history.values).filter(|(_, value)| value.offset >= 0);
        let acked = acked.map(|(number, v)| Place { key: v.key, offset: v.offset, value: number });
        let mut places: Vec<Place> = polls.chain(acked).collect();
        places.sort_unstable();
        places.dedup();

        let mut offsets: Vec<_> = places.iter().map(|place| (place.key, place.offset)).collect();
        offsets.dedup();

        // In the partition where it belongs; elsewhere it is a duplicate and nothing more.
        let mut index = vec![Index { first: NOWHERE, last: NOWHERE }; history.values.len()];
        for places in places.chunk_by(|a, b| a.key == b.key) {
            for (at, places) in (0..).zip(places.chunk_by(|a, b| a.offset == b.offset)) {
                for place in places {
                    let index = &mut index[place.value as usize];
                    if history.values[place.value as usize].key == place.key {
                        index.first = index.first.min(at);
                        index.last = at;
                    }
                }
            }
        }

        let mut read = vec![false; history.values.len()];
        let mut read_to_end = read.clone();
        for poll in &history.polls {
            read[poll.value as usize] = true;
            let ended = history.ends.contains_key(&(poll.key, poll.client));
            read_to_end[poll.value as usize] |= ended;
        }
        Log { places, offsets, index, read, read_to_end }
    }

    /// Which of all offsets with a value this is.
    fn rank(&self, key: u32, offset: i64) -> usize {
        self.offsets.partition_point(|place| *place < (key, offset))
    }
}
