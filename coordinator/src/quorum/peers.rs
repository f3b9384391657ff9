//! Who the other coordinators are: whether somebody who says an id is the one who had it before.
//!
//! A voter is its id *and* its directory. Directories stand in the membership, which is replicated.
//! At the very beginning they are not known yet; each node then keeps the first one that it meets
//! under an id, and the leader writes those into the membership before anything else is decided,
//! and gives no voter decisions whose directory does not stand there. So a voter that comes back
//! with an empty directory finds nobody who takes its word. (Only a voter that has heard of nobody
//! since the quorum began cannot know better; it has nothing to lose either.)

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use engine::env::Env;
use engine::ids::BrokerId;

use super::facts::Facts;
use super::log::Entries;
use super::memory::State;
use super::types::{Directory, Membership, Voter};
use super::wire::{AskBodyV1, AskV1, Refusal, RefusalV1, ReplyBodyV1, ReplyV1};

/// Most peers that are remembered by what they said of themselves.
const PEERS_MAX: usize = 16;

/// The other coordinators, as this one knows them. Cloning shares it.
pub(super) struct Peers<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Peers<E> {
    fn clone(&self) -> Self {
        Peers(self.0.clone())
    }
}

struct Inner<E: Env> {
    me: BrokerId,
    facts: Facts<E>,
    log: Entries<E>,
    state: Rc<State>,
    /// Peers that cannot be worked with, and why.
    trouble: RefCell<BTreeMap<BrokerId, Refusal>>,
}

impl<E: Env> Peers<E> {
    pub fn new(me: BrokerId, facts: &Facts<E>, log: &Entries<E>, state: &Rc<State>) -> Peers<E> {
        let (facts, log, state) = (facts.clone(), log.clone(), state.clone());
        Peers(Rc::new(Inner { me, facts, log, state, trouble: RefCell::default() }))
    }

    /// The newest membership that this node has heard of, committed or not.
    pub fn newest(&self) -> Membership {
        let committed = self.0.state.membership();
        let from = committed.log_id().map_or(0, |id| id.index + 1);
        self.0.log.membership(from).unwrap_or_else(|| committed.membership().clone())
    }

    /// The directory that a node must have, where that is known.
    pub fn directory(&self, id: BrokerId) -> Option<Directory> {
        let known = self.newest().get_node(&id).and_then(|voter| voter.directory);
        known.or_else(|| self.0.facts.peer(id))
    }

    /// Whether a node's directory stands in the membership.
    pub fn is_introduced(&self, id: BrokerId) -> bool {
        let membership = self.newest();
        membership.get_node(&id).is_some_and(|voter| voter.directory.is_some())
    }

    /// Whether a majority of the voters is introduced.
    pub fn is_majority_introduced(&self) -> bool {
        let membership = self.newest();
        membership.get_joint_config().iter().all(|voters| {
            let introduced = |id: &&BrokerId| {
                membership.get_node(id).is_some_and(|voter| voter.directory.is_some())
            };
            voters.iter().filter(introduced).count() * 2 > voters.len()
        })
    }

    /// Voters whose directory is known here and does not stand in the membership.
    pub fn to_introduce(&self) -> BTreeMap<BrokerId, Voter> {
        let membership = self.newest();
        let unknown = membership.nodes().filter(|(_, voter)| voter.directory.is_none());
        let met = unknown.filter_map(|(id, voter)| {
            let directory = match *id == self.0.me {
                true => Some(self.0.facts.directory()),
                false => self.0.facts.peer(*id),
            };
            let endpoint = voter.endpoint.clone();
            Some((*id, Voter { directory: Some(directory?), endpoint }))
        });
        met.collect()
    }

    /// Who cannot be worked with, and why.
    pub fn trouble(&self) -> BTreeMap<BrokerId, Refusal> {
        self.0.trouble.borrow().clone()
    }

    /// A question with this node's name on it.
    pub fn ask(&self, to: BrokerId, body: AskBodyV1) -> AskV1 {
        let facts = &self.0.facts;
        AskV1 {
            cluster: facts.cluster(),
            from: self.0.me.0,
            from_directory: facts.directory().0,
            to: to.0,
            to_directory: self.directory(to).map(|directory| directory.0),
            body,
        }
    }

    /// An answer with this node's name on it.
    pub fn reply(&self, body: ReplyBodyV1) -> ReplyV1 {
        ReplyV1 { from: self.0.me.0, directory: self.0.facts.directory().0, body }
    }

    /// Whether a question is for this node and from whom it says; the first time, that is believed
    /// and kept.
    pub async fn admit(&self, ask: &AskV1) -> io::Result<Result<(), RefusalV1>> {
        let facts = &self.0.facts;
        if let (Some(mine), Some(theirs)) = (facts.cluster(), &ask.cluster)
            && mine != *theirs
        {
            return Ok(Err(RefusalV1::OtherCluster(mine)));
        }
        if ask.to != self.0.me.0 || ask.from == self.0.me.0 {
            return Ok(Err(RefusalV1::OtherNode(self.0.me.0)));
        }
        let mine = facts.directory().0;
        if ask.to_directory.is_some_and(|meant| meant != mine) {
            return Ok(Err(RefusalV1::OtherDirectory(mine)));
        }
        self.meet(BrokerId(ask.from), Directory(ask.from_directory)).await
    }

    /// Whether an answer is from whom was asked.
    pub async fn check(&self, asked: BrokerId, reply: &ReplyV1) -> io::Result<Result<(), Refusal>> {
        if reply.from != asked.0 {
            return Ok(Err(self.note(asked, Refusal::OtherNode(BrokerId(reply.from)))));
        }
        let directory = Directory(reply.directory);
        if let Err(RefusalV1::Stranger(_)) = self.meet(asked, directory).await? {
            return Ok(Err(self.note(asked, Refusal::OtherDirectory(directory))));
        }
        if let ReplyBodyV1::Refused(refusal) = &reply.body {
            return Ok(Err(self.note(asked, refusal.clone().into())));
        }
        self.0.trouble.borrow_mut().remove(&asked);
        Ok(Ok(()))
    }

    async fn meet(&self, id: BrokerId, directory: Directory) -> io::Result<Result<(), RefusalV1>> {
        match self.directory(id) {
            Some(known) if known == directory => Ok(Ok(())),
            Some(known) => Ok(Err(RefusalV1::Stranger(known.0))),
            None => {
                let membership = self.newest();
                let begun = membership.nodes().next().is_some();
                let member = membership.get_node(&id).is_some();
                if member || !begun && self.0.facts.peers() < PEERS_MAX {
                    self.0.facts.save_peer(id, Some(directory)).await?;
                }
                Ok(Ok(()))
            }
        }
    }

    /// Remembers why a peer cannot be worked with, and says so once.
    fn note(&self, peer: BrokerId, refusal: Refusal) -> Refusal {
        let before = self.0.trouble.borrow_mut().insert(peer, refusal.clone());
        if before.as_ref() != Some(&refusal) {
            tracing::warn!(%peer, %refusal, "a coordinator does not work with this one");
        }
        refusal
    }
}
