//! Producer ids, given to brokers in blocks (KIP-730, `ProducerIdControlManager`).

use engine::ids::{BrokerEpoch, BrokerId, ProducerId};

use super::brokers::in_session;
use super::{ProducerIdBlock, Refusal, Why};
use crate::cluster::Cluster;
use crate::config::PRODUCER_ID_BLOCK;
use crate::records::Record;

pub(super) fn allocate(
    cluster: &Cluster,
    broker: BrokerId,
    epoch: BrokerEpoch,
    records: &mut Vec<Record>,
) -> Result<ProducerIdBlock, Refusal> {
    if cluster.broker(broker).is_none() {
        let message = format!("Broker {broker} is not registered.");
        return Err(Refusal::new(Why::UnknownBroker, message));
    }
    in_session(cluster, broker, epoch)?;
    let first = cluster.next_producer_id();
    let Some(next) = first.0.checked_add(PRODUCER_ID_BLOCK) else {
        return Err(Refusal::new(Why::LimitReached, "All producer ids have been given out."));
    };
    records.push(Record::ProducerIdsAllocated { broker, epoch, next: ProducerId(next) });
    Ok(ProducerIdBlock { first, count: PRODUCER_ID_BLOCK })
}
