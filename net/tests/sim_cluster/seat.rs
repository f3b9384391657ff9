//! What members of both protocols do alike: look for their coordinator, read what they have,
//! commit how far they are, and ask how far others were.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use coordinator::group::partition_of;
use engine::env::Env;
use engine::time::Instant;
use net::groups::OFFSETS_TOPIC;
use net::wire::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse, GROUP};
use net::wire::metadata::{MetadataRequest, MetadataResponse, RequestTopic};
use net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};
use net::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use net::wire::{Array, ErrorCode};

use crate::client::Member;
use crate::consumer::fetch;
use crate::ledger::{CommitIds, CommitState, Ledger, Told};
use crate::line::{Client, Come, Line, gone};
use crate::oracle::{Broken, Invariant, Place};
use crate::world::{TOPICS, places};

/// What is asked and answered: or why the broker refuses.
pub type Answered<T = ()> = Come<Result<T, ErrorCode>>;

/// Somebody in, or about, a group.
pub struct Seat {
    pub member: Member,
    pub ledger: Rc<Ledger>,
    coordinator: RefCell<Option<Coordinator>>,
    /// How far it is with what it has.
    pub positions: RefCell<BTreeMap<Place, Position>>,
}

/// How far somebody is with a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The next record to read.
    pub offset: u64,
    /// In which epoch it was led that the one before was read from; -1: none was. Who leads in an
    /// earlier one may not have it (KIP-320).
    pub epoch: i32,
}

/// The broker that keeps the group, or so it is said.
#[derive(Clone)]
pub struct Coordinator {
    pub broker: i32,
    /// In which epoch it leads the group's partition, if it says that it does.
    epoch: Option<i32>,
    address: SocketAddr,
    pub line: Rc<Line>,
}

impl Seat {
    pub fn new(member: Member, ledger: Rc<Ledger>) -> Seat {
        Seat { member, ledger, coordinator: RefCell::default(), positions: RefCell::default() }
    }

    pub fn now(&self) -> Instant {
        self.member.client.env.now()
    }

    pub fn name(&self) -> &str {
        &self.member.client.name
    }

    /// The coordinator; looked for if it is not known.
    pub async fn coordinator(&self) -> Come<Coordinator> {
        if let Some(known) = &*self.coordinator.borrow() {
            return Ok(known.clone());
        }
        let line = self.member.any().await?;
        let version = self.member.client.random.between(3, 6) as i16;
        let group = self.ledger.group;
        let keys = [group];
        let message = FindCoordinatorRequest {
            key: if version < 4 { group } else { "" },
            key_type: GROUP,
            coordinator_keys: if version < 4 { Array::new() } else { (&keys).into() },
        };
        let answer = line.call(&message, version).await?;
        let response: FindCoordinatorResponse<'_> = answer.read()?;
        let (error, broker, host, port) = match response.coordinators.first() {
            Some(one) => (one.error_code, one.node_id, one.host, one.port),
            None => (response.error_code, response.node_id, response.host, response.port),
        };
        match error {
            ErrorCode::None => {}
            error if error.is_retriable() => return gone(format!("no coordinator: {error}")),
            error => return self.unexpected("FindCoordinator", error),
        }
        let Ok(ip) = host.parse() else { return gone(format!("{host} is no address")) };
        let found = self.meet(broker, SocketAddr::new(ip, port as u16)).await?;
        let epoch = found.epoch.map_or("no".into(), |epoch| epoch.to_string());
        self.event(format_args!("looks to {broker}, which says that it leads in {epoch} epoch"));
        self.coordinator.replace(Some(found.clone()));
        Ok(found)
    }

    /// A connection to the coordinator, which is asked in which epoch it leads.
    async fn meet(&self, broker: i32, address: SocketAddr) -> Come<Coordinator> {
        let client = Client { broker: address, ..self.member.client.clone() };
        let line = client.try_connect().await?;
        let topics = [RequestTopic { name: Some(OFFSETS_TOPIC), ..Default::default() }];
        let message = MetadataRequest { topics: Some((&topics).into()), ..Default::default() };
        let answer = line.call(&message, 12).await?;
        let response: MetadataResponse<'_> = answer.read()?;
        let mut epoch = None;
        if let Some(topic) = response.topics.first() {
            let at = partition_of(self.ledger.group, topic.partitions.len().max(1) as i32);
            let part = topic.partitions.iter().find(|part| part.partition_index == at);
            epoch = part.filter(|part| part.leader_id == broker).map(|part| part.leader_epoch);
        }
        Ok(Coordinator { broker, epoch, address, line: Rc::new(line) })
    }

