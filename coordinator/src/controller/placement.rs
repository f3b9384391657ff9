//! Which brokers keep a new partition: striped over racks, then over the brokers of each rack.
//!
//! As Kafka's `StripedReplicaPlacer`: a random start, one step further with each partition, so
//! that leaders and replicas spread evenly whatever the number of partitions. Only active brokers
//! are chosen; Kafka would also give followers to fenced ones.

use engine::ids::BrokerId;

use super::brokers::active_by_rack;
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
    let brokers = cluster.brokers().filter(|broker| broker.is_active()).count();
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    let refuse = |reason: &str| {
        let message =
            format!("Unable to replicate the partition {replication_factor} time(s): {reason}");
        Err(Refusal::new(Why::ReplicationFactorInvalid, message))
    };
    if brokers == 0 {
        return refuse("All brokers are currently fenced.");
    }
    if replicas == 0 || replicas > brokers {
        return refuse(&format!(
            "The target replication factor of {replication_factor} cannot be reached because only \
             {brokers} broker(s) are registered{}.",
            if brokers < cluster.broker_count() { " and not fenced" } else { "" }
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
    active_by_rack(cluster)
        .into_values()
        .map(|brokers| Rack { next: random.below(brokers.len()), brokers })
        .collect()
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
    use crate::cluster::{Broker, BrokerChange, DirectoryId, Endpoint, Incarnation};
    use crate::records::Record;
    use engine::ids::{BrokerEpoch, Offset};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn cluster(racks: &[Option<&str>]) -> Cluster {
        let mut cluster = Cluster::default();
        for (id, rack) in (0..).zip(racks) {
            let endpoint = Endpoint { listener: "A".into(), host: "h".into(), port: 1 };
            let broker = Broker {
                id: BrokerId(id),
                epoch: BrokerEpoch(i64::from(id) + 1),
                incarnation: Incarnation::UNKNOWN,
                directory: DirectoryId::UNKNOWN,
                endpoints: vec![endpoint],
                rack: rack.map(str::to_string),
                features: BTreeMap::new(),
                fenced: false,
                registered: Offset::ZERO,
                stopping: None,
            };
            cluster.apply(Offset::ZERO, &Record::BrokerRegistered(Arc::new(broker)));
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
    fn only_active_brokers_are_chosen() {
        let mut cluster = cluster(&[Some("a"), Some("a"), Some("b"), Some("c")]);
        for (id, change) in [(0, BrokerChange::Fenced), (3, BrokerChange::Stopping)] {
            let (broker, epoch) = (BrokerId(id), BrokerEpoch(i64::from(id) + 1));
            cluster.apply(Offset::ZERO, &Record::BrokerChanged { broker, epoch, change });
        }
        for seed in 0..20 {
            for replicas in place(&cluster, 5, 2, &mut Random::new([seed, 3])).unwrap() {
                let mut chosen = replicas.to_vec();
                chosen.sort_unstable();
                assert_eq!(chosen, [BrokerId(1), BrokerId(2)]);
            }
        }
        let refused = place(&cluster, 1, 3, &mut Random::new([0, 0])).unwrap_err();
        assert_eq!(refused.why, Why::ReplicationFactorInvalid);
        assert!(refused.message.ends_with("only 2 broker(s) are registered and not fenced."));
    }

    #[test]
    fn nobody_can_keep_anything_where_there_is_no_broker() {
        let refused = place(&cluster(&[]), 1, 1, &mut Random::new([0, 0])).unwrap_err();
        assert_eq!(refused.why, Why::ReplicationFactorInvalid);
    }
}
