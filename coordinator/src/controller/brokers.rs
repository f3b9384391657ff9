//! Brokers join the cluster.

use std::sync::Arc;

use engine::ids::BrokerEpoch;

use super::{Controller, Refusal, Registered, Registration, Why};
use crate::cluster::{Broker, ClusterId};
use crate::machine::Seen;
use crate::records::Record;

/// A broker begins an uptime session; the first one ever also gives the cluster its name.
pub(super) fn register(
    seen: Seen<'_, Controller>,
    registration: Registration,
    records: &mut Vec<Record>,
) -> Result<Registered, Refusal> {
    let Registration { id, endpoints, rack, cluster: belongs_to } = registration;
    let cluster = seen.hard;
    if id.0 < 0 || endpoints.is_empty() {
        let message = format!("Broker {id} needs a non-negative id and an endpoint.");
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    if let (Some(ours), Some(theirs)) = (cluster.id(), &belongs_to)
        && ours != theirs
    {
        let message = format!("Broker {id} belongs to cluster {theirs}; this is cluster {ours}.");
        return Err(Refusal::new(Why::ForeignCluster, message));
    }
    if cluster.broker(id).is_none() && cluster.broker_count() >= seen.config.brokers_max {
        let message = format!("The cluster has its most brokers, {}.", seen.config.brokers_max);
        return Err(Refusal::new(Why::LimitReached, message));
    }
    let cluster_id = cluster.id().cloned().unwrap_or_else(|| {
        let id = belongs_to.unwrap_or_else(|| ClusterId::random(seen.at.random));
        records.push(Record::ClusterFormed { id: id.clone() });
        id
    });
    let epoch = BrokerEpoch(cluster.last_broker_epoch().0 + 1);
    records.push(Record::BrokerRegistered(Arc::new(Broker { id, epoch, endpoints, rack })));
    Ok(Registered { cluster: cluster_id, epoch })
}
