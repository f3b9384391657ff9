//! From a configuration to a running broker, and back: what each shard does from its first to its
//! last turn. Generic over the environment; the process around it is `process.rs`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::controller::Request;
use coordinator::metadata::Metadata;
use engine::cache::BlockBudget;
use engine::env::Queue;
use engine::ids::{TopicId, TopicPartition};
use engine::log::{Cleaner, CompactError, Disk, Shared};
use engine::wait::Watch;
use futures_lite::future;

use crate::abreast::abreast;
use crate::connection;
use crate::duties;
use crate::env::{Listener, NetEnv, Stream};
use crate::membership::Membership;
use crate::metadata::{self, Council, StartError};
use crate::partitions::{remove_files, topic_dir};
use crate::replica;
use crate::shard::{Answer, Call, Options, Shard, ShardEnds};
use crate::voter;

/// Partitions that a shard opens at the same time when it starts: they wait for the device, and
/// what they sync is in the same commits of the file system's journal.
const OPENING_MAX: usize = 32;
/// After so long a partition that found its device full is opened again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// How long connections may take to end when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a shard could not begin, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The cluster metadata.
    #[error(transparent)]
    Metadata(#[from] StartError),
    /// It was not closed in good order.
    #[error("the metadata was not closed in good order: {0}")]
    Close(io::Error),
    /// A listener could not be opened.
    #[error("cannot listen: {0}")]
    Listen(io::Error),
    /// The vote of this node can no longer be kept: its device had no room for it.
    #[error("this coordinator has ended: {0}")]
    Vote(String),
    /// The device failed while running.
    #[error("the data directory failed: {0}")]
    Disk(String),
    /// Logs were not closed in good order; they will be recovered at the next start.
    #[error("{0} logs were not closed in good order")]
    Unclean(usize),
}

/// Runs one shard until `stop` completes or the device fails. `doors` come with the names of
/// their listeners. `ready` is told when it serves.
pub async fn run_shard<E: NetEnv>(
    env: E,
    (index, count): (usize, usize),
    options: Arc<Options>,
    ends: ShardEnds<E>,
    doors: Vec<(String, E::Door)>,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let shared = Shared {
        budget: BlockBudget::new(options.limits.tail_bytes_max, options.unwritten_bytes_max),
        disk: Disk::default(),
        bounds: options.bounds,
    };
    let shard = Shard::new(&env, index, count, options, shared, ends);
    let control = shard.options().broker.cluster.as_ref().and_then(|c| c.control.clone());
    let control = control.map(|listener| listener.name);
    let mut stop = Box::pin(stop);
    let controller = match index {
        0 => {
            let council = metadata::start(&shard).await?;
            let mut doors = doors;
            if let Some(at) = doors.iter().position(|(name, _)| Some(name) == control.as_ref()) {
                // The others must reach this coordinator before anything can be decided.
                let listener = env.listen(doors.remove(at).1).await.map_err(NodeError::Listen)?;
                let metadata = council.voter().expect("it has a coordinators' listener").clone();
                let stopping = shard.0.released.clone();
                env.spawn(
                    Queue::Replication,
                    voter::serve(env.clone(), listener, metadata, stopping),
                );
            }
            let joining = async { join(&shard, &council).await.map(Some) };
            let stopped = async {
                stop.as_mut().await;
                Ok(None)
            };
            // Without its own vote it might wait for ever to become a member.
            let lost = async { vote_lost(council.voter()).await.map(|()| None) };
            let Some(membership) = future::or(future::or(lost, joining), stopped).await? else {
                // Told to stop before it was a member of anything; but the other shards may have
                // their picture already, and wait for their release.
                shard.release();
                shard.stop().await?;
                return council.close().await.map_err(NodeError::Close);
            };
            listen(&shard, doors).await?;
            Some((council, membership))
        }
        _ => {
            // Shard 0 sends the first picture when this broker is registered.
            let pictured = async {
                let _ = shard.0.image_offset.reach(1).await;
                true
            };
            let stopped = async {
                stop.as_mut().await;
                false
            };
            if !future::or(pictured, stopped).await {
                return shard.stop().await;
            }
            listen(&shard, doors).await?;
            None
        }
    };
    env.spawn(Queue::Background, open_own(shard.clone()));
    env.spawn(Queue::Background, tend(shard.clone()));
    env.spawn(Queue::Background, compact(shard.clone()));
    if shard.options().quorum.is_some() {
        env.spawn(Queue::Replication, replica::follower::run(shard.clone()));
        env.spawn(Queue::Replication, duties::carry_asks(shard.clone()));
    }
    ready();
    let stopped = async {
        stop.await;
        Ok(())
    };
    let disk = async { Err(NodeError::Disk(shard.0.shared.disk.failure().await)) };
    let voter = controller.as_ref().and_then(|(council, _)| council.voter());
    future::or(future::or(disk, vote_lost(voter)), stopped).await?;
    if let Some((_, membership)) = &controller {
        membership.leave().await;
        shard.release();
    } else if shard.options().quorum.is_some() {
        let _ = shard.0.released.reach(1).await;
    }
    shard.stop().await?;
    if let Some((council, _)) = controller {
        council.close().await.map_err(NodeError::Close)?;
    }
    Ok(())
}

