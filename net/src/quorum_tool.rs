//! `ringbolt quorum`: shows who agrees on the metadata, and changes it. Speaks to coordinators on
//! the listener on which they answer each other.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::QuorumTask;
use crate::client::{Client, ClientError};
use crate::wire::ErrorCode;
use crate::wire::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, RequestPartition, RequestTopic,
};
use crate::wire::quorum_change::{NewVoter, QuorumChangeRequest};

/// How long a coordinator may take to be reached, and to describe itself.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long a change may take: a new voter is given the whole log first.
const CHANGE_MAX: Duration = Duration::from_secs(90);
/// How often the leader may be somebody else when it is asked.
const LEADERS_MAX: usize = 10;
/// Pause before the next try.
const PAUSE: Duration = Duration::from_millis(200);

/// Why nothing was shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum QuorumToolError {
    /// None of the coordinators answers.
    #[error("no coordinator answers: {0}")]
    Unreached(String),
    /// Nobody leads.
    #[error("no coordinator leads at present")]
    Leaderless,
    /// One that was to vote does not answer.
    #[error("{endpoint}: {error}")]
    Newcomer {
        /// Where it was looked for.
        endpoint: String,
        /// What went wrong.
        error: ClientError,
    },
    /// It was refused, with the reason.
    #[error("{0}")]
    Refused(String),
    /// The leader was asked and did not answer: it may have been done.
    #[error("the leading coordinator did not answer ({0}): look at the status")]
    Unknown(ClientError),
}

/// One coordinator's view of the quorum.
#[derive(Debug, Default)]
struct View {
    /// Who says so.
    endpoint: String,
    leader: i32,
    term: i32,
    committed: i64,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    id: i32,
    directory: [u8; 16],
    votes: bool,
    end: i64,
    heard: i64,
    endpoint: Option<String>,
}

/// Carries a task out; answers what is to be printed.
pub fn run(voters: &[String], task: &QuorumTask) -> Result<String, QuorumToolError> {
    match task {
        QuorumTask::Status => Ok(show(&leaders_view(voters)?)),
        QuorumTask::Change { add, remove } => {
            change(voters, add, remove)?;
            Ok(show(&leaders_view(voters)?))
        }
    }
}

/// How the leader sees it; or, if nobody leads, how the first that answers does.
fn leaders_view(voters: &[String]) -> Result<View, QuorumToolError> {
    let mut seen: Option<View> = None;
    let mut failed = String::new();
    let mut asked: Vec<String> = Vec::new();
    let mut next: Vec<String> = voters.iter().rev().cloned().collect();
    while let Some(endpoint) = next.pop() {
        if asked.contains(&endpoint) {
            continue;
        }
        asked.push(endpoint.clone());
        match view(&endpoint) {
            Ok(view) => {
                let leads = |member: &&Member| member.id == view.leader && member.votes;
                let leader = view.members.iter().find(leads);
                // Only the leader knows how far others are. One that has lost its vote may not
                // have heard yet who leads now.
                if leader.is_some_and(|leader| leader.heard >= 0) {
                    return Ok(view);
                }
                let endpoints = view.members.iter().rev().map(|member| member.endpoint.clone());
                next.splice(0..0, endpoints.flatten());
                next.extend(leader.and_then(|leader| leader.endpoint.clone()));
                seen = seen.or(Some(view));
            }
            Err(error) => _ = write!(failed, "{endpoint}: {error}; "),
        }
    }
    seen.ok_or(QuorumToolError::Unreached(failed))
}

fn view(endpoint: &str) -> Result<View, ClientError> {
    let mut client = Client::connect(endpoint, "ringbolt-quorum", ANSWER_MAX)?;
    let partitions = [RequestPartition { partition_index: 0 }];
    let topics =
        [RequestTopic { topic_name: "__cluster_metadata", partitions: (&partitions).into() }];
    let request = DescribeQuorumRequest { topics: (&topics).into() };
    Ok(read(endpoint, &client.call_in(&request, 2)?))
}

