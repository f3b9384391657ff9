//! Producers. An idempotent one asks for acks=all, follows leaders and sends again whatever it does
//! not know to be there; a plain one sends once with any acks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::batch::{BatchBuilder, NewRecord, Producer, Sequence};
use engine::ids::{ProducerEpoch, ProducerId};
use engine::time::Timestamp;
use engine::wait::Watch;
use net::history::Op;
use net::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use net::wire::produce::{ProduceRequest, ProduceResponse, RequestPartition, RequestTopic};
use net::wire::{ErrorCode, Records};

use crate::client::Member;
use crate::line::{Come, Line, gone};
use crate::oracle::{Asked, Broken, Invariant, Place, Tag};
use crate::world::TOPICS;

/// Batches of one partition that may be under way (Kafka: five).
const UNDER_WAY_MAX: u64 = 5;
/// Rounds that each producer makes when all is well again.
const CALM_ROUNDS: u32 = 4;
const VERSION: i16 = 9;

struct Sent {
    tags: Vec<Tag>,
    bytes: Vec<u8>,
    asked: Asked,
}

struct Producing {
    member: Member,
    number: u32,
    identity: Option<i64>,
    sequences: BTreeMap<Place, i32>,
    /// What is not known to be there, in order.
    waiting: BTreeMap<Place, VecDeque<Sent>>,
    rounds: u32,
    records: u32,
}

/// Produces until `calm` is raised and everything is acknowledged.
pub async fn produce(member: Member, number: u32, is_idempotent: bool, calm: Watch) {
    let mut producing = Producing {
        member,
        number,
        identity: None,
        sequences: BTreeMap::new(),
        waiting: BTreeMap::new(),
        rounds: 0,
        records: 0,
    };
    let mut calm_rounds = 0;
    while calm_rounds < CALM_ROUNDS || producing.waiting.values().any(|left| !left.is_empty()) {
        let ended = match is_idempotent {
            true => producing.round(calm_rounds < CALM_ROUNDS).await,
            false => producing.once().await,
        };
        calm_rounds += u32::from(calm.value() > 0);
        if let Err(stop) = ended {
            if !producing.member.again(&stop).await {
                return;
            }
        } else {
            let millis = producing.member.client.random.between(5, 120);
            producing.member.client.sleep(Duration::from_millis(millis)).await;
        }
    }
    let records = producing.records;
    producing.member.client.event(format_args!("has produced {records} records"));
}

impl Producing {
    fn some_place(&self, topic: usize) -> Place {
        let count = u64::from(TOPICS[topic].partitions);
        Place { topic, partition: self.member.client.random.below(count) as i32 }
    }

    /// Sends what waits for one partition, and something new behind it.
    async fn round(&mut self, may_make: bool) -> Come {
        self.rounds += 1;
        let mut place = self.some_place(0);
        if !may_make {
            let left = self.waiting.iter().find(|(_, left)| !left.is_empty());
            place = left.map_or(place, |(place, _)| *place);
        }
        let count = self.member.client.random.between(1, UNDER_WAY_MAX) as usize;
        let identity = match self.identity {
            Some(identity) => identity,
            None => self.identify().await?,
        };
        while may_make && self.waiting.entry(place).or_default().len() < count {
            let made = self.make(place, Some(identity), 0)?;
            self.waiting.entry(place).or_default().push_back(made);
        }
        let Some((_, leader)) = self.member.leader(place) else { return gone("no leader") };
        let line = self.member.line(leader).await?;
        let ended = self.on_line(&line, place, count).await;
        if ended.is_err() {
            self.member.lose(leader);
        }
        ended
    }

    async fn on_line(&mut self, line: &Line, place: Place, count: usize) -> Come {
        let waiting = self.waiting.entry(place).or_default();
        let count = count.min(waiting.len());
        for batch in waiting.iter().take(count) {
            send(line, place, &batch.bytes, -1).await?;
        }
        for _ in 0..count {
            let (error, base) = receive(line, place).await?;
            let first = self.waiting[&place].front().expect("it was sent").asked;
            match error {
                ErrorCode::None if base >= 0 => {
                    let batch = self.waiting.get_mut(&place).and_then(VecDeque::pop_front);
                    let batch = batch.expect("it was sent");
                    let oracle = &self.member.client.oracle;
                    oracle.on_ack(place, first, true, base as u64, &batch.tags)?;
                    let name = self.member.client.name.clone();
                    for (offset, tag) in (base..).zip(batch.tags) {
                        self.member.tell(Op::Ack, &name, place, offset, Some(tag))?;
                    }
                }
                error if error.is_retriable() => return gone(format!("{place:?}: {error}")),
                error => {
                    let how = format!("{place:?} answers {error:?}, base {base}, to the oldest");
                    return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
                }
            }
        }
        Ok(())
    }

