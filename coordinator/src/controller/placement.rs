//! Which brokers keep a new partition: striped over racks, then over the brokers of each rack.
//!
//! As Kafka's `StripedReplicaPlacer`: a random start, one step further with each partition, so
//! that leaders and replicas spread evenly whatever the number of partitions. Every registered
//! broker counts as usable.

use std::collections::BTreeMap;

use engine::ids::BrokerId;

use super::random::Random;
use super::{Refusal, Why};
use crate::cluster::{Cluster, Replicas};

/// Chooses `replication_factor` distinct brokers for each of `partitions` partitions.
pub(super) fn place(
    cluster: &Cluster,
    partitions: usize,
    replication_factor: i16,
    random: &mut Random,
) -> Result<Vec<Replicas>, Refusal> {
    let brokers = cluster.broker_count();
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    if replicas == 0 || replicas > brokers {
        return Err(Refusal::new(
            Why::ReplicationFactorInvalid,
            format!(
                "Unable to replicate the partition {replication_factor} time(s): The target \
                 replication factor of {replication_factor} cannot be reached because only \
                 {brokers} broker(s) are registered."
            ),
        ));
    }
    let mut racks = racks(cluster, random);
    let start = random.below(racks.len());
    let mut placed: Vec<Replicas> = Vec::with_capacity(partitions);
    for partition in 0..partitions {
        let next = stripe(&mut racks, start + partition, replicas);
        // Equal neighbours share one allocation: with one broker, all of them do.
        match placed.last() {
            Some(last) if **last == next[..] => placed.push(last.clone()),
            _ => placed.push(next.into()),
        }
    }
    Ok(placed)
}

/// The brokers of one rack, and who is next.
struct Rack {
    brokers: Vec<BrokerId>,
    next: usize,
}

fn racks(cluster: &Cluster, random: &mut Random) -> Vec<Rack> {
    let mut racks: BTreeMap<Option<&str>, Vec<BrokerId>> = BTreeMap::new();
    for broker in cluster.brokers() {
        racks.entry(broker.rack.as_deref()).or_default().push(broker.id);
    }
    racks.into_values().map(|brokers| Rack { next: random.below(brokers.len()), brokers }).collect()
}

/// One partition's brokers: from rack after rack, each rack going round its own brokers; a rack
/// all of whose brokers are taken is passed over.
fn stripe(racks: &mut [Rack], start: usize, replicas: usize) -> Vec<BrokerId> {
    let count = racks.len();
    let mut chosen: Vec<BrokerId> = Vec::with_capacity(replicas);
    let mut taken = vec![0; count];
    let mut at = start;
    while chosen.len() < replicas {
        let rack = &racks[at % count];
        let taken_here = &mut taken[at % count];
        if *taken_here < rack.brokers.len() {
            chosen.push(rack.brokers[(rack.next + *taken_here) % rack.brokers.len()]);
            *taken_here += 1;
        }
        at += 1;
    }
    for (rack, taken) in racks.iter_mut().zip(taken) {
        if taken > 0 {
            rack.next = (rack.next + 1) % rack.brokers.len();
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Broker, Endpoint};
    use crate::records::Record;
    use engine::ids::BrokerEpoch;
    use std::sync::Arc;

    fn cluster(racks: &[Option<&str>]) -> Cluster {
        let mut cluster = Cluster::default();
        for (id, rack) in (0..).zip(racks) {
            let endpoint = Endpoint { listener: "A".into(), host: "h".into(), port: 1 };
            cluster.apply(&Record::BrokerRegistered(Arc::new(Broker {
                id: BrokerId(id),
                epoch: BrokerEpoch(i64::from(id) + 1),
                endpoints: vec![endpoint],
                rack: rack.map(str::to_string),
            })));
        }
        cluster
    }

    #[test]
    fn replicas_spread_over_racks_and_brokers() {
        let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c"), Some("c")];
        let cluster = cluster(&racks);
        for seed in 0..50 {
            let placed = place(&cluster, 60, 3, &mut Random::new([seed, 1])).unwrap();
            let mut leads = [0; 6];
            let mut keeps = [0; 6];
            for replicas in &placed {
                let mut used: Vec<_> = replicas.iter().map(|b| racks[b.0 as usize]).collect();
                used.sort();
                assert_eq!(used, [Some("a"), Some("b"), Some("c")], "one in each rack");
                leads[replicas[0].0 as usize] += 1;
                replicas.iter().for_each(|b| keeps[b.0 as usize] += 1);
            }
            assert!(leads.iter().all(|&n| (5..=15).contains(&n)), "{leads:?}");
            assert!(keeps.iter().all(|&n| n == 30), "{keeps:?}");
        }
    }

    #[test]
    fn unequal_racks_still_give_distinct_brokers() {
        let cluster = cluster(&[Some("a"), Some("a"), Some("a"), Some("b"), None]);
        for seed in 0..50 {
            for replication_factor in 1..=5 {
                let mut random = Random::new([seed, 2]);
                for replicas in place(&cluster, 7, replication_factor, &mut random).unwrap() {
                    let mut distinct = replicas.to_vec();
                    distinct.sort_unstable();
                    distinct.dedup();
                    assert_eq!(distinct.len(), replication_factor as usize);
                }
            }
        }
        let refused = place(&cluster, 1, 6, &mut Random::new([0, 0])).unwrap_err();
        assert_eq!(refused.why, Why::ReplicationFactorInvalid);
    }

    #[test]
    fn nobody_can_keep_anything_where_there_is_no_broker() {
        let refused = place(&cluster(&[]), 1, 1, &mut Random::new([0, 0])).unwrap_err();
        assert_eq!(refused.why, Why::ReplicationFactorInvalid);
    }
}
