//! What else is done to topics as a whole: DeleteTopics, CreatePartitions.

use std::borrow::Cow;

use coordinator::controller::{Deletion, MorePartitions, Refusal, Reply, Request, TopicRef};
use engine::ids::{BrokerId, TopicId};

use super::admin::{self, Header, NoReply};
use super::errors;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::create_partitions::{self, CreatePartitionsRequest, CreatePartitionsResponse};
use crate::wire::delete_topics::{self, DeleteTopicsRequest, DeleteTopicsResponse};
use crate::wire::{DecodeError, Encoded, Reader};

/// Answers DeleteTopics. When it says that a topic was deleted, no shard serves it any more; its
/// files go afterwards.
pub async fn delete_topics<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DeleteTopicsRequest::decode(&mut body, header.version)?;
    let by_name = request.topic_names.iter().map(|name| (Some(name), TopicId::ZERO));
    let by_either = request.topics.iter().map(|topic| (topic.name, topic.topic_id));
    let topics: Vec<TopicRef> = by_name
        .chain(by_either)
        .map(|(name, id)| TopicRef {
            name: name.map(str::to_owned),
            id: (id != TopicId::ZERO).then_some(id),
        })
        .collect();
    let decision = Request::DeleteTopics { topics: topics.clone() };
    let topics = match admin::decide(shard, decision, request.timeout_ms).await {
        Ok(Reply::DeletedTopics(deletions)) => deletions.into_iter().map(deleted).collect(),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => topics.into_iter().map(|topic| not_deleted(topic, why)).collect(),
    };
    Ok(header.encode(&DeleteTopicsResponse { topics, ..Default::default() }))
}

fn deleted(deletion: Deletion) -> delete_topics::ResponseTopic<'static> {
    let of = delete_topics::ResponseTopic {
        name: deletion.name.map(Cow::Owned),
        topic_id: deletion.id.unwrap_or(TopicId::ZERO),
        ..Default::default()
    };
    match deletion.result {
        Ok(()) => of,
        Err(Refusal { why, message }) => delete_topics::ResponseTopic {
            error_code: errors::of_refusal(why),
            error_message: Some(Cow::Owned(message)),
            ..of
        },
    }
}

fn not_deleted(topic: TopicRef, why: NoReply) -> delete_topics::ResponseTopic<'static> {
    delete_topics::ResponseTopic {
        name: topic.name.map(Cow::Owned),
        topic_id: topic.id.unwrap_or(TopicId::ZERO),
        error_code: errors::of_no_reply(why),
        ..Default::default()
    }
}

/// Answers CreatePartitions.
pub async fn create_partitions<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = CreatePartitionsRequest::decode(&mut body, header.version)?;
    let decision = Request::CreatePartitions {
        topics: request.topics.iter().map(more_partitions).collect(),
        validate_only: request.validate_only,
    };
    let topics = match admin::decide(shard, decision, request.timeout_ms).await {
        Ok(Reply::CreatedPartitions(outcomes)) => outcomes
            .into_iter()
            .map(|(name, outcome)| {
                let of = create_partitions::ResponseTopic {
                    name: Cow::Owned(name),
                    ..Default::default()
                };
                match outcome {
                    Ok(()) => of,
                    Err(Refusal { why, message }) => create_partitions::ResponseTopic {
                        error_code: errors::of_refusal(why),
                        error_message: Some(Cow::Owned(message)),
                        ..of
                    },
                }
            })
            .collect(),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => request
            .topics
            .iter()
            .map(|topic| create_partitions::ResponseTopic {
                name: Cow::Borrowed(topic.name),
                error_code: errors::of_no_reply(why),
                ..Default::default()
            })
            .collect(),
    };
    Ok(header.encode(&CreatePartitionsResponse { topics, ..Default::default() }))
}

fn more_partitions(topic: create_partitions::RequestTopic<'_>) -> MorePartitions {
    let brokers = |assignment: create_partitions::Assignment<'_>| {
        assignment.broker_ids.iter().map(BrokerId).collect()
    };
    MorePartitions {
        name: topic.name.to_owned(),
        count: topic.count,
        assignments: topic.assignments.map(|all| all.iter().map(brokers).collect()),
    }
}
