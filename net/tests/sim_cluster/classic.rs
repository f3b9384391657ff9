//! A member of a classic group: joins, is given its part by the leader of all, reads, commits, and
//! does all over again what it is told has become another's business.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coordinator::group::consumer::embedded::{self, Named};
use engine::env::{Env, Queue};
use engine::ids::PartitionIndex;
use engine::time::Instant;
use engine::wait::Watch;
use net::wire::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::wire::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};
use net::wire::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use net::wire::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use net::wire::{Array, ErrorCode};

use crate::groups::{HEARTBEAT, MAX_WAIT, Mishap, REBALANCE, between, mishap};
use crate::line::Come;
use crate::oracle::{Broken, Invariant, Place};
use crate::seat::{Answered, Seat};
use crate::world::{TOPICS, places};

const KIND: &str = "consumer";
const PROTOCOL: &str = "range";

struct Classic {
    seat: Rc<Seat>,
    /// Empty while it has none.
    id: String,
    generation: i32,
    /// What it has; `None` while it is joining.
    owned: Option<Vec<Place>>,
    next_beat: Instant,
    next_commit: Instant,
}

/// Is a member until `finish` is raised; until `calm` is raised not always a good one.
pub async fn attend(seat: Rc<Seat>, calm: Watch, finish: Watch) {
    let now = seat.now();
    let mut member = Classic {
        seat,
        id: String::new(),
        generation: -1,
        owned: None,
        next_beat: now,
        next_commit: now,
    };
    while finish.value() == 0 {
        match member.turn().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => member.on_error(error),
            Err(stop) => {
                member.seat.lose();
                if !member.seat.member.again(&stop).await {
                    return;
                }
            }
        }
        let client = &member.seat.member.client;
        client.sleep(Duration::from_millis(client.random.between(20, 120))).await;
        if calm.value() == 0
            && let Err(stop) = member.perhaps_a_mishap().await
        {
            member.seat.lose();
            if !member.seat.member.again(&stop).await {
                return;
            }
        }
    }
}

impl Classic {
    /// Does what is due. Answers what the coordinator has against it.
    async fn turn(&mut self) -> Answered {
        let Some(owned) = self.owned.clone() else { return self.join().await };
        let now = self.seat.now();
        if now >= self.next_beat {
            self.next_beat = now.after(HEARTBEAT);
            if let Err(error) = self.beat().await? {
                return Ok(Err(error));
            }
        }
        if let Err(error) = self.seat.begin(None, &owned).await? {
            return Ok(Err(error));
        }
        if !self.seat.read().await {
            return Ok(Ok(()));
        }
        if self.seat.now() >= self.next_commit {
            self.next_commit = self.seat.now().after(between(&self.seat.member.client, 50, 400));
            return self.seat.commit(&self.id, self.generation, &owned).await;
        }
        Ok(Ok(()))
    }

    /// As Kafka's consumer does (`ConsumerCoordinator`, `AbstractCoordinator`).
    fn on_error(&mut self, error: ErrorCode) {
        self.seat.event(format_args!("{} is told {error}", self.id));
        match error {
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => self.seat.lose(),
            ErrorCode::RebalanceInProgress => {
                self.commit_late();
                self.let_go();
            }
            ErrorCode::IllegalGeneration => {
                self.generation = -1;
                self.let_go();
            }
            ErrorCode::UnknownMemberId => {
                self.fenced();
                self.let_go();
            }
            // Whatever is to be tried again.
            _ => {}
        }
    }

    fn fenced(&mut self) {
        self.seat.ledger.fenced.set(self.seat.ledger.fenced.get() + 1);
        (self.id, self.generation) = (String::new(), -1);
    }

    fn let_go(&mut self) {
        self.owned = None;
        self.seat.positions.borrow_mut().clear();
    }

