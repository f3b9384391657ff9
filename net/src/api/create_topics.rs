//! CreateTopics.

use std::borrow::Cow;
use std::sync::Arc;

use coordinator::cluster::Topic;
use coordinator::controller::{Assignment, NewTopic, Refusal, Reply, Request};
use engine::ids::{BrokerId, PartitionIndex};

use super::admin::{self, Header, NoReply};
use super::{describe_configs, errors};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::create_topics::{
    CreateTopicsRequest, CreateTopicsResponse, RequestTopic, ResponseConfig, ResponseTopic,
};
use crate::wire::{Array, DecodeError, Encoded, ErrorCode, Reader};

/// Answers CreateTopics. When it says that a topic was created, every shard knows the topic.
pub async fn create_topics<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = CreateTopicsRequest::decode(&mut body, header.version)?;
    let decision = Request::CreateTopics {
        topics: request.topics.iter().map(new_topic).collect(),
        validate_only: request.validate_only,
    };
    let topics = match admin::decide(shard, decision, request.timeout_ms).await {
        Ok(Reply::CreatedTopics(created)) => {
            let mut topics = Vec::with_capacity(created.len());
            for (name, outcome) in created {
                topics.push(match outcome {
                    Ok(created) => described(shard, header, &created.topic),
                    Err(refusal) => refused(name, refusal),
                });
                shard.env().turn().await;
            }
            topics
        }
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => request.topics.iter().map(|topic| unanswered(topic.name, why)).collect(),
    };
    Ok(header.encode(&CreateTopicsResponse { topics: topics.into(), ..Default::default() }))
}

fn new_topic(topic: RequestTopic<'_>) -> NewTopic {
    let assignments = topic.assignments.iter().map(|assignment| Assignment {
        partition: PartitionIndex(assignment.partition_index),
        replicas: assignment.broker_ids.iter().map(BrokerId).collect(),
    });
    let overrides = topic.configs.iter();
    NewTopic {
        name: topic.name.to_owned(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        overrides: overrides
            .map(|entry| (entry.name.to_owned(), entry.value.map(str::to_owned)))
            .collect(),
    }
}

fn described<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    topic: &Arc<Topic>,
) -> ResponseTopic<'static> {
    // Before version 5 there is no room for it.
    let configs = if header.version < 5 { Vec::new() } else { configs(shard, topic) };
    ResponseTopic {
        name: Cow::Owned(topic.name.to_string()),
        topic_id: topic.id,
        num_partitions: topic.partitions.len() as i32,
        replication_factor: topic.replication_factor() as i16,
        configs: Some(configs.into()),
        ..Default::default()
    }
}

fn configs<E: NetEnv>(shard: &Shard<E>, topic: &Topic) -> Vec<ResponseConfig<'static>> {
    let each = describe_configs::of_topic(shard, topic).map(|setting| ResponseConfig {
        name: Cow::Borrowed(setting.name),
        config_source: setting.source(),
        value: setting.value.map(Cow::Owned),
        read_only: false,
        is_sensitive: false,
    });
    each.collect()
}

fn refused(name: String, refusal: Refusal) -> ResponseTopic<'static> {
    ResponseTopic {
        name: Cow::Owned(name),
        error_code: errors::of_refusal(refusal.why),
        error_message: Some(Cow::Owned(refusal.message)),
        configs: Some(Array::new()),
        ..Default::default()
    }
}

fn unanswered(name: &str, why: NoReply) -> ResponseTopic<'_> {
    let error_code: ErrorCode = errors::of_no_reply(why);
    let name = Cow::Borrowed(name);
    ResponseTopic { name, error_code, configs: Some(Array::new()), ..Default::default() }
}
