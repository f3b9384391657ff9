//! A member of a group of the classic protocol, on a connection of its own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net::client::Client;
use net::wire::ErrorCode;
use net::wire::find_coordinator::{FindCoordinatorRequest, GROUP};
use net::wire::heartbeat::HeartbeatRequest;
use net::wire::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use net::wire::leave_group::{LeaveGroupRequest, MemberIdentity};
use net::wire::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::share::{assigned, assignment, round_robin, subscription};
use crate::broker::{self, Target};
use crate::error::{PerfError, accepted};
use crate::topic::Topic;

/// How long a member may be silent: longer than any run, because some only commit.
const SESSION_MS: i32 = 600_000;
/// How long a rebalance waits for each; less than an answer may take.
const REBALANCE_MS: i32 = 25_000;
/// How long a coordinator may take to be found.
const PATIENCE: Duration = Duration::from_secs(30);
/// What all members speak.
const PROTOCOL: &str = "perf";

/// A group that shares out a topic.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The topic.
    pub topic: Topic,
    /// Where its coordinator is.
    pub coordinator: String,
}

impl Group {
    /// Finds its coordinator.
    pub fn find(target: &Target, name: &str, topic: &Topic) -> Result<Arc<Group>, PerfError> {
        let (mut client, begun) = (target.connect()?, Instant::now());
        loop {
            let keys = [name];
            let request = FindCoordinatorRequest {
                key: name,
                key_type: GROUP,
                coordinator_keys: (&keys).into(),
            };
            // Version 4 and those after it have a list.
            let version = client.versions().highest::<FindCoordinatorRequest<'_>>()?;
            let found = client.call_in(&request, version)?;
            let one = found.coordinators.first();
            let (error, host, port) = match &one {
                Some(one) => (one.error_code, &one.host, one.port),
                None => (found.error_code, &found.host, found.port),
            };
            if error == ErrorCode::None {
                let coordinator = format!("{host}:{port}");
                let (name, topic) = (name.to_owned(), topic.clone());
                return Ok(Arc::new(Group { name, topic, coordinator }));
            }
            if begun.elapsed() > PATIENCE {
                accepted(format!("finding the coordinator of {name}"), error)?;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection to its coordinator.
    pub fn connect(&self) -> Result<Client, PerfError> {
        broker::connect(&self.coordinator)
    }
}

/// One member.
pub struct Member {
    client: Client,
    group: Arc<Group>,
    /// Its id; empty until it is told one.
    pub id: String,
    /// The generation that it joined last; -1 before.
    pub generation: i32,
    /// Who is in that, if it leads.
    followers: Vec<String>,
}

/// Whether a member that was refused with this may join again.
pub fn is_to_join_again(error: ErrorCode) -> bool {
    let group = [ErrorCode::RebalanceInProgress, ErrorCode::IllegalGeneration];
    group.contains(&error) || error.is_retriable()
}

impl Member {
    /// On a new connection, not yet in the group.
    pub fn new(group: &Arc<Group>) -> Result<Member, PerfError> {
        let (client, group) = (group.connect()?, group.clone());
        Ok(Member { client, group, id: String::new(), generation: -1, followers: Vec::new() })
    }

    /// Gets its id, without a part in the group yet (KIP-394).
    pub fn introduce(&mut self) -> Result<(), PerfError> {
        let begun = Instant::now();
        loop {
            match self.ask_to_join(0)? {
                ErrorCode::MemberIdRequired => return Ok(()),
                error if error.is_retriable() && begun.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(5));
                }
                error => accepted("asking for a member id", error)?,
            }
        }
    }

    /// Joins the next generation; waits until all have.
    pub fn join(&mut self, round: u32) -> Result<(), PerfError> {
        if self.id.is_empty() {
            self.introduce()?;
        }
        let error = self.ask_to_join(round)?;
        accepted(format!("joining {}", self.group.name), error)
    }

    fn ask_to_join(&mut self, round: u32) -> Result<ErrorCode, PerfError> {
        let metadata = subscription(&self.group.topic.name, round);
        let protocols = [JoinGroupRequestProtocol { name: PROTOCOL, metadata: &metadata }];
        let request = JoinGroupRequest {
            group_id: &self.group.name,
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            member_id: &self.id,
            protocol_type: "consumer",
            protocols: (&protocols).into(),
            ..Default::default()
        };
        let joined = self.client.call(&request)?;
        if joined.error_code == ErrorCode::None {
            self.generation = joined.generation_id;
            let leads = joined.leader == joined.member_id;
            let all = joined.members.iter().filter(|_| leads);
            self.followers = all.map(|member| member.member_id.into_owned()).collect();
        }
        self.id = joined.member_id.into_owned();
        Ok(joined.error_code)
    }

    /// Fetches its share of the generation, which the leader brings along for all.
    pub fn sync(&mut self) -> Result<Vec<i32>, PerfError> {
        let topic = &self.group.topic;
        let shares = round_robin(topic.leaders.len() as i32, self.followers.len());
        let shares: Vec<_> = shares.iter().map(|share| assignment(&topic.name, share)).collect();
        let each = self.followers.iter().zip(&shares);
        let request = SyncGroupRequest {
            group_id: &self.group.name,
            generation_id: self.generation,
            member_id: &self.id,
            protocol_type: Some("consumer"),
            protocol_name: Some(PROTOCOL),
            assignments: each
                .map(|(member_id, assignment)| SyncGroupRequestAssignment { member_id, assignment })
                .collect(),
            ..Default::default()
        };
        let synced = self.client.call(&request)?;
        accepted(format!("fetching the share of {}", self.group.name), synced.error_code)?;
        assigned(&synced.assignment, &topic.name)
            .ok_or_else(|| PerfError::Wrong("an assignment that its leader did not make".into()))
    }

    /// Joins and syncs until it has its share of a generation.
    pub fn settle(&mut self, round: u32) -> Result<Vec<i32>, PerfError> {
        loop {
            match self.join(round).and_then(|()| self.sync()) {
                Err(PerfError::Refused { error, .. }) if is_to_join_again(error) => {}
                outcome => return outcome,
            }
        }
    }

    /// Tells that it is alive; `false`: it has to join again.
    pub fn beat(&mut self) -> Result<bool, PerfError> {
        let request = HeartbeatRequest {
            group_id: &self.group.name,
            generation_id: self.generation,
            member_id: &self.id,
            ..Default::default()
        };
        match self.client.call(&request)?.error_code {
            ErrorCode::None => Ok(true),
            error if is_to_join_again(error) => Ok(false),
            error => accepted("a heartbeat", error).map(|()| true),
        }
    }

    /// Leaves the group.
    pub fn leave(mut self) -> Result<(), PerfError> {
        let identity = MemberIdentity { member_id: &self.id, ..Default::default() };
        let members = [identity];
        let request = LeaveGroupRequest {
            group_id: &self.group.name,
            member_id: &self.id,
            members: (&members).into(),
        };
        let left = self.client.call(&request)?;
        accepted(format!("leaving {}", self.group.name), left.error_code)
    }
}