    /// A commit that comes by a way of its own, perhaps when the generation is over.
    fn commit_late(&self) {
        let (Some(owned), random) = (&self.owned, &self.seat.member.client.random) else { return };
        if self.id.is_empty() || !random.chance(1, 3) {
            return;
        }
        let (seat, id, generation) = (self.seat.clone(), self.id.clone(), self.generation);
        let read = seat.read_of(owned);
        let pause = between(&seat.member.client, 0, 700);
        self.seat.member.client.env.spawn(Queue::Request, async move {
            let late = async {
                let coordinator = seat.aside().await?;
                seat.member.client.sleep(pause).await;
                seat.commit_to(&coordinator, &id, generation, &read).await
            };
            match late.await {
                Ok(answer) => seat.event(format_args!("a late commit is answered {answer:?}")),
                Err(stop) => _ = seat.member.client.ended(&stop),
            }
        });
    }

    async fn join(&mut self) -> Answered {
        let coordinator = self.seat.coordinator().await?;
        let subscription = subscription();
        let protocols = [JoinGroupRequestProtocol { name: PROTOCOL, metadata: &subscription }];
        let message = JoinGroupRequest {
            group_id: self.seat.ledger.group,
            session_timeout_ms: self.seat.ledger.session().as_millis() as i32,
            rebalance_timeout_ms: REBALANCE.as_millis() as i32,
            member_id: &self.id,
            protocol_type: KIND,
            protocols: (&protocols).into(),
            ..Default::default()
        };
        let version = self.seat.member.client.random.between(5, 9) as i16;
        let answer = coordinator.line.call_within(MAX_WAIT, &message, version).await?;
        let response: JoinGroupResponse<'_> = answer.read()?;
        match response.error_code {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.id = response.member_id.into_owned();
                return Ok(Ok(()));
            }
            error if is_expected(error) => return Ok(Err(error)),
            error => return self.seat.unexpected("JoinGroup", error),
        }
        self.id = response.member_id.to_string();
        self.generation = response.generation_id;
        let gives = match response.leader == self.id && !response.skip_assignment {
            true => assign(&response.members),
            false => BTreeMap::new(),
        };
        self.sync(gives).await
    }

    async fn sync(&mut self, gives: BTreeMap<String, Vec<u8>>) -> Answered {
        let coordinator = self.seat.coordinator().await?;
        let each = gives
            .iter()
            .map(|(member_id, assignment)| SyncGroupRequestAssignment { member_id, assignment });
        let message = SyncGroupRequest {
            group_id: self.seat.ledger.group,
            generation_id: self.generation,
            member_id: &self.id,
            protocol_type: Some(KIND),
            protocol_name: Some(PROTOCOL),
            assignments: each.collect(),
            ..Default::default()
        };
        let version = self.seat.member.client.random.between(3, 5) as i16;
        let answer = coordinator.line.call_within(MAX_WAIT, &message, version).await?;
        let response: SyncGroupResponse<'_> = answer.read()?;
        match response.error_code {
            ErrorCode::None => {}
            error if is_expected(error) => return Ok(Err(error)),
            error => return self.seat.unexpected("SyncGroup", error),
        }
        let Ok(all) = embedded::read_assignment(&response.assignment) else {
            let how = format!("{:?} is no assignment", response.assignment);
            return Err(Broken(Invariant::OneOwnerPerGeneration, how).into());
        };
        let has = |place: &Place| {
            let of_topic = all.get(TOPICS[place.topic].name);
            of_topic.is_some_and(|of| of.contains(&PartitionIndex(place.partition)))
        };
        let owned: Vec<Place> = places().filter(has).collect();
        let (now, generation) = (self.seat.now(), self.generation);
        self.seat.event(format_args!("{} has {owned:?} in generation {generation}", self.id));
        let ledger = &self.seat.ledger;
        ledger.on_assigned(now, &self.id.as_str().into(), generation, &owned)?;
        self.owned = Some(owned);
        self.next_beat = now.after(HEARTBEAT);
        Ok(Ok(()))
    }

    async fn beat(&mut self) -> Answered {
        let coordinator = self.seat.coordinator().await?;
        let message = HeartbeatRequest {
            group_id: self.seat.ledger.group,
            generation_id: self.generation,
            member_id: &self.id,
            ..Default::default()
        };
        let answer = coordinator.line.call(&message, 4).await?;
        let response: HeartbeatResponse = answer.read()?;
        match response.error_code {
            ErrorCode::None => Ok(Ok(())),
            ErrorCode::RebalanceInProgress => {
                // Before it lets go it says how far it is.
                let owned = self.owned.clone().unwrap_or_default();
                if let Err(error) = self.seat.commit(&self.id, self.generation, &owned).await? {
                    return Ok(Err(error));
                }
                Ok(Err(ErrorCode::RebalanceInProgress))
            }
            error if is_expected(error) => Ok(Err(error)),
            error => self.seat.unexpected("Heartbeat", error),
        }
    }

    async fn perhaps_a_mishap(&mut self) -> Come {
        let client = &self.seat.member.client;
        match mishap(client) {
            None => {}
            Some(Mishap::Leaves(pause)) => {
                if !self.id.is_empty() {
                    self.leave().await?;
                }
                self.fenced();
                self.let_go();
                self.seat.member.client.sleep(pause).await;
            }
            Some(Mishap::Dies(pause)) => {
                self.seat.event(format_args!("{} dies", self.id));
                (self.id, self.generation) = (String::new(), -1);
                self.let_go();
                self.seat.lose();
                self.seat.member.lose_all();
                self.seat.member.client.sleep(pause).await;
            }
            Some(Mishap::Dawdles(pause)) => {
                self.seat.event(format_args!("{} dawdles for {pause:?}", self.id));
                client.sleep(pause).await;
                let Some(owned) = self.owned.clone() else { return Ok(()) };
                // It does not know yet what has happened meanwhile.
                if !self.seat.read().await {
                    return Ok(());
                }
                let answer = self.seat.commit(&self.id, self.generation, &owned).await?;
                answer.unwrap_or_else(|error| self.on_error(error));
            }
        }
        Ok(())
    }

    async fn leave(&mut self) -> Come {
        if let Some(owned) = self.owned.clone() {
            let _ = self.seat.commit(&self.id, self.generation, &owned).await?;
        }
        let coordinator = self.seat.coordinator().await?;
        let members = [MemberIdentity { member_id: &self.id, ..Default::default() }];
        let message = LeaveGroupRequest {
            group_id: self.seat.ledger.group,
            members: (&members).into(),
            ..Default::default()
        };
        self.seat.event(format_args!("{} leaves", self.id));
        let answer = coordinator.line.call(&message, 5).await?;
        let response: LeaveGroupResponse<'_> = answer.read()?;
        let of_member = response.members.first().map_or(ErrorCode::None, |one| one.error_code);
        match [response.error_code, of_member].into_iter().find(|error| !error.is_none()) {
            Some(error) if !is_expected(error) => self.seat.unexpected("LeaveGroup", error),
            // Whatever it is, it is gone.
            _ => Ok(()),
        }
    }
}

