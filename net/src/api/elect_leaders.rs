//! ElectLeaders: elections on demand, of preferred leaders or of anybody who is left.

use std::borrow::Cow;

use coordinator::controller::{ElectionKind, Refusal, Reply, Request};
use engine::ids::PartitionIndex;

use super::admin::{self, Header};
use super::errors;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PREFERRED, PartitionResult, ReplicaElectionResult,
    TopicPartitions, UNCLEAN,
};
use crate::wire::{Array, DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// What became of the election of one partition.
type Elected = (String, PartitionIndex, Result<(), Refusal>);

/// Answers ElectLeaders (Kafka's `ControllerApis.handleElectLeaders`). When it says that a leader
/// was elected, every shard of this broker knows it.
pub async fn elect_leaders<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ElectLeadersRequest::decode(&mut body, header.version)?;
    let Some(partitions) = request.topic_partitions.as_ref().map_or(Some(None), named) else {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    };
    let kind = match request.election_type {
        PREFERRED => ElectionKind::Preferred,
        UNCLEAN => ElectionKind::Unclean,
        other => {
            let message = format!("Unknown election type {other}");
            return Ok(header.encode(&refused(&request, ErrorCode::InvalidRequest, &message)));
        }
    };
    let decision = Request::ElectLeaders { kind, partitions };
    match admin::decide(shard, decision, request.timeout_ms).await {
        Ok(Reply::ElectedLeaders(elected)) => Ok(header.encode(&ElectLeadersResponse {
            replica_election_results: by_topic(elected).into(),
            ..Default::default()
        })),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => {
            let (error_code, message) = (errors::of_no_reply(why), why.to_string());
            Ok(header.encode(&refused(&request, error_code, &message)))
        }
    }
}

/// All partitions of a request, each with its topic's name; `None` if they are too many.
#[allow(clippy::option_option, reason = "the inner one is what the controller is asked")]
fn named(topics: &Array<'_, TopicPartitions<'_>>) -> Option<Option<Vec<(String, PartitionIndex)>>> {
    let mut cost = admin::Cost::default();
    let mut partitions = Vec::new();
    for topic in topics.iter() {
        for index in topic.partitions.iter() {
            if !cost.affords(topic.topic, 0) {
                return None;
            }
            partitions.push((topic.topic.to_owned(), PartitionIndex(index)));
        }
    }
    Some(Some(partitions))
}

/// The answer in which nothing was done; each partition says so, too: version 0 has no other place.
fn refused<'a>(
    request: &ElectLeadersRequest<'a>,
    error_code: ErrorCode,
    message: &str,
) -> ElectLeadersResponse<'a> {
    let one = |partition_id| PartitionResult {
        partition_id,
        error_code,
        error_message: Some(Cow::Owned(message.to_owned())),
    };
    let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: Cow::Borrowed(topic.topic),
        partition_result: topic.partitions.iter().map(one).collect(),
    });
    let replica_election_results = topics.collect();
    ElectLeadersResponse { error_code, replica_election_results, ..Default::default() }
}

/// Neighbours of one topic together.
fn by_topic(elected: Vec<Elected>) -> Vec<ReplicaElectionResult<'static>> {
    let mut topics: Vec<(String, Vec<PartitionResult<'static>>)> = Vec::new();
    for (topic, partition, elected) in elected {
        let (error_code, error_message) = admin::outcome(elected);
        let one = PartitionResult { partition_id: partition.0, error_code, error_message };
        match topics.last_mut() {
            Some((last, results)) if *last == topic => results.push(one),
            _ => topics.push((topic, vec![one])),
        }
    }
    let each = topics.into_iter().map(|(topic, results)| ReplicaElectionResult {
        topic: Cow::Owned(topic),
        partition_result: results.into(),
    });
    each.collect()
}
