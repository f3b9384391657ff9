//! Consumers that follow leaders, and the reader of whole logs at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::wait::Watch;
use net::history::Op;
use net::wire::ErrorCode;
use net::wire::fetch::{FetchRequest, FetchResponse, RequestPartition, RequestTopic};
use net::wire::list_offsets::{
    ListOffsetsRequest, ListOffsetsResponse, RequestPartition as AskedPartition,
    RequestTopic as AskedTopic,
};

use crate::batches::read_batches;
use crate::client::Member;
use crate::line::{Come, gone};
use crate::oracle::{Broken, Invariant, Place, Tag, WholeLog};
use crate::world::{TOPICS, places};

const VERSION: i16 = 12;

/// Reads whatever comes until `finish` is raised.
pub async fn consume(member: Member, finish: Watch) {
    let mut positions: BTreeMap<Place, u64> = places().map(|place| (place, 0)).collect();
    // High watermarks, by epoch: a new leader may know of less than the one before (KIP-207).
    let mut watermarks = BTreeMap::new();
    while finish.value() == 0 {
        for place in places() {
            let read = read(&member, place, &mut positions, &mut watermarks).await;
            if let Err(stop) = read {
                if let Some((_, leader)) = member.leader(place) {
                    member.lose(leader);
                }
                if !member.again(&stop).await {
                    return;
                }
            }
        }
        let millis = member.client.random.between(1, 100);
        member.client.sleep(Duration::from_millis(millis)).await;
    }
}

async fn read(
    member: &Member,
    place: Place,
    positions: &mut BTreeMap<Place, u64>,
    watermarks: &mut BTreeMap<(Place, i32), u64>,
) -> Come {
    let from = positions[&place];
    let name = member.client.name.clone();
    if member.client.random.chance(1, 8) {
        let told = list(member, place).await?;
        member.tell(Op::Watermark, &name, place, told, None)?;
    }
    let mut records = Vec::new();
    let (epoch, watermark) =
        fetch(member, place, from, &mut |offset, tag, _| records.push((offset, tag))).await?;
    let known = watermarks.entry((place, epoch)).or_insert(0);
    if watermark < *known {
        let how = format!("{place:?} in epoch {epoch}: {watermark} after {known}");
        return Err(Broken(Invariant::MonotonicWatermark, how).into());
    }
    *known = watermark;
    for (offset, tag) in records.into_iter().filter(|(offset, _)| *offset >= from) {
        let oracle = &member.client.oracle;
        oracle.on_read(place, oracle.asked(), offset, tag)?;
        member.tell(Op::Poll, &name, place, offset as i64, Some(tag))?;
        positions.insert(place, offset + 1);
    }
    Ok(())
}

/// Reads one partition from its leader; its epoch and high watermark.
pub async fn fetch(
    member: &Member,
    place: Place,
    from: u64,
    each: &mut impl FnMut(u64, Tag, Option<(i64, i32, u32)>),
) -> Come<(i32, u64)> {
    let Some((epoch, leader)) = member.leader(place) else { return gone("no leader") };
    let line = member.line(leader).await?;
    let partitions = [RequestPartition {
        partition: place.partition,
        current_leader_epoch: epoch,
        fetch_offset: from as i64,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    }];
    let topics = [RequestTopic {
        topic: TOPICS[place.topic].name,
        partitions: (&partitions).into(),
        ..Default::default()
    }];
    let message = FetchRequest {
        max_wait_ms: member.client.random.below(2) as i32 * 40,
        min_bytes: 1,
        topics: (&topics).into(),
        ..Default::default()
    };
    let answer = line.call(&message, VERSION).await?;
    let response: FetchResponse<'_> = answer.read()?;
    let part = response.topics.first().and_then(|topic| topic.partitions.first());
    let Some(part) = part else { return gone("nothing was answered") };
    match part.error_code {
        ErrorCode::None => {}
        ErrorCode::OffsetOutOfRange => {
            let how = format!("{place:?} does not reach {from} in epoch {epoch}, which was read");
            return Err(Broken(Invariant::ReadIsNeverLost, how).into());
        }
        error if error.is_retriable() => return gone(format!("{place:?}: {error}")),
        error => {
            let how = format!("{place:?} answers {error:?}");
            return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
        }
    }
    let watermark = part.high_watermark as u64;
    let bytes = part.records.map_or(&[][..], |records| records.bytes());
    read_batches(place, from, watermark, bytes, each)?;
    Ok((epoch, watermark))
}

/// The high watermark as ListOffsets tells it, which never falls.
pub async fn list(member: &Member, place: Place) -> Come<i64> {
    let Some((epoch, leader)) = member.leader(place) else { return gone("no leader") };
    let line = member.line(leader).await?;
    let partitions = [AskedPartition {
        partition_index: place.partition,
        current_leader_epoch: epoch,
        timestamp: -1,
    }];
    let topics = [AskedTopic { name: TOPICS[place.topic].name, partitions: (&partitions).into() }];
    let topics = (&topics).into();
    let message = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = line.call(&message, 7).await?;
    let response: ListOffsetsResponse<'_> = answer.read()?;
    let part = response.topics.first().and_then(|topic| topic.partitions.first());
    match part {
        Some(part) if part.error_code == ErrorCode::None => Ok(part.offset),
        Some(part) if part.error_code.is_retriable() => gone(format!("{}", part.error_code)),
        other => {
            let error = other.map(|part| part.error_code);
            Err(Broken(Invariant::ErrorsHaveCauses, format!("{place:?}: {error:?}")).into())
        }
    }
}

/// Reads a whole partition from its leader.
pub async fn read_whole(member: &Member, place: Place) -> Come<WholeLog> {
    let mut log = WholeLog::default();
    loop {
        let (records, sequences) = (&mut log.records, &mut log.sequences);
        let from = records.len() as u64;
        let (_, watermark) = fetch(member, place, from, &mut |_, tag, producer| {
            records.push(tag);
            sequences.extend(producer);
        })
        .await?;
        if log.records.len() as u64 >= watermark {
            return Ok(log);
        }
    }
}
