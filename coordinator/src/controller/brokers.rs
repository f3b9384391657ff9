//! Brokers join the cluster and leave it. Kafka's `ClusterControlManager`.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ids::{BrokerEpoch, BrokerId, Offset};

use super::changes::Changes;
use super::{Controller, Loss, Mutant, Refusal, Registered, Registration, Soft, Why, features};
use crate::cluster::{Broker, Cluster, ClusterId, DirectoryId};
use crate::machine::Seen;
use crate::records::Record;

/// A broker begins an uptime session, fenced; the first one ever also gives the cluster its name.
pub(super) fn register(
    seen: Seen<'_, Controller>,
    soft: &mut Soft,
    registration: Registration,
    records: &mut Vec<Record>,
) -> Result<Registered, Refusal> {
    let cluster = seen.hard;
    let id = registration.id;
    check(seen, soft, &registration)?;
    let ranges = features::check_ranges(cluster, &registration)?;
    let Registration { endpoints, rack, cluster: belongs_to, incarnation, directory, .. } =
        registration;
    let cluster_id = cluster.id().cloned().unwrap_or_else(|| {
        let id = belongs_to.unwrap_or_else(|| ClusterId::random(seen.at.random));
        records.push(Record::ClusterFormed { id: id.clone() });
        id
    });
    features::begin(cluster, records);
    let known = cluster.broker(id);
    let again = known.filter(|known| known.incarnation == incarnation);
    let mut broker = Broker {
        id,
        epoch: BrokerEpoch(cluster.last_broker_epoch().0 + 1),
        incarnation,
        directory,
        endpoints,
        rack,
        features: ranges,
        fenced: true,
        registered: Offset::ZERO,
        stopping: None,
    };
    if let Some(again) = again {
        // The same run asks again: perhaps it has not heard the answer.
        let Broker { epoch, fenced, registered, stopping, .. } = **again;
        broker = Broker { epoch, fenced, registered, stopping, ..broker };
        if broker == **again {
            soft.heard(seen, id, epoch, None);
            return Ok(Registered { cluster: cluster_id, epoch });
        }
    }
    let epoch = broker.epoch;
    records.push(Record::BrokerRegistered(Arc::new(broker)));
    if again.is_none() {
        let moved = known.is_some_and(|known| is_other(known.directory, directory));
        let lost = match seen.config.mutant {
            Some(Mutant::LossForgotten) => Loss::Nothing,
            _ if moved => Loss::Everything,
            _ => registration.lost,
        };
        let mut changes = Changes::new(seen);
        changes.return_with(id, lost);
        changes.record(records);
    }
    soft.heard(seen, id, epoch, None);
    Ok(Registered { cluster: cluster_id, epoch })
}

/// Whether two directories are surely not the same one.
fn is_other(one: DirectoryId, other: DirectoryId) -> bool {
    one != other && one != DirectoryId::UNKNOWN && other != DirectoryId::UNKNOWN
}

/// Refuses a registration that cannot be.
fn check(
    seen: Seen<'_, Controller>,
    soft: &Soft,
    registration: &Registration,
) -> Result<(), Refusal> {
    let cluster = seen.hard;
    let Registration { id, endpoints, cluster: belongs_to, directory, .. } = registration;
    if id.0 < 0 || endpoints.is_empty() {
        let message = format!("Broker {id} needs a non-negative id and an endpoint.");
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    if let (Some(ours), Some(theirs)) = (cluster.id(), belongs_to)
        && ours != theirs
    {
        let message = format!("Expected cluster ID {ours}, but got cluster ID {theirs}");
        return Err(Refusal::new(Why::ForeignCluster, message));
    }
    let known = cluster.broker(*id);
    if known.is_none() && cluster.broker_count() >= seen.config.brokers_max {
        let message = format!("The cluster has its most brokers, {}.", seen.config.brokers_max);
        return Err(Refusal::new(Why::LimitReached, message));
    }
    // Whoever has the same directory has its lock, so its last run is over.
    if let Some(known) = known
        && is_other(known.directory, *directory)
        && (!known.fenced || soft.has_session(seen, known))
    {
        let message = "Another broker is registered with that broker id.";
        return Err(Refusal::new(Why::DuplicateBroker, message));
    }
    let of_another = cluster.brokers().find(|known| {
        known.id != *id && known.directory == *directory && known.directory != DirectoryId::UNKNOWN
    });
    if let Some(other) = of_another {
        let message =
            format!("Broker {} is already registered with directory {directory}", other.id);
        return Err(Refusal::new(Why::RegistrationInvalid, message));
    }
    Ok(())
}

/// A broker is no member any more.
pub(super) fn unregister(
    seen: Seen<'_, Controller>,
    soft: &mut Soft,
    broker: BrokerId,
    records: &mut Vec<Record>,
) -> Result<(), Refusal> {
    let Some(known) = seen.hard.broker(broker) else {
        let message = format!("Broker ID {broker} is not currently registered");
        return Err(Refusal::new(Why::UnknownBroker, message));
    };
    let mut changes = Changes::new(seen);
    changes.forget(broker);
    changes.record(records);
    records.push(Record::BrokerUnregistered { broker, epoch: known.epoch });
    soft.ended(seen, broker);
    Ok(())
}

/// The broker, if `epoch` is its present session.
pub(super) fn in_session(
    cluster: &Cluster,
    broker: BrokerId,
    epoch: BrokerEpoch,
) -> Result<&Arc<Broker>, Refusal> {
    let Some(known) = cluster.broker(broker) else {
        let message = format!("No broker registration found for broker id {broker}");
        return Err(Refusal::new(Why::StaleBrokerEpoch, message));
    };
    if known.epoch != epoch {
        let message =
            format!("Expected broker epoch {}, but got broker epoch {epoch}", known.epoch);
        return Err(Refusal::new(Why::StaleBrokerEpoch, message));
    }
    Ok(known)
}

/// Brokers that may lead and join, by rack.
pub(super) fn active_by_rack(cluster: &Cluster) -> BTreeMap<Option<&str>, Vec<BrokerId>> {
    let mut racks: BTreeMap<Option<&str>, Vec<BrokerId>> = BTreeMap::new();
    for broker in cluster.brokers().filter(|broker| broker.is_active()) {
        racks.entry(broker.rack.as_deref()).or_default().push(broker.id);
    }
    racks
}
