//! What was told, and what therefore must never be told again.

use std::collections::BTreeMap;

use coordinator::group::Group;
use coordinator::group::request::*;
use engine::ids::{PartitionIndex, TopicId};

use crate::client::Client;

/// What has happened.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Figures {
    pub failovers: u64,
    pub commits: u64,
    pub fetches: u64,
    pub fenced: u64,
    pub upgrades: u64,
    pub downgrades: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.failovers += other.failovers;
        self.commits += other.commits;
        self.fetches += other.fetches;
        self.fenced += other.fenced;
        self.upgrades += other.upgrades;
        self.downgrades += other.downgrades;
    }
}

#[derive(Default)]
pub struct Oracle {
    /// The first invariant that broke, and how.
    pub broken: Option<String>,
    pub figures: Figures,
    /// The newest acknowledged offset of each partition.
    acknowledged: BTreeMap<i32, i64>,
}

impl Oracle {
    pub fn fail(&mut self, invariant: &str, how: String) {
        self.broken.get_or_insert(format!("{invariant}: {how}"));
    }

    /// CommittedOffsetsNeverRegress.
    pub fn on_reply(&mut self, leads: bool, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::CommitOffsets(commit), Reply::OffsetsCommitted(Ok(outcomes))) => {
                let asked = commit.topics.iter().flat_map(|(_, all)| all);
                let told = outcomes.iter().flat_map(|(_, all)| all);
                for (one, (partition, fault)) in asked.zip(told) {
                    assert_eq!(one.partition, *partition);
                    if fault.is_none() {
                        self.on_acknowledged(one.partition, one.offset);
                    }
                }
            }
            // What a zombie fetches may be old; nobody acts in its name.
            (_, Reply::Offsets(all)) if leads => {
                self.figures.fetches += 1;
                for one in all.iter().flat_map(|one| &one.topics).flatten().flat_map(|t| &t.1) {
                    let offset = one.committed.as_ref().map_or(0, |committed| committed.offset);
                    let before = self.acknowledged.get(&one.partition).copied().unwrap_or(0);
                    if offset < before {
                        let how = format!("{offset} of {} fetched after {before}", one.partition);
                        self.fail("CommittedOffsetsNeverRegress", how);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_acknowledged(&mut self, partition: i32, offset: i64) {
        self.figures.commits += 1;
        let before = self.acknowledged.insert(partition, offset);
        if let Some(before) = before.filter(|before| *before > offset) {
            let how = format!("{offset} of {partition} acknowledged after {before}");
            self.fail("CommittedOffsetsNeverRegress", how);
        }
    }

    /// OneOwnerPerPartition: of those who use a partition one at most could commit for it.
    pub fn look(&mut self, topic: TopicId, group: Option<Group<'_>>, clients: &[Client]) {
        let may = |client: &Client, partition: i32| match group {
            None => false,
            Some(Group::Classic(value)) => value.is_some_and(|value| {
                value.generation == client.epoch
                    && value.members.iter().any(|member| member.id == client.id)
            }),
            Some(Group::Consumer(group)) => {
                let (id, epoch, at) = (&client.id, client.epoch, PartitionIndex(partition));
                group.check_commit(id, epoch, false).is_ok()
                    && group.may_commit(id, epoch, Some(topic), at).is_ok()
            }
        };
        let mut owners: BTreeMap<i32, &Client> = BTreeMap::new();
        for client in clients.iter().filter(|client| client.alive) {
            for &partition in client.owned.iter().filter(|at| may(client, **at)) {
                if let Some(other) = owners.insert(partition, client) {
                    let how = format!("{partition} is used by\n  {other:?} and\n  {client:?}");
                    self.fail("OneOwnerPerPartition", how);
                    return;
                }
            }
        }
    }
}