    /// Another connection to the same.
    pub async fn aside(&self) -> Come<Coordinator> {
        let known = self.coordinator.borrow().clone();
        match known {
            Some(known) => self.meet(known.broker, known.address).await,
            None => gone("no coordinator is known"),
        }
    }

    /// The coordinator is to be looked for again.
    pub fn lose(&self) {
        self.coordinator.replace(None);
    }

    pub fn event(&self, what: std::fmt::Arguments<'_>) {
        self.member.client.event(what);
    }

    pub fn unexpected<T>(&self, what: &str, error: ErrorCode) -> Come<T> {
        let how = format!("{} of {}: {what} is answered {error:?}", self.name(), self.ledger.group);
        Err(Broken(Invariant::ErrorsHaveCauses, how).into())
    }

    /// Reads what there is of each partition of which it is known where to begin. `false`: the
    /// story is over.
    pub async fn read(&self) -> bool {
        let positions = self.positions.borrow().clone();
        for (place, Position { offset: from, epoch }) in positions {
            let mut records = Vec::new();
            let mut take = |offset, tag, _: Option<_>| records.push((offset, tag));
            let ended = match self.member.leader(place) {
                Some((known, _)) if known < epoch => gone(format!("{epoch} has begun")),
                _ => fetch(&self.member, place, from, &mut take).await,
            };
            let oracle = &self.member.client.oracle;
            let read = ended.and_then(|(epoch, _)| {
                records.retain(|(offset, _)| *offset >= from);
                for &(offset, tag) in &records {
                    oracle.on_read(place, oracle.asked(), offset, tag)?;
                }
                if let Some((last, _)) = records.last() {
                    self.ledger.on_delivered(place, from, last + 1);
                    let position = Position { offset: last + 1, epoch };
                    self.positions.borrow_mut().insert(place, position);
                }
                Ok(())
            });
            if let Err(stop) = read {
                if let Some((_, leader)) = self.member.leader(place) {
                    self.member.lose(leader);
                }
                if !self.member.again(&stop).await {
                    return false;
                }
            }
        }
        true
    }

    /// Commits how far it is with `places`, as a member of `generation`.
    pub async fn commit(&self, who: &str, generation: i32, places: &[Place]) -> Answered {
        let coordinator = self.coordinator().await?;
        let read: Vec<_> = self.read_of(places);
        self.commit_to(&coordinator, who, generation, &read).await
    }

    /// How far it is.
    pub fn read_of(&self, places: &[Place]) -> Vec<(Place, Position)> {
        let positions = self.positions.borrow();
        places.iter().filter_map(|place| Some((*place, *positions.get(place)?))).collect()
    }

    pub async fn commit_to(
        &self,
        coordinator: &Coordinator,
        who: &str,
        generation: i32,
        read: &[(Place, Position)],
    ) -> Answered {
        if read.is_empty() {
            return Ok(Ok(()));
        }
        let offsets: Vec<_> = read.iter().map(|(place, at)| (*place, at.offset)).collect();
        let ids = self.ledger.on_commit(self.now(), generation, &offsets)?;
        let by_topic: Vec<Vec<_>> = (0..TOPICS.len())
            .map(|topic| {
                let of = read.iter().filter(|(place, _)| place.topic == topic);
                of.map(|&(place, at)| OffsetCommitRequestPartition {
                    partition_index: place.partition,
                    committed_offset: at.offset as i64,
                    committed_leader_epoch: at.epoch,
                    ..Default::default()
                })
                .collect()
            })
            .collect();
        let topics: Vec<_> = TOPICS
            .iter()
            .zip(&by_topic)
            .enumerate()
            .filter(|(_, (_, partitions))| !partitions.is_empty())
            .map(|(index, (topic, partitions))| OffsetCommitRequestTopic {
                name: topic.name,
                topic_id: self.member.topic_id(index).unwrap_or_default(),
                partitions: partitions[..].into(),
            })
            .collect();
        let message = OffsetCommitRequest {
            group_id: self.ledger.group,
            generation_id_or_member_epoch: generation,
            member_id: who,
            topics: topics.into(),
            ..Default::default()
        };
        let version = self.member.client.random.between(8, 10) as i16;
        // Before version 9 there is no answer that says that a member is in another epoch.
        let version = if self.ledger.is_classic() { version } else { version.max(9) };
        let answer = coordinator.line.call(&message, version).await?;
        let response: OffsetCommitResponse<'_> = answer.read()?;
        let mut told = Vec::new();
        for topic in response.topics.iter() {
            let index = match version {
                10.. => self.member.topic(topic.topic_id),
                _ => TOPICS.iter().position(|known| known.name == topic.name),
            };
            let Some(index) = index else { return gone("a topic that was not asked for") };
            for part in topic.partitions.iter() {
                let place = Place { topic: index, partition: part.partition_index };
                told.push((place, part.error_code));
            }
        }
        self.on_committed(coordinator.broker, ids, &told)
    }

