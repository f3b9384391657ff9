//! Who leads instead: what Produce and Fetch tell a client that asked the wrong broker (KIP-951),
//! so that it needs no Metadata before it goes on. Kafka's `KafkaApis.getCurrentLeader`.

use std::collections::BTreeSet;

use coordinator::image::Image;
use engine::ids::{BrokerId, TopicPartition};

use super::admin;
use crate::wire::ErrorCode;
use crate::wire::produce::{LeaderIdAndEpoch, NodeEndpoint};

/// Leaders that an answer names, with where they are.
pub struct Leaders<'i> {
    image: &'i Image,
    /// The client's listener.
    listener: &'i str,
    named: BTreeSet<BrokerId>,
}

impl<'i> Leaders<'i> {
    /// For a client that came by `listener`.
    pub fn new(image: &'i Image, listener: &'i str) -> Leaders<'i> {
        Leaders { image, listener, named: BTreeSet::new() }
    }

    /// Who leads a partition that was refused with `error`, and in which term: nobody where the
    /// error is not about that.
    pub fn of(&mut self, error: ErrorCode, id: Option<TopicPartition>) -> LeaderIdAndEpoch {
        if !matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch) {
            return LeaderIdAndEpoch::default();
        }
        let known = id.and_then(|id| self.image.partition(id.topic, id.partition));
        let Some((leader, known)) = known.and_then(|known| Some((known.leader?, known))) else {
            return LeaderIdAndEpoch::default();
        };
        self.named.insert(leader);
        LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: known.leader_epoch.0 }
    }

    /// Where those are that were named, as far as clients of the listener can reach them.
    pub fn endpoints(&self) -> Vec<NodeEndpoint<'i>> {
        let endpoint = |id: &BrokerId| {
            let broker = self.image.broker(*id).filter(|broker| !broker.fenced)?;
            let endpoint = admin::endpoint(broker, self.listener)?;
            Some(NodeEndpoint {
                node_id: id.0,
                host: endpoint.host.as_str().into(),
                port: endpoint.port.into(),
                rack: broker.rack.as_deref().map(Into::into),
            })
        };
        self.named.iter().filter_map(endpoint).collect()
    }
}
