//! What an operator asks a quorum: who leads, who votes, how far each has come.

use std::time::Duration;

use engine::env::Env;
use engine::ids::{BrokerId, Offset};
use openraft::async_runtime::WatchReceiver;

use super::memory::Memory;
use super::types::Directory;
use super::{Quorum, Refusal};

/// A quorum as one coordinator sees it; Kafka's DescribeQuorum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The coordinator that says so.
    pub me: BrokerId,
    /// Its directory.
    pub directory: Directory,
    /// The cluster's name, where it has one.
    pub cluster: Option<String>,
    /// Who leads, where known.
    pub leader: Option<BrokerId>,
    /// The term that it is in.
    pub term: u64,
    /// The voters, by id.
    pub voters: Vec<Progress>,
    /// Who is given the log without having a vote: on their way to becoming voters.
    pub learners: Vec<Progress>,
    /// Exclusive end of its log.
    pub end: Offset,
    /// Exclusive end of what it knows to be committed.
    pub high_watermark: Offset,
}

/// How far one member has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Its id.
    pub id: BrokerId,
    /// Its directory; `None`: not heard of yet.
    pub directory: Option<Directory>,
    /// Where it listens.
    pub endpoint: String,
    /// Exclusive end of what it has durably, as far as the leader knows; only the leader knows.
    pub end: Option<Offset>,
    /// How long ago the leader heard of it; only the leader knows.
    pub heard: Option<Duration>,
    /// Why this coordinator cannot work with it.
    pub trouble: Option<Refusal>,
}

impl<E: Env, S: Memory> Quorum<E, S> {
    /// What is known here and now.
    pub fn status(&self) -> Status {
        let inner = &self.0;
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (me, now) = (inner.options.me, inner.env.now());
        let trouble = inner.peers.trouble();
        let membership = metrics.membership_config.membership();
        let leads = metrics.replication.is_some();
        let progress = |id: BrokerId| {
            let voter = membership.get_node(&id);
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied());
            let end = matched.flatten().map(|matched| Offset::new(matched.index + 1));
            let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&id).copied().flatten());
            Progress {
                id,
                directory: voter.and_then(|voter| voter.directory),
                endpoint: voter.map(|voter| voter.endpoint.clone()).unwrap_or_default(),
                end: if leads && id == me { Some(Offset::new(inner.log.end())) } else { end },
                heard: heard.map(|heard| now.since(heard.into_inner().0)),
                trouble: trouble.get(&id).cloned(),
            }
        };
        let committed = metrics.cluster_committed.max(metrics.local_committed);
        let high_watermark = committed.map_or(0, |last| last.index + 1);
        Status {
            me,
            directory: inner.facts.directory(),
            cluster: inner.facts.cluster(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().map(progress).collect(),
            learners: membership.learner_ids().map(progress).collect(),
            end: Offset::new(inner.log.end()),
            high_watermark: Offset::new(high_watermark.max(inner.state.applied.value())),
        }
    }
}
