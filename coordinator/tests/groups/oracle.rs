//! What was told, and what therefore must never be told again. Knows nothing of how groups work.

use std::collections::BTreeMap;

use coordinator::group::records::Record;
use coordinator::group::request::*;

use crate::world::RETENTION_MS;

#[derive(Default)]
pub struct Oracle {
    /// The first invariant that broke, and how.
    pub broken: Option<String>,
    /// Who was told to own a partition in a generation.
    owners: BTreeMap<(i32, i32), String>,
    /// The largest generation that was told assigned.
    generation: i32,
    /// The newest acknowledged offset of each partition.
    acknowledged: BTreeMap<i32, i64>,
    /// When the leader last told a member of an assigned generation that it is well. A zombie may
    /// do so for longer, and of a generation that is not assigned a failover leaves nothing.
    well: u64,
    pub assignments: u64,
    pub commits: u64,
    pub fetches: u64,
    pub expiries: u64,
    pub kept_assignments: u64,
}

impl Oracle {
    pub fn fail(&mut self, invariant: &str, how: String) {
        self.broken.get_or_insert(format!("{invariant}: {how}"));
    }

    /// The leader writes a record. Offsets may go when nobody was well for their retention.
    pub fn on_record(&mut self, now: u64, record: &Record) {
        let unused = now.saturating_sub(self.well) >= RETENTION_MS;
        match record {
            Record::Offset(key, None) if unused => {
                self.acknowledged.remove(&key.partition);
                self.expiries += 1;
            }
            Record::Offset(key, None) => {
                let how = format!("partition {} is forgotten while it is consumed", key.partition);
                self.fail("CommittedOffsetsNeverRegress", how);
            }
            // The next one of this name begins anew.
            Record::Classic(_, None) => {
                self.generation = 0;
                self.owners.clear();
            }
            _ => {}
        }
    }

    /// A reply leaves a node; `who` asked: a static member's instance, or a member's id.
    pub fn on_reply(&mut self, now: u64, leads: bool, who: &str, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Sync(sync), Reply::Synced(Ok(synced))) => {
                if leads {
                    self.well = now;
                }
                self.on_assignment(leads, who, sync.generation, &synced.assignment);
            }
            (Request::Heartbeat(beat), Reply::Heartbeat(Ok(())))
                if leads && beat.generation == self.generation =>
            {
                self.well = now;
            }
            (_, Reply::Joined(Joined { generation: Ok(generation), .. })) => {
                self.kept_assignments += u64::from(generation.skip_assignment);
            }
            (Request::CommitOffsets(commit), Reply::OffsetsCommitted(Ok(_))) => {
                self.commits += 1;
                for offset in &commit.topics[0].1 {
                    self.on_acknowledged(offset.partition, offset.offset);
                }
            }
            // What a zombie fetches may be old; nobody acts in its name.
            (_, Reply::Offsets(fetched)) if leads => {
                self.fetches += 1;
                for fetched in &fetched[0].topics.as_ref().unwrap()[0].1 {
                    let offset = fetched.committed.as_ref().map_or(-1, |one| one.offset);
                    self.on_fetched(fetched.partition, offset);
                }
            }
            _ => {}
        }
    }

    fn on_assignment(&mut self, leads: bool, who: &str, generation: i32, assignment: &[u8]) {
        self.assignments += 1;
        for partition in assignment {
            let key = (generation, i32::from(*partition));
            let owner = self.owners.entry(key).or_insert_with(|| who.into());
            if owner != who {
                let how = format!("{key:?} belongs to {owner}, and {who} is told the same");
                self.fail("OneOwnerPerGeneration", how);
                return;
            }
        }
        if leads && generation < self.generation {
            let how = format!("{generation} after {}", self.generation);
            self.fail("GenerationNeverRegresses", how);
        }
        self.generation = self.generation.max(generation);
    }

    fn on_acknowledged(&mut self, partition: i32, offset: i64) {
        let before = self.acknowledged.insert(partition, offset);
        if let Some(before) = before.filter(|before| *before > offset) {
            let how = format!("{offset} acknowledged after {before}, partition {partition}");
            self.fail("CommittedOffsetsNeverRegress", how);
        }
    }

    fn on_fetched(&mut self, partition: i32, offset: i64) {
        if let Some(before) = self.acknowledged.get(&partition).filter(|before| **before > offset) {
            let how = format!("{offset} fetched, {before} acknowledged, partition {partition}");
            self.fail("CommittedOffsetsNeverRegress", how);
        }
    }
}
