//! Producers. An idempotent one resends what it does not know to be there until it is; a plain one
//! sends once, and does not know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use engine::batch::{BatchBuilder, NewRecord, Producer, Sequence};
use engine::ids::{ProducerEpoch, ProducerId, TopicId};
use engine::time::Timestamp;
use engine::wait::Watch;
use net::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use net::wire::produce::{ProduceRequest, ProduceResponse, RequestPartition, RequestTopic};
use net::wire::{ErrorCode, Records};

use crate::line::{Client, Come, Line, gone};
use crate::oracle::{Asked, Broken, Invariant, Place, Tag};
use crate::world::{TOPICS, Topics};

/// Requests that a producer has under way at most; five batches of a partition may be (Kafka).
const UNDER_WAY_MAX: usize = 4;
/// Batches of one producer at most …
const BATCHES_MAX: u32 = 400;
/// … and those of them that it begins when all is well again.
const CALM_BATCHES: u32 = 5;
const VERSIONS: [i16; 5] = [3, 7, 9, 12, 13];

/// A batch.
struct Sent {
    at: Place,
    tags: Vec<Tag>,
    bytes: Vec<u8>,
}

/// A request under way.
struct Request {
    version: i16,
    acks: i16,
    asked: Asked,
    /// Its batches: places in the list of what is not known to be there.
    batches: Vec<Sent>,
}

/// What a producer is to do.
#[derive(Clone)]
pub struct Task {
    pub number: u32,
    /// With an identity and acks=all, into the synced topic; else with any acks into any.
    pub is_idempotent: bool,
    /// Raised when nothing goes wrong any more: a few more batches, and it is done.
    pub calm: Watch,
    pub topics: Topics,
}

/// A producer at work.
struct Producing {
    client: Client,
    task: Task,
    identity: Option<i64>,
    /// Next sequence by partition.
    sequences: BTreeMap<Place, i32>,
    made: u32,
    made_in_calm: u32,
    line: u32,
    records: u32,
    /// To be sent (again), in order.
    waiting: VecDeque<Sent>,
}

/// Produces everything; returns when all of it was answered, or sent, or a promise was broken.
pub async fn produce(client: Client, task: Task) {
    let mut producing = Producing {
        client: client.clone(),
        task,
        identity: None,
        sequences: BTreeMap::new(),
        made: 0,
        made_in_calm: 0,
        line: 0,
        records: 0,
        waiting: VecDeque::new(),
    };
    while producing.has_more() {
        let line = client.connect().await;
        producing.line += 1;
        let mut under_way = VecDeque::new();
        let end = producing.on_line(&line, &mut under_way).await;
        if !producing.task.is_idempotent {
            // Made for this connection, and not sent by it.
            producing.waiting.clear();
        } else {
            for request in under_way.into_iter().rev() {
                producing.again(request.batches);
            }
        }
        if let Err(stop) = end
            && !client.ended(&stop)
        {
            return;
        }
        client.pause().await;
    }
    client.event(format_args!("has produced {} records", producing.records));
}

impl Producing {
    fn has_more(&self) -> bool {
        let may_make = match self.task.calm.value() {
            0 => self.made < BATCHES_MAX,
            _ => self.made_in_calm < CALM_BATCHES,
        };
        may_make || !self.waiting.is_empty()
    }

    /// They have to be sent again, before everything that waits.
    fn again(&mut self, batches: Vec<Sent>) {
        for batch in batches.into_iter().rev() {
            self.waiting.push_front(batch);
        }
    }

    async fn on_line(&mut self, line: &Line, under_way: &mut VecDeque<Request>) -> Come {
        if self.task.is_idempotent && self.identity.is_none() {
            self.identity = Some(self.identify(line).await?);
        }
        loop {
            while under_way.len() < UNDER_WAY_MAX && self.has_more() {
                let request = self.next();
                let is_answered = request.acks != 0;
                let sent = self.send(line, &request).await;
                // An acks=0 is never heard of again.
                if is_answered || self.task.is_idempotent {
                    under_way.push_back(request);
                }
                sent?;
                if self.client.random.chance(1, 2) {
                    let millis = self.client.random.between(1, 150);
                    self.client.sleep(Duration::from_millis(millis)).await;
                }
            }
            let Some(request) = under_way.front() else { return Ok(()) };
            let answer = line.receive(request.version).await?;
            let response: ProduceResponse<'_> = answer.read()?;
            let request = under_way.pop_front().expect("it is the front");
            if let Some((again, why)) = self.answered(request, &response)? {
                under_way.push_front(again);
                return gone(why);
            }
        }
    }

    async fn identify(&self, line: &Line) -> Come<i64> {
        let answer = line.call(&InitProducerIdRequest::default(), 4).await?;
        let response: InitProducerIdResponse = answer.read()?;
        match response.error_code {
            ErrorCode::None => Ok(response.producer_id),
            error if error.is_retriable() => gone(format!("no identity: {error}")),
            error => unexpected(format!("no identity: {error:?}")),
        }
    }

