//! Somebody who follows each coordinator: every one must tell the same story of the cluster.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::group::partition_of;
use coordinator::image::Image;
use coordinator::observer::Observer;
use coordinator::quorum::since::{News, Since};
use coordinator::records::snapshot;
use engine::env::Env;
use engine::env::sim::SimEnv;
use engine::ids::{BrokerId, Offset, TopicId};
use engine::time::Instant;
use futures_lite::future;
use net::controllers::Controllers;

use crate::oracle::{Broken, Invariant, Kept, Oracle, broken};

/// What was seen of the cluster, by anybody.
pub struct Registry {
    oracle: Rc<Oracle>,
    /// Hash of the picture at each offset.
    pictures: RefCell<BTreeMap<u64, u64>>,
    /// Who led which partition in which epoch.
    leaders: RefCell<BTreeMap<(TopicId, i32, i32), i32>>,
    newest: RefCell<Arc<Image>>,
    /// The same by name, in the order in which it was seen.
    history: RefCell<BTreeMap<(String, i32), Vec<Led>>>,
    pub elections: Cell<u64>,
}

/// Who led, and when that was seen first.
#[derive(Clone, Copy)]
pub struct Led {
    pub seen: Instant,
    pub epoch: i32,
    pub leader: i32,
}

impl Registry {
    pub fn new(oracle: Rc<Oracle>) -> Registry {
        Registry {
            oracle,
            pictures: RefCell::default(),
            leaders: RefCell::default(),
            newest: RefCell::new(Arc::new(Image::empty())),
            history: RefCell::default(),
            elections: Cell::new(0),
        }
    }

    /// The newest picture that any coordinator has shown.
    pub fn image(&self) -> Arc<Image> {
        self.newest.borrow().clone()
    }

    /// Who led the partition of `topic` in which `group` is kept.
    pub fn history(&self, topic: &str, group: &str) -> Vec<Led> {
        let image = self.image();
        let count = image.topic(topic).map_or(1, |topic| topic.partitions().count());
        let key = (topic.to_owned(), partition_of(group, count as i32));
        self.history.borrow().get(&key).cloned().unwrap_or_default()
    }

    /// Somebody is said to lead.
    pub fn on_leader(&self, topic: TopicId, partition: i32, epoch: i32, leader: i32) -> Kept {
        if leader < 0 {
            return Ok(());
        }
        let mut leaders = self.leaders.borrow_mut();
        let known = *leaders.entry((topic, partition, epoch)).or_insert(leader);
        if known != leader {
            let how = format!("{topic}-{partition}: {known} and {leader} lead in epoch {epoch}");
            return broken(Invariant::OneLeaderPerEpoch, how);
        }
        Ok(())
    }

    fn on_picture(&self, env: &SimEnv, of: BrokerId, image: Arc<Image>) -> Kept {
        let offset = image.offset();
        let bytes = snapshot::encode(image.cluster(), offset);
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let known = *self.pictures.borrow_mut().entry(offset.value()).or_insert(hash);
        if known != hash {
            let how = format!("coordinator {of} has another past below {offset}");
            return broken(Invariant::ImageIsPrefixOfMetadataLog, how);
        }
        let before = self.image();
        if before.offset() >= offset {
            return Ok(());
        }
        self.newest.replace(image.clone());
        self.differences(env, &before, &image)
    }

    /// Writes down what has changed.
    fn differences(&self, env: &SimEnv, before: &Image, image: &Image) -> Kept {
        let event = |what: std::fmt::Arguments<'_>| self.oracle.event(env.now(), "cluster", what);
        for broker in image.brokers() {
            let old = before.broker(broker.id);
            let is_new =
                old.is_none_or(|old| (old.epoch, old.fenced) != (broker.epoch, broker.fenced));
            if is_new {
                let how = if broker.fenced { "fenced" } else { "active" };
                event(format_args!("broker {} epoch {} {how}", broker.id, broker.epoch));
            }
        }
        for topic in image.topics() {
            for (index, part) in topic.partitions() {
                let old = before.partition(topic.id, index);
                if old == Some(part) {
                    continue;
                }
                let leader = part.leader.map_or(-1, |leader| leader.0);
                self.on_leader(topic.id, index.0, part.leader_epoch.0, leader)?;
                let (seen, epoch) = (env.now(), part.leader_epoch.0);
                let key = (topic.name.to_string(), index.0);
                let led = Led { seen, epoch, leader };
                let mut history = self.history.borrow_mut();
                let led_before = history.entry(key).or_default();
                if led_before.last().is_none_or(|last| last.epoch != epoch) {
                    led_before.push(led);
                }
                if old.is_some_and(|old| old.leader != part.leader) {
                    self.elections.set(self.elections.get() + 1);
                }
                let ids = |of: &[BrokerId]| of.iter().map(|id| id.0).collect::<Vec<_>>();
                event(format_args!(
                    "{:<8} {} leader {leader:>2} epoch {:>3} version {:>3} isr {:?} elr {:?}",
                    topic.name,
                    index,
                    part.leader_epoch,
                    part.epoch.0,
                    ids(&part.isr),
                    ids(&part.elr),
                ));
            }
        }
        Ok(())
    }
}

/// How long no news are waited for: the connection may be half open.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows one coordinator for ever, from the beginning each time that the connection is lost.
pub async fn watch(env: SimEnv, registry: Rc<Registry>, voter: (BrokerId, String)) {
    let of = voter.0;
    let asking = Controllers::new(&env, BrokerId(900 + of.0), vec![voter]);
    let (mut observer, mut link) = (Observer::default(), None);
    loop {
        let from = observer.offset();
        let late = async {
            env.sleep_until(env.now().after(PATIENCE)).await;
            None
        };
        let asked = async { Some(asking.since(0, &mut link, from).await) };
        let Some(Ok(since)) = future::or(asked, late).await else {
            (observer, link) = (Observer::default(), None);
            env.sleep_until(env.now().after(Duration::from_millis(50))).await;
            continue;
        };
        let mut pictures = Vec::new();
        let mut take = |since: &Since| {
            observer.on_since(since).map(|image: Option<Arc<Image>>| pictures.extend(image))
        };
        let taken = match &since.news {
            News::Snapshot(_) => take(&since),
            News::Entries(entries) => {
                let first = since.end.value() - entries.len() as u64;
                (first + 1..).zip(entries).try_for_each(|(end, entry)| {
                    let news = News::Entries(vec![entry.clone()]);
                    take(&Since { leader: since.leader, end: Offset::new(end), news })
                })
            }
        };
        let seen = match taken {
            Ok(()) => pictures.into_iter().try_for_each(|p| registry.on_picture(&env, of, p)),
            Err(error) => Err(Broken(
                Invariant::ImageIsPrefixOfMetadataLog,
                format!("coordinator {of}: {error}"),
            )),
        };
        if let Err(how) = seen {
            registry.oracle.event(env.now(), "watcher", format_args!("BROKEN {how}"));
            registry.oracle.report(how);
            return;
        }
    }
}

/// Whether every partition is led and has all of its replicas in sync.
pub fn is_whole(image: &Image) -> bool {
    let offset = image.offset();
    offset > Offset::ZERO
        && image.topics().all(|topic| {
            topic
                .partitions()
                .all(|(_, part)| part.leader.is_some() && part.isr.len() == part.replicas.len())
        })
}
