//! What groups have committed: OffsetCommit, OffsetFetch, OffsetDelete.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::group::request::{
    CommitOffsets, DeleteOffsets, FetchOffsets, Fetched, FetchedOffset, GroupFault, OffsetOf,
    Outcomes, Reply, Request,
};
use coordinator::image::Image;
use engine::ids::{LeaderEpoch, TopicId};

use super::admin::Header;
use super::errors::of_group;
use super::groups::ENTRIES_MAX;
use crate::env::NetEnv;
use crate::groups::{ask, ask_partition, home};
use crate::shard::Shard;
use crate::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use crate::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// A topic as a request names it: by name, or, from some version on, by id.
struct Named<'a> {
    name: &'a str,
    id: TopicId,
}

impl<'a> Named<'a> {
    /// Its name, if the topic is there.
    fn known(&self, image: &'a Image, by_id: bool) -> Result<&'a str, ErrorCode> {
        let topic = match by_id {
            true => image.topic_by_id(self.id).ok_or(ErrorCode::UnknownTopicId),
            false => image.topic(self.name).ok_or(ErrorCode::UnknownTopicOrPartition),
        };
        topic.map(|topic| &*topic.name)
    }
}

/// First version of OffsetCommit that knows members of the consumer protocol.
const MEMBER_EPOCHS: i16 = 9;

/// First version in which topics are named by id.
const BY_ID: i16 = 10;

/// Answers OffsetCommit.
pub async fn commit<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = OffsetCommitRequest::decode(&mut body, header.version)?;
    let count: usize = request.topics.iter().map(|topic| topic.partitions.len() + 1).sum();
    if count > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let image = shard.image();
    let by_id = header.version >= BY_ID;
    let known = |topic: &OffsetCommitRequestTopic<'_>| {
        Named { name: topic.name, id: topic.topic_id }.known(&image, by_id).map(str::to_owned)
    };
    let names: Vec<Result<String, ErrorCode>> = request.topics.iter().map(|t| known(&t)).collect();
    let topics = request.topics.iter().zip(&names).filter_map(|(topic, name)| {
        let each = topic.partitions.iter().map(|one| OffsetOf {
            partition: one.partition_index,
            offset: one.committed_offset,
            leader_epoch: (one.committed_leader_epoch >= 0)
                .then_some(LeaderEpoch(one.committed_leader_epoch)),
            metadata: one.committed_metadata.map(str::to_owned),
        });
        Some((name.as_ref().ok()?.clone(), each.collect()))
    });
    let retention = u64::try_from(request.retention_time_ms).ok().map(Duration::from_millis);
    let commit = CommitOffsets {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
        is_old: header.version < MEMBER_EPOCHS,
        retention,
        topics: topics.collect(),
    };
    let empty = commit.topics.is_empty() && names.iter().any(Result::is_err);
    let answered = match empty {
        true => Ok(Vec::new()),
        false => match ask(shard, request.group_id, Request::CommitOffsets(commit)).await {
            Ok(Reply::OffsetsCommitted(outcomes)) => outcomes.map_err(|fault| {
                // Kafka's answer to who cannot understand another.
                match fault {
                    GroupFault::GroupIdNotFound if header.version < MEMBER_EPOCHS => {
                        ErrorCode::IllegalGeneration
                    }
                    fault => of_group(fault),
                }
            }),
            Ok(_) => unreachable!("a reply is of its request's kind"),
            Err(ErrorCode::UnknownServerError) => Err(ErrorCode::InvalidCommitOffsetSize),
            Err(code) => Err(code),
        },
    };
    let mut found = match &answered {
        Ok(outcomes) => outcomes.iter(),
        Err(_) => [].iter(),
    };
    let topics = request.topics.iter().zip(&names).map(|(topic, name)| {
        let outcomes = name.as_ref().ok().and_then(|_| found.next());
        let partitions = topic.partitions.iter().enumerate().map(|(at, one)| {
            let fault = outcomes.and_then(|(_, all)| all.get(at)).and_then(|(_, fault)| *fault);
            let error_code = match (name, &answered) {
                (Err(code), _) | (_, Err(code)) => *code,
                _ => fault.map_or(ErrorCode::None, of_group),
            };
            OffsetCommitResponsePartition { partition_index: one.partition_index, error_code }
        });
        OffsetCommitResponseTopic {
            name: Cow::Borrowed(topic.name),
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        }
    });
    Ok(header.encode(&OffsetCommitResponse { topics: topics.collect(), ..Default::default() }))
}

