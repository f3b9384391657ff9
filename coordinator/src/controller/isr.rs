//! Leaders say who is in sync. Kafka's `ReplicationControlManager.alterPartition`, with its checks
//! in its order.

use engine::ids::{BrokerEpoch, BrokerId};

use super::change::{Candidates, Election, Target};
use super::changes::Changes;
use super::{AlteredPartitions, Controller, IsrChange, Mutant, Refusal, Rules, Why, brokers};
use crate::cluster::{Partition, PartitionEpoch};
use crate::machine::Seen;
use crate::records::Record;

pub(super) fn alter(
    seen: Seen<'_, Controller>,
    broker: BrokerId,
    epoch: BrokerEpoch,
    wanted: Vec<IsrChange>,
    records: &mut Vec<Record>,
) -> Result<AlteredPartitions, Refusal> {
    brokers::in_session(seen.hard, broker, epoch)?;
    let mut changes = Changes::new(seen);
    let altered = wanted
        .into_iter()
        .map(|wanted| (wanted.partition, alter_one(seen, broker, &wanted, &mut changes)))
        .collect();
    changes.record(records);
    Ok(altered)
}

fn alter_one(
    seen: Seen<'_, Controller>,
    broker: BrokerId,
    wanted: &IsrChange,
    changes: &mut Changes<'_>,
) -> Result<Partition, Refusal> {
    let id = wanted.partition;
    let Some(topic) = seen.hard.topic_by_id(id.topic) else {
        return Err(Refusal::new(Why::UnknownTopicId, "This server does not host this topic ID."));
    };
    let Some(before) = changes.partition(id) else {
        return Err(super::topics::unknown_topic());
    };
    check(seen, broker, wanted, before)?;
    let rules = Rules::of(topic, seen.config);
    if wanted.isr.is_empty() {
        let after = end_term(seen, broker, before, &rules);
        changes.put(id, after.clone());
        return Ok(after);
    }
    let target = Target {
        isr: wanted.isr.iter().map(|(member, _)| *member).collect(),
        ..Target::of(before, Election::by(&rules), seen.config.mutant)
    };
    let settled = target.settle(before, &rules, &Candidates::of(seen.hard));
    // The ISR as it is gets a new version, too: so a leader makes sure that an older proposal of
    // its own, whose answer was lost, will not be carried out any more.
    let renewed = || Partition { epoch: PartitionEpoch(before.epoch.0 + 1), ..before.clone() };
    let after = settled.unwrap_or_else(renewed);
    changes.put(id, after.clone());
    if after.leader == Some(broker) {
        return Ok(after);
    }
    let message = "The reassignment of the partition is done, and another replica leads it.";
    Err(Refusal::new(Why::NewLeaderElected, message))
}

/// The partition with another leader, or with the same one in a new term if nobody else can lead.
fn end_term(
    seen: Seen<'_, Controller>,
    broker: BrokerId,
    before: &Partition,
    rules: &Rules,
) -> Partition {
    let except = Some(broker);
    let candidates = Candidates { except, except_keeps: true, ..Candidates::of(seen.hard) };
    let target = Target::of(before, Election::by(rules), seen.config.mutant);
    let mut after = target.settle(before, rules, &candidates).unwrap_or_else(|| before.clone());
    if after.leader_epoch == before.leader_epoch {
        after.leader_epoch.0 += 1;
        after.epoch = PartitionEpoch(before.epoch.0 + 1);
    }
    after
}

/// Refuses what this leader may not say of this partition.
fn check(
    seen: Seen<'_, Controller>,
    broker: BrokerId,
    wanted: &IsrChange,
    before: &Partition,
) -> Result<(), Refusal> {
    let refuse = |why, message: String| Err(Refusal::new(why, message));
    let (leader_epoch, epoch) = (wanted.leader_epoch, wanted.partition_epoch);
    if leader_epoch > before.leader_epoch || epoch > before.epoch {
        return refuse(
            Why::NotController,
            "The broker knows a newer state of the partition than this controller.".into(),
        );
    }
    if leader_epoch < before.leader_epoch {
        return refuse(
            Why::FencedLeaderEpoch,
            format!("The current leader epoch is {}, not {leader_epoch}.", before.leader_epoch),
        );
    }
    if before.leader != Some(broker) {
        let leader = before.leader.map_or("none".into(), |leader| leader.to_string());
        return refuse(Why::RequestInvalid, format!("The current leader is {leader}."));
    }
    if epoch < before.epoch && seen.config.mutant != Some(Mutant::StalePartitionEpoch) {
        let message =
            format!("The current partition epoch is {}, not {}.", before.epoch.0, epoch.0);
        return refuse(Why::InvalidUpdateVersion, message);
    }
    if wanted.isr.is_empty() {
        return Ok(());
    }
    let mut members: Vec<BrokerId> = wanted.isr.iter().map(|(member, _)| *member).collect();
    members.sort_unstable();
    let distinct = members.windows(2).all(|pair| pair[0] != pair[1]);
    if !distinct || !members.iter().all(|member| before.replicas.contains(member)) {
        return refuse(Why::RequestInvalid, format!("An ISR of {members:?} cannot be."));
    }
    if !members.contains(&broker) {
        let message = format!("The ISR {members:?} does not include the leader.");
        return refuse(Why::RequestInvalid, message);
    }
    for (member, epoch) in &wanted.isr {
        if let Some(reason) = ineligible(seen, *member, *epoch) {
            let message = format!("Broker {member} cannot be in the ISR: {reason}.");
            return refuse(Why::IneligibleReplica, message);
        }
    }
    Ok(())
}

/// Why a broker cannot be in sync, if it cannot.
fn ineligible(seen: Seen<'_, Controller>, member: BrokerId, epoch: BrokerEpoch) -> Option<String> {
    let mutant = seen.config.mutant;
    let Some(known) = seen.hard.broker(member) else {
        return Some("not registered".into());
    };
    if known.stopping.is_some() {
        Some("shutting down".into())
    } else if known.fenced && mutant != Some(Mutant::FencedJoins) {
        Some("fenced".into())
    } else if known.epoch != epoch && mutant != Some(Mutant::StaleBrokerEpoch) {
        let expected = known.epoch;
        Some(format!("broker epoch mismatch: requested={epoch} VS expected={expected}"))
    } else {
        None
    }
}
