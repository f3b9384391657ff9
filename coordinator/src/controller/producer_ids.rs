//! Producer ids, given to brokers in blocks (KIP-730, `ProducerIdControlManager`).

use engine::ids::{BrokerEpoch, BrokerId, ProducerId};

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
    let Some(registered) = cluster.broker(broker) else {
        return Err(Refusal::new(
            Why::UnknownBroker,
            format!("Broker {broker} is not registered."),
        ));
    };
    if registered.epoch != epoch {
        return Err(Refusal::new(
            Why::StaleBrokerEpoch,
            format!("Broker epoch {epoch} of broker {broker} is not {}.", registered.epoch),
        ));
    }
    let first = cluster.next_producer_id();
    let Some(next) = first.0.checked_add(PRODUCER_ID_BLOCK) else {
        return Err(Refusal::new(Why::LimitReached, "All producer ids have been given out."));
    };
    records.push(Record::ProducerIdsAllocated { broker, epoch, next: ProducerId(next) });
    Ok(ProducerIdBlock { first, count: PRODUCER_ID_BLOCK })
}
