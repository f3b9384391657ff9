//! The cluster's metadata in this process: shard 0 keeps it ([`coordinator::metadata`]), and gives
//! every shard the pictures of it.
//!
//! A reply of the controller is told only when every shard has a picture that shows what it did:
//! whoever is told that a topic exists can use it on any connection.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use coordinator::cluster::{DirectoryId, Incarnation};
use coordinator::controller::{Heartbeat, Loss, Registration, Reply, Request};
use coordinator::metadata::{Metadata, MetadataError};
use engine::env::Queue;
use engine::ids::Offset;

use crate::env::NetEnv;
use crate::node;
use crate::shard::Shard;

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

/// Opens the metadata on shard 0, registers this broker and publishes the first picture.
pub async fn start<E: NetEnv>(shard: &Shard<E>) -> Result<Metadata<E>, StartError> {
    let env = shard.env();
    let options = shard.options();
    let dir = metadata_dir(&options.data);
    // This node is the whole cluster: there is nobody who could take over from it, and no other
    // leader to prefer.
    let limits = coordinator::config::Config {
        session_timeout: None,
        leader_rebalance: None,
        ..options.broker.topics.clone()
    };
    let (metadata, opened) = Metadata::open(env, &dir, options.me, limits, &shard.0.shared).await?;
    tracing::debug!(?opened, "metadata opened");
    // Taken before the task first runs: that may be when this broker is registered already.
    let replayed = metadata.image().offset();
    env.spawn(Queue::Request, publish_all(shard.clone(), metadata.clone(), replayed));
    register(shard, &metadata).await?;
    let control = {
        let (shard, metadata) = (shard.clone(), metadata.clone());
        move |request| {
            let (shard, metadata) = (shard.clone(), metadata.clone());
            let decided: Pin<Box<dyn Future<Output = Option<Reply>>>> =
                Box::pin(async move { decide(&shard, &metadata, request).await });
            decided
        }
    };
    *shard.0.control.borrow_mut() = Some(Box::new(control));
    let described = metadata.clone();
    *shard.0.quorum_status.borrow_mut() = Some(Box::new(move || described.status()));
    env.spawn(Queue::Background, node::purge(shard.clone()));
    Ok(metadata)
}

async fn decide<E: NetEnv>(
    shard: &Shard<E>,
    metadata: &Metadata<E>,
    request: Request,
) -> Option<Reply> {
    match metadata.request(request).await {
        Ok(answer) => {
            shard.0.published.reach(answer.at.value()).await.ok()?;
            Some(answer.reply)
        }
        Err(error) => {
            tracing::warn!(%error, "the controller did not decide");
            None
        }
    }
}

async fn register<E: NetEnv>(shard: &Shard<E>, metadata: &Metadata<E>) -> Result<(), StartError> {
    let broker = &shard.options().broker;
    let env = shard.env();
    let registration = Registration {
        incarnation: Incarnation::random([env.random(), env.random()]),
        directory: DirectoryId::UNKNOWN,
        features: BTreeMap::new(),
        lost: Loss::Nothing,
        id: broker.node_id,
        endpoints: broker.advertised.clone(),
        rack: broker.rack.clone(),
        cluster: Some(shard.options().cluster.clone()),
    };
    let silent = || StartError::Refused("the controller did not answer".into());
    let registered = match decide(shard, metadata, Request::RegisterBroker(registration)).await {
        Some(Reply::Registered(Ok(registered))) => registered,
        Some(Reply::Registered(Err(refusal))) => return Err(StartError::Refused(refusal.message)),
        _ => return Err(silent()),
    };
    // It has seen its registration, so its first sign of life makes it a leader again.
    let heartbeat = Heartbeat {
        broker: broker.node_id,
        epoch: registered.epoch,
        reached: shard.image().offset(),
        want_shutdown: false,
    };
    match decide(shard, metadata, Request::Heartbeat(heartbeat)).await {
        Some(Reply::Heartbeat(Ok(pulse))) if !pulse.fenced => Ok(()),
        Some(Reply::Heartbeat(Err(refusal))) => Err(StartError::Refused(refusal.message)),
        _ => Err(silent()),
    }
}

/// Gives every shard each committed picture newer than `seen`; those that are overtaken meanwhile
/// are left out.
///
/// The first one shows this broker's registration, never what was replayed: registering raises
/// the epoch of every leader, and a partition that was opened in the old one would refuse clients
/// that have heard of the new one.
async fn publish_all<E: NetEnv>(shard: Shard<E>, metadata: Metadata<E>, mut seen: Offset) {
    while let Ok(image) = metadata.newer_than(seen).await {
        seen = image.offset();
        shard.publish(image).await;
        shard.0.published.raise(seen.value());
    }
}
