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

    /// Ends it in good order: requests that wait are told, what was appended is synced.
    pub async fn close(&self) -> std::io::Result<()> {
<<<<<<< HEAD
        self.0.control.stop();
        self.0.published.close();
        self.0.quorum.close().await
=======
        self.0.runtime.stop();
        self.0.published.work.close();
        self.0.gate.close().await;
        self.0.published.offset.close();
        self.0.journal.close().await
    }
}

async fn open_journal<E: Env>(
    env: &E,
    dir: &Path,
    me: BrokerId,
    shared: &Shared,
) -> Result<(Journal<E>, bool), OpenError> {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        segment_ms: u64::MAX,
        retention_ms: None,
        retention_bytes: None,
        flush_messages: 1,
        message_bytes_max: BATCH_BYTES_MAX,
        ..LogConfig::default()
    };
    let (log, recovered) = Log::open(env, dir, METADATA_LOG, Rc::new(config), shared).await?;
    // A killed process may have made files whose names are not durable yet; the log found them and
    // builds on them.
    env.sync_dir(dir).await?;
    if let Some((segment, position)) = recovered.cut {
        tracing::info!(%segment, position, "cut a torn end of the metadata log");
    }
    // Terms come with the quorum; a single controller has one.
    let partition = Partition::lead(env, log, me, LeaderEpoch(0), &[me]);
    Ok((Journal::new(partition), recovered.created))
}

impl Published {
    fn new(controller: BrokerId) -> Published {
        Published {
            controller,
            pending: RefCell::default(),
            work: Watch::new(0),
            newest: RefCell::new(Arc::new(Image::empty())),
            offset: Watch::new(0),
        }
    }

    /// The machine's state has changed; what it is now may be published when it is committed.
    fn saw(&self, seeing: Seeing<'_, Controller>) {
        let mut pending = self.pending.borrow_mut();
        if seeing.replayed {
            pending.clear();
        }
        let image = Image::new(seeing.hard.clone(), seeing.end, Some(self.controller));
        pending.push_back((image, seeing.commit));
        drop(pending);
        self.work.raise(self.work.value() + 1);
    }

    /// Publishes the newest pending image that is committed.
    fn publish_committed(&self) {
        let mut pending = self.pending.borrow_mut();
        let mut newest = None;
        while let Some((image, commit)) = pending.front()
            && commit.is_reached(image.offset())
        {
            newest = pending.pop_front();
        }
        drop(pending);
        let Some((image, _)) = newest else { return };
        assert!(image.offset() >= self.newest.borrow().offset(), "images do not go back");
        let offset = image.offset().value();
        *self.newest.borrow_mut() = Arc::new(image);
        self.offset.raise(offset);
    }

    /// Waits until a pending image is committed, or until there is another to wait for.
    async fn wait(&self) -> Result<(), Closed> {
        let seen = self.work.value();
        let first = {
            let pending = self.pending.borrow();
            pending.front().map(|(image, commit)| (commit.clone(), image.offset()))
        };
        if let Some((commit, end)) = first
            && commit.reach(end).await.is_ok()
        {
            return Ok(());
        }
        // Nothing to wait for, or what there was will never be: the next replay says what is.
        self.work.reach(seen + 1).await
    }
}

/// Publishes images as they are committed, and takes a snapshot when the log has grown enough.
async fn publish<E: Env>(inner: Rc<Inner<E>>) {
    while inner.published.wait().await.is_ok() && !inner.published.work.is_closed() {
        inner.published.publish_committed();
        if inner.snapshot_due()
            && let Some(pass) = inner.gate.enter()
        {
            let writing = inner.clone();
            inner.env.spawn(Queue::Background, async move {
                writing.snapshot().await;
                drop(pass);
            });
        }
    }
}

impl<E: Env> Inner<E> {
    /// Whether enough was appended since the last snapshot, and none is being written.
    fn snapshot_due(&self) -> bool {
        let appended = self.journal.appended_bytes();
        let new = appended - self.counted.replace(appended);
        self.since_snapshot.set(self.since_snapshot.get() + new);
        self.since_snapshot.get() >= self.snapshot_bytes && self.gate.inside() == 0
    }

    /// Writes a snapshot of the newest image, then lets go of what two snapshots cover.
    async fn snapshot(&self) {
        let image = self.published.newest.borrow().clone();
        self.since_snapshot.set(0);
        match self.store.save(image.cluster(), image.offset()).await {
            Ok(covered) => {
                self.runtime.rebase(image.cluster().clone(), image.offset());
                if let Err(error) = self.journal.forget_before(covered).await {
                    tracing::warn!(%error, "metadata records that a snapshot covers stay");
                }
                tracing::info!(offset = %image.offset(), "took a snapshot of the metadata");
            }
            // The log holds everything; the next attempt is as far away as the next snapshot.
            Err(error) => tracing::warn!(%error, "no snapshot of the metadata was taken"),
        }
>>>>>>> main
    }
}

/// The directory of the metadata below a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}