fn read(endpoint: &str, response: &DescribeQuorumResponse<'_>) -> View {
    let listener = |id: i32| {
        let node = response.nodes.iter().find(|node| node.node_id == id)?;
        let at = node.listeners.first()?;
        Some(match at.host.contains(':') {
            true => format!("[{}]:{}", at.host, at.port),
            false => format!("{}:{}", at.host, at.port),
        })
    };
    let mut view = View { endpoint: endpoint.to_owned(), leader: -1, ..View::default() };
    // There is one topic with one partition.
    let topic = response.topics.first();
    for partition in topic.iter().flat_map(|topic| topic.partitions.iter()) {
        (view.leader, view.term) = (partition.leader_id, partition.leader_epoch);
        view.committed = partition.high_watermark;
        let voters = partition.current_voters.iter().map(|state| (true, state));
        let others = partition.observers.iter().map(|state| (false, state));
        view.members.extend(voters.chain(others).map(|(votes, state)| Member {
            id: state.replica_id,
            directory: state.replica_directory_id,
            votes,
            end: state.log_end_offset,
            heard: state.last_fetch_timestamp,
            endpoint: listener(state.replica_id),
        }));
    }
    view
}

fn change(voters: &[String], add: &[String], remove: &[i32]) -> Result<(), QuorumToolError> {
    let mut newcomers = Vec::with_capacity(add.len());
    for endpoint in add {
        let failed = |error| QuorumToolError::Newcomer { endpoint: endpoint.clone(), error };
        let view = view(endpoint).map_err(failed)?;
        // One that waits to be let in names itself and nobody else.
        let [member] = &view.members[..] else {
            let why = format!("{endpoint} belongs to a quorum already");
            return Err(QuorumToolError::Refused(why));
        };
        newcomers.push((member.id, endpoint.as_str(), member.directory));
    }
    let add: Vec<NewVoter<'_>> = newcomers
        .iter()
        .map(|&(node_id, endpoint, directory)| NewVoter { node_id, endpoint, directory })
        .collect();
    let request = QuorumChangeRequest { add: (&add[..]).into(), remove: remove.into() };
    for _ in 0..LEADERS_MAX {
        let view = leaders_view(voters)?;
        let leader = view.members.iter().find(|member| member.id == view.leader);
        let Some(endpoint) = leader.and_then(|leader| leader.endpoint.clone()) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let mut client = Client::connect(&endpoint, "ringbolt-quorum", ANSWER_MAX)
            .map_err(|error| QuorumToolError::Unreached(format!("{endpoint}: {error}")))?;
        let patient = client.set_timeout(Some(CHANGE_MAX)).map_err(ClientError::from);
        patient.map_err(QuorumToolError::Unknown)?;
        let answer = client.call_in(&request, 0).map_err(QuorumToolError::Unknown)?;
        match answer.error_code {
            ErrorCode::None => return Ok(()),
            ErrorCode::NotController => std::thread::sleep(PAUSE),
            code => {
                let why = answer.error_message.map(|why| why.into_owned());
                return Err(QuorumToolError::Refused(why.unwrap_or_else(|| code.to_string())));
            }
        }
    }
    Err(QuorumToolError::Leaderless)
}

/// A table of the members.
fn show(view: &View) -> String {
    let leader = match view.leader {
        -1 => "nobody leads".to_owned(),
        id => format!("node {id} leads"),
    };
    let mut text = format!(
        "{leader} in term {}, committed to {}, as {} sees it\n\n{:>6}  {:<24} {:<8} {:>12} {:>8}  heard of\n",
        view.term,
        view.committed,
        view.endpoint,
        "node",
        "answers coordinators at",
        "role",
        "log end",
        "lag"
    );
    let newest = view.members.iter().map(|member| member.heard).max().unwrap_or(-1);
    let end = view.members.iter().map(|member| member.end).max().unwrap_or(-1);
    for member in &view.members {
        let role = match (member.votes, member.id == view.leader) {
            (_, true) => "leader",
            (true, _) => "voter",
            (false, _) => "learner",
        };
        let known = |number: i64| if number < 0 { "?".to_owned() } else { number.to_string() };
        let lag = if member.end < 0 { -1 } else { end - member.end };
        let heard = match member.heard {
            -1 => "?".to_owned(),
            at => format!("{:.1} s ago", (newest - at) as f64 / 1_000.0),
        };
        let endpoint = member.endpoint.as_deref().unwrap_or("?");
        _ = writeln!(
            text,
            "{:>6}  {endpoint:<24} {role:<8} {:>12} {:>8}  {heard}",
            member.id,
            known(member.end),
            known(lag),
        );
    }
    text.trim_end().to_owned()
}
