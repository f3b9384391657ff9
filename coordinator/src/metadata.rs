//! A node's copy of what the cluster agrees on: the controller on its log, snapshots that keep the
//! log short, and the newest committed image for everyone to look at.
//!
//! ```text
//! DIR/log/…                            the metadata log
//! DIR/snapshot.00000000000000001234    everything below offset 1234; the two newest are kept
//! ```
//! The log is kept from the older of the two snapshots on, so that one of them may be lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use engine::config::LogConfig;
use engine::env::{Env, Queue};
use engine::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Log, OpenError, Shared};
use engine::wait::{Closed, Gate, Watch};
use replication::partition::{Commit, Partition};

use crate::config::{BATCH_BYTES_MAX, Config};
use crate::controller::{Controller, Reply, Request};
use crate::image::Image;
use crate::journal::{Journal, ReplayError};
use crate::records::DecodeError;
use crate::runtime::{Answer, RequestError, Runtime, Seeing};
use store::{Store, StoreError};

mod store;

/// The identity of the metadata log, as in Kafka (`Uuid.METADATA_TOPIC_ID`).
const METADATA_LOG: TopicPartition = TopicPartition {
    topic: TopicId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    partition: PartitionIndex(0),
};

/// Segments of the metadata log, in bytes: small, because whole ones are let go of.
const SEGMENT_BYTES: u64 = 8 << 20;

/// What the cluster agrees on, as this node knows it. Cloning shares it; it lives on one shard.
pub struct Metadata<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Metadata<E> {
    fn clone(&self) -> Self {
        Metadata(self.0.clone())
    }
}

struct Inner<E: Env> {
    env: E,
    journal: Journal<E>,
    runtime: Runtime<E, Controller>,
    store: Store<E>,
    snapshot_bytes: u64,
    published: Rc<Published>,
    /// Bytes appended or replayed since the newest snapshot, as of `counted` appended bytes.
    since_snapshot: Cell<u64>,
    counted: Cell<u64>,
    /// A shutdown waits for a snapshot that is being written.
    gate: Gate,
}

/// Images on their way to being committed, and the newest that is.
struct Published {
    controller: BrokerId,
    pending: RefCell<VecDeque<(Image, Commit)>>,
    /// Rises with each change of `pending`; closed when this ends.
    work: Watch,
    newest: RefCell<Arc<Image>>,
    /// The newest image's offset.
    offset: Watch,
}

/// Why the metadata cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A directory or file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be opened.
    #[error("metadata log: {0}")]
    Log(#[from] OpenError),
    /// The log does not say what a metadata log says.
    #[error("metadata log: {0}")]
    Replay(#[from] ReplayError<DecodeError>),
}

/// How a start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The offset of the snapshot that it began with; `ZERO` without one.
    pub snapshot: Offset,
    /// Bytes of log that were replayed on top.
    pub replayed_bytes: u64,
    /// Nothing was there: this is a new cluster.
    pub created: bool,
}

impl<E: Env> Metadata<E> {
    /// Opens the metadata in `dir`, or begins an empty one there. `me` runs the controller.
    pub async fn open(
        env: &E,
        dir: &Path,
        me: BrokerId,
        config: Config,
        shared: &Shared,
    ) -> Result<(Metadata<E>, Opened), MetadataError> {
        let store = Store::new(env, dir);
        let (cluster, offset) = store.load().await?.unwrap_or_default();
        let (journal, created) = open_journal(env, &dir.join("log"), me, shared).await?;
        let published = Rc::new(Published::new(me));
        let snapshot_bytes = config.snapshot_bytes;
        let observer = {
            let published = published.clone();
            move |seeing: Seeing<'_, Controller>| published.saw(seeing)
        };
        let base = (cluster, offset);
        let (runtime, replayed_bytes) =
            Runtime::open(env, journal.clone(), config, base, observer).await?;
        let metadata = Metadata(Rc::new(Inner {
            env: env.clone(),
            counted: Cell::new(journal.appended_bytes()),
            journal,
            runtime,
            store,
            snapshot_bytes,
            published,
            since_snapshot: Cell::new(replayed_bytes),
            gate: Gate::default(),
        }));
        metadata.0.published.publish_committed();
        env.spawn(Queue::Request, publish(metadata.0.clone()));
        Ok((metadata, Opened { snapshot: offset, replayed_bytes, created }))
    }

    /// Asks the controller. The answer's offset tells which image shows what it did.
    pub async fn request(&self, request: Request) -> Result<Answer<Reply>, RequestError> {
        self.0.runtime.request(request).await
    }

    /// The newest committed image.
    pub fn image(&self) -> Arc<Image> {
        self.0.published.newest.borrow().clone()
    }

    /// Waits for a committed image that is newer than `seen`; may skip some.
    pub async fn newer_than(&self, seen: Offset) -> Result<Arc<Image>, Closed> {
        self.at_least(seen.plus(1)).await
    }

    /// Waits for a committed image that has reached `offset`.
    pub async fn at_least(&self, offset: Offset) -> Result<Arc<Image>, Closed> {
        self.0.published.offset.reach(offset.value()).await?;
        Ok(self.image())
    }

    /// Ends it in good order: requests that wait are told, what was appended is synced.
    pub async fn close(&self) -> std::io::Result<()> {
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
    }
}

/// The directory of the metadata below a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}
