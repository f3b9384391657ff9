//! Clients that know a cluster: who leads what, and a connection to each broker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use engine::ids::TopicId;
use net::history::{Event, History, Op};
use net::wire::metadata::{MetadataRequest, MetadataResponse, RequestTopic};

use crate::line::{Client, Come, Line, Stop, gone};
use crate::oracle::{Broken, Invariant, Place, Tag};
use crate::watcher::Registry;
use crate::world::TOPICS;

/// A client.
pub struct Member {
    pub client: Client,
    pub registry: Rc<Registry>,
    pub history: Rc<RefCell<History>>,
    bootstrap: Vec<SocketAddr>,
    brokers: RefCell<BTreeMap<i32, SocketAddr>>,
    /// Epoch and leader.
    leaders: RefCell<BTreeMap<Place, (i32, i32)>>,
    lines: RefCell<BTreeMap<i32, Rc<Line>>>,
    /// Indexes of the topics of the run.
    topics: RefCell<BTreeMap<TopicId, usize>>,
}

impl Member {
    pub fn new(
        client: Client,
        registry: Rc<Registry>,
        history: Rc<RefCell<History>>,
        bootstrap: Vec<SocketAddr>,
    ) -> Member {
        Member {
            client,
            registry,
            history,
            bootstrap,
            brokers: RefCell::default(),
            leaders: RefCell::default(),
            lines: RefCell::default(),
            topics: RefCell::default(),
        }
    }

    /// A new connection to some broker.
    pub async fn any(&self) -> Come<Line> {
        let at = self.client.random.below(self.bootstrap.len() as u64) as usize;
        Client { broker: self.bootstrap[at], ..self.client.clone() }.try_connect().await
    }

    /// Asks some broker who leads what.
    pub async fn refresh(&self) -> Come {
        let line = self.any().await?;
        let topics: Vec<_> = TOPICS
            .iter()
            .map(|topic| RequestTopic { name: Some(topic.name), ..Default::default() })
            .collect();
        let message = MetadataRequest {
            topics: Some(topics.into()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let answer = line.call(&message, 12).await?;
        let response: MetadataResponse<'_> = answer.read()?;
        let mut brokers = self.brokers.borrow_mut();
        for broker in response.brokers.iter() {
            if let Ok(ip) = broker.host.parse() {
                brokers.insert(broker.node_id, SocketAddr::new(ip, broker.port as u16));
            }
        }
        let mut leaders = self.leaders.borrow_mut();
        for topic in response.topics.iter() {
            let known = |at: &usize| topic.name.as_deref() == Some(TOPICS[*at].name);
            let Some(at) = (0..TOPICS.len()).find(known) else { continue };
            self.topics.borrow_mut().insert(topic.topic_id, at);
            for part in topic.partitions.iter() {
                let place = Place { topic: at, partition: part.partition_index };
                let (epoch, leader) = (part.leader_epoch, part.leader_id);
                self.registry.on_leader(topic.topic_id, place.partition, epoch, leader)?;
                let known = leaders.entry(place).or_insert((-1, -1));
                // An older picture than one that was seen is of no use (KIP-320).
                if epoch >= known.0 && leader >= 0 {
                    *known = (epoch, leader);
                }
            }
        }
        Ok(())
    }

    /// Index of a topic of the run, as far as it is known.
    pub fn topic(&self, id: TopicId) -> Option<usize> {
        self.topics.borrow().get(&id).copied()
    }

    /// Id of a topic of the run, as far as it is known.
    pub fn topic_id(&self, index: usize) -> Option<TopicId> {
        let topics = self.topics.borrow();
        topics.iter().find(|(_, at)| **at == index).map(|(id, _)| *id)
    }

    /// Leader and epoch, as far as they are known.
    pub fn leader(&self, place: Place) -> Option<(i32, i32)> {
        self.leaders.borrow().get(&place).filter(|(_, leader)| *leader >= 0).copied()
    }

    /// A connection to a broker.
    pub async fn line(&self, broker: i32) -> Come<Rc<Line>> {
        if let Some(line) = self.lines.borrow().get(&broker) {
            return Ok(line.clone());
        }
        let address = self.brokers.borrow().get(&broker).copied();
        let Some(broker_address) = address else { return gone(format!("no broker {broker}")) };
        let client = Client { broker: broker_address, ..self.client.clone() };
        let line = Rc::new(client.try_connect().await?);
        self.lines.borrow_mut().insert(broker, line.clone());
        Ok(line)
    }

    /// Its process ends: nothing is left of its connections.
    pub fn lose_all(&self) {
        self.lines.borrow_mut().clear();
    }

    /// A connection is of no more use.
    pub fn lose(&self, broker: i32) {
        self.lines.borrow_mut().remove(&broker);
    }

    /// After something went wrong; `false` if that was a broken promise.
    pub async fn again(&self, stop: &Stop) -> bool {
        if !self.client.ended(stop) {
            return false;
        }
        self.client.pause().await;
        match self.refresh().await {
            Err(stop @ Stop::Broken(_)) => self.client.ended(&stop),
            _ => true,
        }
    }

    /// Writes down what happened, for the checker of histories.
    pub fn tell(&self, op: Op, who: &str, place: Place, offset: i64, tag: Option<Tag>) -> Come {
        let value = tag.map(|Tag { producer, line, number }| format!("{producer}-{line}-{number}"));
        let event = Event {
            client: who.into(),
            topic: TOPICS[place.topic].name.into(),
            partition: place.partition,
            offset,
            value: value.unwrap_or_default().into(),
            ..Event::new(op)
        };
        let told = self.history.borrow_mut().push(&event);
        told.map_err(|error| Broken(Invariant::NoDuplicateSequence, error.to_string()).into())
    }
}
