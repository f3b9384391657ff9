//! What a compacted log must hold, told record by record from what was appended.

use std::collections::BTreeMap;

use engine::batch::{Batch, batches};

use crate::batches::Stored;

/// A promise about compacted logs, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// What is there stands at its offset, as it was appended; batches keep their offsets, epochs
    /// and sequences.
    OffsetsKept,
    /// Of each key the newest record is there, or it was a deletion and is old; no record goes but
    /// for a newer one of its key.
    NewestOfEachKeyStays,
    /// Where a key's newest record, a deletion, is not there, no other record of it is.
    NothingComesBack,
}

pub type Broken = (Rule, String);

/// What was appended, and what may have become of it.
pub struct Truth<'a> {
    pub batches: &'a [Stored],
    /// Nothing at or above this offset was compacted.
    pub compacted: u64,
    /// What was appended after this time is not old enough for its deletions to go.
    pub old: i64,
    /// What replaced records that are gone may be gone, too.
    pub partial: bool,
}

/// A record that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub offset: u64,
    pub time: i64,
    pub key: u64,
}

fn broken<T>(rule: Rule, how: String) -> Result<T, Broken> {
    Err((rule, how))
}

impl Truth<'_> {
    /// Where the newest record of each key stands, below `end`, and whether it may be gone.
    pub fn newest(&self, end: u64) -> BTreeMap<u64, (u64, bool)> {
        let mut newest = BTreeMap::new();
        for batch in self.batches.iter().filter(|batch| batch.base < end) {
            for (at, &(key, deletes)) in (batch.base..end).zip(&batch.sent.keys) {
                let may_go = deletes && at < self.compacted && batch.sent.at <= self.old;
                let may_go = may_go || self.partial;
                newest.insert(key, (at, may_go));
            }
        }
        newest
    }

    /// Batches that were read from `from` on, up to `to`: what they are, and what is left out.
    pub fn check(&self, from: u64, to: u64, bytes: &[u8]) -> Result<Vec<Seen>, Broken> {
        let (mut seen, mut at) = (Vec::new(), from);
        let newest = self.newest(self.compacted);
        for found in batches(bytes) {
            let found = found.map_err(|error| (Rule::OffsetsKept, error.to_string()))?;
            if !found.verify_crc() {
                return broken(Rule::OffsetsKept, format!("{found:?} is damaged"));
            }
            let (base, end) = (found.base_offset().value(), found.next_offset().value());
            let which = self.batches.iter().find(|batch| (batch.base, batch.end) == (base, end));
            let Some(stored) = which else {
                return broken(Rule::OffsetsKept, format!("no batch was {base}..{end}"));
            };
            self.left_out(at, base, &newest)?;
            self.check_batch(stored, &found, at.max(base), &newest, &mut seen)?;
            at = end;
        }
        self.left_out(at, to, &newest)?;
        Ok(seen)
    }

    /// The records of `from..to` may be gone.
    fn left_out(
        &self,
        from: u64,
        to: u64,
        newest: &BTreeMap<u64, (u64, bool)>,
    ) -> Result<(), Broken> {
        let first = self.batches.partition_point(|batch| batch.end <= from);
        let batches = if self.partial { &[] } else { &self.batches[first..] };
        for batch in batches.iter().take_while(|batch| batch.base < to) {
            let records = (batch.base..batch.end).zip(&batch.sent.keys);
            for (at, (key, _)) in records.filter(|(at, _)| (from..to).contains(at)) {
                let replaced = at < self.compacted
                    && newest.get(key).is_some_and(|&(last, may_go)| last > at || may_go);
                if !replaced {
                    let how = format!("{at} of key {key} is gone; the newest are {newest:?}");
                    return broken(Rule::NewestOfEachKeyStays, how);
                }
            }
        }
        Ok(())
    }

    fn check_batch(
        &self,
        stored: &Stored,
        found: &Batch<'_>,
        from: u64,
        newest: &BTreeMap<u64, (u64, bool)>,
        seen: &mut Vec<Seen>,
    ) -> Result<(), Broken> {
        let (base, end) = (stored.base, stored.end);
        if base >= self.compacted && found.bytes() != stored.bytes {
            return broken(Rule::OffsetsKept, format!("{base}..{end} is not what was appended"));
        }
        let was = Batch::first(&stored.bytes).expect("it was appended");
        let same = (found.leader_epoch(), found.producer(), found.attributes().codec());
        let codec = was.attributes().codec().filter(|_| found.record_count() > 0);
        if same != (was.leader_epoch(), was.producer(), codec.or(same.2)) {
            return broken(Rule::OffsetsKept, format!("{base}..{end} was {was:?}, is {found:?}"));
        }
        let (mut scratch, mut other) = (Vec::new(), Vec::new());
        let wrong = |error| (Rule::OffsetsKept, format!("{base}..{end}: {error}"));
        let mut all = was.records(&mut scratch, 1 << 24).map_err(wrong)?;
        let mut at = base;
        for record in found.records(&mut other, 1 << 24).map_err(wrong)? {
            let record = record.map_err(wrong)?;
            let offset = record.offset.value();
            let original = all.find(|one| one.is_ok_and(|one| one.offset == record.offset));
            if original != Some(Ok(record)) {
                let how = format!("{offset} is {record:?} instead of {original:?}");
                return broken(Rule::OffsetsKept, how);
            }
            self.left_out(at.max(from), offset, newest)?;
            at = offset + 1;
            if offset >= from {
                let key = stored.sent.keys[(offset - base) as usize].0;
                seen.push(Seen { offset, time: record.timestamp.0, key });
            }
        }
        self.left_out(at.max(from), end, newest)
    }

    /// Everything from `start` to `end` was read at one time.
    pub fn check_all(&self, start: u64, end: u64, bytes: &[u8]) -> Result<Vec<Seen>, Broken> {
        let seen = self.check(start, end, bytes)?;
        self.check_newest(start, end, &seen)?;
        Ok(seen)
    }

    /// Of each key the newest record is among those seen, or nothing of it is.
    pub fn check_newest(&self, start: u64, end: u64, seen: &[Seen]) -> Result<(), Broken> {
        for (key, (newest, may_go)) in self.newest(end) {
            let last = seen.iter().rfind(|seen| seen.key == key).map(|seen| seen.offset);
            if newest < start || last == Some(newest) {
                continue;
            }
            let how = || format!("key {key} ends with {last:?}, its newest record is {newest}");
            match last {
                _ if !may_go => return broken(Rule::NewestOfEachKeyStays, how()),
                Some(_) if !self.partial => return broken(Rule::NothingComesBack, how()),
                _ => {}
            }
        }
        Ok(())
    }
}
