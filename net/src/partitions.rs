//! The partitions that a shard owns: opened when first needed, configured, closed, removed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use coordinator::cluster::Topic;
use engine::env::{Env, Queue};
use engine::ids::{PartitionIndex, TopicId, TopicPartition};
use engine::log::{Log, OpenError};
use engine::wait::Watch;
use replication::Partition;

use crate::abreast::abreast;
use crate::duties;
use crate::env::NetEnv;
use crate::shard::Shard;

/// Partitions that are closed at the same time: what they sync is in the same commits of the file
/// system's journal.
const CLOSING_MAX: usize = 32;

/// Why a partition cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Not in the picture of the cluster.
    #[error("no such partition")]
    Unknown,
    /// Another broker leads it, or none does.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Its storage failed or is damaged.
    #[error("{0}")]
    Offline(Arc<str>),
    /// The device is full, or no file can be opened at the moment. It is tried again.
    #[error("{0}")]
    Full(Arc<str>),
    /// The process is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

enum Place<E: NetEnv> {
    /// Being opened; the watch is raised to 1 when that is over.
    Opening(Watch),
    Open(Partition<E>),
    Offline(Arc<str>),
}

/// An opening under way. Whoever opens may be dropped in the middle of it (its connection ends): then
/// the place is free again, and who waits for it opens it instead.
struct Opening<'p, E: NetEnv> {
    places: &'p RefCell<BTreeMap<TopicPartition, Place<E>>>,
    id: TopicPartition,
    over: Watch,
}

impl<'p, E: NetEnv> Opening<'p, E> {
    fn begin(
        places: &'p RefCell<BTreeMap<TopicPartition, Place<E>>>,
        id: TopicPartition,
    ) -> Opening<'p, E> {
        let over = Watch::new(0);
        places.borrow_mut().insert(id, Place::Opening(over.clone()));
        Opening { places, id, over }
    }

    /// It has come to its end.
    fn end(self, place: Place<E>) {
        // Not there any more: the topic was deleted meanwhile.
        if let Some(slot) = self.places.borrow_mut().get_mut(&self.id) {
            *slot = place;
        }
    }
}

impl<E: NetEnv> Drop for Opening<'_, E> {
    fn drop(&mut self) {
        let mut places = self.places.borrow_mut();
        if let Some(Place::Opening(_)) = places.get(&self.id) {
            places.remove(&self.id);
        }
        drop(places);
        self.over.raise(1);
    }
}

/// Whether the device or the process is out of something that it may have again later: space, or
/// file descriptors.
fn is_short(error: &io::Error) -> bool {
    let files = [nix::libc::EMFILE, nix::libc::ENFILE];
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.raw_os_error().is_some_and(|code| files.contains(&code))
}

/// The table.
pub struct Partitions<E: NetEnv> {
    places: RefCell<BTreeMap<TopicPartition, Place<E>>>,
}

impl<E: NetEnv> Partitions<E> {
    pub(crate) fn new() -> Partitions<E> {
        Partitions { places: RefCell::new(BTreeMap::new()) }
    }

    /// The partition, if it is open: no waiting.
    pub fn opened(&self, id: TopicPartition) -> Option<Partition<E>> {
        match self.places.borrow().get(&id) {
            Some(Place::Open(partition)) => Some(partition.clone()),
            _ => None,
        }
    }

    /// Why the partition is not open.
    pub(crate) fn why_not(&self, shard: &Shard<E>, id: TopicPartition) -> Unavailable {
        if shard.0.gate.is_closed() {
            return Unavailable::Stopping;
        }
        match self.places.borrow().get(&id) {
            Some(Place::Offline(why)) => Unavailable::Offline(why.clone()),
            _ => Unavailable::Unknown,
        }
    }

    /// All that are open.
    pub fn all(&self) -> Vec<(TopicPartition, Partition<E>)> {
        let places = self.places.borrow();
        let open = places.iter().filter_map(|(id, place)| match place {
            Place::Open(partition) => Some((*id, partition.clone())),
            _ => None,
        });
        open.collect()
    }

    /// Looks at all that are open. `look` must not come back here.
    pub(crate) fn for_each(&self, mut look: impl FnMut(TopicPartition, &Partition<E>)) {
        for (id, place) in &*self.places.borrow() {
            if let Place::Open(partition) = place {
                look(*id, partition);
            }
        }
    }