/// What a client has an answer to.
fn is_expected(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::RebalanceInProgress
            | ErrorCode::IllegalGeneration
            | ErrorCode::UnknownMemberId
    )
}

/// A subscription to all topics, in version 0 of the protocol inside of the protocol.
fn subscription() -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend((TOPICS.len() as u32).to_be_bytes());
    for topic in &TOPICS {
        bytes.extend((topic.name.len() as u16).to_be_bytes());
        bytes.extend(topic.name.as_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes
}

/// Of each topic, each member in the order of ids gets its range.
fn assign(members: &Array<'_, JoinGroupResponseMember<'_>>) -> BTreeMap<String, Vec<u8>> {
    let mut ids: Vec<String> = members.iter().map(|one| one.member_id.into_owned()).collect();
    ids.sort();
    let mut given: BTreeMap<String, Named> = BTreeMap::new();
    for topic in &TOPICS {
        let (count, members) = (topic.partitions as usize, ids.len());
        let mut next = 0;
        for (at, id) in ids.iter().enumerate() {
            let share = count / members + usize::from(at < count % members);
            let range = (next..next + share).map(|at| PartitionIndex(at as i32)).collect();
            given.entry(id.clone()).or_default().insert(topic.name.into(), range);
            next += share;
        }
    }
    given.into_iter().map(|(id, named)| (id, embedded::write_assignment(0, &named))).collect()
}