/// Waits until the coordinator of this process, if it has one, can go on no more.
async fn vote_lost<E: NetEnv>(voter: Option<&Metadata<E>>) -> Result<(), NodeError> {
    let Some(metadata) = voter else { return std::future::pending().await };
    let why = metadata.failure().await;
    // What was found wrong comes as a text through the consensus library. A full device is sound:
    // it must not keep the next start from trusting what it holds.
    let full = io::Error::from_raw_os_error(nix::libc::ENOSPC).to_string();
    Err(if why.contains(&full) { NodeError::Vote(why) } else { NodeError::Disk(why) })
}

/// Makes this broker a member of its cluster, and has every shard see that.
async fn join<E: NetEnv>(
    shard: &Shard<E>,
    council: &Council<E>,
) -> Result<Membership<E>, NodeError> {
    let (membership, at) = Membership::register(shard, council).await?;
    metadata::begin(shard, council, at);
    let _ = shard.0.published.reach(at.value()).await;
    membership.appear().await;
    membership.begin();
    // The doors open when the controller counts on this broker, as Kafka's do: a client that was
    // told "ready" may ask for as many replicas as there are brokers.
    membership.active().await;
    if shard.options().quorum.is_none() {
        // It leads everything from now on; clients need not find out one by one.
        let _ = council.at_least(at.plus(1)).await;
        let _ = shard.0.published.reach(council.image().offset().value()).await;
    }
    Ok(membership)
}

/// Opens the doors for clients and brokers.
pub(crate) async fn listen<E: NetEnv>(
    shard: &Shard<E>,
    doors: Vec<(String, E::Door)>,
) -> Result<(), NodeError> {
    for (name, door) in doors {
        let listener = shard.env().listen(door).await.map_err(NodeError::Listen)?;
        let accepting = accept_all(shard.clone(), listener, name.as_str().into());
        shard.env().spawn(Queue::Request, accepting);
    }
    Ok(())
}

/// Runs a coordinator without partitions until `stop` completes or the device fails.
pub async fn run_coordinator<E: NetEnv>(
    env: E,
    options: Arc<Options>,
    door: E::Door,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let metadata = metadata::join(&env, &options).await?;
    env.spawn(Queue::Replication, voter::deliver_all(env.clone(), metadata.clone()));
    let listener = env.listen(door).await.map_err(NodeError::Listen)?;
    let stopping = Watch::new(0);
    let serving = voter::serve(env.clone(), listener, metadata.clone(), stopping.clone());
    env.spawn(Queue::Replication, serving);
    ready();
    let stopped = async {
        stop.await;
        Ok(())
    };
    future::or(vote_lost(Some(&metadata)), stopped).await?;
    stopping.raise(1);
    metadata.close().await.map_err(NodeError::Close)
}

