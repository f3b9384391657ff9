//! What has been promised to the outside, and whether every broker agrees with it.

use std::collections::BTreeMap;

use engine::ids::{BrokerId, LeaderEpoch, TopicPartition};
use replication::role::Role;

use super::log::{Entry, ModelLog};
use super::{Broker, Checked, Part, at, violation};

#[derive(Default)]
pub struct Truth {
    /// Everything that any leader ever called committed, by offset, and the term in which one
    /// did first.
    committed: BTreeMap<TopicPartition, Vec<(Entry, LeaderEpoch)>>,
    /// What producers were told, by offset, and in which term.
    acked: BTreeMap<TopicPartition, BTreeMap<u64, (u64, LeaderEpoch)>>,
    lately: BTreeMap<TopicPartition, u64>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), BrokerId>,
    watermarks: BTreeMap<(TopicPartition, BrokerId, LeaderEpoch), u64>,
    /// After an unclean election nothing is promised but that logs come together.
    pub unclean: bool,
    pub acks: u64,
    pub truncations: u64,
}

impl Truth {
    pub fn committed(&self, part: TopicPartition) -> &[(Entry, LeaderEpoch)] {
        self.committed.get(&part).map_or(&[], Vec::as_slice)
    }

    pub fn forget_acks(&mut self) {
        self.lately.clear();
    }

    pub fn acked_lately(&self, part: TopicPartition) -> u64 {
        self.lately.get(&part).copied().unwrap_or(0)
    }

    /// A leadership begins.
    pub fn on_leads(&mut self, part: TopicPartition, id: BrokerId, state: &Part) -> Checked {
        let epoch = state.term();
        let first = *self.leaders.entry((part, epoch)).or_insert(id);
        if first != id {
            return violation("OneLeaderPerEpoch", format!("{first} and {id} in {epoch}"));
        }
        if self.unclean {
            return Ok(());
        }
        // A broker that learns late that it led once need not have what came later.
        for (offset, (value, term)) in self.acked.get(&part).into_iter().flatten() {
            let got = state.log.get(*offset);
            if *term < epoch
                && *offset >= state.log.start
                && got.is_none_or(|entry| entry.value != *value)
            {
                return violation(
                    "AckedIsNeverLost",
                    format!("{id} leads in {epoch}: {value} at {offset} is {got:?}"),
                );
            }
        }
        for (offset, (entry, term)) in self.committed(part).iter().enumerate() {
            let offset = offset as u64;
            let got = state.log.get(offset);
            if *term < epoch && offset >= state.log.start && got != Some(*entry) {
                return violation(
                    "LeaderCompleteness",
                    format!("{id} leads in {epoch}: {entry:?} at {offset} is {got:?}"),
                );
            }
        }
        Ok(())
    }

    /// Something changed in a partition of a broker.
    pub fn on_change(&mut self, part: TopicPartition, id: BrokerId, state: &mut Part) -> Checked {
        let Role::Leader(leader) = state.replica.role() else { return Ok(()) };
        let (epoch, high_watermark) = (leader.epoch(), at(leader.high_watermark()));
        let known = self.watermarks.entry((part, id, epoch)).or_insert(high_watermark);
        if high_watermark < *known {
            let seen = format!("{id} in {epoch}: {known}, then {high_watermark}");
            return violation("MonotonicWatermark", seen);
        }
        *known = high_watermark;
        if high_watermark > state.log.durable {
            let seen = format!("{id} in {epoch}: {high_watermark} of {}", state.log.durable);
            return violation("WatermarkIsDurable", seen);
        }
        let committed = self.committed.entry(part).or_default();
        let fresh = state.told.max(state.log.start)..high_watermark;
        for offset in fresh.filter(|_| !self.unclean) {
            let Some(entry) = state.log.get(offset) else {
                let seen = format!("{id} in {epoch} has nothing at {offset}");
                return violation("CommittedOnce", seen);
            };
            match committed.get(offset as usize) {
                None if committed.len() as u64 == offset => committed.push((entry, epoch)),
                Some((known, _)) if *known == entry => {}
                other => {
                    let seen = format!("{id} in {epoch} at {offset}: {other:?}, {entry:?}");
                    return violation("CommittedOnce", seen);
                }
            }
        }
        state.told = state.told.max(high_watermark);
        let done = |ticket: &(LeaderEpoch, u64, u64)| ticket.1 < high_watermark;
        for (term, offset, value) in state.tickets.extract_if(.., |ticket| done(ticket)) {
            if term != epoch || state.log.get(offset).is_none_or(|entry| entry.value != value) {
                let seen = format!("{id} in {epoch}: {value} at {offset}");
                return violation("AckIsOfItsBatch", seen);
            }
            self.acked.entry(part).or_default().insert(offset, (value, epoch));
            *self.lately.entry(part).or_default() += 1;
            self.acks += 1;
        }
        Ok(())
    }

    /// A consumer read everything below `bound`.
    pub fn check_read(
        &self,
        part: TopicPartition,
        id: BrokerId,
        log: &ModelLog,
        bound: u64,
    ) -> Checked {
        let committed = self.committed(part);
        for offset in log.start..bound {
            let (got, known) =
                (log.get(offset), committed.get(offset as usize).map(|known| known.0));
            if !self.unclean && got != known {
                return violation(
                    "NoReadAboveWatermark",
                    format!("{id} showed {got:?} at {offset}, committed is {known:?}"),
                );
            }
        }
        Ok(())
    }

    /// Same epoch at the same offset: equal up to there.
    pub fn check_logs(&self, brokers: &BTreeMap<BrokerId, Broker>) -> Checked {
        let parts: Vec<_> = brokers
            .values()
            .flat_map(|broker| broker.parts.iter().map(|(part, state)| (part, broker.id, state)))
            .collect();
        for (n, (part, id, a)) in parts.iter().enumerate() {
            for (other, with, b) in &parts[n + 1..] {
                if part == other {
                    matching(*id, &a.log, *with, &b.log)?;
                }
            }
        }
        Ok(())
    }

    /// In the end everybody has everything that was acknowledged.
    pub fn check_acked(&self, brokers: &BTreeMap<BrokerId, Broker>) -> Checked {
        for (part, acked) in &self.acked {
            for (id, state) in brokers.values().filter_map(|b| Some((b.id, b.parts.get(part)?))) {
                let (start, end) = (state.log.start, at(state.replica.high_watermark()));
                for (offset, (value, _)) in acked.range(start..end.max(start)) {
                    let got = state.log.get(*offset);
                    if got.is_none_or(|entry| entry.value != *value) && !self.unclean {
                        let seen = format!("{id} at {offset}: {value} is {got:?}");
                        return violation("AckedIsNeverLost", seen);
                    }
                }
            }
        }
        Ok(())
    }
}

fn matching(id: BrokerId, a: &ModelLog, with: BrokerId, b: &ModelLog) -> Checked {
    let (start, end) = (a.start.max(b.start), a.end().min(b.end()));
    let mut same = false;
    for offset in (start..end).rev() {
        let (x, y) = (a.get(offset).expect("in range"), b.get(offset).expect("in range"));
        same |= x.epoch == y.epoch;
        if same && x != y {
            let seen = format!("at {offset}: {id} has {x:?}, {with} has {y:?}");
            return violation("LogMatching", seen);
        }
    }
    Ok(())
}
