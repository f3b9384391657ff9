//! The cluster's metadata in this process. Shard 0 keeps it, gives every shard the pictures of it,
//! and knows how to have something decided: by the coordinator in this process where there is one
//! ([`coordinator::metadata`]), otherwise by the others ([`crate::controllers`]).
//!
//! A reply of the controller is told only when every shard has a picture that shows what it did:
//! whoever is told that a topic exists can use it on any connection.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::controller::{Reply, Request};
use coordinator::image::Image;
use coordinator::metadata::{Metadata, MetadataError};
use coordinator::observer::Observer;
use coordinator::quorum;
use coordinator::runtime::{Answer, RequestError};
use engine::env::{Env, Queue};
use engine::ids::Offset;
use engine::wait::{Closed, Watch};

use crate::controllers::Controllers;
use crate::env::NetEnv;
use crate::node;
use crate::shard::{Options, QuorumOptions, Shard};
use crate::voter;

/// Pause after a coordinator that could not tell the news.
const NEWS_PAUSE: Duration = Duration::from_millis(100);

/// Why the metadata is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] MetadataError),
    /// The controller refuses this broker.
    #[error("this broker cannot join: {0}")]
    Refused(String),
}

/// Directory of the metadata.
pub fn metadata_dir(data: &Path) -> PathBuf {
    data.join("metadata")
}

/// What this node knows of the cluster, and by whom it has things decided. Cloning shares it.
pub struct Council<E: NetEnv>(Rc<Inner<E>>);

impl<E: NetEnv> Clone for Council<E> {
    fn clone(&self) -> Self {
        Council(self.0.clone())
    }
}

struct Inner<E: NetEnv> {
    env: E,
    /// Where this node holds a vote.
    voter: Option<Metadata<E>>,
    /// The coordinators of a cluster of several nodes.
    others: Option<Controllers<E>>,
    /// What a node without a vote was told.
    seen: RefCell<Arc<Image>>,
    seen_offset: Watch,
}

impl<E: NetEnv> Council<E> {
    /// Opens what this node has of the metadata, and begins to follow what is decided. `stopping`
    /// ends that.
    pub async fn open(env: &E, options: &Options, stopping: Watch) -> Result<Self, StartError> {
        let quorum = options.quorum.as_ref();
        let voter = match quorum {
            Some(quorum) if !quorum.votes => None,
            _ => Some(join(env, options).await?),
        };
        let others = quorum.map(|quorum| Controllers::new(env, options.me, quorum.voters.clone()));
        let council = Council(Rc::new(Inner {
            env: env.clone(),
            voter,
            others,
            seen: RefCell::new(Arc::new(Image::empty())),
            seen_offset: Watch::new(0),
        }));
        match &council.0.voter {
            Some(metadata) if quorum.is_some() => {
                env.spawn(Queue::Replication, voter::deliver_all(env.clone(), metadata.clone()));
            }
            Some(_) => {}
            None => env.spawn(Queue::Replication, follow(council.clone(), stopping)),
        }
        Ok(council)
    }

    /// The coordinator in this process.
    pub fn voter(&self) -> Option<&Metadata<E>> {
        self.0.voter.as_ref()
    }

    /// Has the controller decide, wherever it is; `None`: nobody knows whether it did.
    pub async fn request(&self, request: Request) -> Option<Answer<Reply>> {
        if let Some(metadata) = &self.0.voter {
            match (metadata.request(request.clone()).await, &self.0.others) {
                (Ok(answer), _) => return Some(answer),
                (Err(RequestError::NotController { leader }), Some(others)) => others.hint(leader),
                (Err(error), _) => {
                    tracing::warn!(%error, "the controller did not decide");
                    return None;
                }
            }
        }
        match self.0.others.as_ref()?.request(&request).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(%error, "nothing was decided");
                None
            }
        }
    }

    /// The newest picture.
    pub fn image(&self) -> Arc<Image> {
        match &self.0.voter {
            Some(metadata) => metadata.image(),
            None => self.0.seen.borrow().clone(),
        }
    }

    /// Waits for a picture that has reached `offset`.
    pub async fn at_least(&self, offset: Offset) -> Result<Arc<Image>, Closed> {
        if let Some(metadata) = &self.0.voter {
            return metadata.at_least(offset).await;
        }
        self.0.seen_offset.reach(offset.value()).await?;
        Ok(self.image())
    }

    /// Ends it in good order.
    pub async fn close(&self) -> std::io::Result<()> {
        self.0.seen_offset.close();
        match &self.0.voter {
            Some(metadata) => metadata.close().await,
            None => Ok(()),
        }
    }
}