    /// A plain batch: sent once, whatever comes of it.
    async fn once(&mut self) -> Come {
        self.rounds += 1;
        let (place, acks) = (self.some_place(1), self.member.client.random.below(3) as i16 - 1);
        let Some((_, leader)) = self.member.leader(place) else { return gone("no leader") };
        let line = self.member.line(leader).await?;
        let batch = self.make(place, None, self.rounds)?;
        let ended = async {
            send(&line, place, &batch.bytes, acks).await?;
            if acks == 0 {
                return Ok(());
            }
            match receive(&line, place).await? {
                (ErrorCode::None, base) if base >= 0 && acks == -1 => {
                    let oracle = &self.member.client.oracle;
                    oracle.on_ack(place, batch.asked, true, base as u64, &batch.tags)?;
                    let name = self.plain_name(self.rounds);
                    for (offset, &tag) in (base..).zip(&batch.tags) {
                        self.member.tell(Op::Ack, &name, place, offset, Some(tag))?;
                    }
                    Ok(())
                }
                (ErrorCode::None, base) if base >= 0 => Ok(()),
                (error, _) if error.is_retriable() => gone(format!("{place:?}: {error}")),
                (error, base) => {
                    let how = format!("{place:?} answers {error:?}, base {base}");
                    Err(Broken(Invariant::ErrorsHaveCauses, how).into())
                }
            }
        };
        let ended = ended.await;
        if ended.is_err() {
            self.member.lose(leader);
        }
        ended
    }

    async fn identify(&mut self) -> Come<i64> {
        let line = self.member.any().await?;
        let answer = line.call(&InitProducerIdRequest::default(), 4).await?;
        let response: InitProducerIdResponse = answer.read()?;
        match response.error_code {
            ErrorCode::None => {
                self.identity = Some(response.producer_id);
                Ok(response.producer_id)
            }
            error if error.is_retriable() => gone(format!("no identity: {error}")),
            error => {
                let how = format!("no identity: {error:?}");
                Err(Broken(Invariant::ErrorsHaveCauses, how).into())
            }
        }
    }

    /// Batches of a plain producer may overtake each other: each is somebody's of its own.
    fn plain_name(&self, line: u32) -> String {
        format!("{}/{line}", self.member.client.name)
    }

    fn make(&mut self, place: Place, identity: Option<i64>, line: u32) -> Come<Sent> {
        let random = self.member.client.random.clone();
        let mut builder = BatchBuilder::new(1 << 20);
        let count = random.between(1, 3) as u32;
        if let Some(id) = identity {
            let next = self.sequences.entry(place).or_default();
            builder = builder.producer(Producer {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
                base_sequence: Sequence::from_wire(*next),
            });
            *next += count as i32;
        }
        let name = match identity {
            Some(_) => self.member.client.name.to_string(),
            None => self.plain_name(line),
        };
        let mut tags = Vec::new();
        for _ in 0..count {
            self.records += 1;
            let tag = Tag { producer: self.number, line, number: self.records };
            let mut value = tag.bytes().to_vec();
            let padding = if random.chance(1, 16) { 6_000 } else { 300 };
            value.resize(value.len() + random.below(padding) as usize, tag.number as u8);
            let timestamp = Timestamp(1_717_171_717_171 + i64::from(self.records) * 40);
            let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
            builder.push(&record).expect("it has room");
            self.member.tell(Op::Send, &name, place, -1, Some(tag))?;
            tags.push(tag);
        }
        let bytes = builder.build().expect("uncompressed");
        Ok(Sent { tags, bytes, asked: self.member.client.oracle.asked() })
    }
}

async fn send(line: &Line, place: Place, bytes: &[u8], acks: i16) -> Come {
    let records = Some(Records::Here(bytes));
    let partitions = [RequestPartition { index: place.partition, records }];
    let topics = [RequestTopic {
        name: TOPICS[place.topic].name,
        partitions: (&partitions).into(),
        ..Default::default()
    }];
    let topics = (&topics).into();
    let message = ProduceRequest { acks, timeout_ms: 1_000, topics, ..Default::default() };
    line.send(&message, VERSION, acks != 0).await
}

async fn receive(line: &Line, place: Place) -> Come<(ErrorCode, i64)> {
    let answer = line.receive(VERSION).await?;
    let response: ProduceResponse<'_> = answer.read()?;
    let part = response.topics.first().and_then(|topic| topic.partitions.first());
    match part {
        Some(part) if part.index == place.partition => Ok((part.error_code, part.base_offset)),
        _ => {
            let how = format!("{place:?} is not answered");
            Err(Broken(Invariant::ErrorsHaveCauses, how).into())
        }
    }
}
