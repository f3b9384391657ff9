//! What a replica has on its disk, read by the engine without a broker around it.

use std::path::Path;
use std::rc::Rc;

use coordinator::cluster::Topic;
use engine::cache::BlockBudget;
use engine::ids::{Offset, PartitionIndex, TopicPartition};
use engine::log::{Disk, Limit, Log, Shared};
use net::partitions::partition_dir;
use net::topic_config::effective;

use crate::machine::Machine;

/// All batches of a partition.
pub async fn read(
    machine: &Machine,
    topic: &Topic,
    index: PartitionIndex,
) -> Result<Vec<u8>, String> {
    let options = machine.options();
    let env = machine.node.env();
    let id = TopicPartition { topic: topic.id, partition: index };
    let dir = partition_dir(Path::new(&machine.data()), id);
    let config = Rc::new(effective(topic, &options.log, &options.limits));
    let shared = Shared {
        budget: BlockBudget::new(options.limits.tail_bytes_max, options.unwritten_bytes_max),
        disk: Disk::default(),
        bounds: options.bounds,
    };
    let wrong = |error: String| format!("{}-{index} on {}: {error}", topic.name, machine.name());
    let opened = Log::open(&env, &dir, id, config, &shared).await;
    let (log, _) = opened.map_err(|error| wrong(error.to_string()))?;
    let (mut bytes, mut at) = (Vec::new(), log.start());
    while at < log.end() {
        let limit = Limit { bytes_max: 1 << 20, bound: Offset::MAX, at_least_one: true };
        let chunk = log.read(at, limit).await.map_err(|error| wrong(error.to_string()))?;
        chunk.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        at = chunk.next;
    }
    Ok(bytes)
}
