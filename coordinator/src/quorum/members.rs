//! Who belongs to the quorum: introductions, changes of the voters, handing over the lead.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::env::Env;
use engine::ids::BrokerId;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};

use super::memory::Memory;
use super::types::{Types, Voter};
use super::{ProposeError, Quorum, wrong_number};

/// How often the progress of a new voter is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a new voter may take to catch up before it is given up.
const CATCH_UP: Duration = Duration::from_secs(60);
/// A new voter has caught up when it lacks no more entries than this.
const LAG_MAX: u64 = 16;

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another leads, or the quorum has ended here.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// A number of voters that nobody should run.
    #[error("{count} voters: {why}")]
    Voters {
        /// How many there would be.
        count: usize,
        /// What is wrong with that.
        why: &'static str,
    },
    /// It votes already.
    #[error("node {0} is a voter already")]
    Member(BrokerId),
    /// It is no voter.
    #[error("node {0} is not a voter")]
    NotMember(BrokerId),
    /// Its directory must be said: a voter is its id and its directory.
    #[error("the directory of node {0} is not known")]
    NoDirectory(BrokerId),
    /// Not every voter has been heard of since the quorum began.
    #[error("voter {0} has not been heard of yet")]
    NotIntroduced(BrokerId),
    /// A new voter does not catch up; it was taken out again.
    #[error("node {0} did not catch up in time")]
    Slow(BrokerId),
    /// Another change is under way.
    #[error("not now: {0}")]
    Busy(String),
}

type Answer<T> = Result<T, RaftError<Types, ClientWriteError<Types>>>;

