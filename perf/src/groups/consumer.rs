//! Members of a group of the consumer protocol (KIP-848). Their heartbeats do not wait for each
//! other, so that one connection serves them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net::client::Client;
use net::wire::Array;
use net::wire::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, TopicPartitions};

use super::member::Group;
use super::share::is_whole;
use crate::error::{PerfError, accepted};

/// How long a member may take to give something up.
const REBALANCE_MS: i32 = 60_000;
/// Before a coordinator that was not ready is asked again.
const RETRY: Duration = Duration::from_millis(5);

/// One member.
#[derive(Clone, Debug, Default)]
pub struct Consumer {
    id: String,
    epoch: i32,
    /// What it has.
    pub owned: BTreeSet<i32>,
    /// Whether the coordinator has not heard yet what it has.
    unsaid: bool,
}

/// Members of one group that share a connection.
pub struct Consumers {
    client: Client,
    group: Arc<Group>,
    name: String,
    /// By the number under which each joined.
    members: BTreeMap<u32, Consumer>,
    next: u32,
    /// How many partitions members were told to give up.
    pub given_up: usize,
}

impl Consumers {
    /// None yet. `name` tells them from those on other connections.
    pub fn new(group: &Arc<Group>, name: &str) -> Result<Consumers, PerfError> {
        let (client, group, name) = (group.connect()?, group.clone(), name.to_owned());
        Ok(Consumers { client, group, name, members: BTreeMap::new(), next: 0, given_up: 0 })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// What each has, by its number.
    pub fn owned(&self) -> BTreeMap<u32, BTreeSet<i32>> {
        self.members.iter().map(|(number, member)| (*number, member.owned.clone())).collect()
    }

    /// The newest epoch that a member was told.
    pub fn epoch(&self) -> i32 {
        self.members.values().map(|member| member.epoch).max().unwrap_or(0)
    }

    /// One more joins; its number.
    pub fn join(&mut self) -> Result<u32, PerfError> {
        let number = self.next;
        self.next += 1;
        // The member chooses its id itself; Kafka's clients take a random UUID.
        let id = format!("perf-{}-{number:010}", self.name);
        self.members.insert(number, Consumer { id, unsaid: true, ..Consumer::default() });
        self.beat(number).map(|()| number)
    }

    /// The oldest leaves.
    pub fn leave(&mut self) -> Result<(), PerfError> {
        let Some((_, member)) = self.members.pop_first() else { return Ok(()) };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: &self.group.name,
            member_id: &member.id,
            member_epoch: -1,
            ..Default::default()
        };
        let left = self.client.call(&request)?;
        accepted("leaving", left.error_code)
    }

    /// The member after `number`, from the first again after the last.
    pub fn after(&self, number: u32) -> Option<u32> {
        let next = self.members.range(number.saturating_add(1)..).next();
        next.or_else(|| self.members.first_key_value()).map(|(next, _)| *next)
    }

    /// One member's heartbeat. What it is told to give up it gives up at once.
    pub fn beat(&mut self, number: u32) -> Result<(), PerfError> {
        let Some(member) = self.members.get_mut(&number) else { return Ok(()) };
        let topics = [self.group.topic.name.as_str()];
        let partitions: Vec<i32> = member.owned.iter().copied().collect();
        let owned =
            [TopicPartitions { topic_id: self.group.topic.id, partitions: partitions.into() }];
        let joins = member.epoch == 0;
        let said = match member.owned.is_empty() {
            true => Array::new(),
            false => Array::from(&owned),
        };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: &self.group.name,
            member_id: &member.id,
            member_epoch: member.epoch,
            rebalance_timeout_ms: if joins { REBALANCE_MS } else { -1 },
            subscribed_topic_names: joins.then(|| (&topics).into()),
            topic_partitions: member.unsaid.then_some(said),
            ..Default::default()
        };
        let told = self.client.call(&request)?;
        if told.error_code.is_retriable() {
            thread::sleep(RETRY);
            return Ok(());
        }
        accepted(format!("a heartbeat of {}", member.id), told.error_code)?;
        member.unsaid = false;
        member.epoch = told.member_epoch;
        if let Some(target) = told.assignment {
            let each = target.topic_partitions.iter();
            let has: BTreeSet<i32> =
                each.flat_map(|topic| topic.partitions.iter().collect::<Vec<_>>()).collect();
            self.given_up += member.owned.difference(&has).count();
            member.unsaid = has != member.owned;
            member.owned = has;
        }
        Ok(())
    }

    /// Beats for all, round after round without a pause, until they are settled; the rounds.
    pub fn settle(&mut self, limit: Duration) -> Result<u32, PerfError> {
        let begun = Instant::now();
        for round in 1.. {
            let numbers: Vec<u32> = self.members.keys().copied().collect();
            numbers.into_iter().try_for_each(|number| self.beat(number))?;
            if are_settled([&*self].into_iter()) {
                return Ok(round);
            }
            if begun.elapsed() > limit {
                break;
            }
        }
        Err(PerfError::Wrong(format!("the consumer group is not settled after {limit:?}")))
    }
}

/// Whether all members are in one epoch, and have all partitions among them, and have said so;
/// `parts` are one group's.
pub fn are_settled<'a>(parts: impl Iterator<Item = &'a Consumers> + Clone) -> bool {
    let epoch = parts.clone().map(Consumers::epoch).max().unwrap_or(0);
    let members = || parts.clone().flat_map(|part| part.members.values());
    let is_calm = |member: &Consumer| member.epoch == epoch && !member.unsaid;
    let shares: Vec<Vec<i32>> =
        members().map(|member| member.owned.iter().copied().collect()).collect();
    let partitions = parts.clone().next().map_or(0, |part| part.group.topic.leaders.len() as i32);
    members().all(is_calm) && is_whole(shares.iter().map(Vec::as_slice), partitions)
}