/// One group's question, as both forms of the request have it.
struct Question<'a> {
    group: &'a str,
    member: Option<(String, i32)>,
    /// Topics and partitions; `None`: all.
    topics: Option<Vec<(Named<'a>, Vec<i32>)>>,
}

fn questions<'a>(request: &OffsetFetchRequest<'a>, version: i16) -> Vec<Question<'a>> {
    if version < 8 {
        let topics = request.topics.as_ref().map(|topics| {
            let each = topics.iter().map(|topic| {
                (
                    Named { name: topic.name, id: TopicId::ZERO },
                    topic.partition_indexes.iter().collect(),
                )
            });
            each.collect()
        });
        return vec![Question { group: request.group_id, member: None, topics }];
    }
    let each = request.groups.iter().map(|group| Question {
        group: group.group_id,
        member: group
            .member_id
            .filter(|member| !member.is_empty())
            .map(|member| (member.to_owned(), group.member_epoch)),
        topics: group.topics.map(|topics| {
            let each = topics.iter().map(|topic| {
                (
                    Named { name: topic.name, id: topic.topic_id },
                    topic.partition_indexes.iter().collect(),
                )
            });
            each.collect()
        }),
    });
    each.collect()
}

/// Answers OffsetFetch.
pub async fn fetch<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = OffsetFetchRequest::decode(&mut body, header.version)?;
    let questions = questions(&request, header.version);
    let count = |question: &Question<'_>| match &question.topics {
        Some(topics) => topics.iter().map(|(_, all)| all.len() + 1).sum::<usize>() + 1,
        None => 1,
    };
    if questions.iter().map(count).sum::<usize>() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let image = shard.image();
    let by_id = header.version >= BY_ID;
    let fetches = questions.iter().map(|question| FetchOffsets {
        group: question.group.to_owned(),
        member: question.member.clone(),
        topics: question.topics.as_ref().map(|topics| {
            let known = topics.iter().filter_map(|(topic, partitions)| {
                // By name, whatever was committed is told, also of a topic that is gone.
                let name = if by_id { topic.known(&image, true).ok()? } else { topic.name };
                Some((name.to_owned(), partitions.clone()))
            });
            known.collect()
        }),
        require_stable: request.require_stable,
    });
    let fetched = fetch_all(shard, fetches.collect()).await;
    if header.version < 8 {
        let one = fetched.into_iter().next().expect("one was asked");
        return Ok(header.encode(&of_one(&questions[0], header.version, one)));
    }
    let groups = questions.iter().zip(fetched).map(|(question, fetched)| {
        let group_id = Cow::Borrowed(question.group);
        match fetched {
            Ok(topics) => OffsetFetchResponseGroup {
                group_id,
                topics: topics_of(&image, question, topics, by_id).into(),
                ..Default::default()
            },
            Err(error_code) => {
                OffsetFetchResponseGroup { group_id, error_code, ..Default::default() }
            }
        }
    });
    Ok(header.encode(&OffsetFetchResponse { groups: groups.collect(), ..Default::default() }))
}

/// What was committed, by topic.
type Committed = Vec<(String, Vec<FetchedOffset>)>;

/// Asks for several groups, one message for each partition that keeps some of them.
async fn fetch_all<E: NetEnv>(
    shard: &Shard<E>,
    fetches: Vec<FetchOffsets>,
) -> Vec<Result<Committed, ErrorCode>> {
    let mut answers: Vec<Result<Committed, ErrorCode>> =
        fetches.iter().map(|_| Err(ErrorCode::NotCoordinator)).collect();
    let mut by_home = BTreeMap::new();
    for (at, fetch) in fetches.into_iter().enumerate() {
        let here = home(shard, &fetch.group);
        let here = here.filter(|home| home.leader == Some(shard.options().me));
        if let Some(home) = here {
            let (places, asked): &mut (Vec<usize>, Vec<FetchOffsets>) =
                by_home.entry(home.partition).or_default();
            places.push(at);
            asked.push(fetch);
        }
    }
    for (partition, (places, asked)) in by_home {
        match ask_partition(shard, partition, Request::FetchOffsets(asked)).await {
            Ok(Reply::Offsets(all)) => {
                for (at, Fetched { topics, .. }) in places.into_iter().zip(all) {
                    answers[at] = topics.map_err(of_group);
                }
            }
            Ok(_) => unreachable!("a reply is of its request's kind"),
            Err(code) => places.into_iter().for_each(|at| answers[at] = Err(code)),
        }
    }
    answers
}