impl<E: Env, S: Memory> Quorum<E, S> {
    /// Changes the voters in one step: `add` are given the log first, then `remove` go as they
    /// come. Both sets must agree while it happens (joint consensus).
    ///
    /// A node in both lost its directory and comes back with another: it goes first, because what
    /// it had acknowledged is gone. Until it has caught up there is one voter less.
    pub async fn change_voters(
        &self,
        add: &[(BrokerId, Voter)],
        remove: &[BrokerId],
    ) -> Result<(), ChangeError> {
        if self.leading()?.is_none() {
            return Err(ProposeError::NotLeader { leader: self.leader() }.into());
        }
        self.check_change(add, remove)?;
        let back = |id: &BrokerId| add.iter().any(|(added, _)| added == id);
        let (first, remove): (Vec<BrokerId>, Vec<BrokerId>) =
            remove.iter().copied().partition(back);
        if !first.is_empty() {
            let _turn = self.turn().await;
            let out = ChangeMembers::RemoveVoters(first.into_iter().collect());
            let out = self.0.raft.change_membership(out, false);
            self.settle(self.0.world.within(out).await)?;
        }
        for (id, voter) in add {
            let _turn = self.turn().await;
            let learn = self.0.raft.add_learner(*id, voter.clone(), false);
            self.settle(self.0.world.within(learn).await)?;
        }
        for (id, _) in add {
            if !self.has_caught_up(*id).await {
                let learners = add.iter().map(|(id, _)| *id).collect();
                let _turn = self.turn().await;
                let out = ChangeMembers::RemoveNodes(learners);
                let out = self.0.raft.change_membership(out, false);
                self.settle(self.0.world.within(out).await)?;
                return Err(ChangeError::Slow(*id));
            }
        }
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(add.iter().map(|(id, _)| *id).collect()),
            ChangeMembers::RemoveVoters(remove.into_iter().collect()),
        ]);
        let _turn = self.turn().await;
        let changed = self.0.raft.change_membership(change, false);
        self.settle(self.0.world.within(changed).await)
    }

    /// Adds one voter. Refused where that leaves an even number, with the reason: see
    /// [`Quorum::change_voters`] for two at once and for a replacement.
    pub async fn add_voter(&self, id: BrokerId, voter: Voter) -> Result<(), ChangeError> {
        self.change_voters(&[(id, voter)], &[]).await
    }

    /// Removes one voter, under the same rule.
    pub async fn remove_voter(&self, id: BrokerId) -> Result<(), ChangeError> {
        self.change_voters(&[], &[id]).await
    }

    /// Hands the lead to another voter; ready when this node does not lead any more.
    pub async fn transfer(&self, to: BrokerId) -> Result<(), ChangeError> {
        let Some(term) = self.leading()? else {
            return Err(ProposeError::NotLeader { leader: self.leader() }.into());
        };
        let voters = self.status().voters;
        if !voters.iter().any(|voter| voter.id == to) {
            return Err(ChangeError::NotMember(to));
        }
        if to == self.0.options.me {
            return Ok(());
        }
        // What is on its way here is committed first; the other one must have it.
        let turn = self.turn().await;
        let transfer = async { self.0.raft.trigger().transfer_leader(to).await };
        let transfer = self.0.world.within(transfer).await;
        drop(turn);
        transfer.map_err(|fatal| ProposeError::Ended(fatal.to_string()))?;
        let patience = self.0.env.now().after(self.0.options.election_timeout * 4);
        while self.0.raft.metrics().borrow_watched().current_term == term {
            if self.0.env.now() >= patience {
                return Err(ChangeError::Slow(to));
            }
            self.0.env.sleep_until(self.0.env.now().after(LOOK)).await;
        }
        Ok(())
    }

    /// Whether directories became known that do not stand in the membership yet.
    pub fn has_to_introduce(&self) -> bool {
        !self.0.peers.to_introduce().is_empty()
    }

    /// Writes directories that became known into the membership, if this node leads; whether it
    /// did. To be called with the turn.
    pub async fn introduce(&self) -> Result<bool, ProposeError> {
        if self.leading_unintroduced()?.is_none() {
            return Ok(false);
        }
        let met = self.0.peers.to_introduce();
        if met.is_empty() {
            return Ok(false);
        }
        let introduced = self.0.raft.change_membership(ChangeMembers::SetNodes(met), true);
        match self.settle(self.0.world.within(introduced).await) {
            Ok(()) => Ok(true),
            Err(ChangeError::Propose(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn check_change(
        &self,
        add: &[(BrokerId, Voter)],
        remove: &[BrokerId],
    ) -> Result<(), ChangeError> {
        let status = self.status();
        let mut voters: BTreeSet<BrokerId> = status.voters.iter().map(|voter| voter.id).collect();
        for voter in &status.voters {
            if voter.directory.is_none() {
                return Err(ChangeError::NotIntroduced(voter.id));
            }
        }
        for id in remove {
            if !voters.remove(id) {
                return Err(ChangeError::NotMember(*id));
            }
        }
        for (id, voter) in add {
            if voter.directory.is_none() {
                return Err(ChangeError::NoDirectory(*id));
            }
            if !voters.insert(*id) {
                return Err(ChangeError::Member(*id));
            }
        }
        match wrong_number(voters.len()) {
            Some(why) => Err(ChangeError::Voters { count: voters.len(), why }),
            None => Ok(()),
        }
    }

    /// Waits until a learner has what the leader has, nearly.
    async fn has_caught_up(&self, id: BrokerId) -> bool {
        let patience = self.0.env.now().after(CATCH_UP);
        loop {
            let matched = {
                let metrics = self.0.raft.metrics();
                let metrics = metrics.borrow_watched();
                metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten())
            };
            let end = matched.map_or(0, |matched| matched.index + 1);
            if end > 0 && end + LAG_MAX >= self.0.log.end() {
                return true;
            }
            if self.0.env.now() >= patience || !matches!(self.leading(), Ok(Some(_))) {
                return false;
            }
            self.0.env.sleep_until(self.0.env.now().after(LOOK)).await;
        }
    }

    fn settle<T>(&self, answer: Answer<T>) -> Result<(), ChangeError> {
        match answer {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                Err(ChangeError::Busy(error.to_string()))
            }
            Err(RaftError::APIError(_)) => {
                Err(ProposeError::NotLeader { leader: self.leader() }.into())
            }
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Ended(fatal.to_string()).into()),
        }
    }
}
