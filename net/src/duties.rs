//! What the cluster's picture asks of this shard's partitions, and what they want from the
//! controller: roles in, changes of the in-sync sets out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coordinator::cluster::{self, PartitionEpoch};
use coordinator::controller::{IsrChange, Refusal, Reply, Request, Why};
use coordinator::image::Image;
use engine::env::{Env, Queue};
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};
use engine::wait::Watch;
use futures_lite::future;
use replication::Partition;
use replication::ask::{AlterIsr, Ask, IsrAnswer};
use replication::role::{self, Assignment};

use crate::env::NetEnv;
use crate::shard::Shard;

/// How often leaders are looked at for replicas that have fallen behind.
const TICK: Duration = Duration::from_millis(100);
/// Partitions of one request to the controller.
const CHANGES_MAX: usize = 10_000;
/// Requests to the controller that may be on their way. Meanwhile wishes gather for the next one:
/// a broker that comes back is let in by all its leaders, partition by partition, as it catches up.
const PROPOSING_MAX: u64 = 4;

/// What the picture says of one partition, for its replicas.
pub fn assignment(partition: &cluster::Partition) -> Assignment {
    Assignment {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: role::PartitionEpoch(partition.epoch.0),
        replicas: partition.replicas.to_vec(),
        isr: partition.isr.to_vec(),
    }
}

/// Gives an opened partition the role that the newest picture says.
pub(crate) async fn settle<E: NetEnv>(
    shard: &Shard<E>,
    id: TopicPartition,
    partition: &Partition<E>,
) {
    loop {
        let image = shard.image();
        let Some(known) = image.partition(id.topic, id.partition) else { return };
        let _ = partition.assign(assignment(known)).await;
        shard.0.groups.look(shard, id, partition);
        if shard.image().offset() == image.offset() {
            return;
        }
    }
}

/// Gives a partition that may be open its new role, beside everything else.
pub(crate) fn settle_soon<E: NetEnv>(shard: &Shard<E>, id: TopicPartition) {
    let Some(partition) = shard.0.partitions.opened(id) else { return };
    let shard = shard.clone();
    shard.env().clone().spawn(Queue::Replication, async move {
        settle(&shard, id, &partition).await;
    });
}

/// A proposal that was sent for a partition.
struct Sent {
    epoch: LeaderEpoch,
    attempt: u64,
}

/// Carries the wishes of this shard's leaders to the controller until the shard stops. `noted`
/// are partitions that may have one; every other leader is looked at once per tick.
pub(crate) async fn carry_asks<E: NetEnv>(shard: Shard<E>) {
    let (mut begun, ended) = (0, Watch::new(0));
    loop {
        if begun - ended.value() >= PROPOSING_MAX {
            let stopping = shard.0.stopping.reach(1);
            let _ = future::or(ended.reach(begun - PROPOSING_MAX + 1), stopping).await;
        }
        let next = shard.env().now().after(TICK);
        let seen = shard.0.asking.value();
        let woken = async {
            let _ = shard.0.asking.reach(seen + 1).await;
            false
        };
        let tick = async {
            shard.env().sleep_until(next).await;
            true
        };
        let stopping = async {
            let _ = shard.0.stopping.reach(1).await;
            true
        };
        let all = future::or(stopping, future::or(woken, tick)).await;
        if shard.0.stopping.value() > 0 {
            return;
        }
        let noted: BTreeSet<TopicPartition> = std::mem::take(&mut shard.0.asks.borrow_mut());
        let now = shard.env().now();
        let (mut wishes, mut spent) = (Vec::new(), Vec::new());
        let mut look = |id: TopicPartition, partition: &Partition<E>| match partition.ask(now) {
            Some(Ask::AlterIsr(alter)) => wishes.push((id, partition.clone(), alter)),
            Some(Ask::NewTerm { leader_epoch }) => spent.push((id, leader_epoch)),
            None => {}
        };
        match all {
            true => shard.0.partitions.for_each(look),
            false => noted.into_iter().for_each(|id| {
                let opened = shard.0.partitions.opened(id);
                opened.iter().for_each(|partition| look(id, partition));
            }),
        }
        if !spent.is_empty() {
            let asking = shard.clone();
            shard.env().spawn(Queue::Replication, async move { renew(&asking, spent).await });
        }
        for chunk in chunks(wishes) {
            begun += 1;
            let (asking, ended) = (shard.clone(), ended.clone());
            shard.env().spawn(Queue::Replication, async move {
                propose(&asking, chunk).await;
                ended.raise(ended.value() + 1);
            });
        }
    }
}

