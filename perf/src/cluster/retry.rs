//! A client that never waits: one write after the other to one partition, acks=all, and when a
//! broker does not lead it the next attempt goes at once to whoever the answer names. So what it
//! sees is how long the partition takes no writes, and not how long a client backs off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use net::client::Client;
use net::wire::ErrorCode;
use net::wire::produce::{ProduceRequest, ProduceResponse};

use super::nodes::{BROKERS, Nodes};
use crate::broker::CLIENT_ID;
use crate::error::PerfError;
use crate::produce::{Acks, produce_request};
use crate::template::batch_of;
use crate::topic::Topic;

/// How long an answer may take before the connection is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The client at work.
pub struct Writing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Acked, PerfError>>,
}

/// What it saw.
#[derive(Clone, Debug, Default)]
pub struct Acked {
    /// When each write was acknowledged.
    at: Vec<Instant>,
    /// Answers that said that another broker leads.
    pub refused: u64,
    /// Those of them that did not say who.
    pub unnamed: u64,
}

impl Acked {
    /// The longest time without an acknowledgement that ended or went on between two points.
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let pairs = self.at.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_else(|| to - from)
    }

    /// All times between two acknowledgements before a point, in order of their length.
    pub fn usual(&self, to: Instant) -> Vec<Duration> {
        let before: Vec<Instant> = self.at.iter().copied().filter(|at| *at < to).collect();
        let mut all: Vec<Duration> = before.windows(2).map(|pair| pair[1] - pair[0]).collect();
        all.sort_unstable();
        all
    }
}

struct Writer {
    topic: Topic,
    partition: i32,
    addresses: Vec<(i32, String)>,
    clients: Vec<Option<Client>>,
    /// Whom it believes to lead: its place among the addresses.
    leader: usize,
    batch: Vec<u8>,
}

/// What became of one attempt.
enum Told {
    Acked,
    /// Another one leads; perhaps who.
    NotLeader(Option<i32>),
    /// Try again, at the same or another broker.
    Later,
}

/// Begins to write to a partition, of which `leader` is believed to be the leader.
pub fn begin(nodes: &Nodes, topic: &Topic, partition: i32, leader: i32) -> Writing {
    let addresses: Vec<_> = BROKERS.iter().map(|&id| (id, nodes.address(id))).collect();
    let writer = Writer {
        topic: topic.clone(),
        partition,
        clients: addresses.iter().map(|_| None).collect(),
        leader: addresses.iter().position(|(id, _)| *id == leader).unwrap_or(0),
        addresses,
        batch: batch_of(1_100).expect("there is one of 1,100 bytes"),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    Writing { stop, thread: thread::spawn(move || writer.run(&told)) }
}

impl Writing {
    /// Ends it.
    pub fn end(self) -> Result<Acked, PerfError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("no writer panics")
    }
}

impl Writer {
    fn run(mut self, stop: &AtomicBool) -> Result<Acked, PerfError> {
        let mut acked = Acked::default();
        while !stop.load(Ordering::Acquire) {
            match self.attempt()? {
                Told::Acked => acked.at.push(Instant::now()),
                Told::Later => {}
                Told::NotLeader(who) => {
                    acked.refused += 1;
                    acked.unnamed += u64::from(who.is_none());
                    let named = self.addresses.iter().position(|(id, _)| Some(*id) == who);
                    self.leader = named.unwrap_or((self.leader + 1) % self.addresses.len());
                }
            }
        }
        Ok(acked)
    }

    fn attempt(&mut self) -> Result<Told, PerfError> {
        let (at, count) = (self.leader, self.addresses.len());
        if self.clients[at].is_none() {
            self.clients[at] =
                Client::connect(&self.addresses[at].1, CLIENT_ID, ANSWER_TIMEOUT).ok();
        }
        let Some(client) = &mut self.clients[at] else {
            // It does not run.
            self.leader = (at + 1) % count;
            return Ok(Told::Later);
        };
        let version = self.topic.version_of::<ProduceRequest<'_>>(client, 12)?;
        let request = produce_request(&self.topic, self.partition, Acks::All, &self.batch);
        let answered = client.call_in(&request, version).map(|response| told(&response));
        match answered {
            Ok(told) => told,
            Err(_) => {
                // It has ended, or is about to.
                self.clients[at] = None;
                self.leader = (at + 1) % count;
                Ok(Told::Later)
            }
        }
    }
}

fn told(response: &ProduceResponse<'_>) -> Result<Told, PerfError> {
    let partition = response.topics.first().and_then(|topic| topic.partitions.first());
    let Some(partition) = partition else {
        return Err(PerfError::Wrong("an answer without the partition that was written".into()));
    };
    let named = partition.current_leader.leader_id;
    match partition.error_code {
        ErrorCode::None => Ok(Told::Acked),
        ErrorCode::NotLeaderOrFollower => Ok(Told::NotLeader((named >= 0).then_some(named))),
        error if error.is_retriable() => Ok(Told::Later),
        error => Err(PerfError::Refused { what: "writing".into(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_the_one_around_the_event() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let acked = Acked { at: [0, 1, 50, 51, 80, 81].map(at).to_vec(), ..Acked::default() };
        assert_eq!(acked.longest(at(51), at(90)), Duration::from_millis(29));
        assert_eq!(acked.longest(at(20), at(30)), Duration::from_millis(49));
        assert_eq!(acked.longest(at(100), at(130)), Duration::from_millis(30), "none came");
        assert_eq!(acked.usual(at(51)), [1, 49].map(Duration::from_millis));
    }
}
