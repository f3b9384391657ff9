//! The other end: consumers that follow a topic while load is put on it, tell when each batch
//! arrived, and hold what arrived against what was sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use net::client::Client;
use net::wire::fetch::{self, FetchRequest, FetchResponse};

use crate::broker::connect;
use crate::error::{PerfError, accepted};
use crate::latency::Latencies;
use crate::load::{Clock, Run};
use crate::template::{Mark, marks};
use crate::topic::{Seat, Topic};

/// How long a fetch waits for something to come.
const WAIT_MS: i32 = 100;
/// Most that one answer brings, in all and of one partition.
const ANSWER_BYTES: i32 = 4 << 20;
/// After the last batch was sent: how long nothing may arrive before the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What arrived.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// From when a batch was due to be sent until it had been received, for batches that were due
    /// in the time that counts.
    pub latencies: Latencies,
    /// Batches of this run that arrived.
    pub batches: u64,
    /// Those that came after a later one of their connection and partition, or twice.
    pub disordered: u64,
}

/// Consumers at work.
pub struct Following {
    threads: Vec<JoinHandle<Result<Delivered, PerfError>>>,
    progress: Arc<Progress>,
}

/// What the consumers share.
struct Progress {
    /// Batches that will have been sent; `u64::MAX` as long as that is not known.
    expected: AtomicU64,
    arrived: AtomicU64,
}

/// Starts one consumer per leader at the offsets `from`, by partition.
pub fn follow(
    topic: &Topic,
    from: &[i64],
    run: &Run,
    clock: Clock,
) -> Result<Following, PerfError> {
    let (expected, arrived) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
    let progress = Arc::new(Progress { expected, arrived });
    let leaders: std::collections::BTreeSet<_> = topic.leaders.iter().collect();
    let warm = run.warm_up.as_nanos() as u64;
    let window = warm..warm + run.time.as_nanos() as u64;
    let mut threads = Vec::new();
    for seat in topic.seats(leaders.len()) {
        let client = connect(&seat.leader)?;
        let consumer = Consumer {
            version: topic.version_of::<FetchRequest<'_>>(&client, 12)?,
            client,
            topic: topic.clone(),
            next: seat.partitions.iter().map(|&p| (p, from[p as usize])).collect(),
            seat,
            clock,
            window: window.clone(),
            last: BTreeMap::new(),
            delivered: Delivered { latencies: Latencies::new(), batches: 0, disordered: 0 },
        };
        let progress = progress.clone();
        threads.push(std::thread::spawn(move || consumer.follow(&progress)));
    }
    Ok(Following { threads, progress })
}

impl Following {
    /// Waits until all `sent` batches have arrived, or nothing comes any more.
    pub fn finish(self, sent: u64) -> Result<Delivered, PerfError> {
        self.progress.expected.store(sent, Ordering::Release);
        let mut all = Delivered { latencies: Latencies::new(), batches: 0, disordered: 0 };
        for thread in self.threads {
            let part = thread.join().expect("no consumer panics")?;
            all.latencies.merge(&part.latencies);
            all.batches += part.batches;
            all.disordered += part.disordered;
        }
        Ok(all)
    }
}

/// One consumer.
struct Consumer {
    client: Client,
    version: i16,
    topic: Topic,
    seat: Seat,
    next: BTreeMap<i32, i64>,
    clock: Clock,
    window: std::ops::Range<u64>,
    /// Last sequence of each partition and connection.
    last: BTreeMap<(i32, u32), u64>,
    delivered: Delivered,
}

impl Consumer {
    fn follow(mut self, progress: &Progress) -> Result<Delivered, PerfError> {
        let mut moved = Instant::now();
        let mut seen = 0;
        let mut arrivals = Vec::new();
        loop {
            let arrived = progress.arrived.load(Ordering::Acquire);
            let expected = progress.expected.load(Ordering::Acquire);
            if arrived != seen || expected == u64::MAX {
                (seen, moved) = (arrived, Instant::now());
            }
            if arrived >= expected || moved.elapsed() > PATIENCE {
                return Ok(self.delivered);
            }
            let before = self.delivered.batches;
            self.fetch(&mut arrivals)?;
            for (partition, mark) in arrivals.drain(..) {
                self.arrived(partition, mark);
            }
            progress.arrived.fetch_add(self.delivered.batches - before, Ordering::AcqRel);
        }
    }

    fn fetch(&mut self, arrivals: &mut Vec<(i32, (u64, Mark))>) -> Result<(), PerfError> {
        let partition = |(&partition, &fetch_offset): (&i32, &i64)| fetch::RequestPartition {
            partition,
            fetch_offset,
            partition_max_bytes: ANSWER_BYTES,
            ..Default::default()
        };
        let partitions = self.next.iter().map(partition).collect();
        let (topic, topic_id) = (self.topic.name.as_str(), self.topic.id);
        let topics = vec![fetch::RequestTopic { topic, topic_id, partitions }].into();
        let (min_bytes, max_bytes) = (1, ANSWER_BYTES);
        let request = FetchRequest {
            max_wait_ms: WAIT_MS,
            min_bytes,
            max_bytes,
            topics,
            ..Default::default()
        };
        let response: FetchResponse<'_> = self.client.call_in(&request, self.version)?;
        let now = self.clock.now();
        accepted("fetching", response.error_code)?;
        let mut scratch = Vec::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                let what = || format!("fetching from {:?}", self.seat);
                accepted(what(), partition.error_code)?;
                let number = partition.partition_index;
                let bytes = partition.records.map_or(&[][..], |records| records.bytes());
                for (header, mark) in marks(bytes, &mut scratch) {
                    self.next.insert(number, header.next_offset().to_wire());
                    arrivals.extend(mark.map(|mark| (number, (now, mark))));
                }
            }
        }
        Ok(())
    }

    fn arrived(&mut self, partition: i32, (now, mark): (u64, Mark)) {
        self.delivered.batches += 1;
        let last = self.last.insert((partition, mark.connection), mark.sequence);
        if last.is_some_and(|last| last >= mark.sequence) {
            self.delivered.disordered += 1;
        }
        if self.window.contains(&mark.due) {
            self.delivered.latencies.record(now.saturating_sub(mark.due));
        }
    }
}