type Wish<E> = (TopicPartition, Partition<E>, AlterIsr);

fn chunks<E: Env>(wishes: Vec<Wish<E>>) -> Vec<Vec<Wish<E>>> {
    let mut chunks = Vec::new();
    let mut rest = wishes.into_iter().peekable();
    while rest.peek().is_some() {
        chunks.push(rest.by_ref().take(CHANGES_MAX).collect());
    }
    chunks
}

/// Asks the controller for new in-sync sets, and tells the leaders what became of it.
async fn propose<E: NetEnv>(shard: &Shard<E>, wishes: Vec<Wish<E>>) {
    let image = shard.image();
    let me = shard.options().me;
    let epoch = image.broker(me).map_or(BrokerEpoch(-1), |broker| broker.epoch);
    let mut sent: BTreeMap<TopicPartition, (Partition<E>, Sent)> = BTreeMap::new();
    let mut changes = Vec::with_capacity(wishes.len());
    for (id, partition, alter) in wishes {
        changes.push(change(&image, id, &alter));
        let wish = Sent { epoch: alter.leader_epoch, attempt: alter.attempt };
        sent.insert(id, (partition, wish));
    }
    let request = Request::AlterPartitions { broker: me, epoch, partitions: changes };
    let answers = match shard.control(request).await {
        Some(Reply::AlteredPartitions(Ok(answers))) => answers,
        Some(Reply::AlteredPartitions(Err(refusal))) => {
            tracing::warn!(why = refusal.message, "no in-sync set was changed");
            Vec::new()
        }
        _ => Vec::new(),
    };
    for (id, answer) in answers {
        // The pictures of this broker show it by now, so that roles know it, too.
        if let Some((partition, wish)) = sent.remove(&id) {
            partition.on_isr_answer(wish.epoch, wish.attempt, &isr_answer(id, answer));
        }
    }
    for (partition, wish) in sent.into_values() {
        partition.on_isr_answer(wish.epoch, wish.attempt, &IsrAnswer::Unknown);
    }
}

/// Asks the controller for new terms. The picture brings them; until then it is asked again.
async fn renew<E: NetEnv>(shard: &Shard<E>, partitions: Vec<(TopicPartition, LeaderEpoch)>) {
    let count = partitions.len();
    tracing::warn!(count, "leaders gave up batches that followers may have: new terms are needed");
    let broker = shard.options().me;
    let epoch = shard.image().broker(broker).map_or(BrokerEpoch(-1), |broker| broker.epoch);
    if let Some(Reply::NewTerms(Err(refusal))) =
        shard.control(Request::NewTerms { broker, epoch, partitions }).await
    {
        tracing::warn!(why = refusal.message, "no new terms were given");
    }
}

fn change(image: &Image, id: TopicPartition, alter: &AlterIsr) -> IsrChange {
    let registered =
        |member: BrokerId| image.broker(member).map_or(BrokerEpoch(-1), |broker| broker.epoch);
    IsrChange {
        partition: id,
        leader_epoch: alter.leader_epoch,
        partition_epoch: PartitionEpoch(alter.partition_epoch.0),
        isr: alter
            .isr
            .iter()
            .map(|&(member, epoch)| (member, epoch.unwrap_or_else(|| registered(member))))
            .collect(),
    }
}

fn isr_answer(id: TopicPartition, answer: Result<cluster::Partition, Refusal>) -> IsrAnswer {
    match answer {
        Ok(partition) => IsrAnswer::Accepted {
            partition_epoch: role::PartitionEpoch(partition.epoch.0),
            isr: partition.isr.to_vec(),
        },
        Err(refusal) => {
            tracing::debug!(%id, why = refusal.message, "an in-sync set was not changed");
            match refusal.why {
                Why::IneligibleReplica => IsrAnswer::Ineligible,
                Why::NotController => IsrAnswer::Unknown,
                _ => IsrAnswer::Stale,
            }
        }
    }
}