    /// The next request: some batches, each of another partition.
    fn next(&mut self) -> Request {
        let random = self.client.random.clone();
        let count = random.between(1, 3) as usize;
        let mut batches: Vec<Sent> = Vec::new();
        let mut taken = BTreeSet::new();
        while batches.len() < count && self.has_more() {
            if self.waiting.is_empty() {
                let batch = self.make();
                self.waiting.push_back(batch);
            }
            let is_new = self.waiting.front().is_some_and(|batch| taken.insert(batch.at));
            if !is_new {
                break;
            }
            batches.extend(self.waiting.pop_front());
        }
        let acks =
            if self.task.is_idempotent { -1 } else { [-1, 1, 1, 0][random.below(4) as usize] };
        let version = VERSIONS[random.below(VERSIONS.len() as u64) as usize];
        Request { version, acks, asked: self.client.oracle.asked(), batches }
    }

    fn make(&mut self) -> Sent {
        let random = &self.client.random;
        let topic = if self.task.is_idempotent { 0 } else { random.below(2) as usize };
        let partition = random.below(u64::from(TOPICS[topic].partitions)) as i32;
        let at = Place { topic, partition };
        let mut builder = BatchBuilder::new(1 << 20);
        let count = random.between(1, 4) as u32;
        if let Some(id) = self.identity {
            let next = self.sequences.entry(at).or_default();
            builder = builder.producer(Producer {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
                base_sequence: Sequence::from_wire(*next),
            });
            *next += count as i32;
        }
        let mut tags = Vec::new();
        for _ in 0..count {
            self.records += 1;
            let tag = Tag { producer: self.task.number, line: self.line, number: self.records };
            let mut value = tag.bytes().to_vec();
            let padding = if random.chance(1, 8) { 6_000 } else { 300 };
            value.resize(value.len() + random.below(padding) as usize, tag.number as u8);
            let timestamp = Timestamp(1_717_171_717_171 + i64::from(self.records) * 40);
            let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
            builder.push(&record).expect("it has room");
            tags.push(tag);
        }
        self.made += 1;
        self.made_in_calm += u32::from(self.task.calm.value() > 0);
        Sent { at, tags, bytes: builder.build().expect("uncompressed") }
    }

    async fn send(&self, line: &Line, request: &Request) -> Come {
        let mut topics = Vec::new();
        for (topic, _) in TOPICS.iter().enumerate() {
            let of_topic = request.batches.iter().filter(|batch| batch.at.topic == topic);
            let partitions: Vec<_> = of_topic
                .map(|batch| RequestPartition {
                    index: batch.at.partition,
                    records: Some(Records::Here(&batch.bytes)),
                })
                .collect();
            if partitions.is_empty() {
                continue;
            }
            let by_id = request.version >= 13;
            topics.push(RequestTopic {
                name: if by_id { "" } else { TOPICS[topic].name },
                topic_id: if by_id { self.task.topics[topic] } else { TopicId::ZERO },
                partitions: partitions.into(),
            });
        }
        let message = ProduceRequest {
            acks: request.acks,
            timeout_ms: 1_000,
            topics: topics.into(),
            ..Default::default()
        };
        line.send(&message, request.version, request.acks != 0).await
    }

    /// Takes an answer in; what of it has to be sent again, and why.
    fn answered(
        &mut self,
        request: Request,
        response: &ProduceResponse<'_>,
    ) -> Come<Option<(Request, String)>> {
        let mut told = BTreeMap::new();
        for topic in response.topics.iter() {
            let known = |at: &usize| {
                topic.name == TOPICS[*at].name
                    || request.version >= 13 && topic.topic_id == self.task.topics[*at]
            };
            let Some(at) = (0..TOPICS.len()).find(known) else {
                return unexpected(format!("an unknown topic is answered: {:?}", topic.name));
            };
            for partition in topic.partitions.iter() {
                let at = Place { topic: at, partition: partition.index };
                told.insert(at, (partition.error_code, partition.base_offset));
            }
        }
        let mut again = Vec::new();
        let mut why = String::new();
        for batch in request.batches {
            let at = batch.at;
            match told.remove(&at) {
                Some((ErrorCode::None, base)) if base >= 0 => {
                    let (oracle, all) = (&self.client.oracle, request.acks == -1);
                    oracle.on_ack(at, request.asked, all, base as u64, &batch.tags)?;
                }
                // A batch before it was not appended, and it will come again behind that.
                Some((error, _))
                    if error.is_retriable() || error == ErrorCode::OutOfOrderSequenceNumber =>
                {
                    why = format!("{at:?}: {error}");
                    again.push(batch);
                }
                Some((error, base)) => {
                    return unexpected(format!("{at:?} answers {error:?}, base {base}"));
                }
                None => return unexpected(format!("{at:?} is not answered")),
            }
        }
        let has_to = self.task.is_idempotent && !again.is_empty();
        Ok(has_to.then_some((Request { batches: again, ..request }, why)))
    }
}

fn unexpected<T>(how: String) -> Come<T> {
    Err(Broken(Invariant::ErrorsHaveCauses, how).into())
}