    /// What became of each; the first error is that of the whole.
    fn on_committed(&self, by: i32, ids: CommitIds, told: &[(Place, ErrorCode)]) -> Answered {
        let mut first = Ok(());
        for (place, at) in ids {
            let Some((_, error)) = told.iter().find(|(of, _)| *of == place) else {
                let how = format!("a commit of {place:?} is not answered");
                return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
            };
            let became = match error {
                ErrorCode::None => CommitState::Acked(self.now(), by),
                ErrorCode::UnknownMemberId
                | ErrorCode::IllegalGeneration
                | ErrorCode::RebalanceInProgress
                | ErrorCode::StaleMemberEpoch
                | ErrorCode::GroupIdNotFound
                | ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId => CommitState::Refused,
                ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                    CommitState::Unknown
                }
                error => return self.unexpected("OffsetCommit", *error),
            };
            if !error.is_none() && first.is_ok() {
                first = Err(*error);
            }
            self.ledger.on_committed((place, at), became)?;
        }
        Ok(first)
    }

    /// Asks for where to begin with `places`, as a member, or from outside of the group.
    pub async fn offsets(
        &self,
        who: Option<(&str, i32)>,
        places: &[Place],
    ) -> Answered<Vec<(Place, Position)>> {
        let coordinator = self.coordinator().await?;
        let of = |topic| places.iter().filter(move |place| place.topic == topic);
        let wanted: Vec<Vec<i32>> = (0..TOPICS.len())
            .map(|topic| of(topic).map(|place| place.partition).collect())
            .collect();
        let topics: Vec<_> = TOPICS
            .iter()
            .zip(&wanted)
            .filter(|(_, partitions)| !partitions.is_empty())
            .map(|(topic, partitions)| OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: partitions[..].into(),
                ..Default::default()
            })
            .collect();
        let groups = [OffsetFetchRequestGroup {
            group_id: self.ledger.group,
            member_id: who.map(|(member, _)| member),
            member_epoch: who.map_or(-1, |(_, epoch)| epoch),
            topics: Some(topics.into()),
        }];
        let groups = (&groups).into();
        let message = OffsetFetchRequest { groups, require_stable: true, ..Default::default() };
        let asked = self.now();
        let answer = coordinator.line.call(&message, 9).await?;
        let response: OffsetFetchResponse<'_> = answer.read()?;
        let Some(group) = response.groups.first() else { return gone("nothing was answered") };
        if !group.error_code.is_none() {
            return Ok(Err(group.error_code));
        }
        let told = Told { asked, by: coordinator.broker, epoch: coordinator.epoch };
        let mut offsets = Vec::new();
        for topic in group.topics.iter() {
            let name: Cow<'_, str> = topic.name;
            let index = TOPICS.iter().position(|known| known.name == name);
            let Some(index) = index else { return gone("a topic that was not asked for") };
            for part in topic.partitions.iter() {
                if !part.error_code.is_none() {
                    return Ok(Err(part.error_code));
                }
                let place = Place { topic: index, partition: part.partition_index };
                let offset = u64::try_from(part.committed_offset).ok();
                self.ledger.on_told(place, offset, told)?;
                let epoch = part.committed_leader_epoch;
                offsets.push((place, Position { offset: offset.unwrap_or(0), epoch }));
            }
        }
        if offsets.len() != places.len() {
            let how = format!("{places:?} were asked for, {offsets:?} told");
            return Err(Broken(Invariant::ErrorsHaveCauses, how).into());
        }
        Ok(Ok(offsets))
    }

    /// Asks for where to begin where that is not known of `owned`.
    pub async fn begin(&self, who: Option<(&str, i32)>, owned: &[Place]) -> Answered {
        let known = self.positions.borrow().clone();
        let missing: Vec<Place> =
            owned.iter().filter(|place| !known.contains_key(place)).copied().collect();
        if missing.is_empty() {
            return Ok(Ok(()));
        }
        let told = self.offsets(who, &missing).await?;
        Ok(told.map(|told| self.positions.borrow_mut().extend(told)))
    }

    /// All that has to be read.
    pub fn all() -> Vec<Place> {
        places().collect()
    }
}