impl<E: NetEnv> Shard<E> {
    /// Lets all shards stop. In a cluster they have waited for that: until this broker has given
    /// its leaderships away, all of them serve.
    fn release(&self) {
        self.0.released.raise(1);
        self.tell_others(|| Call::Release);
    }

    /// Tells the other shards something that none of them answers: one that has ended cannot.
    fn tell_others(&self, call: impl Fn() -> Call) {
        for other in (0..self.0.count).filter(|&shard| shard != self.0.index) {
            drop(self.mesh().call(self.env(), other, call()));
        }
    }

    /// Ends in good order: no new connections, no new requests, answers for those begun, logs
    /// synced and checkpointed. Logs stay open until all shards have given their answers: a
    /// request of one may wait for a partition of another.
    async fn stop(&self) -> Result<(), NodeError> {
        self.0.stopping.raise(1);
        self.0.groups.stop();
        let until = self.env().now().after(DRAIN_MAX);
        let drained = async {
            self.0.gate.close().await;
            true
        };
        let late = async {
            self.env().sleep_until(until).await;
            false
        };
        if !future::or(drained, late).await {
            let left = self.0.gate.inside();
            tracing::warn!(shard = self.0.index, left, "connections were cut off");
        }
        self.tell_others(|| Call::Drained);
        let others = self.0.count as u64 - 1;
        let all = async {
            let _ = self.0.drained.reach(others).await;
        };
        future::or(all, self.env().sleep_until(until)).await;
        match self.0.partitions.close(self.env()).await {
            0 => Ok(()),
            failed => Err(NodeError::Unclean(failed)),
        }
    }
}

/// Takes connections until the shard stops.
async fn accept_all<E: NetEnv>(shard: Shard<E>, listener: E::Listener, name: Rc<str>) {
    loop {
        let stopping = async {
            let _ = shard.0.stopping.reach(1).await;
            None
        };
        let accepted = async { Some(listener.accept().await) };
        let stream = match future::or(stopping, accepted).await {
            None => return,
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection was not accepted");
                shard.env().sleep_until(shard.env().now().after(ACCEPT_PAUSE)).await;
                continue;
            }
        };
        let count = shard.0.connections.get();
        if count >= shard.options().connections_max {
            let peer = stream.peer();
            tracing::warn!(%peer, count, "too many connections; this one is closed");
            continue;
        }
        let Some(pass) = shard.0.gate.enter() else { return };
        shard.0.connections.set(count + 1);
        let serving = connection::serve(shard.clone(), stream, name.clone(), pass);
        shard.env().spawn(Queue::Request, serving);
        shard.env().turn().await;
    }
}

/// Opens what the shard owns, in the background: whoever asks for a partition before gets it opened
/// at once. New topics follow as the picture changes.
pub(crate) async fn open_own<E: NetEnv>(shard: Shard<E>) {
    let unopened = &shard.0.unopened;
    loop {
        let seen = shard.0.image_offset.value();
        let found: Vec<_> = unopened.borrow().iter().copied().collect();
        let (opening, ids) = (shard.clone(), found.clone());
        let each = ids.into_iter().map(move |id| open_one(opening.clone(), id));
        abreast(shard.env(), Queue::Background, OPENING_MAX, each).await;
        let again = found.iter().any(|id| unopened.borrow().contains(id));
        let changed = shard.0.image_offset.reach(seen + 1);
        let stopping = shard.0.stopping.reach(1);
        let later = async {
            match again {
                true => shard.env().sleep_until(shard.env().now().after(OPEN_AGAIN)).await,
                false => std::future::pending().await,
            }
            Ok(())
        };
        let _ = future::or(future::or(changed, stopping), later).await;
        if shard.0.stopping.value() > 0 {
            return;
        }
    }
}

/// Opens one of them. A failure is logged where it is found, and told to whoever asks.
async fn open_one<E: NetEnv>(shard: Shard<E>, id: TopicPartition) {
    let _ = shard.0.partitions.get(&shard, id).await;
    // Not if it found the device full.
    if shard.0.partitions.is_settled(id) {
        shard.0.unopened.borrow_mut().remove(&id);
    }
}