    /// Whether it is open, or will not be before the next start.
    pub(crate) fn is_settled(&self, id: TopicPartition) -> bool {
        let places = self.places.borrow();
        places.get(&id).is_some_and(|place| !matches!(place, Place::Opening(_)))
    }

    /// How many have been found offline.
    pub fn offline(&self) -> usize {
        let places = self.places.borrow();
        places.values().filter(|place| matches!(place, Place::Offline(_))).count()
    }

    /// The partition, opened if it was not. Only for its owner.
    pub async fn get(
        &self,
        shard: &Shard<E>,
        id: TopicPartition,
    ) -> Result<Partition<E>, Unavailable> {
        loop {
            if shard.0.gate.is_closed() {
                return Err(Unavailable::Stopping);
            }
            let opening = match self.places.borrow().get(&id) {
                Some(Place::Open(partition)) => return Ok(partition.clone()),
                Some(Place::Offline(why)) => return Err(Unavailable::Offline(why.clone())),
                Some(Place::Opening(watch)) => Some(watch.clone()),
                None => None,
            };
            match opening {
                Some(opening) => {
                    // Closed when the topic was deleted meanwhile; look again either way.
                    let _ = opening.reach(1).await;
                }
                None => self.open(shard, id).await?,
            }
        }
    }

    async fn open(&self, shard: &Shard<E>, id: TopicPartition) -> Result<(), Unavailable> {
        let image = shard.image();
        let topic = image.topic_by_id(id.topic).ok_or(Unavailable::Unknown)?.clone();
        let partition = topic.partition(id.partition).ok_or(Unavailable::Unknown)?.clone();
        let me = shard.options().me;
        if !partition.replicas.contains(&me) {
            return Err(Unavailable::NotLeader);
        }
        assert!(shard.owns(id), "a partition is opened by its owner");
        let opening = Opening::begin(&self.places, id);
        let config = Rc::new(shard.log_config(&topic));
        let dir = partition_dir(&shard.options().data, id);
        let env = shard.env();
        let found = Log::open(env, &dir, id, config, &shard.0.shared).await;
        let replication = shard.options().broker.replication;
        let opened: Result<_, Arc<str>> = match found {
            Err(OpenError::Device(error)) if is_short(&error) => {
                tracing::warn!(topic = %topic.name, partition = %id.partition, %error,
                    "a partition could not be opened yet");
                return Err(Unavailable::Full(error.to_string().into()));
            }
            Ok((log, recovered)) => {
                if recovered.batches > 0 || recovered.cut.is_some() {
                    tracing::info!(topic = %topic.name, partition = %id.partition,
                        end = %log.end(), scanned = recovered.scanned_bytes,
                        cut = ?recovered.cut, "recovered");
                }
                Ok(Partition::open(env, log, me, replication, &shard.0.notices))
            }
            Err(error) => {
                tracing::error!(topic = %topic.name, partition = %id.partition, %error,
                    "the partition is offline");
                // A device that cannot be read is no better than one that cannot be written:
                // what this broker leads must go to others.
                if let OpenError::Device(device) = &error {
                    let why = format!("opening {}: {device}", dir.display());
                    shard.0.shared.disk.fail(&why);
                }
                Err(error.to_string().into())
            }
        };
        match opened {
            Ok(partition) => {
                // Before anybody may use it.
                duties::settle(shard, id, &partition).await;
                opening.end(Place::Open(partition.clone()));
                // What the pictures said meanwhile went past it.
                duties::settle(shard, id, &partition).await;
            }
            Err(why) => opening.end(Place::Offline(why)),
        }
        Ok(())
    }

    /// Puts changed settings of a topic in force.
    pub(crate) fn configure(&self, shard: &Shard<E>, topic: &Topic) {
        let config = Rc::new(shard.log_config(topic));
        for (_, partition) in self.of(topic.id) {
            partition.configure(config.clone());
        }
    }

    /// Partitions of one topic that are open.
    fn of(&self, topic: TopicId) -> Vec<(TopicPartition, Partition<E>)> {
        let (first, last) = range_of(topic);
        let places = self.places.borrow();
        let open = places.range(first..=last).filter_map(|(id, place)| match place {
            Place::Open(partition) => Some((*id, partition.clone())),
            _ => None,
        });
        open.collect()
    }