fn told(offset: FetchedOffset) -> OffsetFetchResponsePartition<'static> {
    let partition_index = offset.partition;
    let error_code = offset.fault.map_or(ErrorCode::None, of_group);
    match offset.committed {
        Some(committed) => OffsetFetchResponsePartition {
            partition_index,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch.map_or(-1, |epoch| epoch.0),
            metadata: Some(committed.metadata.into()),
            error_code,
        },
        None => nothing(partition_index, error_code),
    }
}

/// No offset, and no error either unless it is said.
fn nothing(partition_index: i32, error_code: ErrorCode) -> OffsetFetchResponsePartition<'static> {
    OffsetFetchResponsePartition {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(Cow::Borrowed("")),
        error_code,
    }
}

/// The answer before there were several groups in one. Before version 2 there is no error for the
/// whole, and each partition has it.
fn of_one<'a>(
    question: &Question<'a>,
    version: i16,
    fetched: Result<Committed, ErrorCode>,
) -> OffsetFetchResponse<'a> {
    match fetched {
        Ok(topics) => {
            let topics = topics.into_iter().map(|(name, all)| OffsetFetchResponseTopic {
                name: name.into(),
                partitions: all.into_iter().map(told).collect(),
            });
            OffsetFetchResponse { topics: topics.collect(), ..Default::default() }
        }
        Err(error_code) if version < 2 => {
            let topics = question.topics.iter().flatten().map(|(topic, partitions)| {
                let each = partitions.iter().map(|&index| nothing(index, error_code));
                OffsetFetchResponseTopic {
                    name: Cow::Borrowed(topic.name),
                    partitions: each.collect(),
                }
            });
            OffsetFetchResponse { topics: topics.collect(), ..Default::default() }
        }
        Err(error_code) => OffsetFetchResponse { error_code, ..Default::default() },
    }
}

/// The topics of one group in the answer: in the order asked, or all of them.
fn topics_of<'a>(
    image: &Image,
    question: &Question<'a>,
    fetched: Committed,
    by_id: bool,
) -> Vec<OffsetFetchResponseTopics<'a>> {
    let id_of = |name: &str| image.topic(name).map(|topic| topic.id);
    let Some(asked) = &question.topics else {
        let each = fetched.into_iter().filter_map(|(name, all)| {
            // A topic that is gone has no id.
            let topic_id = id_of(&name);
            if by_id && topic_id.is_none() {
                return None;
            }
            Some(OffsetFetchResponseTopics {
                name: name.into(),
                topic_id: topic_id.unwrap_or(TopicId::ZERO),
                partitions: all.into_iter().map(told).collect(),
            })
        });
        return each.collect();
    };
    let mut fetched = fetched.into_iter();
    let each = asked.iter().map(|(topic, partitions)| {
        let unknown = by_id && topic.known(image, true).is_err();
        let all = match unknown {
            true => partitions.iter().map(|&i| nothing(i, ErrorCode::UnknownTopicId)).collect(),
            false => {
                fetched.next().map_or_else(Vec::new, |(_, all)| all.into_iter().map(told).collect())
            }
        };
        OffsetFetchResponseTopics {
            name: Cow::Borrowed(topic.name),
            topic_id: topic.id,
            partitions: all.into(),
        }
    });
    each.collect()
}

/// Answers OffsetDelete.
pub async fn delete<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = OffsetDeleteRequest::decode(&mut body, header.version)?;
    let count: usize = request.topics.iter().map(|topic| topic.partitions.len() + 1).sum();
    if count > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let topics = request.topics.iter().map(|topic| {
        let each = topic.partitions.iter().map(|one| one.partition_index);
        (topic.name.to_owned(), each.collect())
    });
    let delete = DeleteOffsets { group: request.group_id.to_owned(), topics: topics.collect() };
    let failed = |error_code| OffsetDeleteResponse { error_code, ..Default::default() };
    let answer = match ask(shard, request.group_id, Request::DeleteOffsets(delete)).await {
        Ok(Reply::OffsetsDeleted(Ok(outcomes))) => OffsetDeleteResponse {
            topics: outcomes.into_iter().map(deleted).collect(),
            ..Default::default()
        },
        Ok(Reply::OffsetsDeleted(Err(fault))) => failed(of_group(fault)),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(code) => failed(code),
    };
    Ok(header.encode(&answer))
}

fn deleted((name, partitions): Outcomes) -> OffsetDeleteResponseTopic<'static> {
    let each = partitions.into_iter().map(|(partition_index, fault)| {
        let error_code = fault.map_or(ErrorCode::None, of_group);
        OffsetDeleteResponsePartition { partition_index, error_code }
    });
    OffsetDeleteResponseTopic { name: name.into(), partitions: each.collect() }
}