/// Looks after the logs, one after the other.
async fn tend<E: NetEnv>(shard: Shard<E>) {
    let every = shard.options().tend_every;
    loop {
        let next = shard.env().now().after(every);
        let stopping = async {
            let _ = shard.0.stopping.reach(1).await;
        };
        future::or(stopping, shard.env().sleep_until(next)).await;
        if shard.0.stopping.value() > 0 {
            return;
        }
        for (id, partition) in shard.0.partitions.all() {
            if let Err(error) = partition.tend().await {
                tracing::warn!(%id, %error, "the chores of a log were not done");
            }
            shard.env().turn().await;
        }
    }
}

/// The least time between two looks for something to compact.
const COMPACT_EVERY_MIN: Duration = Duration::from_millis(10);

/// Compacts the logs that are worth it, one round of one log after the other.
async fn compact<E: NetEnv>(shard: Shard<E>) {
    let every = shard.options().compact_every.max(COMPACT_EVERY_MIN);
    let mut cleaner = Cleaner::new(shard.options().limits.dedupe_bytes);
    let mut more = false;
    loop {
        let next = shard.env().now().after(if more { COMPACT_EVERY_MIN } else { every });
        let stopping = async {
            let _ = shard.0.stopping.reach(1).await;
        };
        future::or(stopping, shard.env().sleep_until(next)).await;
        more = false;
        for (id, partition) in shard.0.partitions.all() {
            if shard.0.stopping.value() > 0 {
                return;
            }
            match partition.compact(&mut cleaner).await {
                Ok(done) => more |= done.is_some(),
                Err(CompactError::Interrupted) => {}
                Err(error) => tracing::warn!(%id, %error, "a log was not compacted"),
            }
            shard.env().turn().await;
        }
        if shard.0.stopping.value() > 0 {
            return;
        }
    }
}

/// Removes what is left of deleted topics, on all shards, and tells the controller. Runs on shard
/// 0, whenever the picture has topics to purge.
pub(crate) async fn purge<E: NetEnv>(shard: Shard<E>) {
    loop {
        let image = shard.image();
        let topics: Vec<TopicId> = image
            .cluster()
            .deleted_topics()
            .filter(|(_, topic)| topic.holders.contains(&shard.options().me))
            .map(|(id, _)| id)
            .collect();
        for &topic in &topics {
            let calls: Vec<_> = (1..shard.0.count)
                .map(|other| shard.mesh().call(shard.env(), other, Call::Purge(topic)))
                .collect();
            shard.0.partitions.purge(&shard, topic).await;
            for mut call in calls {
                let Answer::Done = call.answer().await else {
                    unreachable!("an answer is of its call's kind")
                };
            }
            remove_topic(&shard, topic).await;
        }
        if !topics.is_empty() {
            let broker = shard.options().me;
            shard.control(Request::PurgedTopics { broker, topics }).await;
        }
        let changed = shard.0.image_offset.reach(image.offset().value() + 1);
        let stopping = shard.0.stopping.reach(1);
        let _ = future::or(changed, stopping).await;
        if shard.0.stopping.value() > 0 {
            return;
        }
    }
}

/// Removes the directory of a deleted topic with whatever partitions an earlier run left in it.
async fn remove_topic<E: NetEnv>(shard: &Shard<E>, topic: TopicId) {
    let dir = topic_dir(&shard.options().data, topic);
    let removed = async {
        let entries = match shard.env().list(&dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            match entry.is_dir {
                true => remove_files(shard.env(), &dir.join(entry.name)).await?,
                false => shard.env().remove(&dir.join(entry.name)).await?,
            }
        }
        shard.env().remove_dir(&dir).await?;
        shard.env().sync_dir(&shard.options().data).await
    };
    if let Err(error) = removed.await {
        tracing::warn!(dir = %dir.display(), %error, "the directory of a deleted topic stays");
    }
}
