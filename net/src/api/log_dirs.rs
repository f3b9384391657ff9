//! DescribeLogDirs: how large partitions are, and how much room there is.

use std::borrow::Cow;
use std::collections::BTreeSet;

use coordinator::cluster::Topic;
use engine::ids::{PartitionIndex, TopicPartition};

use super::admin::Header;
use crate::ask::{Ask, Told};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::describe_log_dirs::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, LogDir, ResponsePartition, ResponseTopic,
};
use crate::wire::{DecodeError, Encoded, ErrorCode, Reader};

/// Answers DescribeLogDirs. Partitions that are not there, or whose log is offline, are left out,
/// as Kafka does.
pub async fn describe_log_dirs<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeLogDirsRequest::decode(&mut body, header.version)?;
    let data = &shard.options().data;
    let log_dir = std::path::absolute(data).unwrap_or_else(|_| data.clone());
    let log_dir = Cow::Owned(log_dir.to_string_lossy().into_owned());
    if let Some(why) = shard.disk_failure().await {
        tracing::debug!(why, "the log directory is offline");
        let failed =
            LogDir { error_code: ErrorCode::KafkaStorageError, log_dir, ..Default::default() };
        let results = vec![failed].into();
        return Ok(header.encode(&DescribeLogDirsResponse { results, ..Default::default() }));
    }
    let image = shard.image();
    let mut asked: Vec<(&Topic, Vec<PartitionIndex>)> = Vec::new();
    match &request.topics {
        None => {
            asked.extend(image.topics().map(|topic| (&**topic, here(shard, topic, |_| true))));
        }
        Some(topics) => {
            let names: BTreeSet<&str> = topics.iter().map(|topic| topic.topic).collect();
            let mut wanted: BTreeSet<(&str, i32)> = BTreeSet::new();
            for topic in topics.iter() {
                wanted.extend(topic.partitions.iter().map(|index| (topic.topic, index)));
            }
            for topic in names.into_iter().filter_map(|name| image.topic(name)) {
                let is_wanted = |index: i32| wanted.contains(&(&*topic.name, index));
                asked.push((topic, here(shard, topic, is_wanted)));
            }
        }
    }
    let asks = asked.iter().flat_map(|(topic, indexes)| {
        let id = |index| TopicPartition { topic: topic.id, partition: index };
        indexes.iter().map(move |&index| Ask::Size(id(index)))
    });
    let mut told = shard.ask(asks.collect()).await.into_iter();
    let mut topics = Vec::new();
    for (topic, indexes) in &asked {
        let partitions: Vec<_> = indexes
            .iter()
            .filter_map(|index| match told.next().expect("each is told") {
                Told::Size(size) => Some(ResponsePartition {
                    partition_index: index.0,
                    partition_size: size.ok()?.bytes as i64,
                    ..Default::default()
                }),
                _ => unreachable!("what is told is of its question's kind"),
            })
            .collect();
        if !partitions.is_empty() {
            topics.push(ResponseTopic {
                name: Cow::Borrowed(&topic.name),
                partitions: partitions.into(),
            });
        }
    }
    let space = shard.env().space(data).await;
    let (total_bytes, usable_bytes) = match space {
        Ok(space) => (space.total_bytes as i64, space.usable_bytes as i64),
        Err(error) => {
            tracing::warn!(%error, "the size of the data directory's volume is not known");
            (-1, -1)
        }
    };
    let dir =
        LogDir { log_dir, topics: topics.into(), total_bytes, usable_bytes, ..Default::default() };
    let results = vec![dir].into();
    Ok(header.encode(&DescribeLogDirsResponse { results, ..Default::default() }))
}

/// Those wanted of a topic's partitions that this broker leads.
fn here<E: NetEnv>(
    shard: &Shard<E>,
    topic: &Topic,
    is_wanted: impl Fn(i32) -> bool,
) -> Vec<PartitionIndex> {
    let me = Some(shard.options().me);
    let each = topic.partitions().filter(|(_, partition)| partition.leader == me);
    each.map(|(index, _)| index).filter(|index| is_wanted(index.0)).collect()
}
