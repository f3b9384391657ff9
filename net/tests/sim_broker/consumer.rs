//! Consumers: with incremental sessions and without, patient and hasty, some of them slow. And the
//! reader of whole logs at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::env::Env;
use engine::ids::TopicId;
use engine::time::Instant;
use engine::wait::Watch;
use net::wire::ErrorCode;
use net::wire::fetch::{
    FetchRequest, FetchResponse, RequestPartition, RequestTopic, ResponsePartition,
};

use crate::batches::read_batches;
use crate::line::{Client, Come, Line, gone};
use crate::oracle::{Asked, Broken, Invariant, Place, WholeLog};
use crate::world::{TOPICS, Topics};

/// What one request asked for, and when.
struct Request {
    version: i16,
    asked: Asked,
    at: Instant,
    positions: BTreeMap<Place, u64>,
    watermarks: BTreeMap<Place, u64>,
    max_wait: Duration,
    min_bytes: usize,
}

/// A consumer at work.
struct Consuming {
    client: Client,
    topics: Topics,
    positions: BTreeMap<Place, u64>,
    /// Session id and next epoch, and what the session knows of positions.
    session: Option<(i32, i32)>,
    told: BTreeMap<Place, u64>,
}

fn places() -> impl Iterator<Item = Place> {
    TOPICS.iter().enumerate().flat_map(|(topic, of)| {
        (0..of.partitions as i32).map(move |partition| Place { topic, partition })
    })
}

/// Reads whatever comes until `finish` is raised.
pub async fn consume(client: Client, topics: Topics, finish: Watch) {
    let mut consuming = Consuming {
        client: client.clone(),
        topics,
        positions: places().map(|place| (place, 0)).collect(),
        session: None,
        told: BTreeMap::new(),
    };
    while finish.value() == 0 {
        let line = client.connect().await;
        let end = consuming.on_line(&line, &finish).await;
        if let Err(stop) = end
            && !client.ended(&stop)
        {
            return;
        }
        client.pause().await;
    }
}