/// Opens the coordinator in this process.
pub(crate) async fn join<E: Env>(env: &E, options: &Options) -> Result<Metadata<E>, StartError> {
    let dir = metadata_dir(&options.data);
    let mut config = options.broker.topics.clone();
    let snapshot_bytes = config.snapshot_bytes;
    // What topics are told that say nothing themselves, as far as the controller must know.
    let number = |name| options.log.text(name).and_then(|text| text.parse().ok());
    config.min_insync_replicas =
        number("min.insync.replicas").map_or(config.min_insync_replicas, |n: u64| n as u32);
    config.flush_messages = number("flush.messages").unwrap_or(config.flush_messages);
    let unclean = options.log.text("unclean.leader.election.enable");
    config.unclean_election = unclean.as_deref() == Some("true");
    let quorum = match &options.quorum {
        Some(quorum) => voter_options(options, quorum, snapshot_bytes),
        None => {
            // This node is the whole cluster: nobody could take over from it, and there is no
            // other leader to prefer.
            (config.session_timeout, config.leader_rebalance) = (None, None);
            quorum::Options { snapshot_bytes, ..quorum::Options::alone(options.me) }
        }
    };
    let (metadata, opened) = Metadata::join(env, &dir, quorum, config).await?;
    tracing::debug!(?opened, "metadata opened");
    Ok(metadata)
}

fn voter_options(
    options: &Options,
    quorum: &QuorumOptions,
    snapshot_bytes: u64,
) -> quorum::Options {
    let election_timeout = options.broker.election_timeout;
    // Who is not among them does not begin a quorum: it waits until it is let in.
    let begins = quorum.voters.iter().any(|(id, _)| *id == options.me);
    quorum::Options {
        me: options.me,
        cluster: Some(options.cluster.as_str().to_string()),
        voters: if begins { quorum.voters.clone() } else { Vec::new() },
        election_timeout,
        heartbeat: election_timeout / 5,
        snapshot_bytes,
        mutant: None,
    }
}

/// Follows what is decided, by asking one coordinator after the other for news.
async fn follow<E: NetEnv>(council: Council<E>, stopping: Watch) {
    let inner = &council.0;
    let others = inner.others.as_ref().expect("without a vote, there are others");
    let (mut observer, mut link, mut nth) =
        (Observer::default(), None, inner.env.random() as usize);
    while stopping.value() == 0 && !inner.seen_offset.is_closed() {
        let told = match others.since(nth, &mut link, observer.offset()).await {
            Ok(since) => {
                others.hint(since.leader);
                observer.on_since(&since).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok(None) => {}
            Ok(Some(image)) => {
                let offset = image.offset().value();
                inner.seen.replace(image);
                inner.seen_offset.raise(offset);
            }
            Err(error) => {
                tracing::debug!(error, "no news from a coordinator");
                (link, nth) = (None, nth.wrapping_add(1));
                inner.env.sleep_until(inner.env.now().after(NEWS_PAUSE)).await;
            }
        }
    }
}

/// Opens the metadata on shard 0, and lets the shards ask the controller.
pub async fn start<E: NetEnv>(shard: &Shard<E>) -> Result<Council<E>, StartError> {
    let stopping = shard.0.stopping.clone();
    let council = Council::open(shard.env(), shard.options(), stopping).await?;
    let control = {
        let (shard, council) = (shard.clone(), council.clone());
        move |request| {
            let (shard, council) = (shard.clone(), council.clone());
            let decided: Pin<Box<dyn Future<Output = Option<Reply>>>> =
                Box::pin(async move { decide(&shard, &council, request).await });
            decided
        }
    };
    *shard.0.control.borrow_mut() = Some(Box::new(control));
    if let Some(described) = council.voter().cloned() {
        *shard.0.quorum_status.borrow_mut() = Some(Box::new(move || described.status()));
    }
    Ok(council)
}

/// Has the controller decide, and waits until every shard has a picture that shows it.
async fn decide<E: NetEnv>(
    shard: &Shard<E>,
    council: &Council<E>,
    request: Request,
) -> Option<Reply> {
    let answer = council.request(request).await?;
    shard.0.published.reach(answer.at.value()).await.ok()?;
    Some(answer.reply)
}

/// Gives every shard each picture from `from` on; those that are overtaken meanwhile are left out.
///
/// `from` is where this broker's registration stands, never what was known before: registering
/// raises the epoch of every leader, and a partition that was opened in the old one would refuse
/// clients that have heard of the new one, or write in a term that is over.
pub(crate) async fn publish_all<E: NetEnv>(shard: Shard<E>, council: Council<E>, from: Offset) {
    let mut next = from;
    while let Ok(image) = council.at_least(next).await {
        next = image.offset().plus(1);
        let offset = image.offset().value();
        shard.publish(image).await;
        shard.0.published.raise(offset);
    }
}

/// Begins what shard 0 does when this broker is registered.
pub(crate) fn begin<E: NetEnv>(shard: &Shard<E>, council: &Council<E>, from: Offset) {
    let env = shard.env();
    env.spawn(Queue::Request, publish_all(shard.clone(), council.clone(), from));
    env.spawn(Queue::Background, node::purge(shard.clone()));
}