    /// This broker does not keep the partition any more: its files go, beside everything else.
    pub(crate) fn give_up(&self, shard: &Shard<E>, id: TopicPartition) {
        if let Some(partition) = self.opened(id) {
            partition.retire();
        }
        let shard = shard.clone();
        shard.env().clone().spawn(Queue::Background, async move {
            shard.0.partitions.remove(&shard, id).await;
        });
    }

    /// The topic is gone from the picture: nobody new may reach its partitions. Their files are
    /// removed by `purge`.
    pub(crate) fn forget(&self, topic: TopicId) {
        for (_, partition) in self.of(topic) {
            partition.retire();
        }
    }

    /// Closes the topic's partitions of this shard and removes their files.
    pub(crate) async fn purge(&self, shard: &Shard<E>, topic: TopicId) {
        let ids: Vec<_> = {
            let (first, last) = range_of(topic);
            self.places.borrow().range(first..=last).map(|(id, _)| *id).collect()
        };
        for id in ids {
            self.remove(shard, id).await;
        }
    }

    /// Closes a partition and removes its files.
    async fn remove(&self, shard: &Shard<E>, id: TopicPartition) {
        let opening = match self.places.borrow().get(&id) {
            Some(Place::Opening(watch)) => Some(watch.clone()),
            _ => None,
        };
        if let Some(opening) = opening {
            let _ = opening.reach(1).await;
        }
        let place = self.places.borrow_mut().remove(&id);
        if let Some(Place::Open(partition)) = place {
            partition.retire();
            if let Err(error) = partition.close().await {
                tracing::debug!(%id, %error, "a deleted partition was not closed cleanly");
            }
        }
        let dir = partition_dir(&shard.options().data, id);
        if let Err(error) = remove_files(shard.env(), &dir).await {
            tracing::warn!(dir = %dir.display(), %error, "files of a deleted topic stay");
        }
    }

    /// Syncs and closes everything; answers how many failed.
    pub(crate) async fn close(&self, env: &E) -> usize {
        let failed = Rc::new(Cell::new(0));
        let count = failed.clone();
        let each = self.all().into_iter().map(move |(id, partition)| {
            let failed = count.clone();
            async move {
                if let Err(error) = partition.close().await {
                    tracing::error!(%id, %error, "a log was not closed in good order");
                    failed.set(failed.get() + 1);
                }
            }
        });
        abreast(env, Queue::Storage, CLOSING_MAX, each).await;
        failed.get()
    }
}

fn range_of(topic: TopicId) -> (TopicPartition, TopicPartition) {
    let at = |index| TopicPartition { topic, partition: PartitionIndex(index) };
    (at(i32::MIN), at(i32::MAX))
}

/// `data/<topic id>`.
pub fn topic_dir(data: &Path, topic: TopicId) -> PathBuf {
    data.join(topic.to_string())
}

/// `data/<topic id>/<partition>`.
pub fn partition_dir(data: &Path, id: TopicPartition) -> PathBuf {
    topic_dir(data, id.topic).join(id.partition.to_string())
}

/// Removes a directory of files (one level deep); that it is not there is fine.
pub(crate) async fn remove_files<E: Env>(env: &E, dir: &Path) -> io::Result<()> {
    let entries = match env.list(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        env.remove(&dir.join(entry.name)).await?;
        env.turn().await;
    }
    env.remove_dir(dir).await
}

#[cfg(test)]
mod tests {
    use engine::env::sim::SimEnv;

    use super::*;

    #[test]
    fn an_opener_that_goes_away_leaves_no_mark() {
        let places: RefCell<BTreeMap<TopicPartition, Place<SimEnv>>> = RefCell::default();
        let id = TopicPartition { topic: TopicId::random(1, 2), partition: PartitionIndex(0) };
        let opening = Opening::begin(&places, id);
        let waiting = opening.over.clone();
        drop(opening);
        assert!(places.borrow().is_empty(), "the next one opens it");
        assert_eq!(waiting.value(), 1, "who waited looks again");

        let opening = Opening::begin(&places, id);
        let waiting = opening.over.clone();
        opening.end(Place::Offline("broken".into()));
        assert!(matches!(places.borrow().get(&id), Some(Place::Offline(_))));
        assert_eq!(waiting.value(), 1);

        places.borrow_mut().clear();
        let opening = Opening::begin(&places, id);
        places.borrow_mut().clear();
        opening.end(Place::Offline("deleted meanwhile".into()));
        assert!(places.borrow().is_empty());
    }
}