impl Consuming {
    async fn on_line(&mut self, line: &Line, finish: &Watch) -> Come {
        let random = self.client.random.clone();
        let has_session = random.chance(1, 2);
        let versions = if has_session { [7, 11, 12, 16] } else { [4, 5, 12, 18] };
        let version = versions[random.below(4) as usize];
        (self.session, self.told) = (has_session.then_some((0, 0)), BTreeMap::new());
        while finish.value() == 0 {
            let count = if has_session { 1 } else { random.between(1, 3) };
            let mut under_way = Vec::new();
            for _ in 0..count {
                under_way.push(self.send(line, version).await?);
            }
            if random.chance(1, 6) {
                self.client.sleep(Duration::from_millis(random.between(1, 200))).await;
            }
            for request in under_way {
                let answer = line.receive(version).await?;
                self.answered(&request, &answer.read()?)?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, line: &Line, version: i16) -> Come<Request> {
        let random = self.client.random.clone();
        let oracle = &self.client.oracle;
        let request = Request {
            version,
            asked: oracle.asked(),
            at: self.client.env.now(),
            positions: self.positions.clone(),
            watermarks: places().map(|place| (place, oracle.watermark(place))).collect(),
            max_wait: Duration::from_millis(random.below(2) * random.below(600)),
            min_bytes: [0, 1, 1, 4_000][random.below(4) as usize],
        };
        let (session_id, session_epoch) = self.session.unwrap_or((0, -1));
        let told = if session_epoch > 0 { std::mem::take(&mut self.told) } else { BTreeMap::new() };
        let news = self.positions.iter().filter(|(place, at)| told.get(place) != Some(at));
        let news: BTreeMap<Place, u64> = news.map(|(place, at)| (*place, *at)).collect();
        self.told = self.positions.clone();
        let small = random.chance(1, 4);
        let bytes_max = if small { random.between(1, 5_000) as i32 } else { 1 << 20 };
        let topics = requested(&self.topics, &news, version, bytes_max);
        let message = FetchRequest {
            max_wait_ms: request.max_wait.as_millis() as i32,
            min_bytes: request.min_bytes as i32,
            max_bytes: if random.chance(1, 6) { 3_000 } else { 1 << 20 },
            session_id,
            session_epoch,
            topics: topics.into(),
            ..Default::default()
        };
        line.send(&message, version, true).await?;
        Ok(request)
    }

    fn answered(&mut self, request: &Request, response: &FetchResponse<'_>) -> Come {
        if let Some((id, epoch)) = &mut self.session {
            match response.error_code {
                ErrorCode::None => (*id, *epoch) = (response.session_id, *epoch + 1),
                error => return gone(format!("the session is over: {error}")),
            }
            if *id == 0 {
                self.session = None;
            }
        } else if response.error_code != ErrorCode::None {
            let how = format!("a fetch without session answers {:?}", response.error_code);
            return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
        }
        let (mut bytes, mut failed) = (0, None);
        for topic in response.topics.iter() {
            let known = |at: &usize| match request.version {
                13.. => topic.topic_id == self.topics[*at],
                _ => topic.topic == TOPICS[*at].name,
            };
            let Some(at) = (0..TOPICS.len()).find(known) else {
                let how = format!("an unknown topic is answered: {:?}", topic.topic);
                return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
            };
            for part in topic.partitions.iter() {
                let place = Place { topic: at, partition: part.partition_index };
                bytes += part.records.map_or(0, |records| records.bytes().len());
                failed = self.part(request, place, &part)?.or(failed);
            }
        }
        let elapsed = self.client.env.now().since(request.at);
        if failed.is_none() && bytes < request.min_bytes && elapsed < request.max_wait {
            let how = format!("{bytes} bytes after {elapsed:?} of {:?}", request.max_wait);
            return Err(Broken(Invariant::LongPollsWait, how).into());
        }
        failed.map_or(Ok(()), gone)
    }

    /// Looks at one partition of an answer; why it was not read, if so.
    fn part(
        &mut self,
        request: &Request,
        place: Place,
        part: &ResponsePartition<'_>,
    ) -> Come<Option<String>> {
        let oracle = &self.client.oracle;
        let from = request.positions[&place];
        match part.error_code {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange
                if oracle.may_be_short_of(place, request.asked, from)
                    || place.topic == 1 && part.high_watermark < from as i64 =>
            {
                self.positions.insert(place, 0);
                return Ok(Some(format!("{place:?} does not reach {from} any more")));
            }
            ErrorCode::OffsetOutOfRange => {
                let how = format!("{place:?} does not reach {from}, which was read");
                return Err(Broken(Invariant::ReadIsNeverLost, how).into());
            }
            error if error.is_retriable() => return Ok(Some(format!("{place:?}: {error}"))),
            error => {
                let how = format!("{place:?} answers {error:?}");
                return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
            }
        }
        let watermark = part.high_watermark as u64;
        oracle.on_watermark(place, request.asked, request.watermarks[&place], watermark)?;
        let bytes = part.records.map_or(&[][..], |records| records.bytes());
        let mut records = Vec::new();
        let end = read_batches(place, from, watermark, bytes, &mut |offset, tag, _| {
            records.push((offset, tag));
        })?;
        for (offset, tag) in records.into_iter().filter(|(offset, _)| *offset >= from) {
            oracle.on_read(place, request.asked, offset, tag)?;
        }
        if let Some(end) = end {
            self.positions.insert(place, end);
        }
        Ok(None)
    }
}

fn requested<'a>(
    topics: &Topics,
    positions: &BTreeMap<Place, u64>,
    version: i16,
    bytes_max: i32,
) -> Vec<RequestTopic<'a>> {
    let mut requested = Vec::new();
    for (at, topic) in TOPICS.iter().enumerate() {
        let of_topic = positions.iter().filter(|(place, _)| place.topic == at);
        let partitions: Vec<_> = of_topic
            .map(|(place, &from)| RequestPartition {
                partition: place.partition,
                fetch_offset: from as i64,
                partition_max_bytes: bytes_max,
                ..Default::default()
            })
            .collect();
        if !partitions.is_empty() {
            requested.push(RequestTopic {
                topic: if version >= 13 { "" } else { topic.name },
                topic_id: if version >= 13 { topics[at] } else { TopicId::ZERO },
                partitions: partitions.into(),
            });
        }
    }
    requested
}

/// Reads a whole partition.
pub async fn read_whole(client: &Client, place: Place) -> Come<WholeLog> {
    let line = client.connect().await;
    let mut log = WholeLog::default();
    loop {
        let from = log.records.len() as u64;
        let positions = BTreeMap::from([(place, from)]);
        let topics = requested(&[TopicId::ZERO; TOPICS.len()], &positions, 12, 1 << 20);
        let message = FetchRequest { topics: topics.into(), ..Default::default() };
        let answer = line.call(&message, 12).await?;
        let response: FetchResponse<'_> = answer.read()?;
        let part = response.topics.first().and_then(|topic| topic.partitions.first());
        let Some(part) = part else { return gone("nothing was answered") };
        if part.error_code != ErrorCode::None {
            return gone(format!("{place:?}: {}", part.error_code));
        }
        let watermark = part.high_watermark as u64;
        let bytes = part.records.map_or(&[][..], |records| records.bytes());
        let (records, sequences) = (&mut log.records, &mut log.sequences);
        read_batches(place, from, watermark, bytes, &mut |_, tag, producer| {
            records.push(tag);
            sequences.extend(producer);
        })?;
        if log.records.len() as u64 >= watermark {
            return Ok(log);
        }
    }
}
