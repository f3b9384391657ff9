//! A node's copy of what the cluster agrees on: the controller on the quorum's log, and the newest
//! committed image for everyone to look at.
//!
//! ```text
//! request ─► control: decide ─► one entry ─► quorum: committed ─► published: apply ─► image
//!                 └──────────────────────────── reply ◄──────────────────┘
//! ```
//! A node that votes is one of the quorum ([`Metadata::open`]); on the one that leads the
//! controller is active. The files are the quorum's, see [`crate::quorum`].

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use engine::env::Env;
use engine::ids::{BrokerId, Offset};
use engine::log::Shared;
use engine::wait::Closed;

use crate::config::Config;
use crate::controller::{Reply, Request};
use crate::image::Image;
use crate::quorum::outbox::Outbox;
use crate::quorum::since::Since;
use crate::quorum::types::Voter;
use crate::quorum::{ChangeError, OpenError, Options, ProposeError, Quorum, Status};
use crate::runtime::{Answer, RequestError};
use control::Control;
use published::Published;

pub use crate::quorum::Opened;

mod control;
mod published;

/// What the cluster agrees on, as this node knows it. Cloning shares it; it lives on one shard.
pub struct Metadata<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Metadata<E> {
    fn clone(&self) -> Self {
        Metadata(self.0.clone())
    }
}

struct Inner<E: Env> {
    quorum: Quorum<E, Published>,
    control: Control<E>,
    published: Rc<Published>,
}

/// Why the metadata cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The quorum cannot be opened.
    #[error("metadata quorum: {0}")]
    Quorum(#[from] OpenError),
    /// It ended while it was being opened.
    #[error("metadata quorum: {0}")]
    Ended(#[from] ProposeError),
}

impl<E: Env> Metadata<E> {
    /// Opens the metadata of a node that is the whole quorum, or begins an empty one in `dir`;
    /// `me` runs the controller when this returns.
    pub async fn open(
        env: &E,
        dir: &Path,
        me: BrokerId,
        config: Config,
        _shared: &Shared,
    ) -> Result<(Metadata<E>, Opened), MetadataError> {
        let snapshot_bytes = config.snapshot_bytes;
        let options = Options { snapshot_bytes, ..Options::alone(me) };
        Metadata::join(env, dir, options, config).await
    }

    /// Opens the metadata of one voter of a quorum. Where it is the only one, its controller is
    /// active when this returns; otherwise the others must be reachable ([`Metadata::outbox`],
    /// [`Metadata::receive`]) before anybody's is.
    pub async fn join(
        env: &E,
        dir: &Path,
        options: Options,
        config: Config,
    ) -> Result<(Metadata<E>, Opened), MetadataError> {
        let alone = match &options.voters[..] {
            [(only, _)] if *only == options.me => Some(options.me),
            _ => None,
        };
        let published = Rc::new(Published::new(alone));
        let (quorum, opened) = Quorum::open(env, dir, options, &published).await?;
        let control = Control::begin(env, &quorum, &published, config);
        if quorum.is_alone() {
            let mut changes = quorum.changes();
            while quorum.leading()?.is_none() {
                quorum.changed(&mut changes).await;
            }
        }
        Ok((Metadata(Rc::new(Inner { quorum, control, published })), opened))
    }

    /// Asks the controller. The answer's offset tells which image shows what it did.
    pub async fn request(&self, request: Request) -> Result<Answer<Reply>, RequestError> {
        self.0.control.request(request).await
    }

    /// The newest committed image.
    pub fn image(&self) -> Arc<Image> {
        self.0.published.image()
    }

    /// Waits for a committed image that is newer than `seen`; may skip some.
    pub async fn newer_than(&self, seen: Offset) -> Result<Arc<Image>, Closed> {
        self.at_least(seen.plus(1)).await
    }

    /// Waits for a committed image that has reached `offset`.
    pub async fn at_least(&self, offset: Offset) -> Result<Arc<Image>, Closed> {
        self.0.published.reach(offset).await?;
        Ok(self.image())
    }

    /// The node whose controller is active, as far as this one knows.
    pub fn controller(&self) -> Option<BrokerId> {
        self.0.quorum.leader()
    }

    /// The answer to another coordinator's message; never fails, refusals are answers.
    pub async fn receive(&self, message: &[u8]) -> Vec<u8> {
        self.0.quorum.receive(message).await
    }

    /// Messages to the other coordinators, for whoever delivers them.
    pub fn outbox(&self) -> Outbox {
        self.0.quorum.outbox()
    }

    /// What is committed from `offset` on, for brokers that hold no vote: see
    /// [`crate::observer::Observer`]. Empty when nothing is; [`Metadata::newer_than`] waits.
    pub async fn committed_since(
        &self,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Since, ProposeError> {
        self.0.quorum.committed_since(offset, max_bytes).await
    }

    /// The quorum as this node sees it.
    pub fn status(&self) -> Status {
        self.0.quorum.status()
    }

    /// Changes the voters in one step; on the leader only. An even number is refused.
    pub async fn change_voters(
        &self,
        add: &[(BrokerId, Voter)],
        remove: &[BrokerId],
    ) -> Result<(), ChangeError> {
        self.0.quorum.change_voters(add, remove).await
    }

    /// Adds one voter, under the same rule.
    pub async fn add_voter(&self, id: BrokerId, voter: Voter) -> Result<(), ChangeError> {
        self.0.quorum.add_voter(id, voter).await
    }

    /// Removes one voter, under the same rule.
    pub async fn remove_voter(&self, id: BrokerId) -> Result<(), ChangeError> {
        self.0.quorum.remove_voter(id).await
    }

    /// Hands the active controller to another voter; on the leader only.
    pub async fn transfer(&self, to: BrokerId) -> Result<(), ChangeError> {
        self.0.quorum.transfer(to).await
    }

    /// Waits until the quorum ends on this node though nobody closed it, and tells why: the device
    /// failed, or was full when something had to be written. Nothing but another start helps.
    pub async fn failure(&self) -> String {
        self.0.published.failure().await
    }

    /// Ends it in good order: requests that wait are told, what was appended is synced.
    pub async fn close(&self) -> std::io::Result<()> {
        self.0.control.stop();
        self.0.published.close();
        self.0.quorum.close().await
    }
}

/// The directory of the metadata below a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}
